/* boundaries.c - the steps and epochs ahead at which the layers of a run may say something else. */
#include "config.h"

#include <errno.h>
#include <stdlib.h>

#include "daemon/rules/boundaries.h"

static void add_point(struct fz_axis *axis, uint64_t point) {
  /* What is not ahead of now changes nothing any more. */
  if (point > axis->points[0] && point != FZ_TIME_NEVER)
    axis->points[axis->n++] = point;
}

static void add_window(struct fz_boundaries *boundaries, const struct fz_window *window) {
  if (fz_window_phase(window, boundaries->steps.points[0], boundaries->epochs.points[0]) == FZ_PHASE_OVER)
    return;
  add_point(&boundaries->steps, window->from_step);
  add_point(&boundaries->steps, window->until_step);
  add_point(&boundaries->epochs, window->from_epoch);
  add_point(&boundaries->epochs, window->until_epoch);
}

static int compare_points(const void *a, const void *b) {
  const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return (x > y) - (x < y);
}

static void sort(struct fz_axis *axis) {
  size_t n = 0;
  qsort(axis->points, axis->n, sizeof(*axis->points), compare_points);
  for (size_t i = 0; i < axis->n; i++)
    if (i == 0 || axis->points[i] != axis->points[n - 1])
      axis->points[n++] = axis->points[i];
  axis->n = n;
}

int fz_boundaries_find(const fz_layers *layers, const struct fz_lighter_state *state, uint64_t step, uint64_t epoch,
                       struct fz_boundaries *ret_boundaries) {
  const fz_ruleset *ruleset = layers->rules ? fz_rules_ruleset(layers->rules) : NULL;
  const size_t n_rules = ruleset ? fz_ruleset_count(ruleset) : 0;
  const size_t most = 2 * (n_rules + layers->overrides.n) + 1;
  struct fz_boundaries found = { .steps.points = (uint64_t *)malloc(most * sizeof(uint64_t)),
                                 .epochs.points = (uint64_t *)malloc(most * sizeof(uint64_t)) };
  if (!found.steps.points || !found.epochs.points) {
    fz_boundaries_deinit(&found);
    return -ENOMEM;
  }
  found.steps.points[found.steps.n++] = step;
  found.epochs.points[found.epochs.n++] = epoch;
  /* A lighter callback that is not frozen at the anchor does nothing more, one that selects nothing still releases. */
  for (size_t i = 0; i < n_rules; i++)
    if (state ? state->frozen[i] : fz_rules_matches(layers->rules, i) > 0)
      add_window(&found, &fz_ruleset_get(ruleset, i)->window);
  for (size_t i = 0; i < layers->overrides.n; i++)
    add_window(&found, &fz_layers_override(layers, i)->window);
  sort(&found.steps);
  sort(&found.epochs);
  *ret_boundaries = found;
  return 0;
}

void fz_boundaries_deinit(struct fz_boundaries *boundaries) {
  free(boundaries->steps.points);
  free(boundaries->epochs.points);
  *boundaries = (struct fz_boundaries)FZ_BOUNDARIES_NULL;
}
