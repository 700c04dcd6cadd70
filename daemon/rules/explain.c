/* explain.c - why a parameter is frozen or trains. */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/rules/boundaries.h"
#include "daemon/rules/explain.h"
#include "daemon/rules/selector_internal.h"
#include "daemon/rules/words.h"
#include "protocol/mask.h"

/* One explanation being made. */
struct explainer {
  const fz_layers *layers;
  const struct fz_lighter_state *state;
  size_t index;
  uint64_t step, epoch;
  fz_explanation *explanation;
};

static void state_unref(struct fz_lighter_state **state) { fz_lighter_unref(*state); }

void fz_explanation_deinit(fz_explanation *explanation) {
  for (size_t i = 0; i < explanation->n_lines; i++)
    free(explanation->lines[i].text);
  free(explanation->lines);
  free(explanation->next);
  free(explanation->to_change);
  free(explanation->to_change_text);
  *explanation = (fz_explanation)FZ_EXPLANATION_NULL;
}

static int add_line(struct explainer *explainer, enum fz_layer layer, uint64_t time_ms, bool decides, fz_strbuf *text) {
  fz_explanation *explanation = explainer->explanation;
  char *taken = fz_strbuf_take(text);
  void *lines = realloc(explanation->lines, (explanation->n_lines + 1) * sizeof(*explanation->lines));
  if (lines)
    explanation->lines = (struct fz_explain_line *)lines;
  if (!lines || !taken) {
    free(taken);
    return -ENOMEM;
  }
  explanation->lines[explanation->n_lines++] =
    (struct fz_explain_line){ .layer = layer, .text = taken, .time_ms = time_ms, .decides = decides };
  return 0;
}

static bool decides(const struct explainer *explainer, enum fz_layer layer, size_t index) {
  const struct fz_cause *cause = &explainer->explanation->cause;
  return cause->layer == layer && (layer == FZ_LAYER_BASELINE || cause->index == index);
}

static const char *flag_word(bool trains) { return trains ? "trains" : "frozen"; }

static int explain_baseline(struct explainer *explainer) {
  fz_strbuf text = FZ_STRBUF_NULL;
  fz_strbuf_addf(&text, "%s", flag_word(fz_mask_get(fz_params_baseline(explainer->layers->params), explainer->index)));
  return add_line(explainer, FZ_LAYER_BASELINE, 0, decides(explainer, FZ_LAYER_BASELINE, 0), &text);
}

/* A lighter callback has its say by its transitions, which write every parameter. */
static int explain_callback(struct explainer *explainer, size_t i, const struct fz_rule *rule) {
  const bool selects = fz_mask_get(fz_rules_mask(explainer->layers->rules, i), explainer->index);
  const size_t writer =
    fz_lighter_at(explainer->state, explainer->layers->rules, explainer->step, explainer->epoch).writer;
  fz_strbuf text = FZ_STRBUF_NULL;
  if (!selects && writer != i)
    return 0;
  fz_words_rule(&text, rule);
  fz_strbuf_addf(&text, selects ? ": freezes it" : ": does not select it");
  fz_words_window(&text, &rule->window, explainer->step, explainer->epoch);
  if (writer == i)
    fz_strbuf_addf(&text, "; made the last transition, which writes every parameter");
  return add_line(explainer, FZ_LAYER_RULE, 0, decides(explainer, FZ_LAYER_RULE, i), &text);
}

static int explain_rules(struct explainer *explainer) {
  const fz_layers *layers = explainer->layers;
  const fz_ruleset *ruleset = layers->rules ? fz_rules_ruleset(layers->rules) : NULL;
  const size_t lines = explainer->explanation->n_lines;
  fz_strbuf text = FZ_STRBUF_NULL;
  int r = 0;
  for (size_t i = 0; !r && ruleset && i < fz_ruleset_count(ruleset); i++) {
    const struct fz_rule *rule = fz_ruleset_get(ruleset, i);
    if (explainer->state)
      r = explain_callback(explainer, i, rule);
    else if (fz_mask_get(fz_rules_mask(layers->rules, i), explainer->index)) {
      fz_words_rule(&text, rule);
      fz_strbuf_addf(&text, ": %s", fz_action_name(rule->action));
      fz_words_window(&text, &rule->window, explainer->step, explainer->epoch);
      r = add_line(explainer, FZ_LAYER_RULE, 0, decides(explainer, FZ_LAYER_RULE, i), &text);
    }
  }
  if (r || explainer->explanation->n_lines > lines)
    return r;
  fz_strbuf_addf(&text, ruleset ? "none selects it" : "none are loaded");
  return add_line(explainer, FZ_LAYER_RULE, 0, false, &text);
}

static void add_reason(fz_strbuf *text, const char *reason) {
  if (reason && reason[0])
    fz_strbuf_addf(text, ", \"%s\"", reason);
}

static int explain_overrides(struct explainer *explainer) {
  const fz_layers *layers = explainer->layers;
  const size_t lines = explainer->explanation->n_lines;
  fz_strbuf text = FZ_STRBUF_NULL;
  int r = 0;
  for (size_t i = 0; !r && i < layers->overrides.n; i++) {
    const struct fz_override *override = fz_layers_override(layers, i);
    if (!fz_mask_get(override->mask, explainer->index))
      continue;
    fz_strbuf_addf(&text, "%s ", override->action == FZ_TRAIN ? "unfreeze" : "freeze");
    fz_words_patterns(&text, override->patterns, override->n_patterns);
    fz_strbuf_addf(&text, ", ");
    fz_words_who(&text, &override->who);
    add_reason(&text, override->reason);
    fz_words_window(&text, &override->window, explainer->step, explainer->epoch);
    r = add_line(explainer, FZ_LAYER_OVERRIDE, override->time_ms, decides(explainer, FZ_LAYER_OVERRIDE, i), &text);
  }
  if (r || explainer->explanation->n_lines > lines)
    return r;
  fz_strbuf_addf(&text, "none");
  return add_line(explainer, FZ_LAYER_OVERRIDE, 0, false, &text);
}

static const char *refusal(const fz_layers *layers, size_t index) {
  const struct fz_param *param = fz_params_get(layers->params, index);
  return param->may_freeze ? param->may_freeze : param->may_train ? param->may_train : "";
}

static int explain_pin(struct explainer *explainer) {
  const fz_layers *layers = explainer->layers;
  struct fz_cause cause;
  fz_strbuf text = FZ_STRBUF_NULL;
  uint64_t time_ms = 0;
  const bool pinned = fz_layers_pin_of(layers, explainer->index, &cause);
  if (!pinned)
    fz_strbuf_addf(&text, "none");
  else
    switch (cause.pin_by) {
    case FZ_PIN_BY_TRAINER:
      fz_strbuf_addf(&text, "by the trainer: %s", refusal(layers, explainer->index));
      break;
    case FZ_PIN_BY_RULES:
      fz_strbuf_addf(&text, "by the rules, as it was at the start");
      break;
    case FZ_PIN_BY_USER: {
      const struct fz_pin *pin = fz_layers_pin(layers, cause.index);
      fz_strbuf_addf(&text, "%s, ", fz_mask_get(pin->values, explainer->index) ? "training" : "frozen");
      fz_words_who(&text, &pin->who);
      add_reason(&text, pin->reason);
      time_ms = pin->time_ms;
      break;
    }
    }
  return add_line(explainer, FZ_LAYER_PIN, time_ms, pinned, &text);
}

/* What begins or ends where the cause of a parameter turns from one into another. */
static void add_turn(fz_strbuf *text, const fz_layers *layers, const struct fz_cause *before,
                     const struct fz_cause *after) {
  const bool higher = after->layer > before->layer || (after->layer == before->layer && after->index > before->index);
  const struct fz_cause *mover = higher ? after : before;
  const fz_ruleset *ruleset = layers->rules ? fz_rules_ruleset(layers->rules) : NULL;
  switch (mover->layer) {
  case FZ_LAYER_RULE:
    /* A lighter callback that moves at all moves by its release. */
    fz_words_rule(text, fz_ruleset_get(ruleset, layers->base ? after->index : mover->index));
    fz_strbuf_addf(text, higher && !layers->base ? " begins" : " ends");
    break;
  case FZ_LAYER_OVERRIDE:
    fz_strbuf_addf(text, "the override of %s %s", fz_layers_override(layers, mover->index)->who.user,
                   higher ? "begins" : "ends");
    break;
  case FZ_LAYER_BASELINE:
  case FZ_LAYER_PIN:
    fz_strbuf_addf(text, "it changes");
    break;
  }
}

char *fz_explain_turn(const fz_layers *layers, size_t index, uint64_t old_step, uint64_t old_epoch, uint64_t step,
                      uint64_t epoch) {
  __attribute__((cleanup(state_unref))) struct fz_lighter_state *state = NULL;
  struct fz_cause before = { .layer = FZ_LAYER_BASELINE }, after = { .layer = FZ_LAYER_BASELINE };
  fz_strbuf text = FZ_STRBUF_NULL;

  if (fz_layers_state(layers, old_step, old_epoch, &state) < 0)
    return NULL;
  (void)fz_layers_flag(layers, state, old_step, old_epoch, index, &before);
  (void)fz_layers_flag(layers, state, step, epoch, index, &after);
  add_turn(&text, layers, &before, &after);
  return fz_strbuf_take(&text);
}

/* The first point of one axis at which this parameter's flag is another one. */
static uint64_t find_flip(const struct explainer *explainer, const struct fz_axis *axis, bool is_step,
                          struct fz_cause *ret_cause) {
  for (size_t i = 1; i < axis->n; i++)
    if (fz_layers_flag(explainer->layers, explainer->state, is_step ? axis->points[i] : explainer->step,
                       is_step ? explainer->epoch : axis->points[i], explainer->index,
                       ret_cause) != explainer->explanation->trains)
      return axis->points[i];
  return FZ_TIME_NEVER;
}

static int explain_next(struct explainer *explainer) {
  fz_explanation *explanation = explainer->explanation;
  struct fz_boundaries ahead = FZ_BOUNDARIES_NULL;
  struct fz_cause by_step = { .layer = FZ_LAYER_BASELINE }, by_epoch = { .layer = FZ_LAYER_BASELINE };
  fz_strbuf text = FZ_STRBUF_NULL;
  const char *then = explanation->trains ? "it is frozen" : "it trains";
  const int r = fz_boundaries_find(explainer->layers, explainer->state, explainer->step, explainer->epoch, &ahead);
  if (r)
    return r;
  explanation->next_step = find_flip(explainer, &ahead.steps, true, &by_step);
  explanation->next_epoch = find_flip(explainer, &ahead.epochs, false, &by_epoch);
  fz_boundaries_deinit(&ahead);
  if (explanation->next_step != FZ_TIME_NEVER) {
    fz_words_time(&text, explanation->next_step, FZ_TIME_NEVER, FZ_TIME_NEVER, "");
    fz_strbuf_addf(&text, ": ");
    add_turn(&text, explainer->layers, &explanation->cause, &by_step);
    fz_strbuf_addf(&text, ", %s", then);
  }
  if (explanation->next_epoch != FZ_TIME_NEVER) {
    fz_strbuf_addf(&text, explanation->next_step != FZ_TIME_NEVER ? "; or before that at " : "");
    fz_words_time(&text, FZ_TIME_NEVER, explanation->next_epoch, FZ_TIME_NEVER, "");
    fz_strbuf_addf(&text, ": ");
    add_turn(&text, explainer->layers, &explanation->cause, &by_epoch);
    fz_strbuf_addf(&text, ", %s", then);
  }
  if (explanation->next_step == FZ_TIME_NEVER && explanation->next_epoch == FZ_TIME_NEVER)
    fz_strbuf_addf(&text, "nothing scheduled");
  explanation->next = fz_strbuf_take(&text);
  return explanation->next ? 0 : -ENOMEM;
}

/* The parameter as a pattern that a command takes. */
static void add_pattern(fz_strbuf *text, const char *name) {
  fz_strbuf pattern = FZ_STRBUF_NULL;
  const bool bare = fz_selector_is_bare(name, strlen(name)) && strncmp(name, "re:", 3) != 0 &&
                    strncmp(name, "name:", 5) != 0 && strncmp(name, "prefix:", 7) != 0 && name[0] != '!' &&
                    name[0] != '-';
  fz_strbuf_addf(&pattern, "%s%s", bare ? "" : "name:", name);
  if (pattern.failed)
    text->failed = true;
  else
    fz_words_shell(text, pattern.data);
  fz_strbuf_deinit(&pattern);
}

/* What the flag would be without overrides, or without user pins. */
static int flag_without(const struct explainer *explainer, bool overrides, bool *ret_trains) {
  fz_layers *clone;
  struct fz_cause cause;
  const int r = fz_layers_clone(explainer->layers, &clone);
  if (r)
    return r;
  fz_decisions_deinit(overrides ? &clone->overrides : &clone->pins);
  *ret_trains = fz_layers_flag(clone, explainer->state, explainer->step, explainer->epoch, explainer->index, &cause);
  fz_layers_free(clone);
  return 0;
}

static void add_auto(const struct explainer *explainer, fz_strbuf *command) {
  const struct fz_override *override = fz_layers_override(explainer->layers, explainer->explanation->cause.index);
  fz_strbuf_addf(command, "freezerctl auto ");
  if (override->n_patterns == 1 && override->n_dropped == 0)
    fz_words_shell(command, override->patterns[0]);
  else
    add_pattern(command, fz_params_get(explainer->layers->params, explainer->index)->name);
}

static int explain_change(struct explainer *explainer) {
  const fz_layers *layers = explainer->layers;
  fz_explanation *explanation = explainer->explanation;
  const char *name = fz_params_get(layers->params, explainer->index)->name;
  fz_strbuf command = FZ_STRBUF_NULL, effect = FZ_STRBUF_NULL;
  bool has_command = true, trains = !explanation->trains;
  int r = 0;
  switch (explanation->cause.layer) {
  case FZ_LAYER_BASELINE:
  case FZ_LAYER_RULE:
    fz_strbuf_addf(&command, "freezerctl %s ", trains ? "unfreeze" : "freeze");
    add_pattern(&command, name);
    if (trains && !fz_mask_get(fz_params_baseline(layers->params), explainer->index))
      fz_strbuf_addf(&command, " --force --include-baseline");
    break;
  case FZ_LAYER_OVERRIDE:
    add_auto(explainer, &command);
    r = flag_without(explainer, true, &trains);
    break;
  case FZ_LAYER_PIN:
    has_command = explanation->cause.pin_by == FZ_PIN_BY_USER;
    fz_strbuf_addf(&command, "freezerctl unpin ");
    add_pattern(&command, name);
    r = flag_without(explainer, false, &trains);
    break;
  }
  if (has_command)
    fz_strbuf_addf(&effect, "it would %s%s", trains == explanation->trains ? "still " : "",
                   trains ? "train" : "be frozen");
  else if (explanation->cause.pin_by == FZ_PIN_BY_RULES)
    fz_strbuf_addf(&effect, "take it out of 'pin' in the rules and load them again");
  else
    fz_strbuf_addf(&effect, "the trainer refuses it (%s): that is changed in its script",
                   refusal(layers, explainer->index));
  explanation->to_change = has_command ? fz_strbuf_take(&command) : NULL;
  fz_strbuf_deinit(&command);
  explanation->to_change_text = fz_strbuf_take(&effect);
  return r ? r : (has_command && !explanation->to_change) || !explanation->to_change_text ? -ENOMEM : 0;
}

int fz_explain(const fz_layers *layers, size_t index, uint64_t step, uint64_t epoch, fz_explanation *explanation) {
  __attribute__((cleanup(state_unref))) struct fz_lighter_state *state = NULL;
  static int (*const parts[])(struct explainer *) = { explain_baseline, explain_rules, explain_overrides,
                                                      explain_pin,      explain_next,  explain_change };
  fz_explanation made = FZ_EXPLANATION_NULL;
  int r = fz_layers_state(layers, step, epoch, &state);
  if (r)
    return r;
  struct explainer explainer = {
    .layers = layers, .state = state, .index = index, .step = step, .epoch = epoch, .explanation = &made
  };
  made.param = index;
  made.trains = fz_layers_flag(layers, state, step, epoch, index, &made.cause);
  for (size_t i = 0; !r && i < sizeof(parts) / sizeof(*parts); i++)
    r = parts[i](&explainer);
  if (r)
    fz_explanation_deinit(&made);
  else
    *explanation = made;
  return r;
}

char *fz_cause_text(const fz_layers *layers, const struct fz_cause *cause, size_t param) {
  fz_strbuf text = FZ_STRBUF_NULL;
  switch (cause->layer) {
  case FZ_LAYER_BASELINE:
    fz_strbuf_addf(&text, "baseline");
    break;
  case FZ_LAYER_RULE: {
    const struct fz_rule *rule = fz_ruleset_get(fz_rules_ruleset(layers->rules), cause->index);
    fz_words_rule(&text, rule);
    fz_words_until(&text, &rule->window);
    break;
  }
  case FZ_LAYER_OVERRIDE: {
    const struct fz_override *override = fz_layers_override(layers, cause->index);
    fz_strbuf_addf(&text, "override%s%s", override->who.user[0] ? " " : "", override->who.user);
    fz_words_until(&text, &override->window);
    if (override->reason && override->reason[0])
      fz_strbuf_addf(&text, ": %s", override->reason);
    break;
  }
  case FZ_LAYER_PIN:
    if (cause->pin_by == FZ_PIN_BY_TRAINER)
      fz_strbuf_addf(&text, "pin trainer: %s", refusal(layers, param));
    else if (cause->pin_by == FZ_PIN_BY_RULES)
      fz_strbuf_addf(&text, "pin");
    else
      fz_strbuf_addf(&text, "pin %s", fz_layers_pin(layers, cause->index)->who.user);
    break;
  }
  return fz_strbuf_take(&text);
}

/* The first point of one axis at which the mask is another one. */
static uint64_t find_mask_flip(const struct explainer *explainer, const struct fz_axis *axis, bool is_step,
                               const uint64_t *now, uint64_t *then) {
  const fz_layers *layers = explainer->layers;
  for (size_t i = 1; i < axis->n; i++) {
    fz_layers_eval_with(layers, explainer->state, is_step ? axis->points[i] : explainer->step,
                        is_step ? explainer->epoch : axis->points[i], then, NULL);
    if (memcmp(now, then, layers->words * sizeof(*now)) != 0)
      return axis->points[i];
  }
  return FZ_TIME_NEVER;
}

/* "model.embed_positions trains", of one direction of a flip; `which` is overwritten. */
static int add_flip(const fz_layers *layers, fz_strbuf *text, uint64_t *which, const uint64_t *now,
                    const uint64_t *then, bool trains) {
  for (size_t w = 0; w < layers->words; w++)
    which[w] = trains ? then[w] & ~now[w] : now[w] & ~then[w];
  const size_t n = fz_mask_count(which, layers->n);
  if (n == 0)
    return 0;
  char *names = fz_mask_describe(layers->params, which, 3);
  if (!names)
    return -ENOMEM;
  const bool one = !strstr(names, ", ") && !strstr(names, " and ") && !strstr(names, "..");
  fz_strbuf_addf(text, ", %s %s", names, trains ? (one ? "trains" : "train") : (one ? "is frozen" : "are frozen"));
  free(names);
  return 0;
}

/* What happens at a point at which the mask turns from `now` into `then`. */
static int flip_text(struct explainer *explainer, uint64_t step, uint64_t epoch, uint64_t *now, uint64_t *then,
                     char **ret_text) {
  const fz_layers *layers = explainer->layers;
  struct fz_cause before, after;
  fz_strbuf text = FZ_STRBUF_NULL;
  uint64_t *which = fz_layers_new_mask(layers);
  if (!which)
    return -ENOMEM;
  for (size_t w = 0; w < layers->words; w++)
    which[w] = now[w] ^ then[w];
  const size_t first = fz_mask_next(which, layers->n, 0);
  (void)fz_layers_flag(layers, explainer->state, explainer->step, explainer->epoch, first, &before);
  (void)fz_layers_flag(layers, explainer->state, step, epoch, first, &after);
  add_turn(&text, layers, &before, &after);
  int r = add_flip(layers, &text, which, now, then, true);
  if (!r)
    r = add_flip(layers, &text, which, now, then, false);
  free(which);
  if (r)
    fz_strbuf_deinit(&text);
  else if (!(*ret_text = fz_strbuf_take(&text)))
    r = -ENOMEM;
  return r;
}

int fz_layers_upcoming(const fz_layers *layers, uint64_t step, uint64_t epoch, struct fz_upcoming *ret_upcoming) {
  __attribute__((cleanup(state_unref))) struct fz_lighter_state *state = NULL;
  __attribute__((cleanup(fz_boundaries_deinit))) struct fz_boundaries ahead = FZ_BOUNDARIES_NULL;
  struct fz_upcoming upcoming = { .step = FZ_TIME_NEVER, .epoch = FZ_TIME_NEVER };
  int r = fz_layers_state(layers, step, epoch, &state);
  if (!r)
    r = fz_boundaries_find(layers, state, step, epoch, &ahead);
  uint64_t *now = r ? NULL : fz_layers_new_mask(layers);
  uint64_t *then = r ? NULL : fz_layers_new_mask(layers);
  if (now && then) {
    struct explainer explainer = { .layers = layers, .state = state, .step = step, .epoch = epoch };
    fz_layers_eval_with(layers, state, step, epoch, now, NULL);
    upcoming.epoch = find_mask_flip(&explainer, &ahead.epochs, false, now, then);
    if (upcoming.epoch != FZ_TIME_NEVER)
      r = flip_text(&explainer, step, upcoming.epoch, now, then, &upcoming.text);
    upcoming.step = r ? FZ_TIME_NEVER : find_mask_flip(&explainer, &ahead.steps, true, now, then);
    if (upcoming.step != FZ_TIME_NEVER) {
      free(upcoming.text);
      upcoming.text = NULL;
      r = flip_text(&explainer, upcoming.step, epoch, now, then, &upcoming.text);
    }
  } else if (!r)
    r = -ENOMEM;
  free(now);
  free(then);
  if (!r)
    *ret_upcoming = upcoming;
  return r;
}
