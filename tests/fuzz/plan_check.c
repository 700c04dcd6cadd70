/* plan_check.c - rules bound to a small table, and what must be true of every plan made of them. */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/rules/explain.h"
#include "daemon/rules/planner.h"
#include "daemon/rules/report.h"
#include "protocol/mask.h"
#include "tests/fuzz/fuzz.h"

/* --- the table --- */

static void add(fz_params *params, const char *name, bool trains, const char *refusal) {
  FUZZ_CHECK(fz_params_add(params, name, strlen(name), 1000 + strlen(name), trains, trains ? refusal : NULL,
                           trains ? NULL : refusal) == 0);
}

fz_params *fuzz_params(void) {
  static const char *const parts[] = {
    "attn.weight", "attn.bias", "mlp.weight", "mlp.bias", "norm.weight", "norm.bias"
  };
  static fz_params *params;
  char name[64];

  if (params)
    return params;
  FUZZ_CHECK(fz_params_new(&params) == 0);
  add(params, "embed.weight", true, NULL);
  for (size_t layer = 0; layer < 11; layer++)
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
      (void)snprintf(name, sizeof(name), "layers.%zu.%s", layer, parts[i]);
      add(params, name, layer > 0, layer == 10 && i == 0 ? "DDP_NOT_COVERED" : NULL);
    }
  add(params, "norm.weight", true, NULL);
  add(params, "lm_head.weight", true, NULL);
  add(params, "größe", false, "NOT_FLOATING");
  FUZZ_CHECK(fz_params_seal(params, NULL) == 0);
  return params;
}

struct fuzz_point fuzz_point_from(const uint8_t text[4]) {
  static const uint64_t times[8] = { 0, 1, 2, 99, 1000, 5000, FZ_STEP_MAX - 1, FZ_STEP_MAX };
  static const size_t rows[4] = { 4, 7, 32, FZ_PLAN_ROWS };
  const size_t budget = text[2] % 4;
  return (struct fuzz_point){
    .step = times[text[0] % 8],
    .epoch = times[text[1] % 8],
    .max_rows = rows[budget],
    .max_masks = rows[3 - budget],
    .decisions = text[3] % 16,
  };
}

/* --- overrides and pins above the rules --- */

static void decide(fz_layers *layers, const struct fuzz_point *point) {
  static const char *const patterns[] = { "layers.1", "layers.*.mlp.**", "lm_head", "embed" };
  fz_params *params = fz_layers_params(layers);
  uint64_t mask[2];
  struct fz_override_request request = { .patterns = &patterns[0],
                                         .n_patterns = 1,
                                         .mask = mask,
                                         .window = FZ_WINDOW_ALWAYS,
                                         .include_baseline = true,
                                         .who = { .user = "ana" } };
  struct fz_pin_request pin = { .n_patterns = 1, .mask = mask, .include_baseline = true, .who = { .user = "bob" } };

  FUZZ_CHECK(fz_mask_words(fz_params_count(params)) == 2);
  for (size_t i = 0; i < 2; i++) {
    if (!(point->decisions & 1U << i))
      continue;
    request.patterns = &patterns[i];
    request.action = i ? FZ_TRAIN : FZ_FREEZE;
    request.window = (struct fz_window){ .from_step = i ? 0 : 50,
                                         .until_step = i ? FZ_TIME_NEVER : 2000,
                                         .until_epoch = i ? 7 : FZ_TIME_NEVER };
    FUZZ_CHECK(fz_patterns_match(params, request.patterns, 1, mask, NULL) == 0);
    FUZZ_CHECK(fz_layers_add_override(layers, &request, point->step, point->epoch, NULL) >= 0);
  }
  for (size_t i = 2; i < 4; i++) {
    if (!(point->decisions & 1U << i))
      continue;
    pin.patterns = &patterns[i];
    pin.value = i == 2 ? FZ_PIN_FROZEN : FZ_PIN_AS_IS;
    FUZZ_CHECK(fz_patterns_match(params, pin.patterns, 1, mask, NULL) == 0);
    FUZZ_CHECK(fz_layers_add_pin(layers, &pin, point->step, point->epoch, NULL) >= 0);
  }
}

/* --- the plan --- */

static void check_rows(const fz_plan *plan, size_t n, const struct fuzz_point *point) {
  FUZZ_CHECK(fz_plan_rows_are_sound(plan->rows, plan->n_rows, plan->n_masks));
  FUZZ_CHECK(plan->n_rows <= point->max_rows && plan->n_masks <= point->max_masks);
  FUZZ_CHECK(plan->rows[0].from_step == 0 && plan->rows[0].from_epoch == 0);
  FUZZ_CHECK(plan->active_from == point->step && plan->n_params == n);
  for (size_t i = 0; i < plan->n_rows; i++) {
    const struct fz_plan_row *row = &plan->rows[i], *before = row - 1;
    FUZZ_CHECK(row->mask < plan->n_masks);
    FUZZ_CHECK(i == 0 || before->from_step < row->from_step ||
               (before->from_step == row->from_step && before->from_epoch < row->from_epoch));
    const uint64_t *mask = fz_plan_mask(plan, i);
    FUZZ_CHECK(n % 64 == 0 || mask[n / 64] >> (n % 64) == 0);
  }
  FUZZ_CHECK((plan->horizon_step == FZ_TIME_NEVER) == (plan->wake_step == FZ_TIME_NEVER));
  FUZZ_CHECK((plan->horizon_epoch == FZ_TIME_NEVER) == (plan->wake_epoch == FZ_TIME_NEVER));
  FUZZ_CHECK(plan->horizon_step == FZ_TIME_NEVER || plan->wake_step < plan->horizon_step);
  FUZZ_CHECK(plan->horizon_epoch == FZ_TIME_NEVER || plan->wake_epoch < plan->horizon_epoch);
}

/* At one point before the horizon: the plan says what the layers say. */
static void check_at(const fz_layers *layers, const fz_plan *plan, uint64_t step, uint64_t epoch) {
  uint64_t mask[2];
  uint32_t edge;

  if (step > FZ_STEP_MAX || epoch > FZ_EPOCH_MAX || step >= plan->horizon_step || epoch >= plan->horizon_epoch)
    return;
  const size_t row = fz_plan_row_at(plan->rows, plan->n_rows, step, epoch);
  FUZZ_CHECK(fz_layers_eval(layers, step, epoch, mask, &edge) == 0);
  FUZZ_CHECK(memcmp(mask, fz_plan_mask(plan, row), sizeof(mask)) == 0);
  FUZZ_CHECK(edge == plan->rows[row].edge);
}

static uint64_t later(uint64_t a, uint64_t b) { return a > b ? a : b; }

/* On each corner of the grid, beside it, and far behind it. */
static void check_corners(const fz_layers *layers, const fz_plan *plan, const struct fuzz_point *point) {
  for (size_t i = 0; i < plan->n_rows; i++) {
    const uint64_t step = later(plan->rows[i].from_step, point->step);
    const uint64_t epoch = later(plan->rows[i].from_epoch, point->epoch);
    check_at(layers, plan, step, epoch);
    check_at(layers, plan, step, later(epoch, 1) - 1 >= point->epoch ? later(epoch, 1) - 1 : epoch);
    check_at(layers, plan, later(step, 1) - 1 >= point->step ? later(step, 1) - 1 : step, epoch);
    check_at(layers, plan, step + 1, epoch + 1);
  }
  check_at(layers, plan, FZ_STEP_MAX, point->epoch);
  check_at(layers, plan, FZ_STEP_MAX, FZ_EPOCH_MAX);
}

/* What is told about them: it must come to an end, with as many sentences as there should be. */
static void check_sentences(const fz_layers *layers, const fz_plan *plan, const struct fuzz_point *point) {
  struct fz_rule_report *reports = NULL;
  struct fz_upcoming upcoming;
  fz_explanation explanation = FZ_EXPLANATION_NULL;
  size_t n = 0, deciding = 0;

  FUZZ_CHECK(fz_rules_report(layers, point->step, point->epoch, &reports, &n) == 0);
  FUZZ_CHECK(n == fz_ruleset_count(fz_rules_ruleset(fz_layers_rules(layers))));
  fz_rule_reports_free(reports, n);
  FUZZ_CHECK(fz_layers_upcoming(layers, point->step, point->epoch, &upcoming) == 0);
  free(upcoming.text);
  FUZZ_CHECK(fz_explain(layers, plan->n_rows % fz_params_count(fz_layers_params(layers)), point->step, point->epoch,
                        &explanation) == 0);
  for (size_t i = 0; i < explanation.n_lines; i++)
    deciding += explanation.lines[i].decides;
  FUZZ_CHECK(deciding == 1);
  fz_explanation_deinit(&explanation);
  FUZZ_CHECK(fz_plan_first_empty(plan) <= plan->n_rows);
  FUZZ_CHECK(fz_plan_thawed(plan, fz_layers_params(layers)) <= fz_params_count(fz_layers_params(layers)));
  (void)fz_plan_next(plan, point->step, point->epoch);
}

void fuzz_check_rules(fz_rules *rules, const struct fuzz_point *point) {
  fz_params *params = fz_rules_params(rules);
  fz_layers *layers = NULL;
  fz_plan plan = FZ_PLAN_NULL;

  FUZZ_CHECK(fz_layers_new(&layers, params) == 0);
  decide(layers, point);
  FUZZ_CHECK(fz_layers_set_rules(layers, rules, point->step, point->epoch) >= 0);
  FUZZ_CHECK(fz_layers_plan(layers, point->step, point->epoch, point->max_rows, point->max_masks, &plan) == 0);
  check_rows(&plan, fz_params_count(params), point);
  FUZZ_CHECK(fz_layers_anchor(layers, point->step, point->epoch) == 0);
  check_corners(layers, &plan, point);
  check_sentences(layers, &plan, point);
  fz_plan_deinit(&plan);
  fz_layers_free(layers);
}
