/* cmd_wait.c - wait: until a condition holds. */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/ctl/errors.h"
#include "client/ctl/human.h"
#include "client/ctl/request.h"
#include "client/ctl/verbs.h"
#include "protocol/suggest.h"

/* What stands behind the '=' of a condition. */
enum value { VALUE_NONE, VALUE_GEN, VALUE_PATTERN, VALUE_STEP };

static const struct {
  const char *name;
  enum value value;
  bool required;
  const char *unmet; /* "run gpt2 HAS NOT ..." */
} conditions[] = {
  { "attached", VALUE_NONE, false, "does not have all its ranks" },
  { "applied", VALUE_GEN, false, "has not applied it on every rank" },
  { "frozen", VALUE_PATTERN, true, "does not have all of them frozen" },
  { "training", VALUE_PATTERN, true, "does not have all of them training" },
  { "step", VALUE_STEP, true, "has not come to that step" },
  { "idle", VALUE_NONE, false, "still has changes pending" },
  { "detached", VALUE_NONE, false, "is still attached" },
  { "in-sync", VALUE_NONE, false, "is not in sync" },
};

#define CONDITIONS (sizeof(conditions) / sizeof(conditions[0]))

/* A condition as it was given. */
struct condition {
  size_t index;
  const char *value; /* behind the '=', NULL: none */
  uint64_t number;   /* of gens and steps */
};

static int unknown_condition(const fz_ctl *ctl, const char *word) {
  const char *names[CONDITIONS];
  char hint[160] = "attached, applied[=GEN], frozen=PATTERN, training=PATTERN, step=N, idle, detached, in-sync";
  for (size_t i = 0; i < CONDITIONS; i++)
    names[i] = conditions[i].name;
  const char *near = fz_suggest(word, names, CONDITIONS);
  if (near)
    snprintf(hint, sizeof(hint), "did you mean '%s'?", near);
  return fz_fail(ctl, "usage", hint, "--for: unknown condition '%s'", word);
}

/* 0 or the exit status. */
static int parse_condition(const fz_ctl *ctl, struct condition *condition) {
  const char *text = ctl->options.text[FZ_OPT_CONDITION];
  const size_t length = strcspn(text, "=");
  char word[32];

  snprintf(word, sizeof(word), "%.*s", (int)(length < sizeof(word) ? length : sizeof(word) - 1), text);
  size_t i = 0;
  while (i < CONDITIONS && strcmp(conditions[i].name, word) != 0)
    i++;
  if (i == CONDITIONS)
    return unknown_condition(ctl, word);
  condition->index = i;
  condition->value = text[length] == '=' ? text + length + 1 : NULL;
  if (condition->value && conditions[i].value == VALUE_NONE)
    return fz_fail(ctl, "usage", NULL, "--for: %s takes no value", word);
  if ((!condition->value && conditions[i].required) || (condition->value && !*condition->value))
    return fz_fail(ctl, "usage", NULL, "--for: %s needs a value, %s=%s", word, word,
                   conditions[i].value == VALUE_PATTERN ? "PATTERN" : "N");
  const bool is_number = conditions[i].value == VALUE_STEP || conditions[i].value == VALUE_GEN;
  const uint64_t max = conditions[i].value == VALUE_STEP ? FZ_STEP_MAX : FZ_GEN_MAX;
  if (condition->value && is_number && fz_parse_number(condition->value, max, &condition->number) < 0)
    return fz_fail(ctl, "usage", NULL, "--for: '%s' is not a whole number in range", condition->value);
  return 0;
}

static void write_condition(fz_json_writer *request, const struct condition *condition) {
  fz_write_string(request, "for", conditions[condition->index].name);
  if (!condition->value)
    return;
  switch (conditions[condition->index].value) {
  case VALUE_NONE:
    break;
  case VALUE_GEN:
    fz_write_integer(request, "gen", condition->number);
    break;
  case VALUE_PATTERN:
    fz_write_string(request, "pattern", condition->value);
    break;
  case VALUE_STEP:
    fz_write_integer(request, "step", condition->number);
    break;
  }
}

/* A daemon that is stopped must not look like a condition that takes its time. */
static int check_alive(fz_conn *conn) {
  fz_answer answer = FZ_ANSWER_NULL;
  fz_conn_begin_run(conn, FZ_OP_PING, NULL);
  const int status = fz_conn_call(conn, &answer);
  fz_answer_deinit(&answer);
  return status;
}

/* Asks again for as long as freezerd's longest wait is shorter than ours. 0 or the exit status. */
static int wait_until(const fz_ctl *ctl, fz_conn *conn, const struct condition *condition, fz_answer *answer) {
  const bool limited = fz_given(&ctl->options, FZ_OPT_TIMEOUT);
  const double end = fz_now_ms() + (double)ctl->options.number[FZ_OPT_TIMEOUT];

  for (;;) {
    const double left = end - fz_now_ms();
    uint64_t slice = FZ_TIME_NEVER;
    if (limited)
      slice = left <= 0 ? 0 : left < (double)FZ_WAIT_MS_MAX ? (uint64_t)(left + 0.5) : FZ_WAIT_MS_MAX;
    write_condition(fz_conn_begin(conn, FZ_OP_WAIT), condition);
    fz_conn_set_wait(conn, slice);
    const int status = fz_conn_call(conn, answer);
    if (status)
      return status;
    if (fz_answer_code(answer) || fz_true_of(answer->root, "met") || slice != FZ_WAIT_MS_MAX)
      return 0;
    fz_answer_deinit(answer);
  }
}

static int timed_out(const fz_ctl *ctl, const struct condition *condition, const fz_json *root) {
  const char *run = fz_text_of(root, "run");
  const struct fz_short limit = fz_duration((double)ctl->options.number[FZ_OPT_TIMEOUT]);
  uint64_t step;

  if (!run)
    run = fz_run_wanted(ctl);
  if (!fz_has_int(root, "step", &step))
    return fz_fail(ctl, "timed_out", "'freezerctl runs' lists the runs", "timed out after %s: there is no run%s%s",
                   limit.text, run ? " " : "", run ? run : "");
  return fz_fail(ctl, "timed_out", "'freezerctl status' shows where it is", "timed out after %s: run %s %s (step %s)",
                 limit.text, run ? run : "?", conditions[condition->index].unmet, fz_number(step).text);
}

int fz_cmd_wait(fz_ctl *ctl) {
  __attribute__((cleanup(fz_conn_freep))) fz_conn *conn = NULL;
  fz_answer answer = FZ_ANSWER_NULL;
  struct condition condition = { 0 };
  int status = parse_condition(ctl, &condition);

  if (status == 0)
    status = fz_conn_open(ctl, &conn);
  if (status == 0)
    status = check_alive(conn);
  if (status == 0)
    status = wait_until(ctl, conn, &condition, &answer);
  if (status == 0 && fz_answer_code(&answer))
    status = fz_answer_fail(ctl, &answer);
  else if (status == 0 && !fz_true_of(answer.root, "met"))
    status = timed_out(ctl, &condition, answer.root);
  else if (status == 0 && fz_wants_json(ctl))
    status = fz_answer_print_json(ctl, &answer);
  else if (status == 0 && fz_given(&ctl->options, FZ_OPT_VERBOSE))
    printf("%s: step %s, gen %s\n", fz_text_of(answer.root, "run"), fz_number(fz_int_of(answer.root, "step")).text,
           fz_number(fz_int_of(answer.root, "gen")).text);
  fz_answer_deinit(&answer);
  return status;
}
