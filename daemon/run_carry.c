/* run_carry.c - decisions that were made over one parameter table, made again over another. */
#include "config.h"

#include <errno.h>
#include <stdlib.h>

#include "daemon/run.h"
#include "daemon/run_carry.h"
#include "daemon/run_rules.h"
#include "protocol/mask.h"

/** Patterns of an override or pin, less those that were dropped from it, as a new mask over a table. */
static int resolve(fz_params *params, const char *const *patterns, size_t n, const char *const *dropped,
                   size_t n_dropped, uint64_t **ret_mask) {
  const size_t words = fz_mask_words(fz_params_count(params));
  uint64_t *mask = calloc(2 * words + 1, sizeof(*mask)), *less = mask + words;
  int r = mask ? fz_patterns_match(params, patterns, n, mask, NULL) : -ENOMEM;

  for (size_t i = 0; r == 0 && i < n_dropped; i++)
    if (fz_patterns_match(params, &dropped[i], 1, less, NULL) == 0)
      for (size_t w = 0; w < words; w++)
        mask[w] &= ~less[w];
  *ret_mask = mask;
  return r;
}

int fz_run_carry_override(fz_run *run, const struct fz_override *old, fz_layers *layers) {
  uint64_t *mask = NULL;
  int r = resolve(fz_layers_params(layers), old->patterns, old->n_patterns, old->dropped, old->n_dropped, &mask);

  if (r == 0) {
    const struct fz_override_request request = {
      .action = old->action,
      .patterns = old->patterns,
      .n_patterns = old->n_patterns,
      .dropped = old->dropped,
      .n_dropped = old->n_dropped,
      .mask = mask,
      .window = old->window,
      .include_baseline = true,
      .restored = true,
      .time_ms = old->time_ms,
      .who = old->who,
      .reason = old->reason,
    };
    r = fz_layers_add_override(layers, &request, 0, 0, NULL);
  }
  if (r > 0)
    fz_run_warn(run,
                "an override of %s (%s %s) was dropped: it applies to nothing in the parameters that the trainer "
                "has now",
                old->who.user, fz_action_name(old->action), old->n_patterns ? old->patterns[0] : "");
  free(mask);
  return r < 0 ? r : 0;
}

int fz_run_carry_pin(fz_run *run, const struct fz_pin *old, fz_layers *layers) {
  uint64_t *mask = NULL;
  int r = resolve(fz_layers_params(layers), old->patterns, old->n_patterns, old->dropped, old->n_dropped, &mask);

  if (r == 0) {
    const struct fz_pin_request request = {
      .value = old->value,
      .patterns = old->patterns,
      .n_patterns = old->n_patterns,
      .dropped = old->dropped,
      .n_dropped = old->n_dropped,
      .mask = mask,
      .include_baseline = true,
      .restored = true,
      .time_ms = old->time_ms,
      .who = old->who,
      .reason = old->reason,
    };
    r = fz_layers_add_pin(layers, &request, 0, 0, NULL);
  }
  if (r > 0)
    fz_run_warn(run, "a pin of %s (%s) was dropped: it applies to nothing in the parameters that the trainer has now",
                old->who.user, old->n_patterns ? old->patterns[0] : "");
  free(mask);
  return r < 0 ? r : 0;
}

int fz_run_carry(fz_run *run, fz_layers *layers) {
  int r = fz_run_carry_rules(run, layers);

  for (size_t i = 0; r == 0 && i < fz_layers_n_overrides(run->layers); i++)
    r = fz_run_carry_override(run, fz_layers_override(run->layers, i), layers);
  for (size_t i = 0; r == 0 && i < fz_layers_n_pins(run->layers); i++)
    r = fz_run_carry_pin(run, fz_layers_pin(run->layers, i), layers);
  return r;
}
