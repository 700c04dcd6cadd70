/* check_rules_planner.c - plans against a brute-force evaluator: random rules, overrides, pins, windows and budgets. */
#include "config.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/rules/layers.h"
#include "daemon/rules/planner.h"
#include "protocol/mask.h"
#include "tests/rules_help.h"
#include "tests/runner.h"

#define N_MAX 70
#define MOST 8

/* The evaluator: what a parameter's flag is, straight from the words of the design, without masks or plans. */
struct decision {
  enum fz_action action;
  bool holds[N_MAX];
  struct fz_window window;
};

struct world {
  size_t n;
  bool baseline[N_MAX];
  bool refused[N_MAX]; /* by the trainer */
  struct decision rules[MOST], overrides[MOST];
  size_t n_rules, n_overrides;
  bool rules_pin[N_MAX];
  bool user_pin[N_MAX], user_value[N_MAX];
  fz_params *params;
  fz_layers *layers;
};

static bool is_in(const struct fz_window *window, uint64_t step, uint64_t epoch) {
  if (step < window->from_step || epoch < window->from_epoch)
    return false;
  return !(step >= window->until_step) && !(epoch >= window->until_epoch);
}

static bool brute(const struct world *world, size_t i, uint64_t step, uint64_t epoch) {
  bool flag = world->baseline[i];
  if (world->refused[i] || world->rules_pin[i])
    return flag;
  if (world->user_pin[i])
    return world->user_value[i];
  for (size_t k = 0; k < world->n_rules; k++)
    if (world->rules[k].holds[i] && is_in(&world->rules[k].window, step, epoch))
      flag = world->rules[k].action == FZ_TRAIN;
  for (size_t k = 0; k < world->n_overrides; k++)
    if (world->overrides[k].holds[i] && is_in(&world->overrides[k].window, step, epoch))
      flag = world->overrides[k].action == FZ_TRAIN;
  return flag;
}

static struct fz_window random_window(struct help_random *random) {
  struct fz_window window = FZ_WINDOW_ALWAYS;
  if (help_below(random, 2))
    window.from_step = help_below(random, 20);
  if (help_below(random, 3) == 0)
    window.from_epoch = help_below(random, 6);
  if (help_below(random, 2))
    window.until_step = window.from_step + 1 + help_below(random, 15);
  if (help_below(random, 3) == 0)
    window.until_epoch = window.from_epoch + 1 + help_below(random, 5);
  return window;
}

static void random_set(struct help_random *random, size_t n, bool *holds) {
  const uint64_t rare = 1 + help_below(random, 4);
  for (size_t i = 0; i < n; i++)
    holds[i] = help_below(random, rare + 1) == 0;
}

/* The names of a set as a JSON list. */
static size_t print_set(char *text, const bool *holds, size_t n) {
  size_t length = (size_t)sprintf(text, "[");
  for (size_t i = 0; i < n; i++)
    if (holds[i])
      length += (size_t)sprintf(text + length, "%s\"name:p%zu\"", length > 1 ? "," : "", i);
  return length + (size_t)sprintf(text + length, "]");
}

static bool is_empty(const bool *holds, size_t n) {
  for (size_t i = 0; i < n; i++)
    if (holds[i])
      return false;
  return true;
}

static size_t print_time(char *text, const char *key, uint64_t step, uint64_t epoch, uint64_t none) {
  size_t length = 0;
  if (step == none && epoch == none)
    return 0;
  length += (size_t)sprintf(text, ",\"%s\":{", key);
  if (step != none)
    length += (size_t)sprintf(text + length, "\"step\":%d%s", (int)step, epoch != none ? "," : "");
  if (epoch != none)
    length += (size_t)sprintf(text + length, "\"epoch\":%d", (int)epoch);
  return length + (size_t)sprintf(text + length, "}");
}

static void set_rules(struct world *world, struct help_random *random) {
  char *text = (char *)malloc(MOST * N_MAX * 32 + 4096);
  fz_ruleset *ruleset = NULL;
  fz_rules *rules = NULL;
  ck_assert_ptr_nonnull(text);
  size_t length = (size_t)sprintf(text, "{\"version\":1,\"pin\":");
  if (help_below(random, 3) == 0)
    random_set(random, world->n, world->rules_pin);
  length += print_set(text + length, world->rules_pin, world->n);
  length += (size_t)sprintf(text + length, ",\"rules\":[");
  for (size_t wanted = help_below(random, MOST + 1); wanted > 0; wanted--) {
    struct decision *rule = &world->rules[world->n_rules];
    rule->action = help_below(random, 3) ? FZ_FREEZE : FZ_TRAIN;
    rule->window = random_window(random);
    random_set(random, world->n, rule->holds);
    if (is_empty(rule->holds, world->n))
      continue;
    length += (size_t)sprintf(text + length, "%s{\"%s\":", world->n_rules ? "," : "", fz_action_name(rule->action));
    length += print_set(text + length, rule->holds, world->n);
    length += print_time(text + length, "from", rule->window.from_step, rule->window.from_epoch, 0);
    length += print_time(text + length, "until", rule->window.until_step, rule->window.until_epoch, FZ_TIME_NEVER);
    length += (size_t)sprintf(text + length, "}");
    world->n_rules++;
  }
  length += (size_t)sprintf(text + length, "]}");
  ck_assert_msg(fz_ruleset_parse(&ruleset, text, length, NULL) == 0, "%s", text);
  ck_assert_int_eq(fz_ruleset_bind(ruleset, world->params, NULL, true, &rules, NULL), 0);
  ck_assert_int_ge(fz_layers_set_rules(world->layers, rules, 0, 0), 0);
  fz_rules_unref(rules);
  fz_ruleset_unref(ruleset);
  free(text);
}

static void add_override(struct world *world, struct help_random *random) {
  struct decision *override = &world->overrides[world->n_overrides];
  uint64_t mask[2] = { 0, 0 };
  const char *pattern = "some";
  override->action = help_below(random, 2) ? FZ_FREEZE : FZ_TRAIN;
  override->window = random_window(random);
  random_set(random, world->n, override->holds);
  for (size_t i = 0; i < world->n; i++)
    if (override->holds[i])
      fz_mask_put(mask, i, true);
  const struct fz_override_request request = { .action = override->action,
                                               .patterns = &pattern,
                                               .n_patterns = 1,
                                               .mask = mask,
                                               .window = override->window,
                                               .include_baseline = true };
  const int r = fz_layers_add_override(world->layers, &request, 0, 0, NULL);
  ck_assert_int_ge(r, 0);
  if (r == 0)
    world->n_overrides++;
}

static void add_pin(struct world *world, struct help_random *random) {
  uint64_t mask[2] = { 0, 0 };
  const char *pattern = "some";
  bool holds[N_MAX];
  random_set(random, world->n, holds);
  for (size_t i = 0; i < world->n; i++)
    if (holds[i])
      fz_mask_put(mask, i, true);
  const enum fz_pin_value value = (enum fz_pin_value)help_below(random, 3);
  const uint64_t step = help_below(random, 10), epoch = help_below(random, 3);
  const struct fz_pin_request request = {
    .value = value, .patterns = &pattern, .n_patterns = 1, .mask = mask, .include_baseline = true
  };
  bool before[N_MAX];
  for (size_t i = 0; i < world->n; i++)
    before[i] = brute(world, i, step, epoch);
  const int r = fz_layers_add_pin(world->layers, &request, step, epoch, NULL);
  ck_assert_int_ge(r, 0);
  for (size_t i = 0; r == 0 && i < world->n; i++)
    if (holds[i] && !world->user_pin[i]) {
      world->user_pin[i] = true;
      world->user_value[i] = value == FZ_PIN_AS_IS ? before[i] : value == FZ_PIN_TRAINING;
    }
}

static void make_world(struct world *world, struct help_random *random) {
  memset(world, 0, sizeof(*world));
  world->n = help_below(random, 4) ? help_below(random, 8) : help_below(random, N_MAX);
  ck_assert_int_eq(fz_params_new(&world->params), 0);
  const bool refusals = help_below(random, 4) == 0;
  for (size_t i = 0; i < world->n; i++) {
    char name[16];
    const int length = snprintf(name, sizeof(name), "p%zu", i);
    world->baseline[i] = help_below(random, 3) > 0;
    world->refused[i] = refusals && help_below(random, 5) == 0;
    const char *code = world->refused[i] ? "NOT_CONTROLLABLE" : NULL;
    ck_assert_int_eq(fz_params_add(world->params, name, (size_t)length, 1, world->baseline[i],
                                   world->baseline[i] ? code : NULL, world->baseline[i] ? NULL : code),
                     0);
  }
  ck_assert_int_eq(fz_params_seal(world->params, NULL), 0);
  ck_assert_int_eq(fz_layers_new(&world->layers, world->params), 0);
  set_rules(world, random);
  for (size_t k = help_below(random, MOST); k > 0; k--)
    add_override(world, random);
  for (size_t k = help_below(random, 3); k > 0; k--)
    add_pin(world, random);
}

static void free_world(struct world *world) {
  fz_layers_free(world->layers);
  fz_params_unref(world->params);
}

static void check_shape(const fz_plan *plan, size_t max_rows, size_t max_masks) {
  ck_assert_uint_ge(plan->n_rows, 1);
  ck_assert_uint_le(plan->n_rows, max_rows);
  ck_assert_uint_le(plan->n_masks, max_masks);
  ck_assert_uint_eq(plan->rows[0].from_step, 0);
  ck_assert_uint_eq(plan->rows[0].from_epoch, 0);
  size_t columns = 1;
  while (columns < plan->n_rows && plan->rows[columns].from_step == 0)
    columns++;
  ck_assert_uint_eq(plan->n_rows % columns, 0);
  for (size_t i = 0; i < plan->n_rows; i++) {
    ck_assert_uint_eq(plan->rows[i].from_epoch, plan->rows[i % columns].from_epoch);
    ck_assert_uint_eq(plan->rows[i].from_step, plan->rows[i - i % columns].from_step);
    if (i % columns)
      ck_assert_uint_gt(plan->rows[i].from_epoch, plan->rows[i - 1].from_epoch);
    if (i >= columns)
      ck_assert_uint_gt(plan->rows[i].from_step, plan->rows[i - columns].from_step);
  }
  const size_t words = fz_mask_words(plan->n_params);
  for (size_t a = 0; a < plan->n_masks; a++)
    for (size_t b = 0; b < a && words > 0; b++)
      ck_assert_int_ne(memcmp(plan->masks + a * words, plan->masks + b * words, words * sizeof(uint64_t)), 0);
}

static void check_wake(const fz_plan *plan, uint64_t step, uint64_t epoch) {
  ck_assert_int_eq(plan->wake_step == FZ_TIME_NEVER, plan->horizon_step == FZ_TIME_NEVER);
  ck_assert_int_eq(plan->wake_epoch == FZ_TIME_NEVER, plan->horizon_epoch == FZ_TIME_NEVER);
  if (plan->wake_step != FZ_TIME_NEVER) {
    ck_assert_uint_lt(plan->wake_step, plan->horizon_step);
    ck_assert_uint_gt(plan->wake_step, step);
  }
  if (plan->wake_epoch != FZ_TIME_NEVER) {
    ck_assert_uint_lt(plan->wake_epoch, plan->horizon_epoch);
    ck_assert_uint_gt(plan->wake_epoch, epoch);
  }
}

static void check_point(const struct world *world, const fz_plan *plan, uint64_t step, uint64_t epoch) {
  const uint64_t *mask = fz_plan_mask(plan, fz_plan_row_at(plan->rows, plan->n_rows, step, epoch));
  for (size_t i = 0; i < world->n; i++)
    ck_assert_msg(fz_mask_get(mask, i) == brute(world, i, step, epoch), "p%zu at step %d, epoch %d: %d", i, (int)step,
                  (int)epoch, fz_mask_get(mask, i));
}

static void check_eval(const struct world *world, uint64_t step, uint64_t epoch) {
  uint64_t mask[2];
  ck_assert_int_eq(fz_layers_eval(world->layers, step, epoch, mask, NULL), 0);
  for (size_t i = 0; i < world->n; i++)
    ck_assert_int_eq(fz_mask_get(mask, i), brute(world, i, step, epoch));
}

/* Every point of a plan before its horizon, in whatever order steps and epochs might get there. */
START_TEST(every_point_before_the_horizon)
{
  struct help_random random = { .state = 11 };
  for (unsigned round = 0; round < 1500; round++) {
    struct world world;
    fz_plan plan = FZ_PLAN_NULL;
    make_world(&world, &random);
    const bool tight = help_below(&random, 2);
    const size_t max_rows = tight ? 4 + help_below(&random, 12) : 10000;
    const size_t max_masks = tight ? 4 + help_below(&random, 4) : 1000;
    const uint64_t now = help_below(&random, 12), epoch_now = help_below(&random, 4);
    plan.gen = 9;
    ck_assert_int_eq(fz_layers_plan(world.layers, now, epoch_now, max_rows, max_masks, &plan), 0);
    ck_assert_uint_eq(plan.gen, 9);
    ck_assert_uint_eq(plan.active_from, now);
    check_shape(&plan, max_rows, max_masks);
    check_wake(&plan, now, epoch_now);
    if (!tight)
      ck_assert(plan.horizon_step == FZ_TIME_NEVER && plan.horizon_epoch == FZ_TIME_NEVER);
    for (uint64_t step = now; step < 45 && step < plan.horizon_step; step++)
      for (uint64_t epoch = epoch_now; epoch < 13 && epoch < plan.horizon_epoch; epoch++)
        check_point(&world, &plan, step, epoch);
    check_eval(&world, now, epoch_now);
    fz_plan_deinit(&plan);
    free_world(&world);
  }
}
END_TEST

/* A run that plans again at every wake, as the daemon does, with tiny plans: never a wrong bit. */
START_TEST(extension_carries_on)
{
  struct help_random random = { .state = 12 };
  unsigned extensions = 0;
  for (unsigned round = 0; round < 1500; round++) {
    struct world world;
    fz_plan plan = FZ_PLAN_NULL;
    make_world(&world, &random);
    const size_t max_rows = 4 + help_below(&random, 4);
    uint64_t step = 0, epoch = 0;
    ck_assert_int_eq(fz_layers_plan(world.layers, step, epoch, max_rows, 4, &plan), 0);
    while (step < 45) {
      if (step >= plan.wake_step || epoch >= plan.wake_epoch) {
        /* The plan still holds for this batch: the next one is planned from the next step, or from this one. */
        if (step < plan.horizon_step && epoch < plan.horizon_epoch)
          check_point(&world, &plan, step, epoch);
        ck_assert_int_eq(fz_layers_plan(world.layers, step, epoch, max_rows, 4, &plan), 0);
        extensions++;
      }
      check_point(&world, &plan, step, epoch);
      if (help_below(&random, 4) == 0)
        epoch++;
      else
        step++;
    }
    fz_plan_deinit(&plan);
    free_world(&world);
  }
  ck_assert_uint_gt(extensions, 1000);
}
END_TEST

/* A plan made early and a plan made late say the same of any point that both know. */
START_TEST(plans_agree)
{
  struct help_random random = { .state = 13 };
  for (unsigned round = 0; round < 500; round++) {
    struct world world;
    fz_plan early = FZ_PLAN_NULL, late = FZ_PLAN_NULL;
    make_world(&world, &random);
    ck_assert_int_eq(fz_layers_plan(world.layers, 0, 0, 10000, 1000, &early), 0);
    ck_assert_int_eq(fz_layers_plan(world.layers, 10, 2, 16, 8, &late), 0);
    for (uint64_t step = 10; step < 40 && step < late.horizon_step; step++)
      for (uint64_t epoch = 2; epoch < 10 && epoch < late.horizon_epoch; epoch++) {
        const uint64_t *a = fz_plan_mask(&early, fz_plan_row_at(early.rows, early.n_rows, step, epoch));
        const uint64_t *b = fz_plan_mask(&late, fz_plan_row_at(late.rows, late.n_rows, step, epoch));
        ck_assert_int_eq(memcmp(a, b, fz_mask_words(world.n) * sizeof(*a)), 0);
      }
    fz_plan_deinit(&early);
    fz_plan_deinit(&late);
    free_world(&world);
  }
}
END_TEST

/* The causes name a layer whose word agrees with the flag. */
START_TEST(causes_agree)
{
  struct help_random random = { .state = 14 };
  for (unsigned round = 0; round < 500; round++) {
    struct world world;
    struct fz_cause causes[N_MAX];
    make_world(&world, &random);
    const uint64_t step = help_below(&random, 30), epoch = help_below(&random, 8);
    ck_assert_int_eq(fz_layers_causes(world.layers, step, epoch, causes), 0);
    for (size_t i = 0; i < world.n; i++) {
      bool flag = world.baseline[i];
      switch (causes[i].layer) {
      case FZ_LAYER_BASELINE:
        break;
      case FZ_LAYER_RULE:
        flag = world.rules[causes[i].index].action == FZ_TRAIN;
        break;
      case FZ_LAYER_OVERRIDE:
        flag = world.overrides[causes[i].index].action == FZ_TRAIN;
        break;
      case FZ_LAYER_PIN:
        if (causes[i].pin_by == FZ_PIN_BY_USER)
          flag = world.user_value[i];
        ck_assert_int_eq(causes[i].pin_by == FZ_PIN_BY_TRAINER, world.refused[i]);
        break;
      }
      ck_assert_int_eq(flag, brute(&world, i, step, epoch));
    }
    free_world(&world);
  }
}
END_TEST

/* fz_plan_next() against looking at every point. */
START_TEST(next_is_the_next)
{
  struct help_random random = { .state = 15 };
  for (unsigned round = 0; round < 500; round++) {
    struct world world;
    fz_plan plan = FZ_PLAN_NULL;
    make_world(&world, &random);
    ck_assert_int_eq(fz_layers_plan(world.layers, 0, 0, 10000, 1000, &plan), 0);
    const uint64_t step = help_below(&random, 20), epoch = help_below(&random, 5);
    const struct fz_next next = fz_plan_next(&plan, step, epoch);
    uint64_t by_step = FZ_TIME_NEVER, by_epoch = FZ_TIME_NEVER;
    for (uint64_t k = 1; k < 40; k++)
      for (size_t i = 0; i < world.n; i++) {
        if (by_step == FZ_TIME_NEVER && brute(&world, i, step + k, epoch) != brute(&world, i, step, epoch))
          by_step = step + k;
        if (by_epoch == FZ_TIME_NEVER && brute(&world, i, step, epoch + k) != brute(&world, i, step, epoch))
          by_epoch = epoch + k;
      }
    if (!next.both) {
      ck_assert_uint_eq(next.step, by_step);
      ck_assert_uint_eq(next.epoch, by_epoch);
    } else
      ck_assert(by_step == FZ_TIME_NEVER && by_epoch == FZ_TIME_NEVER);
    fz_plan_deinit(&plan);
    free_world(&world);
  }
}
END_TEST

/* A hundred boundaries on both axes fill the budget evenly, and nothing but the far future is cut off. */
START_TEST(budget_is_used)
{
  char text[32768];
  size_t length = (size_t)sprintf(text, "{'version':1,'rules':[");
  for (int i = 1; i <= 100; i++)
    length += (size_t)sprintf(text + length, "%s{'%s':'a','from':{'step':%d}},{'%s':'b','from':{'epoch':%d}}",
                              i > 1 ? "," : "", i % 2 ? "freeze" : "train", i * 10, i % 2 ? "freeze" : "train", i);
  (void)sprintf(text + length, "]}");
  fz_params *params = help_params("a=1 b=1 c=1");
  fz_rules *rules = help_rules(params, text);
  fz_layers *layers;
  fz_plan plan = FZ_PLAN_NULL;
  ck_assert_int_eq(fz_layers_new(&layers, params), 0);
  ck_assert_int_eq(fz_layers_set_rules(layers, rules, 0, 0), 0);
  ck_assert_int_eq(fz_layers_plan(layers, 0, 0, 256, 256, &plan), 0);
  ck_assert_uint_eq(plan.n_rows, 256);
  ck_assert_uint_eq(plan.n_masks, 4);
  ck_assert_uint_eq(plan.horizon_step, 160);
  ck_assert_uint_eq(plan.wake_step, 80);
  ck_assert_uint_eq(plan.horizon_epoch, 16);
  ck_assert_uint_eq(plan.wake_epoch, 8);
  fz_plan_deinit(&plan);
  fz_layers_free(layers);
  fz_rules_unref(rules);
  fz_params_unref(params);
}
END_TEST

START_TEST(judging_plans)
{
  fz_params *params = help_params("a=1 b=1 c=0");
  fz_rules *rules = help_rules(params, "{'version':1,'rules':[{'freeze':'a','from':{'step':10}},"
                                       "{'freeze':'b','from':{'epoch':2}},{'train':'c','from':{'step':20}}]}");
  fz_layers *layers;
  fz_plan plan = FZ_PLAN_NULL;
  ck_assert_int_eq(fz_layers_new(&layers, params), 0);
  ck_assert_int_eq(fz_layers_plan(layers, 0, 0, 256, 16, &plan), 0);
  ck_assert_uint_eq(plan.n_rows, 1);
  ck_assert_uint_eq(fz_plan_first_empty(&plan), plan.n_rows);
  ck_assert_uint_eq(fz_plan_thawed(&plan, params), 0);
  ck_assert_int_eq(fz_layers_set_rules(layers, rules, 0, 0), 0);
  ck_assert_int_eq(fz_layers_plan(layers, 0, 0, 256, 16, &plan), 0);
  const size_t empty = fz_plan_first_empty(&plan);
  ck_assert_uint_lt(empty, plan.n_rows);
  ck_assert_uint_eq(plan.rows[empty].from_step, 10);
  ck_assert_uint_eq(plan.rows[empty].from_epoch, 2);
  ck_assert_uint_eq(fz_plan_thawed(&plan, params), 1);
  const struct fz_mask_delta delta = fz_mask_compare(params, fz_plan_mask(&plan, 0), fz_plan_mask(&plan, empty));
  ck_assert_uint_eq(delta.froze, 2);
  ck_assert_uint_eq(delta.froze_elements, 20);
  ck_assert_uint_eq(delta.unfroze, 0);
  ck_assert_uint_eq(fz_mask_elements(params, fz_plan_mask(&plan, 0)), 20);
  fz_plan_deinit(&plan);
  fz_layers_free(layers);
  fz_rules_unref(rules);
  fz_params_unref(params);
}
END_TEST

/* A flip that needs a step and an epoch is still known to be ahead. */
START_TEST(next_may_need_both)
{
  fz_params *params = help_params("a=1");
  fz_rules *rules = help_rules(params, "{'version':1,'rules':[{'freeze':'a','from':{'step':10,'epoch':2}}]}");
  fz_layers *layers;
  fz_plan plan = FZ_PLAN_NULL;
  ck_assert_int_eq(fz_layers_new(&layers, params), 0);
  ck_assert_int_eq(fz_layers_set_rules(layers, rules, 0, 0), 0);
  ck_assert_int_eq(fz_layers_plan(layers, 0, 0, 256, 16, &plan), 0);
  const struct fz_next next = fz_plan_next(&plan, 0, 0);
  ck_assert(next.both && next.step == 10 && next.epoch == 2);
  fz_plan_deinit(&plan);
  fz_layers_free(layers);
  fz_rules_unref(rules);
  fz_params_unref(params);
}
END_TEST

/* A run has one until its first is published. */
START_TEST(a_plan_without_rows_has_no_next)
{
  const fz_plan plan = FZ_PLAN_NULL;
  const struct fz_next next = fz_plan_next(&plan, 5, 1);
  ck_assert_uint_eq(next.step, FZ_TIME_NEVER);
  ck_assert_uint_eq(next.epoch, FZ_TIME_NEVER);
}
END_TEST

Suite *fz_suite(void) {
  Suite *suite = suite_create("rules: planner");
  TCase *random = tcase_create("random"), *fixed = tcase_create("fixed");
  tcase_add_test(random, every_point_before_the_horizon);
  tcase_add_test(random, extension_carries_on);
  tcase_add_test(random, plans_agree);
  tcase_add_test(random, causes_agree);
  tcase_add_test(random, next_is_the_next);
  tcase_add_test(fixed, budget_is_used);
  tcase_add_test(fixed, judging_plans);
  tcase_add_test(fixed, next_may_need_both);
  tcase_add_test(fixed, a_plan_without_rows_has_no_next);
  tcase_set_timeout(random, 60);
  suite_add_tcase(suite, random);
  suite_add_tcase(suite, fixed);
  return suite;
}
