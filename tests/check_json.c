/* check_json.c - the decoder and the writer: what is refused as a whole, what is read exactly, what comes out. */
#include "config.h"

#include <errno.h>
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/json.h"
#include "protocol/utf8.h"
#include "protocol/writer.h"
#include "tests/runner.h"
#include "tests/wire.h"

static fz_json *parse(const char *text) {
  fz_json *root = NULL;
  char why[200] = "";
  ck_assert_msg(fz_json_parse(&root, text, strlen(text), why, sizeof(why)) == 0, "%s: %s", why, text);
  return root;
}

static void refuse(const char *text, size_t length, const char *word) {
  char *exact = malloc(length + (length == 0));
  ck_assert_ptr_nonnull(exact);
  memcpy(exact, text, length);
  fz_json *root = NULL;
  char why[200] = "";
  ck_assert_msg(fz_json_parse(&root, exact, length, why, sizeof(why)) == FZ_JSON_BROKEN, "accepted: %.100s", text);
  ck_assert_msg(strstr(why, word) != NULL, "'%s' does not say '%s': %.100s", why, word, text);
  ck_assert_int_eq(fz_json_parse(&root, exact, length, NULL, 0), FZ_JSON_BROKEN);
  ck_assert_ptr_null(root);
  free(exact);
}

/* --- what is refused as a whole --- */

static const struct {
  const char *text;
  const char *word; /* of the reason */
} broken[] = {
  { "", "an object" },
  { "   ", "an object" },
  { "[1]", "an object" },
  { "1", "an object" },
  { "null", "an object" },
  { "\"a\"", "an object" },
  { "{}{}", "behind" },
  { "{\"a\":1} x", "behind" },
  { "{\"a\":1},", "behind" },
  { "{\"a\":1}]", "behind" },
  { "\xef\xbb\xbf{}", "byte order mark" },
  { "{\xef\xbb\xbf}", "key" },
  { "{\"a\":1,\"a\":2}", "'a' stands twice" },
  { "{\"a\":1,\"\\u0061\":2}", "'a' stands twice" },
  { "{\"x\":[{\"b\":{\"c\":0,\"d\":1,\"c\":2}}]}", "'c' stands twice" },
  { "{\"a\":\"x\\u0000y\"}", "U+0000" },
  { "{\"x\\u0000y\":1}", "U+0000" },
  { "{\"a\":\"\\\\\\u0000\"}", "U+0000" },
  { "{\"a\":\"\x01\"}", "control" },
  { "{\"a\":\"\t\"}", "control" },
  { "{\t\"a\":1}", "control" },
  { "{\"a\":1}\r", "control" },
  { "{\"a\":\"\xff\"}", "UTF-8" },
  { "{\"a\":\"\xc0\xaf\"}", "UTF-8" },     /* '/' in two bytes */
  { "{\"a\":\"\xed\xa0\x80\"}", "UTF-8" }, /* a surrogate */
  { "{\"a\":\"\xf4\x90\x80\x80\"}", "UTF-8" },
  { "{\"a\":\"\xe2\x82\"}", "UTF-8" },
  { "{\"\xff\":1}", "UTF-8" },
  { "{\"a\":\"\\ud800\"}", "surrogate" },
  { "{\"a\":\"\\udc00\\ud800\"}", "surrogate" },
  { "{\"a\":\"\\ud800\\u0041\"}", "surrogate" },
  { "{\"a\":\"\\x\"}", "escape" },
  { "{\"a\":\"\\u12g4\"}", "escape" },
  { "{\"a\":\"\\", "escape" },
  { "{\"a\":\"x", "without end" },
  { "{\"a\":01}", "number" },
  { "{\"a\":1.}", "number" },
  { "{\"a\":.5}", "value" },
  { "{\"a\":+1}", "value" },
  { "{\"a\":-}", "number" },
  { "{\"a\":1e}", "number" },
  { "{\"a\":1e+}", "number" },
  { "{\"a\":0x10}", "comma" },
  { "{\"a\":NaN}", "value" },
  { "{\"a\":Infinity}", "value" },
  { "{\"a\":1234567890123456789012345678901234567890123456789012345678901234}", "63 characters" },
  { "{\"a\":tru}", "value" },
  { "{\"a\":truex}", "comma" },
  { "{\"a\":True}", "value" },
  { "{a:1}", "key" },
  { "{'a':1}", "key" },
  { "{\"a\" 1}", "':'" },
  { "{\"a\":}", "value" },
  { "{\"a\":1,}", "key" },
  { "{,}", "key" },
  { "{\"a\":[1,]}", "value" },
  { "{\"a\":[1 2]}", "comma" },
  { "{\"a\":[}", "value" },
  { "{\"a\":[1}", "comma" },
  { "{\"a\":[1}}", "comma" },
  { "{\"a\":{\"b\":1]}", "comma" },
  { "{\"a\":{]}", "key" },
  { "{\"a\":/* */1}", "value" },
};

START_TEST(refuses_what_is_no_json)
{ refuse(broken[_i].text, strlen(broken[_i].text), broken[_i].word); }
END_TEST

START_TEST(refuses_a_nul_anywhere)
{
  static const char text[] = "{\"a\":\"b\",\"c\":1}";
  for (size_t i = 0; i < sizeof(text); i++) {
    char copy[sizeof(text)];
    memcpy(copy, text, sizeof(text));
    copy[i] = '\0';
    refuse(copy, sizeof(text), "");
  }
}
END_TEST

/* `{"a":[[[...` of so many levels, all told. */
static char *nested(unsigned levels) {
  char *text = calloc(1, 2 * (size_t)levels + 16);
  ck_assert_ptr_nonnull(text);
  strcpy(text, "{\"a\":");
  memset(text + 5, '[', levels - 1);
  memset(text + 5 + levels - 1, ']', levels - 1);
  strcat(text, "}");
  return text;
}

START_TEST(limits_nesting)
{
  char *text = nested(FZ_JSON_DEPTH_MAX);
  fz_json_free(parse(text));
  free(text);
  text = nested(FZ_JSON_DEPTH_MAX + 1);
  refuse(text, strlen(text), "16 levels");
  free(text);
  text = nested(100000);
  refuse(text, strlen(text), "16 levels");
  free(text);
}
END_TEST

START_TEST(limits_length)
{
  static const char head[] = "{\"a\":\"";
  char *text = malloc(FZ_LINE_MAX + 1);
  ck_assert_ptr_nonnull(text);
  memset(text, 'x', FZ_LINE_MAX + 1);
  memcpy(text, head, strlen(head));
  memcpy(text + FZ_LINE_MAX - 2, "\"} ", 3);
  fz_json *root = NULL;
  ck_assert_int_eq(fz_json_parse(&root, text, FZ_LINE_MAX, NULL, 0), 0);
  ck_assert_uint_eq(strlen(fz_json_string(fz_json_member(root, "a"))), FZ_LINE_MAX - strlen(head) - 2);
  fz_json_free(root);
  refuse(text, FZ_LINE_MAX + 1, "1048576 bytes");
  free(text);
}
END_TEST

START_TEST(finds_a_doubled_key_among_many)
{
  enum { KEYS = 60000 };
  char *text = malloc((size_t)KEYS * 16);
  ck_assert_ptr_nonnull(text);
  size_t length = (size_t)sprintf(text, "{");
  for (unsigned i = 0; i < KEYS; i++)
    length += (size_t)sprintf(text + length, "%s\"k%u\":0", i == 0 ? "" : ",", i);
  char *end = text + length;
  strcpy(end, "}");
  fz_json_free(parse(text));
  strcpy(end, ",\"k31415\":0}");
  refuse(text, strlen(text), "'k31415' stands twice");
  free(text);
}
END_TEST

START_TEST(takes_what_is_json)
{
  fz_json *root =
    parse("  { \"a\" : [ ] , \"\" : { } , \"\\u00e9\\ud83d\\ude00\\/\" : \"\\\\u0000\\\"\\b\\f\\n\\r\\t\" }  ");
  ck_assert_int_eq(fz_json_get_type(fz_json_member(root, "a")), FZ_JSON_ARRAY);
  ck_assert_int_eq(fz_json_get_type(fz_json_member(root, "")), FZ_JSON_OBJECT);
  ck_assert_str_eq(fz_json_string(fz_json_member(root, "\xc3\xa9\xf0\x9f\x98\x80/")), "\\u0000\"\b\f\n\r\t");
  ck_assert_ptr_null(fz_json_member(root, "A"));
  ck_assert_ptr_null(fz_json_member(fz_json_member(root, "a"), "b"));
  ck_assert_uint_eq(fz_json_count(root), 3);
  fz_json_free(root);
}
END_TEST

/* --- numbers --- */

static const struct {
  const char *text;
  bool whole;
  uint64_t value;
} numbers[] = {
  { "0", true, 0 },
  { "-0", true, 0 },
  { "0.0e5", true, 0 },
  { "1.0", true, 1 },
  { "1e3", true, 1000 },
  { "1E+3", true, 1000 },
  { "1.500e2", true, 150 },
  { "1500e-2", true, 15 },
  { "1500e-3", false, 0 },
  { "123456789012345", true, 123456789012345 },
  { "1099511627775", true, 1099511627775 },
  { "9007199254740991", true, 9007199254740991 },
  { "9007199254740992", true, 9007199254740992 },
  { "9007199254740992.0", true, 9007199254740992 },
  { "9.007199254740992e15", true, 9007199254740992 },
  { "90071992547409920e-1", true, 9007199254740992 },
  { "9007199254740993", false, 0 },
  { "9007199254740992.5", false, 0 },
  { "4503599627370497.5", false, 0 },
  { "4503599627370496.0000000001", false, 0 },
  { "0.99999999999999999999", false, 0 },
  { "1.00000000000000000001", false, 0 },
  { "1e-400", false, 0 },
  { "0e999", true, 0 },
  { "1.5", false, 0 },
  { "-1", false, 0 },
  { "-1.0", false, 0 },
  { "1e16", false, 0 },
  { "1e999", false, 0 },
  { "1e99999999999999999999", false, 0 },
  { "1e-99999999999999999999", false, 0 },
  { "18446744073709551616", false, 0 },
};

START_TEST(reads_integers_exactly)
{
  char text[200];
  uint64_t value = 12345;
  /* Alone, and behind numbers and strings that look like some. */
  for (int behind = 0; behind < 2; behind++) {
    (void)sprintf(text, "{%s\"n\":%s}", behind ? "\"1.5\":[2.5,\"3.5\\\"\",-4],\"y\":7," : "", numbers[_i].text);
    fz_json *root = parse(text);
    const bool whole = fz_json_integer(fz_json_member(root, "n"), &value);
    ck_assert_msg(whole == numbers[_i].whole, "%s", text);
    fz_field_error error;
    fz_field_error_init(&error, root);
    ck_assert_uint_eq(fz_json_get_integer(root, "n", 0, FZ_INT_MAX, &error), numbers[_i].value);
    ck_assert_int_eq(fz_field_error_is_set(&error), !whole);
    if (whole)
      ck_assert_uint_eq(value, numbers[_i].value);
    fz_json_free(root);
  }
}
END_TEST

START_TEST(knows_numbers_that_are_not_finite)
{
  fz_json *root = parse("{\"big\":1e999,\"low\":-1e999,\"null\":null,\"pi\":3.25,\"word\":\"1\"}");
  fz_field_error error;
  fz_field_error_init(&error, root);
  ck_assert(isnan(fz_json_number(fz_json_member(root, "big"))));
  ck_assert(isnan(fz_json_as_metric(fz_json_member(root, "big"), &error)));
  ck_assert(isnan(fz_json_as_metric(fz_json_member(root, "low"), &error)));
  ck_assert(isnan(fz_json_as_metric(fz_json_member(root, "null"), &error)));
  ck_assert_double_eq(fz_json_get_number(root, "pi", &error), 3.25);
  ck_assert(!fz_field_error_is_set(&error));
  ck_assert_double_eq(fz_json_get_number(root, "big", &error), 0);
  ck_assert_str_eq(error.message, "field 'big' must be a number that a double can hold");
  fz_field_error_init(&error, root);
  ck_assert(isnan(fz_json_as_metric(fz_json_member(root, "word"), &error)));
  ck_assert(fz_field_error_is_set(&error));
  fz_json_free(root);
}
END_TEST

/* --- fields --- */

START_TEST(keeps_the_first_error)
{
  fz_json *root = parse("{\"a\":1,\"b\":[{\"c\":\"x\"},{\"c\":2}],\"d\":true}");
  fz_field_error error;
  fz_field_error_init(&error, root);
  const fz_json *array = fz_json_get_array(root, "b", 1, 2, &error);
  const fz_json *second = fz_json_next(fz_json_first(array));
  ck_assert_str_eq(fz_json_get_string(fz_json_first(array), "c", 1, 1, &error), "x");
  ck_assert(!fz_field_error_is_set(&error));
  ck_assert_str_eq(fz_json_get_string(second, "c", 1, 1, &error), "");
  ck_assert_str_eq(error.path, "b[1].c");
  ck_assert_str_eq(error.message, "field 'b[1].c' must be a string of 1 to 1 bytes");

  /* From here on everything is nothing, and what is there stays. */
  uint64_t kept = 77;
  ck_assert_uint_eq(fz_json_get_integer(root, "a", 0, 9, &error), 0);
  ck_assert(!fz_json_find_integer(root, "a", 0, 9, &kept, &error));
  ck_assert_uint_eq(kept, 77);
  ck_assert(!fz_json_get_bool(root, "d", &error));
  ck_assert_ptr_null(fz_json_get_array(root, "b", 0, 9, &error));
  ck_assert_ptr_null(fz_json_get_object(root, "none", &error));
  fz_field_fail(&error, root, "d", "is late");
  ck_assert_str_eq(error.path, "b[1].c");
  fz_json_free(root);
}
END_TEST

START_TEST(names_the_place)
{
  fz_json *root = parse("{\"a/b\":{\"c~d\":[0,[1,{\"e\\u001b\":2}]]}}");
  const fz_json *inner = fz_json_first(fz_json_first(root));
  const fz_json *deep = fz_json_first(fz_json_next(fz_json_first(fz_json_next(fz_json_first(inner)))));
  char pointer[64];
  fz_json_pointer(root, deep, pointer, sizeof(pointer));
  ck_assert_str_eq(pointer, "/a~1b/c~0d/1/1/e?");
  fz_json_pointer(root, root, pointer, sizeof(pointer));
  ck_assert_str_eq(pointer, "");
  fz_json_pointer(root, deep, pointer, 9);
  ck_assert_str_eq(pointer, "/a~1b/c"); /* no half of "~0" */
  fz_field_error error;
  fz_field_error_init(&error, root);
  (void)fz_json_as_bool(deep, &error);
  ck_assert_str_eq(error.message, "field 'a/b.c~d[1][1].e?' must be true or false");
  fz_field_error_init(&error, root);
  (void)fz_json_get_bool(root, "gone", &error);
  ck_assert_str_eq(error.message, "field 'gone' is missing");
  fz_field_error_init(&error, root);
  (void)fz_json_get_bool(inner, "gone", &error);
  ck_assert_str_eq(error.message, "field 'a/b.c~d' must be an object");
  fz_field_error_init(&error, NULL);
  (void)fz_json_get_bool(NULL, "gone", &error);
  ck_assert(fz_field_error_is_set(&error));
  fz_json_free(root);
}
END_TEST

START_TEST(cuts_long_names_at_a_character)
{
  char text[3000] = "{\"";
  for (int i = 0; i < 600; i++)
    strcat(text, "\xe8\xb5\xb0");
  strcat(text, "\":1}");
  fz_json *root = parse(text);
  fz_field_error error;
  fz_field_error_init(&error, root);
  (void)fz_json_as_bool(fz_json_first(root), &error);
  ck_assert(fz_utf8_is_valid(error.path, strlen(error.path)));
  ck_assert(fz_utf8_is_valid(error.message, strlen(error.message)));
  ck_assert_uint_ge(strlen(error.path), 150);
  ck_assert_ptr_nonnull(strstr(error.message, "true or false"));
  fz_json_free(root);
}
END_TEST

START_TEST(tells_missing_from_wrong)
{
  fz_json *root = parse("{\"null\":null,\"word\":\"two\",\"hash\":\"00ff00ff00ff00ff\"}");
  static const char *const words[] = { "one", "two", "three", NULL };
  fz_field_error error;
  fz_field_error_init(&error, root);
  bool flag = true;
  size_t word = 9;
  const char *text = "kept";
  ck_assert(!fz_json_find_bool(root, "none", &flag, &error));
  ck_assert(!fz_json_find_bool(root, "null", &flag, &error));
  ck_assert(flag);
  ck_assert(!fz_json_find_text(root, "null", 9, &text, &error));
  ck_assert_str_eq(text, "kept");
  ck_assert(fz_json_find_word(root, "word", words, &word, &error));
  ck_assert_uint_eq(word, 1);
  ck_assert_uint_eq(fz_json_get_hash(root, "hash", &error), 0x00ff00ff00ff00ff);
  ck_assert(!fz_field_error_is_set(&error));
  (void)fz_json_get_word(root, "hash", words, &error);
  ck_assert_str_eq(error.message, "field 'hash' must be one, two or three");
  fz_field_error_init(&error, root);
  (void)fz_json_get_bool(root, "null", &error);
  ck_assert_str_eq(error.message, "field 'null' must be true or false");
  fz_json_free(root);
}
END_TEST

/* --- the writer --- */

static void expect_written(fz_json_writer *writer, const char *expected) {
  const char *line = NULL;
  size_t length = 0;
  ck_assert_int_eq(fz_writer_line(writer, &line, &length), 0);
  ck_assert_str_eq(line, expected);
  ck_assert_uint_eq(length, strlen(expected));
  fz_writer_reset(writer);
}

START_TEST(writes_structure)
{
  fz_json_writer writer = FZ_JSON_WRITER_NULL;
  fz_write_begin_object(&writer, NULL);
  fz_write_begin_array(&writer, "a");
  fz_write_end_array(&writer);
  fz_write_begin_array(&writer, "b");
  fz_write_begin_object(&writer, NULL);
  fz_write_end_object(&writer);
  fz_write_null(&writer, NULL);
  fz_write_string(&writer, NULL, NULL);
  fz_write_string(&writer, NULL, "[{:,");
  fz_write_bool(&writer, NULL, true);
  fz_write_end_array(&writer);
  fz_write_time(&writer, "never", FZ_TIME_NEVER);
  fz_write_time(&writer, "once", 0);
  fz_write_hash(&writer, "hash", 0xabc);
  fz_write_raw(&writer, "raw", "[1]", 3);
  fz_write_integer(&writer, "max", UINT64_MAX);
  fz_write_integer(&writer, "digits", 1000000000000001);
  fz_write_end_object(&writer);
  expect_written(&writer, "{\"a\":[],\"b\":[{},null,null,\"[{:,\",true],\"never\":null,\"once\":0,"
                          "\"hash\":\"0000000000000abc\",\"raw\":[1],\"max\":18446744073709551615,"
                          "\"digits\":1000000000000001}\n");
  fz_writer_deinit(&writer);
}
END_TEST

START_TEST(writes_strings)
{
  static const struct {
    const char *in, *out;
  } rows[] = {
    { "", "\"\"\n" },
    { "a\"b\\c/", "\"a\\\"b\\\\c/\"\n" },
    { "\b\f\n\r\t\x01\x1f\x7f", "\"\\b\\f\\n\\r\\t\\u0001\\u001f\x7f\"\n" },
    { "\xc3\xa9\xe8\xb5\xb0\xf0\x9f\x98\x80", "\"\xc3\xa9\xe8\xb5\xb0\xf0\x9f\x98\x80\"\n" },
    { "a\xff"
      "b",
      "\"a\xef\xbf\xbd"
      "b\"\n" },
    { "\xed\xa0\x80", "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"\n" },
    { "x\xe2\x82", "\"x\xef\xbf\xbd\xef\xbf\xbd\"\n" },
  };
  fz_json_writer writer = FZ_JSON_WRITER_NULL;
  for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
    fz_write_string(&writer, NULL, rows[i].in);
    expect_written(&writer, rows[i].out);
  }
  fz_writer_deinit(&writer);
}
END_TEST

START_TEST(writes_numbers_that_read_back)
{
  static const double special[] = {
    0.0,  -0.0,    1.0,           -1.0,  0.1, 1e15, 9007199254740992.0, 5e-324, 1.7976931348623157e308,
    1e21, 1.0 / 3, 123456789.125, 2.5e-8
  };
  fz_json_writer writer = FZ_JSON_WRITER_NULL;
  uint64_t state = 20260109;
  for (int i = 0; i < 20000; i++) {
    double value;
    if ((size_t)i < sizeof(special) / sizeof(special[0]))
      value = special[i];
    else {
      const uint64_t bits = wire_random(&state);
      memcpy(&value, &bits, sizeof(value));
    }
    fz_write_begin_object(&writer, NULL);
    fz_write_number(&writer, "v", value);
    fz_write_end_object(&writer);
    const char *line;
    size_t length;
    ck_assert_int_eq(fz_writer_line(&writer, &line, &length), 0);
    fz_json *root = NULL;
    ck_assert_int_eq(fz_json_parse(&root, line, length - 1, NULL, 0), 0);
    const double back = fz_json_number(fz_json_member(root, "v"));
    if (isfinite(value))
      ck_assert_msg(memcmp(&back, &value, sizeof(value)) == 0, "%a became %a by %s", value, back, line);
    else
      ck_assert_int_eq(fz_json_get_type(fz_json_member(root, "v")), FZ_JSON_NULL);
    fz_json_free(root);
    fz_writer_reset(&writer);
  }
  fz_writer_deinit(&writer);
}
END_TEST

/* A trainer may have set any locale: no decimal comma goes out, none is expected. Needs such a locale to be installed. */
START_TEST(takes_no_notice_of_the_locale)
{
  static const char *const commas[] = { "de_DE.UTF-8", "de_DE.utf8", "fr_FR.UTF-8", "nl_NL.UTF-8", "ps_AF.UTF-8" };
  for (size_t i = 0; i < sizeof(commas) / sizeof(commas[0]); i++) {
    if (setlocale(LC_ALL, commas[i]) == NULL)
      continue;
    fz_json_writer writer = FZ_JSON_WRITER_NULL;
    fz_write_number(&writer, NULL, -1234.5e-30);
    expect_written(&writer, "-1.2345e-27\n");
    fz_write_number(&writer, NULL, 0.1);
    expect_written(&writer, "0.1\n");
    fz_writer_deinit(&writer);
    fz_json *root = parse("{\"a\":2.5,\"b\":1.0}");
    uint64_t whole = 0;
    ck_assert_double_eq(fz_json_number(fz_json_member(root, "a")), 2.5);
    ck_assert(fz_json_integer(fz_json_member(root, "b"), &whole));
    ck_assert_uint_eq(whole, 1);
    fz_json_free(root);
  }
}
END_TEST

START_TEST(writes_no_more_than_it_may)
{
  fz_json_writer writer = { .max = 10 };
  fz_write_string(&writer, NULL, "12345678");
  expect_written(&writer, "\"12345678\"\n");
  fz_write_string(&writer, NULL, "123456789");
  const char *line;
  size_t length;
  ck_assert_int_eq(fz_writer_line(&writer, &line, &length), -E2BIG);
  ck_assert_uint_eq(fz_writer_room(&writer), 0);
  fz_write_null(&writer, NULL);
  ck_assert_int_eq(fz_writer_line(&writer, &line, &length), -E2BIG);
  fz_writer_reset(&writer);

  fz_write_begin_array(&writer, NULL);
  fz_write_integer(&writer, NULL, 1234);
  const size_t mark = fz_writer_length(&writer);
  fz_write_integer(&writer, NULL, 56789);
  ck_assert_uint_eq(fz_writer_room(&writer), 0);
  fz_writer_rewind(&writer, mark);
  ck_assert_uint_eq(fz_writer_room(&writer), 5);
  fz_write_end_array(&writer);
  expect_written(&writer, "[1234]\n");
  fz_writer_deinit(&writer);
}
END_TEST

START_TEST(hands_on_what_it_parsed)
{
  static const char text[] =
    "{\"version\":1,\"x\":[{\"until\":{\"step\":9007199254740992},\"f\":0.1},null,true,\"\\u0007\\\"\"],"
    "\"big\":1e999,\"neg\":-5}";
  fz_json *root = parse(text);
  char *copy = NULL;
  size_t length = 0;
  ck_assert_int_eq(fz_json_to_text(root, 0, &copy, &length), 0);
  ck_assert_str_eq(copy, text);
  ck_assert_uint_eq(length, strlen(text));
  free(copy);
  ck_assert_int_eq(fz_json_to_text(root, 20, &copy, &length), -E2BIG);
  ck_assert_int_eq(fz_json_to_text(fz_json_member(root, "neg"), 0, &copy, NULL), 0);
  ck_assert_str_eq(copy, "-5");
  free(copy);
  fz_json_free(root);
}
END_TEST

/* --- anything at all --- */

static void mutate(char *text, size_t *length, size_t size, uint64_t *state) {
  static const char tokens[] = "{}[]\",:\\u0e-+.1tfn \x01\xff\xc3\x80";
  const size_t at = *length == 0 ? 0 : wire_random(state) % *length;
  switch (wire_random(state) % 4) {
  case 0:
    if (*length > 0)
      text[at] = tokens[wire_random(state) % (sizeof(tokens) - 1)];
    break;
  case 1:
    if (*length > 0) {
      memmove(text + at, text + at + 1, *length - at - 1);
      --*length;
    }
    break;
  case 2:
    if (*length + 1 < size) {
      memmove(text + at + 1, text + at, *length - at);
      text[at] = tokens[wire_random(state) % (sizeof(tokens) - 1)];
      ++*length;
    }
    break;
  default:
    if (*length > 0)
      text[at] = (char)wire_random(state);
    break;
  }
}

/* Whatever passes comes out the same twice over, and never as something that would not pass. */
START_TEST(stands_any_text)
{
  static const char seed[] =
    "{\"a\":[1,2.5,-3e2,\"x\\u00e9\\n\xc3\xa9\"],\"b\":{\"c\":null,\"d\":true,\"e\":false},\"f\":\"\"}";
  uint64_t state = 4711;
  unsigned passed = 0;
  for (int i = 0; i < 40000; i++) {
    char text[256];
    size_t length = strlen(seed);
    memcpy(text, seed, length);
    for (uint64_t n = 1 + wire_random(&state) % 4; n > 0; n--)
      mutate(text, &length, sizeof(text), &state);
    char *exact = malloc(length + (length == 0));
    ck_assert_ptr_nonnull(exact);
    memcpy(exact, text, length);
    fz_json *root = NULL;
    if (fz_json_parse(&root, exact, length, NULL, 0) == 0) {
      char *once = NULL;
      char *twice = NULL;
      ck_assert_int_eq(fz_json_to_text(root, 0, &once, NULL), 0);
      fz_json *again = parse(once);
      ck_assert_int_eq(fz_json_to_text(again, 0, &twice, NULL), 0);
      ck_assert_str_eq(once, twice);
      free(once);
      free(twice);
      fz_json_free(again);
      fz_json_free(root);
      passed++;
    }
    free(exact);
  }
  ck_assert_uint_gt(passed, 1000);
}
END_TEST

START_TEST(steps_over_utf8)
{
  /* Every code point there and back; everything else is none. */
  for (uint32_t code = 0; code <= 0x10ffff; code++) {
    char text[4];
    size_t length = 1;
    if (code < 0x80)
      text[0] = (char)code;
    else if (code < 0x800) {
      length = 2;
      text[0] = (char)(0xc0 | (code >> 6));
    } else if (code < 0x10000) {
      length = 3;
      text[0] = (char)(0xe0 | (code >> 12));
    } else {
      length = 4;
      text[0] = (char)(0xf0 | (code >> 18));
    }
    for (size_t i = 1; i < length; i++)
      text[i] = (char)(0x80 | ((code >> (6 * (length - 1 - i))) & 0x3f));
    const bool surrogate = code >= 0xd800 && code <= 0xdfff;
    uint32_t back = 0;
    const size_t step = fz_utf8_step(text, length, &back);
    if (step != (surrogate ? 0 : length) || (!surrogate && back != code) || fz_utf8_step(text, length - 1, &back) != 0)
      ck_abort_msg("U+%04X", (unsigned)code);
  }
}
END_TEST

Suite *fz_suite(void) {
  Suite *suite = suite_create("json");
  TCase *parsing = tcase_create("parsing");
  tcase_add_loop_test(parsing, refuses_what_is_no_json, 0, (int)(sizeof(broken) / sizeof(broken[0])));
  tcase_add_test(parsing, refuses_a_nul_anywhere);
  tcase_add_test(parsing, limits_nesting);
  tcase_add_test(parsing, limits_length);
  tcase_add_test(parsing, finds_a_doubled_key_among_many);
  tcase_add_test(parsing, takes_what_is_json);
  tcase_add_loop_test(parsing, reads_integers_exactly, 0, (int)(sizeof(numbers) / sizeof(numbers[0])));
  tcase_add_test(parsing, knows_numbers_that_are_not_finite);
  tcase_add_test(parsing, stands_any_text);
  tcase_add_test(parsing, steps_over_utf8);
  suite_add_tcase(suite, parsing);
  TCase *fields = tcase_create("fields");
  tcase_add_test(fields, keeps_the_first_error);
  tcase_add_test(fields, names_the_place);
  tcase_add_test(fields, cuts_long_names_at_a_character);
  tcase_add_test(fields, tells_missing_from_wrong);
  suite_add_tcase(suite, fields);
  TCase *writer = tcase_create("writer");
  tcase_add_test(writer, writes_structure);
  tcase_add_test(writer, writes_strings);
  tcase_add_test(writer, writes_numbers_that_read_back);
  tcase_add_test(writer, takes_no_notice_of_the_locale);
  tcase_add_test(writer, writes_no_more_than_it_may);
  tcase_add_test(writer, hands_on_what_it_parsed);
  suite_add_tcase(suite, writer);
  return suite;
}
