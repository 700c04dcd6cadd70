/* progress.c - what the ranks of a run report as they train. */
#include "config.h"

#include <inttypes.h>
#include <stdio.h>

#include "daemon/client.h"
#include "daemon/clock.h"
#include "daemon/flips.h"
#include "daemon/pending.h"
#include "daemon/progress.h"
#include "daemon/publisher.h"
#include "daemon/run.h"
#include "daemon/since.h"
#include "daemon/trainer.h"
#include "daemon/watchers.h"

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

/** What is in force, since `step` if it was not before. */
static void note_mask(fz_run *run, uint64_t step) {
  /* Ranks may have taken their first plan, and gone on in it, before they say so: that is told as flips. */
  if (run->since && fz_run_gen_held(run) == 0)
    return;
  fz_since_note(run, step);
  fz_run_note_trainable(run, fz_run_trainable(run, NULL));
}

void fz_progress_note(fz_run *run) {
  uint64_t step, epoch;

  fz_flips_look(run);
  fz_run_now(run, &step, &epoch);
  note_mask(run, step);
}

/* ------------------------------------------------------------------------------------------------------------ reports */

static void moved(fz_run *run, struct fz_rank *rank, uint64_t step, uint64_t epoch) {
  rank->step = step;
  rank->epoch = epoch;
  fz_flips_reported(run, step, epoch);
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
  fz_flips_epoch_began(run, step, epoch);
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
  note_mask(run, applied->step);
  if (run->blocked)
    fz_publisher_run(run);
}
