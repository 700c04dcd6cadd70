/* changes.c - tells in words what flips from one mask of a simulation to the next, and which rule does it. */
#include "config.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/ctl/changes.h"
#include "daemon/rules/explain.h"
#include "protocol/mask.h"

/* A sentence names so many parameters or modules, and a row has so many sentences. */
#define NAMES_MAX 4
#define GROUPS_MAX 8

struct fz_change_teller {
  fz_params *params; /* a reference */
  size_t n;
  uint64_t *mask;          /* of the point before */
  struct fz_cause *causes; /* of the point before */
  struct fz_cause *now;
  size_t skip; /* bytes of the module that all names begin with, "model.", left out */
};

/* Parameters that flip in the same direction for the same reason. */
struct group {
  bool by_rule;
  uint32_t rule;
  bool ends; /* because that rule ends, rather than begins */
  bool trains;
  uint64_t *mask;
};

/* Length of "model." if that is where all names begin, else 0. */
static size_t common_module(const fz_params *params) {
  const size_t n = fz_params_count(params);
  const char *first = n ? fz_params_get(params, 0)->name : "";
  const char *dot = strchr(first, '.');
  const size_t length = dot ? (size_t)(dot - first) + 1 : 0;
  for (size_t i = 1; i < n && length > 0; i++)
    if (strncmp(fz_params_get(params, i)->name, first, length) != 0)
      return 0;
  return n > 1 ? length : 0;
}

int fz_change_teller_new(fz_change_teller **ret_teller, fz_params *params) {
  fz_change_teller *teller = calloc(1, sizeof(*teller));
  if (!teller)
    return -ENOMEM;
  teller->params = fz_params_ref(params);
  teller->n = fz_params_count(params);
  teller->skip = common_module(params);
  teller->mask = calloc(fz_mask_words(teller->n) + 1, sizeof(uint64_t));
  teller->causes = calloc(teller->n + 1, sizeof(struct fz_cause));
  teller->now = calloc(teller->n + 1, sizeof(struct fz_cause));
  if (!teller->mask || !teller->causes || !teller->now) {
    fz_change_teller_free(teller);
    return -ENOMEM;
  }
  memcpy(teller->mask, fz_params_baseline(params), fz_mask_words(teller->n) * sizeof(uint64_t));
  for (size_t i = 0; i < teller->n; i++)
    teller->causes[i].layer = FZ_LAYER_BASELINE;
  *ret_teller = teller;
  return 0;
}

fz_change_teller *fz_change_teller_free(fz_change_teller *teller) {
  if (!teller)
    return NULL;
  fz_params_unref(teller->params);
  free(teller->mask);
  free(teller->causes);
  free(teller->now);
  free(teller);
  return NULL;
}

/* Why a parameter flips. */
static struct group reason_of(const fz_ruleset *ruleset, const struct fz_cause *before, const struct fz_cause *now,
                              uint64_t step, uint64_t epoch) {
  const bool had_rule = before->layer == FZ_LAYER_RULE, has_rule = now->layer == FZ_LAYER_RULE;
  if (had_rule && !(has_rule && now->index >= before->index) &&
      !fz_window_active(&fz_ruleset_get(ruleset, before->index)->window, step, epoch))
    return (struct group){ .by_rule = true, .rule = before->index, .ends = true };
  return (struct group){ .by_rule = has_rule, .rule = now->index };
}

/* The group of a reason, made when it is new; NULL when there is no room or no memory. */
static struct group *group_for(struct group *groups, size_t *n, const struct group *reason, size_t words) {
  for (size_t i = 0; i < *n; i++)
    if (groups[i].by_rule == reason->by_rule && groups[i].rule == reason->rule && groups[i].ends == reason->ends &&
        groups[i].trains == reason->trains)
      return &groups[i];
  if (*n == GROUPS_MAX)
    return NULL;
  groups[*n] = *reason;
  groups[*n].mask = calloc(words + 1, sizeof(uint64_t));
  return groups[*n].mask ? &groups[(*n)++] : NULL;
}

static int write_names(FILE *out, const fz_change_teller *teller, const uint64_t *mask, size_t *ret_count) {
  char **names;
  size_t n, more;
  const int r = fz_mask_names(teller->params, mask, NAMES_MAX, &names, &n, &more);
  if (r < 0)
    return r;
  for (size_t i = 0; i < n; i++) {
    const bool strip = teller->skip > 0 && strncmp(names[i], fz_params_get(teller->params, 0)->name, teller->skip) == 0;
    fprintf(out, "%s%s", i ? ", " : "", names[i] + (strip ? teller->skip : 0));
  }
  if (more > 0)
    fprintf(out, " and %zu more", more);
  fz_names_free(names, n);
  *ret_count = n + more;
  return 0;
}

static int write_group(FILE *out, const fz_change_teller *teller, const fz_ruleset *ruleset, const struct group *group,
                       bool first) {
  size_t count = 0;
  const char *rule = group->by_rule ? fz_ruleset_get(ruleset, group->rule)->name : "script";
  fprintf(out, "%s%s%s: ", first ? "" : "; ", rule, group->ends ? " ends" : "");
  if (!group->ends)
    fputs(group->trains ? "unfreezes " : "freezes ", out);
  const int r = write_names(out, teller, group->mask, &count);
  if (group->ends)
    fputs(group->trains ? (count == 1 ? " trains" : " train") : " frozen again", out);
  return r;
}

static int write_text(FILE *out, fz_change_teller *teller, const fz_ruleset *ruleset, uint64_t step, uint64_t epoch,
                      const uint64_t *mask) {
  struct group groups[GROUPS_MAX];
  size_t n = 0, left_out = 0;
  int r = 0;

  for (size_t i = 0; i < teller->n; i++) {
    if (fz_mask_get(mask, i) == fz_mask_get(teller->mask, i))
      continue;
    struct group reason = reason_of(ruleset, &teller->causes[i], &teller->now[i], step, epoch);
    reason.trains = fz_mask_get(mask, i);
    struct group *group = group_for(groups, &n, &reason, fz_mask_words(teller->n));
    if (group)
      fz_mask_put(group->mask, i, true);
    else
      left_out++;
  }
  for (size_t i = 0; i < n; i++) {
    if (r == 0)
      r = write_group(out, teller, ruleset, &groups[i], i == 0);
    free(groups[i].mask);
  }
  if (left_out > 0)
    fprintf(out, "; %zu more", left_out);
  return r;
}

int fz_change_teller_next(fz_change_teller *teller, const fz_layers *layers, uint64_t step, uint64_t epoch,
                          const uint64_t *mask, char **ret_text) {
  const fz_rules *rules = fz_layers_rules(layers);
  const fz_ruleset *ruleset = rules ? fz_rules_ruleset(rules) : NULL;
  char *text = NULL;
  size_t size;

  int r = fz_layers_causes(layers, step, epoch, teller->now);
  FILE *out = r == 0 ? open_memstream(&text, &size) : NULL;
  if (!out)
    return -ENOMEM;
  r = write_text(out, teller, ruleset, step, epoch, mask);
  if (fclose(out) != 0)
    r = -ENOMEM;
  if (r < 0) {
    free(text);
    return r;
  }
  memcpy(teller->mask, mask, fz_mask_words(teller->n) * sizeof(uint64_t));
  struct fz_cause *spare = teller->causes;
  teller->causes = teller->now;
  teller->now = spare;
  *ret_text = text;
  return 0;
}
