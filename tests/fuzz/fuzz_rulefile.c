/* fuzz_rulefile.c - a rules file, YAML or JSON: read, its messages placed, what it says bound and planned. */
#include "config.h"

#include <string.h>

#include "daemon/rulefile/rulefile.h"
#include "tests/fuzz/fuzz.h"

const char fuzz_name[] = "rulefile";

/*
 * libfyaml 0.7 loses 4 KiB for a long text of many doubled quotes (corpus/rulefile/many-quotes.yaml). Rules files are
 * read once by a process, and YAML never comes over the wire: nothing that we could do is worth it.
 */
const char *__lsan_default_suppressions(void);
__attribute__((visibility("default"))) const char *__lsan_default_suppressions(void) { return "leak:libfyaml\n"; }

static void check_messages(const fz_rulefile *file, size_t n_lines) {
  unsigned line = 0;
  size_t errors = 0;

  for (size_t i = 0; i < fz_rulefile_n_messages(file); i++) {
    const struct fz_rulefile_message *message = fz_rulefile_message(file, i);
    FUZZ_CHECK(strncmp(message->text, "file.yaml", 9) == 0 && message->message[0]);
    FUZZ_CHECK(message->line >= line && message->line <= n_lines && (message->line > 0) == (message->column > 0));
    line = message->line;
    errors += message->severity == FZ_ERROR;
  }
  FUZZ_CHECK(errors <= fz_rulefile_n_errors(file));
}

/* What the file says as JSON is the same document. */
static void check_json(const fz_rulefile *file) {
  const char *json = fz_rulefile_json(file);
  fz_ruleset *again = NULL;
  FUZZ_CHECK(json && fz_ruleset_parse(&again, json, strlen(json), NULL) == 0);
  FUZZ_CHECK(fz_ruleset_equal(fz_rulefile_ruleset(file), again));
  fz_ruleset_unref(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static const struct fuzz_point point = { .step = 1, .max_rows = FZ_PLAN_ROWS, .max_masks = FZ_PLAN_MASKS_MAX };
  fz_rulefile *file = NULL;
  fz_diagnostics diagnostics = FZ_DIAGNOSTICS_NULL;
  fz_rules *rules = NULL;
  size_t n_lines = 1;

  for (size_t i = 0; i < size; i++)
    n_lines += data[i] == '\n' || data[i] == '\r';
  FUZZ_CHECK(fz_rulefile_parse(&file, "file.yaml", (const char *)data, size) == 0);
  fz_ruleset *ruleset = fz_rulefile_ruleset(file);
  FUZZ_CHECK((ruleset == NULL) == (fz_rulefile_n_errors(file) > 0));
  check_messages(file, n_lines);
  if (ruleset) {
    check_json(file);
    FUZZ_CHECK(fz_ruleset_bind(ruleset, fuzz_params(), "run", false, &rules, &diagnostics) >= 0);
    FUZZ_CHECK(fz_rulefile_place(file, &diagnostics) == 0);
    check_messages(file, n_lines);
  }
  if (rules)
    fuzz_check_rules(rules, &point);
  fz_rules_unref(rules);
  fz_diagnostics_deinit(&diagnostics);
  fz_rulefile_free(file);
  return 0;
}
