/* planner.c - turns layers into a plan with the future in it, and judges plans. */
#include "config.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/rules/boundaries.h"
#include "daemon/rules/layers_internal.h"
#include "daemon/rules/planner.h"
#include "protocol/hash.h"
#include "protocol/mask.h"

struct grid {
  const fz_layers *layers;
  const struct fz_lighter_state *state;
  struct fz_boundaries ahead;
  size_t steps, epochs; /* so many of them, now included, are in the plan */
  size_t max_rows, max_masks;
  uint32_t *cells; /* mask of (step point i, epoch point j), at i * stride + j */
  size_t stride;
  uint64_t *masks; /* as many as max_masks, and one to try */
  uint64_t *hashes;
  size_t n_masks;
};

static void state_unref(struct fz_lighter_state **state) { fz_lighter_unref(*state); }

static void grid_deinit(struct grid *grid) {
  fz_boundaries_deinit(&grid->ahead);
  free(grid->cells);
  free(grid->masks);
  free(grid->hashes);
}

/* Evaluates a cell. @return false when its mask is one more than fits */
static bool fill_cell(struct grid *grid, size_t i, size_t j) {
  const size_t words = grid->layers->words;
  uint64_t *mask = grid->masks + grid->n_masks * words;
  fz_layers_eval_with(grid->layers, grid->state, grid->ahead.steps.points[i], grid->ahead.epochs.points[j], mask, NULL);
  const uint64_t hash = fz_hash_bytes(FZ_HASH_START, mask, words * sizeof(*mask));
  size_t found = 0;
  while (found < grid->n_masks &&
         (grid->hashes[found] != hash || memcmp(grid->masks + found * words, mask, words * sizeof(*mask)) != 0))
    found++;
  if (found == grid->max_masks)
    return false;
  if (found == grid->n_masks)
    grid->hashes[grid->n_masks++] = hash;
  grid->cells[i * grid->stride + j] = (uint32_t)found;
  return true;
}

/* Takes one more step, or epoch, into the plan. @return false when there is none or it does not fit */
static bool extend(struct grid *grid, bool is_step) {
  const size_t known = is_step ? grid->ahead.steps.n : grid->ahead.epochs.n;
  size_t *used = is_step ? &grid->steps : &grid->epochs;
  const size_t other = is_step ? grid->epochs : grid->steps;
  const size_t masks_before = grid->n_masks;
  if (*used == known || (*used + 1) * other > grid->max_rows)
    return false;
  for (size_t k = 0; k < other; k++)
    if (!fill_cell(grid, is_step ? *used : k, is_step ? k : *used)) {
      grid->n_masks = masks_before;
      return false;
    }
  ++*used;
  return true;
}

/*
 * In turn, so that neither axis starves the other. What does not fit once never fits later: the other axis only grows.
 */
static void fill(struct grid *grid) {
  bool steps = true, epochs = true;
  (void)fill_cell(grid, 0, 0);
  grid->steps = grid->epochs = 1;
  while (steps || epochs) {
    steps = steps && extend(grid, true);
    epochs = epochs && extend(grid, false);
  }
}

static size_t least(size_t a, size_t b) { return a < b ? a : b; }

static int allocate(struct grid *grid) {
  const size_t steps = least(grid->ahead.steps.n, grid->max_rows);
  grid->stride = least(grid->ahead.epochs.n, grid->max_rows);
  grid->max_masks = least(grid->max_masks, steps * grid->stride);
  grid->cells = (uint32_t *)calloc(steps * grid->stride, sizeof(*grid->cells));
  grid->masks = (uint64_t *)malloc((grid->max_masks + 1) * (grid->layers->words + 1) * sizeof(uint64_t));
  grid->hashes = (uint64_t *)malloc((grid->max_masks + 1) * sizeof(uint64_t));
  return grid->cells && grid->masks && grid->hashes ? 0 : -ENOMEM;
}

static void set_horizon(const struct fz_axis *axis, size_t used, uint64_t *ret_horizon, uint64_t *ret_wake) {
  *ret_horizon = *ret_wake = FZ_TIME_NEVER;
  if (used == axis->n)
    return;
  const uint64_t now = axis->points[0];
  const uint64_t left = axis->points[used] - now;
  *ret_horizon = now + left;
  *ret_wake = now + (left > 3 ? left / 2 : left - 1);
}

static int make_plan(const struct grid *grid, fz_plan *ret_plan) {
  const size_t words = grid->layers->words;
  fz_plan plan = FZ_PLAN_NULL;
  plan.active_from = grid->ahead.steps.points[0];
  plan.n_params = grid->layers->n;
  plan.n_rows = grid->steps * grid->epochs;
  plan.n_masks = grid->n_masks;
  plan.rows = (struct fz_plan_row *)calloc(plan.n_rows, sizeof(*plan.rows));
  plan.masks = (uint64_t *)malloc((plan.n_masks * words + 1) * sizeof(uint64_t));
  if (!plan.rows || !plan.masks) {
    fz_plan_deinit(&plan);
    return -ENOMEM;
  }
  memcpy(plan.masks, grid->masks, plan.n_masks * words * sizeof(uint64_t));
  const uint64_t *steps = grid->ahead.steps.points, *epochs = grid->ahead.epochs.points;
  struct fz_plan_row *row = plan.rows;
  for (size_t i = 0; i < grid->steps; i++)
    for (size_t j = 0; j < grid->epochs; j++, row++) {
      row->from_step = i ? steps[i] : 0;
      row->from_epoch = j ? epochs[j] : 0;
      row->mask = grid->cells[i * grid->stride + j];
      row->edge = fz_layers_edge(grid->layers, grid->state, steps[i], epochs[j]);
    }
  set_horizon(&grid->ahead.steps, grid->steps, &plan.horizon_step, &plan.wake_step);
  set_horizon(&grid->ahead.epochs, grid->epochs, &plan.horizon_epoch, &plan.wake_epoch);
  *ret_plan = plan;
  return 0;
}

int fz_layers_plan(const fz_layers *layers, uint64_t step, uint64_t epoch, size_t max_rows, size_t max_masks,
                   fz_plan *plan) {
  assert(max_rows >= 4 && max_masks >= 4);
  __attribute__((cleanup(state_unref))) struct fz_lighter_state *state = NULL;
  __attribute__((
    cleanup(grid_deinit))) struct grid grid = { .layers = layers, .max_rows = max_rows, .max_masks = max_masks };
  fz_plan made;
  int r = fz_layers_state(layers, step, epoch, &state);
  grid.state = state;
  if (!r)
    r = fz_boundaries_find(layers, state, step, epoch, &grid.ahead);
  if (!r)
    r = allocate(&grid);
  if (r)
    return r;
  fill(&grid);
  r = make_plan(&grid, &made);
  if (r)
    return r;
  made.gen = plan->gen;
  fz_plan_deinit(plan);
  *plan = made;
  return 0;
}

size_t fz_plan_first_empty(const fz_plan *plan) {
  for (size_t row = 0; row < plan->n_rows && plan->n_params > 0; row++)
    if (fz_mask_next(fz_plan_mask(plan, row), plan->n_params, 0) == plan->n_params)
      return row;
  return plan->n_rows;
}

size_t fz_plan_thawed(const fz_plan *plan, const fz_params *params) {
  const uint64_t *baseline = fz_params_baseline(params);
  const size_t words = fz_mask_words(plan->n_params);
  size_t n = 0;
  for (size_t w = 0; w < words; w++) {
    uint64_t trains = 0;
    for (size_t m = 0; m < plan->n_masks; m++)
      trains |= plan->masks[m * words + w];
    n += (size_t)__builtin_popcountll(trains & ~baseline[w]);
  }
  return n;
}

static bool same_mask(const fz_plan *plan, size_t a, size_t b) { return plan->rows[a].mask == plan->rows[b].mask; }

struct fz_next fz_plan_next(const fz_plan *plan, uint64_t step, uint64_t epoch) {
  struct fz_next next = { .step = FZ_TIME_NEVER, .epoch = FZ_TIME_NEVER };
  if (plan->n_rows == 0)
    return next;
  const size_t now = fz_plan_row_at(plan->rows, plan->n_rows, step, epoch);
  for (size_t i = 0; i < plan->n_rows; i++) {
    const struct fz_plan_row *row = &plan->rows[i];
    if (row->from_step > step && row->from_step < next.step &&
        !same_mask(plan, fz_plan_row_at(plan->rows, plan->n_rows, row->from_step, epoch), now))
      next.step = row->from_step;
    if (row->from_epoch > epoch && row->from_epoch < next.epoch &&
        !same_mask(plan, fz_plan_row_at(plan->rows, plan->n_rows, step, row->from_epoch), now))
      next.epoch = row->from_epoch;
  }
  for (size_t i = 0; i < plan->n_rows && next.step == FZ_TIME_NEVER && next.epoch == FZ_TIME_NEVER; i++)
    if (plan->rows[i].from_step > step && plan->rows[i].from_epoch > epoch && !same_mask(plan, i, now))
      next = (struct fz_next){ .step = plan->rows[i].from_step, .epoch = plan->rows[i].from_epoch, .both = true };
  return next;
}

struct fz_mask_delta fz_mask_compare(const fz_params *params, const uint64_t *before, const uint64_t *after) {
  struct fz_mask_delta delta = { .froze = 0 };
  const size_t n = fz_params_count(params);
  for (size_t w = 0; w < fz_mask_words(n); w++)
    for (uint64_t changed = before[w] ^ after[w]; changed; changed &= changed - 1) {
      const size_t i = w * 64 + (size_t)__builtin_ctzll(changed);
      const uint64_t elements = fz_params_get(params, i)->elements;
      if (fz_mask_get(after, i)) {
        delta.unfroze++;
        delta.unfroze_elements += elements;
      } else {
        delta.froze++;
        delta.froze_elements += elements;
      }
    }
  return delta;
}

uint64_t fz_mask_elements(const fz_params *params, const uint64_t *mask) {
  const size_t words = fz_mask_words(fz_params_count(params));
  uint64_t sum = 0;
  for (size_t w = 0; w < words; w++)
    for (uint64_t left = mask[w]; left; left &= left - 1)
      sum += fz_params_get(params, w * 64 + (size_t)__builtin_ctzll(left))->elements;
  return sum;
}
