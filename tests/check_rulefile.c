/* check_rulefile.c - rules files: YAML and JSON, every error at its place, and files made to hurt. */
#include "config.h"

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/rulefile/rulefile.h"
#include "tests/rules_help.h"
#include "tests/runner.h"

static fz_rulefile *parse(const char *text) {
  fz_rulefile *file = NULL;
  ck_assert_int_eq(fz_rulefile_parse(&file, "f.yaml", text, strlen(text)), 0);
  return file;
}

/* Whatever is said of a file, one message after the other. */
static char *said(const fz_rulefile *file) {
  char *all = (char *)calloc(1, 65536);
  ck_assert_ptr_nonnull(all);
  for (size_t i = 0; i < fz_rulefile_n_messages(file); i++) {
    strcat(all, fz_rulefile_message(file, i)->text);
    strcat(all, "\n");
  }
  return all;
}

#define SLIPS \
  "version: 1\n" \
  "pin: [\"model.norm\"]\n" \
  "rules:\n" \
  "  - name: positions\n" \
  "    freeze: [\"model.embed_positions\"]\n" \
  "    until: {step: 9000}\n" \
  "  - name: early-layers\n" \
  "    freeze: [\"model.layer.{0..2}\"]\n" \
  "    form: {step: 1200}\n"

START_TEST(both_slips_with_carets)
{
  fz_params *params = help_params("model.embed_positions.weight=1 model.layers.0.w=1 model.layers.1.w=1 "
                                  "model.layers.2.w=1 model.norm.weight=1");
  fz_rulefile *file = parse(SLIPS);
  fz_diagnostics diagnostics = FZ_DIAGNOSTICS_NULL;
  fz_rules *rules = NULL;
  ck_assert_uint_eq(fz_rulefile_n_errors(file), 1);
  ck_assert_ptr_null(fz_rulefile_ruleset(file));
  const char *json = fz_rulefile_json(file);
  ck_assert_int_eq(fz_ruleset_check(json, strlen(json), params, "gpt2-ft", false, &rules, &diagnostics),
                   FZ_CHECK_INVALID);
  ck_assert_int_eq(fz_rulefile_place(file, &diagnostics), 0);
  ck_assert_uint_eq(fz_rulefile_n_errors(file), 2);
  char *text = said(file);
  ck_assert_str_eq(text, "f.yaml:8:14: error: 'model.layer.{0..2}' matches nothing in gpt2-ft; did you mean "
                         "'model.layers.{0..2}'?\n"
                         "    freeze: [\"model.layer.{0..2}\"]\n"
                         "             ^~~~~~~~~~~~~~~~~~~~\n"
                         "f.yaml:9:5: error: unknown key 'form'; did you mean 'from'?\n"
                         "    form: {step: 1200}\n"
                         "    ^~~~\n");
  free(text);
  fz_diagnostics_deinit(&diagnostics);
  fz_rulefile_free(file);
  fz_params_unref(params);
}
END_TEST

static const struct {
  const char *text, *said;
} wrong[] = {
  { "", "f.yaml: error: the file is empty\n" },
  { "# only a comment\n", "f.yaml: error: the file is empty\n" },
  { "- a\n", "f.yaml:1:1: error: a rules file is a mapping; begin with 'version: 1'\n- a\n^\n" },
  { "pin: *x\n", "f.yaml:1:6: error: '*' begins an alias in YAML, and there is no anchor 'x'; quote a pattern that "
                 "begins with '*'\npin: *x\n     ^~\n" },
  { "pin: [*.w]\n", "f.yaml:1:7: error: '*' begins an alias in YAML, and there is no anchor '.w'; quote a pattern that "
                    "begins with '*'\npin: [*.w]\n      ^~~\n" },
  { "pin: [a", "f.yaml:1:8: error: flow sequence without a closing bracket\npin: [a\n       ^\n" },
  { "a: b: c\n", "f.yaml:1:5: error: invalid nested block mapping on the same line\na: b: c\n    ^\n" },
  { "pin: a\n---\npin: b\n", "f.yaml:2:1: error: a rules file holds one document\n---\n^\n" },
  { "pin: a\npin: b\n", "f.yaml:2:1: error: the key 'pin' stands here twice\npin: b\n^~~\n" },
  { "{\"pin\":\"a\",\"pin\":\"b\"}",
    "f.yaml:1:12: error: the key 'pin' stands here twice\n{\"pin\":\"a\",\"pin\":\"b\"}\n           ^~~~~\n" },
  { "{\"pin\":\"a\"} x\n", "f.yaml:1:13: error: missing document start\n{\"pin\":\"a\"} x\n            ^\n" },
  { "pin: &a [*a]\n", "f.yaml:1:9: error: nested too deep\npin: &a [*a]\n        ^~~~\n" },
  { "pin: !P y\n", "f.yaml:1:9: error: a tag has no meaning in rules; quote a text that begins with '!'\npin: !P y\n"
                   "        ^\n" },
  { "pin: a\x01\n", "f.yaml:1:7: error: the file holds control characters\npin: a?\n      ^\n" },
  { "pin: \"a\\0b\"\n",
    "f.yaml:1:6: error: a text in rules has one line and no control characters\npin: \"a\\0b\"\n     ^~~~~~\n" },
  { "pin: \xff\n", "f.yaml:1:6: error: the file is not UTF-8\npin: ?\n     ^\n" },
  { "<<: {pin: a}\n", "f.yaml:1:1: error: unknown key '<<'\n<<: {pin: a}\n^~\n" },
  { "? [a]\n: b\n", "f.yaml:1:3: error: a key is a plain word\n? [a]\n  ^\n" },
  { "pin: [0x10, 007]\n", "f.yaml:1:13: error: a pattern is a string, not a number; write it in quotes\n"
                          "pin: [0x10, 007]\n            ^~~\n" },
  { "rules:\n\t- freeze: a\n", "f.yaml:2:1: error: tab character may not be used as indentation\n\t- freeze: a\n^\n" },
  { "rules:\n- freeze: \"größe[.x\"\n",
    "f.yaml:2:17: error: '[' is not closed; for a bracket in a name write \\[\n- freeze: \"größe[.x\"\n"
    "                ^\n" },
  { "rules:\n- freeze: größe[.x\n",
    "f.yaml:2:16: error: '[' is not closed; for a bracket in a name write \\[\n- freeze: größe[.x\n"
    "               ^\n" },
  { "rules:\n- freeze: 'a**'\n  until_step: 3.5\n",
    "f.yaml:2:13: error: '**' must stand between dots; '**' is any number of whole components: 'a.**'\n"
    "- freeze: 'a**'\n            ^~\n"
    "f.yaml:3:15: error: 'until_step' is an integer\n  until_step: 3.5\n              ^~~\n" },
  { "rules:\n- until: {step: 3}\n", "f.yaml:2:3: error: the rule selects nothing; add freeze: [PATTERN, …] or train: "
                                    "[PATTERN, …]\n- until: {step: 3}\n  ^\n" },
  { "x: &e\n  - 3\nrules:\n- freeze: *e\n",
    "f.yaml:1:1: error: unknown key 'x'\nx: &e\n^\n"
    "f.yaml:2:5: error: a pattern is a string, not a number; write it in quotes\n  - 3\n    ^\n" },
  { "rules:\n- {names: [a], until_step: 1, until_epoch: 2}\nprofile: lighter\n",
    "f.yaml:2:31: error: Only one of `until_step` or `until_epoch` can be specified.\n"
    "- {names: [a], until_step: 1, until_epoch: 2}\n                              ^~~~~~~~~~~\n" },
};

START_TEST(wrong_files)
{
  fz_rulefile *file = parse(wrong[_i].text);
  char *text = said(file);
  ck_assert_str_eq(text, wrong[_i].said);
  ck_assert_uint_gt(fz_rulefile_n_errors(file), 0);
  ck_assert_ptr_null(fz_rulefile_ruleset(file));
  free(text);
  fz_rulefile_free(file);
}
END_TEST

static const struct {
  const char *text, *canonical;
} right[] = {
  { "version: 1", "{\"version\":1,\"profile\":\"owned\",\"rules\":[]}" },
  { "\xef\xbb\xbfversion: 1\r\npin: a\r\n", "{\"version\":1,\"profile\":\"owned\",\"pin\":[\"a\"],\"rules\":[]}" },
  { "{\"version\": 1, \"pin\": [\"a\\u00e9\", \"b\"]}",
    "{\"version\":1,\"profile\":\"owned\",\"pin\":[\"a\xc3\xa9\",\"b\"],\"rules\":[]}" },
  { "rules:\n  - freeze: &front [a, b]\n    until: {epoch: +5}\n  - train: *front\n    from: {epoch: 05}\n",
    "{\"version\":1,\"profile\":\"owned\",\"rules\":[{\"freeze\":[\"a\",\"b\"],\"until\":{\"epoch\":5}},"
    "{\"train\":[\"a\",\"b\"],\"from\":{\"epoch\":5}}]}" },
  { "profile: lighter\nrules:\n  - name_starts_with: [\"model.encoder\"]\n    except_names: [\"model.encoder.norm.weight\"]\n"
    "    names: ~\n    until_epoch: 10\n",
    "{\"version\":1,\"profile\":\"lighter\",\"rules\":[{\"freeze\":[\"prefix:model.encoder\"],"
    "\"except\":[\"name:model.encoder.norm.weight\"],\"until\":{\"epoch\":10}}]}" },
  { "pin: ['1', \"true\", it''s, 1.2.3, re:^a\\.b$]\n",
    "{\"version\":1,\"profile\":\"owned\",\"pin\":[\"1\",\"true\",\"it''s\",\"1.2.3\",\"re:^a\\\\.b$\"],\"rules\":[]}" },
};

START_TEST(right_files)
{
  fz_rulefile *file = parse(right[_i].text);
  char *text = said(file);
  ck_assert_str_eq(text, "");
  ck_assert_str_eq(fz_ruleset_canonical(fz_rulefile_ruleset(file)), right[_i].canonical);
  free(text);
  fz_rulefile_free(file);
}
END_TEST

START_TEST(no_message_twice)
{
  fz_rulefile *file = parse("rules:\n- freeze: a\n  until_step: -1\n");
  fz_diagnostics diagnostics = FZ_DIAGNOSTICS_NULL;
  fz_ruleset *ruleset = NULL;
  const char *json = fz_rulefile_json(file);
  ck_assert_int_eq(fz_ruleset_parse(&ruleset, json, strlen(json), &diagnostics), FZ_RULESET_INVALID);
  ck_assert_int_eq(fz_rulefile_place(file, &diagnostics), 0);
  ck_assert_uint_eq(fz_rulefile_n_messages(file), 1);
  fz_diagnostics_deinit(&diagnostics);
  fz_rulefile_free(file);
}
END_TEST

/* A document cut off at every byte is read without a fault, and what is wrong is said at a place in it. */
START_TEST(every_truncation)
{
  static const char text[] =
    "{version: 1, pin: [\"a\", 'b'], rules: [{name: x, freeze: &s [\"größe.*\"], until: {step: 5}}, "
    "{train: *s}]}\n";
  for (size_t n = 0; n < sizeof(text); n++) {
    fz_rulefile *file = NULL;
    char *copy = (char *)malloc(n + 1);
    memcpy(copy, text, n);
    ck_assert_int_eq(fz_rulefile_parse(&file, "f", copy, n), 0);
    for (size_t i = 0; i < fz_rulefile_n_messages(file); i++)
      ck_assert_uint_le(fz_rulefile_message(file, i)->column, n + 1);
    fz_rulefile_free(file);
    free(copy);
  }
}
END_TEST

/* Random damage to a good file: never a crash, and always either a ruleset or an error. */
START_TEST(random_damage)
{
  struct help_random random = { .state = 21 };
  static const char noise[] = "{}[]*&!|>'\"%@`,:#-?\n\t \\0a\xc3\xff";
  for (unsigned round = 0; round < 3000; round++) {
    char text[] = SLIPS "  - {names: [a], until_step: 3}\n  - train: &x 'b'\n    except: *x\n";
    fz_rulefile *file = NULL;
    for (size_t k = 1 + help_below(&random, 4); k > 0; k--)
      text[help_below(&random, sizeof(text) - 1)] = noise[help_below(&random, sizeof(noise) - 1)];
    ck_assert_int_eq(fz_rulefile_parse(&file, "f", text, sizeof(text) - 1), 0);
    ck_assert((fz_rulefile_ruleset(file) != NULL) == (fz_rulefile_n_errors(file) == 0));
    fz_rulefile_free(file);
  }
}
END_TEST

START_TEST(files_made_to_hurt)
{
  const size_t size = FZ_RULEFILE_MAX + 1;
  char *text = (char *)malloc(size);
  fz_rulefile *file = NULL;
  ck_assert_ptr_nonnull(text);
  memset(text, '[', size);
  ck_assert_int_eq(fz_rulefile_parse(&file, "f", text, size), -E2BIG);
  ck_assert_int_eq(fz_rulefile_parse(&file, "f", text, size - 1), 0);
  ck_assert_str_eq(fz_rulefile_message(file, 0)->message, "nested too deep");
  /* A source line of a megabyte is not shown whole. */
  ck_assert_uint_lt(strlen(fz_rulefile_message(file, 0)->text), 600);
  fz_rulefile_free(file);
  size_t n = (size_t)sprintf(text, "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
  for (int i = 1; i < 12; i++)
    n += (size_t)sprintf(text + n, "a%d: &a%d [*a%d,*a%d,*a%d,*a%d,*a%d,*a%d]\n", i, i, i - 1, i - 1, i - 1, i - 1,
                         i - 1, i - 1);
  ck_assert_int_eq(fz_rulefile_parse(&file, "f", text, n), 0);
  ck_assert_ptr_nonnull(strstr(fz_rulefile_message(file, 0)->message, "too many rules"));
  fz_rulefile_free(file);
  n = (size_t)sprintf(text, "pin: [");
  while (n < 400000)
    n += (size_t)sprintf(text + n, "1,");
  n += (size_t)sprintf(text + n, "]");
  ck_assert_int_eq(fz_rulefile_parse(&file, "f", text, n), 0);
  ck_assert_uint_ge(fz_rulefile_n_errors(file), 1);
  fz_rulefile_free(file);
  free(text);
}
END_TEST

START_TEST(reading_files)
{
  char path[256];
  fz_rulefile *file = NULL;
  (void)snprintf(path, sizeof(path), "%s/rules.yaml", fz_test_root());
  ck_assert_int_eq(fz_rulefile_read(&file, path), -ENOENT);
  ck_assert_int_eq(fz_rulefile_read(&file, fz_test_root()), -EISDIR);
  FILE *out = fopen(path, "w");
  ck_assert_ptr_nonnull(out);
  fputs(SLIPS, out);
  fclose(out);
  ck_assert_int_eq(fz_rulefile_read(&file, path), 0);
  ck_assert_uint_eq(fz_rulefile_message(file, 0)->line, 9);
  ck_assert_uint_eq(fz_rulefile_message(file, 0)->column, 5);
  ck_assert_int_eq(strncmp(fz_rulefile_message(file, 0)->text, path, strlen(path)), 0);
  fz_rulefile_free(file);
}
END_TEST

Suite *fz_suite(void) {
  Suite *suite = suite_create("rulefile");
  TCase *places = tcase_create("places"), *damage = tcase_create("damage");
  tcase_add_test(places, both_slips_with_carets);
  tcase_add_loop_test(places, wrong_files, 0, (int)(sizeof(wrong) / sizeof(*wrong)));
  tcase_add_loop_test(places, right_files, 0, (int)(sizeof(right) / sizeof(*right)));
  tcase_add_test(places, no_message_twice);
  tcase_add_test(places, reading_files);
  tcase_add_test(damage, every_truncation);
  tcase_add_test(damage, random_damage);
  tcase_add_test(damage, files_made_to_hurt);
  tcase_set_timeout(damage, 30);
  suite_add_tcase(suite, places);
  suite_add_tcase(suite, damage);
  return suite;
}
