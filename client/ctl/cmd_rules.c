/* cmd_rules.c - rules check, load, show, unload. */
#include "config.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/ctl/change.h"
#include "client/ctl/errors.h"
#include "client/ctl/human.h"
#include "client/ctl/output.h"
#include "client/ctl/paramsfile.h"
#include "client/ctl/request.h"
#include "client/ctl/rulesfile.h"
#include "client/ctl/table.h"
#include "client/ctl/verbs.h"
#include "daemon/rules/report.h"

/* --- check --- */

/* Asks freezerd whether the rules fit a run. 0 or the exit status; what freezerd found wrong is in the answer. */
static int ask_check(const fz_ctl *ctl, fz_conn *conn, const fz_rulefile *file, const char *run, fz_answer *answer) {
  const char *document = fz_rulefile_json(file);
  fz_json_writer *request = fz_conn_begin_run(conn, FZ_OP_RULES_CHECK, run);

  fz_write_raw(request, "rules", document, strlen(document));
  if (fz_given(&ctl->options, FZ_OPT_ALLOW_MISSING))
    fz_write_bool(request, "allow_missing", true);
  return fz_conn_call(conn, answer);
}

/*
 * Asks even if the rules are wrong already: so what is wrong with the document and what selects nothing in the run come
 * out together. 0 or the exit status; warnings are said.
 */
static int check_against(const fz_ctl *ctl, fz_rulefile *file, const char *run) {
  __attribute__((cleanup(fz_conn_freep))) fz_conn *conn = NULL;
  fz_answer answer = FZ_ANSWER_NULL;
  int status = fz_conn_open(ctl, &conn);

  if (status == 0)
    status = ask_check(ctl, conn, file, run, &answer);
  if (status == 0 && fz_answer_code(&answer))
    status = fz_rules_fail_answer(ctl, file, &answer);
  for (const fz_json *warning = fz_json_first(fz_json_member(answer.root, "warnings")); status == 0 && warning;
       warning = fz_json_next(warning))
    fz_warn("warning: %s", fz_json_string(warning) ? fz_json_string(warning) : "?");
  fz_answer_deinit(&answer);
  return status;
}

/* Checks one file; what it is checked against is remembered in *ret_where for the report. */
static int check_file(const fz_ctl *ctl, const char *path, fz_params *params, fz_rulefile **ret_file) {
  int status = fz_rules_read(ctl, path, ret_file);

  if (status == 0 && params && fz_rulefile_json(*ret_file))
    status = fz_rules_compare(ctl, *ret_file, params, ctl->options.text[FZ_OPT_PARAMS]);
  else if (status == 0 && fz_given(&ctl->options, FZ_OPT_AGAINST) && fz_rulefile_json(*ret_file))
    status = check_against(ctl, *ret_file, ctl->options.text[FZ_OPT_AGAINST]);
  return status ? status : fz_rules_verdict(ctl, *ret_file);
}

static void print_checked(const fz_ctl *ctl, const char *path, const fz_rulefile *file, const char *where) {
  const fz_ruleset *ruleset = fz_rulefile_ruleset(file);
  char *safe = fz_escape(path);
  if (!fz_given(&ctl->options, FZ_OPT_QUIET))
    printf("%s: no errors, %s, profile %s%s%s\n", safe ? safe : path, fz_plural(fz_ruleset_count(ruleset), "rule").text,
           fz_profile_name(fz_ruleset_profile(ruleset)), where ? ", against " : "", where ? where : "");
  free(safe);
}

static void write_checked(fz_json_writer *writer, const char *path, const fz_rulefile *file) {
  const fz_ruleset *ruleset = fz_rulefile_ruleset(file);
  const char *document = fz_ruleset_canonical(ruleset);

  fz_write_begin_object(writer, NULL);
  fz_write_string(writer, "file", path);
  fz_write_string(writer, "profile", fz_profile_name(fz_ruleset_profile(ruleset)));
  fz_write_integer(writer, "rules", fz_ruleset_count(ruleset));
  fz_write_begin_array(writer, "warnings");
  for (size_t i = 0; i < fz_rulefile_n_messages(file); i++) {
    const struct fz_rulefile_message *message = fz_rulefile_message(file, i);
    fz_write_begin_object(writer, NULL);
    fz_write_integer(writer, "line", message->line);
    fz_write_integer(writer, "column", message->column);
    fz_write_string(writer, "message", message->message);
    fz_write_string(writer, "hint", message->hint);
    fz_write_end_object(writer);
  }
  fz_write_end_array(writer);
  fz_write_raw(writer, "document", document, strlen(document));
  fz_write_end_object(writer);
}

/* Every file is looked at, so that one call names all mistakes; with --json the first bad file is the answer. */
static int check_files(const fz_ctl *ctl, fz_params *params) {
  const char *against = ctl->options.text[FZ_OPT_AGAINST];
  const char *where = against ? against : ctl->options.text[FZ_OPT_PARAMS];
  fz_json_writer writer = FZ_JSON_WRITER_NULL;
  int worst = 0;

  fz_output_begin_command(&writer, ctl);
  fz_write_begin_array(&writer, "files");
  for (size_t i = 0; i < ctl->n_operands && !(worst && fz_wants_json(ctl)); i++) {
    __attribute__((cleanup(fz_rulefile_freep))) fz_rulefile *file = NULL;
    const int status = check_file(ctl, ctl->operands[i], params, &file);
    if (status) {
      worst = worst ? worst : status;
      continue;
    }
    fz_rules_say(file);
    if (fz_wants_json(ctl))
      write_checked(&writer, ctl->operands[i], file);
    else
      print_checked(ctl, ctl->operands[i], file, where);
  }
  fz_write_end_array(&writer);
  if (worst == 0 && fz_wants_json(ctl))
    return fz_output_end(&writer) < 0 ? fz_fail_memory(ctl) : FZ_EXIT_DONE;
  fz_writer_deinit(&writer);
  return worst;
}

int fz_cmd_rules_check(fz_ctl *ctl) {
  fz_params *params = NULL;
  int status = 0;
  if (fz_given(&ctl->options, FZ_OPT_AGAINST) && fz_given(&ctl->options, FZ_OPT_PARAMS))
    return fz_fail(ctl, "usage", NULL, "--against and --params exclude each other");
  if (fz_given(&ctl->options, FZ_OPT_PARAMS))
    status = fz_params_read(ctl, ctl->options.text[FZ_OPT_PARAMS], &params);
  if (status == 0)
    status = check_files(ctl, params);
  fz_params_unref(params);
  return status;
}

/* --- load, unload --- */

static void fill_load(fz_json_writer *request, const fz_ctl *ctl, void *user) {
  const fz_rulefile *file = user;
  const char *document = fz_rulefile_json(file);
  const char *path = ctl->operands[0];

  fz_write_raw(request, "rules", document, strlen(document));
  fz_write_string(request, "source", strcmp(path, "-") == 0 ? "standard input" : path);
  if (fz_given(&ctl->options, FZ_OPT_ALLOW_MISSING))
    fz_write_bool(request, "allow_missing", true);
}

/*
 * The file is wrong whatever freezerd thinks of it: nothing is loaded. If the run can be asked, what selects nothing in it
 * is said as well, so that one call names all mistakes.
 */
static int fail_load(const fz_ctl *ctl, fz_rulefile *file) {
  __attribute__((cleanup(fz_conn_freep))) fz_conn *conn = NULL;
  fz_answer answer = FZ_ANSWER_NULL;
  int status = 0;

  if (fz_rulefile_json(file) && fz_conn_try(ctl, &conn) == 0)
    status = ask_check(ctl, conn, file, fz_run_wanted(ctl), &answer);
  if (status == 0 && fz_json_member(fz_json_member(answer.root, "error"), "details"))
    status = fz_rules_fail_answer(ctl, file, &answer);
  fz_answer_deinit(&answer);
  return status ? status : fz_rules_verdict(ctl, file);
}

int fz_cmd_rules_load(fz_ctl *ctl) {
  __attribute__((cleanup(fz_rulefile_freep))) fz_rulefile *file = NULL;
  fz_answer answer = FZ_ANSWER_NULL;
  int status = fz_rules_read(ctl, ctl->operands[0], &file);

  if (status == 0 && fz_rulefile_n_errors(file) > 0)
    status = fail_load(ctl, file);
  if (status == 0) {
    fz_rules_say(file);
    status = fz_change_send(ctl, FZ_OP_RULES_LOAD, fill_load, file, &answer);
  }
  if (status == 0)
    status = fz_answer_code(&answer) ? fz_rules_fail_answer(ctl, file, &answer)
                                     : fz_change_report(ctl, FZ_OP_RULES_LOAD, &answer);
  fz_answer_deinit(&answer);
  return status;
}

int fz_cmd_rules_unload(fz_ctl *ctl) { return fz_change_run(ctl, FZ_OP_RULES_UNLOAD, NULL); }

/* --- show --- */

enum { COLUMN_RULE, COLUMN_ACTION, COLUMN_MATCHES, COLUMN_WINDOW, COLUMN_NOW, COLUMN_SELECTORS };

static const struct fz_column columns[] = {
  { "RULE", "name of the rule", FZ_COLUMN_MIDDLE },
  { "ACTION", "freeze or train", 0 },
  { "MATCHES", "parameters that it selects", FZ_COLUMN_RIGHT },
  { "WINDOW", "from when, and until before when", 0 },
  { "NOW", "active, waits, over; and by what it is shadowed", FZ_COLUMN_END },
  { "SELECTORS", "what it selects", FZ_COLUMN_END | FZ_COLUMN_EXTRA },
};

static char *selectors_text(const fz_json *rule) {
  char *text = NULL;
  size_t size;
  FILE *out = open_memstream(&text, &size);
  if (!out)
    return NULL;
  const fz_json *first = fz_json_first(fz_json_member(rule, "selectors"));
  for (const fz_json *item = first; item; item = fz_json_next(item))
    fprintf(out, "%s%s", item == first ? "" : " ", fz_json_string(item) ? fz_json_string(item) : "");
  if (fclose(out) != 0) {
    free(text);
    return NULL;
  }
  return text;
}

static char *window_text(const fz_json *rule) {
  struct fz_window window = FZ_WINDOW_ALWAYS;
  window.from_step = fz_int_of(rule, "from_step");
  window.from_epoch = fz_int_of(rule, "from_epoch");
  (void)fz_has_int(rule, "until_step", &window.until_step);
  (void)fz_has_int(rule, "until_epoch", &window.until_epoch);
  return fz_window_text(&window);
}

static void add_rule(fz_table *table, const fz_json *rule) {
  const long row = fz_table_add(table, -1);
  const char *now = fz_text_of(rule, "now"), *shadowed = fz_text_of(rule, "shadowed");
  const uint64_t matches = fz_int_of(rule, "matches");
  char raw[24], *window = window_text(rule), *selectors = selectors_text(rule);
  char state[256];

  snprintf(raw, sizeof(raw), "%llu", (unsigned long long)matches);
  snprintf(state, sizeof(state), "%s%s%s", now ? now : "", shadowed ? ", shadowed " : "", shadowed ? shadowed : "");
  fz_table_set(table, row, COLUMN_RULE, fz_text_of(rule, "name"), NULL, FZ_PAINT_NONE);
  fz_table_set(table, row, COLUMN_ACTION, fz_text_of(rule, "action"), NULL, FZ_PAINT_NONE);
  fz_table_set(table, row, COLUMN_MATCHES, fz_number(matches).text, raw, FZ_PAINT_NONE);
  fz_table_set(table, row, COLUMN_WINDOW, window, NULL, FZ_PAINT_NONE);
  fz_table_set(table, row, COLUMN_NOW, state, NULL, shadowed ? FZ_PAINT_PENDING : FZ_PAINT_NONE);
  fz_table_set(table, row, COLUMN_SELECTORS, selectors, NULL, FZ_PAINT_NONE);
  free(window);
  free(selectors);
}

/* Where the rules come from, the document's pins and how far the plan reaches: with -v. */
static void print_about(const fz_json *root) {
  const fz_json *horizon = fz_json_member(root, "horizon");
  const char *source = fz_text_of(root, "source"), *by = fz_text_of(root, "by"), *profile = fz_text_of(root, "profile");
  uint64_t step;

  printf("source   %s%s%s\n", source ? source : "-", by ? ", loaded by " : "", by ? by : "");
  printf("profile  %s\n", profile ? profile : "-");
  for (const fz_json *pin = fz_json_first(fz_json_member(root, "pins")); pin; pin = fz_json_next(pin))
    printf("pin      %s\n", fz_json_string(pin) ? fz_json_string(pin) : "");
  if (fz_has_int(horizon, "step", &step))
    printf("horizon  step %s\n", fz_number(step).text);
}

static int print_rules(const fz_ctl *ctl, const fz_json *root) {
  fz_table *table;
  int status;

  if (!fz_table_new(ctl, columns, sizeof(columns) / sizeof(columns[0]), &table, &status))
    return status;
  for (const fz_json *rule = fz_json_first(fz_json_member(root, "rules")); rule; rule = fz_json_next(rule))
    add_rule(table, rule);
  const int r = fz_table_print(table);
  fz_table_free(table);
  if (fz_given(&ctl->options, FZ_OPT_VERBOSE))
    print_about(root);
  return r < 0 ? fz_fail_memory(ctl) : FZ_EXIT_DONE;
}

int fz_cmd_rules_show(fz_ctl *ctl) {
  fz_answer answer = FZ_ANSWER_NULL;
  int status;

  if (!fz_table_check(ctl, columns, sizeof(columns) / sizeof(columns[0]), &status))
    return status;
  status = fz_ask(ctl, FZ_OP_RULES_SHOW, &answer);
  if (status == 0)
    status = fz_wants_json(ctl) ? fz_answer_print_json(ctl, &answer) : print_rules(ctl, answer.root);
  fz_answer_deinit(&answer);
  return status;
}
