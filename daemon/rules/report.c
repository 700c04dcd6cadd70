/* report.c - what can be said of loaded rules. */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/rules/report.h"
#include "daemon/rules/words.h"
#include "protocol/mask.h"

static void state_unref(struct fz_lighter_state **state) { fz_lighter_unref(*state); }

/* Whether one window is active whenever another one is from (step, epoch) on. */
static bool outlasts(const struct fz_window *outer, const struct fz_window *inner, uint64_t step, uint64_t epoch) {
  return (outer->from_step <= inner->from_step || outer->from_step <= step) &&
         (outer->from_epoch <= inner->from_epoch || outer->from_epoch <= epoch) &&
         outer->until_step >= inner->until_step && outer->until_epoch >= inner->until_epoch;
}

static bool covers(const uint64_t *outer, const uint64_t *inner, size_t words) {
  for (size_t w = 0; w < words; w++)
    if (inner[w] & ~outer[w])
      return false;
  return true;
}

static void take(uint64_t *held, const uint64_t *mask, size_t words) {
  for (size_t w = 0; w < words; w++)
    held[w] |= mask[w];
}

/* What is above a rule, added up from the strongest down, until it holds all that the rule selects. */
static int find_shadow(const fz_layers *layers, size_t index, uint64_t step, uint64_t epoch, uint64_t *held,
                       char **ret_shadow) {
  const fz_ruleset *ruleset = fz_rules_ruleset(layers->rules);
  const struct fz_window *window = &fz_ruleset_get(ruleset, index)->window;
  const uint64_t *mask = fz_rules_mask(layers->rules, index);
  fz_strbuf text = FZ_STRBUF_NULL;
  fz_layers_pinned(layers, held);
  if (covers(held, mask, layers->words))
    fz_strbuf_addf(&text, "by pins");
  for (size_t i = layers->overrides.n; !text.length && i-- > 0;) {
    const struct fz_override *override = fz_layers_override(layers, i);
    if (!outlasts(&override->window, window, step, epoch))
      continue;
    take(held, override->mask, layers->words);
    if (covers(held, mask, layers->words))
      fz_strbuf_addf(&text, "by an override of %s", override->who.user);
  }
  for (size_t i = fz_ruleset_count(ruleset); !text.length && i-- > index + 1;) {
    const struct fz_rule *rule = fz_ruleset_get(ruleset, i);
    if (!outlasts(&rule->window, window, step, epoch))
      continue;
    const bool alone = covers(fz_rules_mask(layers->rules, i), mask, layers->words);
    take(held, fz_rules_mask(layers->rules, i), layers->words);
    if (!covers(held, mask, layers->words))
      continue;
    fz_strbuf_addf(&text, "by ");
    if (!alone)
      fz_strbuf_addf(&text, "all that is above it, last ");
    fz_words_rule(&text, rule);
  }
  if (!text.length)
    return 0;
  *ret_shadow = fz_strbuf_take(&text);
  return *ret_shadow ? 0 : -ENOMEM;
}

/* lighter's callbacks overwrite each other: as long as none is released, the last one to freeze has written all. */
static int find_lighter_shadow(const fz_layers *layers, const struct fz_lighter_state *state, size_t index,
                               uint64_t step, uint64_t epoch, char **ret_shadow) {
  const size_t writer = fz_lighter_at(state, layers->rules, step, epoch).writer;
  fz_strbuf text = FZ_STRBUF_NULL;
  if (writer == FZ_LIGHTER_NOBODY || writer == index)
    return 0;
  fz_strbuf_addf(&text, "by ");
  fz_words_rule(&text, fz_ruleset_get(fz_rules_ruleset(layers->rules), writer));
  *ret_shadow = fz_strbuf_take(&text);
  return *ret_shadow ? 0 : -ENOMEM;
}

static int report_rule(const fz_layers *layers, const struct fz_lighter_state *state, size_t index, uint64_t step,
                       uint64_t epoch, struct fz_rule_report *report) {
  const struct fz_rule *rule = fz_ruleset_get(fz_rules_ruleset(layers->rules), index);
  report->matches = fz_rules_matches(layers->rules, index);
  report->phase = fz_window_phase(&rule->window, step, epoch);
  report->dead = report->phase == FZ_PHASE_OVER || (report->matches == 0 && !state);
  if (report->dead || report->matches == 0)
    return 0;
  if (state)
    return find_lighter_shadow(layers, state, index, step, epoch, &report->shadowed);
  uint64_t *held = fz_layers_new_mask(layers);
  const int r = held ? find_shadow(layers, index, step, epoch, held, &report->shadowed) : -ENOMEM;
  free(held);
  return r;
}

int fz_rules_report(const fz_layers *layers, uint64_t step, uint64_t epoch, struct fz_rule_report **ret_reports,
                    size_t *ret_n) {
  __attribute__((cleanup(state_unref))) struct fz_lighter_state *state = NULL;
  const size_t n = layers->rules ? fz_ruleset_count(fz_rules_ruleset(layers->rules)) : 0;
  struct fz_rule_report *reports = (struct fz_rule_report *)calloc(n + 1, sizeof(*reports));
  struct fz_cause *causes = (struct fz_cause *)calloc(layers->n + 1, sizeof(*causes));
  int r = reports && causes ? fz_layers_state(layers, step, epoch, &state) : -ENOMEM;
  if (!r)
    r = fz_layers_causes(layers, step, epoch, causes);
  for (size_t i = 0; !r && i < layers->n; i++)
    if (causes[i].layer == FZ_LAYER_RULE)
      reports[causes[i].index].deciding++;
  for (size_t i = 0; !r && i < n; i++)
    r = report_rule(layers, state, i, step, epoch, &reports[i]);
  free(causes);
  if (r) {
    fz_rule_reports_free(reports, n);
    return r;
  }
  *ret_reports = reports;
  *ret_n = n;
  return 0;
}

void fz_rule_reports_free(struct fz_rule_report *reports, size_t n) {
  for (size_t i = 0; reports && i < n; i++)
    free(reports[i].shadowed);
  free(reports);
}

char *fz_window_text(const struct fz_window *window) {
  fz_strbuf text = FZ_STRBUF_NULL;
  const bool begins = window->from_step > 0 || window->from_epoch > 0;
  const bool ends = window->until_step != FZ_TIME_NEVER || window->until_epoch != FZ_TIME_NEVER;
  if (!begins && !ends)
    return fz_format("always");
  /* Steps alone, the usual case, are numbers without a word. */
  const bool epochs = window->from_epoch > 0 || window->until_epoch != FZ_TIME_NEVER;
  fz_strbuf_addf(&text, "[");
  if (!begins)
    fz_strbuf_addf(&text, "0");
  else if (epochs)
    fz_words_time(&text, window->from_step, window->from_epoch, 0, "and");
  else
    fz_strbuf_add_number(&text, window->from_step);
  fz_strbuf_addf(&text, ", ");
  if (!ends)
    fz_strbuf_addf(&text, "-");
  else if (epochs)
    fz_words_time(&text, window->until_step, window->until_epoch, FZ_TIME_NEVER, "or");
  else
    fz_strbuf_add_number(&text, window->until_step);
  fz_strbuf_addf(&text, ")");
  return fz_strbuf_take(&text);
}
