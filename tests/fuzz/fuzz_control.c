/* fuzz_control.c - requests of control clients: lines in any chunks, decoded, their patterns and rules looked at. */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "daemon/rules/ruleset.h"
#include "protocol/control.h"
#include "protocol/json.h"
#include "protocol/text.h"
#include "protocol/writer.h"
#include "tests/fuzz/fuzz.h"

const char fuzz_name[] = "control";

static void check_patterns(const fz_request *request) {
  size_t n = 0;

  for (const fz_json *item = fz_json_first(request->patterns); item; item = fz_json_next(item)) {
    const char *pattern = fz_json_string(item);
    FUZZ_CHECK(pattern && strlen(pattern) >= 1 && strlen(pattern) <= FZ_PATTERN_MAX);
    FUZZ_CHECK(fz_text_is_clean(pattern, strlen(pattern)));
    n++;
  }
  FUZZ_CHECK(n == request->n_patterns && n <= FZ_PATTERNS_MAX);
}

/* Rules go on as text, as freezerd hands them on. */
static void check_rules(const fz_json *rules) {
  char *text = NULL;
  size_t length;
  fz_ruleset *ruleset = NULL;
  fz_diagnostics diagnostics = FZ_DIAGNOSTICS_NULL;

  FUZZ_CHECK(fz_json_get_type(rules) == FZ_JSON_OBJECT);
  FUZZ_CHECK(fz_json_to_text(rules, FZ_LINE_MAX, &text, &length) == 0);
  const int r = fz_ruleset_parse(&ruleset, text, length, &diagnostics);
  FUZZ_CHECK(r >= 0 && (r == 0) == (diagnostics.errors == 0));
  fz_ruleset_unref(ruleset);
  fz_diagnostics_deinit(&diagnostics);
  free(text);
}

static void check_request(const fz_request *request) {
  enum fz_op op;

  FUZZ_CHECK(request->has_id);
  FUZZ_CHECK(fz_op_parse(fz_op_name(request->op), &op) && op == request->op);
  FUZZ_CHECK(!request->reason || strlen(request->reason) <= FZ_REASON_MAX);
  FUZZ_CHECK(!request->run || strlen(request->run) <= FZ_RUN_NAME_MAX);
  FUZZ_CHECK(request->at_step == FZ_TIME_NEVER || request->at_step <= FZ_STEP_MAX);
  FUZZ_CHECK(request->wait_ms == FZ_TIME_NEVER || request->wait_ms <= FZ_WAIT_MS_MAX);
  FUZZ_CHECK(request->for_steps >= 1);
  check_patterns(request);
  if (request->rules)
    check_rules(request->rules);
}

static bool take(void *context, char *line, size_t length) {
  char why[FZ_FIELD_MESSAGE_SIZE] = "";
  fz_json *root = NULL;
  fz_request request;
  fz_field_error error;

  (void)context;
  if (fz_json_parse(&root, line, length, why, sizeof(why)) != 0) {
    FUZZ_CHECK(why[0] != '\0');
    return false;
  }
  const int r = fz_request_decode(&request, root, &error);
  FUZZ_CHECK(r >= 0 && (r == 0 || error.message[0]));
  if (r == 0)
    check_request(&request);
  fz_json_free(root);
  return r != FZ_DECODE_VERSION;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  fuzz_lines(data, size, take, NULL);
  return 0;
}
