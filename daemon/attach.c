/* attach.c - how a trainer becomes a rank of a run: from hello to ready. */
#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/adopt.h"
#include "daemon/attach.h"
#include "daemon/client.h"
#include "daemon/hold.h"
#include "daemon/launch.h"
#include "daemon/pending.h"
#include "daemon/progress.h"
#include "daemon/publisher.h"
#include "daemon/run.h"
#include "daemon/run_rules.h"
#include "daemon/watchers.h"

/**
 * Whether it comes back in the middle of a rewind, which others have made and it has not: it goes on with the segment
 * that it holds until it rewinds itself. In the new one its steps, which lie ahead, would be taken for steps begun.
 */
static bool is_to_rewind(const fz_trainer *trainer) {
  const fz_run *run = trainer->run;

  if (!trainer->handed || !run->segment || !fz_gate_is_rewound(trainer->handed))
    return false;
  const fz_segment_info *info = fz_segment_get_info(trainer->handed);
  return info->incarnation < run->incarnation && info->attempt == run->attempt && strcmp(info->job, run->job) == 0 &&
         strcmp(info->run, run->name) == 0;
}

static void admit(fz_trainer *trainer) {
  fz_run *run = trainer->run;

  if (fz_run_attach_rules(run, trainer, trainer->rules) < 0) {
    fz_trainer_refuse(trainer, true, FZ_CODE_NO_MEMORY, "out of memory: come back");
    return;
  }
  free(trainer->rules);
  trainer->rules = NULL;
  fz_trainer_drop_listed(trainer);
  if (is_to_rewind(trainer)) {
    fz_trainer_welcome_back(trainer);
    return;
  }
  if (!run->segment) {
    const int r = fz_run_incarnate(run);
    if (r < 0) {
      fz_trainer_refuse(trainer, true, FZ_CODE_NO_MEMORY, "no shared memory for run %s: %s", run->name, strerror(-r));
      return;
    }
  }
  fz_run_check_life(run);
  fz_trainer_welcome(trainer);
}

static bool knows_params(const fz_trainer *trainer) {
  const fz_params *params = trainer->run->params;

  return params && fz_params_count(params) == trainer->n_params && fz_params_layout_hash(params) == trainer->layout &&
         fz_params_baseline_hash(params) == trainer->baseline;
}

static void ask_for_params(fz_trainer *trainer) {
  const fz_message need = { .type = FZ_MESSAGE_NEED, .need = { .what = "params" } };

  if (fz_params_new(&trainer->listed) < 0) {
    fz_trainer_refuse(trainer, true, FZ_CODE_NO_MEMORY, "out of memory");
    return;
  }
  trainer->state = FZ_TRAINER_LISTING;
  fz_trainer_expect_params(trainer);
  (void)fz_trainer_send(trainer, &need, -1);
}

static void ask_again(fz_trainer *trainer, const char *run, int error) {
  fz_trainer_refuse(trainer, true,
                    error == -ENOMEM   ? FZ_CODE_NO_MEMORY
                    : error == -ENOSPC ? FZ_CODE_TOO_MANY
                                       : FZ_CODE_INTERNAL,
                    "run %s cannot be entered at this moment, come back: %s", run, strerror(-error));
}

static void place(fz_trainer *trainer, const char *name) {
  fz_run *run = NULL;
  const int r = fz_launch_place(trainer, name, &run);

  if (r == FZ_LAUNCH_RETIRED) {
    fz_trainer_refuse(trainer, true, FZ_CODE_LAUNCH_RETIRED,
                      "attempt %" PRIu64 " of job %s has begun, this is %" PRIu64, run->attempt, trainer->job,
                      trainer->attempt);
    return;
  }
  if (r == FZ_LAUNCH_WORLD) {
    fz_trainer_refuse(trainer, true, FZ_CODE_BAD_FIELD,
                      "field 'world' is %" PRIu32 ", but other ranks of this launch said %" PRIu32, trainer->world,
                      run->world);
    return;
  }
  if (r < 0) {
    ask_again(trainer, name, r);
    return;
  }
  if (strcmp(run->name, trainer->name) != 0) {
    char text[FZ_RUN_NAME_MAX * 2 + 100];
    snprintf(text, sizeof(text), "another job runs as %s, so this one is %s", trainer->name, run->name);
    fz_trainer_notice(trainer, FZ_LEVEL_WARNING, "renamed", text);
    fz_log_write(&trainer->core->log, FZ_LOG_WARNING, FZ_LOG_ABOUT(.event = "run", .run = run->name), "%s", text);
  }
  if (knows_params(trainer))
    admit(trainer);
  else
    ask_for_params(trainer);
}

/* ------------------------------------------------------------------------------------------------- hello and resume */

void fz_attach_hello(fz_trainer *trainer, const fz_message *message) {
  const struct fz_hello *hello = &message->hello;

  snprintf(trainer->name, sizeof(trainer->name), "%s", hello->run);
  snprintf(trainer->framework, sizeof(trainer->framework), "%s", hello->framework);
  snprintf(trainer->job, sizeof(trainer->job), "%s", hello->job);
  trainer->attempt = hello->attempt;
  trainer->rank = (uint32_t)hello->rank;
  trainer->world = (uint32_t)hello->world;
  trainer->pid = hello->pid;
  trainer->n_params = hello->n_params;
  trainer->layout = hello->layout;
  trainer->baseline = hello->baseline;
  if (hello->rules) {
    const int r = fz_json_to_text(hello->rules, FZ_RULES_TEXT_MAX, &trainer->rules, NULL);
    if (r < 0) {
      fz_trainer_refuse(trainer, true, r == -E2BIG ? FZ_CODE_TOO_MANY : FZ_CODE_NO_MEMORY,
                        "the rules take more than %u bytes", FZ_RULES_TEXT_MAX);
      return;
    }
  }
  if (hello->resumes)
    trainer->state = FZ_TRAINER_RESUMING;
  else
    fz_attach_arrive(trainer, trainer->name, true);
}

static void say_lost(const fz_trainer *trainer, uint64_t incarnation, int error) {
  fz_log_write(&trainer->core->log, FZ_LOG_INFO,
               FZ_LOG_ABOUT(.event = "rank", .run = trainer->name, .peer = fz_connection_peer(trainer->connection)),
               "rank %" PRIu32 " comes back with incarnation %" PRIu64 ", which cannot be carried on: %s",
               trainer->rank, incarnation, error == -ENOENT ? "its descriptor is missing" : strerror(-error));
}

void fz_attach_resume(fz_trainer *trainer, const fz_message *message) {
  const int fd = fz_connection_take_fd(trainer->connection);
  char name[FZ_RUN_NAME_MAX + 1];
  const int r = fd < 0 ? -ENOENT : fz_adopt_take(trainer, fd);

  if (fz_adopt_is_passing(r)) {
    ask_again(trainer, trainer->name, r);
    return;
  }
  if (r < 0) {
    say_lost(trainer, message->resume.incarnation, r);
    fz_attach_arrive(trainer, trainer->name, true);
    return;
  }
  trainer->held_incarnation = message->resume.incarnation;
  trainer->held_gen = message->resume.gen;
  snprintf(name, sizeof(name), "%s", fz_segment_get_info(trainer->handed)->run);
  fz_attach_arrive(trainer, name, true);
}

void fz_attach_arrive(fz_trainer *trainer, const char *run, bool may_wait) {
  fz_core *core = trainer->core;
  /* The name first: another segment of the run may be newer than the one that this rank holds. */
  int r = fz_core_find(core, run) ? 0 : fz_adopt_by_name(core, run);

  if (r < 0 && !fz_adopt_is_passing(r)) {
    if (may_wait && fz_hold_trainer(trainer, run))
      return;
    r = trainer->handed ? fz_adopt_handed(trainer) : 0;
    if (r < 0 && !fz_adopt_is_passing(r))
      say_lost(trainer, trainer->held_incarnation, r);
  }
  if (fz_adopt_is_passing(r)) {
    ask_again(trainer, run, r);
    return;
  }
  place(trainer, run);
  fz_hold_release(core, run);
}

/* -------------------------------------------------------------------------------------------------------- parameters */

/** The first parameter in which the tables of others and of a rank differ, as a sentence to that rank. */
static void describe_difference(const fz_params *theirs, const fz_params *ours, char *text, size_t size) {
  const size_t n = fz_params_count(theirs) < fz_params_count(ours) ? fz_params_count(theirs) : fz_params_count(ours);

  for (size_t i = 0; i < n; i++) {
    const struct fz_param *a = fz_params_get(theirs, i), *b = fz_params_get(ours, i);
    if (strcmp(a->name, b->name) != 0)
      snprintf(text, size, "parameter %zu is '%s' there and '%s' here", i, a->name, b->name);
    else if (a->elements != b->elements)
      snprintf(text, size, "'%s' has %" PRIu64 " elements there and %" PRIu64 " here", a->name, a->elements,
               b->elements);
    else if (a->requires_grad != b->requires_grad)
      snprintf(text, size, "'%s' %s there and %s here", a->name, a->requires_grad ? "trains" : "is frozen",
               b->requires_grad ? "trains" : "is frozen");
    else
      continue;
    return;
  }
  if (fz_params_count(theirs) != fz_params_count(ours))
    snprintf(text, size, "there are %zu parameters there and %zu here", fz_params_count(theirs), fz_params_count(ours));
  else
    snprintf(text, size, "what may be frozen or trained differs");
}

/** Its table is not the run's. The ranks that wait for it to get their first plan are told that they do so in vain. */
static void refuse_params(fz_trainer *trainer) {
  fz_run *run = trainer->run;
  const bool layout = fz_params_layout_hash(run->params) != trainer->layout;
  const uint64_t there = layout ? fz_params_layout_hash(run->params) : fz_params_baseline_hash(run->params);
  const uint64_t here = layout ? trainer->layout : trainer->baseline;
  const char *what = layout ? "layout" : "baseline";
  char difference[600];

  describe_difference(trainer->listed, run->params, difference, sizeof(difference));
  for (uint32_t i = 0; i < run->world && run->plan.gen == 0; i++)
    if (run->ranks[i].trainer && run->ranks[i].trainer != trainer)
      fz_trainer_refuse(run->ranks[i].trainer, false, FZ_CODE_LAYOUT_MISMATCH,
                        "the %s of rank %" PRIu32 " is another (%016" PRIx64 " there, %016" PRIx64 " here): %s", what,
                        trainer->rank, here, there, difference);
  describe_difference(run->params, trainer->listed, difference, sizeof(difference));
  fz_trainer_refuse(trainer, true, FZ_CODE_LAYOUT_MISMATCH,
                    "the %s differs from that of the other ranks (%016" PRIx64 " there, %016" PRIx64 " here): %s", what,
                    there, here, difference);
}

/** The trainer's table is complete. */
static void settle_params(fz_trainer *trainer) {
  fz_run *run = trainer->run;

  if (knows_params(trainer)) { /* another rank was faster */
    admit(trainer);
    return;
  }
  if (run->segment) {
    refuse_params(trainer);
    return;
  }
  const int r = fz_run_set_params(run, trainer->listed);
  if (r < 0) {
    fz_trainer_refuse(trainer, true, r == -ENOMEM ? FZ_CODE_NO_MEMORY : FZ_CODE_INTERNAL,
                      "what was saved of run %s cannot be read, come back: %s", run->name, strerror(-r));
    return;
  }
  admit(trainer);
}

static void seal_params(fz_trainer *trainer) {
  size_t twice = 0;
  const int r = fz_params_seal(trainer->listed, &twice);

  if (r == -EEXIST) {
    fz_trainer_refuse(trainer, true, FZ_CODE_BAD_FIELD, "parameter %zu, '%.500s', has a name that stood before", twice,
                      fz_params_get(trainer->listed, twice)->name);
    return;
  }
  if (r < 0) {
    fz_trainer_refuse(trainer, true, FZ_CODE_NO_MEMORY, "out of memory");
    return;
  }
  if (fz_params_layout_hash(trainer->listed) != trainer->layout ||
      fz_params_baseline_hash(trainer->listed) != trainer->baseline) {
    fz_trainer_refuse(trainer, true, FZ_CODE_LAYOUT_MISMATCH,
                      "the parameters are not those that hello announced (layout %016" PRIx64 ", announced %016" PRIx64
                      "; baseline %016" PRIx64 ", announced %016" PRIx64 ")",
                      fz_params_layout_hash(trainer->listed), trainer->layout, fz_params_baseline_hash(trainer->listed),
                      trainer->baseline);
    return;
  }
  settle_params(trainer);
}

/** Half-sent tables are a cost that no run answers for: together they may take so much and no more. */
static bool charge(fz_trainer *trainer) {
  const size_t bytes = fz_params_memory(trainer->listed);

  trainer->core->listing_bytes += bytes - trainer->listed_bytes;
  trainer->listed_bytes = bytes;
  return trainer->core->listing_bytes <= FZ_LISTING_BYTES_MAX;
}

/** An entry of a params message into the table. 0, or as fz_params_add(). */
static int take_entry(fz_params *params, const struct fz_params_entry *entry) {
  int r = fz_params_add(params, entry->name, strlen(entry->name), entry->elements, entry->requires_grad,
                        entry->may_freeze, entry->may_train);

  for (const fz_json *alias = fz_json_first(entry->aliases); alias && r == 0; alias = fz_json_next(alias))
    r = fz_params_add_alias(params, fz_json_string(alias), strlen(fz_json_string(alias)));
  return r;
}

void fz_attach_params(fz_trainer *trainer, const fz_message *message) {
  const struct fz_params_chunk *chunk = &message->params;
  struct fz_params_entry entry;
  const fz_json *cursor = NULL;
  const size_t n = fz_params_count(trainer->listed);

  if (chunk->first != n || chunk->count > trainer->n_params - n || (chunk->count == 0 && trainer->n_params != 0)) {
    fz_trainer_refuse(trainer, true, FZ_CODE_BAD_FIELD,
                      "params from %" PRIu64 " to %" PRIu64 ", expected from %zu to at most %" PRIu64, chunk->first,
                      chunk->first + chunk->count, n, trainer->n_params);
    return;
  }
  while (fz_params_chunk_next(chunk, &cursor, &entry)) {
    const int r = take_entry(trainer->listed, &entry);
    if (r == -E2BIG) {
      fz_trainer_refuse(trainer, true, FZ_CODE_TOO_MANY,
                        "the names of the parameters take more than %u MiB, or more than %u are aliases",
                        FZ_PARAM_BYTES_MAX >> 20, FZ_ALIASES_MAX);
      return;
    }
    if (r < 0) {
      fz_trainer_refuse(trainer, true, FZ_CODE_BAD_FIELD, "parameter %zu cannot be taken: %s",
                        fz_params_count(trainer->listed), strerror(-r));
      return;
    }
  }
  if (!charge(trainer)) {
    fz_trainer_refuse(trainer, true, FZ_CODE_TOO_MANY,
                      "the parameters that trainers have begun to send take more than %u MiB: try again later",
                      FZ_LISTING_BYTES_MAX >> 20);
    return;
  }
  if (fz_params_count(trainer->listed) == trainer->n_params)
    seal_params(trainer);
  else
    fz_trainer_expect_params(trainer);
}

/* ------------------------------------------------------------------------------------------------------------- ready */

/** Whether the plan that holds at `step` can still be had. */
static bool is_late(const fz_trainer *trainer, uint64_t step) {
  const fz_run *run = trainer->run;
  fz_plan plan = FZ_PLAN_NULL;
  bool late = false;

  if (run->plan.gen == 0 || run->ranks[trainer->rank].gen > 0)
    return false;
  if (fz_plan_reserve(&plan, run->segment) == 0)
    late = fz_segment_choose(run->segment, step, run->plan.gen, 0, &plan) == FZ_CHOOSE_LOST;
  fz_plan_deinit(&plan);
  return late;
}

void fz_attach_ready(fz_trainer *trainer, const fz_message *message) {
  fz_run *run = trainer->run;
  struct fz_rank *rank = &run->ranks[trainer->rank];
  char text[80];

  if (trainer->incarnation != run->incarnation || !run->segment)
    return; /* it has been overtaken by another rank's rewind, and goes over when it rewinds itself */
  if (is_late(trainer, message->ready.step)) {
    fz_trainer_refuse(trainer, true, FZ_CODE_LATE_RANK,
                      "the plan of step %" PRIu64 " has left the ring, the run is far beyond: this rank joins the next "
                      "incarnation",
                      message->ready.step);
    return;
  }
  trainer->state = FZ_TRAINER_ATTACHED;
  rank->attached = true;
  rank->step = message->ready.step;
  rank->epoch = message->ready.epoch;
  snprintf(text, sizeof(text), "rank %" PRIu32 " attached, %" PRIu32 "/%" PRIu32, trainer->rank, fz_run_attached(run),
           run->world);
  fz_log_write(&trainer->core->log, FZ_LOG_INFO,
               FZ_LOG_ABOUT(.event = "rank", .run = run->name, .peer = fz_connection_peer(trainer->connection)),
               "%s, at step %" PRIu64 " epoch %" PRIu64, text, rank->step, rank->epoch);
  fz_watch_tell(run->core,
                FZ_EVENT(.event = "attached", .has = FZ_EVENT_RANK | FZ_EVENT_STEP | FZ_EVENT_EPOCH, .run = run,
                         .rank = trainer->rank, .step = rank->step, .epoch = rank->epoch, .text = text));
  fz_trainer_subscribe(trainer);
  fz_publisher_run(run);
  fz_pendings_check(run); /* what it holds it may have taken while its connection was gone */
  fz_progress_note(run);
  fz_waits_check(run->core, run);
}
