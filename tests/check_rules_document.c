/* check_rules_document.c - rules documents: what is valid, what is not and where, the canonical form, binding. */
#include "config.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/rules/ruleset.h"
#include "protocol/mask.h"
#include "tests/rules_help.h"
#include "tests/runner.h"

/* ' stands for ". */
static char *quoted(const char *text) {
  char *json = strdup(text);
  ck_assert_ptr_nonnull(json);
  for (char *c = json; *c; c++)
    if (*c == '\'')
      *c = '"';
  return json;
}

static const struct {
  const char *text, *canonical;
} valid[] = {
  { "{}", "{'version':1,'profile':'owned','rules':[]}" },
  { "{'version':1,'rules':null,'pin':null,'profile':null}", "{'version':1,'profile':'owned','rules':[]}" },
  { "{'pin':'a','rules':[]}", "{'version':1,'profile':'owned','pin':['a'],'rules':[]}" },
  { "{'rules':[{'freeze':'a'}]}", "{'version':1,'profile':'owned','rules':[{'freeze':['a']}]}" },
  { "{'rules':[{'until':{'epoch':5,'step':9},'train':['a','b'],'name':'x','except':'c','from':{'step':3}}]}",
    "{'version':1,'profile':'owned','rules':[{'name':'x','train':['a','b'],'except':['c'],'from':{'step':3},"
    "'until':{'step':9,'epoch':5}}]}" },
  { "{'rules':[{'names':'a','name_starts_with':['b','c'],'except_names':['d'],'except_name_starts_with':'e',"
    "'until_step':4,'until_epoch':5}]}",
    "{'version':1,'profile':'owned','rules':[{'freeze':['name:a','prefix:b','prefix:c'],'except':['name:d','prefix:e'],"
    "'until':{'step':4,'epoch':5}}]}" },
  { "{'rules':[{'freeze':'a','names':['b']}]}", "{'version':1,'profile':'owned','rules':[{'freeze':['a','name:b']}]}" },
  { "{'profile':'lighter','rules':[{'names':[],'until_step':-3}]}",
    "{'version':1,'profile':'lighter','rules':[{'freeze':[],'until':{'step':0}}]}" },
  { "{'profile':'lighter','rules':[{'names':'a','until_epoch':9007199254740993}]}",
    "{'version':1,'profile':'lighter','rules':[{'freeze':['name:a']}]}" },
  { "{'profile':'lighter','rules':[{'freeze':['x.*','re:y'],'except':'z','until':{'epoch':2}}]}",
    "{'version':1,'profile':'lighter','rules':[{'freeze':['x.*','re:y'],'except':['z'],'until':{'epoch':2}}]}" },
  { "{'profile':'lighter','rules':[{'names':[''],'name_starts_with':''}]}",
    "{'version':1,'profile':'lighter','rules':[{'freeze':['name:','prefix:']}]}" },
  { "{'rules':[{'freeze':'a','from':{'step':0},'until':{'step':1099511627775}}]}",
    "{'version':1,'profile':'owned','rules':[{'freeze':['a'],'until':{'step':1099511627775}}]}" },
};

START_TEST(valid_documents)
{
  char *json = quoted(valid[_i].text), *expected = quoted(valid[_i].canonical);
  fz_ruleset *ruleset = NULL, *again = NULL;
  ck_assert_msg(fz_ruleset_parse(&ruleset, json, strlen(json), NULL) == 0, "%s", json);
  ck_assert_str_eq(fz_ruleset_canonical(ruleset), expected);
  /* The canonical form is a document that means the same, and its own canonical form. */
  ck_assert_int_eq(fz_ruleset_parse(&again, expected, strlen(expected), NULL), 0);
  ck_assert_str_eq(fz_ruleset_canonical(again), expected);
  ck_assert(fz_ruleset_equal(ruleset, again));
  ck_assert(!fz_ruleset_equal(ruleset, NULL) && fz_ruleset_equal(NULL, NULL));
  fz_ruleset_unref(ruleset);
  fz_ruleset_unref(again);
  free(json);
  free(expected);
}
END_TEST

static const struct {
  const char *text, *pointer, *message, *hint;
  bool at_key;
} invalid[] = {
  { "{'rules':[{'freeze':'a','form':{'step':1}}]}", "/rules/0/form", "unknown key 'form'", "did you mean 'from'?",
    true },
  { "{'rules':[{'freeze':'a','until':{'steps':1}}]}", "/rules/0/until/steps", "unknown key 'steps'",
    "did you mean 'step'?", true },
  { "{'rulse':[]}", "/rulse", "unknown key 'rulse'", "did you mean 'rules'?", true },
  { "{'zzz':1}", "/zzz", "unknown key 'zzz'", NULL, true },
  { "{'version':2}", "/version", "not a version of the rules that is known here", "write 'version: 1'", false },
  { "{'version':'1'}", "/version", "not a version of the rules that is known here", "write 'version: 1'", false },
  { "{'profile':'lightr'}", "/profile", "'profile' is 'owned' or 'lighter'", "did you mean 'lighter'?", false },
  { "{'profile':1}", "/profile", "'profile' is 'owned' or 'lighter'", NULL, false },
  { "{'rules':{}}", "/rules", "'rules' is a list of rules, not a mapping", NULL, false },
  { "{'rules':[[]]}", "/rules/0", "a rule is a mapping, not a list", NULL, false },
  { "{'rules':[{}]}", "/rules/0", "the rule selects nothing", "add freeze: [PATTERN, …] or train: [PATTERN, …]",
    false },
  { "{'rules':[{'freeze':[]}]}", "/rules/0", "the rule selects nothing: its list is empty", NULL, false },
  { "{'rules':[{'freeze':'a','train':'b'}]}", "/rules/0/train", "a rule freezes or trains, not both",
    "make two rules of it", true },
  { "{'rules':[{'freeze':['a',3]}]}", "/rules/0/freeze/1", "a pattern is a string, not a number", "write it in quotes",
    false },
  { "{'rules':[{'freeze':true}]}", "/rules/0/freeze", "'freeze' is a pattern or a list of patterns, not a boolean",
    NULL, false },
  { "{'rules':[{'freeze':['a','!b']}]}", "/rules/0/freeze/1", "'!b': '!' is for commands",
    "put it under 'except', without the '!'", false },
  { "{'rules':[{'freeze':['a','b[c']}]}", "/rules/0/freeze/1", "'[' is not closed", "for a bracket in a name write \\[",
    false },
  { "{'pin':['a','b**']}", "/pin/1", "'**' must stand between dots", "'**' is any number of whole components: 'b.**'",
    false },
  { "{'rules':[{'names':''}]}", "/rules/0/names", "an empty string is no name", "for everything, write freeze: \"**\"",
    false },
  { "{'rules':[{'freeze':'a','until_step':-1}]}", "/rules/0/until_step", "'until_step' must not be negative", NULL,
    false },
  { "{'rules':[{'freeze':'a','until_step':2.5}]}", "/rules/0/until_step", "'until_step' is an integer", NULL, false },
  { "{'rules':[{'freeze':'a','until_step':true}]}", "/rules/0/until_step", "'until_step' is an integer, not a boolean",
    NULL, false },
  { "{'rules':[{'freeze':'a','until_step':'3'}]}", "/rules/0/until_step", "'until_step' is an integer, not a string",
    "write the number without quotes", false },
  { "{'rules':[{'freeze':'a','until':{'step':1099511627776}}]}", "/rules/0/until/step",
    "a step is at most 1099511627775", "leave it out for no limit", false },
  { "{'rules':[{'freeze':'a','until':5}]}", "/rules/0/until", "'until' says of what, not just a number",
    "write {step: N} or {epoch: N}", false },
  { "{'rules':[{'freeze':'a','from':{}}]}", "/rules/0/from", "'from' is empty", "write {step: N} or {epoch: N}",
    false },
  { "{'rules':[{'freeze':'a','until':{'step':5},'until_step':6}]}", "/rules/0/until_step",
    "'until_step' and 'until' both give a limit in steps", "leave one of them out", true },
  { "{'rules':[{'name':'x','freeze':'a'},{'name':'x','freeze':'b'}]}", "/rules/1/name", "another rule is named 'x'",
    NULL, false },
  { "{'rules':[{'name':'','freeze':'a'}]}", "/rules/0/name",
    "a rule's name is 1 to 200 bytes without control characters", NULL, false },
  { "{'rules':[{'name':7,'freeze':'a'}]}", "/rules/0/name", "'name' is a string, not a number", NULL, false },
  { "{'a/b~c':1}", "/a~1b~0c", "unknown key 'a/b~c'", NULL, true },
};

START_TEST(invalid_documents)
{
  char *json = quoted(invalid[_i].text);
  fz_diagnostics diagnostics = FZ_DIAGNOSTICS_NULL;
  fz_ruleset *ruleset = NULL;
  ck_assert_msg(fz_ruleset_parse(&ruleset, json, strlen(json), &diagnostics) == FZ_RULESET_INVALID, "%s", json);
  ck_assert_ptr_null(ruleset);
  ck_assert_msg(diagnostics.n == 1, "%s: %zu", json, diagnostics.n);
  const struct fz_diagnostic *error = fz_diagnostics_first_error(&diagnostics);
  ck_assert_msg(strcmp(error->message, invalid[_i].message) == 0, "%s: %s", json, error->message);
  ck_assert_msg(strcmp(error->pointer, invalid[_i].pointer) == 0, "%s: %s", json, error->pointer);
  ck_assert_msg(error->hint == invalid[_i].hint ||
                  (error->hint && invalid[_i].hint && strcmp(error->hint, invalid[_i].hint) == 0),
                "%s: %s", json, error->hint);
  ck_assert_int_eq(error->at_key, invalid[_i].at_key);
  fz_diagnostics_deinit(&diagnostics);
  free(json);
}
END_TEST

/* Text that is no JSON object of ours. */
START_TEST(broken_text)
{
  static const char *const texts[] = { "",     "[]", "{", "{'a':1,'a':2}", "{} x", "{'rules':nul}", "{'rules':[1,]}",
                                       "\"a\"" };
  for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
    char *json = quoted(texts[i]);
    fz_diagnostics diagnostics = FZ_DIAGNOSTICS_NULL;
    fz_ruleset *ruleset = NULL;
    ck_assert_msg(fz_ruleset_parse(&ruleset, json, strlen(json), &diagnostics) == FZ_RULESET_INVALID, "%s", json);
    ck_assert_int_eq(diagnostics.items[0].problem, FZ_PROBLEM_SYNTAX);
    fz_diagnostics_deinit(&diagnostics);
    free(json);
  }
}
END_TEST

/* A valid document cut off at every byte is never accepted, and never read beyond its end. */
START_TEST(every_truncation)
{
  char *json = quoted("{'version':1,'pin':['a'],'rules':[{'name':'x','freeze':['b','re:c'],'until':{'step':5}}]}");
  const size_t length = strlen(json);
  for (size_t n = 0; n < length; n++) {
    char *copy = (char *)malloc(n + 1);
    fz_ruleset *ruleset = NULL;
    memcpy(copy, json, n);
    ck_assert_int_eq(fz_ruleset_parse(&ruleset, copy, n, NULL), FZ_RULESET_INVALID);
    free(copy);
  }
  free(json);
}
END_TEST

START_TEST(all_errors_at_once)
{
  char *json = quoted("{'version':3,'rules':[{'freze':'a'},{'freeze':'b[','until_step':-1},{'freeze':'c'}],'x':1}");
  fz_diagnostics diagnostics = FZ_DIAGNOSTICS_NULL;
  fz_ruleset *ruleset = NULL;
  ck_assert_int_eq(fz_ruleset_parse(&ruleset, json, strlen(json), &diagnostics), FZ_RULESET_INVALID);
  ck_assert_uint_eq(diagnostics.errors, 5);
  fz_diagnostics_deinit(&diagnostics);
  free(json);
}
END_TEST

START_TEST(too_much)
{
  const size_t size = 2U * 1024 * 1024;
  char *json = (char *)malloc(size);
  fz_diagnostics diagnostics = FZ_DIAGNOSTICS_NULL;
  fz_ruleset *ruleset = NULL;
  size_t n = (size_t)sprintf(json, "{\"rules\":[");
  for (unsigned i = 0; i <= FZ_RULES_MAX; i++)
    n += (size_t)sprintf(json + n, "%s{\"freeze\":\"a\"}", i ? "," : "");
  n += (size_t)sprintf(json + n, "]}");
  ck_assert_int_eq(fz_ruleset_parse(&ruleset, json, n, &diagnostics), FZ_RULESET_INVALID);
  ck_assert_str_eq(diagnostics.items[0].message, "1025 rules are more than 1024");
  fz_diagnostics_deinit(&diagnostics);
  n = (size_t)sprintf(json, "{\"pin\":[");
  for (unsigned i = 0; i <= FZ_PATTERNS_MAX; i++)
    n += (size_t)sprintf(json + n, "%s\"a\"", i ? "," : "");
  n += (size_t)sprintf(json + n, "]}");
  ck_assert_int_eq(fz_ruleset_parse(&ruleset, json, n, &diagnostics), FZ_RULESET_INVALID);
  ck_assert_str_eq(diagnostics.items[0].message, "more than 4096 patterns");
  fz_diagnostics_deinit(&diagnostics);
  /* Hundreds of errors: the first ones are kept, all are counted. */
  n = (size_t)sprintf(json, "{\"pin\":[");
  for (unsigned i = 0; i < 300; i++)
    n += (size_t)sprintf(json + n, "%s%u", i ? "," : "", i);
  n += (size_t)sprintf(json + n, "]}");
  ck_assert_int_eq(fz_ruleset_parse(&ruleset, json, n, &diagnostics), FZ_RULESET_INVALID);
  ck_assert_uint_eq(diagnostics.n, FZ_DIAGNOSTICS_MAX);
  ck_assert_uint_eq(diagnostics.errors, 300);
  ck_assert_uint_eq(diagnostics.dropped, 300 - FZ_DIAGNOSTICS_MAX);
  fz_diagnostics_deinit(&diagnostics);
  memset(json, ' ', size);
  ck_assert_int_eq(fz_ruleset_parse(&ruleset, json, FZ_RULES_TEXT_MAX + 1, &diagnostics), FZ_RULESET_INVALID);
  ck_assert_int_eq(diagnostics.items[0].problem, FZ_PROBLEM_LIMIT);
  fz_diagnostics_deinit(&diagnostics);
  free(json);
}
END_TEST

static const struct {
  const char *text, *message;
} never_acting[] = {
  { "{'rules':[{'freeze':'a','until_step':0}]}", "the rule never acts: it ends at step 0" },
  { "{'rules':[{'freeze':'a','from':{'step':5},'until':{'step':5}}]}",
    "the rule never acts: it ends at step 5, but begins at step 5 only" },
  { "{'rules':[{'freeze':'a','from':{'epoch':5},'until_epoch':4}]}",
    "the rule never acts: it ends at epoch 4, but begins at epoch 5 only" },
};

START_TEST(a_rule_that_never_acts_is_a_warning)
{
  char *json = quoted(never_acting[_i].text);
  fz_diagnostics diagnostics = FZ_DIAGNOSTICS_NULL;
  fz_ruleset *ruleset = NULL;
  ck_assert_int_eq(fz_ruleset_parse(&ruleset, json, strlen(json), &diagnostics), 0);
  ck_assert_uint_eq(diagnostics.n, 1);
  ck_assert_int_eq(diagnostics.items[0].severity, FZ_WARNING);
  ck_assert_str_eq(diagnostics.items[0].message, never_acting[_i].message);
  fz_diagnostics_deinit(&diagnostics);
  fz_ruleset_unref(ruleset);
  free(json);
}
END_TEST

START_TEST(binding)
{
  fz_params *params = help_params("a.w=1 a.b=1 b.w=0");
  fz_ruleset *ruleset =
    help_ruleset("{'pin':'b','rules':[{'freeze':['a'],'except':['a.b']},{'name':'two','train':['b','bb']}]}");
  fz_diagnostics diagnostics = FZ_DIAGNOSTICS_NULL;
  fz_rules *rules = NULL;
  ck_assert_int_eq(fz_ruleset_bind(ruleset, params, "run1", false, &rules, &diagnostics), FZ_BIND_NO_MATCH);
  ck_assert_ptr_null(rules);
  ck_assert_uint_eq(diagnostics.n, 1);
  ck_assert_str_eq(diagnostics.items[0].message, "'bb' matches nothing in run1");
  ck_assert_str_eq(diagnostics.items[0].hint, "did you mean 'b'?");
  ck_assert_str_eq(diagnostics.items[0].pointer, "/rules/1/train/1");
  ck_assert_int_eq(diagnostics.items[0].problem, FZ_PROBLEM_NO_MATCH);
  fz_diagnostics_deinit(&diagnostics);
  ck_assert_int_eq(fz_ruleset_bind(ruleset, params, NULL, true, &rules, &diagnostics), 0);
  ck_assert_int_eq(diagnostics.items[0].severity, FZ_WARNING);
  ck_assert_str_eq(help_mask(fz_rules_mask(rules, 0), 3), "100");
  ck_assert_str_eq(help_mask(fz_rules_mask(rules, 1), 3), "001");
  ck_assert_str_eq(help_mask(fz_rules_pinned(rules), 3), "001");
  ck_assert_uint_eq(fz_rules_matches(rules, 0), 1);
  ck_assert_str_eq(fz_ruleset_get(fz_rules_ruleset(rules), 0)->name, "rule 1");
  ck_assert_str_eq(fz_ruleset_get(fz_rules_ruleset(rules), 1)->name, "two");
  ck_assert_str_eq(fz_ruleset_pin(fz_rules_ruleset(rules), 0), "b");
  fz_diagnostics_deinit(&diagnostics);
  fz_rules_unref(rules);
  fz_ruleset_unref(ruleset);
  fz_params_unref(params);
}
END_TEST

/* What matches nothing is only a warning where lighter itself is silent. */
START_TEST(binding_lighter)
{
  fz_params *params = help_params("a.w=1");
  fz_ruleset *ruleset =
    help_ruleset("{'profile':'lighter','pin':'zz','rules':[{'names':['model.a.w'],'name_starts_with':'zz'}]}");
  fz_diagnostics diagnostics = FZ_DIAGNOSTICS_NULL;
  fz_rules *rules = NULL;
  ck_assert_int_eq(fz_ruleset_bind(ruleset, params, NULL, false, &rules, &diagnostics), 0);
  ck_assert_uint_eq(diagnostics.n, 3);
  ck_assert_uint_eq(diagnostics.errors, 0);
  ck_assert_str_eq(diagnostics.items[1].hint, "did you mean 'name:a.w'?");
  ck_assert_str_eq(diagnostics.items[1].pointer, "/rules/0/names/0");
  fz_diagnostics_deinit(&diagnostics);
  fz_rules_unref(rules);
  fz_ruleset_unref(ruleset);
  fz_params_unref(params);
}
END_TEST

START_TEST(check_finds_both_kinds)
{
  fz_params *params = help_params("model.layers.0.w=1");
  char *json = quoted("{'rules':[{'freeze':['model.layer.0'],'form':{'step':1}}]}");
  fz_diagnostics diagnostics = FZ_DIAGNOSTICS_NULL;
  fz_rules *rules = NULL;
  ck_assert_int_eq(fz_ruleset_check(json, strlen(json), params, "r", false, &rules, &diagnostics), FZ_CHECK_INVALID);
  ck_assert_ptr_null(rules);
  ck_assert_uint_eq(diagnostics.n, 2);
  ck_assert_str_eq(diagnostics.items[0].message, "unknown key 'form'");
  ck_assert_str_eq(diagnostics.items[1].message, "'model.layer.0' matches nothing in r");
  fz_diagnostics_deinit(&diagnostics);
  ck_assert_int_eq(fz_ruleset_check("{", 1, params, "r", false, &rules, &diagnostics), FZ_CHECK_INVALID);
  fz_diagnostics_deinit(&diagnostics);
  free(json);
  json = quoted("{'rules':[{'freeze':'zz'}]}");
  ck_assert_int_eq(fz_ruleset_check(json, strlen(json), params, "r", false, &rules, NULL), FZ_CHECK_NO_MATCH);
  ck_assert_int_eq(fz_ruleset_check(json, strlen(json), params, "r", true, &rules, NULL), 0);
  fz_rules_unref(rules);
  free(json);
  fz_params_unref(params);
}
END_TEST

START_TEST(windows_are_half_open)
{
  const struct fz_window window = { .from_step = 3, .from_epoch = 1, .until_step = 9, .until_epoch = 4 };
  ck_assert_int_eq(fz_window_phase(&window, 2, 1), FZ_PHASE_WAITS);
  ck_assert_int_eq(fz_window_phase(&window, 3, 0), FZ_PHASE_WAITS);
  ck_assert_int_eq(fz_window_phase(&window, 3, 1), FZ_PHASE_ACTIVE);
  ck_assert_int_eq(fz_window_phase(&window, 8, 3), FZ_PHASE_ACTIVE);
  ck_assert_int_eq(fz_window_phase(&window, 9, 3), FZ_PHASE_OVER);
  ck_assert_int_eq(fz_window_phase(&window, 8, 4), FZ_PHASE_OVER);
  ck_assert_int_eq(fz_window_phase(&window, 2, 4), FZ_PHASE_OVER);
}
END_TEST

Suite *fz_suite(void) {
  Suite *suite = suite_create("rules: document");
  TCase *parse = tcase_create("parse"), *bind = tcase_create("bind");
  tcase_add_loop_test(parse, valid_documents, 0, (int)(sizeof(valid) / sizeof(*valid)));
  tcase_add_loop_test(parse, invalid_documents, 0, (int)(sizeof(invalid) / sizeof(*invalid)));
  tcase_add_test(parse, broken_text);
  tcase_add_test(parse, every_truncation);
  tcase_add_test(parse, all_errors_at_once);
  tcase_add_test(parse, too_much);
  tcase_add_loop_test(parse, a_rule_that_never_acts_is_a_warning, 0, sizeof(never_acting) / sizeof(*never_acting));
  tcase_add_test(parse, windows_are_half_open);
  tcase_add_test(bind, binding);
  tcase_add_test(bind, binding_lighter);
  tcase_add_test(bind, check_finds_both_kinds);
  suite_add_tcase(suite, parse);
  suite_add_tcase(suite, bind);
  return suite;
}
