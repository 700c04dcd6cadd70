/* decisions.c - overrides and pins as objects: copies of what was asked, shared by the layers that hold them. */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/rules/layers_internal.h"
#include "protocol/mask.h"

static void free_list(char **list, size_t n) {
  for (size_t i = 0; i < n; i++)
    free(list[i]);
  free(list);
}

/* Appends copies to a list of which `room` is known to be enough. */
static bool copy_into(char **list, size_t *n, const char *const *from, size_t count) {
  for (size_t i = 0; i < count; i++) {
    list[*n] = strdup(from[i]);
    if (!list[*n])
      return false;
    ++*n;
  }
  return true;
}

static bool copy_text(const char *text, char **ret_copy) {
  *ret_copy = text ? strdup(text) : NULL;
  return *ret_copy || !text;
}

static bool copy_mask(const uint64_t *mask, size_t words, uint64_t **ret_copy) {
  if (!mask)
    return true;
  *ret_copy = (uint64_t *)calloc(words + 1, sizeof(uint64_t));
  if (*ret_copy)
    memcpy(*ret_copy, mask, words * sizeof(uint64_t));
  return *ret_copy != NULL;
}

static bool copy_parts(struct fz_decision *decision, const struct fz_decision_parts *parts) {
  const size_t words = fz_mask_words(parts->n_params);
  const struct fz_who *who = &parts->who;
  decision->patterns = (char **)calloc(parts->n_patterns + 1, sizeof(char *));
  decision->dropped = (char **)calloc(parts->n_dropped + parts->n_dropped_more + 1, sizeof(char *));
  return decision->patterns && decision->dropped &&
         copy_into(decision->patterns, &decision->n_patterns, parts->patterns, parts->n_patterns) &&
         copy_into(decision->dropped, &decision->n_dropped, parts->dropped, parts->n_dropped) &&
         copy_into(decision->dropped, &decision->n_dropped, parts->dropped_more, parts->n_dropped_more) &&
         copy_mask(parts->mask, words, &decision->mask) && copy_mask(parts->values, words, &decision->values) &&
         copy_text(who->user ? who->user : "", &decision->user) && copy_text(who->host, &decision->host) &&
         copy_text(who->command, &decision->command) && copy_text(parts->reason, &decision->reason);
}

int fz_decision_new(const struct fz_decision_parts *parts, struct fz_decision **ret_decision) {
  struct fz_decision *decision = (struct fz_decision *)calloc(1, sizeof(*decision));
  if (!decision)
    return -ENOMEM;
  decision->references = 1;
  if (!copy_parts(decision, parts)) {
    fz_decision_unref(decision);
    return -ENOMEM;
  }
  const struct fz_who who = {
    .uid = parts->who.uid, .user = decision->user, .host = decision->host, .command = decision->command
  };
  const size_t matches = fz_mask_count(decision->mask, parts->n_params);
  if (parts->values)
    decision->pin = (struct fz_pin){ .patterns = (const char *const *)decision->patterns,
                                     .n_patterns = decision->n_patterns,
                                     .dropped = (const char *const *)decision->dropped,
                                     .n_dropped = decision->n_dropped,
                                     .mask = decision->mask,
                                     .values = decision->values,
                                     .matches = matches,
                                     .who = who,
                                     .reason = decision->reason };
  else
    decision->override = (struct fz_override){ .patterns = (const char *const *)decision->patterns,
                                               .n_patterns = decision->n_patterns,
                                               .dropped = (const char *const *)decision->dropped,
                                               .n_dropped = decision->n_dropped,
                                               .mask = decision->mask,
                                               .matches = matches,
                                               .who = who,
                                               .reason = decision->reason };
  *ret_decision = decision;
  return 0;
}

struct fz_decision *fz_decision_unref(struct fz_decision *decision) {
  if (!decision || --decision->references > 0)
    return NULL;
  free_list(decision->patterns, decision->n_patterns);
  free_list(decision->dropped, decision->n_dropped);
  free(decision->mask);
  free(decision->values);
  free(decision->user);
  free(decision->host);
  free(decision->command);
  free(decision->reason);
  free(decision);
  return NULL;
}

void fz_decisions_deinit(struct fz_decisions *decisions) {
  for (size_t i = 0; i < decisions->n; i++)
    fz_decision_unref(decisions->items[i]);
  free(decisions->items);
  *decisions = (struct fz_decisions){ .items = NULL };
}

int fz_decisions_copy(const struct fz_decisions *from, struct fz_decisions *to) {
  struct fz_decision **items = (struct fz_decision **)calloc(from->n + 1, sizeof(*items));
  if (!items)
    return -ENOMEM;
  for (size_t i = 0; i < from->n; i++) {
    items[i] = from->items[i];
    items[i]->references++;
  }
  *to = (struct fz_decisions){ .items = items, .n = from->n, .capacity = from->n + 1 };
  return 0;
}

int fz_decisions_append(struct fz_decisions *decisions, struct fz_decision *decision) {
  if (decisions->n == decisions->capacity) {
    const size_t capacity = decisions->capacity ? decisions->capacity * 2 : 8;
    void *items = realloc(decisions->items, capacity * sizeof(*decisions->items));
    if (!items)
      return -ENOMEM;
    decisions->items = (struct fz_decision **)items;
    decisions->capacity = capacity;
  }
  decisions->items[decisions->n++] = decision;
  return 0;
}
