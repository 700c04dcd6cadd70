/* layers_change.c - what changes layers: overrides, pins, rules, and the point that lighter's state has come to. */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/rules/layers_internal.h"
#include "daemon/rules/planner.h"
#include "daemon/rules/strbuf.h"
#include "protocol/limits.h"
#include "protocol/mask.h"

/* All masks of the overrides, or of the pins, of a run together. */
#define MASK_BYTES_MAX (256U * 1024U * 1024U)

static void free_words(uint64_t **words) { free(*words); }

static bool intersects(const uint64_t *a, const uint64_t *b, size_t words) {
  for (size_t w = 0; w < words; w++)
    if (a[w] & b[w])
      return true;
  return false;
}

static bool covers(const uint64_t *outer, const uint64_t *inner, size_t words) {
  for (size_t w = 0; w < words; w++)
    if (inner[w] & ~outer[w])
      return false;
  return true;
}

static bool same_window(const struct fz_window *a, const struct fz_window *b) {
  return a->from_step == b->from_step && a->from_epoch == b->from_epoch && a->until_step == b->until_step &&
         a->until_epoch == b->until_epoch;
}

static size_t room(const fz_layers *layers, size_t most) {
  const size_t fit = MASK_BYTES_MAX / ((layers->words + 1) * sizeof(uint64_t));
  return fit < most ? fit : most;
}

/* Takes the items out for which `keep` is false. */
static size_t filter(struct fz_decisions *decisions, const bool *keep) {
  size_t n = 0;
  for (size_t i = 0; i < decisions->n; i++)
    if (keep[i])
      decisions->items[n++] = decisions->items[i];
    else
      fz_decision_unref(decisions->items[i]);
  const size_t gone = decisions->n - n;
  decisions->n = n;
  return gone;
}

size_t fz_layers_expire(fz_layers *layers, uint64_t step, uint64_t epoch) {
  struct fz_decisions *overrides = &layers->overrides;
  size_t n = 0;
  for (size_t i = 0; i < overrides->n; i++)
    if (fz_window_phase(&overrides->items[i]->override.window, step, epoch) == FZ_PHASE_OVER)
      fz_decision_unref(overrides->items[i]);
    else
      overrides->items[n++] = overrides->items[i];
  const size_t gone = overrides->n - n;
  overrides->n = n;
  return gone;
}

/* Makes room by dropping overrides that can never decide again: newer ones without an end hold all that they hold. */
static int drop_covered(fz_layers *layers, uint64_t step, uint64_t epoch) {
  struct fz_decisions *overrides = &layers->overrides;
  __attribute__((cleanup(free_words))) uint64_t *held = fz_layers_new_mask(layers);
  bool *keep = (bool *)calloc(overrides->n + 1, sizeof(*keep));
  if (held && keep) {
    for (size_t i = overrides->n; i-- > 0;) {
      const struct fz_override *override = &overrides->items[i]->override;
      const struct fz_window *window = &override->window;
      keep[i] = !covers(held, override->mask, layers->words);
      if (fz_window_active(window, step, epoch) && window->until_step == FZ_TIME_NEVER &&
          window->until_epoch == FZ_TIME_NEVER)
        for (size_t w = 0; w < layers->words; w++)
          held[w] |= override->mask[w];
    }
    (void)filter(overrides, keep);
  }
  const int r = held && keep ? 0 : -ENOMEM;
  free(keep);
  return r;
}

/* What stands against setting the flags `values` of the parameters `mask` now. */
static int count_obstacles(const fz_layers *layers, const uint64_t *mask, const uint64_t *values, uint64_t step,
                           uint64_t epoch, uint64_t *ret_free, struct fz_change_counts *ret_counts) {
  const uint64_t *baseline = fz_params_baseline(layers->params);
  __attribute__((cleanup(free_words))) uint64_t *pinned = fz_layers_new_mask(layers);
  __attribute__((cleanup(free_words))) uint64_t *flags = fz_layers_new_mask(layers);
  __attribute__((cleanup(free_words))) uint64_t *against = fz_layers_new_mask(layers);
  if (!pinned || !flags || !against)
    return -ENOMEM;
  const int r = fz_layers_eval(layers, step, epoch, flags, NULL);
  if (r)
    return r;
  fz_layers_pinned(layers, pinned);
  uint64_t *thawed = flags;
  for (size_t w = 0; w < layers->words; w++) {
    against[w] = mask[w] & pinned[w] & (values[w] ^ flags[w]);
    ret_free[w] = mask[w] & ~pinned[w];
    thawed[w] = ret_free[w] & values[w] & ~baseline[w] & ~flags[w];
  }
  *ret_counts = (struct fz_change_counts){ .matched = fz_mask_count(mask, layers->n),
                                           .pinned = fz_mask_count(against, layers->n),
                                           .baseline = fz_mask_count(thawed, layers->n),
                                           .baseline_elements = fz_mask_elements(layers->params, thawed) };
  if (ret_counts->pinned > 0) {
    ret_counts->pinned_first = fz_mask_next(against, layers->n, 0);
    (void)fz_layers_pin_of(layers, ret_counts->pinned_first, &ret_counts->pinned_by);
  }
  return 0;
}

/* Whether the newest override that holds any of these parameters is this very one. */
static bool is_repeated(const fz_layers *layers, const struct fz_override_request *request, uint64_t step,
                        uint64_t epoch) {
  for (size_t i = layers->overrides.n; i-- > 0;) {
    const struct fz_override *override = fz_layers_override(layers, i);
    if (fz_window_phase(&override->window, step, epoch) == FZ_PHASE_OVER ||
        !intersects(override->mask, request->mask, layers->words))
      continue;
    return override->action == request->action && same_window(&override->window, &request->window) &&
           memcmp(override->mask, request->mask, layers->words * sizeof(uint64_t)) == 0;
  }
  return false;
}

/* Puts a new decision, which is consumed and has the next id, at the end of a list. */
static int append(fz_layers *layers, struct fz_decisions *list, struct fz_decision *decision) {
  const int r = fz_decisions_append(list, decision);
  if (r)
    fz_decision_unref(decision);
  else
    layers->next_id++;
  return r;
}

static int append_override(fz_layers *layers, const struct fz_override_request *request) {
  const struct fz_decision_parts parts = { .patterns = request->patterns,
                                           .n_patterns = request->n_patterns,
                                           .dropped = request->dropped,
                                           .n_dropped = request->n_dropped,
                                           .mask = request->mask,
                                           .n_params = layers->n,
                                           .who = request->who,
                                           .reason = request->reason };
  struct fz_decision *decision;
  int r = fz_decision_new(&parts, &decision);
  if (r)
    return r;
  decision->override.action = request->action;
  decision->override.window = request->window;
  decision->override.time_ms = request->time_ms;
  decision->override.id = layers->next_id;
  return append(layers, &layers->overrides, decision);
}

int fz_layers_add_override(fz_layers *layers, const struct fz_override_request *request, uint64_t step, uint64_t epoch,
                           struct fz_change_counts *ret_counts) {
  __attribute__((cleanup(free_words))) uint64_t *values = fz_layers_new_mask(layers);
  __attribute__((cleanup(free_words))) uint64_t *unpinned = fz_layers_new_mask(layers);
  struct fz_change_counts counts;
  if (!values || !unpinned)
    return -ENOMEM;
  fz_mask_fill(values, layers->n, request->action == FZ_TRAIN);
  int r = count_obstacles(layers, request->mask, values, step, epoch, unpinned, &counts);
  if (r)
    return r;
  if (request->restored)
    r = 0;
  else if (counts.pinned > 0 && fz_mask_next(unpinned, layers->n, 0) == layers->n)
    r = FZ_CHANGE_PINNED;
  else if (is_repeated(layers, request, step, epoch))
    r = FZ_CHANGE_NOTHING;
  else if (counts.baseline > 0 && !request->include_baseline)
    r = FZ_CHANGE_BASELINE;
  if (!r) {
    if (layers->overrides.n >= room(layers, FZ_OVERRIDES_MAX)) {
      (void)fz_layers_expire(layers, step, epoch);
      r = drop_covered(layers, step, epoch);
    }
    if (!r)
      r = layers->overrides.n >= room(layers, FZ_OVERRIDES_MAX) ? FZ_CHANGE_FULL : append_override(layers, request);
  }
  if (r >= 0 && ret_counts)
    *ret_counts = counts;
  return r;
}

/* The decision without what `mask` selects. */
static int cut(const fz_layers *layers, const struct fz_decision *old, const char *const *patterns, size_t n_patterns,
               const uint64_t *mask, struct fz_decision **ret_new) {
  __attribute__((cleanup(free_words))) uint64_t *left = fz_layers_new_mask(layers);
  if (!left)
    return -ENOMEM;
  for (size_t w = 0; w < layers->words; w++)
    left[w] = old->mask[w] & ~mask[w];
  const struct fz_decision_parts parts = {
    .patterns = (const char *const *)old->patterns,
    .n_patterns = old->n_patterns,
    .dropped = (const char *const *)old->dropped,
    .n_dropped = old->n_dropped,
    .dropped_more = patterns,
    .n_dropped_more = n_patterns,
    .mask = left,
    .values = old->values,
    .n_params = layers->n,
    .who = old->values ? old->pin.who : old->override.who,
    .reason = old->reason,
  };
  const int r = fz_decision_new(&parts, ret_new);
  if (r)
    return r;
  struct fz_override *override = &(*ret_new)->override;
  struct fz_pin *pin = &(*ret_new)->pin;
  override->id = old->override.id;
  override->action = old->override.action;
  override->window = old->override.window;
  override->gen = old->override.gen;
  override->time_ms = old->override.time_ms;
  pin->id = old->pin.id;
  pin->value = old->pin.value;
  pin->gen = old->pin.gen;
  pin->time_ms = old->pin.time_ms;
  return 0;
}

/*
 * Takes what `mask` selects out of every decision. Builds the new list aside, so that a failure leaves the old one.
 */
static int cut_all(const fz_layers *layers, struct fz_decisions *decisions, const char *const *patterns,
                   size_t n_patterns, const uint64_t *mask, size_t *ret_dropped) {
  struct fz_decisions kept = { .items = NULL };
  size_t dropped = 0;
  int r = 0;
  for (size_t i = 0; !r && i < decisions->n; i++) {
    struct fz_decision *decision = decisions->items[i];
    if (!intersects(decision->mask, mask, layers->words))
      decision->references++;
    else {
      dropped++;
      if (covers(mask, decision->mask, layers->words))
        continue;
      r = decision->n_dropped + n_patterns > FZ_PATTERNS_MAX
            ? FZ_CHANGE_FULL
            : cut(layers, decisions->items[i], patterns, n_patterns, mask, &decision);
    }
    if (!r) {
      r = fz_decisions_append(&kept, decision);
      if (r)
        fz_decision_unref(decision);
    }
  }
  if (!r && dropped == 0)
    r = FZ_CHANGE_NO_SUCH;
  if (r) {
    fz_decisions_deinit(&kept);
    return r;
  }
  fz_decisions_deinit(decisions);
  *decisions = kept;
  *ret_dropped = dropped;
  return 0;
}

int fz_layers_drop_overrides(fz_layers *layers, const char *const *patterns, size_t n_patterns, const uint64_t *mask,
                             struct fz_change_counts *ret_counts) {
  struct fz_change_counts counts = { .matched = fz_mask_count(mask, layers->n) };
  const int r = cut_all(layers, &layers->overrides, patterns, n_patterns, mask, &counts.dropped);
  if (r >= 0 && ret_counts)
    *ret_counts = counts;
  return r;
}

static void free_texts(char **texts) {
  for (size_t i = 0; texts[i]; i++)
    free(texts[i]);
  free(texts);
}

/*
 * Selectors of what a request asked for and did not get, NULL-terminated: they are noted as dropped, so that the pin
 * reaches no further when its patterns are resolved again (after a restart of freezerd) and what stood in its way is
 * gone. FZ_CHANGE_FULL: too many to note.
 */
static int name_refused(const fz_layers *layers, const uint64_t *asked, const uint64_t *got, char ***ret_names,
                        size_t *ret_n) {
  size_t refused = 0, n = 0;
  for (size_t w = 0; w < layers->words; w++)
    refused += (size_t)__builtin_popcountll(asked[w] & ~got[w]);
  if (refused > FZ_PATTERNS_MAX)
    return FZ_CHANGE_FULL;
  char **names = (char **)calloc(refused + 1, sizeof(*names));
  if (!names)
    return -ENOMEM;
  for (size_t i = fz_mask_next(asked, layers->n, 0); i < layers->n; i = fz_mask_next(asked, layers->n, i + 1)) {
    if (fz_mask_get(got, i))
      continue;
    names[n] = fz_format("name:%s", fz_params_get(layers->params, i)->name);
    if (!names[n]) {
      free_texts(names);
      return -ENOMEM;
    }
    n++;
  }
  *ret_names = names;
  *ret_n = n;
  return 0;
}

static int append_pin(fz_layers *layers, const struct fz_pin_request *request, const uint64_t *mask,
                      const uint64_t *values) {
  char **refused = NULL;
  size_t n_refused = 0;
  int r = name_refused(layers, request->mask, mask, &refused, &n_refused);
  if (r)
    return r;
  const struct fz_decision_parts parts = { .patterns = request->patterns,
                                           .n_patterns = request->n_patterns,
                                           .dropped = request->dropped,
                                           .n_dropped = request->n_dropped,
                                           .dropped_more = (const char *const *)refused,
                                           .n_dropped_more = n_refused,
                                           .mask = mask,
                                           .values = values,
                                           .n_params = layers->n,
                                           .who = request->who,
                                           .reason = request->reason };
  struct fz_decision *decision;
  r = fz_decision_new(&parts, &decision);
  free_texts(refused);
  if (r)
    return r;
  decision->pin.value = request->value;
  decision->pin.time_ms = request->time_ms;
  decision->pin.id = layers->next_id;
  return append(layers, &layers->pins, decision);
}

/* What of `mask` neither a pin of a user nor the trainer holds. Rules may go, and what they pin is under them only. */
static void left_by_pins(const fz_layers *layers, const uint64_t *mask, uint64_t *ret_left) {
  for (size_t w = 0; w < layers->words; w++) {
    uint64_t held = layers->trainer->mask[w];
    for (size_t i = 0; i < layers->pins.n; i++)
      held |= layers->pins.items[i]->mask[w];
    ret_left[w] = mask[w] & ~held;
  }
}

int fz_layers_add_pin(fz_layers *layers, const struct fz_pin_request *request, uint64_t step, uint64_t epoch,
                      struct fz_change_counts *ret_counts) {
  __attribute__((cleanup(free_words))) uint64_t *values = fz_layers_new_mask(layers);
  __attribute__((cleanup(free_words))) uint64_t *unpinned = fz_layers_new_mask(layers);
  struct fz_change_counts counts;
  int r = values && unpinned ? 0 : -ENOMEM;
  if (!r && request->value == FZ_PIN_AS_IS)
    r = fz_layers_eval(layers, step, epoch, values, NULL);
  else if (!r)
    fz_mask_fill(values, layers->n, request->value == FZ_PIN_TRAINING);
  if (!r)
    r = count_obstacles(layers, request->mask, values, step, epoch, unpinned, &counts);
  if (r)
    return r;
  if (!request->restored && fz_mask_next(unpinned, layers->n, 0) == layers->n)
    r = counts.pinned > 0 ? FZ_CHANGE_PINNED : FZ_CHANGE_NOTHING;
  else if (!request->restored && counts.baseline > 0 && !request->include_baseline)
    r = FZ_CHANGE_BASELINE;
  else if (layers->pins.n >= room(layers, FZ_PINS_MAX))
    r = FZ_CHANGE_FULL;
  else {
    left_by_pins(layers, request->mask, unpinned);
    r = fz_mask_next(unpinned, layers->n, 0) == layers->n ? FZ_CHANGE_NOTHING
                                                          : append_pin(layers, request, unpinned, values);
  }
  if (r >= 0 && ret_counts)
    *ret_counts = counts;
  return r;
}

int fz_layers_drop_pins(fz_layers *layers, const char *const *patterns, size_t n_patterns, const uint64_t *mask,
                        struct fz_change_counts *ret_counts) {
  struct fz_change_counts counts = { .matched = fz_mask_count(mask, layers->n) };
  const int r = cut_all(layers, &layers->pins, patterns, n_patterns, mask, &counts.dropped);
  /* What is pinned still cannot be unpinned from here. */
  for (size_t i = fz_mask_next(mask, layers->n, 0); r >= 0 && i < layers->n; i = fz_mask_next(mask, layers->n, i + 1)) {
    struct fz_cause cause;
    if (!fz_layers_pin_of(layers, i, &cause) || cause.pin_by == FZ_PIN_BY_USER)
      continue;
    if (counts.pinned++ == 0) {
      counts.pinned_first = i;
      counts.pinned_by = cause;
    }
  }
  if (r >= 0 && ret_counts)
    *ret_counts = counts;
  return r;
}

/* The number of transitions so far, at a batch at (step, epoch). */
static int edge_at(const fz_layers *layers, uint64_t step, uint64_t epoch, uint32_t *ret_edge) {
  struct fz_lighter_state *state = NULL;
  const int r = fz_layers_state(layers, step, epoch, &state);
  if (!r)
    *ret_edge = fz_layers_edge(layers, state, step, epoch);
  fz_lighter_unref(state);
  return r;
}

int fz_layers_set_rules(fz_layers *layers, fz_rules *rules, uint64_t step, uint64_t epoch) {
  struct fz_lighter_state *base = NULL;
  uint32_t edge = 0;
  if (fz_ruleset_equal(layers->rules ? fz_rules_ruleset(layers->rules) : NULL, rules ? fz_rules_ruleset(rules) : NULL))
    return FZ_CHANGE_NOTHING;
  int r = edge_at(layers, step, epoch, &edge);
  if (!r && rules && fz_ruleset_profile(fz_rules_ruleset(rules)) == FZ_PROFILE_LIGHTER)
    r = fz_lighter_start(rules, fz_params_baseline(layers->params), edge, &base);
  if (r)
    return r;
  fz_lighter_unref(layers->base);
  fz_lighter_unref(layers->anchored);
  fz_rules_unref(layers->rules);
  layers->base = base;
  layers->anchored = NULL;
  layers->edge = edge;
  layers->rules = rules ? fz_rules_ref(rules) : NULL;
  return 0;
}

static bool same_decision(const struct fz_decision *a, const struct fz_decision *b, size_t words) {
  const size_t bytes = words * sizeof(uint64_t);
  const struct fz_window *x = &a->override.window, *y = &b->override.window;
  if (memcmp(a->mask, b->mask, bytes) != 0 || a->override.action != b->override.action ||
      x->from_step != y->from_step || x->from_epoch != y->from_epoch || x->until_step != y->until_step ||
      x->until_epoch != y->until_epoch)
    return false;
  return !a->values || !b->values ? a->values == b->values : memcmp(a->values, b->values, bytes) == 0;
}

static bool same_decisions(const struct fz_decisions *a, const struct fz_decisions *b, size_t words) {
  bool same = a->n == b->n;
  for (size_t i = 0; same && i < a->n; i++)
    same = same_decision(a->items[i], b->items[i], words);
  return same;
}

int fz_layers_adopt(fz_layers *layers, const fz_layers *from, uint64_t step, uint64_t epoch) {
  struct fz_decisions overrides = { .items = NULL }, pins = { .items = NULL };
  const bool same = same_decisions(&layers->overrides, &from->overrides, layers->words) &&
                    same_decisions(&layers->pins, &from->pins, layers->words);
  int r = fz_decisions_copy(&from->overrides, &overrides);
  if (!r)
    r = fz_decisions_copy(&from->pins, &pins);
  if (!r)
    r = fz_layers_set_rules(layers, from->rules, step, epoch);
  if (r < 0 || (same && r == FZ_CHANGE_NOTHING)) {
    fz_decisions_deinit(&overrides);
    fz_decisions_deinit(&pins);
    return r;
  }
  fz_decisions_deinit(&layers->overrides);
  fz_decisions_deinit(&layers->pins);
  layers->overrides = overrides;
  layers->pins = pins;
  if (from->next_id > layers->next_id)
    layers->next_id = from->next_id;
  return 0;
}

void fz_layers_published(fz_layers *layers, uint64_t gen) {
  for (size_t i = 0; i < layers->overrides.n; i++)
    if (layers->overrides.items[i]->override.gen == 0)
      layers->overrides.items[i]->override.gen = gen;
  for (size_t i = 0; i < layers->pins.n; i++)
    if (layers->pins.items[i]->pin.gen == 0)
      layers->pins.items[i]->pin.gen = gen;
}

int fz_layers_anchor(fz_layers *layers, uint64_t step, uint64_t epoch) {
  if (!layers->base || layers->anchored)
    return 0;
  return fz_lighter_batch(layers->base, layers->rules, step, epoch, &layers->anchored);
}

int fz_layers_rewind(fz_layers *layers, uint64_t step, uint64_t epoch) {
  struct fz_lighter_state *base;
  if (!layers->anchored)
    return 0;
  /* A batch at a point that the callbacks have come to already leaves just what closed form says of it. */
  const int r = fz_lighter_batch(layers->anchored, layers->rules, step, epoch, &base);
  if (r)
    return r;
  fz_lighter_unref(layers->base);
  fz_lighter_unref(layers->anchored);
  layers->base = base;
  layers->anchored = NULL;
  return 0;
}

int fz_layers_restart(fz_layers *layers) {
  struct fz_lighter_state *base = NULL;
  if (layers->base) {
    const int r = fz_lighter_start(layers->rules, fz_params_baseline(layers->params), 0, &base);
    if (r)
      return r;
  }
  fz_lighter_unref(layers->base);
  fz_lighter_unref(layers->anchored);
  layers->base = base;
  layers->anchored = NULL;
  layers->edge = 0;
  return 0;
}
