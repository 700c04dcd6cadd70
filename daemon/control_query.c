/* control_query.c - operations that only look: ping, runs, status, is_frozen, explain. */
#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/clock.h"
#include "daemon/control.h"
#include "daemon/pending.h"
#include "daemon/publisher.h"
#include "daemon/rules/explain.h"
#include "daemon/rules/planner.h"
#include "daemon/run.h"
#include "daemon/since.h"
#include "daemon/text.h"
#include "protocol/mask.h"

void fz_op_ping(fz_client *client, const fz_request *request) {
  fz_core *core = client->core;
  fz_json_writer *writer = &core->writer;

  fz_answer_begin(writer, request->id);
  fz_write_string(writer, "server", "freezerd " PACKAGE_VERSION);
  fz_write_string(writer, "version", PACKAGE_VERSION);
  fz_write_integer(writer, "protocol", FZ_PROTOCOL_VERSION);
  fz_write_integer(writer, "pid", (uint64_t)getpid());
  fz_write_integer(writer, "uptime_ms", fz_clock_ms() - core->started_ms);
  fz_write_string(writer, "socket", core->socket);
  fz_write_end_object(writer);
  fz_client_send(client);
}

/* ---------------------------------------------------------------------------------------------------------- summaries */

static void write_summary(const fz_run *run, fz_json_writer *writer) {
  size_t trainable_params = 0;
  const uint64_t trainable = fz_run_trainable(run, &trainable_params);
  fz_rules *rules = fz_layers_rules(run->layers);
  uint64_t step, epoch, at_gen = 0;

  fz_run_now(run, &step, &epoch);
  for (uint32_t i = 0; i < run->world; i++)
    at_gen += run->plan.gen > 0 && run->ranks[i].gen >= run->plan.gen;
  fz_write_string(writer, "name", run->name);
  fz_write_string(writer, "job", run->job);
  fz_write_integer(writer, "attempt", run->attempt);
  fz_write_string(writer, "framework", run->framework);
  fz_write_integer(writer, "incarnation", run->incarnation);
  fz_write_integer(writer, "world", run->world);
  fz_write_integer(writer, "ranks", fz_run_attached(run));
  fz_write_bool(writer, "live", run->live);
  fz_write_integer(writer, "step", step);
  fz_write_integer(writer, "epoch", epoch);
  if (run->step_ms > 0)
    fz_write_number(writer, "step_ms", run->step_ms);
  else
    fz_write_null(writer, "step_ms");
  fz_write_integer(writer, "gen", fz_run_gen_newest(run));
  fz_write_integer(writer, "ranks_at_gen", at_gen);
  fz_write_integer(writer, "n_params", fz_params_count(run->params));
  fz_write_integer(writer, "elements", fz_params_elements(run->params));
  fz_write_integer(writer, "trainable_params", trainable_params);
  fz_write_integer(writer, "trainable_elements", trainable);
  fz_write_integer(writer, "pending", run->n_pendings);
  fz_write_string(writer, "profile",
                  fz_profile_name(rules ? fz_ruleset_profile(fz_rules_ruleset(rules)) : FZ_PROFILE_OWNED));
}

void fz_op_runs(fz_client *client, const fz_request *request) {
  fz_json_writer *writer = &client->core->writer;

  fz_answer_begin(writer, request->id);
  fz_write_begin_array(writer, "runs");
  for (const fz_run *run = client->core->runs; run; run = run->next) {
    if (!run->params)
      continue;
    fz_write_begin_object(writer, NULL);
    write_summary(run, writer);
    fz_write_end_object(writer);
  }
  fz_write_end_array(writer);
  fz_write_end_object(writer);
  fz_client_send(client);
}

/* ------------------------------------------------------------------------------------------------------------- status */

static void write_ranks(const fz_run *run, fz_json_writer *writer) {
  fz_write_begin_array(writer, "rank_list");
  for (uint32_t i = 0; i < run->world; i++) {
    const struct fz_rank *rank = &run->ranks[i];
    uint64_t step, epoch;
    const bool known = fz_run_rank_at(run, i, &step, &epoch);
    fz_write_begin_object(writer, NULL);
    fz_write_integer(writer, "rank", i);
    fz_write_integer(writer, "pid", rank->pid);
    fz_write_bool(writer, "connected", rank->trainer != NULL);
    fz_write_bool(writer, "attached", rank->attached);
    fz_write_integer(writer, "gen", rank->gen);
    fz_write_time(writer, "step", known ? step : FZ_TIME_NEVER);
    fz_write_time(writer, "epoch", known ? epoch : FZ_TIME_NEVER);
    fz_write_end_object(writer);
  }
  fz_write_end_array(writer);
  fz_write_begin_array(writer, "missing");
  for (uint32_t i = 0; i < run->world; i++)
    if (!run->ranks[i].attached)
      fz_write_integer(writer, NULL, i);
  fz_write_end_array(writer);
}

/* A queued change reaches no rank, but it is held up by some only. */
static bool holds_up(const fz_run *run, uint32_t rank, const fz_pending *pending) {
  return pending->gen ? fz_pending_waits_for(pending, rank) : fz_publisher_waits_for(run, rank);
}

static void write_pendings(const fz_run *run, fz_json_writer *writer) {
  const uint64_t now = fz_clock_ms();

  fz_write_begin_array(writer, "pending_changes");
  for (const fz_pending *pending = run->pendings; pending; pending = pending->next) {
    fz_write_begin_object(writer, NULL);
    if (pending->gen)
      fz_write_integer(writer, "gen", pending->gen);
    else
      fz_write_null(writer, "gen");
    fz_write_string(writer, "action", fz_op_name(pending->op));
    fz_write_string(writer, "by", pending->by);
    fz_write_begin_array(writer, "waiting_for");
    for (uint32_t i = 0; i < run->world; i++)
      if (holds_up(run, i, pending))
        fz_write_integer(writer, NULL, i);
    fz_write_end_array(writer);
    fz_write_integer(writer, "since_ms", now - pending->accepted_ms);
    fz_write_end_object(writer);
  }
  fz_write_end_array(writer);
}

/* What people call one reason: the cause, without the parameter. */
static bool same_reason(const struct fz_cause *a, const struct fz_cause *b) {
  if (a->layer != b->layer)
    return false;
  if (a->layer == FZ_LAYER_BASELINE)
    return true;
  if (a->layer == FZ_LAYER_PIN)
    return a->pin_by == b->pin_by && (a->pin_by != FZ_PIN_BY_USER || a->index == b->index);
  return a->index == b->index;
}

/** Frozen by the plan of a freezerd before us, and not by the script. */
static bool is_carried(const fz_run *run, size_t i) {
  return run->adopted && fz_params_get(run->params, i)->requires_grad;
}

/** Writes one entry of `frozen`: everything in `left` with the same reason as `first`, which is taken out of it. */
static void write_frozen_group(const fz_run *run, const struct fz_cause *causes, size_t first, uint64_t *left,
                               uint64_t *group, fz_json_writer *writer) {
  const size_t n = fz_params_count(run->params);
  size_t params = 0;
  uint64_t elements = 0;

  memset(group, 0, fz_mask_words(n) * sizeof(*group));
  for (size_t i = first; i < n; i = fz_mask_next(left, n, i + 1)) {
    if (!same_reason(&causes[first], &causes[i]) || is_carried(run, first) != is_carried(run, i))
      continue;
    fz_mask_put(group, i, true);
    fz_mask_put(left, i, false);
    elements += fz_params_get(run->params, i)->elements;
    params++;
  }
  char *name = fz_mask_describe(run->params, group, 6);
  char *why = fz_since_why(run->in_force, run->adopted, &causes[first], first, false);
  fz_write_begin_object(writer, NULL);
  fz_write_string(writer, "name", name ? name : "");
  fz_write_integer(writer, "params", params);
  fz_write_integer(writer, "elements", elements);
  fz_write_string(writer, "why", why ? why : "");
  fz_write_end_object(writer);
  free(name);
  free(why);
}

static int write_frozen(const fz_run *run, uint64_t step, uint64_t epoch, fz_json_writer *writer) {
  const size_t n = fz_params_count(run->params), words = fz_mask_words(n);
  struct fz_cause *causes = calloc(n + 1, sizeof(*causes));
  uint64_t *left = calloc(2 * words + 1, sizeof(*left));
  int r = causes && left ? 0 : -ENOMEM;

  if (r == 0)
    r = fz_layers_causes(run->in_force, step, epoch, causes);
  if (r == 0)
    r = fz_run_mask(run, left);
  fz_write_begin_array(writer, "frozen");
  if (r == 0) {
    for (size_t w = 0; w < words; w++)
      left[w] = ~left[w];
    for (size_t i = fz_mask_next(left, n, 0); i < n; i = fz_mask_next(left, n, i + 1))
      write_frozen_group(run, causes, i, left, left + words, writer);
  }
  fz_write_end_array(writer);
  free(causes);
  free(left);
  return r;
}

static void write_future(const fz_run *run, uint64_t step, uint64_t epoch, fz_json_writer *writer) {
  struct fz_upcoming next = { 0 };
  const bool cut = run->plan.horizon_step != FZ_TIME_NEVER || run->plan.horizon_epoch != FZ_TIME_NEVER;

  if (!run->adopted && fz_layers_upcoming(run->in_force, step, epoch, &next) == 0 && next.text) {
    fz_write_begin_object(writer, "next");
    fz_write_time(writer, "step", next.step);
    fz_write_time(writer, "epoch", next.epoch);
    fz_write_string(writer, "text", next.text);
    fz_write_end_object(writer);
  } else {
    fz_write_null(writer, "next");
  }
  free(next.text);
  fz_write_begin_object(writer, "horizon");
  fz_write_time(writer, "step", run->plan.horizon_step);
  fz_write_time(writer, "epoch", run->plan.horizon_epoch);
  fz_write_bool(writer, "beyond", cut);
  fz_write_end_object(writer);
}

static void write_rest(const fz_run *run, fz_json_writer *writer) {
  fz_rules *rules = fz_layers_rules(run->layers);

  fz_recent_write(&run->recent, writer);
  fz_write_bool(writer, "kept", run->core->state_dir != NULL);
  fz_write_begin_array(writer, "warnings");
  for (size_t i = 0; i < run->n_warnings; i++)
    fz_write_string(writer, NULL, run->warnings[i]);
  fz_write_end_array(writer);
  fz_write_begin_object(writer, "metrics");
  for (size_t i = 0; run->metrics && i < run->metrics->n; i++)
    fz_write_number(writer, run->metrics->items[i].name, run->metrics->items[i].value);
  fz_write_end_object(writer);
  fz_write_begin_array(writer, "trainable_history");
  for (size_t i = 0; i < run->n_trainable; i++)
    fz_write_integer(writer, NULL, run->trainable_history[i]);
  fz_write_end_array(writer);
  if (!rules) {
    fz_write_null(writer, "rules");
    return;
  }
  fz_write_begin_object(writer, "rules");
  fz_write_string(writer, "source", run->rules_source);
  fz_write_integer(writer, "count", fz_ruleset_count(fz_rules_ruleset(rules)));
  fz_write_string(writer, "profile", fz_profile_name(fz_ruleset_profile(fz_rules_ruleset(rules))));
  fz_write_end_object(writer);
}

void fz_op_status(fz_client *client, const fz_request *request) {
  fz_json_writer *writer = &client->core->writer;
  const fz_run *run = fz_control_run(client, request);
  uint64_t step, epoch;

  if (!run)
    return;
  fz_run_now(run, &step, &epoch);
  fz_answer_begin(writer, request->id);
  fz_write_begin_object(writer, "status");
  write_summary(run, writer);
  write_ranks(run, writer);
  write_pendings(run, writer);
  const int r = write_frozen(run, step, epoch, writer);
  write_future(run, step, epoch, writer);
  write_rest(run, writer);
  fz_write_end_object(writer);
  fz_write_end_object(writer);
  if (r < 0) {
    fz_writer_reset(writer);
    fz_client_error(client, request->id, FZ_CODE_NO_MEMORY, NULL, "out of memory");
    return;
  }
  fz_client_send(client);
}

/* ---------------------------------------------------------------------------------------------------------- is_frozen */

static void write_unfrozen(const fz_run *run, uint64_t *mask, const uint64_t *flags, fz_json_writer *writer) {
  const size_t n = fz_params_count(run->params);
  char **names = NULL;
  size_t n_names = 0, more = 0;

  for (size_t w = 0; w < fz_mask_words(n); w++)
    mask[w] &= flags[w];
  fz_write_begin_array(writer, "names");
  if (fz_mask_names(run->params, mask, 8, &names, &n_names, &more) == 0) {
    for (size_t i = 0; i < n_names; i++)
      fz_write_string(writer, NULL, names[i]);
    fz_names_free(names, n_names);
  }
  fz_write_end_array(writer);
}

void fz_op_is_frozen(fz_client *client, const fz_request *request) {
  fz_json_writer *writer = &client->core->writer;
  const fz_run *run = fz_control_run(client, request);
  uint64_t *mask = run ? fz_control_match(client, request, run) : NULL;
  size_t matched, training = 0;

  if (!mask)
    return;
  const size_t n = fz_params_count(run->params);
  uint64_t *flags = calloc(fz_mask_words(n) + 1, sizeof(*flags));
  if (!flags || fz_run_mask(run, flags) < 0) {
    free(mask);
    free(flags);
    fz_client_error(client, request->id, FZ_CODE_NO_MEMORY, NULL, "out of memory");
    return;
  }
  matched = fz_mask_count(mask, n);
  for (size_t w = 0; w < fz_mask_words(n); w++)
    training += (size_t)__builtin_popcountll(mask[w] & flags[w]);
  fz_answer_begin(writer, request->id);
  fz_write_string(writer, "run", run->name);
  fz_write_integer(writer, "matched", matched);
  fz_write_integer(writer, "frozen", matched - training);
  fz_write_bool(writer, "all", training == 0);
  fz_write_integer(writer, "gen", fz_run_gen_held(run));
  write_unfrozen(run, mask, flags, writer);
  fz_write_end_object(writer);
  fz_client_send(client);
  free(mask);
  free(flags);
}

/* ------------------------------------------------------------------------------------------------------------ explain */

static const char *const layer_names[] = {
  [FZ_LAYER_BASELINE] = "baseline",
  [FZ_LAYER_RULE] = "rules",
  [FZ_LAYER_OVERRIDE] = "override",
  [FZ_LAYER_PIN] = "pin",
};

static void write_explanation(const fz_run *run, const fz_explanation *explanation, bool trains,
                              fz_json_writer *writer) {
  const struct fz_param *param = fz_params_get(run->params, explanation->param);

  fz_write_string(writer, "run", run->name);
  fz_write_string(writer, "param", param->name);
  fz_write_string(writer, "state", trains ? "training" : "frozen");
  fz_write_time(writer, "since_step", fz_since_step(run, explanation->param));
  fz_write_integer(writer, "gen", fz_since_gen(run, explanation->param));
  fz_write_integer(writer, "elements", param->elements);
  fz_write_begin_array(writer, "layers");
  for (size_t i = 0; i < explanation->n_lines; i++) {
    const struct fz_explain_line *line = &explanation->lines[i];
    char time[FZ_UTC_SIZE];
    fz_write_begin_object(writer, NULL);
    fz_write_string(writer, "layer", layer_names[line->layer]);
    fz_write_string(writer, "text", line->text);
    fz_write_bool(writer, "decides", line->decides);
    if (line->time_ms) {
      fz_clock_format(line->time_ms, time);
      fz_write_string(writer, "time", time);
    }
    fz_write_end_object(writer);
  }
  fz_write_end_array(writer);
  fz_write_bool(writer, "pending", trains != explanation->trains);
  fz_write_string(writer, "next", run->adopted ? "not known since freezerd was restarted" : explanation->next);
  fz_write_string(writer, "to_change", explanation->to_change);
  fz_write_string(writer, "to_change_effect", explanation->to_change_text);
}

static void no_param(fz_client *client, const fz_request *request, const fz_run *run) {
  const char *patterns[] = { request->param };
  const size_t n = fz_params_count(run->params);
  uint64_t *mask = calloc(fz_mask_words(n) + 1, sizeof(*mask));
  fz_diagnostics diagnostics = FZ_DIAGNOSTICS_NULL;
  char *hint = NULL;

  if (mask && fz_patterns_match(run->params, patterns, 1, mask, &diagnostics) == 0) {
    const struct fz_param *first = fz_params_get(run->params, fz_mask_next(mask, n, 0));
    hint = fz_text_format("that is a module or pattern; name one parameter, for example '%s'", first->name);
  } else if (diagnostics.n && diagnostics.items[0].hint) {
    hint = strdup(diagnostics.items[0].hint);
  }
  fz_client_error(client, request->id, FZ_CODE_NO_PARAM, hint, "no parameter '%s' in run %s (%zu parameter%s)",
                  request->param, run->name, n, fz_text_plural(n));
  fz_diagnostics_deinit(&diagnostics);
  free(hint);
  free(mask);
}

void fz_op_explain(fz_client *client, const fz_request *request) {
  fz_json_writer *writer = &client->core->writer;
  const fz_run *run = fz_control_run(client, request);
  fz_explanation explanation = FZ_EXPLANATION_NULL;
  uint64_t step, epoch, *flags;

  if (!run)
    return;
  const size_t n = fz_params_count(run->params);
  size_t index = fz_params_find(run->params, request->param, strlen(request->param));
  if (index == n)
    index = fz_params_find_alias(run->params, request->param, strlen(request->param));
  if (index == n) {
    no_param(client, request, run);
    return;
  }
  fz_run_now(run, &step, &epoch);
  flags = calloc(fz_mask_words(n) + 1, sizeof(*flags));
  if (!flags || fz_run_mask(run, flags) < 0 || fz_explain(run->layers, index, step, epoch, &explanation) < 0) {
    free(flags);
    fz_client_error(client, request->id, FZ_CODE_NO_MEMORY, NULL, "out of memory");
    return;
  }
  fz_answer_begin(writer, request->id);
  write_explanation(run, &explanation, fz_mask_get(flags, index), writer);
  fz_write_end_object(writer);
  fz_client_send(client);
  fz_explanation_deinit(&explanation);
  free(flags);
}
