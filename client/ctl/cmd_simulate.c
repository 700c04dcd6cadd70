/* cmd_simulate.c - simulate: evaluates rules over a range of steps with the daemon's engine, without a daemon. */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/ctl/changes.h"
#include "client/ctl/errors.h"
#include "client/ctl/human.h"
#include "client/ctl/output.h"
#include "client/ctl/paramsfile.h"
#include "client/ctl/rulesfile.h"
#include "client/ctl/table.h"
#include "client/ctl/verbs.h"
#include "daemon/rules/layers.h"
#include "daemon/rules/planner.h"
#include "protocol/mask.h"
#include "protocol/segment.h"

/*
 * A run that begins at step `first` is played through: a plan is made there, and made again on reaching its wake_step or
 * wake_epoch, as freezerd does. Between two boundaries nothing can change, so steps are not gone through one by one.
 */
struct simulation {
  const fz_ctl *ctl;
  fz_params *params;
  fz_layers *layers;
  fz_plan plan;
  uint64_t first, end;
  uint64_t epoch_every; /* 0: everything is epoch 0 */
  bool every_step;
};

/** What is done at each point that is visited: `changed` tells whether the mask differs from the one before. */
typedef int (*visit_fn)(void *user, uint64_t step, uint64_t epoch, const uint64_t *mask, bool changed);

static uint64_t epoch_at(const struct simulation *sim, uint64_t step) {
  return sim->epoch_every ? step / sim->epoch_every : 0;
}

/* The step at which `epoch` begins, FZ_TIME_NEVER if it does not. */
static uint64_t step_of_epoch(const struct simulation *sim, uint64_t epoch) {
  uint64_t step;
  if (epoch == 0)
    return 0;
  if (sim->epoch_every == 0 || epoch == FZ_TIME_NEVER || __builtin_mul_overflow(epoch, sim->epoch_every, &step))
    return FZ_TIME_NEVER;
  return step;
}

static void take_lower(uint64_t candidate, uint64_t after, uint64_t *lowest) {
  if (candidate > after && candidate < *lowest)
    *lowest = candidate;
}

/* The next step after `step` at which the plan may say something else, or has to be made again. */
static uint64_t next_boundary(const struct simulation *sim, uint64_t step) {
  uint64_t next = sim->end;
  for (size_t i = 0; i < sim->plan.n_rows; i++) {
    take_lower(sim->plan.rows[i].from_step, step, &next);
    take_lower(step_of_epoch(sim, sim->plan.rows[i].from_epoch), step, &next);
  }
  take_lower(sim->plan.wake_step, step, &next);
  take_lower(step_of_epoch(sim, sim->plan.wake_epoch), step, &next);
  return next;
}

static int make_plan(struct simulation *sim, uint64_t step, uint64_t epoch) {
  return fz_layers_plan(sim->layers, step, epoch, FZ_PLAN_ROWS, fz_segment_masks_for(fz_params_count(sim->params)),
                        &sim->plan);
}

/* Plays the run through. 0, -ENOMEM, or what `visit` returned when that is not 0. */
static int play(struct simulation *sim, bool every_step, visit_fn visit, void *user) {
  const size_t bytes = fz_mask_words(fz_params_count(sim->params)) * sizeof(uint64_t);
  uint64_t *last = malloc(bytes ? bytes : 1);
  uint64_t step = sim->first;
  int r = last ? make_plan(sim, step, epoch_at(sim, step)) : -ENOMEM;

  /* The first batch is where the callbacks of profile lighter begin, whatever the plan is made again for. */
  if (r == 0)
    r = fz_layers_anchor(sim->layers, step, epoch_at(sim, step));
  while (r == 0 && step < sim->end) {
    const uint64_t epoch = epoch_at(sim, step);
    if (step >= sim->plan.wake_step || epoch >= sim->plan.wake_epoch)
      r = make_plan(sim, step, epoch);
    if (r < 0)
      break;
    const uint64_t *mask = fz_plan_mask(&sim->plan, fz_plan_row_at(sim->plan.rows, sim->plan.n_rows, step, epoch));
    const bool changed = step == sim->first || memcmp(mask, last, bytes) != 0;
    memcpy(last, mask, bytes);
    if (changed || every_step)
      r = visit(user, step, epoch, last, changed);
    step = every_step ? step + 1 : next_boundary(sim, step);
  }
  free(last);
  return r;
}

/* --- the guard --- */

struct empty_search {
  size_t n_params;
  bool found;
  uint64_t step;
};

static int look_for_empty(void *user, uint64_t step, uint64_t epoch, const uint64_t *mask, bool changed) {
  struct empty_search *search = user;
  (void)epoch;
  (void)changed;
  if (fz_mask_count(mask, search->n_params) > 0)
    return 0;
  search->found = true;
  search->step = step;
  return 1;
}

/* Warns of rules that would freeze everything in the range: to load them would be refused, to look at them is not. */
static int warn_of_empty(struct simulation *sim) {
  struct empty_search search = { .n_params = fz_params_count(sim->params) };

  if (fz_mask_count(fz_params_baseline(sim->params), search.n_params) == 0)
    return 0;
  if (play(sim, false, look_for_empty, &search) < 0)
    return fz_fail_memory(sim->ctl);
  if (search.found)
    fz_warn("warning: nothing trains at step %s", fz_number(search.step).text);
  return 0;
}

/* --- JSON --- */

struct json_output {
  size_t n_params;
  char *text; /* a mask, as characters */
  bool first;
};

static int print_entry(void *user, uint64_t step, uint64_t epoch, const uint64_t *mask, bool changed) {
  struct json_output *out = user;
  (void)changed;
  for (size_t i = 0; i < out->n_params; i++)
    out->text[i] = fz_mask_get(mask, i) ? '1' : '0';
  printf("%s{\"step\":%llu,\"epoch\":%llu,\"mask\":\"", out->first ? "" : ",", (unsigned long long)step,
         (unsigned long long)epoch);
  fwrite(out->text, 1, out->n_params, stdout);
  fputs("\"}", stdout);
  out->first = false;
  /* Nobody reads on: no need to compute the rest. */
  return ferror(stdout) ? 1 : 0;
}

/* Prints entry by entry: a long range with --every-step need not fit into memory. */
static int print_json(struct simulation *sim) {
  struct json_output out = { .n_params = fz_params_count(sim->params), .first = true };
  fz_json_writer writer = FZ_JSON_WRITER_NULL;
  const char *head;
  size_t length;

  out.text = malloc(out.n_params + 1);
  fz_output_begin_command(&writer, sim->ctl);
  fz_write_begin_array(&writer, "params");
  for (size_t i = 0; i < out.n_params; i++)
    fz_write_string(&writer, NULL, fz_params_get(sim->params, i)->name);
  fz_write_end_array(&writer);
  int r = out.text ? fz_writer_line(&writer, &head, &length) : -ENOMEM;
  if (r == 0) {
    fwrite(head, 1, length - 1, stdout);
    fputs(",\"masks\":[", stdout);
    r = play(sim, sim->every_step, print_entry, &out);
    if (r == 0)
      fputs("]}\n", stdout);
  }
  fz_writer_deinit(&writer);
  free(out.text);
  return r < 0 ? fz_fail_memory(sim->ctl) : FZ_EXIT_DONE;
}

/* --- the table --- */

enum { COLUMN_STEP, COLUMN_EPOCH, COLUMN_TRAINABLE, COLUMN_CHANGE };

static const struct fz_column columns[] = {
  { "STEP", "first step at which it holds", FZ_COLUMN_RIGHT },
  { "EPOCH", "epoch of that step", FZ_COLUMN_RIGHT },
  { "TRAINABLE", "share of the elements that train; with --plain their number", FZ_COLUMN_RIGHT },
  { "CHANGE", "what changes and by which rule", FZ_COLUMN_END },
};

struct table_output {
  const struct simulation *sim;
  fz_table *table;
  fz_change_teller *teller;
};

static int add_row(void *user, uint64_t step, uint64_t epoch, const uint64_t *mask, bool changed) {
  struct table_output *out = user;
  const uint64_t trains = fz_mask_elements(out->sim->params, mask);
  char raw[24], *text = NULL;
  const int r = changed ? fz_change_teller_next(out->teller, out->sim->layers, step, epoch, mask, &text) : 0;
  const long row = r < 0 ? -1 : fz_table_add(out->table, -1);
  if (row < 0)
    return -ENOMEM;
  snprintf(raw, sizeof(raw), "%llu", (unsigned long long)step);
  fz_table_set(out->table, row, COLUMN_STEP, fz_number(step).text, raw, FZ_PAINT_NONE);
  snprintf(raw, sizeof(raw), "%llu", (unsigned long long)epoch);
  fz_table_set(out->table, row, COLUMN_EPOCH, fz_number(epoch).text, raw, FZ_PAINT_NONE);
  snprintf(raw, sizeof(raw), "%llu", (unsigned long long)trains);
  fz_table_set(out->table, row, COLUMN_TRAINABLE, fz_percent(trains, fz_params_elements(out->sim->params)).text, raw,
               FZ_PAINT_NONE);
  fz_table_set(out->table, row, COLUMN_CHANGE, text ? text : "", NULL, FZ_PAINT_NONE);
  free(text);
  return 0;
}

static int print_table(struct simulation *sim) {
  struct table_output out = { .sim = sim };
  struct fz_column shown[sizeof(columns) / sizeof(columns[0])];
  int status = 0;

  memcpy(shown, columns, sizeof(columns));
  if (sim->epoch_every == 0)
    shown[COLUMN_EPOCH].flags |= FZ_COLUMN_EXTRA;
  if (!fz_table_new(sim->ctl, shown, sizeof(columns) / sizeof(columns[0]), &out.table, &status))
    return status;
  int r = fz_change_teller_new(&out.teller, sim->params);
  if (r == 0)
    r = play(sim, sim->every_step, add_row, &out);
  if (r == 0)
    r = fz_table_print(out.table);
  fz_change_teller_free(out.teller);
  fz_table_free(out.table);
  return r < 0 ? fz_fail_memory(sim->ctl) : FZ_EXIT_DONE;
}

/* --- the command --- */

/* "A:B" */
static int parse_steps(struct simulation *sim, const char *text) {
  const char *colon = strchr(text, ':');
  char *first = colon ? strndup(text, (size_t)(colon - text)) : NULL;
  const int bad = !first || fz_parse_number(first, FZ_STEP_MAX, &sim->first) < 0 ||
                  fz_parse_number(colon + 1, FZ_STEP_MAX + 1, &sim->end) < 0 || sim->first > sim->end;
  free(first);
  if (bad)
    return fz_fail(sim->ctl, "usage", "from step A to before step B, for example --steps 0:12000",
                   "--steps: '%s' is no range A:B", text);
  return 0;
}

/* Layers with the rules in them, as a run that begins now has them. */
static int make_layers(struct simulation *sim, fz_rules *rules) {
  int r = fz_layers_new(&sim->layers, sim->params);
  if (r == 0)
    r = fz_layers_set_rules(sim->layers, rules, sim->first, epoch_at(sim, sim->first));
  return r < 0 ? fz_fail_memory(sim->ctl) : 0;
}

static int simulate(struct simulation *sim, fz_rulefile *file) {
  fz_rules *rules = NULL;
  const char *every = sim->ctl->options.text[FZ_OPT_EPOCH_EVERY];

  sim->epoch_every = every ? sim->ctl->options.number[FZ_OPT_EPOCH_EVERY] : 0;
  sim->every_step = fz_given(&sim->ctl->options, FZ_OPT_EVERY_STEP);
  int status = parse_steps(sim, sim->ctl->options.text[FZ_OPT_STEPS]);
  if (status == 0)
    status = fz_params_read(sim->ctl, sim->ctl->options.text[FZ_OPT_PARAMS], &sim->params);
  if (status == 0)
    status = fz_rules_bind(sim->ctl, file, sim->params, sim->ctl->options.text[FZ_OPT_PARAMS], &rules);
  if (status == 0)
    status = make_layers(sim, rules);
  if (status == 0) {
    fz_rules_say(file);
    status = warn_of_empty(sim);
  }
  if (status == 0)
    status = fz_wants_json(sim->ctl) ? print_json(sim) : print_table(sim);
  fz_rules_unref(rules);
  return status;
}

int fz_cmd_simulate(fz_ctl *ctl) {
  __attribute__((cleanup(fz_rulefile_freep))) fz_rulefile *file = NULL;
  struct simulation sim = { .ctl = ctl, .plan = FZ_PLAN_NULL };
  int status = fz_rules_open(ctl, ctl->operands[0], &file);

  if (status == 0)
    status = simulate(&sim, file);
  fz_layers_free(sim.layers);
  fz_plan_deinit(&sim.plan);
  fz_params_unref(sim.params);
  return status;
}
