/* plan.h - a plan in process memory: the masks for now and for the known future. */
#ifndef FZ_PLAN_H
#define FZ_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "protocol/limits.h"

/*
 * Rows are the grid of all step and epoch boundaries that the plan carries, in lexicographic order of
 * (from_step, from_epoch); the first is (0, 0). At (step, epoch) the row in force is the last one with
 * from_step <= step && from_epoch <= epoch. On a full grid that is the row of the highest step boundary and the highest
 * epoch boundary reached, whatever the order in which the two were reached.
 *
 * `edge` counts transitions that rewrite every parameter (profile lighter); a trainer that comes to a row with another
 * edge than the one it held writes all flags, not only those that differ. It never falls along either axis.
 *
 * Boundaries that did not fit are cut off: the plan is exact before (horizon_step, horizon_epoch) and holds its last
 * masks beyond. On reaching wake_step or wake_epoch the trainer tells the daemon, which extends the plan in time.
 * All of these are FZ_TIME_NEVER when nothing was cut off.
 */
struct fz_plan_row {
  uint64_t from_step;
  uint64_t from_epoch;
  uint32_t mask; /* index into the plan's masks */
  uint32_t edge;
};

/** Owned by whoever built it; init with FZ_PLAN_NULL, deinit frees both arrays. */
typedef struct fz_plan {
  uint64_t gen;
  uint64_t active_from; /* first step at which it holds */
  uint64_t wake_step, wake_epoch;
  uint64_t horizon_step, horizon_epoch;
  size_t n_params;
  size_t n_rows;
  size_t n_masks;
  struct fz_plan_row *rows; /* n_rows */
  uint64_t *masks;          /* n_masks times fz_mask_words(n_params) */
} fz_plan;

#define FZ_PLAN_NULL \
  { \
    .wake_step = FZ_TIME_NEVER, .wake_epoch = FZ_TIME_NEVER, .horizon_step = FZ_TIME_NEVER, \
    .horizon_epoch = FZ_TIME_NEVER \
  }

void fz_plan_deinit(fz_plan *plan);

/** The index of the row in force at (step, epoch). The plan has at least one row and the first is (0, 0). */
size_t fz_plan_row_at(const struct fz_plan_row *rows, size_t n_rows, uint64_t step, uint64_t epoch);

/**
 * Whether these are rows that a planner makes: at least one, the first at (0, 0), in order, each with one of the masks.
 * What comes from outside is asked this before it is used.
 */
bool fz_plan_rows_are_sound(const struct fz_plan_row *rows, size_t n_rows, size_t n_masks);

/** Zeroes what lies behind the last parameter in each mask: readers count and scan whole words. */
void fz_plan_clear_padding(fz_plan *plan);

/** The mask of row `row`, borrowed. */
const uint64_t *fz_plan_mask(const fz_plan *plan, size_t row);

#endif
