/* selector_hint.c - what somebody may have meant with a pattern that selects nothing. */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/rules/braces.h"
#include "daemon/rules/selector_internal.h"
#include "daemon/rules/strbuf.h"
#include "protocol/mask.h"
#include "protocol/suggest.h"

struct search {
  const fz_selector *selector;
  const fz_params *params;
  bool counts;
  char **ret_hint; /* still NULL: nothing found */
};

static void free_string(char **text) { free(*text); }
static void free_words(uint64_t **words) { free(*words); }

/* How many parameters a pattern selects; 0 for one that does not compile. */
static int try_pattern(const struct search *search, const char *pattern, size_t *ret_matched) {
  const size_t words = fz_mask_words(fz_params_count(search->params));
  __attribute__((cleanup(free_words))) uint64_t *mask = (uint64_t *)calloc(words ? words : 1, sizeof(uint64_t));
  fz_selector *selector = NULL;
  *ret_matched = 0;
  if (!mask)
    return -ENOMEM;
  int r = fz_selector_new(&selector, pattern, strlen(pattern), NULL, NULL);
  if (!r)
    r = fz_selector_match(selector, search->params, mask, ret_matched);
  fz_selector_free(selector);
  return r == -ENOMEM ? r : 0;
}

/* If the pattern, which is consumed, selects something, it becomes the hint "did you mean …?". */
static int offer(const struct search *search, char *pattern) {
  __attribute__((cleanup(free_string))) char *text = pattern;
  size_t matched;
  if (!text)
    return -ENOMEM;
  const int r = try_pattern(search, text, &matched);
  if (r || matched == 0)
    return r;
  const bool is_param = fz_params_find(search->params, text, strlen(text)) < fz_params_count(search->params);
  if (search->counts && !is_param)
    *search->ret_hint = fz_format("did you mean '%s' (%zu parameter%s)?", text, matched, matched == 1 ? "" : "s");
  else
    *search->ret_hint = fz_format("did you mean '%s'?", text);
  return *search->ret_hint ? 0 : -ENOMEM;
}

/* 'model.layers.1*' names modules, but no parameter: 'model.layers.1*.**' would reach into them. */
static int try_modules(const struct search *search) {
  const char *text = search->selector->text;
  __attribute__((cleanup(free_string))) char *pattern = fz_format("%s.**", text);
  size_t matched;
  if (!pattern)
    return -ENOMEM;
  const int r = try_pattern(search, pattern, &matched);
  if (r || matched == 0)
    return r;
  *search->ret_hint =
    fz_format("%s; '%s' matches %zu parameter%s",
              strchr(text, '*') ? "'*' is one name component" : "a glob names parameters, not modules", pattern,
              matched, matched == 1 ? "" : "s");
  return *search->ret_hint ? 0 : -ENOMEM;
}

/* Offers every module, and every parameter unless `modules_only`. */
static void offer_names(const fz_params *params, bool modules_only, struct fz_suggestion *suggestion) {
  const char *before = "";
  for (size_t i = 0; i < fz_params_count(params); i++) {
    const struct fz_param *param = fz_params_get(params, fz_params_sorted(params, i));
    size_t common = 0;
    while (before[common] && before[common] == param->name[common])
      common++;
    /* A module that the name before lies in too was offered with it. */
    for (size_t k = common; k < param->name_length; k++)
      if (param->name[k] == '.' && k > 0)
        fz_suggestion_offer(suggestion, param->name, k, true);
    if (!modules_only)
      fz_suggestion_offer(suggestion, param->name, param->name_length, true);
    before = param->name;
  }
}

/* How many bytes at the front of the body are whole components without anything special. */
static size_t head_length(const char *body, size_t length) {
  size_t head = 0;
  for (size_t i = 0; i <= length; i++)
    if (i == length || body[i] == '.') {
      if (!fz_selector_is_bare(body, i))
        break;
      head = i;
    }
  return head;
}

/* The nearest name for the plain components at the front, the rest as it is. */
static int try_near(const struct search *search) {
  const fz_selector *selector = search->selector;
  const char *body = selector->text + selector->body;
  const size_t length = selector->length - selector->body;
  const size_t head = selector->kind == FZ_SELECTOR_DOTTED ? head_length(body, length) : length;
  struct fz_suggestion suggestion = FZ_SUGGESTION(body, head);
  offer_names(search->params, head < length, &suggestion);
  if (!suggestion.best)
    return 0;
  return offer(search, fz_format("%.*s%.*s%s", (int)selector->body, selector->text, (int)suggestion.best_length,
                                 suggestion.best, body + head));
}

/* The pattern without its first components: names of a wrapper, "module." or "model.", that are not there. */
static int try_without_head(const struct search *search) {
  const fz_selector *selector = search->selector;
  const char *body = selector->text + selector->body;
  int r = 0;
  for (const char *dot = strchr(body, '.'); !r && !*search->ret_hint && dot; dot = strchr(dot + 1, '.'))
    if (dot[1] && fz_selector_is_bare(body, (size_t)(dot - body)) &&
        fz_selector_is_bare(dot + 1, strcspn(dot + 1, ".")))
      r = offer(search, fz_format("%.*s%s", (int)selector->body, selector->text, dot + 1));
  return r;
}

/* A module where name: wants a parameter. */
static int try_bare(const struct search *search) {
  const char *body = search->selector->text + search->selector->body;
  size_t matched = 0;
  if (!fz_selector_is_bare(body, strlen(body)))
    return 0;
  const int r = try_pattern(search, body, &matched);
  if (r || matched == 0)
    return r;
  *search->ret_hint = fz_format("'name:' is one parameter; '%s' matches %zu", body, matched);
  return *search->ret_hint ? 0 : -ENOMEM;
}

int fz_selector_hint(const fz_selector *selector, const fz_params *params, bool counts, char **ret_hint) {
  static int (*const attempts[])(const struct search *) = { try_bare, try_modules, try_near, try_without_head };
  static const bool useful[][4] = {
    [FZ_SELECTOR_DOTTED] = { false, true, true, true },
    [FZ_SELECTOR_NAME] = { true, false, true, true },
    [FZ_SELECTOR_PREFIX] = { false, false, true, true },
    [FZ_SELECTOR_REGEX] = { false, false, false, false },
  };
  char *hint = NULL;
  const struct search search = { .selector = selector, .params = params, .counts = counts, .ret_hint = &hint };
  int r = 0;
  for (size_t i = 0; !r && !hint && i < sizeof(attempts) / sizeof(*attempts); i++)
    if (useful[selector->kind][i])
      r = attempts[i](&search);
  if (r)
    free(hint);
  else
    *ret_hint = hint;
  return r;
}
