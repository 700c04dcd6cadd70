/* since.c - since which step and gen each parameter of a run is as it is, and why in a few words. */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "daemon/rules/explain.h"
#include "daemon/run.h"
#include "daemon/since.h"
#include "protocol/mask.h"

/** The arrays; false when there is no memory for them: then nothing is known, which is no harm. */
static bool reserve(fz_run *run, const uint64_t *mask) {
  const size_t n = fz_params_count(run->params), words = fz_mask_words(n);

  if (run->since)
    return true;
  run->seen = malloc((words + 1) * sizeof(*run->seen));
  run->since = malloc((n + 1) * sizeof(*run->since));
  run->since_gen = calloc(n + 1, sizeof(*run->since_gen));
  if (!run->seen || !run->since || !run->since_gen) {
    fz_since_forget(run);
    return false;
  }
  memcpy(run->seen, mask, words * sizeof(*mask));
  for (size_t i = 0; i < n; i++)
    run->since[i] = FZ_TIME_NEVER;
  return true;
}

static size_t note(fz_run *run, const uint64_t *mask, uint64_t step, uint64_t gen) {
  const size_t words = fz_mask_words(fz_params_count(run->params));
  size_t changed = 0;

  if (!reserve(run, mask))
    return 0;
  for (size_t w = 0; w < words; w++)
    for (uint64_t bits = mask[w] ^ run->seen[w]; bits; bits &= bits - 1) {
      const size_t param = w * 64 + (size_t)__builtin_ctzll(bits);
      run->since[param] = step;
      run->since_gen[param] = (uint32_t)gen;
      changed++;
    }
  memcpy(run->seen, mask, words * sizeof(*mask));
  return changed;
}

size_t fz_since_note(fz_run *run, uint64_t step) {
  uint64_t *mask = calloc(fz_mask_words(fz_params_count(run->params)) + 1, sizeof(*mask));
  const size_t changed = mask && fz_run_mask(run, mask) == 0 ? note(run, mask, step, fz_run_gen_held(run)) : 0;

  free(mask);
  return changed;
}

void fz_since_flip(fz_run *run, const uint64_t *mask, uint64_t step) {
  const uint64_t held = fz_run_gen_held(run);

  /* As long as a rank is still at an older plan, it is that one's mask which counts. */
  if (held == 0 || held == run->plan.gen)
    (void)note(run, mask, step, run->plan.gen);
}

uint64_t fz_since_step(const fz_run *run, size_t param) { return run->since ? run->since[param] : FZ_TIME_NEVER; }

uint64_t fz_since_gen(const fz_run *run, size_t param) {
  if (run->since && run->since[param] != FZ_TIME_NEVER)
    return run->since_gen[param];
  return fz_run_gen_held(run);
}

void fz_since_forget(fz_run *run) {
  free(run->seen);
  free(run->since);
  free(run->since_gen);
  run->seen = run->since = NULL;
  run->since_gen = NULL;
}

char *fz_since_why(const fz_layers *layers, bool adopted, const struct fz_cause *cause, size_t param, bool trains) {
  if (adopted && cause->layer == FZ_LAYER_BASELINE &&
      fz_params_get(fz_layers_params(layers), param)->requires_grad != trains)
    return strdup("as before freezerd was restarted");
  return fz_cause_text(layers, cause, param);
}
