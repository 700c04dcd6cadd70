/* check_control.c - requests with each field wrong, the tables of operations and codes, and the forms of answers. */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "protocol/control.h"
#include "tests/runner.h"
#include "tests/wire.h"

static int decode(const fz_json *root, fz_field_error *error) {
  fz_request request;
  return fz_request_decode(&request, root, error);
}

#define REQUIRED true
#define OPTIONAL false
#define STEP_MAX 1099511627774

/* The `index`-th golden line of that operation is the one to be spoiled. */
static const struct {
  const char *op;
  unsigned index;
  struct wire_field field;
} fields[] = {
  { "ping", 0, { "id", WIRE_INTEGER, REQUIRED, 0, FZ_INT_MAX } },
  { "status", 0, { "run", WIRE_STRING, OPTIONAL, 1, 200 } },
  { "list", 0, { "patterns", WIRE_ARRAY, OPTIONAL, 0, 0 } },
  { "list", 0, { "state", WIRE_WORD, OPTIONAL, 0, 0 } },
  { "list", 0, { "why", WIRE_WORD, OPTIONAL, 0, 0 } },
  { "list", 0, { "at", WIRE_INTEGER, OPTIONAL, 0, STEP_MAX } },
  { "freeze", 0, { "run", WIRE_STRING, OPTIONAL, 1, 200 } },
  { "freeze", 0, { "by", WIRE_OBJECT, OPTIONAL, 0, 0 } },
  { "freeze", 0, { "reason", WIRE_STRING, OPTIONAL, 0, 500 } },
  { "freeze", 0, { "dry_run", WIRE_BOOL, OPTIONAL, 0, 0 } },
  { "freeze", 0, { "force", WIRE_BOOL, OPTIONAL, 0, 0 } },
  { "freeze", 0, { "include_baseline", WIRE_BOOL, OPTIONAL, 0, 0 } },
  { "freeze", 0, { "yes", WIRE_BOOL, OPTIONAL, 0, 0 } },
  { "freeze", 0, { "wait_ms", WIRE_INTEGER, OPTIONAL, 0, 86400000 } },
  { "freeze", 0, { "patterns", WIRE_WORD, REQUIRED, 0, 0 } }, /* an array, but not the empty one */
  { "freeze", 0, { "for", WIRE_INTEGER, OPTIONAL, 1, STEP_MAX } },
  { "unfreeze", 0, { "patterns", WIRE_WORD, REQUIRED, 0, 0 } },
  { "unfreeze", 0, { "at_step", WIRE_INTEGER, OPTIONAL, 0, STEP_MAX } },
  { "unfreeze", 0, { "until_step", WIRE_INTEGER, OPTIONAL, 0, STEP_MAX } },
  { "unfreeze", 0, { "until_epoch", WIRE_INTEGER, OPTIONAL, 0, STEP_MAX + 1 } },
  { "auto", 0, { "patterns", WIRE_WORD, REQUIRED, 0, 0 } },
  { "auto", 0, { "wait_ms", WIRE_INTEGER, OPTIONAL, 0, 86400000 } },
  { "pin", 0, { "patterns", WIRE_WORD, REQUIRED, 0, 0 } },
  { "pin", 0, { "value", WIRE_WORD, OPTIONAL, 0, 0 } },
  { "unpin", 0, { "patterns", WIRE_WORD, REQUIRED, 0, 0 } },
  { "is_frozen", 0, { "patterns", WIRE_WORD, REQUIRED, 0, 0 } },
  { "rules_load", 0, { "rules", WIRE_OBJECT, REQUIRED, 0, 0 } },
  { "rules_load", 0, { "source", WIRE_STRING, OPTIONAL, 0, 4096 } },
  { "rules_load", 0, { "allow_missing", WIRE_BOOL, OPTIONAL, 0, 0 } },
  { "rules_check", 0, { "rules", WIRE_OBJECT, REQUIRED, 0, 0 } },
  { "rules_check", 0, { "allow_missing", WIRE_BOOL, OPTIONAL, 0, 0 } },
  { "rules_unload", 0, { "reason", WIRE_STRING, OPTIONAL, 0, 500 } },
  { "explain", 0, { "param", WIRE_STRING, REQUIRED, 1, 4096 } },
  { "history", 0, { "limit", WIRE_INTEGER, OPTIONAL, 1, FZ_INT_MAX } },
  { "revert", 0, { "gen", WIRE_INTEGER, OPTIONAL, 1, 16777215 } },
  { "watch", 0, { "run", WIRE_STRING, OPTIONAL, 1, 200 } },
  { "wait", 0, { "for", WIRE_WORD, REQUIRED, 0, 0 } },
  { "wait", 0, { "pattern", WIRE_STRING, REQUIRED, 1, 4200 } },
  { "wait", 0, { "wait_ms", WIRE_INTEGER, OPTIONAL, 0, FZ_INT_MAX } },
  { "wait", 1, { "step", WIRE_INTEGER, REQUIRED, 0, STEP_MAX } },
  { "wait", 2, { "gen", WIRE_INTEGER, OPTIONAL, 0, 16777215 } },
};

static const char *line_of(const struct wire *wire, const char *op, unsigned index) {
  char part[64];
  (void)snprintf(part, sizeof(part), "\"op\":\"%s\"", op);
  for (size_t i = 0; i < wire->count; i++)
    if (strstr(wire->lines[i], part) != NULL && index-- == 0)
      return wire->lines[i];
  ck_abort_msg("no line of operation %s", op);
}

START_TEST(checks_every_field)
{
  struct wire wire;
  wire_load(&wire, "v1-requests.jsonl");
  wire_try_field(line_of(&wire, fields[_i].op, fields[_i].index), &fields[_i].field, decode);
  wire_free(&wire);
}
END_TEST

START_TEST(knows_every_field)
{
  struct wire wire;
  wire_load(&wire, "v1-requests.jsonl");
  unsigned seen = 0;
  for (size_t i = 0; i < wire.count; i++) {
    fz_json *root = wire_parse(wire.lines[i]);
    const char *op = fz_json_string(fz_json_member(root, "op"));
    enum fz_op known_op;
    ck_assert(fz_op_parse(op, &known_op));
    seen |= 1U << known_op;
    for (const fz_json *item = fz_json_first(root); item != NULL; item = fz_json_next(item)) {
      static const char *const common[] = { "op", "protocol", "id", "run" };
      bool known = false;
      for (size_t c = 0; c < sizeof(common) / sizeof(common[0]); c++)
        known = known || strcmp(common[c], fz_json_key(item)) == 0;
      for (size_t f = 0; f < sizeof(fields) / sizeof(fields[0]); f++)
        known = known || (strcmp(fields[f].op, op) == 0 && strcmp(fields[f].field.name, fz_json_key(item)) == 0);
      ck_assert_msg(known, "%s of %s is in no test", fz_json_key(item), op);
    }
    fz_json_free(root);
  }
  ck_assert_uint_eq(seen, (1U << (FZ_OP_WAIT + 1)) - 1);
  wire_free(&wire);
}
END_TEST

/* --- what the structs hold --- */

static void read_request(const char *op, unsigned index, fz_json **root, fz_request *request) {
  struct wire wire;
  wire_load(&wire, "v1-requests.jsonl");
  *root = wire_parse(line_of(&wire, op, index));
  fz_field_error error;
  ck_assert(fz_is_request(*root));
  ck_assert_msg(fz_request_decode(request, *root, &error) == 0, "%s", error.message);
  ck_assert_str_eq(fz_op_name(request->op), op);
  ck_assert(request->has_id);
  wire_free(&wire);
}

START_TEST(reads_changes)
{
  fz_json *root;
  fz_request request;
  read_request("freeze", 0, &root, &request);
  ck_assert(fz_op_is_change(request.op));
  ck_assert_uint_eq(request.id, 7);
  ck_assert_str_eq(request.run, "gpt2-ft");
  ck_assert_str_eq(request.by_user, "ana");
  ck_assert_str_eq(request.by_host, "gpu07");
  ck_assert_str_eq(request.reason, "plateau");
  ck_assert(request.dry_run && request.force && request.include_baseline && request.yes);
  ck_assert_uint_eq(request.wait_ms, 30000);
  ck_assert_uint_eq(request.n_patterns, 2);
  ck_assert_str_eq(fz_json_string(fz_json_next(fz_json_first(request.patterns))), "re:^h\\.(10|11)\\.");
  ck_assert_uint_eq(request.for_steps, 500);
  ck_assert_uint_eq(request.at_step, FZ_TIME_NEVER);
  fz_json_free(root);

  read_request("unfreeze", 0, &root, &request);
  ck_assert_uint_eq(request.at_step, 5000);
  ck_assert_uint_eq(request.until_step, 6000);
  ck_assert_uint_eq(request.until_epoch, 7);
  ck_assert_uint_eq(request.for_steps, FZ_TIME_NEVER);
  ck_assert(!request.dry_run && !request.force && !request.include_baseline && !request.yes);
  ck_assert_uint_eq(request.wait_ms, 0);
  ck_assert_ptr_null(request.run);
  fz_json_free(root);

  read_request("pin", 0, &root, &request);
  ck_assert_int_eq(request.pin_value, FZ_PIN_TRAINING);
  fz_json_free(root);
  read_request("rules_load", 0, &root, &request);
  ck_assert_str_eq(request.source, "finetune.yaml");
  ck_assert(request.allow_missing);
  ck_assert_ptr_nonnull(fz_json_member(request.rules, "version"));
  fz_json_free(root);
}
END_TEST

START_TEST(reads_questions)
{
  fz_json *root;
  fz_request request;
  read_request("list", 0, &root, &request);
  ck_assert(!fz_op_is_change(request.op));
  ck_assert_int_eq(request.list_state, FZ_LIST_STATE_FROZEN);
  ck_assert_int_eq(request.list_why, FZ_LIST_WHY_OVERRIDE);
  ck_assert_uint_eq(request.at, 1000);
  fz_json_free(root);
  read_request("list", 1, &root, &request);
  ck_assert_int_eq(request.list_state, FZ_LIST_STATE_ANY);
  ck_assert_int_eq(request.list_why, FZ_LIST_WHY_ANY);
  ck_assert_ptr_null(request.patterns);
  ck_assert_uint_eq(request.at, FZ_TIME_NEVER);
  fz_json_free(root);
  read_request("explain", 0, &root, &request);
  ck_assert_str_eq(request.param, "model.layers.3.mlp.c_fc.weight");
  fz_json_free(root);
  read_request("wait", 0, &root, &request);
  ck_assert_int_eq(request.wait_for, FZ_WAIT_FROZEN);
  ck_assert_str_eq(request.pattern, "h.0");
  ck_assert_uint_eq(request.wait_ms, 1000);
  fz_json_free(root);
  read_request("wait", 1, &root, &request);
  ck_assert_uint_eq(request.step, 5000);
  ck_assert_uint_eq(request.wait_ms, FZ_TIME_NEVER);
  fz_json_free(root);
  read_request("wait", 3, &root, &request);
  ck_assert_int_eq(request.wait_for, FZ_WAIT_IN_SYNC);
  ck_assert_str_eq(fz_wait_for_name(request.wait_for), "in-sync");
  ck_assert_uint_eq(request.gen, FZ_TIME_NEVER);
  fz_json_free(root);
}
END_TEST

static const struct {
  const char *line;
  int outcome;
  bool has_id;
  const char *path;
} faulty[] = {
  { "{\"id\":1}", FZ_DECODE_FIELD, true, "op" },
  { "{\"op\":\"ping\"}", FZ_DECODE_FIELD, false, "id" },
  { "{\"id\":-1,\"op\":\"ping\"}", FZ_DECODE_FIELD, false, "id" },
  { "{\"id\":\"1\",\"op\":\"ping\"}", FZ_DECODE_FIELD, false, "id" },
  { "{\"id\":9007199254740993,\"op\":\"ping\"}", FZ_DECODE_FIELD, false, "id" },
  { "{\"id\":1,\"op\":5}", FZ_DECODE_FIELD, true, "op" },
  { "{\"id\":1,\"op\":\"Ping\"}", FZ_DECODE_UNKNOWN, true, "op" },
  { "{\"id\":1,\"op\":\"thaw\",\"patterns\":7}", FZ_DECODE_UNKNOWN, true, "op" },
  { "{\"id\":1,\"op\":\"thaw\",\"protocol\":2}", FZ_DECODE_VERSION, true, "protocol" },
  { "{\"op\":\"ping\",\"protocol\":2}", FZ_DECODE_VERSION, false, "protocol" },
  { "{\"id\":1,\"op\":\"ping\",\"protocol\":\"1\"}", FZ_DECODE_FIELD, true, "protocol" },
  { "{\"id\":1,\"op\":\"freeze\",\"patterns\":[\"a\",\"\"]}", FZ_DECODE_FIELD, true, "patterns[1]" },
  { "{\"id\":1,\"op\":\"freeze\",\"patterns\":[\"a\\n\"]}", FZ_DECODE_FIELD, true, "patterns[0]" },
  { "{\"id\":1,\"op\":\"freeze\",\"patterns\":[null]}", FZ_DECODE_FIELD, true, "patterns[0]" },
  { "{\"id\":1,\"op\":\"freeze\",\"patterns\":\"a\"}", FZ_DECODE_FIELD, true, "patterns" },
  { "{\"id\":1,\"op\":\"ping\",\"by\":{\"user\":1}}", FZ_DECODE_FIELD, true, "by.user" },
  { "{\"id\":1,\"op\":\"ping\",\"by\":{\"host\":\"\\u001b[31m\"}}", FZ_DECODE_FIELD, true, "by.host" },
  { "{\"id\":1,\"op\":\"pin\",\"patterns\":[\"a\"],\"value\":\"any\"}", FZ_DECODE_FIELD, true, "value" },
  { "{\"id\":1,\"op\":\"wait\",\"for\":\"frozen\"}", FZ_DECODE_FIELD, true, "pattern" },
  { "{\"id\":1,\"op\":\"wait\",\"for\":\"training\"}", FZ_DECODE_FIELD, true, "pattern" },
  { "{\"id\":1,\"op\":\"wait\",\"for\":\"step\"}", FZ_DECODE_FIELD, true, "step" },
  { "{\"id\":1,\"op\":\"wait\",\"for\":\"sync\"}", FZ_DECODE_FIELD, true, "for" },
};

START_TEST(names_what_is_wrong)
{
  fz_json *root = wire_parse(faulty[_i].line);
  fz_request request;
  fz_field_error error;
  ck_assert_msg(fz_request_decode(&request, root, &error) == faulty[_i].outcome, "%s", faulty[_i].line);
  ck_assert_int_eq(request.has_id, faulty[_i].has_id);
  ck_assert_uint_eq(request.id, faulty[_i].has_id ? 1 : 0);
  ck_assert_str_eq(error.path, faulty[_i].path);
  fz_json_free(root);
}
END_TEST

START_TEST(limits_patterns)
{
  fz_json_writer writer = FZ_JSON_WRITER_NULL;
  for (size_t count = FZ_PATTERNS_MAX; count <= FZ_PATTERNS_MAX + 1; count++) {
    fz_request_begin(&writer, 1, FZ_OP_UNPIN);
    fz_write_begin_array(&writer, "patterns");
    for (size_t i = 0; i < count; i++)
      fz_write_string(&writer, NULL, "h.0");
    fz_write_end_array(&writer);
    fz_write_end_object(&writer);
    const char *line;
    size_t length;
    ck_assert_int_eq(fz_writer_line(&writer, &line, &length), 0);
    fz_json *root = NULL;
    ck_assert_int_eq(fz_json_parse(&root, line, length - 1, NULL, 0), 0);
    fz_request request;
    fz_field_error error;
    ck_assert_int_eq(fz_request_decode(&request, root, &error), count <= FZ_PATTERNS_MAX ? 0 : FZ_DECODE_FIELD);
    fz_json_free(root);
    fz_writer_reset(&writer);
  }
  fz_writer_deinit(&writer);
}
END_TEST

/* --- tables and answers --- */

START_TEST(maps_codes)
{
  static const struct {
    const char *name;
    int status;
  } rows[] = {
    { "internal", 1 },      { "unknown_op", 1 },       { "too_many", 1 },        { "no_memory", 1 },
    { "closing", 1 },       { "protocol", 1 },         { "bad_request", 2 },     { "bad_field", 2 },
    { "bad_pattern", 2 },   { "unexpected", 2 },       { "no_run", 4 },          { "ambiguous_run", 4 },
    { "no_match", 4 },      { "no_param", 4 },         { "no_rules", 4 },        { "permission", 5 },
    { "refused_empty", 6 }, { "refused_baseline", 6 }, { "refused_pinned", 6 },  { "refused_trainer", 6 },
    { "needs_yes", 6 },     { "rules_invalid", 7 },    { "layout_mismatch", 1 }, { "launch_retired", 1 },
    { "late_rank", 1 },
  };
  for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
    const enum fz_code code = fz_code_parse(rows[i].name);
    ck_assert_str_eq(fz_code_name(code), rows[i].name);
    ck_assert_int_eq(fz_code_exit_status(code), rows[i].status);
  }
  ck_assert_int_eq(fz_code_parse("of_a_later_version"), FZ_CODE_INTERNAL);
}
END_TEST

START_TEST(knows_changes)
{
  static const enum fz_op changes[] = { FZ_OP_FREEZE, FZ_OP_UNFREEZE,   FZ_OP_AUTO,         FZ_OP_PIN,
                                        FZ_OP_UNPIN,  FZ_OP_RULES_LOAD, FZ_OP_RULES_UNLOAD, FZ_OP_REVERT };
  unsigned count = 0;
  for (enum fz_op op = FZ_OP_PING; op <= FZ_OP_WAIT; op++)
    count += fz_op_is_change(op);
  ck_assert_uint_eq(count, sizeof(changes) / sizeof(changes[0]));
  for (size_t i = 0; i < sizeof(changes) / sizeof(changes[0]); i++)
    ck_assert(fz_op_is_change(changes[i]));
  enum fz_op op = FZ_OP_WAIT;
  ck_assert(!fz_op_parse("", &op));
  ck_assert_int_eq(op, FZ_OP_WAIT);
}
END_TEST

static void expect_written(fz_json_writer *writer, const char *expected) {
  const char *line = NULL;
  size_t length = 0;
  ck_assert_int_eq(fz_writer_line(writer, &line, &length), 0);
  ck_assert_str_eq(line, expected);
  fz_writer_reset(writer);
}

START_TEST(writes_answers)
{
  fz_json_writer writer = FZ_JSON_WRITER_NULL;
  const uint64_t id = 7;
  fz_answer_begin(&writer, id);
  fz_write_bool(&writer, "met", true);
  fz_write_end_object(&writer);
  expect_written(&writer, "{\"id\":7,\"ok\":true,\"met\":true}\n");
  fz_answer_part_begin(&writer, id);
  fz_write_end_object(&writer);
  expect_written(&writer, "{\"id\":7,\"part\":true}\n");
  fz_answer_event_begin(&writer, id);
  fz_write_string(&writer, "event", "flip");
  fz_write_end_object(&writer);
  fz_write_end_object(&writer);
  expect_written(&writer, "{\"id\":7,\"event\":{\"event\":\"flip\"}}\n");
  fz_answer_error(&writer, &id, FZ_CODE_NO_RUN, "no run 'x'", "runs: y");
  expect_written(
    &writer,
    "{\"id\":7,\"ok\":false,\"error\":{\"code\":\"no_run\",\"message\":\"no run 'x'\",\"hint\":\"runs: y\"}}\n");
  fz_answer_error(&writer, NULL, FZ_CODE_BAD_FIELD, "m", NULL);
  expect_written(&writer, "{\"ok\":false,\"error\":{\"code\":\"bad_field\",\"message\":\"m\"}}\n");
  fz_answer_error_begin(&writer, &id, FZ_CODE_RULES_INVALID, "m", NULL);
  fz_write_begin_array(&writer, "details");
  fz_write_end_array(&writer);
  fz_write_end_object(&writer);
  fz_write_end_object(&writer);
  expect_written(&writer,
                 "{\"id\":7,\"ok\":false,\"error\":{\"code\":\"rules_invalid\",\"message\":\"m\",\"details\":[]}}\n");
  fz_request_begin(&writer, 3, FZ_OP_IS_FROZEN);
  fz_write_end_object(&writer);
  expect_written(&writer, "{\"protocol\":1,\"id\":3,\"op\":\"is_frozen\"}\n");
  fz_writer_deinit(&writer);
}
END_TEST

START_TEST(stands_any_request)
{
  struct wire wire;
  wire_load(&wire, "v1-requests.jsonl");
  wire_try_anything(&wire, 7, decode, NULL);
  wire_free(&wire);
}
END_TEST

Suite *fz_suite(void) {
  Suite *suite = suite_create("control");
  TCase *tests = tcase_create("control");
  tcase_add_loop_test(tests, checks_every_field, 0, (int)(sizeof(fields) / sizeof(fields[0])));
  tcase_add_test(tests, knows_every_field);
  tcase_add_test(tests, reads_changes);
  tcase_add_test(tests, reads_questions);
  tcase_add_loop_test(tests, names_what_is_wrong, 0, (int)(sizeof(faulty) / sizeof(faulty[0])));
  tcase_add_test(tests, limits_patterns);
  tcase_add_test(tests, maps_codes);
  tcase_add_test(tests, knows_changes);
  tcase_add_test(tests, writes_answers);
  tcase_add_test(tests, stands_any_request);
  suite_add_tcase(suite, tests);
  return suite;
}
