/* lighter.c - the rules layer of profile lighter. */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/rules/lighter.h"
#include "protocol/mask.h"

static int make(const fz_rules *rules, struct fz_lighter_state **ret_state) {
  const size_t words = fz_mask_words(fz_params_count(fz_rules_params(rules)));
  const size_t n = fz_ruleset_count(fz_rules_ruleset(rules));
  struct fz_lighter_state *state = (struct fz_lighter_state *)calloc(1, sizeof(*state));
  if (!state)
    return -ENOMEM;
  state->references = 1;
  state->n_callbacks = n;
  state->writer = FZ_LIGHTER_NOBODY;
  state->frozen = (bool *)calloc(n + 1, sizeof(*state->frozen));
  state->mask = (uint64_t *)calloc(words + 1, sizeof(*state->mask));
  if (!state->frozen || !state->mask) {
    fz_lighter_unref(state);
    return -ENOMEM;
  }
  *ret_state = state;
  return 0;
}

int fz_lighter_start(const fz_rules *rules, const uint64_t *mask, uint32_t edge, struct fz_lighter_state **ret_state) {
  struct fz_lighter_state *state;
  const int r = make(rules, &state);
  if (r)
    return r;
  memcpy(state->mask, mask, fz_mask_words(fz_params_count(fz_rules_params(rules))) * sizeof(uint64_t));
  state->edge = edge;
  *ret_state = state;
  return 0;
}

struct fz_lighter_state *fz_lighter_ref(struct fz_lighter_state *state) {
  state->references++;
  return state;
}

struct fz_lighter_state *fz_lighter_unref(struct fz_lighter_state *state) {
  if (!state || --state->references > 0)
    return NULL;
  free(state->frozen);
  free(state->mask);
  free(state);
  return NULL;
}

static bool is_reached(const fz_rules *rules, size_t callback, uint64_t step, uint64_t epoch) {
  const struct fz_window *window = &fz_ruleset_get(fz_rules_ruleset(rules), callback)->window;
  return step >= window->until_step || epoch >= window->until_epoch;
}

static void pass(struct fz_lighter_state *state, const fz_rules *rules, size_t callback, bool frozen) {
  const size_t n = fz_params_count(fz_rules_params(rules));
  const uint64_t *selected = fz_rules_mask(rules, callback);
  fz_mask_fill(state->mask, n, true);
  for (size_t w = 0; frozen && w < fz_mask_words(n); w++)
    state->mask[w] &= ~selected[w];
  state->frozen[callback] = frozen;
  state->writer = callback;
  state->edge++;
}

int fz_lighter_batch(const struct fz_lighter_state *state, const fz_rules *rules, uint64_t step, uint64_t epoch,
                     struct fz_lighter_state **ret_state) {
  struct fz_lighter_state *next;
  const int r = fz_lighter_start(rules, state->mask, state->edge, &next);
  if (r)
    return r;
  memcpy(next->frozen, state->frozen, state->n_callbacks * sizeof(*state->frozen));
  next->writer = state->writer;
  for (size_t i = 0; i < next->n_callbacks; i++) {
    const bool reached = is_reached(rules, i, step, epoch);
    if (reached == next->frozen[i])
      pass(next, rules, i, !reached);
  }
  *ret_state = next;
  return 0;
}

struct fz_lighter_now fz_lighter_at(const struct fz_lighter_state *anchored, const fz_rules *rules, uint64_t step,
                                    uint64_t epoch) {
  struct fz_lighter_now now = { .edge = anchored->edge, .writer = anchored->writer };
  for (size_t i = 0; i < anchored->n_callbacks; i++)
    if (anchored->frozen[i] && is_reached(rules, i, step, epoch)) {
      now.all_ones = true;
      now.edge++;
      now.writer = i;
    }
  return now;
}
