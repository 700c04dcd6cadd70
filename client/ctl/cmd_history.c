/* cmd_history.c - history: what happened to a run; revert: back to the decisions of a gen. */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/ctl/change.h"
#include "client/ctl/errors.h"
#include "client/ctl/human.h"
#include "client/ctl/request.h"
#include "client/ctl/table.h"
#include "client/ctl/verbs.h"

enum { COLUMN_GEN, COLUMN_STEP, COLUMN_TIME, COLUMN_CHANGE, COLUMN_TRAINABLE, COLUMN_BY, COLUMN_STATE, COLUMN_ACTION };

static const struct fz_column columns[] = {
  { "GEN", "the plan that carried it, of its incarnation", FZ_COLUMN_RIGHT },
  { "STEP", "from which it was in effect", FZ_COLUMN_RIGHT },
  { "TIME", "when it was asked for", 0 },
  { "CHANGE", "what it did, and to how many parameters", FZ_COLUMN_MIDDLE },
  { "TRAINABLE", "share of the elements that trained from then on", FZ_COLUMN_RIGHT },
  { "BY", "who, and why", FZ_COLUMN_END },
  { "STATE", "applied, pending or superseded", FZ_COLUMN_EXTRA },
  { "ACTION", "freeze, unfreeze, ..., flip, attached", FZ_COLUMN_EXTRA },
};

/* --- history --- */

static bool is_flip(const fz_json *item) {
  const char *action = fz_text_of(item, "action");

  return action && strcmp(action, "flip") == 0;
}

/* Of a flip, "froze model.embed (38.6M): rule warm-up begins", where what it did ends; NULL: it does not say why. */
static const char *end_of_flip(const fz_json *item, const char *text) {
  const char *end = is_flip(item) ? strstr(text, "): ") : NULL;

  return end ? end + 1 : NULL;
}

/* "froze model.layers.4 (12)": the daemon's sentence, with parameters in place of elements. Allocated. */
static char *change_text(const fz_json *item) {
  const char *text = fz_text_of(item, "text"), *action = fz_text_of(item, "action"), *state = fz_text_of(item, "state");
  const uint64_t n = fz_int_of(item, "froze") + fz_int_of(item, "unfroze");
  char *words = NULL;
  size_t size;
  FILE *out = open_memstream(&words, &size);

  if (!out)
    return NULL;
  text = text ? text : action ? action : "";
  const char *end = end_of_flip(item, text);
  const char *count = memrchr(text, '(', end ? (size_t)(end - text) : strlen(text));
  if (n > 0 && count && count > text)
    fprintf(out, "%.*s(%s)", (int)(count - text), text, fz_number(n).text);
  else
    fputs(text, out);
  if (state && strcmp(state, "applied") != 0)
    fprintf(out, ", %s", state);
  if (fclose(out) != 0) {
    free(words);
    return NULL;
  }
  return words;
}

/* "ana@gpu07 "plateau"", "rule warm-up begins", "baseline". Allocated. */
static char *by_text(const fz_json *item) {
  const char *by = fz_text_of(item, "by"), *reason = fz_text_of(item, "reason"), *action = fz_text_of(item, "action");
  const char *text = fz_text_of(item, "text"), *why = text ? end_of_flip(item, text) : NULL;
  char *words = NULL;
  size_t size;
  FILE *out = open_memstream(&words, &size);

  if (!out)
    return NULL;
  if (by)
    fprintf(out, "%s%s%s%s", by, reason && *reason ? " \"" : "", reason ? reason : "", reason && *reason ? "\"" : "");
  else if (is_flip(item))
    fputs(why ? why + strlen(": ") : "rules", out);
  else if (action && strcmp(action, "attached") == 0)
    fputs("baseline", out);
  if (fclose(out) != 0) {
    free(words);
    return NULL;
  }
  return words;
}

static void set_number(fz_table *table, long row, size_t column, const fz_json *item, const char *key) {
  uint64_t value;
  char raw[24];

  if (!fz_has_int(item, key, &value))
    return;
  snprintf(raw, sizeof(raw), "%llu", (unsigned long long)value);
  fz_table_set(table, row, column, fz_number(value).text, raw, FZ_PAINT_NONE);
}

static void set_escaped(fz_table *table, long row, size_t column, char *text) {
  char *safe = fz_escape(text ? text : "");

  fz_table_set(table, row, column, safe, NULL, FZ_PAINT_NONE);
  free(safe);
  free(text);
}

static void add_entry(fz_table *table, const fz_json *item) {
  const long row = fz_table_add(table, -1);
  const char *time = fz_text_of(item, "time"), *state = fz_text_of(item, "state");
  const uint64_t total = fz_int_of(item, "elements");
  uint64_t trainable;
  char raw[24];

  set_number(table, row, COLUMN_GEN, item, "gen");
  set_number(table, row, COLUMN_STEP, item, "step");
  fz_table_set(table, row, COLUMN_TIME, fz_clock(time).text, time, FZ_PAINT_NONE);
  set_escaped(table, row, COLUMN_CHANGE, change_text(item));
  if (total && fz_has_int(item, "trainable", &trainable)) {
    snprintf(raw, sizeof(raw), "%llu", (unsigned long long)trainable);
    fz_table_set(table, row, COLUMN_TRAINABLE, fz_percent(trainable, total).text, raw, FZ_PAINT_NONE);
  }
  set_escaped(table, row, COLUMN_BY, by_text(item));
  fz_table_set(table, row, COLUMN_STATE, state, NULL,
               state && strcmp(state, "pending") == 0 ? FZ_PAINT_PENDING : FZ_PAINT_NONE);
  fz_table_set(table, row, COLUMN_ACTION, fz_text_of(item, "action"), NULL, FZ_PAINT_NONE);
}

static int print_history(const fz_ctl *ctl, const fz_answer *answer) {
  struct fz_answer_cursor cursor = { 0 };
  const fz_json *item;
  fz_table *table;
  int status;

  if (!fz_table_new(ctl, columns, sizeof(columns) / sizeof(columns[0]), &table, &status))
    return status;
  while ((item = fz_answer_next(answer, "history", &cursor)))
    add_entry(table, item);
  const int r = fz_table_print(table);
  fz_table_free(table);
  return r < 0 ? fz_fail_memory(ctl) : FZ_EXIT_DONE;
}

static int ask(const fz_ctl *ctl, fz_answer *answer) {
  __attribute__((cleanup(fz_conn_freep))) fz_conn *conn = NULL;
  int status = fz_conn_open(ctl, &conn);

  if (status)
    return status;
  fz_json_writer *request = fz_conn_begin(conn, FZ_OP_HISTORY);
  if (fz_given(&ctl->options, FZ_OPT_LIMIT))
    fz_write_integer(request, "limit", ctl->options.number[FZ_OPT_LIMIT]);
  status = fz_conn_call(conn, answer);
  if (status == 0 && fz_answer_code(answer))
    status = fz_answer_fail(ctl, answer);
  return status;
}

int fz_cmd_history(fz_ctl *ctl) {
  fz_answer answer = FZ_ANSWER_NULL;
  int status;

  if (!fz_table_check(ctl, columns, sizeof(columns) / sizeof(columns[0]), &status))
    return status;
  status = ask(ctl, &answer);
  if (status == 0)
    status = fz_wants_json(ctl) ? fz_answer_print_json(ctl, &answer) : print_history(ctl, &answer);
  fz_answer_deinit(&answer);
  return status;
}

/* --- revert --- */

static void fill_gen(fz_json_writer *request, const fz_ctl *ctl, void *user) {
  (void)ctl;
  const uint64_t *gen = user;
  if (*gen)
    fz_write_integer(request, "gen", *gen);
}

int fz_cmd_revert(fz_ctl *ctl) {
  fz_answer answer = FZ_ANSWER_NULL;
  uint64_t gen = 0;

  if (ctl->n_operands && (fz_parse_number(ctl->operands[0], FZ_GEN_MAX, &gen) < 0 || gen == 0))
    return fz_fail(ctl, "usage", "'freezerctl history' shows them", "'%.80s' is not a gen", ctl->operands[0]);
  int status = fz_change_send(ctl, FZ_OP_REVERT, fill_gen, &gen, &answer);
  if (status == 0)
    status = fz_answer_code(&answer) ? fz_answer_fail(ctl, &answer) : fz_change_report(ctl, FZ_OP_REVERT, &answer);
  fz_answer_deinit(&answer);
  return status;
}
