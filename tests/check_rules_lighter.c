/* check_rules_lighter.c - profile lighter: the documented cases, and random ones against the algorithm as it is told. */
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

/*
 * The reference: lighter's callbacks as objects with a bit, run at every batch, which write flags into an array. It
 * knows nothing of plans, masks or selectors.
 */
struct reference_callback {
  const char *names[4], *prefixes[4], *except_names[4], *except_prefixes[4]; /* NULL ends each */
  long until_step, until_epoch;                                              /* NO_LIMIT: none */
  bool frozen;
};

#define NO_LIMIT (-1000000)

static bool equals_any(const char *name, const char *const *list) {
  for (; *list; list++)
    if (strcmp(name, *list) == 0)
      return true;
  return false;
}

static bool begins_with_any(const char *name, const char *const *list) {
  for (; *list; list++)
    if (strncmp(name, *list, strlen(*list)) == 0)
      return true;
  return false;
}

static void reference_pass(struct reference_callback *callback, const fz_params *params, bool *flags, bool flag) {
  for (size_t i = 0; i < fz_params_count(params); i++) {
    const char *name = fz_params_get(params, i)->name;
    if (equals_any(name, callback->except_names) || begins_with_any(name, callback->except_prefixes))
      flags[i] = true;
    else if (equals_any(name, callback->names) || begins_with_any(name, callback->prefixes))
      flags[i] = flag;
    else
      flags[i] = true;
  }
  callback->frozen = !flag;
}

static void reference_batch(struct reference_callback *callback, const fz_params *params, bool *flags, long step,
                            long epoch) {
  if (callback->until_step != NO_LIMIT && step >= callback->until_step) {
    if (callback->frozen)
      reference_pass(callback, params, flags, true);
    return;
  }
  if (callback->until_epoch != NO_LIMIT && epoch >= callback->until_epoch) {
    if (callback->frozen)
      reference_pass(callback, params, flags, true);
    return;
  }
  if (!callback->frozen)
    reference_pass(callback, params, flags, false);
}

/*
 * A trainer as the library makes one: it holds flags, follows plans, writes all of them on a new edge and the
 * differing ones otherwise.
 */
struct trainer {
  fz_layers *layers;
  fz_plan plan;
  size_t n;
  bool flags[256];
  uint32_t edge;
  uint64_t step, epoch;
  bool running;
  size_t max_rows, max_masks;
  unsigned extensions;
};

static void trainer_plan(struct trainer *trainer, uint64_t step, uint64_t epoch) {
  ck_assert_int_eq(fz_layers_plan(trainer->layers, step, epoch, trainer->max_rows, trainer->max_masks, &trainer->plan),
                   0);
  ck_assert_int_eq(fz_layers_anchor(trainer->layers, step, epoch), 0);
}

static void trainer_init(struct trainer *trainer, fz_params *params, fz_rules *rules) {
  *trainer = (struct trainer){ .plan = FZ_PLAN_NULL, .n = fz_params_count(params), .max_rows = 256, .max_masks = 64 };
  ck_assert_uint_le(trainer->n, 256);
  ck_assert_int_eq(fz_layers_new(&trainer->layers, params), 0);
  ck_assert_int_ge(fz_layers_set_rules(trainer->layers, rules, 0, 0), 0);
  for (size_t i = 0; i < trainer->n; i++)
    trainer->flags[i] = fz_params_get(params, i)->requires_grad;
}

static void trainer_deinit(struct trainer *trainer) {
  fz_layers_free(trainer->layers);
  fz_plan_deinit(&trainer->plan);
}

static void trainer_batch(struct trainer *trainer, uint64_t step, uint64_t epoch) {
  if (!trainer->running)
    trainer_plan(trainer, step, epoch);
  else if (step < trainer->step || epoch < trainer->epoch) {
    ck_assert_int_eq(fz_layers_rewind(trainer->layers, trainer->step, trainer->epoch), 0);
    trainer_plan(trainer, step, epoch);
  } else if (step >= trainer->plan.horizon_step || epoch >= trainer->plan.horizon_epoch ||
             step >= trainer->plan.wake_step || epoch >= trainer->plan.wake_epoch) {
    trainer_plan(trainer, step, epoch);
    trainer->extensions++;
  }
  trainer->running = true;
  trainer->step = step;
  trainer->epoch = epoch;
  const size_t row = fz_plan_row_at(trainer->plan.rows, trainer->plan.n_rows, step, epoch);
  const uint32_t edge = trainer->plan.rows[row].edge;
  ck_assert_uint_ge(edge, trainer->edge);
  if (edge != trainer->edge)
    for (size_t i = 0; i < trainer->n; i++)
      trainer->flags[i] = fz_mask_get(fz_plan_mask(&trainer->plan, row), i);
  trainer->edge = edge;
}

static const char *flags_text(const bool *flags, size_t n) {
  static char buffers[2][257];
  static unsigned next;
  char *text = buffers[next++ % 2];
  for (size_t i = 0; i < n; i++)
    text[i] = flags[i] ? '1' : '0';
  text[n] = '\0';
  return text;
}

#define L "l1.w=1 l1.b=1 l2.w=1 l2.b=1 l10.w=1"

static const struct {
  const char *id, *params, *rule;
  unsigned n, steps[5], epochs[5];
  const char *expected[5];
} cases[] = {
  { "T01", L, "{'names':'l1.w'}", 2, { 0, 1 }, { 0 }, { "01111", "01111" } },
  { "T02", L, "{'name_starts_with':'l1'}", 1, { 0 }, { 0 }, { "00110" } },
  { "T03", L, "{'name_starts_with':['l1.']}", 1, { 0 }, { 0 }, { "00111" } },
  { "T04", L, "{'names':['l2.b'],'name_starts_with':'l1.'}", 1, { 0 }, { 0 }, { "00101" } },
  { "T05",
    L,
    "{'name_starts_with':'l','except_names':'l2.b','except_name_starts_with':'l1.'}",
    1,
    { 0 },
    { 0 },
    { "11010" } },
  { "T06",
    L,
    "{'name_starts_with':'','until_step':2}",
    4,
    { 0, 1, 2, 3 },
    { 0 },
    { "00000", "00000", "11111", "11111" } },
  { "T07", L, "{'names':[],'until_step':2}", 2, { 0, 2 }, { 0 }, { "11111", "11111" } },
  { "T08", "a=0 b=0", "{'names':[]}", 1, { 0 }, { 0 }, { "11" } },
  { "T09", "a=1 b=0", "{'names':'a','until_step':0}", 2, { 0, 5 }, { 0 }, { "10", "10" } },
  { "T10", "a=1 b=0", "{'names':'a','until_step':1}", 2, { 0, 1 }, { 0 }, { "01", "11" } },
  { "T11", "a=0", "{'names':'a','until_step':3}", 1, { 7 }, { 0 }, { "0" } },
  { "T12", "a=1", "{'names':'a','until_step':3}", 5, { 2, 2, 2, 3, 3 }, { 0 }, { "0", "0", "0", "1", "1" } },
  { "T13", "a=1", "{'names':'a','until_epoch':2}", 4, { 0, 1, 2, 3 }, { 0, 1, 2, 3 }, { "0", "0", "1", "1" } },
  { "T14", "a=1", "{'names':'a','until_step':3}", 4, { 0, 3, 1, 3 }, { 0 }, { "0", "1", "0", "1" } },
  /* From the semantics: S1, S4, S5, S6, S7 with a negative limit, S10 both ways round, S12, S17. */
  { "S1", "layer1=1 layer1.weight=1", "{'names':'layer1'}", 1, { 0 }, { 0 }, { "01" } },
  { "S4", "a=0 b=0", "{'name_starts_with':'','except_names':'a'}", 1, { 0 }, { 0 }, { "10" } },
  { "S5", "a=1 b=0", "{'names':'a'}", 1, { 0 }, { 0 }, { "01" } },
  { "S6", "a=0 b=0", "{'names':'a','until_step':1}", 2, { 0, 1 }, { 0 }, { "01", "11" } },
  { "S7", "a=1 b=0", "{'names':'a','until_step':-5}", 2, { 0, 9 }, { 0 }, { "10", "10" } },
  { "S7e", "a=1 b=0", "{'names':'a','until_epoch':-1}", 2, { 0, 9 }, { 0, 1 }, { "10", "10" } },
  { "S10",
    "a=1 b=1",
    "{'names':'a','until_step':5},{'names':'b','until_step':10}",
    4,
    { 0, 4, 5, 10 },
    { 0 },
    { "10", "10", "11", "11" } },
  { "S10b",
    "a=1 b=1",
    "{'names':'b','until_step':10},{'names':'a','until_step':5}",
    4,
    { 0, 4, 5, 10 },
    { 0 },
    { "01", "01", "11", "11" } },
  { "S12", "a=0 b=0", "{'names':'a','until_epoch':2}", 2, { 7, 8 }, { 2, 2 }, { "00", "00" } },
  { "S17", L, "{'name_starts_with':'l','except_name_starts_with':''}", 1, { 0 }, { 0 }, { "11111" } },
  /* lighter's documented progressive unfreezing, which does not do what the documentation says. */
  { "docs",
    "backbone.layer1=1 backbone.layer2=1 backbone.layer3=1 head=1",
    "{'name_starts_with':'backbone','until_epoch':5},"
    "{'name_starts_with':['backbone.layer1','backbone.layer2'],'until_epoch':10}",
    4,
    { 0, 4, 5, 10 },
    { 0, 4, 5, 10 },
    { "0011", "0011", "1111", "1111" } },
};

START_TEST(documented_cases)
{
  char text[1024];
  (void)snprintf(text, sizeof(text), "{'version':1,'profile':'lighter','rules':[%s]}", cases[_i].rule);
  fz_params *params = help_params(cases[_i].params);
  fz_rules *rules = help_rules(params, text);
  struct trainer trainer;
  trainer_init(&trainer, params, rules);
  for (unsigned k = 0; k < cases[_i].n; k++) {
    trainer_batch(&trainer, cases[_i].steps[k], cases[_i].epochs[k]);
    ck_assert_msg(strcmp(flags_text(trainer.flags, trainer.n), cases[_i].expected[k]) == 0, "%s, batch %u: %s, not %s",
                  cases[_i].id, k, flags_text(trainer.flags, trainer.n), cases[_i].expected[k]);
  }
  trainer_deinit(&trainer);
  fz_rules_unref(rules);
  fz_params_unref(params);
}
END_TEST

#define FIRST "At least one of `names` or `name_starts_with` must be specified."
#define SECOND "Only one of `until_step` or `until_epoch` can be specified."

static const struct {
  const char *rule, *message;
} errors[] = {
  { "{}", FIRST },
  { "{\"names\":null,\"name_starts_with\":null}", FIRST },
  { "{\"except_names\":\"a\"}", FIRST },
  { "{\"until_step\":1,\"until_epoch\":1}", FIRST },
  { "{\"names\":\"a\",\"until_step\":1,\"until_epoch\":1}", SECOND },
  { "{\"names\":[],\"until_step\":0,\"until_epoch\":-1}", SECOND },
  { "{\"freeze\":\"a\",\"until\":{\"step\":1,\"epoch\":1}}", SECOND },
  { "{\"names\":\"a\",\"until_step\":true}", "'until_step' is an integer, not a boolean" },
  { "{\"names\":\"a\",\"until_step\":2.5}", "'until_step' is an integer" },
  { "{\"names\":\"a\",\"until_epoch\":-2.5}", "'until_epoch' is an integer" },
  { "{\"names\":\"a\",\"until_step\":\"3\"}", "'until_step' is an integer, not a string" },
  { "{\"names\":\"a\",\"until_step\":[3]}", "'until_step' is an integer, not a list" },
  { "{\"names\":3}", "'names' is a pattern or a list of patterns, not a number" },
  { "{\"name_starts_with\":[3]}", "a pattern is a string, not a number" },
  { "{\"names\":{\"a\":1}}", "'names' is a pattern or a list of patterns, not a mapping" },
  { "{\"train\":\"a\"}", "profile lighter has no 'train'" },
  { "{\"names\":\"a\",\"from\":{\"step\":1}}", "profile lighter has no 'from'" },
};

START_TEST(documented_errors)
{
  char text[1024];
  fz_diagnostics diagnostics = FZ_DIAGNOSTICS_NULL;
  fz_ruleset *ruleset = NULL;
  (void)snprintf(text, sizeof(text), "{\"version\":1,\"profile\":\"lighter\",\"rules\":[%s]}", errors[_i].rule);
  ck_assert_int_eq(fz_ruleset_parse(&ruleset, text, strlen(text), &diagnostics), FZ_RULESET_INVALID);
  ck_assert_msg(strcmp(diagnostics.items[0].message, errors[_i].message) == 0, "%s: %s", errors[_i].rule,
                diagnostics.items[0].message);
  ck_assert_ptr_null(ruleset);
  fz_diagnostics_deinit(&diagnostics);
}
END_TEST

/* --- random callbacks and traces --- */

static const char *const pool[] = { "l1", "l1.w", "l1.b",          "l10",   "l10.w",      "l2.w",  "l2.b", "l1.",
                                    "l",  "",     "größe.gewicht", "größe", "gr\xc3\xb6", "x.y.z", "l1.w", "head" };
#define N_POOL (sizeof(pool) / sizeof(*pool))

static void random_list(struct help_random *random, const char **list, bool may_be_empty_text) {
  size_t n = help_below(random, 4);
  for (size_t i = 0; i < n;) {
    const char *text = pool[help_below(random, N_POOL)];
    if (text[0] || may_be_empty_text)
      list[i++] = text;
  }
  list[n] = NULL;
}

static size_t print_list(char *text, const char *key, const char *const *list) {
  size_t n = (size_t)sprintf(text, ",'%s':[", key);
  for (size_t i = 0; list[i]; i++)
    n += (size_t)sprintf(text + n, "%s'%s'", i ? "," : "", list[i]);
  return n + (size_t)sprintf(text + n, "]");
}

static long random_limit(struct help_random *random) { return (long)help_below(random, 14) - 2; }

static size_t random_callback(struct help_random *random, unsigned number, struct reference_callback *callback,
                              char *text) {
  *callback = (struct reference_callback){ .until_step = NO_LIMIT, .until_epoch = NO_LIMIT };
  random_list(random, callback->names, true);
  random_list(random, callback->prefixes, true);
  if (help_below(random, 2))
    random_list(random, callback->except_names, true);
  if (help_below(random, 3) == 0)
    random_list(random, callback->except_prefixes, true);
  size_t n = (size_t)sprintf(text, "%s{'name':'c%u'", number ? "," : "", number);
  n += print_list(text + n, "names", callback->names);
  n += print_list(text + n, "name_starts_with", callback->prefixes);
  n += print_list(text + n, "except_names", callback->except_names);
  n += print_list(text + n, "except_name_starts_with", callback->except_prefixes);
  switch (help_below(random, 4)) {
  case 0:
    break;
  case 1:
    callback->until_epoch = random_limit(random) / 2;
    n += (size_t)sprintf(text + n, ",'until_epoch':%ld", callback->until_epoch);
    break;
  default:
    callback->until_step = random_limit(random);
    n += (size_t)sprintf(text + n, ",'until_step':%ld", callback->until_step);
  }
  return n + (size_t)sprintf(text + n, "}");
}

static fz_params *random_params(struct help_random *random) {
  fz_params *params;
  const size_t n = help_below(random, 12);
  ck_assert_int_eq(fz_params_new(&params), 0);
  for (size_t i = 0; i < n; i++) {
    const char *name = pool[help_below(random, N_POOL)];
    char text[64];
    /* Some names are pool entries as they are; a doubled or empty one is left out by whoever seals. */
    if (help_below(random, 2) && name[0])
      (void)snprintf(text, sizeof(text), "%s", name);
    else
      (void)snprintf(text, sizeof(text), "%s%s%zu", name, help_below(random, 2) ? "." : "", i);
    ck_assert_int_eq(fz_params_add(params, text, strlen(text), 1, help_below(random, 2), NULL, NULL), 0);
  }
  return params;
}

struct point {
  long step, epoch;
};

/* The next batch: the same window, the next step, a validation batch, the next epoch, or back in time. */
static void random_move(struct help_random *random, struct point *now) {
  switch (help_below(random, 12)) {
  case 0:
    now->epoch++;
    break;
  case 1:
    now->epoch += 1;
    now->step += (long)help_below(random, 3);
    break;
  case 2:
    if (help_below(random, 2)) {
      now->step = (long)help_below(random, (uint64_t)now->step + 1);
      now->epoch = (long)help_below(random, (uint64_t)now->epoch + 1);
    }
    break;
  case 3:
  case 4:
    break;
  default:
    now->step += 1 + (long)help_below(random, 2);
  }
}

static void compare_trace(struct help_random *random, fz_params *params, fz_rules *rules,
                          struct reference_callback *callbacks, size_t n_callbacks, const char *text) {
  struct trainer trainer;
  bool flags[256];
  struct point now = { (long)help_below(random, 6), (long)help_below(random, 3) };
  trainer_init(&trainer, params, rules);
  if (help_below(random, 2)) {
    trainer.max_rows = 4 + help_below(random, 6);
    trainer.max_masks = 4;
  }
  memcpy(flags, trainer.flags, sizeof(flags));
  for (unsigned batch = 0; batch < 40; batch++) {
    for (size_t i = 0; i < n_callbacks; i++)
      reference_batch(&callbacks[i], params, flags, now.step, now.epoch);
    trainer_batch(&trainer, (uint64_t)now.step, (uint64_t)now.epoch);
    ck_assert_msg(memcmp(flags, trainer.flags, trainer.n * sizeof(bool)) == 0,
                  "%s\nat step %ld, epoch %ld, batch %u: %s, lighter has %s", text, now.step, now.epoch, batch,
                  flags_text(trainer.flags, trainer.n), flags_text(flags, trainer.n));
    /* A change from outside stays until the next transition, with both. */
    if (trainer.n > 0 && help_below(random, 6) == 0) {
      const size_t i = help_below(random, trainer.n);
      flags[i] = trainer.flags[i] = !flags[i];
    }
    random_move(random, &now);
  }
  trainer_deinit(&trainer);
}

START_TEST(random_against_reference)
{
  struct help_random random = { .state = 77 };
  for (unsigned round = 0; round < 6000; round++) {
    struct reference_callback callbacks[8];
    char text[8192];
    const size_t n_callbacks = help_below(&random, 9);
    size_t n = (size_t)sprintf(text, "{'version':1,'profile':'lighter','rules':[");
    for (unsigned i = 0; i < n_callbacks; i++)
      n += random_callback(&random, i, &callbacks[i], text + n);
    (void)sprintf(text + n, "]}");
    fz_params *params = random_params(&random);
    if (fz_params_seal(params, NULL) == 0) {
      fz_rules *rules = help_rules(params, text);
      compare_trace(&random, params, rules, callbacks, n_callbacks, text);
      fz_rules_unref(rules);
    }
    fz_params_unref(params);
  }
}
END_TEST

Suite *fz_suite(void) {
  Suite *suite = suite_create("rules: lighter");
  TCase *table = tcase_create("documented");
  TCase *fuzz = tcase_create("random");
  tcase_add_loop_test(table, documented_cases, 0, (int)(sizeof(cases) / sizeof(*cases)));
  tcase_add_loop_test(table, documented_errors, 0, (int)(sizeof(errors) / sizeof(*errors)));
  tcase_set_timeout(fuzz, 60);
  tcase_add_test(fuzz, random_against_reference);
  suite_add_tcase(suite, table);
  suite_add_tcase(suite, fuzz);
  return suite;
}
