/* errors.c - how freezerctl fails: one sentence, a hint with what to type, and the exit status. */
#include "config.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/ctl/errors.h"
#include "client/ctl/human.h"
#include "client/ctl/output.h"
#include "client/ctl/verbs.h"
#include "protocol/status.h"

/* Codes of freezerctl itself, beside those of the wire. */
static const struct {
  const char *code;
  int status;
} own_codes[] = {
  { "usage", FZ_EXIT_USAGE },
  { "failed", FZ_EXIT_FAILED },
  { "no_file", FZ_EXIT_FAILED },
  { "no_daemon", FZ_EXIT_NO_DAEMON },
  { "daemon_gone", FZ_EXIT_NO_DAEMON },
  { "no_answer", FZ_EXIT_TIMEOUT },
  { "timed_out", FZ_EXIT_TIMEOUT },
  { "not_confirmed", FZ_EXIT_UNCONFIRMED },
  { "interrupted", FZ_EXIT_INTERRUPTED },
  { "cannot_run", FZ_EXIT_CANNOT_RUN },
  { "no_command", FZ_EXIT_NO_COMMAND },
};

int fz_exit_for(const char *code) {
  for (size_t i = 0; i < sizeof(own_codes) / sizeof(own_codes[0]); i++)
    if (strcmp(own_codes[i].code, code) == 0)
      return own_codes[i].status;
  return fz_code_exit_status(fz_code_parse(code));
}

/* Prints a text line by line, each made safe for a terminal. */
static void print_lines(const char *text) {
  while (*text) {
    const size_t length = strcspn(text, "\n");
    char *line = strndup(text, length);
    char *safe = line ? fz_escape(line) : NULL;
    fprintf(stderr, "%s\n", safe ? safe : "(out of memory)");
    free(safe);
    free(line);
    text += length;
    text += *text == '\n';
  }
}

void fz_hint(const char *hint) {
  if (!hint || !*hint)
    return;
  fputs("hint: ", stderr);
  print_lines(hint);
}

static void print_error_object(const char *code, int status, const char *message, const char *hint) {
  fz_json_writer writer = FZ_JSON_WRITER_NULL;
  fz_output_begin(&writer, "error");
  fz_write_begin_object(&writer, "error");
  fz_write_string(&writer, "code", code);
  fz_write_string(&writer, "message", message);
  fz_write_string(&writer, "hint", hint);
  fz_write_end_object(&writer);
  fz_write_integer(&writer, "exit", (uint64_t)status);
  fz_output_end(&writer);
}

int fz_fail(const fz_ctl *ctl, const char *code, const char *hint, const char *format, ...) {
  const int status = fz_exit_for(code);
  char *message = NULL;
  va_list arguments;

  va_start(arguments, format);
  if (vasprintf(&message, format, arguments) < 0)
    message = NULL;
  va_end(arguments);
  const char *text = message ? message : "out of memory";
  if (hint && !*hint)
    hint = NULL;
  fflush(stdout);
  if (fz_wants_json(ctl))
    print_error_object(code, status, text, hint);
  fprintf(stderr, "%sfreezerctl:%s ", ctl->style.color_err ? fz_paint_sequence(FZ_PAINT_ERROR) : "",
          ctl->style.color_err ? "\033[0m" : "");
  print_lines(text);
  fz_hint(hint);
  free(message);
  return status;
}

int fz_fail_memory(const fz_ctl *ctl) { return fz_fail(ctl, "failed", NULL, "out of memory"); }

void fz_warn(const char *format, ...) {
  char *message = NULL;
  va_list arguments;

  va_start(arguments, format);
  if (vasprintf(&message, format, arguments) < 0)
    message = NULL;
  va_end(arguments);
  fputs("freezerctl: ", stderr);
  print_lines(message ? message : "out of memory");
  free(message);
}
