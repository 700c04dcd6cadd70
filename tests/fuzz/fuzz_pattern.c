/* fuzz_pattern.c - patterns, one a line: each compiled and matched, then all together as a command gets them. */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/rules/selector.h"
#include "protocol/limits.h"
#include "protocol/mask.h"
#include "tests/fuzz/fuzz.h"

const char fuzz_name[] = "pattern";

enum { PATTERNS = 16, WORDS = 2 };

static bool starts_with(const struct fz_param *param, const char *text) {
  return param->name_length >= strlen(text) && memcmp(param->name, text, strlen(text)) == 0;
}

/* The two forms that are simple enough to be said again here. */
static void check_simple(const char *pattern, const fz_params *params, const uint64_t *mask) {
  for (size_t i = 0; i < fz_params_count(params); i++) {
    const struct fz_param *param = fz_params_get(params, i);
    if (strncmp(pattern, "name:", 5) == 0)
      FUZZ_CHECK(fz_mask_get(mask, i) == (strcmp(param->name, pattern + 5) == 0));
    if (strncmp(pattern, "prefix:", 7) == 0)
      FUZZ_CHECK(fz_mask_get(mask, i) == starts_with(param, pattern + 7));
  }
}

static void check_match(const fz_selector *selector, const char *pattern) {
  const fz_params *params = fuzz_params();
  const size_t n = fz_params_count(params);
  uint64_t mask[WORDS] = { 0 };
  size_t matched = 0;
  char *hint = NULL;

  FUZZ_CHECK(fz_mask_words(n) == WORDS && strcmp(fz_selector_text(selector), pattern) == 0);
  const int r = fz_selector_match(selector, params, mask, &matched);
  FUZZ_CHECK(r == 0 || r == -E2BIG);
  FUZZ_CHECK(mask[WORDS - 1] >> (n % 64) == 0);
  if (r == 0) {
    FUZZ_CHECK(matched == fz_mask_count(mask, n));
    check_simple(pattern, params, mask);
  }
  if (r == 0 && matched == 0)
    FUZZ_CHECK(fz_selector_hint(selector, params, true, &hint) == 0);
  free(hint);
}

static void check_pattern(const char *pattern) {
  fz_diagnostics diagnostics = FZ_DIAGNOSTICS_NULL;
  fz_selector *selector = NULL;
  const int r = fz_selector_new(&selector, pattern, strlen(pattern), "/p", &diagnostics);

  FUZZ_CHECK(r == 0 || r == FZ_SELECTOR_BAD);
  FUZZ_CHECK((r == 0) == (selector != NULL) && diagnostics.errors == (r ? 1 : 0));
  for (size_t i = 0; i < diagnostics.n; i++) {
    const struct fz_diagnostic *item = &diagnostics.items[i];
    FUZZ_CHECK(item->offset == SIZE_MAX || item->offset + item->length <= strlen(pattern));
  }
  if (selector)
    check_match(selector, pattern);
  fz_selector_free(selector);
  fz_diagnostics_deinit(&diagnostics);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const char *patterns[PATTERNS];
  size_t n = 0;
  uint64_t mask[WORDS];
  fz_diagnostics diagnostics = FZ_DIAGNOSTICS_NULL;
  char *rest, *text = strndup((const char *)data, size);

  FUZZ_CHECK(text != NULL);
  for (char *line = strtok_r(text, "\n", &rest); line && n < PATTERNS; line = strtok_r(NULL, "\n", &rest))
    if (strlen(line) <= FZ_PATTERN_MAX)
      patterns[n++] = line;
  for (size_t i = 0; i < n; i++)
    check_pattern(patterns[i]);
  if (n > 0) {
    const int r = fz_patterns_match(fuzz_params(), patterns, n, mask, &diagnostics);
    FUZZ_CHECK(r >= 0 && (r == 0) == (diagnostics.errors == 0));
    FUZZ_CHECK(r != 0 || mask[WORDS - 1] >> (fz_params_count(fuzz_params()) % 64) == 0);
  }
  fz_diagnostics_deinit(&diagnostics);
  free(text);
  return 0;
}
