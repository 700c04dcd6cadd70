/* run.h - a run: one training job by name, its parameters, layers, incarnation, ranks, and the changes on their way. */
#ifndef FZ_RUN_H
#define FZ_RUN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/batch.h"
#include "daemon/core.h"
#include "daemon/history.h"
#include "daemon/recent.h"
#include "daemon/rules/layers.h"
#include "daemon/timers.h"
#include "protocol/message.h"
#include "protocol/params.h"
#include "protocol/plan.h"
#include "protocol/segment.h"

/*
 * LIFE
 *
 *   launch       job, attempt and world: launch.h decides which launch a `hello` belongs to. A new one resets the ranks
 *                and drops the segment.
 *   incarnation  one segment. Made when the first rank of a launch is taken in, or when a rank rewinds; dropped when no
 *                rank of it lives any more. Gens start at 1 in each.
 *   attached     a rank whose `ready` came in the current incarnation, and that is connected
 *   alive        a rank that is connected, or whose process still holds its line of the segment
 *
 * Parameters, layers, rules and history belong to the run and outlive incarnations and launches.
 */

/** One rank of the current launch. */
struct fz_rank {
  fz_trainer *trainer; /* its connection; NULL: none */
  bool attached;
  uint64_t pid;
  uint64_t gen;                /* newest gen that it said it uses, in this incarnation */
  uint64_t applied_step;       /* from which step on */
  uint64_t step, epoch;        /* as last said; FZ_TIME_NEVER: not yet in this incarnation */
  uint64_t at_step;            /* `at_step` of its subscription; FZ_TIME_NEVER: none */
  uint64_t heard_ms;           /* when it last said anything */
  uint64_t pace_step, pace_ms; /* the step event that step_ms was last measured from */
};

/* Rewinds of a lighter ruleset that are remembered; a run that rewinds more often begins afresh after a restart. */
#define FZ_ANCHORS_MAX 64U

/** A lighter ruleset was anchored at a batch, or went back from one. */
struct fz_anchor {
  bool rewind;
  uint64_t step, epoch;
};

/** Where the rules of a run came from. */
enum fz_rules_origin { FZ_RULES_NONE, FZ_RULES_DEFAULT, FZ_RULES_TRAINER, FZ_RULES_CONTROL };

struct fz_run {
  fz_run *next;
  fz_core *core;
  char name[FZ_RUN_NAME_MAX + 1];
  char requested[FZ_RUN_NAME_MAX + 1];
  char key[FZ_RUN_KEY_LENGTH + 1];
  char framework[FZ_FRAMEWORK_MAX + 1];
  char job[FZ_JOB_NAME_MAX + 1];
  uint64_t attempt;
  uint32_t world;
  struct fz_rank *ranks; /* world */

  fz_params *params;   /* NULL: not known yet */
  fz_layers *layers;   /* everything accepted; NULL as long as params is */
  fz_layers *in_force; /* as of the newest plan: what queued changes are applied to once more */
  enum fz_rules_origin rules_origin;
  char *rules_source; /* for people; NULL: none */
  char *rules_by;
  bool rules_unproven; /* they came with an attach: whether they would freeze everything is not known yet */
  bool new_processes;  /* the layers were not yet told that a new launch began */
  struct fz_anchor anchors[FZ_ANCHORS_MAX]; /* what a lighter ruleset went through in this launch */
  size_t n_anchors;
  bool anchors_lost;     /* there were more */
  fz_json *saved;        /* state.h: what was read and not restored yet */
  uint64_t saved_hash;   /* of the state that was kept last */
  uint64_t serial;       /* of that state: how many were kept */
  uint64_t checkpointed; /* serial of what state.json holds */
  fz_timer checkpoint;
  struct fz_history history;
  bool adopted; /* the plan is one of a freezerd before us, whose decisions we do not know */

  uint64_t incarnation; /* of `segment`, or the last one; 0: none yet */
  fz_segment *segment;  /* NULL: no rank lives */
  char segment_name[FZ_SEGMENT_NAME_MAX + 1];
  fz_plan plan;       /* newest published; gen 0: none in this incarnation (what was last in force is kept) */
  uint64_t ended_gen; /* its gen when the incarnation ended; 0: it had none */
  bool planned;       /* `plan` holds one, of this incarnation or the last */
  bool extend;        /* the plan runs out: it is to be made again from here */
  bool blocked;       /* a rank still holds the slot that the next plan needs */
  fz_timer retry;     /* looks again after ranks that block, or that vanished without a word */
  uint64_t last_step, last_epoch; /* where it was when nobody could be asked any more */
  double step_ms;                 /* 0: not known */

  struct fz_batch batch; /* what was tried and is not on disk yet */
  fz_pending *pendings;  /* oldest first: queued ones (gen 0) behind published ones */
  size_t n_pendings;
  struct fz_recent recent;
  struct fz_metrics_kept *metrics;
  char *warnings[8];
  size_t n_warnings;
  uint64_t trainable_history[32]; /* elements, oldest first; the last is now */
  size_t n_trainable;
  uint64_t flip_step, flip_epoch; /* flips.h */
  uint64_t told_epoch;            /* highest epoch that watchers were told of */
  uint64_t *seen, *since;         /* since.h */
  uint32_t *since_gen;
  bool live;        /* as last told to watchers */
  uint64_t idle_ms; /* since when no rank lives */
};

/** A run without anything but its names. -ENOMEM. */
int fz_run_new(fz_run **ret_run, fz_core *core, const char *name, const char *requested);
/** No trainer points at it any more. Takes NULL, returns NULL. */
fz_run *fz_run_free(fz_run *run);

/* --- launches and incarnations --- */

/**
 * Begins a launch: trainers of the one before are told that they are retired and forget the run, its segment goes.
 * @return 0 or -ENOMEM (nothing changed)
 */
int fz_run_launch(fz_run *run, const char *job, uint64_t attempt, uint32_t world);
/**
 * Sets or replaces the parameter table (a new reference). Rules, overrides and pins are resolved again; what selects
 * nothing any more is dropped with a warning.
 * @return 0 or -ENOMEM (nothing changed)
 */
int fz_run_set_params(fz_run *run, fz_params *params);
/** Makes the next incarnation's segment. 0; -ENOSPC shared memory is full; other negative errno. */
int fz_run_incarnate(fz_run *run);
/** Drops the segment; its name goes too, unless `keep_name`. */
void fz_run_drop_segment(fz_run *run, bool keep_name);

/** Notes that a lighter ruleset was anchored, or goes back; nothing in profile owned. */
void fz_run_note_anchor(fz_run *run, const fz_layers *layers, bool rewind, uint64_t step, uint64_t epoch);
/** The rules are other ones, or a new launch begins. */
void fz_run_forget_anchors(fz_run *run);

/* --- ranks --- */

/** Whether the rank is connected, or its process lives and holds its line. */
bool fz_run_rank_lives(const fz_run *run, uint32_t rank);
bool fz_run_lives(const fz_run *run);
uint32_t fz_run_attached(const fz_run *run);
/** All `world` ranks are attached: there may be a new plan. */
bool fz_run_complete(const fz_run *run);
/** The trainer of `rank` is gone or said bye: gives up its place. */
void fz_run_release(fz_run *run, uint32_t rank);

/** Where a rank is, by what it said and by its line. False: it has not said yet. */
bool fz_run_rank_at(const fz_run *run, uint32_t rank, uint64_t *ret_step, uint64_t *ret_epoch);
/** Where the run is: the highest step of any rank, and the highest epoch; 0 before the first. */
void fz_run_now(const fz_run *run, uint64_t *ret_step, uint64_t *ret_epoch);
/** The lowest (step, epoch) that any rank will ask for next. */
void fz_run_floor(const fz_run *run, uint64_t *ret_step, uint64_t *ret_epoch);
/** The newest gen that all ranks that live have applied; 0: none. */
uint64_t fz_run_applied_gen(const fz_run *run);
/** The same for people: of a run that has ended the gen that it had in the end. */
uint64_t fz_run_gen_held(const fz_run *run);
/** The newest gen, for people: of a run that has ended the last one. */
uint64_t fz_run_gen_newest(const fz_run *run);

/**
 * The mask that holds now, by the newest plan that all ranks have applied: fz_mask_words() words.
 * Before the first plan it is the baseline.
 * @return 0 or -ENOMEM
 */
int fz_run_mask(const fz_run *run, uint64_t *mask);
/** Elements that train by that mask. */
uint64_t fz_run_trainable(const fz_run *run, size_t *ret_params);

/* --- what people should know --- */

/** Keeps a warning for `status` and logs it. Saying the same twice does no harm. */
void fz_run_warn(fz_run *run, const char *format, ...) __attribute__((format(printf, 2, 3)));
void fz_run_clear_warnings(fz_run *run);
/** Sends a notice to every connected rank. */
void fz_run_notice(fz_run *run, enum fz_level level, const char *code, const char *message);
/** Adds the trainable elements of now, or of a while ago, to the history behind `status`. */
void fz_run_note_trainable(fz_run *run, uint64_t elements);
/** Says once, when it is so, that the run has begun to live or lives no more. */
void fz_run_check_life(fz_run *run);

/* --- metrics --- */

struct fz_metrics_kept {
  size_t n;
  struct {
    char name[FZ_METRIC_NAME_MAX + 1];
    double value; /* NaN: no value */
  } items[FZ_METRICS_MAX];
};

/** Keeps the newest value of each; names beyond FZ_METRICS_MAX are not kept. */
void fz_run_keep_metrics(fz_run *run, const struct fz_metrics *metrics);

#endif
