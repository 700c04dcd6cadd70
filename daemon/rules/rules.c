/* rules.c - a rules document bound to the parameters of a run: its selectors as masks. */
#include "config.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "daemon/rules/ruleset_internal.h"
#include "daemon/rules/strbuf.h"
#include "protocol/mask.h"

/* All masks of one ruleset together. A thousand rules over a million parameters take half of it. */
#define MASK_BYTES_MAX (256U * 1024U * 1024U)

struct fz_rules {
  size_t references;
  fz_ruleset *ruleset;
  fz_params *params;
  size_t words;
  uint64_t *masks; /* one per rule, and the pins' behind them */
  size_t *matches;
};

struct binder {
  const fz_params *params;
  const char *run;
  bool allow_missing, names_only;
  fz_diagnostics *diagnostics;
  bool no_match, limit;
};

static void free_string(char **text) { free(*text); }
static void free_words(uint64_t **words) { free(*words); }

static int report(struct binder *binder, enum fz_severity severity, enum fz_problem problem, char *message,
                  const char *hint, const char *pointer) {
  __attribute__((cleanup(free_string))) char *text = message;
  const struct fz_diagnostic diagnostic = { .severity = severity,
                                            .problem = problem,
                                            .message = text,
                                            .hint = (char *)(uintptr_t)hint,
                                            .pointer = (char *)(uintptr_t)pointer,
                                            .offset = SIZE_MAX };
  return text ? fz_diagnostics_add(binder->diagnostics, &diagnostic) : -ENOMEM;
}

static int report_no_match(struct binder *binder, const fz_selector *selector, const char *pointer, bool required) {
  const bool error = required && !binder->allow_missing;
  __attribute__((cleanup(free_string))) char *hint = NULL;
  const int r = fz_selector_hint(selector, binder->params, false, &hint);
  if (r)
    return r;
  binder->no_match |= error;
  return report(binder, error ? FZ_ERROR : FZ_WARNING, FZ_PROBLEM_NO_MATCH,
                fz_format("'%s' matches nothing%s%s", fz_selector_text(selector), binder->run ? " in " : "",
                          binder->run ? binder->run : ""),
                hint, pointer);
}

/* ORs what the selectors select into `mask`. */
static int bind_selectors(struct binder *binder, const struct fz_selectors *selectors, bool required, uint64_t *mask) {
  for (size_t i = 0; i < selectors->n; i++) {
    const fz_selector *selector = selectors->items[i];
    size_t matched = 0;
    int r = binder->names_only ? fz_selector_match_names(selector, binder->params, mask, &matched)
                               : fz_selector_match(selector, binder->params, mask, &matched);
    if (r == -E2BIG) {
      binder->limit = true;
      r = report(binder, FZ_ERROR, FZ_PROBLEM_PATTERN,
                 fz_format("'%s' takes too long to match", fz_selector_text(selector)),
                 "anchor it with ^, or write it with fewer repetitions", selectors->pointers[i]);
    } else if (!r && matched == 0)
      r = report_no_match(binder, selector, selectors->pointers[i], required);
    if (r)
      return r;
  }
  return 0;
}

static int bind_rule(struct binder *binder, fz_rules *rules, size_t index) {
  const struct fz_rule_source *source = &rules->ruleset->rules[index];
  const size_t n = fz_params_count(rules->params);
  uint64_t *mask = rules->masks + index * rules->words;
  __attribute__((cleanup(free_words))) uint64_t *excepts =
    (uint64_t *)calloc(rules->words ? rules->words : 1, sizeof(uint64_t));
  if (!excepts)
    return -ENOMEM;
  int r = bind_selectors(binder, &source->selectors, rules->ruleset->profile == FZ_PROFILE_OWNED, mask);
  if (!r)
    r = bind_selectors(binder, &source->excepts, false, excepts);
  if (r)
    return r;
  const bool selected = fz_mask_next(mask, n, 0) < n;
  for (size_t w = 0; w < rules->words; w++)
    mask[w] &= ~excepts[w];
  rules->matches[index] = fz_mask_count(mask, n);
  if (selected && rules->matches[index] == 0) {
    __attribute__((cleanup(free_string))) char *pointer = fz_format("/rules/%zu", index);
    r = pointer ? report(binder, FZ_WARNING, FZ_PROBLEM_NO_MATCH,
                         fz_format("%s has no effect: everything it selects is excepted", source->shown), NULL, pointer)
                : -ENOMEM;
  }
  return r;
}

static int allocate(fz_ruleset *ruleset, fz_params *params, fz_rules **ret_rules) {
  fz_rules *rules = (fz_rules *)calloc(1, sizeof(*rules));
  if (!rules)
    return -ENOMEM;
  rules->references = 1;
  rules->words = fz_mask_words(fz_params_count(params));
  rules->ruleset = fz_ruleset_ref(ruleset);
  rules->params = fz_params_ref(params);
  rules->masks = (uint64_t *)calloc((ruleset->n_rules + 1) * rules->words + 1, sizeof(uint64_t));
  rules->matches = (size_t *)calloc(ruleset->n_rules + 1, sizeof(size_t));
  if (!rules->masks || !rules->matches) {
    fz_rules_unref(rules);
    return -ENOMEM;
  }
  *ret_rules = rules;
  return 0;
}

int fz_ruleset_bind(fz_ruleset *ruleset, fz_params *params, const char *run, bool allow_missing, fz_rules **ret_rules,
                    fz_diagnostics *diagnostics) {
  struct binder binder = { .params = params,
                           .run = run,
                           .allow_missing = allow_missing,
                           .names_only = ruleset->profile == FZ_PROFILE_LIGHTER,
                           .diagnostics = diagnostics };
  const size_t bytes = fz_mask_words(fz_params_count(params)) * sizeof(uint64_t);
  fz_rules *rules;
  int r;
  if (bytes > 0 && ruleset->n_rules > MASK_BYTES_MAX / bytes) {
    r = report(&binder, FZ_ERROR, FZ_PROBLEM_LIMIT,
               fz_format("%zu rules are too many for %zu parameters", ruleset->n_rules, fz_params_count(params)), NULL,
               "/rules");
    return r ? r : FZ_BIND_LIMIT;
  }
  r = allocate(ruleset, params, &rules);
  if (r)
    return r;
  r = bind_selectors(&binder, &ruleset->pins, ruleset->profile == FZ_PROFILE_OWNED,
                     rules->masks + ruleset->n_rules * rules->words);
  for (size_t i = 0; !r && i < ruleset->n_rules; i++)
    r = bind_rule(&binder, rules, i);
  if (!r)
    r = binder.limit ? FZ_BIND_LIMIT : binder.no_match ? FZ_BIND_NO_MATCH : 0;
  if (r)
    fz_rules_unref(rules);
  else
    *ret_rules = rules;
  return r;
}

int fz_ruleset_check(const char *text, size_t length, fz_params *params, const char *run, bool allow_missing,
                     fz_rules **ret_rules, fz_diagnostics *diagnostics) {
  fz_ruleset *ruleset = NULL;
  fz_rules *rules = NULL;
  const int parsed = fz_ruleset_parse_all(&ruleset, text, length, diagnostics);
  int r = parsed < 0 ? parsed : 0;
  if (ruleset)
    r = fz_ruleset_bind(ruleset, params, run, allow_missing, &rules, diagnostics);
  fz_ruleset_unref(ruleset);
  if (r < 0 || parsed) {
    fz_rules_unref(rules);
    return r < 0 ? r : FZ_CHECK_INVALID;
  }
  if (r)
    return r == FZ_BIND_LIMIT ? FZ_CHECK_LIMIT : FZ_CHECK_NO_MATCH;
  *ret_rules = rules;
  return 0;
}

fz_rules *fz_rules_ref(fz_rules *rules) {
  rules->references++;
  return rules;
}

fz_rules *fz_rules_unref(fz_rules *rules) {
  if (!rules || --rules->references > 0)
    return NULL;
  fz_ruleset_unref(rules->ruleset);
  fz_params_unref(rules->params);
  free(rules->masks);
  free(rules->matches);
  free(rules);
  return NULL;
}

fz_ruleset *fz_rules_ruleset(const fz_rules *rules) { return rules->ruleset; }

fz_params *fz_rules_params(const fz_rules *rules) { return rules->params; }

const uint64_t *fz_rules_mask(const fz_rules *rules, size_t index) {
  assert(index < rules->ruleset->n_rules);
  return rules->masks + index * rules->words;
}

size_t fz_rules_matches(const fz_rules *rules, size_t index) {
  assert(index < rules->ruleset->n_rules);
  return rules->matches[index];
}

const uint64_t *fz_rules_pinned(const fz_rules *rules) { return rules->masks + rules->ruleset->n_rules * rules->words; }
