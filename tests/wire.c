/* wire.c - the golden lines of tests/data/wire, and the ways in which a line can be wrong. */
#include "config.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/message.h"
#include "protocol/writer.h"
#include "tests/wire.h"

void wire_load(struct wire *wire, const char *name) {
  const char *top = getenv("top_srcdir");
  char path[4096];
  (void)snprintf(path, sizeof(path), "%s/tests/data/wire/%s", top == NULL ? "." : top, name);
  FILE *file = fopen(path, "re");
  ck_assert_msg(file != NULL, "cannot open %s", path);
  wire->text = calloc(1, 1 << 20);
  ck_assert_uint_gt(fread(wire->text, 1, (1 << 20) - 1, file), 0);
  (void)fclose(file);
  wire->count = 0;
  char *rest = wire->text;
  for (char *line = strtok_r(rest, "\n", &rest); line != NULL; line = strtok_r(NULL, "\n", &rest)) {
    ck_assert_uint_lt(wire->count, WIRE_LINES_MAX);
    wire->lines[wire->count++] = line;
  }
}

void wire_free(struct wire *wire) {
  free(wire->text);
  wire->text = NULL;
}

fz_json *wire_parse(const char *line) {
  fz_json *root = NULL;
  char why[200] = "";
  ck_assert_msg(fz_json_parse(&root, line, strlen(line), why, sizeof(why)) == 0, "%s: %s", why, line);
  return root;
}

/* The line with the field as `json` (NULL: without it). The caller frees it. */
static char *with_field(const char *line, const char *name, const char *json) {
  fz_json *root = wire_parse(line);
  fz_json_writer writer = { .max = 4 * FZ_LINE_MAX };
  fz_write_begin_object(&writer, NULL);
  for (const fz_json *item = fz_json_first(root); item != NULL; item = fz_json_next(item))
    if (strcmp(fz_json_key(item), name) != 0)
      fz_write_json(&writer, fz_json_key(item), item);
  if (json != NULL)
    fz_write_raw(&writer, name, json, strlen(json));
  fz_write_end_object(&writer);
  char *changed = NULL;
  ck_assert_int_eq(fz_writer_copy(&writer, &changed, NULL), 0);
  fz_writer_deinit(&writer);
  fz_json_free(root);
  return changed;
}

static void expect(const char *line, const struct wire_field *field, const char *json, bool good, wire_decode *decode) {
  char *changed = with_field(line, field->name, json);
  fz_json *root = wire_parse(changed);
  fz_field_error error;
  const int r = decode(root, &error);
  if (good)
    ck_assert_msg(r == 0, "refused: %s: %.300s", error.message, changed);
  else {
    ck_assert_msg(r == FZ_DECODE_FIELD, "outcome %d: %.300s", r, changed);
    ck_assert_msg(strncmp(error.path, field->name, strlen(field->name)) == 0, "'%s' is blamed: %.300s", error.path,
                  changed);
    ck_assert_ptr_nonnull(strstr(error.message, field->name));
  }
  fz_json_free(root);
  free(changed);
}

static void expect_length(const char *line, const struct wire_field *field, uint64_t length, bool good,
                          wire_decode *decode) {
  char *json = malloc(length + 3);
  ck_assert_ptr_nonnull(json);
  memset(json, 'x', length + 2);
  json[0] = json[length + 1] = '"';
  json[length + 2] = '\0';
  expect(line, field, json, good, decode);
  free(json);
}

static void try_integers(const char *line, const struct wire_field *field, wire_decode *decode) {
  char number[32];
  (void)snprintf(number, sizeof(number), "%llu", (unsigned long long)field->min);
  expect(line, field, number, true, decode);
  (void)snprintf(number, sizeof(number), "%llu.0", (unsigned long long)field->min);
  expect(line, field, number, true, decode);
  (void)snprintf(number, sizeof(number), "%llu", (unsigned long long)field->max);
  expect(line, field, number, true, decode);
  (void)snprintf(number, sizeof(number), "%llu", (unsigned long long)field->max + 1);
  expect(line, field, number, false, decode);
  (void)snprintf(number, sizeof(number), "%lld", (long long)field->min - 1);
  expect(line, field, number, false, decode);
}

static void try_strings(const char *line, const struct wire_field *field, wire_decode *decode) {
  expect_length(line, field, field->min, true, decode);
  expect_length(line, field, field->max, true, decode);
  expect_length(line, field, field->max + 1, false, decode);
  if (field->min > 0)
    expect_length(line, field, field->min - 1, false, decode);
  expect(line, field, "\"a\\u0007b\"", field->kind == WIRE_TEXT, decode);
  expect(line, field, "\"a\\u007fb\"", field->kind == WIRE_TEXT, decode);
}

void wire_try_field(const char *line, const struct wire_field *field, wire_decode *decode) {
  static const struct {
    const char *json;
    unsigned kinds; /* for which this is not known to be wrong */
  } values[] = {
#define KIND(k) (1U << (k))
    { "true", KIND(WIRE_BOOL) },
    { "1", KIND(WIRE_INTEGER) },
    { "1.5", 0 },
    { "-1", 0 },
    { "1e999", 0 },
    { "-1e999", 0 },
    { "18446744073709551616", 0 },
    { "9007199254740993", 0 },
    { "1.00000000000000000001", 0 },
    { "\"1\"", KIND(WIRE_STRING) | KIND(WIRE_TEXT) },
    { "\"0123456789ABCDEF\"", KIND(WIRE_STRING) | KIND(WIRE_TEXT) },
    { "\"0123456789abcdef0\"", KIND(WIRE_STRING) | KIND(WIRE_TEXT) },
    { "[]", KIND(WIRE_ARRAY) },
    { "{}", KIND(WIRE_OBJECT) },
    { "[[[]]]", KIND(WIRE_ARRAY) },
  };
  expect(line, field, NULL, !field->required, decode);
  expect(line, field, "null", !field->required, decode);
  for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++)
    if ((values[i].kinds & KIND(field->kind)) == 0)
      expect(line, field, values[i].json, false, decode);
#undef KIND
  if (field->kind == WIRE_INTEGER)
    try_integers(line, field, decode);
  if (field->kind == WIRE_STRING || field->kind == WIRE_TEXT)
    try_strings(line, field, decode);

  /* Doubled: the whole line is refused. */
  char *once = with_field(line, field->name, "1");
  char twice[128];
  (void)snprintf(twice, sizeof(twice), ",\"%s\":1}", field->name);
  char *doubled = malloc(strlen(once) + strlen(twice) + 1);
  ck_assert_ptr_nonnull(doubled);
  (void)sprintf(doubled, "%.*s%s", (int)strlen(once) - 1, once, twice);
  fz_json *root = NULL;
  char why[200];
  ck_assert_int_eq(fz_json_parse(&root, doubled, strlen(doubled), why, sizeof(why)), FZ_JSON_BROKEN);
  ck_assert_ptr_nonnull(strstr(why, field->name));
  free(doubled);
  free(once);
}

void wire_try_truncations(const char *line) {
  for (size_t length = 0; length < strlen(line); length++) {
    /* A copy of just that size, so that a read beyond it is seen. */
    char *part = malloc(length + 1);
    ck_assert_ptr_nonnull(part);
    memcpy(part, line, length);
    char *exact = realloc(part, length == 0 ? 1 : length);
    fz_json *root = NULL;
    char why[200] = "";
    ck_assert_int_eq(fz_json_parse(&root, exact, length, why, sizeof(why)), FZ_JSON_BROKEN);
    ck_assert_ptr_null(root);
    ck_assert_str_ne(why, "");
    free(exact);
  }
}

void wire_try_anything(const struct wire *wire, uint64_t seed, wire_decode *decode, void (*good)(const fz_json *root)) {
  uint64_t state = seed;
  unsigned outcomes[4] = { 0 };
  for (int i = 0; i < 30000; i++) {
    char *line = strdup(wire->lines[wire_random(&state) % wire->count]);
    ck_assert_ptr_nonnull(line);
    const size_t length = strlen(line);
    const char *other = wire->lines[wire_random(&state) % wire->count];
    for (uint64_t n = wire_random(&state) % 3; n > 0; n--)
      line[wire_random(&state) % length] = other[wire_random(&state) % strlen(other)];
    fz_json *root = NULL;
    if (fz_json_parse(&root, line, length, NULL, 0) == 0) {
      fz_field_error error;
      const int r = decode(root, &error);
      ck_assert_int_eq(fz_field_error_is_set(&error), r != 0);
      outcomes[r]++;
      if (r == 0 && good != NULL)
        good(root);
      fz_json_free(root);
    }
    free(line);
  }
  ck_assert_uint_gt(outcomes[0], 1000);
  ck_assert_uint_gt(outcomes[FZ_DECODE_FIELD], 100);
  ck_assert_uint_gt(outcomes[FZ_DECODE_UNKNOWN], 100);
}

uint64_t wire_random(uint64_t *state) {
  *state ^= *state << 13;
  *state ^= *state >> 7;
  *state ^= *state << 17;
  return *state;
}
