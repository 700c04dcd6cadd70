/* progress.c - what the ranks of a run report as they train. */
#include "config.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/client.h"
#include "daemon/clock.h"
#include "daemon/pending.h"
#include "daemon/progress.h"
#include "daemon/publisher.h"
#include "daemon/record.h"
#include "daemon/rules/explain.h"
#include "daemon/rules/planner.h"
#include "daemon/run.h"
#include "daemon/since.h"
#include "daemon/text.h"
#include "daemon/trainer.h"
#include "daemon/watchers.h"
#include "protocol/mask.h"

/* Weight of a new measurement of the time that a step takes. */
#define PACE_WEIGHT 0.3

/* By the step that the rank is at now: a report may have waited, behind others or for this daemon. */
static void measure_pace(fz_run *run, uint32_t index) {
  struct fz_rank *rank = &run->ranks[index];
  const uint64_t now = fz_clock_ms();
  uint64_t step, epoch;

  if (!fz_run_rank_at(run, index, &step, &epoch))
    return;

  if (rank->pace_ms && step > rank->pace_step && now > rank->pace_ms) {
    const double ms = (double)(now - rank->pace_ms) / (double)(step - rank->pace_step);
    run->step_ms = run->step_ms > 0 ? run->step_ms + PACE_WEIGHT * (ms - run->step_ms) : ms;
  }
  rank->pace_step = step;
  rank->pace_ms = now;
}

/* ------------------------------------------------------------------------------------------------------ planned flips */

static size_t row_now(const fz_run *run) {
  uint64_t step, epoch;

  fz_run_now(run, &step, &epoch);
  return fz_plan_row_at(run->plan.rows, run->plan.n_rows, step, epoch);
}

void fz_progress_note(fz_run *run) {
  uint64_t step, epoch;

  fz_run_now(run, &step, &epoch);
  fz_since_note(run, step);
  fz_run_note_trainable(run);
  if (run->plan.gen == 0)
    return;
  run->flip_gen = run->plan.gen;
  run->flip_row = row_now(run);
}

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

static void tell_flip(fz_run *run, size_t old_row, size_t row) {
  const uint64_t *before = fz_plan_mask(&run->plan, old_row), *after = fz_plan_mask(&run->plan, row);
  const struct fz_mask_delta delta = fz_mask_compare(run->params, before, after);
  char count[FZ_COUNT_SIZE];
  uint64_t step, epoch;

  if (delta.froze + delta.unfroze == 0)
    return;
  fz_run_now(run, &step, &epoch);
  /* A flip by steps came exactly at its boundary; one by epochs somewhere before now. */
  if (run->plan.rows[row].from_step > run->plan.rows[old_row].from_step)
    step = run->plan.rows[row].from_step;
  char *names = describe_flip(run, before, after, delta.froze > 0);
  char *turn = describe_turn(run, old_row, row);
  char *text = fz_text_format("%s %s (%s): %s", delta.froze ? "froze" : "unfroze", names ? names : "parameters",
                              fz_text_elements(delta.froze ? delta.froze_elements : delta.unfroze_elements, count),
                              turn ? turn : "as planned");
  free(names);
  free(turn);
  fz_log_write(&run->core->log, FZ_LOG_INFO, FZ_LOG_ABOUT(.event = "flip", .run = run->name, .gen = run->plan.gen),
               "step %" PRIu64 ": %s", step, text ? text : "a planned flip");
  fz_watch_tell(run->core, FZ_EVENT(.event = "flip", .run = run, .has = FZ_EVENT_GEN | FZ_EVENT_STEP | FZ_EVENT_EPOCH,
                                    .gen = run->plan.gen, .step = step, .epoch = epoch, .froze = delta.froze,
                                    .unfroze = delta.unfroze, .text = text));
  const struct fz_recent_entry entry = {
    .time_ms = fz_clock_utc_ms(),
    .incarnation = run->incarnation,
    .gen = run->plan.gen,
    .step = step,
    .action = "flip",
    .text = text,
    .params = delta.froze + delta.unfroze,
    .elements = delta.froze_elements + delta.unfroze_elements,
  };
  fz_record_add(run, &(const struct fz_record){ .event = "flip",
                                                .gen = run->plan.gen,
                                                .has_step = true,
                                                .step = step,
                                                .text = text,
                                                .froze = delta.froze,
                                                .unfroze = delta.unfroze,
                                                .elements = entry.elements });
  fz_recent_add(&run->recent, &entry);
  fz_since_note(run, step);
  fz_run_note_trainable(run);
}

void fz_progress_look(fz_run *run) {
  if (run->plan.gen == 0)
    return;
  if (run->flip_gen == run->plan.gen) {
    const size_t row = row_now(run), old_row = run->flip_row;
    if (row != old_row) {
      run->flip_row = row;
      tell_flip(run, old_row, row);
    }
    return;
  }
  run->flip_gen = run->plan.gen;
  run->flip_row = row_now(run);
}

/* ------------------------------------------------------------------------------------------------------------ reports */

static void moved(fz_run *run, struct fz_rank *rank, uint64_t step, uint64_t epoch) {
  rank->step = step;
  rank->epoch = epoch;
  fz_progress_look(run);
  fz_publisher_wake(run, step, epoch);
  fz_waits_check(run->core, run);
  if (rank->at_step <= step && rank->trainer)
    fz_trainer_subscribe(rank->trainer);
}

void fz_progress_step(fz_run *run, uint32_t rank, uint64_t step, uint64_t epoch) {
  measure_pace(run, rank);
  moved(run, &run->ranks[rank], step, epoch);
}

void fz_progress_epoch(fz_run *run, uint32_t rank, uint64_t step, uint64_t epoch) {
  char text[48];

  if (epoch > run->told_epoch) {
    run->told_epoch = epoch;
    snprintf(text, sizeof(text), "epoch %" PRIu64 " began", epoch);
    fz_watch_tell(run->core, FZ_EVENT(.event = "epoch", .run = run, .has = FZ_EVENT_STEP | FZ_EVENT_EPOCH, .step = step,
                                      .epoch = epoch, .text = text));
  }
  moved(run, &run->ranks[rank], step, epoch);
}

void fz_progress_applied(fz_run *run, uint32_t rank, const struct fz_applied *applied) {
  struct fz_rank *state = &run->ranks[rank];

  /* More than was published cannot have been applied: it is of an incarnation that has ended, or made up. */
  if (applied->gen > run->plan.gen || applied->gen < state->gen)
    return;
  state->gen = applied->gen;
  state->applied_step = applied->step;
  fz_pendings_taken(run, applied->gen, applied->step);
  moved(run, state, applied->step, applied->epoch);
  fz_pendings_check(run);
  fz_since_note(run, applied->step);
  fz_run_note_trainable(run);
  if (run->blocked)
    fz_publisher_run(run);
}
