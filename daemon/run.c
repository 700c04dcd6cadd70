/* run.c - a run's life: launches, incarnations, its parameters and layers. */
#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/adopt.h"
#include "daemon/clock.h"
#include "daemon/flips.h"
#include "daemon/hold.h"
#include "daemon/pending.h"
#include "daemon/publisher.h"
#include "daemon/run.h"
#include "daemon/run_carry.h"
#include "daemon/run_rules.h"
#include "daemon/since.h"
#include "daemon/state.h"
#include "daemon/text.h"
#include "daemon/trainer.h"
#include "daemon/watchers.h"
#include "protocol/mask.h"

/* Names of segments that a killed freezerd left behind are passed over; so many in a row are a sign of something else. */
#define INCARNATION_TRIES 1000

static fz_run *run_of_retry(fz_timer *timer) {
  /* Valid because only runs have this timer, as their member `retry`. */
  return (fz_run *)(void *)((char *)timer - offsetof(fz_run, retry));
}

static void on_retry(fz_timer *timer) { fz_publisher_retry(run_of_retry(timer)); }

static void on_checkpoint(fz_timer *timer) {
  /* Valid because only runs have this timer, as their member `checkpoint`. */
  fz_state_checkpoint((fz_run *)(void *)((char *)timer - offsetof(fz_run, checkpoint)));
}

int fz_run_new(fz_run **ret_run, fz_core *core, const char *name, const char *requested) {
  fz_run *run = calloc(1, sizeof(*run));

  if (!run)
    return -ENOMEM;
  run->core = core;
  snprintf(run->name, sizeof(run->name), "%s", name);
  snprintf(run->requested, sizeof(run->requested), "%s", requested);
  fz_run_key(core->scope, run->name, run->key);
  run->plan = (fz_plan)FZ_PLAN_NULL;
  run->retry.fire = on_retry;
  run->checkpoint.fire = on_checkpoint;
  run->idle_ms = fz_clock_ms();
  *ret_run = run;
  return 0;
}

fz_run *fz_run_free(fz_run *run) {
  if (!run)
    return NULL;
  fz_timer_stop(&run->core->timers, &run->retry);
  fz_timer_stop(&run->core->timers, &run->checkpoint);
  while (run->pendings) {
    fz_pending *pending = run->pendings;
    run->pendings = pending->next;
    fz_pending_free(pending);
  }
  run->core->n_batched -= run->batch.n;
  fz_batch_deinit(&run->batch);
  fz_segment_free(run->segment);
  fz_json_free(run->saved);
  fz_layers_free(run->layers);
  fz_layers_free(run->in_force);
  fz_params_unref(run->params);
  fz_plan_deinit(&run->plan);
  fz_recent_deinit(&run->recent);
  fz_history_deinit(&run->history);
  fz_run_clear_warnings(run);
  fz_since_forget(run);
  free(run->rules_source);
  free(run->rules_by);
  free(run->metrics);
  free(run->ranks);
  free(run);
  return NULL;
}

/* ------------------------------------------------------------------------------------------- launches, incarnations */

/** Ranks of an incarnation that begins: connections stay, what they said of the old one is forgotten. */
static void reset_ranks(fz_run *run) {
  for (uint32_t i = 0; i < run->world; i++) {
    struct fz_rank *rank = &run->ranks[i];
    *rank = (struct fz_rank){
      .trainer = rank->trainer,
      .pid = rank->pid,
      .heard_ms = rank->heard_ms,
      .step = FZ_TIME_NEVER,
      .epoch = FZ_TIME_NEVER,
      .at_step = FZ_TIME_NEVER,
    };
  }
}

int fz_run_launch(fz_run *run, const char *job, uint64_t attempt, uint32_t world) {
  struct fz_rank *ranks = calloc(world, sizeof(*ranks));

  if (!ranks)
    return -ENOMEM;
  fz_run_now(run, &run->last_step, &run->last_epoch);
  for (uint32_t i = 0; i < run->world; i++)
    if (run->ranks[i].trainer)
      fz_trainer_retire(run->ranks[i].trainer, attempt);
  fz_run_drop_segment(run, false);
  free(run->ranks);
  run->ranks = ranks;
  run->world = world;
  run->attempt = attempt;
  snprintf(run->job, sizeof(run->job), "%s", job);
  run->new_processes = true;
  run->adopted = false;
  run->step_ms = 0;
  fz_run_forget_anchors(run);
  fz_run_clear_warnings(run);
  /* Rules that did not fit the last launch may fit this one. */
  if (run->layers && !fz_layers_rules(run->layers) && run->rules_origin != FZ_RULES_CONTROL)
    fz_run_name_rules(run, FZ_RULES_NONE, NULL, NULL);
  reset_ranks(run);
  return 0;
}

void fz_run_drop_segment(fz_run *run, bool keep_name) {
  if (!run->segment)
    return;
  fz_flips_finish(run);
  fz_run_now(run, &run->last_step, &run->last_epoch);
  if (!keep_name) {
    (void)fz_segment_unlink(run->segment_name); /* gone already after a logout, or in another mount namespace */
    fz_hold_forget(run->core, run->key, run->incarnation);
  }
  run->segment = fz_segment_free(run->segment);
  run->blocked = false;
  run->ended_gen = run->plan.gen;
  run->plan.gen = 0;
  run->flip_step = run->flip_epoch = 0;
  reset_ranks(run);
  fz_pendings_requeue(run);
}

static void fill_info(const fz_run *run, fz_segment_info *info) {
  *info = (fz_segment_info){
    .attempt = run->attempt,
    .incarnation = run->incarnation,
    .daemon_pid = (uint64_t)getpid(),
    .world = run->world,
  };
  snprintf(info->run, sizeof(info->run), "%s", run->name);
  snprintf(info->run_key, sizeof(info->run_key), "%s", run->key);
  snprintf(info->job, sizeof(info->job), "%s", run->job);
  snprintf(info->boot_id, sizeof(info->boot_id), "%s", run->core->boot_id);
}

/** What the layers must know of a new incarnation: whether the processes are the same. */
static int begin_layers(fz_run *run) {
  fz_layers *both[] = { run->layers, run->in_force };

  for (size_t i = 0; i < 2; i++) {
    const int r =
      run->new_processes ? fz_layers_restart(both[i]) : fz_layers_rewind(both[i], run->last_step, run->last_epoch);
    if (r < 0)
      return r;
  }
  if (!run->new_processes)
    fz_run_note_anchor(run, run->layers, true, run->last_step, run->last_epoch);
  run->new_processes = false;
  return 0;
}

/** With the next number whose name is free. */
static int make_segment(fz_run *run, fz_segment **ret_segment, char *name, size_t size) {
  fz_segment_info info;
  int r = -EEXIST;

  for (int i = 0; r == -EEXIST && i < INCARNATION_TRIES; i++) {
    run->incarnation++;
    fill_info(run, &info);
    r = fz_segment_name(name, size, run->core->uid, run->key, run->incarnation);
    if (r == 0)
      r = fz_segment_create(ret_segment, name, &info, run->params);
  }
  return r;
}

int fz_run_incarnate(fz_run *run) {
  fz_segment *segment = NULL;
  char name[FZ_SEGMENT_NAME_MAX + 1];
  int r;

  fz_run_drop_segment(run, false);
  r = begin_layers(run);
  if (r < 0)
    return r;
  r = make_segment(run, &segment, name, sizeof(name));
  if (r == -ENOSPC) {
    fz_adopt_clean(run->core); /* there may be some of the dead */
    r = make_segment(run, &segment, name, sizeof(name));
  }
  if (r < 0)
    return r;
  run->segment = segment;
  snprintf(run->segment_name, sizeof(run->segment_name), "%s", name);
  reset_ranks(run);
  r = fz_state_save(run, &(const struct fz_record){ .event = "incarnation" });
  if (r < 0)
    fz_run_warn(run, "the state cannot be saved: %s", strerror(-r));
  else
    fz_state_checkpoint(run);
  fz_hold_note(run);
  fz_log_write(&run->core->log, FZ_LOG_DEBUG, FZ_LOG_ABOUT(.event = "shm", .run = run->name),
               "incarnation %" PRIu64 ": segment %s, %" PRIu64 " bytes", run->incarnation, name,
               fz_segment_size(segment));
  return 0;
}

/* -------------------------------------------------------------------------------------------- parameters and layers */

int fz_run_set_params(fz_run *run, fz_params *params) {
  fz_layers *layers = NULL, *in_force = NULL;
  int r = fz_layers_new(&layers, params);

  if (r == 0)
    r = run->layers ? fz_run_carry(run, layers) : fz_state_restore(run, layers);
  if (r == 0)
    r = fz_layers_clone(layers, &in_force);
  if (r < 0) {
    fz_layers_free(layers);
    return r;
  }
  /* Masks of changes on their way belong to the old table; the layers have taken them over. */
  for (fz_pending *pending = run->pendings; pending; pending = pending->next) {
    pending->resolved = true;
    free(pending->mask);
    pending->mask = NULL;
  }
  fz_layers_free(run->layers);
  fz_layers_free(run->in_force);
  run->layers = layers;
  run->in_force = in_force;
  fz_params_ref(params);
  fz_params_unref(run->params);
  run->params = params;
  if (!run->adopted)
    run->saved = fz_json_free(run->saved);
  fz_plan_deinit(&run->plan);
  run->planned = false;
  run->n_trainable = 0;
  fz_since_forget(run);
  return 0;
}

/* ------------------------------------------------------------------------------------------- what people should know */

void fz_run_warn(fz_run *run, const char *format, ...) {
  va_list arguments;
  char *text;

  va_start(arguments, format);
  const int n = vasprintf(&text, format, arguments);
  va_end(arguments);
  if (n < 0)
    return;
  for (size_t i = 0; i < run->n_warnings; i++)
    if (strcmp(run->warnings[i], text) == 0) {
      free(text);
      return;
    }
  fz_log_write(&run->core->log, FZ_LOG_WARNING, FZ_LOG_ABOUT(.event = "run", .run = run->name), "%s", text);
  fz_watch_tell(run->core, FZ_EVENT(.event = "warning", .run = run, .text = text));
  const size_t max = sizeof(run->warnings) / sizeof(*run->warnings);
  if (run->n_warnings == max) {
    free(run->warnings[0]);
    memmove(run->warnings, run->warnings + 1, (max - 1) * sizeof(*run->warnings));
    run->n_warnings--;
  }
  run->warnings[run->n_warnings++] = text;
}

void fz_run_clear_warnings(fz_run *run) {
  for (size_t i = 0; i < run->n_warnings; i++)
    free(run->warnings[i]);
  run->n_warnings = 0;
}

void fz_run_notice(fz_run *run, enum fz_level level, const char *code, const char *message) {
  for (uint32_t i = 0; i < run->world; i++)
    if (run->ranks[i].trainer)
      fz_trainer_notice(run->ranks[i].trainer, level, code, message);
}

void fz_run_note_trainable(fz_run *run, uint64_t elements) {
  const size_t max = sizeof(run->trainable_history) / sizeof(*run->trainable_history);

  if (run->n_trainable && run->trainable_history[run->n_trainable - 1] == elements)
    return;
  if (run->n_trainable == max) {
    memmove(run->trainable_history, run->trainable_history + 1, (max - 1) * sizeof(*run->trainable_history));
    run->n_trainable--;
  }
  run->trainable_history[run->n_trainable++] = elements;
}

void fz_run_check_life(fz_run *run) {
  const bool lives = fz_run_lives(run);

  if (lives == run->live)
    return;
  run->live = lives;
  run->idle_ms = fz_clock_ms();
  if (!lives)
    fz_run_drop_segment(run, false);
  fz_log_write(&run->core->log, FZ_LOG_NOTICE, FZ_LOG_ABOUT(.event = "run", .run = run->name), "%s",
               lives ? "started" : "ended: no rank is left");
  fz_watch_tell(run->core, FZ_EVENT(.event = lives ? "run_started" : "run_ended", .run = run,
                                    .text = lives ? "the run started" : "no rank is left"));
  if (lives)
    return;
  fz_pendings_run_ended(run);
  fz_core_run_ended(run->core);
}

void fz_run_note_anchor(fz_run *run, const fz_layers *layers, bool rewind, uint64_t step, uint64_t epoch) {
  fz_rules *rules = fz_layers_rules(layers);

  if (!rules || fz_ruleset_profile(fz_rules_ruleset(rules)) != FZ_PROFILE_LIGHTER)
    return;
  if (!rewind && run->n_anchors && !run->anchors[run->n_anchors - 1].rewind)
    return; /* anchored already: that stays so until a rewind */
  if (run->n_anchors == FZ_ANCHORS_MAX)
    run->anchors_lost = true;
  else
    run->anchors[run->n_anchors++] = (struct fz_anchor){ .rewind = rewind, .step = step, .epoch = epoch };
}

void fz_run_forget_anchors(fz_run *run) {
  run->n_anchors = 0;
  run->anchors_lost = false;
}

void fz_run_keep_metrics(fz_run *run, const struct fz_metrics *metrics) {
  if (!run->metrics)
    run->metrics = calloc(1, sizeof(*run->metrics));
  if (!run->metrics)
    return;
  for (size_t i = 0; i < metrics->count; i++) {
    size_t place = 0;
    while (place < run->metrics->n && strcmp(run->metrics->items[place].name, metrics->values[i].name) != 0)
      place++;
    if (place == FZ_METRICS_MAX)
      continue;
    if (place == run->metrics->n)
      snprintf(run->metrics->items[run->metrics->n++].name, sizeof(run->metrics->items[place].name), "%s",
               metrics->values[i].name);
    run->metrics->items[place].value = metrics->values[i].value;
  }
}
