/* boundaries.h - the steps and epochs ahead at which the layers of a run may say something else. */
#ifndef FZ_BOUNDARIES_H
#define FZ_BOUNDARIES_H

#include <stddef.h>
#include <stdint.h>

#include "daemon/rules/layers_internal.h"

/** Points along one axis, ascending, each once; the first is now. */
struct fz_axis {
  uint64_t *points;
  size_t n;
};

struct fz_boundaries {
  struct fz_axis steps, epochs;
};

#define FZ_BOUNDARIES_NULL \
  { .steps.points = NULL }

/** Of everything that is not over at (step, epoch). `state` as of fz_layers_state(). 0 or -ENOMEM. */
int fz_boundaries_find(const fz_layers *layers, const struct fz_lighter_state *state, uint64_t step, uint64_t epoch,
                       struct fz_boundaries *ret_boundaries);
void fz_boundaries_deinit(struct fz_boundaries *boundaries);

#endif
