/* check_ctl.c - freezerctl's own small parts: numbers for people, options, the tree of modules, exit statuses. */
#include "config.h"

#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/ctl/errors.h"
#include "client/ctl/human.h"
#include "client/ctl/options.h"
#include "client/ctl/tree.h"
#include "client/ctl/verbs.h"
#include "protocol/limits.h"
#include "protocol/status.h"
#include "tests/runner.h"

START_TEST(counts)
{
  static const struct {
    uint64_t count;
    const char *text;
  } rows[] = { { 0, "0" },
               { 999, "999" },
               { 1000, "1.0K" },
               { 1536, "1.5K" },
               { 99949, "99.9K" },
               { 99950, "0.1M" },
               { 786432, "0.8M" },
               { 7087872, "7.1M" },
               { 124439808, "124.4M" },
               { 999949999, "999.9M" },
               { 999950000, "1.0B" },
               { 7000000000, "7.0B" } };
  ck_assert_str_eq(fz_count(rows[_i].count).text, rows[_i].text);
}
END_TEST

START_TEST(numbers)
{
  ck_assert_str_eq(fz_number(0).text, "0");
  ck_assert_str_eq(fz_number(999).text, "999");
  ck_assert_str_eq(fz_number(4032).text, "4,032");
  ck_assert_str_eq(fz_number(1234567).text, "1,234,567");
  ck_assert_str_eq(fz_number(UINT64_MAX).text, "18,446,744,073,709,551,615");
  ck_assert_str_eq(fz_plural(1, "parameter").text, "1 parameter");
  ck_assert_str_eq(fz_plural(1200, "parameter").text, "1,200 parameters");
}
END_TEST

/* All and nothing are said only when it is so. */
START_TEST(percents)
{
  ck_assert_str_eq(fz_percent(44900000, 124400000).text, "36.1 %");
  ck_assert_str_eq(fz_percent(0, 0).text, "0.0 %");
  ck_assert_str_eq(fz_percent(0, 10).text, "0.0 %");
  ck_assert_str_eq(fz_percent(1, 1000000).text, "0.1 %");
  ck_assert_str_eq(fz_percent(999999, 1000000).text, "99.9 %");
  ck_assert_str_eq(fz_percent(10, 10).text, "100.0 %");
}
END_TEST

START_TEST(durations)
{
  ck_assert_str_eq(fz_duration(0.04).text, "0.04 ms");
  ck_assert_str_eq(fz_duration(0.1).text, "0.1 ms");
  ck_assert_str_eq(fz_duration(9.96).text, "10 ms");
  ck_assert_str_eq(fz_duration(87).text, "87 ms");
  ck_assert_str_eq(fz_duration(1900).text, "1.9 s");
  ck_assert_str_eq(fz_duration(30000).text, "30 s");
  ck_assert_str_eq(fz_duration(125000).text, "2 min 5 s");
  ck_assert_str_eq(fz_duration(3 * 3600e3 + 12 * 60e3).text, "3 h 12 min");
}
END_TEST

START_TEST(clocks)
{
  setenv("TZ", "UTC", 1);
  ck_assert_str_eq(fz_clock("2001-02-03T04:05:06.789Z").text, "2001-02-03 04:05:06");
  ck_assert_str_eq(fz_clock("yesterday").text, "-");
  ck_assert_str_eq(fz_clock(NULL).text, "-");
}
END_TEST

START_TEST(escapes)
{
  static const struct {
    const char *text, *safe;
  } rows[] = { { "", "" },
               { "model.größe", "model.größe" },
               { "a\033[31mb\nc", "a\\x1b[31mb\\x0ac" },
               { "\xff\xc3", "\\xff\\xc3" },
               { "\xc2\x9b", "\\xc2\\x9b" } };
  char *safe = fz_escape(rows[_i].text);
  ck_assert_str_eq(safe, rows[_i].safe);
  free(safe);
}
END_TEST

START_TEST(shortening)
{
  static const struct {
    const char *locale, *text;
    size_t width;
    int middle;
    const char *shortened;
  } rows[] = {
    { "C.UTF-8", "model.layers.3", 14, 1, "model.layers.3" }, { "C.UTF-8", "model.layers.3", 9, 1, "mode…rs.3" },
    { "C.UTF-8", "model.layers.3", 9, 0, "model.la…" },       { "C", "model.layers.3", 9, 1, "mod...s.3" },
    { "C.UTF-8", "größer als größer", 8, 1, "größ…ßer" },     { "C.UTF-8", "abc", 1, 1, "abc" }
  };
  ck_assert_ptr_nonnull(setlocale(LC_CTYPE, rows[_i].locale));
  char *text = fz_shorten(rows[_i].text, rows[_i].width, rows[_i].middle);
  ck_assert_str_eq(text, rows[_i].shortened);
  free(text);
}
END_TEST

/* --- options --- */

static int parse(int argc, char **argv, fz_options *options, struct fz_usage_error *error, int *ret_at) {
  memset(options, 0, sizeof(*options));
  const uint64_t known = FZ_OPTS_GLOBAL | FZ_OPT_BIT(FOR) | FZ_OPT_BIT(AT_STEP) | FZ_OPT_BIT(DRY_RUN);
  return fz_options_parse(options, argc, argv, known, false, ret_at, error);
}

static char word_freeze[] = "freeze", word_name[] = "a.b", word_other[] = "c", word_n[] = "-n", word_r[] = "-r",
            word_for[] = "--for", word_at_step[] = "--at-step=4,032", word_timeout[] = "--timeout", word_half[] = "0.5",
            word_zero[] = "0", word_jsn[] = "--jsn", word_json_value[] = "--json=1", word_x[] = "-x", word_end[] = "--";

START_TEST(options_mix_with_operands)
{
  char *argv[] = { word_freeze,  word_name, word_n,   word_r, word_other, word_at_step,
                   word_timeout, word_half, word_end, word_x, NULL };
  fz_options options;
  struct fz_usage_error error;
  int at;

  ck_assert_int_eq(parse(10, argv, &options, &error, &at), 0);
  ck_assert_int_eq(at, 8);
  ck_assert_str_eq(argv[8], "a.b");
  ck_assert_str_eq(argv[9], "-x");
  ck_assert(fz_given(&options, FZ_OPT_DRY_RUN));
  ck_assert_str_eq(options.text[FZ_OPT_RUN], "c");
  ck_assert_uint_eq(options.number[FZ_OPT_AT_STEP], 4032);
  ck_assert_uint_eq(options.number[FZ_OPT_TIMEOUT], 500);
}
END_TEST

START_TEST(options_that_are_wrong)
{
  static const struct {
    char *words[2];
    int n;
    const char *message, *hint;
  } rows[] = { { { word_jsn }, 1, "unknown option '--jsn'", "did you mean '--json'?" },
               { { word_x }, 1, "unknown option '-x'", "" },
               { { word_json_value }, 1, "--json takes no argument", "" },
               { { word_r }, 1, "--run needs an argument, NAME", "" },
               { { word_for, word_zero }, 2, "--for: '0' is not a whole number in range", "" },
               { { word_timeout, word_name }, 2, "--timeout: 'a.b' is not a number of seconds", "" } };
  char *argv[] = { word_freeze, rows[_i].words[0], rows[_i].words[1], NULL };
  fz_options options;
  struct fz_usage_error error;
  int at;

  ck_assert_int_lt(parse(1 + rows[_i].n, argv, &options, &error, &at), 0);
  ck_assert_str_eq(error.message, rows[_i].message);
  ck_assert_str_eq(error.hint, rows[_i].hint);
}
END_TEST

START_TEST(whole_numbers)
{
  uint64_t number;
  ck_assert_int_eq(fz_parse_number("9_000,000", FZ_INT_MAX, &number), 0);
  ck_assert_uint_eq(number, 9000000);
  ck_assert_int_eq(fz_parse_number("255", 255, &number), 0);
  ck_assert_int_lt(fz_parse_number("256", 255, &number), 0);
  ck_assert_int_lt(fz_parse_number("2", 1, &number), 0);
  ck_assert_int_lt(fz_parse_number("18446744073709551616", UINT64_MAX, &number), 0);
  ck_assert_int_lt(fz_parse_number("", 9, &number), 0);
  ck_assert_int_lt(fz_parse_number("-1", 9, &number), 0);
  ck_assert_int_lt(fz_parse_number("1,", 99, &number), 0);
  ck_assert_int_lt(fz_parse_number(",1", 99, &number), 0);
}
END_TEST

/* --- commands and exit statuses --- */

START_TEST(commands_by_name)
{
  static char rules[] = "rules", check[] = "check", thaw[] = "thaw";
  char *two[] = { rules, check, NULL }, *alias[] = { thaw, NULL };
  int words;

  ck_assert_str_eq(fz_verb_find(2, two, &words)->name, "rules check");
  ck_assert_int_eq(words, 2);
  ck_assert_ptr_null(fz_verb_find(1, two, &words));
  ck_assert(fz_verb_is_family("rules"));
  ck_assert(!fz_verb_is_family("rule"));
  ck_assert_str_eq(fz_verb_find(1, alias, &words)->name, "unfreeze");
  ck_assert_str_eq(fz_verb_suggest("freze"), "freeze");
  ck_assert_str_eq(fz_verb_suggest("sim"), "simulate");
  ck_assert_ptr_null(fz_verb_suggest("timeline"));
}
END_TEST

START_TEST(exit_statuses)
{
#define X(c, wire, status) ck_assert_int_eq(fz_exit_for(wire), status);
  FZ_CODES(X)
#undef X
  ck_assert_int_eq(fz_exit_for("no_daemon"), FZ_EXIT_NO_DAEMON);
  ck_assert_int_eq(fz_exit_for("timed_out"), FZ_EXIT_TIMEOUT);
  ck_assert_int_eq(fz_exit_for("from_the_future"), FZ_EXIT_FAILED);
}
END_TEST

/* --- the tree --- */

static void add(fz_tree *tree, const char *name, uint64_t elements, bool frozen) {
  const struct fz_tree_param param = {
    .name = name, .elements = elements, .frozen = frozen, .matched = true, .since = FZ_TIME_NEVER, .why = ""
  };
  ck_assert_int_eq(fz_tree_add(tree, &param), 0);
}

/* Prints the tree as one line: "model(a b(c))", with what folds as the command shows it. */
static void describe(FILE *out, const struct fz_tree_node *node) {
  for (const char *space = ""; node; space = " ") {
    const size_t run = fz_tree_run(node);
    char *label = fz_tree_label(node, run, false);
    fprintf(out, "%s%s:%s", space, label, (const char *[]){ "frozen", "training", "partial" }[fz_tree_state(node)]);
    free(label);
    if (node->first_child) {
      fputc('(', out);
      describe(out, node->first_child);
      fputc(')', out);
    }
    for (size_t i = 0; i < run; i++)
      node = node->next;
  }
}

static char *tree_text(const fz_tree *tree) {
  char *text;
  size_t size;
  FILE *out = open_memstream(&text, &size);
  describe(out, fz_tree_first(tree));
  ck_assert_int_eq(fclose(out), 0);
  return text;
}

START_TEST(tree_of_modules)
{
  static const char *const expected[] = {
    NULL,
    "model:partial 7:training",
    "model:partial(embed:training layers.0..1:frozen layers.2:partial layers.4..5:training) 7:training(w:training)",
    "model:partial(embed:training(w:training) layers.0:frozen(w:frozen) layers.1:frozen(w:frozen b:frozen) "
    "layers.2:partial(w:frozen b:training) layers.4:training(w:training) layers.5:training(w:training)) "
    "7:training(w:training)",
  };
  fz_tree *tree = NULL;
  ck_assert_int_eq(fz_tree_new(&tree, (size_t)_i), 0);
  add(tree, "model.embed.w", 10, false);
  add(tree, "model.layers.0.w", 10, true);
  add(tree, "model.layers.1.w", 10, true);
  add(tree, "model.layers.1.b", 1, true);
  add(tree, "model.layers.2.w", 10, true);
  add(tree, "model.layers.2.b", 1, false);
  add(tree, "model.layers.4.w", 10, false);
  add(tree, "model.layers.5.w", 10, false);
  add(tree, "7.w", 3, false);
  char *text = tree_text(tree);
  ck_assert_str_eq(text, expected[_i]);
  ck_assert_uint_eq(fz_tree_first(tree)->elements, 62);
  ck_assert_uint_eq(fz_tree_first(tree)->frozen, 4);
  free(text);
  fz_tree_free(tree);
}
END_TEST

START_TEST(tree_labels)
{
  fz_tree *tree = NULL;
  ck_assert_int_eq(fz_tree_new(&tree, 2), 0);
  add(tree, "m.blocks.9.w", 1, false);
  add(tree, "m.blocks.10.w", 1, false);
  add(tree, "m.blocks.11.w", 1, false);
  const struct fz_tree_node *first = fz_tree_first(tree)->first_child;
  ck_assert_uint_eq(fz_tree_run(first), 3);
  char *label = fz_tree_label(first, 3, false), *full = fz_tree_label(first, 3, true);
  ck_assert_str_eq(label, "blocks.9..11");
  ck_assert_str_eq(full, "m.blocks.{9..11}");
  free(label);
  free(full);
  fz_tree_free(tree);
}
END_TEST

Suite *fz_suite(void) {
  Suite *suite = suite_create("ctl");
  TCase *human = tcase_create("human"), *line = tcase_create("command line"), *tree = tcase_create("tree");

  tcase_add_loop_test(human, counts, 0, 12);
  tcase_add_test(human, numbers);
  tcase_add_test(human, percents);
  tcase_add_test(human, durations);
  tcase_add_test(human, clocks);
  tcase_add_loop_test(human, escapes, 0, 5);
  tcase_add_loop_test(human, shortening, 0, 6);
  tcase_add_test(line, options_mix_with_operands);
  tcase_add_loop_test(line, options_that_are_wrong, 0, 6);
  tcase_add_test(line, whole_numbers);
  tcase_add_test(line, commands_by_name);
  tcase_add_test(line, exit_statuses);
  tcase_add_loop_test(tree, tree_of_modules, 1, 4);
  tcase_add_test(tree, tree_labels);
  suite_add_tcase(suite, human);
  suite_add_tcase(suite, line);
  suite_add_tcase(suite, tree);
  return suite;
}
