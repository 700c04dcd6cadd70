/* plan.c - a plan in process memory: the masks for now and for the known future. */
#include "config.h"

#include <assert.h>
#include <stdlib.h>

#include "protocol/mask.h"
#include "protocol/plan.h"

void fz_plan_deinit(fz_plan *plan) {
  free(plan->rows);
  free(plan->masks);
  *plan = (fz_plan)FZ_PLAN_NULL;
}

size_t fz_plan_row_at(const struct fz_plan_row *rows, size_t n_rows, uint64_t step, uint64_t epoch) {
  assert(n_rows > 0 && rows[0].from_step == 0 && rows[0].from_epoch == 0);
  /* The rows whose step was reached are the first ones: find their end, then the last whose epoch was reached too. */
  size_t low = 1, high = n_rows;
  while (low < high) {
    const size_t middle = low + (high - low) / 2;
    if (rows[middle].from_step <= step)
      low = middle + 1;
    else
      high = middle;
  }
  size_t row = low - 1;
  while (rows[row].from_epoch > epoch)
    row--;
  return row;
}

static bool row_follows(const struct fz_plan_row *row, const struct fz_plan_row *before) {
  return row->from_step > before->from_step ||
         (row->from_step == before->from_step && row->from_epoch > before->from_epoch);
}

bool fz_plan_rows_are_sound(const struct fz_plan_row *rows, size_t n_rows, size_t n_masks) {
  if (n_rows == 0 || rows[0].from_step != 0 || rows[0].from_epoch != 0)
    return false;
  for (size_t i = 0; i < n_rows; i++)
    if (rows[i].mask >= n_masks || (i > 0 && !row_follows(&rows[i], &rows[i - 1])))
      return false;
  return true;
}

void fz_plan_clear_padding(fz_plan *plan) {
  const size_t words = fz_mask_words(plan->n_params);
  if (plan->n_params % 64)
    for (size_t m = 1; m <= plan->n_masks; m++)
      plan->masks[m * words - 1] &= (UINT64_C(1) << (plan->n_params % 64)) - 1;
}

const uint64_t *fz_plan_mask(const fz_plan *plan, size_t row) {
  assert(row < plan->n_rows && plan->rows[row].mask < plan->n_masks);
  return plan->masks + plan->rows[row].mask * fz_mask_words(plan->n_params);
}
