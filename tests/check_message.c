/* check_message.c - every message between trainer and freezerd: there and back, cut off, and with each field wrong. */
#include "config.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/message.h"
#include "tests/runner.h"
#include "tests/wire.h"

static int decode(const fz_json *root, fz_field_error *error) {
  fz_message message;
  return fz_message_decode(&message, root, error);
}

/* --- every field --- */

#define REQUIRED true
#define OPTIONAL false

static const struct {
  const char *message;
  struct wire_field field;
} fields[] = {
  { "hello", { "run", WIRE_STRING, REQUIRED, 1, 200 } },
  { "hello", { "framework", WIRE_STRING, REQUIRED, 0, 64 } },
  { "hello", { "job", WIRE_STRING, REQUIRED, 1, 200 } },
  { "hello", { "attempt", WIRE_INTEGER, REQUIRED, 0, FZ_INT_MAX } },
  { "hello", { "rank", WIRE_INTEGER, REQUIRED, 0, 0 } }, /* of a world of 1 */
  { "hello", { "world", WIRE_INTEGER, REQUIRED, 1, 1024 } },
  { "hello", { "pid", WIRE_INTEGER, REQUIRED, 1, FZ_INT_MAX } },
  { "hello", { "n_params", WIRE_INTEGER, REQUIRED, 0, 4194304 } },
  { "hello", { "layout", WIRE_HASH, REQUIRED, 0, 0 } },
  { "hello", { "baseline", WIRE_HASH, REQUIRED, 0, 0 } },
  { "hello", { "resumes", WIRE_BOOL, OPTIONAL, 0, 0 } },
  { "hello", { "rules", WIRE_OBJECT, OPTIONAL, 0, 0 } },
  { "resume", { "incarnation", WIRE_INTEGER, REQUIRED, 0, FZ_INT_MAX } },
  { "resume", { "gen", WIRE_INTEGER, REQUIRED, 0, 16777215 } },
  { "resume", { "step", WIRE_INTEGER, OPTIONAL, 0, 1099511627774 } },
  { "resume", { "epoch", WIRE_INTEGER, OPTIONAL, 0, 1099511627775 } },
  { "params", { "first", WIRE_INTEGER, REQUIRED, 0, 4194304 } },
  { "params", { "params", WIRE_ARRAY, REQUIRED, 0, 0 } },
  { "ready", { "step", WIRE_INTEGER, REQUIRED, 0, 1099511627774 } },
  { "ready", { "epoch", WIRE_INTEGER, REQUIRED, 0, 1099511627775 } },
  { "step", { "step", WIRE_INTEGER, REQUIRED, 0, 1099511627774 } },
  { "step", { "epoch", WIRE_INTEGER, REQUIRED, 0, 1099511627775 } },
  { "epoch", { "step", WIRE_INTEGER, REQUIRED, 0, 1099511627774 } },
  { "epoch", { "epoch", WIRE_INTEGER, REQUIRED, 0, 1099511627775 } },
  { "metric", { "step", WIRE_INTEGER, REQUIRED, 0, 1099511627774 } },
  { "metric", { "values", WIRE_WORD, REQUIRED, 0, 0 } }, /* an object, but not the empty one */
  { "applied", { "gen", WIRE_INTEGER, REQUIRED, 0, 16777215 } },
  { "applied", { "step", WIRE_INTEGER, REQUIRED, 0, 1099511627774 } },
  { "applied", { "epoch", WIRE_INTEGER, REQUIRED, 0, 1099511627775 } },
  { "rewind", { "step", WIRE_INTEGER, REQUIRED, 0, 1099511627774 } },
  { "rewind", { "epoch", WIRE_INTEGER, REQUIRED, 0, 1099511627775 } },
  { "need", { "what", WIRE_STRING, REQUIRED, 1, 32 } },
  { "welcome", { "server", WIRE_STRING, REQUIRED, 1, 128 } },
  { "welcome", { "run", WIRE_STRING, REQUIRED, 1, 200 } },
  { "welcome", { "incarnation", WIRE_INTEGER, REQUIRED, 0, FZ_INT_MAX } },
  { "welcome", { "segment", WIRE_STRING, REQUIRED, 1, 255 } },
  { "welcome", { "size", WIRE_INTEGER, REQUIRED, 1, FZ_INT_MAX } },
  { "subscribe", { "step_every_ms", WIRE_INTEGER, OPTIONAL, 0, FZ_INT_MAX } },
  { "subscribe", { "epoch", WIRE_BOOL, REQUIRED, 0, 0 } },
  { "subscribe", { "metrics", WIRE_BOOL, REQUIRED, 0, 0 } },
  { "subscribe", { "metric_every_ms", WIRE_INTEGER, REQUIRED, 0, FZ_INT_MAX } },
  { "subscribe", { "at_step", WIRE_INTEGER, OPTIONAL, 0, 1099511627774 } },
  { "notice", { "level", WIRE_WORD, REQUIRED, 0, 0 } },
  { "notice", { "code", WIRE_STRING, REQUIRED, 1, 32 } },
  { "notice", { "message", WIRE_TEXT, REQUIRED, 0, 16384 } },
  { "error", { "error", WIRE_WORD, REQUIRED, 0, 0 } }, /* an object, but not the empty one */
  { "error", { "close", WIRE_BOOL, OPTIONAL, 0, 0 } },
};

/* The first golden line of that type. */
static const char *line_of(const struct wire *wire, const char *type) {
  char begin[64];
  (void)snprintf(begin, sizeof(begin), "{\"type\":\"%s\"", type);
  for (size_t i = 0; i < wire->count; i++)
    if (strncmp(wire->lines[i], begin, strlen(begin)) == 0)
      return wire->lines[i];
  ck_abort_msg("no line of type %s", type);
}

START_TEST(checks_every_field)
{
  struct wire wire;
  wire_load(&wire, "v1-trainer.jsonl");
  wire_try_field(line_of(&wire, fields[_i].message), &fields[_i].field, decode);
  wire_free(&wire);
}
END_TEST

/* What the golden lines have and the table above does not is a field that is not tested. */
START_TEST(knows_every_field)
{
  struct wire wire;
  wire_load(&wire, "v1-trainer.jsonl");
  for (size_t i = 0; i < wire.count; i++) {
    fz_json *root = wire_parse(wire.lines[i]);
    const char *type = fz_json_string(fz_json_member(root, "type"));
    for (const fz_json *item = fz_json_first(root); item != NULL; item = fz_json_next(item)) {
      bool known = strcmp(fz_json_key(item), "type") == 0 || strcmp(fz_json_key(item), "protocol") == 0;
      for (size_t f = 0; f < sizeof(fields) / sizeof(fields[0]); f++)
        known = known || (strcmp(fields[f].message, type) == 0 && strcmp(fields[f].field.name, fz_json_key(item)) == 0);
      ck_assert_msg(known, "%s of %s is in no test", fz_json_key(item), type);
    }
    fz_json_free(root);
  }
  wire_free(&wire);
}
END_TEST

/* --- whole lines --- */

START_TEST(goes_there_and_back)
{
  struct wire wire;
  wire_load(&wire, "v1-trainer.jsonl");
  unsigned seen = 0;
  for (size_t i = 0; i < wire.count; i++) {
    fz_json *root = wire_parse(wire.lines[i]);
    fz_message message;
    fz_field_error error;
    ck_assert_msg(fz_message_decode(&message, root, &error) == 0, "%s: %s", error.message, wire.lines[i]);
    seen |= 1U << message.type;
    if (message.type != FZ_MESSAGE_PARAMS) {
      fz_json_writer writer = FZ_JSON_WRITER_NULL;
      fz_message_encode(&writer, &message);
      char *text = NULL;
      ck_assert_int_eq(fz_writer_copy(&writer, &text, NULL), 0);
      ck_assert_str_eq(text, wire.lines[i]);
      free(text);
      fz_writer_deinit(&writer);
    }
    fz_json_free(root);
  }
  ck_assert_uint_eq(seen, (1U << (FZ_MESSAGE_ERROR + 1)) - 1);
  wire_free(&wire);
}
END_TEST

START_TEST(refuses_every_truncation)
{
  static const char *const files[] = { "v1-trainer.jsonl", "v1-requests.jsonl", "v1-answers.jsonl" };
  struct wire wire;
  wire_load(&wire, files[_i]);
  for (size_t i = 0; i < wire.count; i++)
    wire_try_truncations(wire.lines[i]);
  wire_free(&wire);
}
END_TEST

static void expect_outcome(const char *line, int outcome, const char *path) {
  fz_json *root = wire_parse(line);
  fz_field_error error;
  ck_assert_msg(decode(root, &error) == outcome, "%s", line);
  ck_assert_str_eq(error.path, path);
  ck_assert_int_eq(error.message[0] != '\0', outcome != 0);
  fz_json_free(root);
}

START_TEST(tells_type_and_version)
{
  expect_outcome("{}", FZ_DECODE_FIELD, "type");
  expect_outcome("{\"type\":7}", FZ_DECODE_FIELD, "type");
  expect_outcome("{\"type\":null}", FZ_DECODE_FIELD, "type");
  expect_outcome("{\"type\":\"Hello\"}", FZ_DECODE_UNKNOWN, "type");
  expect_outcome("{\"type\":\"hell\"}", FZ_DECODE_UNKNOWN, "type");
  expect_outcome("{\"type\":\"hello\"}", FZ_DECODE_FIELD, "protocol");
  expect_outcome("{\"type\":\"hello\",\"protocol\":\"1\"}", FZ_DECODE_FIELD, "protocol");
  expect_outcome("{\"type\":\"hello\",\"protocol\":1}", FZ_DECODE_FIELD, "run");
  expect_outcome("{\"type\":\"hello\",\"protocol\":2,\"new\":[]}", FZ_DECODE_VERSION, "protocol");
  expect_outcome("{\"type\":\"welcome\",\"protocol\":0}", FZ_DECODE_VERSION, "protocol");

  fz_json *root = wire_parse("{\"type\":\"hello\",\"protocol\":2}");
  fz_message message;
  fz_field_error error;
  ck_assert_int_eq(fz_message_decode(&message, root, &error), FZ_DECODE_VERSION);
  ck_assert_uint_eq(message.hello.protocol, 2);
  fz_json_free(root);
  ck_assert_int_eq(fz_decode_code(FZ_DECODE_VERSION, false), FZ_CODE_PROTOCOL);
  ck_assert_int_eq(fz_decode_code(FZ_DECODE_FIELD, false), FZ_CODE_BAD_FIELD);
  ck_assert_int_eq(fz_decode_code(FZ_DECODE_UNKNOWN, false), FZ_CODE_BAD_REQUEST);
  ck_assert_int_eq(fz_decode_code(FZ_DECODE_UNKNOWN, true), FZ_CODE_UNKNOWN_OP);
}
END_TEST

/* The form that no version may change, byte for byte; a trainer reads it as the error that it is. */
START_TEST(answers_another_version)
{
  struct wire wire;
  wire_load(&wire, "v1-answers.jsonl");
  fz_json_writer writer = FZ_JSON_WRITER_NULL;
  const uint64_t id = 7;
  fz_write_version_mismatch(&writer, &id, 2);
  char *text = NULL;
  ck_assert_int_eq(fz_writer_copy(&writer, &text, NULL), 0);
  ck_assert_str_eq(text, wire.lines[0]);
  fz_json *root = wire_parse(text);
  fz_message message;
  fz_field_error error;
  ck_assert_int_eq(fz_message_decode(&message, root, &error), 0);
  ck_assert_int_eq(message.type, FZ_MESSAGE_ERROR);
  ck_assert_int_eq(fz_code_parse(message.error.code), FZ_CODE_PROTOCOL);
  ck_assert_ptr_null(message.error.hint);
  fz_json_free(root);
  free(text);
  fz_writer_deinit(&writer);
  wire_free(&wire);
}
END_TEST

START_TEST(checks_what_tables_cannot_say)
{
  expect_outcome("{\"type\":\"params\",\"first\":0,\"params\":[[\"a\",1,true,true,true],[\"b\",1,true,true]]}",
                 FZ_DECODE_FIELD, "params[1]");
  expect_outcome("{\"type\":\"params\",\"first\":0,\"params\":[[\"a\",1,true,true,true,1]]}", FZ_DECODE_FIELD,
                 "params[0][5]");
  expect_outcome("{\"type\":\"params\",\"first\":0,\"params\":[[\"a\",1,true,true,true,[\"b\",\"\"]]]}",
                 FZ_DECODE_FIELD, "params[0][5][1]");
  expect_outcome("{\"type\":\"params\",\"first\":0,\"params\":[[\"a\",1,true,true,true,[\"b\"],1]]}", FZ_DECODE_FIELD,
                 "params[0]");
  expect_outcome("{\"type\":\"params\",\"first\":0,\"params\":[{\"a\":1}]}", FZ_DECODE_FIELD, "params[0]");
  expect_outcome("{\"type\":\"params\",\"first\":0,\"params\":[[\"\",1,true,true,true]]}", FZ_DECODE_FIELD,
                 "params[0][0]");
  expect_outcome("{\"type\":\"params\",\"first\":0,\"params\":[[\"a\\n\",1,true,true,true]]}", FZ_DECODE_FIELD,
                 "params[0][0]");
  expect_outcome("{\"type\":\"params\",\"first\":0,\"params\":[[\"a\",-1,true,true,true]]}", FZ_DECODE_FIELD,
                 "params[0][1]");
  expect_outcome("{\"type\":\"params\",\"first\":0,\"params\":[[\"a\",1,1,true,true]]}", FZ_DECODE_FIELD,
                 "params[0][2]");
  static const char *const refusals[] = { "false",    "null",    "\"\"",
                                          "\"zero\"", "\"A B\"", "\"ABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456\"",
                                          "1",        "[]" };
  for (size_t i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++) {
    char line[160];
    (void)snprintf(line, sizeof(line), "{\"type\":\"params\",\"first\":0,\"params\":[[\"a\",1,true,%s,true]]}",
                   refusals[i]);
    expect_outcome(line, FZ_DECODE_FIELD, "params[0][3]");
    (void)snprintf(line, sizeof(line), "{\"type\":\"params\",\"first\":0,\"params\":[[\"a\",1,true,true,%s]]}",
                   refusals[i]);
    expect_outcome(line, FZ_DECODE_FIELD, "params[0][4]");
  }
  expect_outcome("{\"type\":\"metric\",\"step\":1,\"values\":{}}", FZ_DECODE_FIELD, "values");
  expect_outcome("{\"type\":\"metric\",\"step\":1,\"values\":{\"\":1}}", FZ_DECODE_FIELD, "values");
  expect_outcome("{\"type\":\"metric\",\"step\":1,\"values\":{\"a\\u001b\":1}}", FZ_DECODE_FIELD, "values");
  expect_outcome("{\"type\":\"metric\",\"step\":1,\"values\":{\"a\":\"1\"}}", FZ_DECODE_FIELD, "values.a");
  expect_outcome("{\"type\":\"error\",\"error\":{\"code\":\"x\"}}", FZ_DECODE_FIELD, "error.message");
  expect_outcome("{\"type\":\"error\",\"error\":{\"message\":\"x\"}}", FZ_DECODE_FIELD, "error.code");
  expect_outcome("{\"type\":\"error\",\"error\":{\"code\":\"x\",\"message\":\"x\",\"hint\":1}}", FZ_DECODE_FIELD,
                 "error.hint");
  expect_outcome("{\"type\":\"notice\",\"level\":\"fatal\",\"code\":\"x\",\"message\":\"x\"}", FZ_DECODE_FIELD,
                 "level");
  expect_outcome("{\"type\":\"bye\",\"why\":{\"not\":[1]}}", 0, "");
}
END_TEST

START_TEST(says_what_is_wrong_with_a_rank)
{
  struct wire wire;
  wire_load(&wire, "v1-trainer.jsonl");
  char *line = strstr(wire.lines[1], "\"rank\":7");
  line[7] = '8';
  fz_json *root = wire_parse(wire.lines[1]);
  fz_field_error error;
  ck_assert_int_eq(decode(root, &error), FZ_DECODE_FIELD);
  ck_assert_str_eq(error.message, "field 'rank' must be an integer below 'world'");
  fz_json_free(root);
  wire_free(&wire);
}
END_TEST

/* --- metrics --- */

START_TEST(counts_metrics)
{
  for (size_t count = FZ_METRICS_MAX; count <= FZ_METRICS_MAX + 1; count++) {
    char line[2000] = "{\"type\":\"metric\",\"step\":1,\"values\":{";
    for (size_t i = 0; i < count; i++)
      (void)sprintf(line + strlen(line), "%s\"m%zu\":%s", i == 0 ? "" : ",", i, i % 3 == 0 ? "null" : "1e999");
    strcat(line, "}}");
    fz_json *root = wire_parse(line);
    fz_message message;
    fz_field_error error;
    ck_assert_int_eq(fz_message_decode(&message, root, &error), count <= FZ_METRICS_MAX ? 0 : FZ_DECODE_FIELD);
    if (count <= FZ_METRICS_MAX) {
      ck_assert_uint_eq(message.metric.count, count);
      for (size_t i = 0; i < count; i++)
        ck_assert(isnan(message.metric.values[i].value));
    }
    fz_json_free(root);
  }
}
END_TEST

/* --- the parameter table --- */

static fz_params *make_table(size_t count, size_t name_length) {
  fz_params *params = NULL;
  ck_assert_int_eq(fz_params_new(&params), 0);
  char *name = malloc(name_length + 1);
  ck_assert_ptr_nonnull(name);
  for (size_t i = 0; i < count; i++) {
    memset(name, 'n', name_length + 1);
    const int digits = snprintf(name, name_length, "%zu.\"", i);
    name[digits] = 'x';
    ck_assert_int_eq(fz_params_add(params, name, name_length, i == 0 ? FZ_INT_MAX : i, i % 2 == 0,
                                   i % 3 == 0 ? "ZERO" : NULL, i % 5 == 0 ? "FSDP_FLAT" : NULL),
                     0);
  }
  free(name);
  ck_assert_int_eq(fz_params_seal(params, NULL), 0);
  return params;
}

/* Sends a table in lines of at most `max` bytes and builds it again from them. */
static size_t carry_table(const fz_params *params, size_t max) {
  fz_params *copy = NULL;
  ck_assert_int_eq(fz_params_new(&copy), 0);
  fz_json_writer writer = { .max = max };
  size_t lines = 0;
  size_t first = 0;
  do {
    const size_t next = fz_params_encode(&writer, params, first);
    const char *line;
    size_t length;
    ck_assert_int_eq(fz_writer_line(&writer, &line, &length), 0);
    ck_assert_uint_le(length, max + 1);
    fz_json *root = NULL;
    ck_assert_int_eq(fz_json_parse(&root, line, length - 1, NULL, 0), 0);
    fz_message message;
    fz_field_error error;
    ck_assert_int_eq(fz_message_decode(&message, root, &error), 0);
    ck_assert_uint_eq(message.params.first, first);
    ck_assert_uint_eq(message.params.count, next - first);
    const fz_json *cursor = NULL;
    struct fz_params_entry entry;
    while (fz_params_chunk_next(&message.params, &cursor, &entry))
      ck_assert_int_eq(fz_params_add(copy, entry.name, strlen(entry.name), entry.elements, entry.requires_grad,
                                     entry.may_freeze, entry.may_train),
                       0);
    fz_json_free(root);
    fz_writer_reset(&writer);
    first = next;
    lines++;
  } while (first < fz_params_count(params));
  ck_assert_int_eq(fz_params_seal(copy, NULL), 0);
  ck_assert_uint_eq(fz_params_count(copy), fz_params_count(params));
  ck_assert_uint_eq(fz_params_layout_hash(copy), fz_params_layout_hash(params));
  ck_assert_uint_eq(fz_params_baseline_hash(copy), fz_params_baseline_hash(params));
  fz_writer_deinit(&writer);
  fz_params_unref(copy);
  return lines;
}

START_TEST(cuts_tables_into_lines)
{
  fz_params *params = make_table(0, 10);
  ck_assert_uint_eq(carry_table(params, FZ_LINE_MAX), 1);
  fz_params_unref(params);
  params = make_table(300, 20);
  ck_assert_uint_eq(carry_table(params, FZ_LINE_MAX), 1);
  /* Every limit near an entry's end, so that each way of not fitting comes up. */
  for (size_t max = 130; max < 260; max++)
    ck_assert_uint_gt(carry_table(params, max), 60);
  fz_params_unref(params);
  params = make_table(1000, FZ_PARAM_NAME_MAX);
  ck_assert_uint_ge(carry_table(params, FZ_LINE_MAX), 30);
  fz_params_unref(params);
}
END_TEST

/* --- anything at all --- */

/* What was understood can be written, and what was written is understood. */
static void write_again(const fz_json *root) {
  fz_message message;
  fz_field_error error;
  ck_assert_int_eq(fz_message_decode(&message, root, &error), 0);
  if (message.type == FZ_MESSAGE_PARAMS)
    return;
  fz_json_writer writer = FZ_JSON_WRITER_NULL;
  fz_message_encode(&writer, &message);
  const char *out;
  size_t length;
  ck_assert_int_eq(fz_writer_line(&writer, &out, &length), 0);
  fz_json *again = NULL;
  ck_assert_int_eq(fz_json_parse(&again, out, length - 1, NULL, 0), 0);
  ck_assert_int_eq(decode(again, &error), 0);
  fz_json_free(again);
  fz_writer_deinit(&writer);
}

START_TEST(stands_any_message)
{
  struct wire wire;
  wire_load(&wire, "v1-trainer.jsonl");
  wire_try_anything(&wire, 99, decode, write_again);
  wire_free(&wire);
}
END_TEST

Suite *fz_suite(void) {
  Suite *suite = suite_create("message");
  TCase *tests = tcase_create("messages");
  tcase_add_loop_test(tests, checks_every_field, 0, (int)(sizeof(fields) / sizeof(fields[0])));
  tcase_add_test(tests, knows_every_field);
  tcase_add_test(tests, goes_there_and_back);
  tcase_add_loop_test(tests, refuses_every_truncation, 0, 3);
  tcase_add_test(tests, tells_type_and_version);
  tcase_add_test(tests, answers_another_version);
  tcase_add_test(tests, checks_what_tables_cannot_say);
  tcase_add_test(tests, says_what_is_wrong_with_a_rank);
  tcase_add_test(tests, counts_metrics);
  tcase_add_test(tests, cuts_tables_into_lines);
  tcase_add_test(tests, stands_any_message);
  suite_add_tcase(suite, tests);
  return suite;
}
