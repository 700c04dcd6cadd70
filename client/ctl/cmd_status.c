/* cmd_status.c - status: one screen per run; runs: one line per run. */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/ctl/errors.h"
#include "client/ctl/human.h"
#include "client/ctl/lastknown.h"
#include "client/ctl/output.h"
#include "client/ctl/request.h"
#include "client/ctl/table.h"
#include "client/ctl/verbs.h"

/* Width of "  Trainable  ", the margin of everything below the first line. */
#define MARGIN 13
/* Points of the curve. */
#define CURVE_MAX 16U
#define RECENT_SHOWN 3U

/* A text of the answer, made safe for the terminal; free it. */
static char *safe_text(const fz_json *object, const char *key) {
  const char *text = fz_text_of(object, key);
  return fz_escape(text ? text : "");
}

/* --- the first line --- */

static void print_step(const fz_json *run) {
  const double ms = fz_json_number(fz_json_member(run, "step_ms"));
  printf("  step %s", fz_number(fz_int_of(run, "step")).text);
  if (fz_int_of(run, "epoch") > 0)
    printf(", epoch %s", fz_number(fz_int_of(run, "epoch")).text);
  if (ms > 0 && ms < 1000)
    printf(" (%.3g ms/step)", ms);
  else if (ms > 0)
    printf(" (%.2f s/step)", ms / 1e3);
}

static void print_ranks(const fz_ctl *ctl, const fz_json *run) {
  const unsigned long long world = fz_int_of(run, "world"), ranks = fz_int_of(run, "ranks");
  const unsigned long long at_gen = fz_int_of(run, "ranks_at_gen");
  const struct fz_short gen = fz_number(fz_int_of(run, "gen"));
  const enum fz_paint paint = ranks < world || at_gen < world ? FZ_PAINT_PENDING : FZ_PAINT_NONE;

  printf("  %s", fz_paint_on(&ctl->style, paint));
  if (!fz_true_of(run, "live"))
    printf("ended");
  else if (ranks < world)
    printf("%llu/%llu ranks attached, gen %s", ranks, world, gen.text);
  else
    printf("%llu/%llu ranks at gen %s", at_gen, world, gen.text);
  printf("%s\n", fz_paint_off(&ctl->style, paint));
}

static void print_head(const fz_ctl *ctl, const fz_json *run) {
  char *name = safe_text(run, "name"), *job = safe_text(run, "job"), *framework = safe_text(run, "framework");
  const bool live = fz_true_of(run, "live");
  const char *dot = !ctl->style.unicode ? "*" : live ? "●" : "○";

  printf("%s %s", dot, name ? name : "");
  if (job && *job)
    printf("  job %s", job);
  if (fz_int_of(run, "attempt") > 0)
    printf(", start %s", fz_number(fz_int_of(run, "attempt") + 1).text);
  if (framework && *framework)
    printf("  %s", framework);
  print_step(run);
  print_ranks(ctl, run);
  free(name);
  free(job);
  free(framework);
}

/* --- the lines below --- */

/* Eighths of a full block, from 1 to 8, for a share of the elements. */
static unsigned eighths(uint64_t part, uint64_t whole) {
  const double share = 8.0 * (double)part / (double)whole;
  const unsigned up = (unsigned)share + (share > (double)(unsigned)share);
  return up < 1 ? 1 : up > 8 ? 8 : up;
}

static void print_curve(const fz_ctl *ctl, const fz_json *run, uint64_t elements) {
  static const char *const blocks[] = { "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█" };
  const fz_json *history = fz_json_member(run, "trainable_history");
  const size_t n = fz_json_count(history);
  size_t i = 0;

  if (!ctl->style.unicode || n < 2 || elements == 0)
    return;
  printf("  ");
  for (const fz_json *item = fz_json_first(history); item; item = fz_json_next(item), i++) {
    uint64_t value = 0;
    if (i + CURVE_MAX >= n && fz_json_integer(item, &value))
      fputs(blocks[eighths(value, elements) - 1], stdout);
  }
}

static void print_trainable(const fz_ctl *ctl, const fz_json *run) {
  const uint64_t elements = fz_int_of(run, "elements"), trains = fz_int_of(run, "trainable_elements");
  printf("  Trainable  %s of %s (%s)", fz_count(trains).text, fz_count(elements).text,
         fz_percent(trains, elements).text);
  print_curve(ctl, run, elements);
  putchar('\n');
}

/* Breaks what is longer than the line between words of the list, under the margin. */
static void print_wrapped(const fz_ctl *ctl, const char *label, const char *const *items, size_t n,
                          enum fz_paint paint) {
  const size_t width = fz_given(&ctl->options, FZ_OPT_WIDE) ? SIZE_MAX : ctl->style.width;
  size_t at = MARGIN;

  printf("  %-10s ", label);
  for (size_t i = 0; i < n; i++) {
    const size_t length = fz_width(items[i]) + (i + 1 < n);
    if (i > 0 && at + 1 + length > width) {
      printf("\n%*s", MARGIN, "");
      at = MARGIN;
    } else if (i > 0) {
      putchar(' ');
      at++;
    }
    printf("%s%s%s%s", fz_paint_on(&ctl->style, paint), items[i], fz_paint_off(&ctl->style, paint),
           i + 1 < n ? "," : "");
    at += length;
  }
  putchar('\n');
}

static int print_frozen(const fz_ctl *ctl, const fz_json *run) {
  const fz_json *list = fz_json_member(run, "frozen");
  const size_t n = fz_json_count(list);
  char **items = calloc(n + 1, sizeof(char *));
  size_t filled = 0;

  for (const fz_json *item = fz_json_first(list); items && item; item = fz_json_next(item)) {
    const char *cause = fz_text_of(item, "why");
    /* People know their script, not the layer that stands for it. */
    char *name = safe_text(item, "name"), *text = NULL;
    char *why = fz_escape(!cause ? "" : strcmp(cause, "baseline") == 0 ? "script" : cause);
    if (name && why && asprintf(&text, *why ? "%s (%s)" : "%s", name, why) >= 0)
      items[filled++] = text;
    free(name);
    free(why);
  }
  if (items && filled > 0)
    print_wrapped(ctl, "Frozen", (const char *const *)items, filled, FZ_PAINT_FROZEN);
  for (size_t i = 0; i < filled; i++)
    free(items[i]);
  free(items);
  return items && filled == n ? 0 : fz_fail_memory(ctl);
}

static void print_numbers(const fz_json *list) {
  size_t n = 0;
  for (const fz_json *item = fz_json_first(list); item; item = fz_json_next(item), n++) {
    uint64_t value = 0;
    if (n < 16 && fz_json_integer(item, &value))
      printf("%s%llu", n ? ", " : "", (unsigned long long)value);
  }
  if (n > 16)
    printf(" and %zu more", n - 16);
}

static void print_pending(const fz_ctl *ctl, const fz_json *run) {
  const fz_json *missing = fz_json_member(run, "missing");
  uint64_t gen;

  if (fz_true_of(run, "live") && fz_json_first(missing)) {
    printf("  %sMissing%s    %s ", fz_paint_on(&ctl->style, FZ_PAINT_PENDING),
           fz_paint_off(&ctl->style, FZ_PAINT_PENDING), fz_json_count(missing) == 1 ? "rank" : "ranks");
    print_numbers(missing);
    printf(": no new plan until all ranks are attached\n");
  }
  for (const fz_json *item = fz_json_first(fz_json_member(run, "pending_changes")); item; item = fz_json_next(item)) {
    char *action = safe_text(item, "action"), *by = safe_text(item, "by");
    printf("  %sPending%s    ", fz_paint_on(&ctl->style, FZ_PAINT_PENDING),
           fz_paint_off(&ctl->style, FZ_PAINT_PENDING));
    if (fz_has_int(item, "gen", &gen))
      printf("gen %s", fz_number(gen).text);
    else
      printf("queued");
    printf("  %s by %s for %s, waits for rank%s ", action ? action : "", by ? by : "",
           fz_duration((double)fz_int_of(item, "since_ms")).text,
           fz_json_count(fz_json_member(item, "waiting_for")) == 1 ? "" : "s");
    print_numbers(fz_json_member(item, "waiting_for"));
    putchar('\n');
    free(action);
    free(by);
  }
}

static void print_next(const fz_json *run) {
  const fz_json *next = fz_json_member(run, "next");
  char *text = safe_text(next, "text");
  uint64_t step, epoch;
  const bool has_step = fz_has_int(next, "step", &step), has_epoch = fz_has_int(next, "epoch", &epoch);

  if (text && *text) {
    printf("  Next       ");
    if (has_step)
      printf("step %s", fz_number(step).text);
    if (has_epoch)
      printf("%sepoch %s", has_step ? " or " : "", fz_number(epoch).text);
    printf(": %s\n", text);
  }
  free(text);
}

static void print_horizon(const fz_ctl *ctl, const fz_json *run) {
  const fz_json *horizon = fz_json_member(run, "horizon");
  uint64_t step, epoch;
  const bool has_step = fz_has_int(horizon, "step", &step), has_epoch = fz_has_int(horizon, "epoch", &epoch);

  if (!fz_true_of(horizon, "beyond") || !(has_step || has_epoch))
    return;
  printf("  %sHorizon%s    known flips lie beyond ", fz_paint_on(&ctl->style, FZ_PAINT_PENDING),
         fz_paint_off(&ctl->style, FZ_PAINT_PENDING));
  if (has_step)
    printf("step %s", fz_number(step).text);
  if (has_epoch)
    printf("%sepoch %s", has_step ? " or " : "", fz_number(epoch).text);
  printf("; until then they need freezerd\n");
}

static void print_recent(const fz_ctl *ctl, const fz_json *run) {
  const fz_json *recent = fz_json_member(run, "recent");
  const size_t n = fz_json_count(recent), shown = fz_given(&ctl->options, FZ_OPT_VERBOSE) ? n : RECENT_SHOWN;
  const char *label = "Recent";
  size_t i = 0;

  for (const fz_json *item = fz_json_first(recent); item; item = fz_json_next(item), i++) {
    char *text = safe_text(item, "text"), *by = safe_text(item, "by"), *reason = safe_text(item, "reason");
    if (i < shown)
      printf("  %-10s %s  gen %s  %s  %s%s%s%s\n", label, fz_clock(fz_text_of(item, "time")).text,
             fz_number(fz_int_of(item, "gen")).text, text ? text : "", by ? by : "", reason && *reason ? " \"" : "",
             reason ? reason : "", reason && *reason ? "\"" : "");
    label = "";
    free(text);
    free(by);
    free(reason);
  }
}

static void print_warnings(const fz_ctl *ctl, const fz_json *run) {
  for (const fz_json *item = fz_json_first(fz_json_member(run, "warnings")); item; item = fz_json_next(item)) {
    char *text = fz_escape(fz_json_string(item) ? fz_json_string(item) : "");
    printf("  %sWarning%s    %s\n", fz_paint_on(&ctl->style, FZ_PAINT_ERROR), fz_paint_off(&ctl->style, FZ_PAINT_ERROR),
           text ? text : "");
    free(text);
  }
}

/* Ranks, rules and metrics: with -v. */
static void print_details(const fz_json *run) {
  const fz_json *rules = fz_json_member(run, "rules");
  char *source = safe_text(rules, "source"), *profile = safe_text(rules, "profile");

  if (fz_json_get_type(rules) == FZ_JSON_OBJECT)
    printf("  Rules      %s, %s, profile %s\n", source ? source : "", fz_plural(fz_int_of(rules, "count"), "rule").text,
           profile ? profile : "");
  for (const fz_json *rank = fz_json_first(fz_json_member(run, "rank_list")); rank; rank = fz_json_next(rank))
    printf("  Rank %-5llu pid %llu, %s, gen %s, step %s\n", (unsigned long long)fz_int_of(rank, "rank"),
           (unsigned long long)fz_int_of(rank, "pid"),
           fz_true_of(rank, "attached")    ? "attached"
           : fz_true_of(rank, "connected") ? "connected"
                                           : "gone",
           fz_number(fz_int_of(rank, "gen")).text, fz_number(fz_int_of(rank, "step")).text);
  for (const fz_json *metric = fz_json_first(fz_json_member(run, "metrics")); metric; metric = fz_json_next(metric)) {
    char *name = fz_escape(fz_json_key(metric));
    printf("  Metric     %s %.6g\n", name ? name : "", fz_json_number(metric));
    free(name);
  }
  free(source);
  free(profile);
}

static int print_run(const fz_ctl *ctl, const fz_json *run) {
  if (fz_given(&ctl->options, FZ_OPT_QUIET)) {
    char *name = safe_text(run, "name");
    puts(name ? name : "");
    free(name);
    return 0;
  }
  print_head(ctl, run);
  print_trainable(ctl, run);
  const int status = print_frozen(ctl, run);
  print_pending(ctl, run);
  print_next(run);
  print_horizon(ctl, run);
  print_recent(ctl, run);
  if (fz_json_get_type(fz_json_member(run, "kept")) == FZ_JSON_BOOL && !fz_true_of(run, "kept"))
    printf("  State      in memory only: overrides, pins, loaded rules and history end with freezerd\n");
  print_warnings(ctl, run);
  if (fz_given(&ctl->options, FZ_OPT_VERBOSE))
    print_details(run);
  return status;
}

/* --- which runs --- */

/* Asks for the status of one run and prints or writes it. 0 or the exit status. */
static int show_run(const fz_ctl *ctl, fz_conn *conn, const char *name, fz_json_writer *writer, bool first) {
  fz_answer answer = FZ_ANSWER_NULL;
  fz_conn_begin_run(conn, FZ_OP_STATUS, name);
  int status = fz_conn_call(conn, &answer);

  if (status == 0 && fz_answer_code(&answer))
    status = fz_answer_fail(ctl, &answer);
  if (status == 0) {
    const fz_json *run = fz_json_member(answer.root, "status");
    if (fz_wants_json(ctl)) {
      fz_write_json(writer, NULL, run);
    } else {
      if (!first && !fz_given(&ctl->options, FZ_OPT_QUIET))
        putchar('\n');
      status = print_run(ctl, run);
    }
  }
  fz_answer_deinit(&answer);
  return status;
}

static int show_all(const fz_ctl *ctl, fz_conn *conn, fz_json_writer *writer) {
  fz_answer runs = FZ_ANSWER_NULL;
  struct fz_answer_cursor cursor = { 0 };
  const fz_json *run;
  bool first = true;
  fz_conn_begin_run(conn, FZ_OP_RUNS, NULL);
  int status = fz_conn_call(conn, &runs);

  if (status == 0 && fz_answer_code(&runs))
    status = fz_answer_fail(ctl, &runs);
  while (status == 0 && (run = fz_answer_next(&runs, "runs", &cursor))) {
    status = show_run(ctl, conn, fz_text_of(run, "name"), writer, first);
    first = false;
  }
  if (status == 0 && first && !fz_wants_json(ctl) && !fz_given(&ctl->options, FZ_OPT_QUIET))
    printf("freezerd at %s has no run\n", fz_conn_path(conn));
  fz_answer_deinit(&runs);
  return status;
}

int fz_cmd_status(fz_ctl *ctl) {
  __attribute__((cleanup(fz_conn_freep))) fz_conn *conn = NULL;
  fz_json_writer writer = FZ_JSON_WRITER_NULL;
  const char *wanted = fz_run_wanted(ctl);
  int status = fz_conn_open(ctl, &conn);

  if (status) {
    if (status == FZ_EXIT_NO_DAEMON && !fz_wants_json(ctl))
      fz_last_known_print(ctl, wanted);
    return status;
  }
  fz_output_begin(&writer, "status");
  fz_write_begin_array(&writer, "runs");
  status = wanted ? show_run(ctl, conn, wanted, &writer, true) : show_all(ctl, conn, &writer);
  fz_write_end_array(&writer);
  if (status == 0 && fz_wants_json(ctl))
    return fz_output_end(&writer) < 0 ? fz_fail_memory(ctl) : FZ_EXIT_DONE;
  fz_writer_deinit(&writer);
  return status;
}

/* --- runs --- */

enum {
  COLUMN_RUN,
  COLUMN_JOB,
  COLUMN_FRAMEWORK,
  COLUMN_RANKS,
  COLUMN_STEP,
  COLUMN_TRAINABLE,
  COLUMN_EPOCH,
  COLUMN_GEN,
  COLUMN_PARAMS,
  COLUMN_PENDING,
  COLUMN_PROFILE,
  COLUMN_ATTEMPT
};

static const struct fz_column columns[] = {
  { "RUN", "name of the run", FZ_COLUMN_MIDDLE },
  { "JOB", "job id of the launch", FZ_COLUMN_MIDDLE },
  { "FRAMEWORK", "what trains", 0 },
  { "RANKS", "attached, and all", FZ_COLUMN_RIGHT },
  { "STEP", "highest step that a rank has begun", FZ_COLUMN_RIGHT },
  { "TRAINABLE", "share of the elements that train; with --plain their number", FZ_COLUMN_RIGHT },
  { "EPOCH", "epoch", FZ_COLUMN_RIGHT | FZ_COLUMN_EXTRA },
  { "GEN", "newest plan", FZ_COLUMN_RIGHT | FZ_COLUMN_EXTRA },
  { "PARAMS", "parameters", FZ_COLUMN_RIGHT | FZ_COLUMN_EXTRA },
  { "PENDING", "changes that wait for ranks", FZ_COLUMN_RIGHT | FZ_COLUMN_EXTRA },
  { "PROFILE", "owned or lighter", FZ_COLUMN_EXTRA },
  { "ATTEMPT", "restarts of the job before this start", FZ_COLUMN_RIGHT | FZ_COLUMN_EXTRA },
};

static void set_number(fz_table *table, long row, size_t column, const fz_json *run, const char *key) {
  char raw[24];
  snprintf(raw, sizeof(raw), "%llu", (unsigned long long)fz_int_of(run, key));
  fz_table_set(table, row, column, fz_number(fz_int_of(run, key)).text, raw, FZ_PAINT_NONE);
}

static void add_run(fz_table *table, const fz_json *run) {
  const long row = fz_table_add(table, -1);
  const uint64_t trains = fz_int_of(run, "trainable_elements");
  char text[48];

  fz_table_set(table, row, COLUMN_RUN, fz_text_of(run, "name"), NULL, FZ_PAINT_NONE);
  fz_table_set(table, row, COLUMN_JOB, fz_text_of(run, "job"), NULL, FZ_PAINT_NONE);
  fz_table_set(table, row, COLUMN_FRAMEWORK, fz_text_of(run, "framework"), NULL, FZ_PAINT_NONE);
  snprintf(text, sizeof(text), "%llu/%llu", (unsigned long long)fz_int_of(run, "ranks"),
           (unsigned long long)fz_int_of(run, "world"));
  fz_table_set(table, row, COLUMN_RANKS, text, NULL, FZ_PAINT_NONE);
  set_number(table, row, COLUMN_STEP, run, "step");
  snprintf(text, sizeof(text), "%llu", (unsigned long long)trains);
  fz_table_set(table, row, COLUMN_TRAINABLE, fz_percent(trains, fz_int_of(run, "elements")).text, text, FZ_PAINT_NONE);
  set_number(table, row, COLUMN_EPOCH, run, "epoch");
  set_number(table, row, COLUMN_GEN, run, "gen");
  set_number(table, row, COLUMN_PARAMS, run, "n_params");
  set_number(table, row, COLUMN_PENDING, run, "pending");
  fz_table_set(table, row, COLUMN_PROFILE, fz_text_of(run, "profile"), NULL, FZ_PAINT_NONE);
  set_number(table, row, COLUMN_ATTEMPT, run, "attempt");
}

static int print_runs(const fz_ctl *ctl, const fz_answer *answer) {
  struct fz_answer_cursor cursor = { 0 };
  const fz_json *run;
  fz_table *table;
  int status;

  if (!fz_table_new(ctl, columns, sizeof(columns) / sizeof(columns[0]), &table, &status))
    return status;
  while ((run = fz_answer_next(answer, "runs", &cursor)))
    add_run(table, run);
  const int r = fz_table_print(table);
  fz_table_free(table);
  return r < 0 ? fz_fail_memory(ctl) : FZ_EXIT_DONE;
}

int fz_cmd_runs(fz_ctl *ctl) {
  fz_answer answer = FZ_ANSWER_NULL;
  int status;

  if (!fz_table_check(ctl, columns, sizeof(columns) / sizeof(columns[0]), &status))
    return status;
  status = fz_ask(ctl, FZ_OP_RUNS, &answer);
  if (status == 0)
    status = fz_wants_json(ctl) ? fz_answer_print_json(ctl, &answer) : print_runs(ctl, &answer);
  fz_answer_deinit(&answer);
  return status;
}
