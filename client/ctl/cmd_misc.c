/* cmd_misc.c - explain, is-frozen, ping, version. */
#include "config.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/ctl/errors.h"
#include "client/ctl/human.h"
#include "client/ctl/output.h"
#include "client/ctl/request.h"
#include "client/ctl/verbs.h"
#include "protocol/message.h"

/* --- explain --- */

static void print_escaped(const char *before, const char *text, const char *after) {
  char *safe = fz_escape(text ? text : "");
  printf("%s%s%s", before, safe ? safe : "", after);
  free(safe);
}

static void print_explain_head(const fz_ctl *ctl, const fz_json *root) {
  const char *state = fz_text_of(root, "state");
  const bool frozen = state && strcmp(state, "frozen") == 0;
  const enum fz_paint paint = frozen ? FZ_PAINT_FROZEN : FZ_PAINT_NONE;
  uint64_t since;

  print_escaped("", fz_text_of(root, "param"), " is ");
  printf("%s%s%s", fz_paint_on(&ctl->style, paint), frozen ? "FROZEN" : "TRAINING", fz_paint_off(&ctl->style, paint));
  if (fz_has_int(root, "since_step", &since))
    printf(" since step %s", fz_number(since).text);
  else
    printf(" since the start");
  printf(" (gen %s)\n", fz_number(fz_int_of(root, "gen")).text);
}

static void print_layer(const fz_json *layer) {
  const char *time = fz_text_of(layer, "time"), *name = fz_text_of(layer, "layer");
  printf("  %-10s ", name ? name : "");
  print_escaped("", fz_text_of(layer, "text"), "");
  if (time)
    printf(", %s", fz_clock(time).text);
  printf("%s\n", fz_true_of(layer, "decides") ? "  <- decides" : "");
}

static void print_explain(const fz_ctl *ctl, const fz_json *root) {
  const char *change = fz_text_of(root, "to_change"), *effect = fz_text_of(root, "to_change_effect");

  print_explain_head(ctl, root);
  for (const fz_json *layer = fz_json_first(fz_json_member(root, "layers")); layer; layer = fz_json_next(layer))
    print_layer(layer);
  if (fz_true_of(root, "pending"))
    printf("  pending    a change that not every rank has applied yet\n");
  print_escaped("  next       ", fz_text_of(root, "next"), "\n");
  if (change) {
    print_escaped("  to change  ", change, "");
    print_escaped(effect ? "   (" : "", effect, effect ? ")\n" : "\n");
  } else if (effect) {
    print_escaped("  to change  ", effect, "\n");
  }
}

int fz_cmd_explain(fz_ctl *ctl) {
  __attribute__((cleanup(fz_conn_freep))) fz_conn *conn = NULL;
  fz_answer answer = FZ_ANSWER_NULL;
  int status = fz_conn_open(ctl, &conn);

  if (status == 0) {
    fz_write_string(fz_conn_begin(conn, FZ_OP_EXPLAIN), "param", ctl->operands[0]);
    status = fz_conn_call(conn, &answer);
  }
  if (status == 0 && fz_answer_code(&answer))
    status = fz_answer_fail(ctl, &answer);
  else if (status == 0 && fz_wants_json(ctl))
    status = fz_answer_print_json(ctl, &answer);
  else if (status == 0)
    print_explain(ctl, answer.root);
  fz_answer_deinit(&answer);
  return status;
}

/* --- is-frozen --- */

static void print_is_frozen(const fz_json *root) {
  const uint64_t matched = fz_int_of(root, "matched"), frozen = fz_int_of(root, "frozen");
  const char *separator = ": ";

  if (fz_true_of(root, "all")) {
    printf("yes, %s %s frozen (gen %s)\n", fz_plural(matched, "parameter").text, matched == 1 ? "is" : "are",
           fz_number(fz_int_of(root, "gen")).text);
    return;
  }
  printf("no, %s of %s %s not frozen (gen %s)", fz_number(matched - frozen).text, fz_plural(matched, "parameter").text,
         matched - frozen == 1 ? "is" : "are", fz_number(fz_int_of(root, "gen")).text);
  for (const fz_json *name = fz_json_first(fz_json_member(root, "names")); name; name = fz_json_next(name)) {
    print_escaped(separator, fz_json_string(name), "");
    separator = ", ";
  }
  putchar('\n');
}

int fz_cmd_is_frozen(fz_ctl *ctl) {
  fz_answer answer = FZ_ANSWER_NULL;
  int status = fz_ask(ctl, FZ_OP_IS_FROZEN, &answer);

  if (status == 0 && fz_wants_json(ctl))
    status = fz_answer_print_json(ctl, &answer);
  else if (status == 0 && !fz_given(&ctl->options, FZ_OPT_QUIET))
    print_is_frozen(answer.root);
  if (status == 0 && !fz_true_of(answer.root, "all"))
    status = FZ_EXIT_FAILED;
  fz_answer_deinit(&answer);
  return status;
}

/* --- ping --- */

static int ping_json(const fz_ctl *ctl, const fz_answer *answer) {
  fz_json_writer writer = FZ_JSON_WRITER_NULL;
  fz_output_begin_command(&writer, ctl);
  fz_answer_write(&writer, answer);
  fz_write_number(&writer, "answer_ms", answer->took_ms);
  return fz_output_end(&writer) < 0 ? fz_fail_memory(ctl) : FZ_EXIT_DONE;
}

int fz_cmd_ping(fz_ctl *ctl) {
  fz_answer answer = FZ_ANSWER_NULL;
  int status = fz_ask(ctl, FZ_OP_PING, &answer);

  if (status == 0 && fz_wants_json(ctl)) {
    status = ping_json(ctl, &answer);
  } else if (status == 0 && !fz_given(&ctl->options, FZ_OPT_QUIET)) {
    print_escaped("", fz_text_of(answer.root, "server"), "");
    printf(" answers in %s\n", fz_duration(answer.took_ms).text);
    if (fz_given(&ctl->options, FZ_OPT_VERBOSE)) {
      print_escaped("  socket  ", fz_text_of(answer.root, "socket"), "\n");
      printf("  pid     %llu, up for %s\n", (unsigned long long)fz_int_of(answer.root, "pid"),
             fz_duration((double)fz_int_of(answer.root, "uptime_ms")).text);
    }
  }
  fz_answer_deinit(&answer);
  return status;
}

/* --- version --- */

/* The number in libfreezer.so.N: what is current less what it is compatible with. */
static unsigned library_abi(void) {
  unsigned current = 0, revision = 0, age = 0;
  if (sscanf(FZ_LIBFREEZER_VERSION_INFO, "%u:%u:%u", &current, &revision, &age) != 3)
    return 0;
  return current - age;
}

static int print_version_json(const fz_ctl *ctl, const fz_json *server) {
  fz_json_writer writer = FZ_JSON_WRITER_NULL;

  fz_output_begin(&writer, "version");
  fz_write_string(&writer, "freezerctl", PACKAGE_VERSION);
  fz_write_string(&writer, "libfreezer", PACKAGE_VERSION);
  fz_write_integer(&writer, "abi", library_abi());
  fz_write_integer(&writer, "protocol", FZ_PROTOCOL_VERSION);
  if (server) {
    fz_write_begin_object(&writer, "server");
    fz_write_string(&writer, "version", fz_text_of(server, "version"));
    fz_write_json(&writer, "protocol", fz_json_member(server, "protocol"));
    fz_write_end_object(&writer);
  } else {
    fz_write_null(&writer, "server");
  }
  return fz_output_end(&writer) < 0 ? fz_fail_memory(ctl) : FZ_EXIT_DONE;
}

static void print_version(const fz_json *server) {
  printf("freezerctl %s, libfreezer %s (ABI %u), protocol %u; ", PACKAGE_VERSION, PACKAGE_VERSION, library_abi(),
         FZ_PROTOCOL_VERSION);
  if (server) {
    print_escaped("server ", fz_text_of(server, "server"), "");
    printf(", protocol %llu\n", (unsigned long long)fz_int_of(server, "protocol"));
  } else {
    puts("no server");
  }
}

/* Program, version, protocol; the library has its ABI in the place of the last. */
static void print_version_plain(const fz_json *server) {
  printf("freezerctl\t%s\t%u\n", PACKAGE_VERSION, FZ_PROTOCOL_VERSION);
  printf("libfreezer\t%s\t%u\n", PACKAGE_VERSION, library_abi());
  if (server) {
    print_escaped("freezerd\t", fz_text_of(server, "version"), "");
    printf("\t%llu\n", (unsigned long long)fz_int_of(server, "protocol"));
  }
}

/* Answers without a daemon as well. */
int fz_cmd_version(fz_ctl *ctl) {
  __attribute__((cleanup(fz_conn_freep))) fz_conn *conn = NULL;
  fz_answer answer = FZ_ANSWER_NULL;
  const fz_json *server = NULL;
  int status = 0;

  if (fz_conn_try(ctl, &conn) == 0) {
    fz_conn_begin_run(conn, FZ_OP_PING, NULL);
    status = fz_conn_call(conn, &answer);
    if (status == 0 && !fz_answer_code(&answer))
      server = answer.root;
  }
  if (status == 0 && fz_wants_json(ctl))
    status = print_version_json(ctl, server);
  else if (status == 0 && fz_given(&ctl->options, FZ_OPT_PLAIN))
    print_version_plain(server);
  else if (status == 0)
    print_version(server);
  fz_answer_deinit(&answer);
  return status;
}
