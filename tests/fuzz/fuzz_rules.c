/* fuzz_rules.c - rules as JSON, after four characters that say where they are planned (fuzz.h): bound, planned. */
#include "config.h"

#include <string.h>

#include "tests/fuzz/fuzz.h"

const char fuzz_name[] = "rules";

/* The canonical form is a fixed point. */
static void check_canonical(const fz_ruleset *ruleset) {
  const char *text = fz_ruleset_canonical(ruleset);
  fz_ruleset *again = NULL;
  FUZZ_CHECK(fz_ruleset_parse(&again, text, strlen(text), NULL) == 0);
  FUZZ_CHECK(fz_ruleset_equal(ruleset, again) && strcmp(text, fz_ruleset_canonical(again)) == 0);
  fz_ruleset_unref(again);
}

static void check_diagnostics(const fz_diagnostics *diagnostics) {
  FUZZ_CHECK(diagnostics->n <= FZ_DIAGNOSTICS_MAX);
  for (size_t i = 0; i < diagnostics->n; i++)
    FUZZ_CHECK(diagnostics->items[i].message[0] && diagnostics->items[i].pointer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  fz_diagnostics diagnostics = FZ_DIAGNOSTICS_NULL, bound = FZ_DIAGNOSTICS_NULL;
  fz_ruleset *ruleset = NULL;
  fz_rules *rules = NULL;

  if (size < 4)
    return 0;
  const struct fuzz_point point = fuzz_point_from(data);
  int r = fz_ruleset_parse(&ruleset, (const char *)data + 4, size - 4, &diagnostics);
  FUZZ_CHECK(r >= 0 && (r == 0) == (ruleset != NULL) && (r == 0) == (diagnostics.errors == 0));
  check_diagnostics(&diagnostics);
  if (r == 0) {
    check_canonical(ruleset);
    r = fz_ruleset_bind(ruleset, fuzz_params(), "run", true, &rules, &bound);
    FUZZ_CHECK(r == 0 || r == FZ_BIND_LIMIT);
    check_diagnostics(&bound);
  }
  if (rules)
    fuzz_check_rules(rules, &point);
  fz_rules_unref(rules);
  fz_ruleset_unref(ruleset);
  fz_diagnostics_deinit(&bound);
  fz_diagnostics_deinit(&diagnostics);
  return 0;
}
