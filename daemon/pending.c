/* pending.c - a change that was accepted, until every rank has it. */
#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/client.h"
#include "daemon/clock.h"
#include "daemon/pending.h"
#include "daemon/publisher.h"
#include "daemon/record.h"
#include "daemon/run.h"
#include "daemon/text.h"
#include "daemon/watchers.h"
#include "protocol/mask.h"

/* ------------------------------------------------------------------------------------------------------------- life */

static int copy_text(char **place, const char *text) {
  if (!text)
    return 0;
  *place = strdup(text);
  return *place ? 0 : -ENOMEM;
}

static int copy_patterns(fz_pending *pending, const fz_request *request) {
  if (!request->n_patterns)
    return 0;
  pending->patterns = calloc(request->n_patterns, sizeof(*pending->patterns));
  if (!pending->patterns)
    return -ENOMEM;
  for (const fz_json *item = fz_json_first(request->patterns); item; item = fz_json_next(item)) {
    if (copy_text(&pending->patterns[pending->n_patterns], fz_json_string(item)) < 0)
      return -ENOMEM;
    pending->n_patterns++;
  }
  return 0;
}

static int copy_who(fz_pending *pending, const fz_request *request, uint64_t uid) {
  char number[32];

  snprintf(number, sizeof(number), "uid %" PRIu64, uid);
  pending->uid = uid;
  if (copy_text(&pending->user, request->by_user ? request->by_user : number) < 0 ||
      copy_text(&pending->host, request->by_host) < 0 || copy_text(&pending->reason, request->reason) < 0)
    return -ENOMEM;
  pending->by = pending->host ? fz_text_format("%s@%s", pending->user, pending->host) : strdup(pending->user);
  return pending->by ? 0 : -ENOMEM;
}

int fz_pending_new(fz_pending **ret_pending, fz_run *run, const fz_request *request, uint64_t uid) {
  fz_pending *pending = calloc(1, sizeof(*pending));

  if (!pending)
    return -ENOMEM;
  pending->run = run;
  pending->op = request->op;
  pending->for_steps = request->for_steps;
  pending->at_step = request->at_step;
  pending->until_step = request->until_step;
  pending->until_epoch = request->until_epoch;
  pending->pin_value = request->pin_value;
  pending->include_baseline = request->include_baseline && request->force;
  pending->step = FZ_TIME_NEVER;
  pending->time_ms = fz_clock_utc_ms();
  pending->accepted_ms = fz_clock_ms();
  pending->outcome.until_step = pending->outcome.until_epoch = FZ_TIME_NEVER;
  pending->outcome.next = (struct fz_next){ .step = FZ_TIME_NEVER, .epoch = FZ_TIME_NEVER };
  if (copy_patterns(pending, request) < 0 || copy_who(pending, request, uid) < 0 ||
      copy_text(&pending->source, request->source) < 0) {
    fz_pending_free(pending);
    return -ENOMEM;
  }
  *ret_pending = pending;
  return 0;
}

static void free_texts(char **texts, size_t n) {
  for (size_t i = 0; i < n; i++)
    free(texts[i]);
}

fz_pending *fz_pending_free(fz_pending *pending) {
  if (!pending)
    return NULL;
  if (pending->waiter)
    pending->waiter->pending = NULL;
  free_texts(pending->patterns, pending->n_patterns);
  free(pending->patterns);
  free(pending->mask);
  fz_rules_unref(pending->rules);
  fz_layers_free(pending->target);
  free(pending->rules_by);
  free(pending->source);
  free(pending->user);
  free(pending->host);
  free(pending->reason);
  free(pending->by);
  struct fz_outcome *outcome = &pending->outcome;
  free_texts(outcome->names, outcome->n_names);
  free(outcome->names);
  free_texts(outcome->notes, outcome->n_notes);
  free_texts(outcome->warnings, outcome->n_warnings);
  free(outcome->text);
  free(outcome->undo);
  free(pending);
  return NULL;
}

__attribute__((format(printf, 4, 0))) static void add_text(char **texts, size_t *n, size_t max, const char *format,
                                                           va_list arguments) {
  char *text;

  if (*n >= max || vasprintf(&text, format, arguments) < 0)
    return;
  texts[(*n)++] = text;
}

void fz_outcome_note(struct fz_outcome *outcome, const char *format, ...) {
  va_list arguments;

  va_start(arguments, format);
  add_text(outcome->notes, &outcome->n_notes, sizeof(outcome->notes) / sizeof(*outcome->notes), format, arguments);
  va_end(arguments);
}

void fz_outcome_warn(struct fz_outcome *outcome, const char *format, ...) {
  va_list arguments;

  va_start(arguments, format);
  add_text(outcome->warnings, &outcome->n_warnings, sizeof(outcome->warnings) / sizeof(*outcome->warnings), format,
           arguments);
  va_end(arguments);
}

/* ------------------------------------------------------------------------------------------------------------ doing */

static struct fz_window window_of(fz_pending *pending, uint64_t step) {
  struct fz_window window = FZ_WINDOW_ALWAYS;

  if (pending->at_step != FZ_TIME_NEVER)
    window.from_step = pending->at_step;
  window.until_step = pending->until_step;
  window.until_epoch = pending->until_epoch;
  if (pending->for_steps != FZ_TIME_NEVER) {
    const uint64_t start = window.from_step > step ? window.from_step : step;
    window.until_step = pending->for_steps > FZ_STEP_MAX - start ? FZ_STEP_MAX : start + pending->for_steps;
  }
  pending->assumed_step = step;
  pending->outcome.until_step = window.until_step;
  pending->outcome.until_epoch = window.until_epoch;
  return window;
}

int fz_pending_apply(fz_pending *pending, fz_layers *layers, uint64_t step, uint64_t epoch,
                     struct fz_change_counts *counts) {
  const struct fz_who who = { .uid = pending->uid, .user = pending->user, .host = pending->host };
  const char *const *patterns = (const char *const *)pending->patterns;

  switch (pending->op) {
  case FZ_OP_FREEZE:
  case FZ_OP_UNFREEZE: {
    const struct fz_override_request request = {
      .action = pending->op == FZ_OP_FREEZE ? FZ_FREEZE : FZ_TRAIN,
      .patterns = patterns,
      .n_patterns = pending->n_patterns,
      .mask = pending->mask,
      .window = window_of(pending, step),
      .include_baseline = pending->include_baseline,
      .time_ms = pending->time_ms,
      .who = who,
      .reason = pending->reason,
    };
    return fz_layers_add_override(layers, &request, step, epoch, counts);
  }
  case FZ_OP_PIN: {
    const struct fz_pin_request request = {
      .value = pending->pin_value,
      .patterns = patterns,
      .n_patterns = pending->n_patterns,
      .mask = pending->mask,
      .include_baseline = pending->include_baseline,
      .time_ms = pending->time_ms,
      .who = who,
      .reason = pending->reason,
    };
    return fz_layers_add_pin(layers, &request, step, epoch, counts);
  }
  case FZ_OP_AUTO:
    return fz_layers_drop_overrides(layers, patterns, pending->n_patterns, pending->mask, counts);
  case FZ_OP_UNPIN:
    return fz_layers_drop_pins(layers, patterns, pending->n_patterns, pending->mask, counts);
  case FZ_OP_RULES_LOAD:
  case FZ_OP_RULES_UNLOAD:
    return fz_layers_set_rules(layers, pending->rules, step, epoch);
  case FZ_OP_REVERT:
    return fz_layers_adopt(layers, pending->target, step, epoch);
  case FZ_OP_PING:
  case FZ_OP_RUNS:
  case FZ_OP_STATUS:
  case FZ_OP_LIST:
  case FZ_OP_IS_FROZEN:
  case FZ_OP_RULES_CHECK:
  case FZ_OP_RULES_SHOW:
  case FZ_OP_EXPLAIN:
  case FZ_OP_WATCH:
  case FZ_OP_WAIT:
  case FZ_OP_HISTORY:
    break;
  }
  return -EINVAL;
}

static bool covers(const uint64_t *big, const uint64_t *small, size_t n_params) {
  for (size_t w = 0; w < fz_mask_words(n_params); w++)
    if (small[w] & ~big[w])
      return false;
  return true;
}

static bool is_override(const fz_pending *pending) {
  return pending->op == FZ_OP_FREEZE || pending->op == FZ_OP_UNFREEZE;
}

static bool is_rules(const fz_pending *pending) {
  return pending->op == FZ_OP_RULES_LOAD || pending->op == FZ_OP_RULES_UNLOAD;
}

bool fz_pending_replaces(const fz_pending *later, const fz_pending *earlier) {
  if (later->op == FZ_OP_REVERT || earlier->op == FZ_OP_REVERT)
    return later->op == FZ_OP_REVERT;
  if (is_rules(later) || is_rules(earlier))
    return is_rules(later) && is_rules(earlier);
  const bool same_layer = (is_override(earlier) && (is_override(later) || later->op == FZ_OP_AUTO)) ||
                          (earlier->op == FZ_OP_AUTO && is_override(later)) ||
                          (earlier->op == FZ_OP_PIN && later->op == FZ_OP_UNPIN);
  if (!same_layer || !covers(later->mask, earlier->mask, fz_params_count(later->run->params)))
    return false;
  /* An override that begins later or ends at all lets the earlier one show before and after. */
  return !is_override(later) || (later->at_step == FZ_TIME_NEVER && later->for_steps == FZ_TIME_NEVER &&
                                 later->until_step == FZ_TIME_NEVER && later->until_epoch == FZ_TIME_NEVER);
}

/* ------------------------------------------------------------------------------------------------------- the queue */

void fz_pending_enqueue(fz_pending *pending) {
  fz_pending **link = &pending->run->pendings;

  while (*link)
    link = &(*link)->next;
  *link = pending;
  pending->next = NULL;
  pending->run->n_pendings++;
}

/** Answers it, keeps it as history and frees it. */
static void finish(fz_run *run, fz_pending **link) {
  fz_pending *pending = *link;

  *link = pending->next;
  run->n_pendings--;
  if (pending->waiter)
    fz_waiter_change_done(pending->waiter);
  fz_pending_free(pending);
}

static void remember(fz_pending *pending, const char *note, uint64_t gen, uint64_t step) {
  struct fz_outcome *outcome = &pending->outcome;
  const struct fz_recent_entry entry = {
    .time_ms = pending->time_ms,
    .incarnation = pending->run->incarnation,
    .gen = gen,
    .step = step,
    .action = fz_op_name(pending->op),
    .text = fz_text_format("%s%s", outcome->text ? outcome->text : fz_op_name(pending->op), note),
    .by = strdup(pending->by),
    .reason = pending->reason ? strdup(pending->reason) : NULL,
    .params = outcome->changed,
    .elements = outcome->changed_elements,
  };
  fz_recent_add(&pending->run->recent, &entry);
}

static void supersede(fz_pending *pending, uint64_t gen) {
  fz_run *run = pending->run;

  pending->superseded_by = gen;
  remember(pending, ", superseded before it was published", gen, FZ_TIME_NEVER);
  fz_record_add(run, &(const struct fz_record){ .event = "superseded", .gen = gen, .pending = pending });
  fz_log_write(&run->core->log, FZ_LOG_NOTICE, FZ_LOG_ABOUT(.event = "change", .run = run->name, .gen = gen),
               "%s: never in effect, a later change replaced it before it was published", pending->outcome.text);
  fz_watch_tell(run->core, FZ_EVENT(.event = "superseded", .run = run, .has = FZ_EVENT_GEN, .gen = gen,
                                    .by = pending->by, .text = pending->outcome.text, .reason = pending->reason));
}

void fz_pendings_published(fz_run *run, uint64_t gen, uint64_t from, uint64_t epoch) {
  const struct fz_next next = fz_plan_next(&run->plan, from, epoch);
  fz_pending **link = &run->pendings;

  while (*link) {
    fz_pending *pending = *link;
    if (pending->gen != 0) {
      link = &pending->next;
      continue;
    }
    bool replaced = false;
    if (!pending->resolved)
      for (const fz_pending *later = pending->next; later && !replaced; later = later->next)
        replaced = !later->resolved && fz_pending_replaces(later, pending);
    if (replaced) {
      supersede(pending, gen);
      finish(run, link);
      continue;
    }
    pending->gen = gen;
    pending->from = from;
    pending->step = FZ_TIME_NEVER;
    if (!pending->resolved) {
      pending->outcome.next = next;
      remember(pending, "", gen, from);
    }
    link = &pending->next;
  }
  for (fz_pending *pending = run->pendings; pending; pending = pending->next) {
    pending->resolved = true;
    free(pending->mask);
    pending->mask = NULL;
  }
}

bool fz_pending_waits_for(const fz_pending *pending, uint32_t rank) {
  return pending->gen == 0 || pending->run->ranks[rank].gen < pending->gen;
}

static bool is_applied(const fz_pending *pending) {
  const fz_run *run = pending->run;

  if (pending->gen == 0 || run->world == 0)
    return false;
  for (uint32_t i = 0; i < run->world; i++)
    if (fz_pending_waits_for(pending, i))
      return false;
  return true;
}

/*
 * Every rank takes a plan at its first step from `from` on. One that reports a newer plan has passed this one by, because
 * that became active at the same step, or its report was replaced by the newer one on the way: in effect it was from
 * `from` on either way.
 */
void fz_pendings_taken(fz_run *run, uint64_t gen, uint64_t step) {
  for (fz_pending *pending = run->pendings; pending; pending = pending->next) {
    if (pending->gen == 0 || pending->gen > gen)
      continue;
    const uint64_t from = pending->gen == gen || pending->from > step ? step : pending->from;
    if (from < pending->step)
      pending->step = from;
  }
}

/** A rank that came back holding the plan reports nothing: then it is the step that the plan was made for. */
static uint64_t step_of(const fz_pending *pending) {
  return pending->step != FZ_TIME_NEVER ? pending->step : pending->from;
}

void fz_pendings_check(fz_run *run) {
  fz_pending **link = &run->pendings;

  while (*link) {
    fz_pending *pending = *link;
    if (!is_applied(pending)) {
      link = &pending->next;
      continue;
    }
    pending->step = step_of(pending);
    fz_recent_settle(&run->recent, run->incarnation, pending->gen, pending->step);
    fz_record_add(
      run, &(const struct fz_record){
             .event = "applied", .gen = pending->gen, .has_step = true, .step = pending->step, .pending = pending });
    fz_log_write(&run->core->log, FZ_LOG_INFO, FZ_LOG_ABOUT(.event = "change", .run = run->name, .gen = pending->gen),
                 "gen %" PRIu64 " applied by %" PRIu32 "/%" PRIu32 " ranks at step %" PRIu64 ": %s", pending->gen,
                 run->world, run->world, pending->step, pending->outcome.text);
    fz_watch_tell(run->core, FZ_EVENT(.event = "applied", .run = run, .has = FZ_EVENT_GEN | FZ_EVENT_STEP,
                                      .gen = pending->gen, .step = pending->step, .froze = pending->outcome.delta.froze,
                                      .unfroze = pending->outcome.delta.unfroze, .by = pending->by,
                                      .reason = pending->reason, .text = pending->outcome.text));
    finish(run, link);
  }
}

void fz_pendings_requeue(fz_run *run) {
  for (fz_pending *pending = run->pendings; pending; pending = pending->next) {
    pending->gen = 0;
    pending->step = FZ_TIME_NEVER;
  }
}

void fz_pendings_run_ended(fz_run *run) {
  for (fz_pending *pending = run->pendings; pending; pending = pending->next)
    if (pending->waiter)
      fz_waiter_change_done(pending->waiter);
}

/* ----------------------------------------------------------------------------------------------------- the answer */

static char *why_missing(const fz_run *run, uint32_t rank, const fz_pending *pending) {
  const struct fz_rank *state = &run->ranks[rank];
  char number[FZ_COUNT_SIZE];

  if (!run->live)
    return strdup("the run has ended; its next launch begins with the change");
  if (!state->trainer)
    return strdup(fz_run_rank_lives(run, rank) ? "not connected" : "not there");
  if (!state->attached)
    return strdup("not attached yet");
  if (pending->gen == 0 && !fz_publisher_waits_for(run, rank))
    return strdup(fz_run_complete(run) ? "the change waits for a rank that stands still" : "other ranks are missing");
  const uint64_t quiet = fz_clock_ms() - state->heard_ms;
  if (quiet > 5000)
    return fz_text_format("says nothing for %" PRIu64 " s, holds gen %" PRIu64, quiet / 1000, state->gen);
  if (state->step == FZ_TIME_NEVER)
    return fz_text_format("holds gen %" PRIu64 ", has begun no step", state->gen);
  return fz_text_format("holds gen %" PRIu64 ", at step %s", state->gen, fz_text_number(state->step, number));
}

static void write_missing(const fz_pending *pending, fz_json_writer *writer) {
  const fz_run *run = pending->run;

  fz_write_begin_array(writer, "missing");
  for (uint32_t i = 0; i < run->world; i++) {
    if (!fz_pending_waits_for(pending, i))
      continue;
    char *reason = why_missing(run, i, pending);
    fz_write_begin_object(writer, NULL);
    fz_write_integer(writer, "rank", i);
    fz_write_string(writer, "reason", reason ? reason : "");
    fz_write_end_object(writer);
    free(reason);
  }
  fz_write_end_array(writer);
}

static void write_texts(fz_json_writer *writer, const char *key, char *const *texts, size_t n) {
  fz_write_begin_array(writer, key);
  for (size_t i = 0; i < n; i++)
    fz_write_string(writer, NULL, texts[i]);
  fz_write_end_array(writer);
}

static uint32_t ranks_with(const fz_pending *pending) {
  uint32_t ranks = 0;
  for (uint32_t i = 0; i < pending->run->world; i++)
    ranks += !fz_pending_waits_for(pending, i);
  return ranks;
}

static void write_state(const fz_pending *pending, fz_json_writer *writer, bool dry_run) {
  const fz_run *run = pending->run;
  const bool nothing = pending->outcome.nothing;
  const uint64_t gen = nothing ? run->plan.gen : pending->gen;
  const bool applied = !dry_run && (nothing || is_applied(pending));

  if (gen && !dry_run)
    fz_write_integer(writer, "gen", gen);
  else
    fz_write_null(writer, "gen");
  fz_write_bool(writer, "applied", applied);
  fz_write_time(writer, "step", applied && !nothing ? step_of(pending) : FZ_TIME_NEVER);
  fz_write_integer(writer, "ranks", nothing ? fz_run_attached(run) : ranks_with(pending));
  fz_write_integer(writer, "world", run->world);
  if (!dry_run && !applied && !pending->superseded_by) {
    write_missing(pending, writer);
  } else {
    fz_write_begin_array(writer, "missing");
    fz_write_end_array(writer);
  }
  if (pending->superseded_by)
    fz_write_integer(writer, "superseded_by", pending->superseded_by);
  else
    fz_write_null(writer, "superseded_by");
  fz_write_integer(writer, "waited_ms", dry_run || nothing ? 0 : fz_clock_ms() - pending->accepted_ms);
}

static void write_next(const struct fz_next *next, fz_json_writer *writer, bool known) {
  if (!known || (next->step == FZ_TIME_NEVER && next->epoch == FZ_TIME_NEVER)) {
    fz_write_null(writer, "next");
    return;
  }
  fz_write_begin_object(writer, "next");
  if (next->step != FZ_TIME_NEVER)
    fz_write_integer(writer, "step", next->step);
  if (next->epoch != FZ_TIME_NEVER)
    fz_write_integer(writer, "epoch", next->epoch);
  fz_write_end_object(writer);
}

void fz_pending_write(const fz_pending *pending, fz_json_writer *writer, bool dry_run) {
  const struct fz_outcome *outcome = &pending->outcome;
  const fz_run *run = pending->run;

  fz_write_string(writer, "run", run->name);
  fz_write_string(writer, "action", fz_op_name(pending->op));
  fz_write_integer(writer, "matched", outcome->matched);
  fz_write_integer(writer, "matched_elements", outcome->matched_elements);
  fz_write_integer(writer, "changed", outcome->changed);
  fz_write_integer(writer, "changed_elements", outcome->changed_elements);
  write_texts(writer, "changed_names", outcome->names, outcome->n_names);
  fz_write_bool(writer, "nothing", outcome->nothing);
  fz_write_bool(writer, "dry_run", dry_run);
  write_state(pending, writer, dry_run);
  fz_write_integer(writer, "trainable_before", outcome->trainable_before);
  fz_write_integer(writer, "trainable_after", outcome->trainable_after);
  fz_write_integer(writer, "n_params", fz_params_count(run->params));
  fz_write_integer(writer, "elements", fz_params_elements(run->params));
  /* While it is queued, `for` is not yet counted from anywhere. */
  const bool known = pending->for_steps == FZ_TIME_NEVER || pending->resolved || dry_run;
  fz_write_time(writer, "until_step", known ? outcome->until_step : FZ_TIME_NEVER);
  fz_write_time(writer, "until_epoch", outcome->until_epoch);
  fz_write_integer(writer, "dropped", outcome->dropped);
  fz_write_integer(writer, "rules", outcome->rules);
  if (pending->op == FZ_OP_REVERT) {
    fz_write_integer(writer, "to_gen", pending->to_gen);
    fz_write_integer(writer, "undone", pending->undone);
  }
  write_next(&outcome->next, writer, known || outcome->nothing);
  fz_write_string(writer, "undo", dry_run ? NULL : outcome->undo);
  write_texts(writer, "notes", outcome->notes, outcome->n_notes);
  write_texts(writer, "warnings", outcome->warnings, outcome->n_warnings);
}
