/* check_rules_layers.c - changes to layers: overrides, pins, what stands against them, clones, lighter's state. */
#include "config.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/rules/explain.h"
#include "daemon/rules/layers.h"
#include "daemon/rules/planner.h"
#include "daemon/rules/report.h"
#include "protocol/mask.h"
#include "tests/rules_help.h"
#include "tests/runner.h"

#define NAMES "m.0.w=1 m.0.b=1 m.1.w=1 m.1.b=1 head=1 old=0 int=1!NOT_FLOAT lone=0!NOT_CONTROLLABLE"
#define N 8

static fz_params *params;
static fz_layers *layers;

static void setup(void) {
  params = help_params(NAMES);
  ck_assert_int_eq(fz_layers_new(&layers, params), 0);
}

static void teardown(void) {
  layers = fz_layers_free(layers);
  params = fz_params_unref(params);
}

static const char *mask_at(uint64_t step, uint64_t epoch) {
  uint64_t mask[1];
  ck_assert_int_eq(fz_layers_eval(layers, step, epoch, mask, NULL), 0);
  return help_mask(mask, N);
}

static uint32_t edge_at(uint64_t step, uint64_t epoch) {
  uint64_t mask[1];
  uint32_t edge;
  ck_assert_int_eq(fz_layers_eval(layers, step, epoch, mask, &edge), 0);
  return edge;
}

static int override_at(enum fz_action action, const char *pattern, struct fz_window window, bool include_baseline,
                       uint64_t step, struct fz_change_counts *counts) {
  uint64_t *mask = help_select(params, pattern);
  const struct fz_override_request request = { .action = action,
                                               .patterns = &pattern,
                                               .n_patterns = 1,
                                               .mask = mask,
                                               .window = window,
                                               .include_baseline = include_baseline,
                                               .time_ms = 5,
                                               .who = { .uid = 1000, .user = "ana", .host = "gpu07" },
                                               .reason = "plateau" };
  const int r = fz_layers_add_override(layers, &request, step, 0, counts);
  free(mask);
  return r;
}

static int freeze(const char *pattern) {
  return override_at(FZ_FREEZE, pattern, (struct fz_window)FZ_WINDOW_ALWAYS, false, 0, NULL);
}

static int unfreeze(const char *pattern) {
  return override_at(FZ_TRAIN, pattern, (struct fz_window)FZ_WINDOW_ALWAYS, false, 0, NULL);
}

static int drop(const char *pattern, struct fz_change_counts *counts) {
  uint64_t *mask = help_select(params, pattern);
  const int r = fz_layers_drop_overrides(layers, &pattern, 1, mask, counts);
  free(mask);
  return r;
}

static int pin_as(const char *pattern, enum fz_pin_value value, struct fz_change_counts *counts) {
  uint64_t *mask = help_select(params, pattern);
  const struct fz_pin_request request = {
    .value = value, .patterns = &pattern, .n_patterns = 1, .mask = mask, .who = { .uid = 7, .user = "ben" }
  };
  const int r = fz_layers_add_pin(layers, &request, 0, 0, counts);
  free(mask);
  return r;
}

static int unpin(const char *pattern, struct fz_change_counts *counts) {
  uint64_t *mask = help_select(params, pattern);
  const int r = fz_layers_drop_pins(layers, &pattern, 1, mask, counts);
  free(mask);
  return r;
}

static void load(const char *text) {
  fz_rules *rules = help_rules(params, text);
  ck_assert_int_eq(fz_layers_set_rules(layers, rules, 0, 0), 0);
  fz_rules_unref(rules);
}

START_TEST(newest_override_wins)
{
  ck_assert_str_eq(mask_at(0, 0), "11111010");
  ck_assert_int_eq(freeze("m"), 0);
  ck_assert_str_eq(mask_at(0, 0), "00001010");
  ck_assert_int_eq(unfreeze("m.0"), 0);
  ck_assert_str_eq(mask_at(0, 0), "11001010");
  ck_assert_int_eq(freeze("m.0.w"), 0);
  ck_assert_str_eq(mask_at(0, 0), "01001010");
  ck_assert_uint_eq(fz_layers_n_overrides(layers), 3);
  const struct fz_override *override = fz_layers_override(layers, 2);
  ck_assert_str_eq(override->patterns[0], "m.0.w");
  ck_assert_str_eq(override->who.user, "ana");
  ck_assert_str_eq(override->reason, "plateau");
  ck_assert_uint_eq(override->gen, 0);
  fz_layers_published(layers, 9);
  ck_assert_uint_eq(fz_layers_override(layers, 2)->gen, 9);
}
END_TEST

START_TEST(nothing_to_do)
{
  const struct fz_window other = { .until_step = 50, .until_epoch = FZ_TIME_NEVER };
  ck_assert_int_eq(freeze("m.0"), 0);
  ck_assert_int_eq(freeze("m.0"), FZ_CHANGE_NOTHING);
  /* By another pattern for the same parameters, too. */
  ck_assert_int_eq(freeze("prefix:m.0."), FZ_CHANGE_NOTHING);
  ck_assert_int_eq(override_at(FZ_FREEZE, "m.0", other, false, 0, NULL), 0);
  ck_assert_int_eq(override_at(FZ_FREEZE, "m.0", other, false, 0, NULL), FZ_CHANGE_NOTHING);
  /* When that one is over, the one below decides again. */
  ck_assert_int_eq(override_at(FZ_FREEZE, "m.0", (struct fz_window)FZ_WINDOW_ALWAYS, false, 50, NULL),
                   FZ_CHANGE_NOTHING);
  /* An override that a newer one has cut into is not the newest any more. */
  ck_assert_int_eq(unfreeze("m.0.w"), 0);
  ck_assert_int_eq(freeze("m.0"), 0);
  /* Frozen already by a rule is a change all the same. */
  load("{'rules':[{'freeze':'head'}]}");
  ck_assert_int_eq(freeze("head"), 0);
}
END_TEST

START_TEST(auto_cuts_and_drops)
{
  struct fz_change_counts counts;
  ck_assert_int_eq(freeze("m"), 0);
  ck_assert_int_eq(freeze("m.1"), 0);
  ck_assert_int_eq(drop("m.1", &counts), 0);
  ck_assert_uint_eq(counts.dropped, 2);
  ck_assert_uint_eq(counts.matched, 2);
  ck_assert_str_eq(mask_at(0, 0), "00111010");
  ck_assert_uint_eq(fz_layers_n_overrides(layers), 1);
  const struct fz_override *override = fz_layers_override(layers, 0);
  ck_assert_uint_eq(override->matches, 2);
  ck_assert_uint_eq(override->n_dropped, 1);
  ck_assert_str_eq(override->dropped[0], "m.1");
  ck_assert_str_eq(override->patterns[0], "m");
  ck_assert_str_eq(override->reason, "plateau");
  ck_assert_uint_eq(override->time_ms, 5);
  ck_assert_int_eq(drop("m.1", &counts), FZ_CHANGE_NO_SUCH);
  ck_assert_int_eq(drop("**", &counts), 0);
  ck_assert_uint_eq(fz_layers_n_overrides(layers), 0);
  ck_assert_str_eq(mask_at(0, 0), "11111010");
}
END_TEST

START_TEST(overrides_end_and_expire)
{
  const struct fz_window steps = { .from_step = 10, .until_step = 20, .until_epoch = FZ_TIME_NEVER };
  const struct fz_window epochs = { .until_step = FZ_TIME_NEVER, .until_epoch = 2 };
  ck_assert_int_eq(override_at(FZ_FREEZE, "head", steps, false, 0, NULL), 0);
  ck_assert_int_eq(override_at(FZ_FREEZE, "m.0", epochs, false, 0, NULL), 0);
  ck_assert_str_eq(mask_at(9, 0), "00111010");
  ck_assert_str_eq(mask_at(10, 1), "00110010");
  ck_assert_str_eq(mask_at(19, 2), "11110010");
  ck_assert_str_eq(mask_at(20, 2), "11111010");
  ck_assert_uint_eq(fz_layers_expire(layers, 19, 1), 0);
  ck_assert_uint_eq(fz_layers_expire(layers, 20, 1), 1);
  ck_assert_uint_eq(fz_layers_n_overrides(layers), 1);
  ck_assert_uint_eq(fz_layers_expire(layers, 20, 2), 1);
}
END_TEST

START_TEST(baseline_is_thawed_on_purpose_only)
{
  struct fz_change_counts counts;
  const struct fz_window always = FZ_WINDOW_ALWAYS;
  ck_assert_int_eq(override_at(FZ_TRAIN, "**", always, false, 0, &counts), FZ_CHANGE_BASELINE);
  ck_assert_uint_eq(counts.baseline, 1);
  ck_assert_uint_eq(counts.pinned, 1);
  ck_assert_uint_eq(fz_layers_n_overrides(layers), 0);
  ck_assert_int_eq(override_at(FZ_TRAIN, "old", always, true, 0, &counts), 0);
  ck_assert_str_eq(mask_at(0, 0), "11111110");
  /* It trains by now: another unfreeze is no thaw of the baseline. */
  ck_assert_int_eq(unfreeze("**"), 0);
  ck_assert_int_eq(freeze("old"), 0);
  ck_assert_int_eq(unfreeze("old"), FZ_CHANGE_BASELINE);
}
END_TEST

START_TEST(the_trainer_pins)
{
  struct fz_change_counts counts;
  const struct fz_window always = FZ_WINDOW_ALWAYS;
  ck_assert_int_eq(override_at(FZ_FREEZE, "int", always, false, 0, &counts), FZ_CHANGE_PINNED);
  ck_assert_uint_eq(counts.pinned, 1);
  ck_assert_uint_eq(counts.pinned_first, 6);
  ck_assert_int_eq(counts.pinned_by.pin_by, FZ_PIN_BY_TRAINER);
  ck_assert_int_eq(override_at(FZ_TRAIN, "lone", always, true, 0, &counts), FZ_CHANGE_PINNED);
  /* Among others they are left out, and counted. */
  ck_assert_int_eq(override_at(FZ_FREEZE, "**", always, false, 0, &counts), 0);
  ck_assert_uint_eq(counts.pinned, 1);
  ck_assert_str_eq(mask_at(0, 0), "00000010");
  load("{'rules':[{'freeze':'int'},{'train':'lone'}]}");
  ck_assert_str_eq(mask_at(0, 0), "00000010");
  ck_assert_int_eq(unpin("int", &counts), FZ_CHANGE_NO_SUCH);
  ck_assert_uint_eq(counts.pinned, 1);
}
END_TEST

START_TEST(user_pins)
{
  struct fz_change_counts counts;
  ck_assert_int_eq(freeze("m.0.w"), 0);
  ck_assert_int_eq(pin_as("m.0", FZ_PIN_AS_IS, &counts), 0);
  ck_assert_uint_eq(counts.matched, 2);
  ck_assert_int_eq(unfreeze("m.0.w"), FZ_CHANGE_PINNED);
  ck_assert_int_eq(drop("m.0.w", NULL), 0);
  ck_assert_str_eq(mask_at(0, 0), "01111010");
  ck_assert_int_eq(override_at(FZ_FREEZE, "m", (struct fz_window)FZ_WINDOW_ALWAYS, false, 0, &counts), 0);
  ck_assert_uint_eq(counts.pinned, 1);
  ck_assert_uint_eq(counts.pinned_first, 1);
  ck_assert_int_eq(counts.pinned_by.pin_by, FZ_PIN_BY_USER);
  ck_assert_str_eq(fz_layers_pin(layers, counts.pinned_by.index)->who.user, "ben");
  ck_assert_str_eq(mask_at(0, 0), "01001010");
  ck_assert_int_eq(pin_as("m.0.b", FZ_PIN_TRAINING, &counts), FZ_CHANGE_NOTHING);
  ck_assert_int_eq(pin_as("m.0", FZ_PIN_FROZEN, &counts), FZ_CHANGE_PINNED);
  ck_assert_int_eq(pin_as("old", FZ_PIN_TRAINING, &counts), FZ_CHANGE_BASELINE);
  ck_assert_int_eq(pin_as("head", FZ_PIN_FROZEN, &counts), 0);
  ck_assert_str_eq(mask_at(0, 0), "01000010");
  ck_assert_int_eq(unpin("m.0.b", &counts), 0);
  ck_assert_uint_eq(counts.dropped, 1);
  ck_assert_str_eq(mask_at(0, 0), "00000010");
  ck_assert_uint_eq(fz_layers_pin(layers, 0)->matches, 1);
  ck_assert_int_eq(unpin("**", &counts), 0);
  ck_assert_uint_eq(fz_layers_n_pins(layers), 0);
}
END_TEST

/* What a restart does with a pin: its patterns are resolved again, less what is noted as dropped. */
START_TEST(a_pin_that_got_only_a_part_stays_one)
{
  ck_assert_int_eq(pin_as("m.0.b", FZ_PIN_FROZEN, NULL), 0);
  ck_assert_int_eq(pin_as("m.0", FZ_PIN_TRAINING, NULL), 0);
  const struct fz_pin *pin = fz_layers_pin(layers, 1);
  ck_assert_uint_eq(pin->matches, 1);
  ck_assert_uint_eq(pin->n_dropped, 1);
  ck_assert_str_eq(pin->dropped[0], "name:m.0.b");
}
END_TEST

START_TEST(the_rules_pin)
{
  struct fz_change_counts counts;
  ck_assert_int_eq(freeze("head"), 0);
  load("{'pin':['head','old'],'rules':[{'freeze':'**'},{'train':'old'}]}");
  /* At the baseline, whatever else says. */
  ck_assert_str_eq(mask_at(0, 0), "00001010");
  ck_assert_int_eq(override_at(FZ_FREEZE, "head", (struct fz_window)FZ_WINDOW_ALWAYS, false, 0, &counts),
                   FZ_CHANGE_PINNED);
  ck_assert_int_eq(counts.pinned_by.pin_by, FZ_PIN_BY_RULES);
}
END_TEST

START_TEST(a_clone_is_its_own)
{
  fz_layers *clone;
  ck_assert_int_eq(freeze("m.0"), 0);
  ck_assert_int_eq(pin_as("head", FZ_PIN_AS_IS, NULL), 0);
  ck_assert_int_eq(fz_layers_clone(layers, &clone), 0);
  ck_assert_int_eq(drop("m.0", NULL), 0);
  ck_assert_int_eq(unpin("head", NULL), 0);
  ck_assert_int_eq(freeze("head"), 0);
  uint64_t mask[1];
  ck_assert_int_eq(fz_layers_eval(clone, 0, 0, mask, NULL), 0);
  ck_assert_str_eq(help_mask(mask, N), "00111010");
  ck_assert_str_eq(mask_at(0, 0), "11110010");
  ck_assert_uint_eq(fz_layers_n_pins(clone), 1);
  fz_layers_free(clone);
}
END_TEST

static fz_layers *snapshot(void) {
  fz_layers *clone;
  ck_assert_int_eq(fz_layers_clone(layers, &clone), 0);
  return clone;
}

/* There, back, and to where it is: rules, overrides and pins all go, and what was adopted from is not needed any more. */
START_TEST(adopting_decisions)
{
  fz_layers *start = snapshot();
  load("{'rules':[{'freeze':['m.1.w']}]}");
  ck_assert_int_eq(freeze("m.0"), 0);
  ck_assert_int_eq(pin_as("head", FZ_PIN_FROZEN, NULL), 0);
  fz_layers *later = snapshot();
  ck_assert_str_eq(mask_at(0, 0), "00010010");
  ck_assert_int_eq(fz_layers_adopt(layers, later, 0, 0), FZ_CHANGE_NOTHING);

  ck_assert_int_eq(fz_layers_adopt(layers, start, 0, 0), 0);
  ck_assert_str_eq(mask_at(0, 0), "11111010");
  ck_assert_ptr_null(fz_layers_rules(layers));
  ck_assert_uint_eq(fz_layers_n_overrides(layers) + fz_layers_n_pins(layers), 0);
  ck_assert_int_eq(fz_layers_adopt(layers, start, 0, 0), FZ_CHANGE_NOTHING);

  ck_assert_int_eq(fz_layers_adopt(layers, later, 0, 0), 0);
  fz_layers_free(later);
  fz_layers_free(start);
  ck_assert_str_eq(mask_at(0, 0), "00010010");
  ck_assert_int_eq(unfreeze("head"), FZ_CHANGE_PINNED);
  ck_assert_int_eq(unpin("head", NULL), 0);
  ck_assert_int_eq(drop("m.0", NULL), 0);
  ck_assert_str_eq(mask_at(0, 0), "11011010");
}
END_TEST

/* One of the three differs: that is no nothing. */
START_TEST(adopting_one_that_differs)
{
  fz_layers *start = snapshot();
  ck_assert_int_eq(pin_as("head", FZ_PIN_AS_IS, NULL), 0);
  ck_assert_int_eq(fz_layers_adopt(layers, start, 0, 0), 0);
  ck_assert_uint_eq(fz_layers_n_pins(layers), 0);
  ck_assert_int_eq(freeze("m.0"), 0);
  ck_assert_int_eq(fz_layers_adopt(layers, start, 0, 0), 0);
  ck_assert_uint_eq(fz_layers_n_overrides(layers), 0);
  load("{'rules':[{'freeze':['m.0']}]}");
  ck_assert_int_eq(fz_layers_adopt(layers, start, 0, 0), 0);
  ck_assert_str_eq(mask_at(0, 0), "11111010");
  fz_layers_free(start);
}
END_TEST

/* An id names one decision, whichever layers it came from. */
START_TEST(adopted_ids_are_not_used_twice)
{
  fz_layers *start = snapshot();
  ck_assert_int_eq(freeze("m.0"), 0);
  ck_assert_int_eq(freeze("m.1"), 0);
  fz_layers *later = snapshot();
  ck_assert_int_eq(fz_layers_adopt(start, later, 0, 0), 0);
  fz_layers_free(layers);
  layers = start;
  ck_assert_int_eq(freeze("head"), 0);
  const uint64_t newest = fz_layers_override(layers, 2)->id;
  for (size_t i = 0; i < 2; i++)
    ck_assert_uint_lt(fz_layers_override(layers, i)->id, newest);
  fz_layers_free(later);
}
END_TEST

/* The rules stay the same, so what lighter has done stays done: no edge, no second pass. */
START_TEST(adopting_keeps_lighters_state)
{
  load("{'profile':'lighter','rules':[{'names':'head','until_step':10}]}");
  ck_assert_int_eq(fz_layers_anchor(layers, 0, 0), 0);
  fz_layers *start = snapshot();
  ck_assert_int_eq(freeze("m.0"), 0);
  ck_assert_uint_eq(edge_at(12, 0), 2);
  ck_assert_int_eq(fz_layers_adopt(layers, start, 12, 0), 0);
  ck_assert_uint_eq(edge_at(12, 0), 2);
  ck_assert_str_eq(mask_at(12, 0), "11111110");
  fz_layers_free(start);
}
END_TEST

/* Somebody toggles for days: what can never decide again makes room. */
START_TEST(toggling_for_ever)
{
  for (unsigned i = 0; i < 3 * FZ_OVERRIDES_MAX; i++)
    ck_assert_int_eq(i % 2 ? unfreeze("m.0") : freeze("m.0"), 0);
  ck_assert_str_eq(mask_at(0, 0), "11111010");
  const struct fz_window window = { .until_step = FZ_TIME_NEVER - 1, .until_epoch = FZ_TIME_NEVER };
  ck_assert_int_eq(drop("**", NULL), 0);
  /* Ones with an end each can all come back, so there the limit is a limit. */
  for (unsigned i = 0; i < FZ_OVERRIDES_MAX; i++)
    ck_assert_int_eq(override_at(i % 2 ? FZ_TRAIN : FZ_FREEZE, "m.0", window, false, 0, NULL), 0);
  ck_assert_int_eq(override_at(FZ_FREEZE, "m.0", window, false, 0, NULL), FZ_CHANGE_FULL);
  ck_assert_uint_eq(fz_layers_n_overrides(layers), FZ_OVERRIDES_MAX);
}
END_TEST

START_TEST(equal_rules_are_nothing)
{
  load("{'rules':[{'freeze':'m.0'}]}");
  fz_rules *same = help_rules(params, "{'rules':[{'freeze':['m.0']}],'version':1}");
  ck_assert_int_eq(fz_layers_set_rules(layers, same, 0, 0), FZ_CHANGE_NOTHING);
  fz_rules_unref(same);
  ck_assert_int_eq(fz_layers_set_rules(layers, NULL, 0, 0), 0);
  ck_assert_int_eq(fz_layers_set_rules(layers, NULL, 0, 0), FZ_CHANGE_NOTHING);
  ck_assert_str_eq(mask_at(0, 0), "11111010");
}
END_TEST

/* --- lighter below overrides and pins, and its edges --- */

START_TEST(lighter_edges)
{
  load("{'profile':'lighter','rules':[{'names':'head','until_step':10}]}");
  /* Without an anchor every point is one: what is tried again later plans again. */
  ck_assert_str_eq(mask_at(9, 0), "11110110");
  ck_assert_str_eq(mask_at(10, 0), "11111010");
  ck_assert_uint_eq(edge_at(10, 0), 0);
  ck_assert_int_eq(fz_layers_anchor(layers, 5, 0), 0);
  ck_assert_uint_eq(edge_at(5, 0), 1);
  ck_assert_uint_eq(edge_at(10, 0), 2);
  ck_assert_str_eq(mask_at(10, 0), "11111110");
  ck_assert_int_eq(fz_layers_anchor(layers, 10, 0), 0);
  ck_assert_uint_eq(edge_at(5, 0), 1);
  /* Overrides and pins lie above, and are no edges; auto shows lighter's mask again. */
  ck_assert_int_eq(freeze("m.1"), 0);
  ck_assert_int_eq(unfreeze("head"), 0);
  ck_assert_str_eq(mask_at(5, 0), "11001110");
  ck_assert_uint_eq(edge_at(5, 0), 1);
  ck_assert_int_eq(drop("**", NULL), 0);
  ck_assert_str_eq(mask_at(5, 0), "11110110");
  /* Other rules carry the count on, so that a later transition is a new edge for certain. */
  ck_assert_int_eq(fz_layers_set_rules(layers, NULL, 12, 0), 0);
  ck_assert_uint_eq(edge_at(12, 0), 2);
  ck_assert_str_eq(mask_at(12, 0), "11111010");
  load("{'profile':'lighter','rules':[{'names':'m.0.w'}]}");
  ck_assert_uint_eq(edge_at(13, 0), 3);
  /* New processes begin at zero. */
  ck_assert_int_eq(fz_layers_restart(layers), 0);
  ck_assert_uint_eq(edge_at(0, 0), 1);
}
END_TEST

START_TEST(lighter_state_through_a_rewind)
{
  load("{'profile':'lighter','rules':[{'names':'head','until_step':10}]}");
  ck_assert_int_eq(fz_layers_anchor(layers, 0, 0), 0);
  /* Back before the release: still frozen, no new pass. */
  ck_assert_int_eq(fz_layers_rewind(layers, 7, 0), 0);
  ck_assert_str_eq(mask_at(3, 0), "11110110");
  ck_assert_uint_eq(edge_at(3, 0), 1);
  ck_assert_int_eq(fz_layers_anchor(layers, 3, 0), 0);
  /* After it: it freezes again. */
  ck_assert_int_eq(fz_layers_rewind(layers, 12, 0), 0);
  ck_assert_uint_eq(edge_at(12, 0), 2);
  ck_assert_uint_eq(edge_at(4, 0), 3);
  ck_assert_str_eq(mask_at(4, 0), "11110110");
  /* A new launch that begins beyond the limit is never touched: the baseline, zeros and all. */
  ck_assert_int_eq(fz_layers_restart(layers), 0);
  ck_assert_str_eq(mask_at(12, 0), "11111010");
}
END_TEST

START_TEST(lighter_plan_keeps_its_anchor)
{
  fz_plan plan = FZ_PLAN_NULL;
  load("{'profile':'lighter','rules':[{'names':'head','until_step':10}]}");
  ck_assert_int_eq(fz_layers_plan(layers, 0, 0, 16, 16, &plan), 0);
  ck_assert_uint_eq(plan.n_rows, 2);
  ck_assert_uint_eq(plan.rows[0].edge, 1);
  ck_assert_uint_eq(plan.rows[1].edge, 2);
  /* Published too late, tried again from step 10: nothing freezes any more. */
  ck_assert_int_eq(fz_layers_plan(layers, 10, 0, 16, 16, &plan), 0);
  ck_assert_uint_eq(plan.n_rows, 1);
  ck_assert_uint_eq(plan.rows[0].edge, 0);
  /* Anchored at 0, an extension at 10 says what it would have said. */
  ck_assert_int_eq(fz_layers_anchor(layers, 0, 0), 0);
  ck_assert_int_eq(fz_layers_plan(layers, 10, 0, 16, 16, &plan), 0);
  ck_assert_uint_eq(plan.rows[0].edge, 2);
  ck_assert_str_eq(help_mask(fz_plan_mask(&plan, 0), N), "11111110");
  fz_plan_deinit(&plan);
}
END_TEST

/* --- sentences --- */

static const char *line(const fz_explanation *explanation, enum fz_layer layer, size_t nth) {
  for (size_t i = 0; i < explanation->n_lines; i++)
    if (explanation->lines[i].layer == layer && nth-- == 0)
      return explanation->lines[i].text;
  return "no such line";
}

static enum fz_layer decider(const fz_explanation *explanation) {
  size_t found = SIZE_MAX, n = 0;
  for (size_t i = 0; i < explanation->n_lines; i++)
    if (explanation->lines[i].decides) {
      found = i;
      n++;
    }
  ck_assert_uint_eq(n, 1);
  return explanation->lines[found].layer;
}

START_TEST(explanations)
{
  fz_explanation e = FZ_EXPLANATION_NULL;
  const struct fz_window until = { .until_step = 4640, .until_epoch = FZ_TIME_NEVER };
  load(
    "{'pin':'head','rules':[{'name':'positions','freeze':'m.0','until':{'step':9000}},{'train':'m.0.b','from':{'epoch':2}}]}");
  ck_assert_int_eq(fz_explain(layers, 0, 5, 0, &e), 0);
  ck_assert(!e.trains);
  ck_assert_int_eq(decider(&e), FZ_LAYER_RULE);
  ck_assert_str_eq(line(&e, FZ_LAYER_BASELINE, 0), "trains");
  ck_assert_str_eq(line(&e, FZ_LAYER_RULE, 0), "rule positions: freeze, until step 9,000");
  ck_assert_str_eq(line(&e, FZ_LAYER_OVERRIDE, 0), "none");
  ck_assert_str_eq(line(&e, FZ_LAYER_PIN, 0), "none");
  ck_assert_str_eq(e.next, "step 9,000: rule positions ends, it trains");
  ck_assert_uint_eq(e.next_step, 9000);
  ck_assert_str_eq(e.to_change, "freezerctl unfreeze m.0.w");
  ck_assert_str_eq(e.to_change_text, "it would train");
  fz_explanation_deinit(&e);

  ck_assert_int_eq(fz_explain(layers, 1, 5, 0, &e), 0);
  ck_assert_str_eq(line(&e, FZ_LAYER_RULE, 1), "rule 2: train, from epoch 2 (waits)");
  ck_assert_str_eq(e.next,
                   "step 9,000: rule positions ends, it trains; or before that at epoch 2: rule 2 begins, it trains");
  fz_explanation_deinit(&e);

  ck_assert_int_eq(override_at(FZ_FREEZE, "m.1", until, false, 0, NULL), 0);
  ck_assert_int_eq(fz_explain(layers, 2, 5, 0, &e), 0);
  ck_assert_int_eq(decider(&e), FZ_LAYER_OVERRIDE);
  ck_assert_str_eq(line(&e, FZ_LAYER_RULE, 0), "none selects it");
  ck_assert_str_eq(line(&e, FZ_LAYER_OVERRIDE, 0),
                   "freeze m.1, ana (uid 1000) on gpu07, \"plateau\", until step 4,640");
  ck_assert_str_eq(e.next, "step 4,640: the override of ana ends, it trains");
  ck_assert_str_eq(e.to_change, "freezerctl auto m.1");
  ck_assert_str_eq(e.to_change_text, "it would train");
  fz_explanation_deinit(&e);

  ck_assert_int_eq(fz_explain(layers, 4, 5, 0, &e), 0);
  ck_assert_int_eq(decider(&e), FZ_LAYER_PIN);
  ck_assert_ptr_null(e.to_change);
  ck_assert_str_eq(e.to_change_text, "take it out of 'pin' in the rules and load them again");
  ck_assert_str_eq(e.next, "nothing scheduled");
  fz_explanation_deinit(&e);

  ck_assert_int_eq(fz_explain(layers, 6, 5, 0, &e), 0);
  ck_assert_str_eq(line(&e, FZ_LAYER_PIN, 0), "by the trainer: NOT_FLOAT");
  ck_assert_ptr_null(e.to_change);
  fz_explanation_deinit(&e);

  ck_assert_int_eq(fz_explain(layers, 5, 5, 0, &e), 0);
  ck_assert_int_eq(decider(&e), FZ_LAYER_BASELINE);
  ck_assert_str_eq(e.to_change, "freezerctl unfreeze old --force --include-baseline");
  fz_explanation_deinit(&e);

  ck_assert_int_eq(pin_as("m.1.b", FZ_PIN_AS_IS, NULL), 0);
  ck_assert_int_eq(fz_explain(layers, 3, 5, 0, &e), 0);
  ck_assert_str_eq(line(&e, FZ_LAYER_PIN, 0), "frozen, ben (uid 7)");
  ck_assert_str_eq(e.to_change, "freezerctl unpin m.1.b");
  ck_assert_str_eq(e.to_change_text, "it would still be frozen");
  fz_explanation_deinit(&e);
}
END_TEST

START_TEST(explanations_of_lighter)
{
  fz_explanation e = FZ_EXPLANATION_NULL;
  load("{'profile':'lighter','rules':[{'name':'c','names':'head','until_step':10}]}");
  ck_assert_int_eq(fz_layers_anchor(layers, 0, 0), 0);
  ck_assert_int_eq(fz_explain(layers, 4, 5, 0, &e), 0);
  ck_assert_str_eq(line(&e, FZ_LAYER_RULE, 0),
                   "rule c: freezes it, until step 10; made the last transition, which writes every parameter");
  ck_assert_str_eq(e.next, "step 10: rule c ends, it trains");
  fz_explanation_deinit(&e);
  ck_assert_int_eq(fz_explain(layers, 5, 5, 0, &e), 0);
  ck_assert(e.trains);
  ck_assert_int_eq(decider(&e), FZ_LAYER_RULE);
  fz_explanation_deinit(&e);
}
END_TEST

START_TEST(causes_in_words)
{
  char *text;
  struct fz_cause cause;
  load("{'pin':'head','rules':[{'name':'positions','freeze':'m.0','until':{'step':9000}}]}");
  ck_assert_int_eq(freeze("m.1"), 0);
  static const struct {
    size_t index;
    const char *text;
  } expected[] = {
    { 0, "rule positions, until step 9,000" }, { 2, "override ana: plateau" },        { 4, "pin" }, { 5, "baseline" },
    { 6, "pin trainer: NOT_FLOAT" },           { 7, "pin trainer: NOT_CONTROLLABLE" }
  };
  for (size_t i = 0; i < sizeof(expected) / sizeof(*expected); i++) {
    ck_assert_int_eq(fz_layers_cause(layers, 0, 0, expected[i].index, &cause), 0);
    text = fz_cause_text(layers, &cause, expected[i].index);
    ck_assert_str_eq(text, expected[i].text);
    free(text);
  }
}
END_TEST

START_TEST(what_comes_next)
{
  struct fz_upcoming next;
  load("{'rules':[{'name':'positions','freeze':'m.0','until':{'step':9000}},{'freeze':'head','from':{'epoch':3}}]}");
  ck_assert_int_eq(fz_layers_upcoming(layers, 5, 0, &next), 0);
  ck_assert_uint_eq(next.step, 9000);
  ck_assert_uint_eq(next.epoch, 3);
  ck_assert_str_eq(next.text, "rule positions ends, m.0 trains");
  free(next.text);
  ck_assert_int_eq(fz_layers_upcoming(layers, 9000, 0, &next), 0);
  ck_assert_uint_eq(next.step, FZ_TIME_NEVER);
  ck_assert_str_eq(next.text, "rule 2 begins, head is frozen");
  free(next.text);
  ck_assert_int_eq(fz_layers_upcoming(layers, 9000, 3, &next), 0);
  ck_assert_ptr_null(next.text);
}
END_TEST

START_TEST(reports_of_rules)
{
  struct fz_rule_report *reports;
  size_t n;
  load("{'pin':'head','rules':[{'freeze':'m.0','until':{'step':10}},{'name':'all','freeze':'m'},{'freeze':'m.1.w'},"
       "{'train':'head'},{'name':'over','train':'m.1','until':{'step':3}},{'freeze':'zz'}]}");
  ck_assert_int_eq(fz_rules_report(layers, 5, 0, &reports, &n), 0);
  ck_assert_uint_eq(n, 6);
  ck_assert_uint_eq(reports[0].matches, 2);
  ck_assert_uint_eq(reports[0].deciding, 0);
  ck_assert_int_eq(reports[0].phase, FZ_PHASE_ACTIVE);
  ck_assert_str_eq(reports[0].shadowed, "by rule all");
  ck_assert_uint_eq(reports[1].deciding, 3);
  ck_assert_ptr_null(reports[1].shadowed);
  ck_assert_uint_eq(reports[2].deciding, 1);
  ck_assert_str_eq(reports[3].shadowed, "by pins");
  ck_assert(reports[4].dead && reports[4].phase == FZ_PHASE_OVER);
  ck_assert(reports[5].dead);
  fz_rule_reports_free(reports, n);
  ck_assert_int_eq(freeze("m.1"), 0);
  ck_assert_int_eq(fz_rules_report(layers, 5, 0, &reports, &n), 0);
  ck_assert_str_eq(reports[2].shadowed, "by an override of ana");
  fz_rule_reports_free(reports, n);
}
END_TEST

START_TEST(windows_in_words)
{
  static const struct {
    struct fz_window window;
    const char *text;
  } windows[] = {
    { FZ_WINDOW_ALWAYS, "always" },
    { { 0, 0, 9000, FZ_TIME_NEVER }, "[0, 9,000)" },
    { { 1200, 0, FZ_TIME_NEVER, FZ_TIME_NEVER }, "[1,200, -)" },
    { { 0, 2, 5000, FZ_TIME_NEVER }, "[epoch 2, step 5,000)" },
    { { 1, 2, 3, 4 }, "[step 1 and epoch 2, step 3 or epoch 4)" },
    { { 0, 0, FZ_TIME_NEVER, 7 }, "[0, epoch 7)" },
  };
  for (size_t i = 0; i < sizeof(windows) / sizeof(*windows); i++) {
    char *text = fz_window_text(&windows[i].window);
    ck_assert_str_eq(text, windows[i].text);
    free(text);
  }
}
END_TEST

START_TEST(sets_in_few_names)
{
  static const struct {
    const char *pattern, *text;
    size_t max;
  } sets[] = {
    { "model.layers.{0..2}", "model.layers.0..2", 4 },
    { "model.layers.{0,2}", "model.layers.0, model.layers.2", 4 },
    { "model.layers.{9..11}", "model.layers.9..11", 4 },
    { "model.layers.1.w", "model.layers.1.w", 4 },
    { "model.layers", "model.layers", 4 },
    { "**", "model, head, head-x", 4 },
    { "{model.embed,model.layers.{3..4},head}", "model.embed and 2 more", 1 },
    { "*.**.w", "model.embed, model.layers.0.w, model.layers.1.w and 11 more", 3 },
  };
  fz_params *gpt;
  ck_assert_int_eq(fz_params_new(&gpt), 0);
  ck_assert_int_eq(fz_params_add(gpt, "model.embed.w", 13, 1, true, NULL, NULL), 0);
  for (int i = 0; i < 12; i++)
    for (int k = 0; k < 2; k++) {
      char name[32];
      const int length = snprintf(name, sizeof(name), "model.layers.%d.%c", i, k ? 'b' : 'w');
      ck_assert_int_eq(fz_params_add(gpt, name, (size_t)length, 1, true, NULL, NULL), 0);
    }
  ck_assert_int_eq(fz_params_add(gpt, "model.norm.w", 12, 1, true, NULL, NULL), 0);
  ck_assert_int_eq(fz_params_add(gpt, "head", 4, 1, true, NULL, NULL), 0);
  ck_assert_int_eq(fz_params_add(gpt, "head-x", 6, 1, true, NULL, NULL), 0);
  ck_assert_int_eq(fz_params_seal(gpt, NULL), 0);
  for (size_t i = 0; i < sizeof(sets) / sizeof(*sets); i++) {
    uint64_t *mask = help_select(gpt, sets[i].pattern);
    char *text = fz_mask_describe(gpt, mask, sets[i].max);
    ck_assert_msg(strcmp(text, sets[i].text) == 0, "%s: %s", sets[i].pattern, text);
    free(text);
    free(mask);
  }
  fz_params_unref(gpt);
}
END_TEST

Suite *fz_suite(void) {
  const TTest *const changes[] = { newest_override_wins,
                                   nothing_to_do,
                                   auto_cuts_and_drops,
                                   overrides_end_and_expire,
                                   baseline_is_thawed_on_purpose_only,
                                   the_trainer_pins,
                                   user_pins,
                                   a_pin_that_got_only_a_part_stays_one,
                                   the_rules_pin,
                                   a_clone_is_its_own,
                                   toggling_for_ever,
                                   equal_rules_are_nothing,
                                   adopting_decisions,
                                   adopting_one_that_differs,
                                   adopted_ids_are_not_used_twice,
                                   adopting_keeps_lighters_state,
                                   lighter_edges,
                                   lighter_state_through_a_rewind,
                                   lighter_plan_keeps_its_anchor };
  const TTest *const words[] = { explanations,     explanations_of_lighter, causes_in_words,  what_comes_next,
                                 reports_of_rules, windows_in_words,        sets_in_few_names };
  Suite *suite = suite_create("rules: layers");
  TCase *change = tcase_create("changes"), *word = tcase_create("words");
  tcase_add_checked_fixture(change, setup, teardown);
  tcase_add_checked_fixture(word, setup, teardown);
  for (size_t i = 0; i < sizeof(changes) / sizeof(*changes); i++)
    tcase_add_test(change, changes[i]);
  for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++)
    tcase_add_test(word, words[i]);
  suite_add_tcase(suite, change);
  suite_add_tcase(suite, word);
  return suite;
}
