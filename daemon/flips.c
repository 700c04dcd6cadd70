/* flips.c - the flips that a plan brings by itself: each is told once, in the log, to watchers and in the history. */
#include "config.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/clock.h"
#include "daemon/flips.h"
#include "daemon/history.h"
#include "daemon/record.h"
#include "daemon/rules/explain.h"
#include "daemon/rules/planner.h"
#include "daemon/run.h"
#include "daemon/since.h"
#include "daemon/text.h"
#include "daemon/watchers.h"
#include "protocol/mask.h"

/* A flip of the plan that is in force is not behind more lines than this: most of them brought another plan. */
#define LINES_BACK_MAX 256

/* ------------------------------------------------------------------------------------------------------------ telling */

static char *describe_flip(const fz_run *run, const uint64_t *before, const uint64_t *after, bool froze) {
  const size_t words = fz_mask_words(run->plan.n_params);
  uint64_t *mask = calloc(words + 1, sizeof(*mask));
  char *text = NULL;

  if (!mask)
    return NULL;
  for (size_t w = 0; w < words; w++)
    mask[w] = froze ? before[w] & ~after[w] : after[w] & ~before[w];
  text = fz_mask_describe(run->params, mask, 4);
  free(mask);
  return text;
}

/* What made the first parameter that differs do so. The plan of another freezerd came without its layers. */
static char *describe_turn(const fz_run *run, size_t old_row, size_t row) {
  const uint64_t *before = fz_plan_mask(&run->plan, old_row), *after = fz_plan_mask(&run->plan, row);
  const struct fz_plan_row *from = &run->plan.rows[old_row], *to = &run->plan.rows[row];
  size_t index = 0;

  if (run->adopted)
    return NULL;
  while (fz_mask_get(before, index) == fz_mask_get(after, index))
    index++;
  return fz_explain_turn(run->in_force, index, from->from_step, from->from_epoch, to->from_step, to->from_epoch);
}

/** What is told of one flip, which came at (step, epoch), to everybody. The text is consumed. */
static void spread(fz_run *run, const struct fz_mask_delta *delta, const uint64_t *mask, uint64_t step, uint64_t epoch,
                   char *text) {
  const uint64_t elements = delta->froze_elements + delta->unfroze_elements;
  const uint64_t trainable = fz_mask_elements(run->params, mask);
  const struct fz_recent_entry entry = {
    .time_ms = fz_clock_utc_ms(),
    .incarnation = run->incarnation,
    .gen = run->plan.gen,
    .step = step,
    .action = "flip",
    .text = text,
    .params = delta->froze + delta->unfroze,
    .elements = elements,
  };
  const struct fz_record record = {
    .event = "flip",
    .gen = run->plan.gen,
    .has_step = true,
    .step = step,
    .has_epoch = true,
    .epoch = epoch,
    .text = text,
    .froze = delta->froze,
    .unfroze = delta->unfroze,
    .elements = elements,
    .trainable = &trainable,
  };

  fz_log_write(&run->core->log, FZ_LOG_INFO, FZ_LOG_ABOUT(.event = "flip", .run = run->name, .gen = run->plan.gen),
               "step %" PRIu64 ": %s", step, text ? text : "a planned flip");
  fz_watch_tell(run->core, FZ_EVENT(.event = "flip", .run = run, .has = FZ_EVENT_GEN | FZ_EVENT_STEP | FZ_EVENT_EPOCH,
                                    .gen = run->plan.gen, .step = step, .epoch = epoch, .froze = delta->froze,
                                    .unfroze = delta->unfroze, .text = text));
  fz_record_add(run, &record);
  fz_since_flip(run, mask, step);
  fz_run_note_trainable(run, trainable);
  fz_recent_add(&run->recent, &entry);
}

static void tell(fz_run *run, size_t old_row, size_t row, uint64_t step, uint64_t epoch) {
  const uint64_t *before = fz_plan_mask(&run->plan, old_row), *after = fz_plan_mask(&run->plan, row);
  const struct fz_mask_delta delta = fz_mask_compare(run->params, before, after);
  char count[FZ_COUNT_SIZE];

  if (delta.froze + delta.unfroze == 0)
    return;
  /* What was before may have been in force too shortly to be seen. */
  fz_since_flip(run, before, step);
  fz_run_note_trainable(run, fz_mask_elements(run->params, before));
  char *names = describe_flip(run, before, after, delta.froze > 0);
  char *turn = describe_turn(run, old_row, row);
  char *text = fz_text_format("%s %s (%s): %s", delta.froze ? "froze" : "unfroze", names ? names : "parameters",
                              fz_text_elements(delta.froze ? delta.froze_elements : delta.unfroze_elements, count),
                              turn ? turn : "as planned");
  free(names);
  free(turn);
  spread(run, &delta, after, step, epoch, text);
}

/* ------------------------------------------------------------------------------------------------------ going through */

/** The first boundaries behind (step, epoch) and not behind (to_step, to_epoch); FZ_TIME_NEVER: there is none. */
static void next_boundaries(const fz_run *run, uint64_t to_step, uint64_t to_epoch, uint64_t *ret_step,
                            uint64_t *ret_epoch) {
  uint64_t next_step = FZ_TIME_NEVER, next_epoch = FZ_TIME_NEVER;

  for (size_t i = 0; i < run->plan.n_rows; i++) {
    const struct fz_plan_row *row = &run->plan.rows[i];
    if (row->from_step > run->flip_step && row->from_step <= to_step && row->from_step < next_step)
      next_step = row->from_step;
    if (row->from_epoch > run->flip_epoch && row->from_epoch <= to_epoch && row->from_epoch < next_epoch)
      next_epoch = row->from_epoch;
  }
  *ret_step = next_step;
  *ret_epoch = next_epoch;
}

static size_t row_at(const fz_run *run, uint64_t step, uint64_t epoch) {
  return fz_plan_row_at(run->plan.rows, run->plan.n_rows, step, epoch);
}

/** Goes on to (step, epoch), at which it came into force. */
static void go(fz_run *run, uint64_t step, uint64_t epoch) {
  const size_t old_row = row_at(run, run->flip_step, run->flip_epoch), row = row_at(run, step, epoch);

  run->flip_step = step;
  run->flip_epoch = epoch;
  tell(run, old_row, row, step, epoch);
}

enum how { EXACT, SOMEHOW };

/** Up to (to_step, to_epoch); EXACT: not into another epoch of the plan, of which a report says when it began. */
static void go_through(fz_run *run, uint64_t to_step, uint64_t to_epoch, enum how how) {
  uint64_t step, epoch;

  if (run->plan.gen == 0)
    return;
  if (to_step < run->flip_step) /* of a rank that is behind, or so far only planned for */
    to_step = run->flip_step;
  if (to_epoch < run->flip_epoch)
    to_epoch = run->flip_epoch;
  for (;;) {
    next_boundaries(run, to_step, to_epoch, &step, &epoch);
    if (epoch != FZ_TIME_NEVER && how == EXACT)
      return;
    if (epoch == FZ_TIME_NEVER && step == FZ_TIME_NEVER)
      break;
    if (epoch == FZ_TIME_NEVER)
      go(run, step, to_epoch);
    else
      go(run, to_step, step == FZ_TIME_NEVER ? epoch : to_epoch);
  }
  run->flip_step = to_step;
  run->flip_epoch = to_epoch;
}

/** As far as the ranks are. */
static void go_on(fz_run *run, enum how how) {
  uint64_t step, epoch;

  fz_run_now(run, &step, &epoch);
  go_through(run, step, epoch, how);
}

void fz_flips_reported(fz_run *run, uint64_t step, uint64_t epoch) { go_through(run, step, epoch, SOMEHOW); }

void fz_flips_epoch_began(fz_run *run, uint64_t step, uint64_t epoch) {
  if (step > 0 && epoch > 0)
    go_through(run, step - 1, epoch - 1, SOMEHOW);
}

void fz_flips_look(fz_run *run) { go_on(run, EXACT); }

void fz_flips_finish(fz_run *run) { go_on(run, SOMEHOW); }

void fz_flips_end_plan(fz_run *run, uint64_t last_step) {
  uint64_t step, epoch;

  fz_run_now(run, &step, &epoch);
  go_through(run, last_step, epoch, SOMEHOW);
}

void fz_flips_begin_plan(fz_run *run, uint64_t step, uint64_t epoch) {
  run->flip_step = step > run->flip_step ? step : run->flip_step;
  run->flip_epoch = epoch > run->flip_epoch ? epoch : run->flip_epoch;
}

/* --------------------------------------------------------------------------------------------------------- carrying on */

/** Where the newest flip came that the history tells; left as it is if there is none in this incarnation. */
static void find_told(const fz_run *run, struct fz_history_cursor *cursor, uint64_t *step, uint64_t *epoch) {
  uint64_t incarnation;
  fz_json *line;

  for (int i = 0; i < LINES_BACK_MAX && (line = fz_history_older(cursor)); i++) {
    const char *event = fz_json_string(fz_json_member(line, "event"));
    const bool is_own =
      fz_json_integer(fz_json_member(line, "incarnation"), &incarnation) && incarnation == run->incarnation;
    const bool is_flip = is_own && event && strcmp(event, "flip") == 0;
    if (is_flip) {
      (void)fz_json_integer(fz_json_member(line, "step"), step);
      (void)fz_json_integer(fz_json_member(line, "epoch"), epoch);
    }
    fz_json_free(line);
    if (!is_own || is_flip)
      return;
  }
}

void fz_flips_carry_on(fz_run *run) {
  struct fz_history_cursor cursor = { 0 };
  char *text = NULL;

  fz_run_now(run, &run->flip_step, &run->flip_epoch);
  /* Without a history there is none that could lack something. */
  if (run->plan.gen == 0 || !run->core->state_dir || fz_history_read(run, &text, &cursor.length) < 0)
    return;
  cursor.text = text;
  if (cursor.length) {
    run->flip_step = run->flip_epoch = 0; /* a plan has boundaries only behind the point for which it was made */
    find_told(run, &cursor, &run->flip_step, &run->flip_epoch);
  }
  free(text);
}
