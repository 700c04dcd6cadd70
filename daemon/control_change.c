/* control_change.c - the operations that change what is frozen: one path for all of them, and for their dry run. */
#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/batch.h"
#include "daemon/control.h"
#include "daemon/guards.h"
#include "daemon/pending.h"
#include "daemon/publisher.h"
#include "daemon/revert.h"
#include "daemon/rules/explain.h"
#include "daemon/rules/planner.h"
#include "daemon/run.h"
#include "daemon/text.h"
#include "protocol/mask.h"

/** A change while it is tried: nothing of the run is touched before it is accepted. */
struct trial {
  fz_client *client;
  const fz_request *request;
  fz_run *run;
  fz_pending *pending;
  const fz_layers *before; /* without the change */
  fz_layers *layers;       /* a clone, with the change done to it */
  fz_plan plan;            /* what it would be */
  uint64_t step, epoch;
  struct fz_change_counts counts;
};

static void release(struct trial *trial) {
  fz_pending_free(trial->pending);
  fz_layers_free(trial->layers);
  fz_plan_deinit(&trial->plan);
}

static int no_memory(struct trial *trial) {
  fz_client_error(trial->client, trial->request->id, FZ_CODE_NO_MEMORY, NULL, "out of memory");
  return -ENOMEM;
}

/* --------------------------------------------------------------------------------------------- reading the request */

static int refuse_field(struct trial *trial, const char *message) {
  fz_client_error(trial->client, trial->request->id, FZ_CODE_BAD_FIELD, NULL, "%s", message);
  return -EINVAL;
}

static int check_window(struct trial *trial) {
  const fz_request *request = trial->request;
  const uint64_t start = request->at_step != FZ_TIME_NEVER ? request->at_step : trial->step;

  if (request->for_steps != FZ_TIME_NEVER && request->until_step != FZ_TIME_NEVER)
    return refuse_field(trial, "'for' and 'until_step' exclude each other");
  if (request->until_step != FZ_TIME_NEVER && request->until_step <= start)
    return refuse_field(trial, request->at_step != FZ_TIME_NEVER ? "'until_step' is not beyond 'at_step'"
                                                                 : "'until_step' is past already");
  if (request->until_epoch != FZ_TIME_NEVER && request->until_epoch <= trial->epoch)
    return refuse_field(trial, "'until_epoch' is past already");
  return 0;
}

static int bind_rules(struct trial *trial) {
  fz_diagnostics diagnostics = FZ_DIAGNOSTICS_NULL;
  fz_ruleset *ruleset = NULL;
  char *text = NULL;
  size_t length = 0;
  int r = fz_json_to_text(trial->request->rules, FZ_RULES_TEXT_MAX, &text, &length);

  if (r == 0)
    r = fz_ruleset_parse(&ruleset, text, length, &diagnostics);
  if (r == 0)
    r = fz_ruleset_bind(ruleset, trial->run->params, trial->run->name, trial->request->allow_missing,
                        &trial->pending->rules, &diagnostics);
  free(text);
  if (r == 0) {
    trial->pending->outcome.rules = fz_ruleset_count(ruleset);
    for (size_t i = 0; i < diagnostics.n; i++)
      if (diagnostics.items[i].severity == FZ_WARNING)
        fz_outcome_warn(&trial->pending->outcome, "%s", diagnostics.items[i].message);
  } else if (r == -E2BIG) {
    fz_client_error(trial->client, trial->request->id, FZ_CODE_TOO_MANY, NULL, "the rules take more than %u bytes",
                    FZ_RULES_TEXT_MAX);
  } else if (r < 0) {
    no_memory(trial);
  } else {
    fz_control_rules_invalid(trial->client, trial->request->id, &diagnostics);
  }
  fz_ruleset_unref(ruleset);
  fz_diagnostics_deinit(&diagnostics);
  return r == 0 ? 0 : -EINVAL;
}

/** Patterns or rules. Not 0: an error was answered. */
static int read_request(struct trial *trial) {
  fz_pending *pending = trial->pending;

  switch (trial->request->op) {
  case FZ_OP_RULES_LOAD:
    return bind_rules(trial);
  case FZ_OP_RULES_UNLOAD:
    if (fz_layers_rules(trial->run->layers))
      return 0;
    fz_client_error(trial->client, trial->request->id, FZ_CODE_NO_RULES, NULL, "run %s has no rules", trial->run->name);
    return -ENOENT;
  case FZ_OP_REVERT:
    return fz_revert_find(trial->client, trial->request, trial->run, pending);
  default:
    break;
  }
  pending->mask = fz_control_match(trial->client, trial->request, trial->run);
  if (!pending->mask)
    return -EINVAL;
  const size_t n = fz_params_count(trial->run->params);
  pending->outcome.matched = fz_mask_count(pending->mask, n);
  pending->outcome.matched_elements = fz_mask_elements(trial->run->params, pending->mask);
  return 0;
}

/* ----------------------------------------------------------------------------------------------------------- trying */

static void answer_now(struct trial *trial, const fz_pending *pending, bool dry_run) {
  fz_json_writer *writer = &trial->client->core->writer;

  fz_answer_begin(writer, trial->request->id);
  fz_pending_write(pending, writer, dry_run);
  fz_write_end_object(writer);
  fz_client_send(trial->client);
}

/** Answers that there was nothing to do. */
static void answer_nothing(struct trial *trial) {
  struct fz_outcome *outcome = &trial->pending->outcome;

  outcome->nothing = true;
  outcome->trainable_before = outcome->trainable_after = fz_run_trainable(trial->run, NULL);
  outcome->next = fz_plan_next(&trial->run->plan, trial->step, trial->epoch);
  answer_now(trial, trial->pending, trial->request->dry_run);
}

/** Does the change to a clone of the layers. Not 0: answered. */
static int try_change(struct trial *trial) {
  const size_t max_masks = fz_segment_masks_for(fz_params_count(trial->run->params));
  int r = fz_layers_clone(trial->before, &trial->layers);

  if (r == 0)
    r = fz_pending_apply(trial->pending, trial->layers, trial->step, trial->epoch, &trial->counts);
  if (r == FZ_CHANGE_NOTHING || r == FZ_CHANGE_NO_SUCH) {
    if (r == FZ_CHANGE_NO_SUCH && fz_guard_no_such(trial->client, trial->request, trial->run, &trial->counts))
      return -EPERM;
    answer_nothing(trial);
    return -EALREADY;
  }
  if (r > 0) {
    fz_guard_refused(trial->client, trial->request, trial->run, (enum fz_change)r, &trial->counts);
    return -EPERM;
  }
  trial->pending->outcome.dropped = trial->counts.dropped;
  if (r == 0)
    r = fz_layers_plan(trial->layers, trial->step, trial->epoch, FZ_PLAN_ROWS, max_masks, &trial->plan);
  return r < 0 ? no_memory(trial) : 0;
}

/* ------------------------------------------------------------------------------------------------------- what it does */

static const char *verb(enum fz_op op, const struct fz_mask_delta *delta) {
  if (op == FZ_OP_FREEZE)
    return "froze";
  if (op == FZ_OP_UNFREEZE)
    return "unfroze";
  return delta->froze >= delta->unfroze ? "froze" : "unfroze";
}

/** "froze model.layers.4 (7.1M)", or what was decided when no bit changes now. */
static char *describe(const struct trial *trial, const uint64_t *changed) {
  const fz_pending *pending = trial->pending;
  const struct fz_outcome *outcome = &pending->outcome;
  char count[FZ_COUNT_SIZE];
  char *names = fz_mask_describe(trial->run->params, outcome->changed || !pending->mask ? changed : pending->mask, 4);
  char *text = NULL;
  const char *name = names ? names : "parameters";

  switch (pending->op) {
  case FZ_OP_FREEZE:
  case FZ_OP_UNFREEZE:
    text = outcome->changed ? fz_text_format("%s %s (%s)", verb(pending->op, &outcome->delta), name,
                                             fz_text_elements(outcome->changed_elements, count))
                            : fz_text_format("%s override on %s (%s)", fz_op_name(pending->op), name,
                                             fz_text_elements(outcome->matched_elements, count));
    break;
  case FZ_OP_PIN:
    text = fz_text_format("pinned %s%s", name,
                          pending->pin_value == FZ_PIN_FROZEN     ? ", frozen"
                          : pending->pin_value == FZ_PIN_TRAINING ? ", training"
                                                                  : "");
    break;
  case FZ_OP_UNPIN:
    text = fz_text_format("unpinned %s", name);
    break;
  case FZ_OP_AUTO:
    text = fz_text_format("dropped %zu override%s on %s", outcome->dropped, fz_text_plural(outcome->dropped), name);
    break;
  case FZ_OP_RULES_LOAD:
    text = fz_text_format("loaded %zu rule%s%s%s", outcome->rules, fz_text_plural(outcome->rules),
                          pending->source ? " from " : "", pending->source ? pending->source : "");
    break;
  case FZ_OP_RULES_UNLOAD:
    text = strdup("unloaded the rules");
    break;
  case FZ_OP_REVERT:
    text = outcome->changed ? fz_text_format("reverted to gen %" PRIu64 ": %s %s (%s)", pending->to_gen,
                                             verb(pending->op, &outcome->delta), name,
                                             fz_text_elements(outcome->changed_elements, count))
                            : fz_text_format("reverted to gen %" PRIu64, pending->to_gen);
    break;
  default:
    break;
  }
  free(names);
  return text;
}

/**
 * The command that takes it back. What is queued before this change would go with it, and has no gen yet that one could
 * go back to; a change of a run without a plan has none either.
 */
static char *undo_of(const struct trial *trial) {
  const fz_run *run = trial->run;

  switch (trial->pending->op) {
  case FZ_OP_FREEZE:
  case FZ_OP_UNFREEZE:
  case FZ_OP_PIN:
  case FZ_OP_RULES_LOAD:
    break;
  default:
    return NULL;
  }
  if (run->plan.gen == 0 || run->adopted)
    return NULL;
  if (run->batch.n)
    return NULL;
  for (const fz_pending *pending = run->pendings; pending; pending = pending->next)
    if (pending->gen == 0)
      return NULL;
  return fz_text_format("freezerctl revert %" PRIu64, run->plan.gen);
}

/** Sentences on what the change does not do, or does only later. */
static void take_notes(const struct trial *trial) {
  fz_pending *pending = trial->pending;
  struct fz_outcome *outcome = &pending->outcome;
  char number[FZ_COUNT_SIZE];
  char *why;

  if (trial->counts.pinned) {
    why = fz_cause_text(trial->layers, &trial->counts.pinned_by, trial->counts.pinned_first);
    fz_outcome_note(outcome, "%zu parameter%s stay%s as %s: %s", trial->counts.pinned,
                    fz_text_plural(trial->counts.pinned), trial->counts.pinned == 1 ? "s" : "",
                    trial->counts.pinned == 1 ? "it is" : "they are", why ? why : "pinned");
    free(why);
  }
  if (pending->at_step != FZ_TIME_NEVER && pending->at_step > trial->step)
    fz_outcome_note(outcome, "from step %s on", fz_text_number(pending->at_step, number));
  if (outcome->changed == 0 && (pending->op == FZ_OP_FREEZE || pending->op == FZ_OP_UNFREEZE) && pending->mask &&
      (pending->at_step == FZ_TIME_NEVER || pending->at_step <= trial->step)) {
    const size_t first = fz_mask_next(pending->mask, fz_params_count(trial->run->params), 0);
    struct fz_cause cause;
    why = fz_layers_cause(trial->before, trial->step, trial->epoch, first, &cause) == 0
            ? fz_cause_text(trial->before, &cause, first)
            : NULL;
    fz_outcome_note(outcome, "already %s by %s; now held by your override",
                    pending->op == FZ_OP_FREEZE ? "frozen" : "training", why ? why : "what was decided before");
    free(why);
  }
  if (!fz_run_complete(trial->run) && !trial->request->dry_run)
    fz_outcome_note(outcome, "not all ranks are attached: it will be in the first plan when they are");
  if (trial->run->adopted)
    fz_outcome_warn(outcome, "freezerd was restarted: earlier overrides, pins and loaded rules end with this change");
}

/** Compares before and after, at the step at which it would begin. Not 0: answered. */
static int measure(struct trial *trial) {
  const fz_run *run = trial->run;
  const size_t n = fz_params_count(run->params), words = fz_mask_words(n);
  struct fz_outcome *outcome = &trial->pending->outcome;
  uint64_t *before = calloc(3 * words + 1, sizeof(*before)), *after, *changed;
  size_t more = 0;
  int r = before ? 0 : -ENOMEM;

  if (r == 0) {
    after = before + words;
    changed = after + words;
    /* After a restart without state what holds is the old plan, whatever the layers say. */
    r =
      run->adopted ? fz_run_mask(run, before) : fz_layers_eval(trial->before, trial->step, trial->epoch, before, NULL);
    if (r == 0)
      r = fz_layers_eval(trial->layers, trial->step, trial->epoch, after, NULL);
  }
  if (r < 0) {
    free(before);
    return no_memory(trial);
  }
  for (size_t w = 0; w < words; w++)
    changed[w] = before[w] ^ after[w];
  outcome->delta = fz_mask_compare(run->params, before, after);
  outcome->changed = outcome->delta.froze + outcome->delta.unfroze;
  outcome->changed_elements = outcome->delta.froze_elements + outcome->delta.unfroze_elements;
  outcome->trainable_before = fz_mask_elements(run->params, before);
  outcome->trainable_after =
    outcome->trainable_before - outcome->delta.froze_elements + outcome->delta.unfroze_elements;
  outcome->next = fz_plan_next(&trial->plan, trial->step, trial->epoch);
  (void)fz_mask_names(run->params, changed, 8, &outcome->names, &outcome->n_names, &more);
  outcome->text = describe(trial, changed);
  outcome->undo = undo_of(trial);
  take_notes(trial);
  free(before);
  return outcome->text ? 0 : no_memory(trial);
}

/* ------------------------------------------------------------------------------------------------------- all of it */

/** Whatever waits for the disk and has to do with it goes first. */
static void begin(struct trial *trial) {
  fz_run *run = trial->run;

  if (!fz_batch_takes(run, trial->pending->mask))
    fz_batches_settle(run->core);
  trial->before = fz_batch_layers(run);
  fz_publisher_point(run, &trial->step, &trial->epoch);
}

static void finish(struct trial *trial) {
  fz_run *run = trial->run;

  if (trial->request->dry_run) {
    answer_now(trial, trial->pending, true);
    return;
  }
  if (fz_batch_add(run, trial->client, trial->request, trial->pending, trial->layers, trial->step) < 0)
    return;
  trial->pending = NULL;
  trial->layers = NULL;
}

void fz_op_change(fz_client *client, const fz_request *request) {
  struct trial trial = {
    .client = client,
    .request = request,
    .run = fz_control_run(client, request),
    .plan = FZ_PLAN_NULL,
  };

  if (!trial.run)
    return;
  if (trial.run->n_pendings + trial.run->batch.n >= FZ_PENDING_MAX) {
    fz_client_error(client, request->id, FZ_CODE_TOO_MANY, "'freezerctl status' names the rank that holds them up",
                    "%u changes wait for the ranks of run %s already", FZ_PENDING_MAX, trial.run->name);
    return;
  }
  if (fz_pending_new(&trial.pending, trial.run, request, fz_connection_peer(client->connection)->uid) < 0) {
    no_memory(&trial);
    return;
  }
  if (read_request(&trial) == 0) {
    begin(&trial);
    if (check_window(&trial) == 0 && try_change(&trial) == 0 && measure(&trial) == 0 &&
        fz_guard_judge(client, request, trial.run, trial.before, trial.layers, &trial.plan, &trial.pending->outcome) ==
          0 &&
        fz_guard_revert(client, request, trial.pending, &trial.pending->outcome) == 0)
      finish(&trial);
  }
  release(&trial);
}
