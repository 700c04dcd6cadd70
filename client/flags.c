/* flags.c - from the plan in force to the flags of the parameters, and which of them are to be written. */
#include "config.h"

#include <string.h>

#include "client/handle.h"
#include "protocol/mask.h"

void fz_flags_reset(freezer_t *f) {
  memcpy(f->flags, fz_params_baseline(f->params), f->n_words * sizeof(*f->flags));
  f->first_trainable = fz_mask_next(f->flags, f->n_params, 0);
  fz_flags_forget_plan(f);
}

void fz_flags_forget_plan(freezer_t *f) {
  f->plan.gen = 0;
  f->row_until_step = f->row_until_epoch = FZ_TIME_NEVER;
}

void fz_flags_take_spare(freezer_t *f) {
  const fz_plan old = f->plan;
  f->plan = f->spare;
  f->spare = old;
  /* Bounds of 0: whatever (step, epoch), fz_flags_follow() looks for the row. */
  f->row_until_step = f->row_until_epoch = 0;
}

/* The next boundaries of the grid, so that a step between two costs a compare. */
static void set_row_bounds(freezer_t *f) {
  uint64_t step = FZ_TIME_NEVER, epoch = FZ_TIME_NEVER;
  for (size_t i = 0; i < f->plan.n_rows; i++) {
    const struct fz_plan_row *row = &f->plan.rows[i];
    if (row->from_step > f->step && row->from_step < step)
      step = row->from_step;
    if (row->from_epoch > f->epoch && row->from_epoch < epoch)
      epoch = row->from_epoch;
  }
  f->row_until_step = step;
  f->row_until_epoch = epoch;
}

bool fz_flags_follow(freezer_t *f) {
  if (!fz_flags_are_due(f))
    return false;
  f->row = fz_plan_row_at(f->plan.rows, f->plan.n_rows, f->step, f->epoch);
  set_row_bounds(f);

  const uint64_t *mask = fz_plan_mask(&f->plan, f->row);
  const bool all = f->plan.rows[f->row].edge != f->edge;
  f->edge = f->plan.rows[f->row].edge;
  bool any = all && f->n_params > 0;
  for (size_t w = 0; w < f->n_words; w++) {
    const uint64_t changed = f->flags[w] ^ mask[w];
    any |= changed != 0;
    f->unwritten[w] |= changed;
    f->flags[w] = mask[w];
  }
  if (!any)
    return false;
  if (all)
    fz_mask_fill(f->unwritten, f->n_params, true);
  f->cursor = 0;
  f->first_trainable = fz_mask_next(f->flags, f->n_params, 0);
  return true;
}

bool freezer_requires_grad(const freezer_t *f, size_t index) {
  return !f || index >= f->n_params || fz_mask_get(f->flags, index);
}

int freezer_next_change(freezer_t *f, size_t *index, bool *requires_grad) {
  if (!f)
    return 0;
  const size_t found = fz_mask_next(f->unwritten, f->n_params, f->cursor);
  f->cursor = found;
  if (found == f->n_params)
    return 0;
  fz_mask_put(f->unwritten, found, false);
  *index = found;
  *requires_grad = fz_mask_get(f->flags, found);
  return 1;
}

size_t freezer_next_changes(freezer_t *f, size_t *indices, bool *requires_grad, size_t count) {
  size_t n = 0;
  while (n < count && freezer_next_change(f, &indices[n], &requires_grad[n]) == 1)
    n++;
  return n;
}

size_t freezer_first_trainable(const freezer_t *f) { return f ? f->first_trainable : 0; }

uint64_t freezer_generation(const freezer_t *f) { return f ? f->plan.gen : 0; }
