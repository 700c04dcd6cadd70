/* publisher.c - brings a run's layers into force: layers -> plan -> gate. */
#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "daemon/client.h"
#include "daemon/clock.h"
#include "daemon/flips.h"
#include "daemon/pending.h"
#include "daemon/publisher.h"
#include "daemon/rules/planner.h"
#include "daemon/run.h"
#include "daemon/run_rules.h"
#include "daemon/state.h"
#include "daemon/trainer.h"
#include "daemon/watchers.h"

/* How soon to look again: after a process that has just hung up, then at those that stand still. */
#define RETRY_SOON_MS 50
#define RETRY_MS 500

void fz_publisher_point(const fz_run *run, uint64_t *ret_step, uint64_t *ret_epoch) {
  uint64_t started = 0, gen, step;

  fz_run_floor(run, &step, ret_epoch);
  if (run->segment)
    fz_gate_read(run->segment, &started, &gen);
  if (started > step)
    step = started;
  if (run->plan.gen > 0 && run->plan.active_from > step)
    step = run->plan.active_from;
  *ret_step = step > FZ_STEP_MAX ? FZ_STEP_MAX : step;
}

static bool has_queued(const fz_run *run) {
  for (const fz_pending *pending = run->pendings; pending; pending = pending->next)
    if (pending->gen == 0)
      return true;
  return false;
}

bool fz_publisher_waits_for(const fz_run *run, uint32_t rank) {
  if (!fz_run_complete(run))
    return !run->ranks[rank].attached;
  if (!run->blocked || !run->segment)
    return false;
  /* As in attempt(): the slots of the next two gens must not hold anything that it may still need. */
  const struct fz_rank_line line = fz_rank_read(run->segment, rank);
  return line.pid != 0 && line.gen + FZ_PLAN_SLOTS <= run->plan.gen + 2;
}

/* ---------------------------------------------------------------------------------------------------------- planning */

/** Whether the layers must be made again because `for N` of a queued change was counted from another step. */
static bool must_redo(const fz_run *run, uint64_t step) {
  for (const fz_pending *pending = run->pendings; pending; pending = pending->next)
    if (!pending->resolved && pending->for_steps != FZ_TIME_NEVER && pending->assumed_step != step)
      return true;
  return false;
}

/** The layers in force, with everything that is queued done to them as of (step, epoch). A copy of others is given up. */
static int redo(fz_run *run, uint64_t step, uint64_t epoch, fz_layers **copy) {
  fz_layers *layers = NULL;
  int r = fz_layers_clone(run->in_force, &layers);

  for (fz_pending *pending = run->pendings; r >= 0 && pending; pending = pending->next)
    if (!pending->resolved)
      r = fz_pending_apply(pending, layers, step, epoch, NULL);
  if (r < 0) {
    fz_layers_free(layers);
    return r;
  }
  fz_layers_free(run->layers);
  run->layers = layers;
  *copy = fz_layers_free(*copy);
  return 0;
}

static int make_plan(fz_run *run, uint64_t step, uint64_t epoch, fz_plan *plan, fz_layers **copy) {
  const size_t rows = fz_segment_max_rows(run->segment), masks = fz_segment_max_masks(run->segment);
  int r = must_redo(run, step) ? redo(run, step, epoch, copy) : 0;

  if (r == 0)
    r = fz_layers_plan(run->layers, step, epoch, rows, masks, plan);
  /* Only in a first attempt, before there is a copy. */
  if (r == 0 && run->rules_unproven && fz_run_prove_rules(run, plan))
    r = fz_layers_plan(run->layers, step, epoch, rows, masks, plan);
  return r;
}

/** Once the layers are as they are published: they are saved, and copied, as nothing may fail when the plan is out. */
static int secure(fz_run *run, fz_layers **copy) {
  fz_layers *layers = NULL;
  int r = *copy ? 0 : fz_layers_clone(run->layers, &layers);

  if (!layers)
    return r;
  r = fz_state_save(run, NULL);
  if (r < 0)
    fz_layers_free(layers);
  else
    *copy = layers;
  return r;
}

/* -------------------------------------------------------------------------------------------------------- publishing */

/** The plan is in the gate. It, and the layers that it was made of, are consumed. */
static void commit(fz_run *run, fz_plan *plan, fz_layers *in_force, uint64_t step, uint64_t epoch) {
  const bool first = run->plan.gen == 0;

  fz_plan_deinit(&run->plan);
  run->plan = *plan;
  *plan = (fz_plan)FZ_PLAN_NULL;
  fz_flips_begin_plan(run, step, epoch);
  run->planned = true;
  run->extend = run->blocked = false;
  run->rules_unproven = false;
  if (run->adopted) {
    run->adopted = false;
    fz_run_clear_warnings(run);
  }
  fz_layers_free(run->in_force);
  run->in_force = in_force;
  fz_layers_published(run->layers, run->plan.gen);
  fz_layers_published(run->in_force, run->plan.gen);
  if (fz_layers_anchor(run->layers, step, epoch) < 0 || fz_layers_anchor(run->in_force, step, epoch) < 0)
    fz_run_warn(run, "out of memory: the anchor of the rules may move");
  fz_log_write(&run->core->log, FZ_LOG_DEBUG, FZ_LOG_ABOUT(.event = "plan", .run = run->name, .gen = run->plan.gen),
               "gen %" PRIu64 " from step %" PRIu64 ", %zu rows, %zu masks%s", run->plan.gen, run->plan.active_from,
               run->plan.n_rows, run->plan.n_masks, first ? ", the first" : "");
  fz_run_note_anchor(run, run->layers, false, step, epoch);
  fz_pendings_published(run, run->plan.gen, step, epoch);
  const struct fz_record attached = {
    .event = "attached", .gen = run->plan.gen, .has_step = true, .step = step, .text = "attached"
  };
  const int r = fz_state_save(run, first ? &attached : NULL);
  if (r < 0)
    fz_run_warn(run, "the state cannot be saved: %s", strerror(-r));
}

/** Gens are used up: the ranks come back to a new segment when they find the connection closed. */
static void renew(fz_run *run) {
  fz_log_write(&run->core->log, FZ_LOG_NOTICE, FZ_LOG_ABOUT(.event = "run", .run = run->name),
               "incarnation %" PRIu64 " has no gen left, a new one begins", run->incarnation);
  const int r = fz_run_incarnate(run);
  if (r < 0)
    fz_run_warn(run, "no new incarnation: %s", strerror(-r));
  for (uint32_t i = 0; i < run->world; i++)
    if (run->ranks[i].trainer)
      fz_trainer_reconnect(run->ranks[i].trainer);
}

enum attempt { DONE, AGAIN, WAIT };

/** `in_force` is the copy of the layers that attempts before had, or NULL; consumed when it is DONE. */
static enum attempt attempt(fz_run *run, uint64_t margin, fz_layers **in_force) {
  uint64_t started, gen, step, epoch;
  fz_plan plan = FZ_PLAN_NULL;
  const bool extension = run->plan.gen > 0 && !has_queued(run);

  fz_gate_read(run->segment, &started, &gen);
  if (gen >= FZ_GEN_MAX) {
    renew(run);
    return DONE;
  }
  /* The last free slot is for extensions: a plan that runs out must not wait for a rank that stands still. */
  if (!fz_segment_slot_free(run->segment, gen + 1) || (!extension && !fz_segment_slot_free(run->segment, gen + 2)))
    return WAIT;
  uint64_t active_from = started + margin;
  if (run->plan.gen > 0 && run->plan.active_from > active_from)
    active_from = run->plan.active_from;
  if (active_from > FZ_STEP_MAX)
    active_from = FZ_STEP_MAX;
  fz_run_floor(run, &step, &epoch);
  if (active_from > step)
    step = active_from;
  int r = make_plan(run, step, epoch, &plan, in_force);
  if (r == 0)
    r = secure(run, in_force);
  if (r == 0) {
    plan.gen = gen + 1;
    plan.active_from = active_from;
    r = fz_segment_publish(run->segment, &plan);
  }
  if (r == 0) {
    /* What an extension carries on flips at its first step as before. */
    fz_flips_end_plan(run, margin && !extension ? active_from - 1 : active_from);
    commit(run, &plan, *in_force, step, epoch);
    *in_force = NULL;
  }
  fz_plan_deinit(&plan);
  if (r == FZ_PUBLISH_LATE)
    return AGAIN;
  if (r < 0)
    fz_run_warn(run, "a plan cannot be published: %s", strerror(-r));
  return r == 0 ? DONE : WAIT;
}

static bool is_wanted(const fz_run *run) {
  if (!fz_run_complete(run))
    return false;
  if (run->plan.gen == 0)
    return true;
  return run->extend || has_queued(run);
}

void fz_publisher_run(fz_run *run) {
  uint64_t margin = 0;
  enum attempt state = DONE;
  bool published = false;
  fz_layers *in_force = NULL;

  if (!is_wanted(run))
    return;
  while ((state = attempt(run, margin, &in_force)) == AGAIN && margin <= FZ_STEP_MAX)
    margin = margin ? margin * 2 : 1;
  fz_layers_free(in_force);
  published = state == DONE && run->segment && run->plan.gen > 0;
  run->blocked = state != DONE;
  if (run->blocked)
    fz_publisher_look_again(run);
  if (published)
    fz_pendings_check(run);
  fz_waits_check(run->core, run);
}

void fz_publisher_wake(fz_run *run, uint64_t step, uint64_t epoch) {
  if (run->plan.gen == 0 || (step < run->plan.wake_step && epoch < run->plan.wake_epoch))
    return;
  run->extend = true;
  fz_publisher_run(run);
}

/* ---------------------------------------------------------------------------------------------------------- retrying */

void fz_publisher_look_again(fz_run *run) {
  if (!run->retry.due)
    fz_timer_start(&run->core->timers, &run->retry, RETRY_SOON_MS);
}

/** Gives up the lines of processes that are gone. True while one lives without a connection. */
static bool sweep(fz_run *run) {
  bool orphans = false;

  for (uint32_t i = 0; run->segment && i < run->world; i++) {
    if (run->ranks[i].trainer || fz_rank_read(run->segment, i).pid == 0)
      continue;
    if (fz_rank_is_locked(run->segment, i)) {
      orphans = true;
      continue;
    }
    fz_rank_leave(run->segment, i);
    run->ranks[i].gen = 0;
  }
  return orphans;
}

void fz_publisher_retry(fz_run *run) {
  const bool orphans = sweep(run);

  fz_run_check_life(run);
  if (run->blocked)
    fz_publisher_run(run);
  fz_waits_check(run->core, run);
  if (orphans || run->blocked) {
    fz_timer_stop(&run->core->timers, &run->retry);
    fz_timer_start(&run->core->timers, &run->retry, RETRY_MS);
  }
}
