/* layers.c - the layers of a run: life, and evaluation at a point in time. */
#include "config.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/rules/layers_internal.h"
#include "protocol/mask.h"

static void state_unref(struct fz_lighter_state **state) { fz_lighter_unref(*state); }

uint64_t *fz_layers_new_mask(const fz_layers *layers) {
  return (uint64_t *)calloc(layers->words + 1, sizeof(uint64_t));
}

static struct fz_trainer_pins *find_trainer_pins(const fz_params *params) {
  const size_t n = fz_params_count(params);
  struct fz_trainer_pins *pins =
    (struct fz_trainer_pins *)calloc(1, sizeof(*pins) + (fz_mask_words(n) + 1) * sizeof(uint64_t));
  if (!pins)
    return NULL;
  pins->references = 1;
  for (size_t i = 0; i < n; i++) {
    const struct fz_param *param = fz_params_get(params, i);
    if (param->may_freeze || param->may_train)
      fz_mask_put(pins->mask, i, true);
  }
  return pins;
}

int fz_layers_new(fz_layers **ret_layers, fz_params *params) {
  fz_layers *layers = (fz_layers *)calloc(1, sizeof(*layers));
  if (!layers)
    return -ENOMEM;
  layers->trainer = find_trainer_pins(params);
  if (!layers->trainer) {
    free(layers);
    return -ENOMEM;
  }
  layers->params = fz_params_ref(params);
  layers->n = fz_params_count(params);
  layers->words = fz_mask_words(layers->n);
  layers->next_id = 1;
  *ret_layers = layers;
  return 0;
}

int fz_layers_clone(const fz_layers *layers, fz_layers **ret_clone) {
  fz_layers *clone = (fz_layers *)malloc(sizeof(*clone));
  if (!clone)
    return -ENOMEM;
  *clone = *layers;
  clone->overrides = clone->pins = (struct fz_decisions){ .items = NULL };
  if (fz_decisions_copy(&layers->overrides, &clone->overrides) || fz_decisions_copy(&layers->pins, &clone->pins)) {
    fz_decisions_deinit(&clone->overrides);
    free(clone);
    return -ENOMEM;
  }
  fz_params_ref(clone->params);
  clone->trainer->references++;
  if (clone->rules)
    fz_rules_ref(clone->rules);
  if (clone->base)
    fz_lighter_ref(clone->base);
  if (clone->anchored)
    fz_lighter_ref(clone->anchored);
  *ret_clone = clone;
  return 0;
}

fz_layers *fz_layers_free(fz_layers *layers) {
  if (!layers)
    return NULL;
  fz_decisions_deinit(&layers->overrides);
  fz_decisions_deinit(&layers->pins);
  fz_rules_unref(layers->rules);
  fz_lighter_unref(layers->base);
  fz_lighter_unref(layers->anchored);
  fz_params_unref(layers->params);
  if (--layers->trainer->references == 0)
    free(layers->trainer);
  free(layers);
  return NULL;
}

fz_params *fz_layers_params(const fz_layers *layers) { return layers->params; }

fz_rules *fz_layers_rules(const fz_layers *layers) { return layers->rules; }

size_t fz_layers_n_overrides(const fz_layers *layers) { return layers->overrides.n; }

const struct fz_override *fz_layers_override(const fz_layers *layers, size_t index) {
  assert(index < layers->overrides.n);
  return &layers->overrides.items[index]->override;
}

size_t fz_layers_n_pins(const fz_layers *layers) { return layers->pins.n; }

const struct fz_pin *fz_layers_pin(const fz_layers *layers, size_t index) {
  assert(index < layers->pins.n);
  return &layers->pins.items[index]->pin;
}

bool fz_layers_is_lighter(const fz_layers *layers) { return layers->base != NULL; }

int fz_layers_state(const fz_layers *layers, uint64_t step, uint64_t epoch, struct fz_lighter_state **ret_state) {
  if (!layers->base)
    *ret_state = NULL;
  else if (layers->anchored)
    *ret_state = fz_lighter_ref(layers->anchored);
  else
    return fz_lighter_batch(layers->base, layers->rules, step, epoch, ret_state);
  return 0;
}

static void set(uint64_t *mask, const uint64_t *which, size_t words, enum fz_action action) {
  if (action == FZ_TRAIN)
    for (size_t w = 0; w < words; w++)
      mask[w] |= which[w];
  else
    for (size_t w = 0; w < words; w++)
      mask[w] &= ~which[w];
}

/* Puts the bits of `values` where `which` is set. */
static void merge(uint64_t *mask, const uint64_t *which, const uint64_t *values, size_t words) {
  for (size_t w = 0; w < words; w++)
    mask[w] = (mask[w] & ~which[w]) | (values[w] & which[w]);
}

void fz_layers_eval_rules(const fz_layers *layers, const struct fz_lighter_state *state, uint64_t step, uint64_t epoch,
                          uint64_t *mask) {
  if (state) {
    if (fz_lighter_at(state, layers->rules, step, epoch).all_ones)
      fz_mask_fill(mask, layers->n, true);
    else
      memcpy(mask, state->mask, layers->words * sizeof(*mask));
    return;
  }
  memcpy(mask, fz_params_baseline(layers->params), layers->words * sizeof(*mask));
  const fz_ruleset *ruleset = layers->rules ? fz_rules_ruleset(layers->rules) : NULL;
  for (size_t i = 0; ruleset && i < fz_ruleset_count(ruleset); i++) {
    const struct fz_rule *rule = fz_ruleset_get(ruleset, i);
    if (fz_window_active(&rule->window, step, epoch))
      set(mask, fz_rules_mask(layers->rules, i), layers->words, rule->action);
  }
}

void fz_layers_apply_pins(const fz_layers *layers, uint64_t *mask) {
  const uint64_t *baseline = fz_params_baseline(layers->params);
  /* Weakest first: what a user pinned may have come to be pinned by rules that were loaded later. */
  for (size_t i = 0; i < layers->pins.n; i++)
    merge(mask, layers->pins.items[i]->mask, layers->pins.items[i]->values, layers->words);
  if (layers->rules)
    merge(mask, fz_rules_pinned(layers->rules), baseline, layers->words);
  merge(mask, layers->trainer->mask, baseline, layers->words);
}

void fz_layers_pinned(const fz_layers *layers, uint64_t *mask) {
  for (size_t i = 0; i < layers->pins.n; i++)
    set(mask, layers->pins.items[i]->mask, layers->words, FZ_TRAIN);
  if (layers->rules)
    set(mask, fz_rules_pinned(layers->rules), layers->words, FZ_TRAIN);
  set(mask, layers->trainer->mask, layers->words, FZ_TRAIN);
}

uint32_t fz_layers_edge(const fz_layers *layers, const struct fz_lighter_state *state, uint64_t step, uint64_t epoch) {
  return state ? fz_lighter_at(state, layers->rules, step, epoch).edge : layers->edge;
}

void fz_layers_eval_with(const fz_layers *layers, const struct fz_lighter_state *state, uint64_t step, uint64_t epoch,
                         uint64_t *mask, uint32_t *ret_edge) {
  fz_layers_eval_rules(layers, state, step, epoch, mask);
  for (size_t i = 0; i < layers->overrides.n; i++) {
    const struct fz_override *override = fz_layers_override(layers, i);
    if (fz_window_active(&override->window, step, epoch))
      set(mask, override->mask, layers->words, override->action);
  }
  fz_layers_apply_pins(layers, mask);
  if (ret_edge)
    *ret_edge = fz_layers_edge(layers, state, step, epoch);
}

int fz_layers_eval(const fz_layers *layers, uint64_t step, uint64_t epoch, uint64_t *mask, uint32_t *ret_edge) {
  __attribute__((cleanup(state_unref))) struct fz_lighter_state *state = NULL;
  const int r = fz_layers_state(layers, step, epoch, &state);
  if (!r)
    fz_layers_eval_with(layers, state, step, epoch, mask, ret_edge);
  return r;
}

bool fz_layers_pin_of(const fz_layers *layers, size_t index, struct fz_cause *ret_cause) {
  *ret_cause = (struct fz_cause){ .layer = FZ_LAYER_PIN };
  if (fz_mask_get(layers->trainer->mask, index)) {
    ret_cause->pin_by = FZ_PIN_BY_TRAINER;
    return true;
  }
  if (layers->rules && fz_mask_get(fz_rules_pinned(layers->rules), index)) {
    ret_cause->pin_by = FZ_PIN_BY_RULES;
    return true;
  }
  for (size_t i = layers->pins.n; i-- > 0;)
    if (fz_mask_get(layers->pins.items[i]->mask, index)) {
      ret_cause->pin_by = FZ_PIN_BY_USER;
      ret_cause->index = (uint32_t)i;
      return true;
    }
  return false;
}

static void cause_of(const fz_layers *layers, const struct fz_lighter_state *state, uint64_t step, uint64_t epoch,
                     size_t index, struct fz_cause *ret_cause) {
  if (fz_layers_pin_of(layers, index, ret_cause))
    return;
  for (size_t i = layers->overrides.n; i-- > 0;) {
    const struct fz_override *override = fz_layers_override(layers, i);
    if (fz_mask_get(override->mask, index) && fz_window_active(&override->window, step, epoch)) {
      *ret_cause = (struct fz_cause){ .layer = FZ_LAYER_OVERRIDE, .index = (uint32_t)i };
      return;
    }
  }
  *ret_cause = (struct fz_cause){ .layer = FZ_LAYER_BASELINE };
  if (state) {
    const size_t writer = fz_lighter_at(state, layers->rules, step, epoch).writer;
    if (writer != FZ_LIGHTER_NOBODY)
      *ret_cause = (struct fz_cause){ .layer = FZ_LAYER_RULE, .index = (uint32_t)writer };
    return;
  }
  for (size_t i = layers->rules ? fz_ruleset_count(fz_rules_ruleset(layers->rules)) : 0; i-- > 0;)
    if (fz_mask_get(fz_rules_mask(layers->rules, i), index) &&
        fz_window_active(&fz_ruleset_get(fz_rules_ruleset(layers->rules), i)->window, step, epoch)) {
      *ret_cause = (struct fz_cause){ .layer = FZ_LAYER_RULE, .index = (uint32_t)i };
      return;
    }
}

bool fz_layers_flag(const fz_layers *layers, const struct fz_lighter_state *state, uint64_t step, uint64_t epoch,
                    size_t index, struct fz_cause *ret_cause) {
  const bool baseline = fz_mask_get(fz_params_baseline(layers->params), index);
  cause_of(layers, state, step, epoch, index, ret_cause);
  switch (ret_cause->layer) {
  case FZ_LAYER_PIN:
    return ret_cause->pin_by == FZ_PIN_BY_USER ? fz_mask_get(layers->pins.items[ret_cause->index]->values, index)
                                               : baseline;
  case FZ_LAYER_OVERRIDE:
    return fz_layers_override(layers, ret_cause->index)->action == FZ_TRAIN;
  case FZ_LAYER_RULE:
    if (!state)
      return fz_ruleset_get(fz_rules_ruleset(layers->rules), ret_cause->index)->action == FZ_TRAIN;
    return fz_lighter_at(state, layers->rules, step, epoch).all_ones || fz_mask_get(state->mask, index);
  case FZ_LAYER_BASELINE:
    break;
  }
  return state ? fz_mask_get(state->mask, index) : baseline;
}

int fz_layers_causes(const fz_layers *layers, uint64_t step, uint64_t epoch, struct fz_cause *causes) {
  __attribute__((cleanup(state_unref))) struct fz_lighter_state *state = NULL;
  const int r = fz_layers_state(layers, step, epoch, &state);
  for (size_t i = 0; !r && i < layers->n; i++)
    cause_of(layers, state, step, epoch, i, &causes[i]);
  return r;
}

int fz_layers_cause(const fz_layers *layers, uint64_t step, uint64_t epoch, size_t index, struct fz_cause *ret_cause) {
  __attribute__((cleanup(state_unref))) struct fz_lighter_state *state = NULL;
  const int r = fz_layers_state(layers, step, epoch, &state);
  if (!r)
    cause_of(layers, state, step, epoch, index, ret_cause);
  return r;
}
