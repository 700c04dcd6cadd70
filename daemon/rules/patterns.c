/* patterns.c - a list of patterns as a command gets it. */
#include "config.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/rules/selector.h"
#include "daemon/rules/strbuf.h"
#include "protocol/mask.h"

static void free_string(char **text) { free(*text); }
static void free_words(uint64_t **words) { free(*words); }

static int add(fz_diagnostics *diagnostics, enum fz_severity severity, enum fz_problem problem, const char *message,
               const char *hint, const char *pointer) {
  const struct fz_diagnostic diagnostic = { .severity = severity,
                                            .problem = problem,
                                            .message = (char *)(uintptr_t)message,
                                            .hint = (char *)(uintptr_t)hint,
                                            .pointer = (char *)(uintptr_t)pointer,
                                            .offset = SIZE_MAX };
  return fz_diagnostics_add(diagnostics, &diagnostic);
}

/* Says that a selector selects nothing, or ran into its limits. */
static int report(const fz_selector *selector, const fz_params *params, bool excludes, bool limit, const char *pointer,
                  fz_diagnostics *diagnostics) {
  __attribute__((cleanup(free_string))) char *hint = NULL;
  __attribute__((cleanup(free_string))) char *message =
    limit ? fz_format("'%s' takes too long to match", fz_selector_text(selector))
          : fz_format("no parameter matches '%s'", fz_selector_text(selector));
  if (!message)
    return -ENOMEM;
  const int r = limit ? 0 : fz_selector_hint(selector, params, true, &hint);
  if (r)
    return r;
  return add(diagnostics, excludes && !limit ? FZ_WARNING : FZ_ERROR, limit ? FZ_PROBLEM_PATTERN : FZ_PROBLEM_NO_MATCH,
             message, hint, pointer);
}

struct union_masks {
  uint64_t *taken;
  uint64_t *excluded;
  bool bad, no_match, takes;
};

static int match_one(const fz_params *params, const char *pattern, size_t index, struct union_masks *masks,
                     fz_diagnostics *diagnostics) {
  const bool excludes = pattern[0] == '!';
  __attribute__((cleanup(free_string))) char *pointer = fz_format("/%zu", index);
  fz_selector *selector = NULL;
  size_t matched = 0;
  if (!pointer)
    return -ENOMEM;
  const size_t known = diagnostics ? diagnostics->n : 0;
  int r = fz_selector_new(&selector, pattern + excludes, strlen(pattern + excludes), pointer, diagnostics);
  if (r == FZ_SELECTOR_BAD) {
    masks->bad = true;
    /* Places count in the pattern as it was given, with its '!'. */
    for (size_t i = known; diagnostics && i < diagnostics->n; i++)
      if (diagnostics->items[i].offset != SIZE_MAX)
        diagnostics->items[i].offset += excludes;
    return 0;
  }
  if (r)
    return r;
  r = fz_selector_match(selector, params, excludes ? masks->excluded : masks->taken, &matched);
  if (r == -E2BIG) {
    masks->bad = true;
    r = report(selector, params, excludes, true, pointer, diagnostics);
  } else if (!r && matched == 0) {
    masks->no_match |= !excludes;
    r = report(selector, params, excludes, false, pointer, diagnostics);
  }
  masks->takes |= !excludes;
  fz_selector_free(selector);
  return r;
}

int fz_patterns_match(const fz_params *params, const char *const *patterns, size_t n, uint64_t *mask,
                      fz_diagnostics *diagnostics) {
  const size_t count = fz_params_count(params);
  const size_t words = fz_mask_words(count);
  __attribute__((cleanup(free_words))) uint64_t *excluded = (uint64_t *)calloc(words ? words : 1, sizeof(uint64_t));
  struct union_masks masks = { .taken = mask, .excluded = excluded };
  int r = excluded ? 0 : -ENOMEM;

  fz_mask_fill(mask, count, false);
  for (size_t i = 0; !r && i < n; i++)
    r = match_one(params, patterns[i], i, &masks, diagnostics);
  if (r)
    return r;
  if (!masks.takes && !masks.bad) {
    r = add(diagnostics, FZ_ERROR, FZ_PROBLEM_PATTERN, "every pattern excludes, none selects",
            "put a pattern before it, '**' for everything", "");
    return r ? r : FZ_PATTERNS_BAD;
  }
  for (size_t w = 0; w < words; w++)
    mask[w] &= ~excluded[w];
  if (masks.bad)
    return FZ_PATTERNS_BAD;
  if (!masks.no_match && fz_mask_next(mask, count, 0) == count) {
    masks.no_match = true;
    r = add(diagnostics, FZ_ERROR, FZ_PROBLEM_NO_MATCH, "everything that was selected is excluded again", NULL, "");
  }
  return r ? r : masks.no_match ? FZ_PATTERNS_NO_MATCH : 0;
}
