/* cmd_watch.c - watch: events as they happen. */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/ctl/errors.h"
#include "client/ctl/human.h"
#include "client/ctl/output.h"
#include "client/ctl/request.h"
#include "client/ctl/verbs.h"

static int print_json(const fz_ctl *ctl, const fz_json *event) {
  fz_json_writer writer = FZ_JSON_WRITER_NULL;
  fz_output_begin_command(&writer, ctl);
  for (const fz_json *field = fz_json_first(event); field; field = fz_json_next(field))
    fz_write_json(&writer, fz_json_key(field), field);
  return fz_output_end(&writer) < 0 ? fz_fail_memory(ctl) : 0;
}

static const char *text_or_empty(const fz_json *event, const char *key) {
  const char *text = fz_text_of(event, key);
  return text ? text : "";
}

/* "gen 5 at step 31  ana@gpu07 "plateau"", as far as it is known and not in the sentence already. */
static void print_facts(const fz_json *event) {
  char *by = fz_escape(text_or_empty(event, "by")), *reason = fz_escape(text_or_empty(event, "reason"));
  uint64_t gen, step;
  const bool has_gen = fz_has_int(event, "gen", &gen), has_step = fz_has_int(event, "step", &step);

  if (has_gen)
    printf("  gen %s", fz_number(gen).text);
  if (has_step)
    printf("%sstep %s", has_gen ? " at " : "  ", fz_number(step).text);
  if (by && *by)
    printf("  %s", by);
  if (reason && *reason)
    printf(" \"%s\"", reason);
  free(by);
  free(reason);
}

static int print_human(const fz_ctl *ctl, const fz_json *event) {
  char *run = fz_escape(text_or_empty(event, "run")), *text = fz_escape(text_or_empty(event, "text"));
  const char *name = text_or_empty(event, "event");
  const enum fz_paint paint = strcmp(name, "warning") == 0 ? FZ_PAINT_PENDING : FZ_PAINT_NONE;

  if (run && text && fz_given(&ctl->options, FZ_OPT_PLAIN)) {
    printf("%s\t%s\t%s\t%s\n", text_or_empty(event, "time"), run, name, text);
  } else if (run && text) {
    printf("%s  %s  %s%-10s%s  %s", fz_clock(fz_text_of(event, "time")).text, run, fz_paint_on(&ctl->style, paint),
           name, fz_paint_off(&ctl->style, paint), text);
    print_facts(event);
    putchar('\n');
  }
  free(run);
  free(text);
  return run && text ? 0 : fz_fail_memory(ctl);
}

/* Prints until Ctrl-C, until freezerd goes away, or until nobody reads. */
static int stream(const fz_ctl *ctl, fz_conn *conn) {
  int status = 0;
  while (status == 0) {
    fz_json *line = NULL;
    status = fz_conn_next_event(conn, &line);
    const fz_json *event = fz_json_member(line, "event");
    if (status == 0 && event)
      status = fz_wants_json(ctl) ? print_json(ctl, event) : print_human(ctl, event);
    fz_json_free(line);
    if (status == 0 && fflush(stdout) != 0)
      status = FZ_EXIT_FAILED;
  }
  return status;
}

int fz_cmd_watch(fz_ctl *ctl) {
  __attribute__((cleanup(fz_conn_freep))) fz_conn *conn = NULL;
  fz_answer answer = FZ_ANSWER_NULL;
  int status = fz_conn_open(ctl, &conn);

  if (status == 0) {
    fz_conn_begin(conn, FZ_OP_WATCH);
    status = fz_conn_call(conn, &answer);
  }
  if (status == 0 && fz_answer_code(&answer))
    status = fz_answer_fail(ctl, &answer);
  fz_answer_deinit(&answer);
  return status ? status : stream(ctl, conn);
}
