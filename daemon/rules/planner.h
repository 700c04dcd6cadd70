/* planner.h - turns layers into a plan with the future in it, and judges plans. */
#ifndef FZ_PLANNER_H
#define FZ_PLANNER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/rules/layers.h"
#include "protocol/plan.h"

/*
 * The rows are the grid of the step and epoch boundaries ahead: the next i step boundaries times the next j epoch
 * boundaries, as many as fit. Before (horizon_step, horizon_epoch) the plan is exact however steps and epochs mix.
 * When something was cut off, wake_step and wake_epoch lie about half way to the horizon: a plan made then carries on
 * with the same masks.
 */

/**
 * Makes a plan for batches at steps >= `step` and epochs >= `epoch`: active_from is `step`, gen is left to the caller.
 * `epoch` may be any lower bound of the epochs at which the plan will be asked, except that a lighter ruleset without an
 * anchor takes (step, epoch) as its first batch.
 * @param max_rows, max_masks  budget; at least 4 each
 * @param plan  FZ_PLAN_NULL or an older plan, whose arrays are freed; untouched on failure
 * @return 0 or -ENOMEM
 */
int fz_layers_plan(const fz_layers *layers, uint64_t step, uint64_t epoch, size_t max_rows, size_t max_masks,
                   fz_plan *plan);

/** The first row at which nothing trains, or n_rows. A run without parameters has none. */
size_t fz_plan_first_empty(const fz_plan *plan);

/** How many parameters that the trainer had frozen train in some row. */
size_t fz_plan_thawed(const fz_plan *plan, const fz_params *params);

/** The next flip of any bit after some (step, epoch). */
struct fz_next {
  uint64_t step;  /* at this step, if that is reached before `epoch`; FZ_TIME_NEVER: none by steps alone */
  uint64_t epoch; /* at this epoch, if that is reached before `step`; FZ_TIME_NEVER: none by epochs alone */
  bool both;      /* the flip needs both to be reached */
};
/** By a plan: up to its horizon; by one without rows: none. */
struct fz_next fz_plan_next(const fz_plan *plan, uint64_t step, uint64_t epoch);

/** What differs between two masks. */
struct fz_mask_delta {
  size_t froze, unfroze; /* parameters */
  uint64_t froze_elements, unfroze_elements;
};
struct fz_mask_delta fz_mask_compare(const fz_params *params, const uint64_t *before, const uint64_t *after);

/** Elements that train under a mask. */
uint64_t fz_mask_elements(const fz_params *params, const uint64_t *mask);

#endif
