/* rulesfile.c - rules files as commands use them: read, checked against parameters, complaints said. */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "client/ctl/errors.h"
#include "client/ctl/output.h"
#include "client/ctl/rulesfile.h"
#include "daemon/rules/ruleset.h"

/* Said as compilers say it; the lines come from the file's own library, which has escaped what it quotes. */
void fz_rules_say(const fz_rulefile *file) {
  fflush(stdout);
  for (size_t i = 0; i < fz_rulefile_n_messages(file); i++)
    fprintf(stderr, "%s\n", fz_rulefile_message(file, i)->text);
}

static void write_detail(fz_json_writer *writer, const struct fz_rulefile_message *message) {
  fz_write_begin_object(writer, NULL);
  fz_write_string(writer, "severity", message->severity == FZ_ERROR ? "error" : "warning");
  fz_write_integer(writer, "line", message->line);
  fz_write_integer(writer, "column", message->column);
  fz_write_string(writer, "message", message->message);
  fz_write_string(writer, "hint", message->hint);
  fz_write_end_object(writer);
}

/* The file has errors: all of them on stderr, with --json in an object too. */
static int fail_file(const fz_ctl *ctl, const fz_rulefile *file) {
  fz_json_writer writer = FZ_JSON_WRITER_NULL;
  const struct fz_rulefile_message *first = NULL;

  for (size_t i = 0; i < fz_rulefile_n_messages(file) && !first; i++)
    if (fz_rulefile_message(file, i)->severity == FZ_ERROR)
      first = fz_rulefile_message(file, i);
  if (fz_wants_json(ctl)) {
    fz_output_begin(&writer, "error");
    fz_write_begin_object(&writer, "error");
    fz_write_string(&writer, "code", "rules_invalid");
    fz_write_string(&writer, "message", first ? first->message : "the rules are invalid");
    fz_write_string(&writer, "hint", first ? first->hint : NULL);
    fz_write_begin_array(&writer, "details");
    for (size_t i = 0; i < fz_rulefile_n_messages(file); i++)
      write_detail(&writer, fz_rulefile_message(file, i));
    fz_write_end_array(&writer);
    fz_write_end_object(&writer);
    fz_write_integer(&writer, "exit", FZ_EXIT_RULES);
    fz_output_end(&writer);
  }
  fz_rules_say(file);
  return FZ_EXIT_RULES;
}

int fz_rules_read(const fz_ctl *ctl, const char *path, fz_rulefile **ret_file) {
  const int r = fz_rulefile_read(ret_file, path);
  if (r == -E2BIG)
    return fz_fail(ctl, "rules_invalid", NULL, "'%s' is larger than %u bytes", path, FZ_RULEFILE_MAX);
  if (r < 0)
    return fz_fail(ctl, "no_file", NULL, "cannot read '%s': %s", path, strerror(-r));
  return 0;
}

int fz_rules_verdict(const fz_ctl *ctl, const fz_rulefile *file) {
  return fz_rulefile_n_errors(file) > 0 ? fail_file(ctl, file) : 0;
}

int fz_rules_open(const fz_ctl *ctl, const char *path, fz_rulefile **ret_file) {
  fz_rulefile *file = NULL;
  int status = fz_rules_read(ctl, path, &file);
  if (status == 0)
    status = fz_rules_verdict(ctl, file);
  if (status == 0)
    *ret_file = file;
  else
    fz_rulefile_free(file);
  return status;
}

int fz_rules_compare(const fz_ctl *ctl, fz_rulefile *file, fz_params *params, const char *name) {
  fz_diagnostics diagnostics = FZ_DIAGNOSTICS_NULL;
  fz_rules *rules = NULL;
  const char *document = fz_rulefile_json(file);
  const bool allow_missing = fz_given(&ctl->options, FZ_OPT_ALLOW_MISSING);
  int r = fz_ruleset_check(document, strlen(document), params, name, allow_missing, &rules, &diagnostics);
  if (r >= 0)
    r = fz_rulefile_place(file, &diagnostics);
  fz_diagnostics_deinit(&diagnostics);
  fz_rules_unref(rules);
  return r < 0 ? fz_fail_memory(ctl) : 0;
}

int fz_rules_bind(const fz_ctl *ctl, fz_rulefile *file, fz_params *params, const char *name, fz_rules **ret_rules) {
  fz_diagnostics diagnostics = FZ_DIAGNOSTICS_NULL;
  fz_rules *rules = NULL;
  const bool allow_missing = fz_given(&ctl->options, FZ_OPT_ALLOW_MISSING);
  const int r = fz_ruleset_bind(fz_rulefile_ruleset(file), params, name, allow_missing, &rules, &diagnostics);
  const int placed = fz_rulefile_place(file, &diagnostics);

  fz_diagnostics_deinit(&diagnostics);
  if (r < 0 || placed < 0) {
    fz_rules_unref(rules);
    return fz_fail_memory(ctl);
  }
  if (r > 0)
    return fail_file(ctl, file);
  *ret_rules = rules;
  return 0;
}

/* One element of `details`. Its texts are borrowed from the answer: fz_diagnostics_add() copies them. */
static struct fz_diagnostic read_detail(const fz_json *detail) {
  const char *message = fz_text_of(detail, "message"), *hint = fz_text_of(detail, "hint");
  const char *pointer = fz_text_of(detail, "path"), *severity = fz_text_of(detail, "severity");
  uint64_t offset;
  return (struct fz_diagnostic){
    .severity = severity && strcmp(severity, "warning") == 0 ? FZ_WARNING : FZ_ERROR,
    .problem = FZ_PROBLEM_DOCUMENT,
    .message = (char *)(uintptr_t)(message ? message : "invalid"),
    .hint = (char *)(uintptr_t)hint,
    .pointer = (char *)(uintptr_t)(pointer ? pointer : ""),
    .at_key = fz_true_of(detail, "key"),
    .offset = fz_has_int(detail, "offset", &offset) ? (size_t)offset : SIZE_MAX,
    .length = (size_t)fz_int_of(detail, "length"),
  };
}

int fz_rules_fail_answer(const fz_ctl *ctl, fz_rulefile *file, const fz_answer *answer) {
  const fz_json *details = fz_json_member(fz_json_member(answer->root, "error"), "details");
  fz_diagnostics diagnostics = FZ_DIAGNOSTICS_NULL;
  int r = 0;

  if (!fz_json_first(details))
    return fz_answer_fail(ctl, answer);
  for (const fz_json *detail = fz_json_first(details); detail && r == 0; detail = fz_json_next(detail)) {
    const struct fz_diagnostic diagnostic = read_detail(detail);
    r = fz_diagnostics_add(&diagnostics, &diagnostic);
  }
  if (r == 0)
    r = fz_rulefile_place(file, &diagnostics);
  fz_diagnostics_deinit(&diagnostics);
  return r < 0 ? fz_fail_memory(ctl) : fail_file(ctl, file);
}
