/* run_ranks.c - where the ranks of a run are, and which of them live. */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/clock.h"
#include "daemon/flips.h"
#include "daemon/pending.h"
#include "daemon/publisher.h"
#include "daemon/rules/planner.h"
#include "daemon/run.h"
#include "protocol/mask.h"

bool fz_run_rank_lives(const fz_run *run, uint32_t rank) {
  return run->ranks[rank].trainer || (run->segment && fz_rank_is_locked(run->segment, rank));
}

bool fz_run_lives(const fz_run *run) {
  for (uint32_t i = 0; i < run->world; i++)
    if (fz_run_rank_lives(run, i))
      return true;
  return false;
}

uint32_t fz_run_attached(const fz_run *run) {
  uint32_t n = 0;

  for (uint32_t i = 0; i < run->world; i++)
    n += run->ranks[i].attached;
  return n;
}

bool fz_run_complete(const fz_run *run) { return run->segment && fz_run_attached(run) == run->world; }

void fz_run_release(fz_run *run, uint32_t rank) {
  struct fz_rank *state = &run->ranks[rank];

  fz_flips_finish(run); /* while it is known how far it came */
  state->trainer = NULL;
  state->attached = false;
  state->at_step = FZ_TIME_NEVER;
  if (run->segment && !fz_rank_is_locked(run->segment, rank)) {
    fz_rank_leave(run->segment, rank);
    state->gen = 0;
  } else if (run->segment) {
    /* Its process lives, or has not quite ended yet: its line is kept for now. */
    fz_publisher_look_again(run);
  }
}

/* ---------------------------------------------------------------------------------------------------------- position */

/* What a rank said over the socket, or what stands in its line, whichever is later. */
bool fz_run_rank_at(const fz_run *run, uint32_t rank, uint64_t *ret_step, uint64_t *ret_epoch) {
  const struct fz_rank *state = &run->ranks[rank];
  uint64_t step = state->step, epoch = state->epoch;

  if (run->segment) {
    const struct fz_rank_line line = fz_rank_read(run->segment, rank);
    if (line.pid != 0 && line.step != FZ_TIME_NEVER && (step == FZ_TIME_NEVER || line.step > step))
      step = line.step;
    if (line.pid != 0 && line.epoch != FZ_TIME_NEVER && (epoch == FZ_TIME_NEVER || line.epoch > epoch))
      epoch = line.epoch;
  }
  /* The line is shared memory: what somebody wrote into it is no reason to plan for a step that cannot be. */
  if (step == FZ_TIME_NEVER || step > FZ_STEP_MAX)
    return false;
  *ret_step = step;
  *ret_epoch = epoch == FZ_TIME_NEVER || epoch > FZ_EPOCH_MAX ? 0 : epoch;
  return true;
}

void fz_run_now(const fz_run *run, uint64_t *ret_step, uint64_t *ret_epoch) {
  uint64_t step, epoch, highest_step = 0, highest_epoch = 0;
  bool known = false;

  for (uint32_t i = 0; i < run->world; i++) {
    if (!fz_run_rank_at(run, i, &step, &epoch))
      continue;
    highest_step = step > highest_step ? step : highest_step;
    highest_epoch = epoch > highest_epoch ? epoch : highest_epoch;
    known = true;
  }
  *ret_step = known ? highest_step : run->last_step;
  *ret_epoch = known ? highest_epoch : run->last_epoch;
}

void fz_run_floor(const fz_run *run, uint64_t *ret_step, uint64_t *ret_epoch) {
  uint64_t step, epoch, lowest_step = FZ_TIME_NEVER, lowest_epoch = FZ_TIME_NEVER;

  for (uint32_t i = 0; i < run->world; i++) {
    if (!fz_run_rank_at(run, i, &step, &epoch))
      continue;
    lowest_step = step < lowest_step ? step : lowest_step;
    lowest_epoch = epoch < lowest_epoch ? epoch : lowest_epoch;
  }
  *ret_step = lowest_step == FZ_TIME_NEVER ? run->last_step : lowest_step;
  *ret_epoch = lowest_epoch == FZ_TIME_NEVER ? run->last_epoch : lowest_epoch;
}

uint64_t fz_run_applied_gen(const fz_run *run) {
  uint64_t lowest = FZ_TIME_NEVER;

  for (uint32_t i = 0; i < run->world; i++)
    if (fz_run_rank_lives(run, i) && run->ranks[i].gen < lowest)
      lowest = run->ranks[i].gen;
  return lowest == FZ_TIME_NEVER ? 0 : lowest;
}

uint64_t fz_run_gen_held(const fz_run *run) { return run->segment ? fz_run_applied_gen(run) : run->ended_gen; }

uint64_t fz_run_gen_newest(const fz_run *run) { return run->segment ? run->plan.gen : run->ended_gen; }

/* -------------------------------------------------------------------------------------------------------------- mask */

static void copy_row(const fz_plan *plan, uint64_t step, uint64_t epoch, uint64_t *mask) {
  const size_t row = fz_plan_row_at(plan->rows, plan->n_rows, step, epoch);

  memcpy(mask, fz_plan_mask(plan, row), fz_mask_words(plan->n_params) * sizeof(*mask));
}

/** The mask of a gen that is not the newest any more, from the ring. Not 0: it is not there. */
static int read_older(const fz_run *run, uint64_t gen, uint64_t step, uint64_t epoch, uint64_t *mask) {
  fz_plan plan = FZ_PLAN_NULL;
  int r = fz_plan_reserve(&plan, run->segment);

  if (r == 0)
    r = fz_segment_read_plan(run->segment, gen, &plan);
  if (r == 0)
    copy_row(&plan, step, epoch, mask);
  fz_plan_deinit(&plan);
  return r;
}

int fz_run_mask(const fz_run *run, uint64_t *mask) {
  const uint64_t gen = run->segment ? fz_run_applied_gen(run) : run->plan.gen;
  uint64_t step, epoch;

  fz_run_now(run, &step, &epoch);
  if (run->segment && gen > 0 && gen < run->plan.gen) {
    const int r = read_older(run, gen, step, epoch, mask);
    if (r <= 0)
      return r;
  }
  /* Until the first plan of an incarnation is applied the ranks keep what they had: the baseline, or the last plan. */
  if (run->planned && (gen > 0 || run->plan.gen == 0)) {
    copy_row(&run->plan, step, epoch, mask);
    return 0;
  }
  memcpy(mask, fz_params_baseline(run->params), fz_mask_words(fz_params_count(run->params)) * sizeof(*mask));
  return 0;
}

uint64_t fz_run_trainable(const fz_run *run, size_t *ret_params) {
  if (ret_params)
    *ret_params = 0;
  if (!run->params)
    return 0;
  const size_t n = fz_params_count(run->params);
  uint64_t *mask = calloc(fz_mask_words(n) + 1, sizeof(*mask));
  uint64_t elements = 0;
  if (mask && fz_run_mask(run, mask) == 0) {
    elements = fz_mask_elements(run->params, mask);
    if (ret_params)
      *ret_params = fz_mask_count(mask, n);
  }
  free(mask);
  return elements;
}
