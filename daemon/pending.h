/* pending.h - a change that was accepted, until every rank has it. */
#ifndef FZ_PENDING_H
#define FZ_PENDING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/core.h"
#include "daemon/rules/layers.h"
#include "daemon/rules/planner.h"
#include "daemon/run.h"
#include "protocol/control.h"

/*
 * STATES
 *
 *   queued      gen 0: the ranks are not all attached, or one of them blocks the ring. It is in the run's layers and
 *               will be in the next plan.
 *   published   gen > 0: a plan carries it, some rank has not applied that plan or a newer one yet
 *   applied     every rank has: it is answered, and kept only as history
 *   superseded  a later one replaced it before it was published: answered so, never as applied
 *
 * They are the run's, not the launch's: what is queued when the last rank has gone is in the first plan of the next
 * launch, and applied when its ranks have that. Nobody waits that long: who does is answered when the run ends.
 *
 * A new incarnation puts what was published and not applied back into the queue: gens begin again.
 */

/** What a change did, for its answer and for people. */
struct fz_outcome {
  bool nothing; /* there was nothing to do */
  size_t matched, changed;
  uint64_t matched_elements, changed_elements;
  uint64_t trainable_before, trainable_after; /* elements */
  struct fz_mask_delta delta;
  size_t dropped;
  size_t rules;
  uint64_t until_step, until_epoch; /* FZ_TIME_NEVER: no end */
  struct fz_next next;
  char **names; /* of what changed, at most 8 */
  size_t n_names;
  char *text; /* "froze model.layers.4 (7.1M)" */
  char *undo; /* a command, or NULL */
  char *notes[4];
  size_t n_notes;
  char *warnings[8];
  size_t n_warnings;
};

struct fz_pending {
  fz_pending *next;
  fz_run *run;
  enum fz_op op;

  /* what was asked for */
  char **patterns;
  size_t n_patterns;
  uint64_t *mask;                                       /* what they select; freed when it was published */
  uint64_t for_steps, at_step, until_step, until_epoch; /* FZ_TIME_NEVER: not given */
  enum fz_pin_value pin_value;
  bool include_baseline;
  fz_rules *rules;
  char *source;                      /* of the rules, for people */
  fz_layers *target;                 /* of a revert: the decisions to go back to */
  uint64_t to_gen;                   /* of a revert; 0: to before the last change */
  size_t undone;                     /* of a revert: changes that it takes back */
  enum fz_rules_origin rules_origin; /* of a revert */
  char *rules_by;

  /* by whom */
  uint64_t uid;
  char *user, *host, *reason;
  char *by; /* "ana@gpu07" */

  uint64_t serial;       /* of its line in the history */
  uint64_t time_ms;      /* wall clock when it was accepted */
  uint64_t accepted_ms;  /* monotonic clock */
  uint64_t assumed_step; /* where `for` was counted from */
  bool resolved;         /* it was published once: `for` has become an end that stays */

  uint64_t gen;           /* 0: queued */
  uint64_t superseded_by; /* 0: not */
  uint64_t from;          /* first step that the plan was made for */
  uint64_t step;          /* at which it is in effect; FZ_TIME_NEVER: not known yet */
  struct fz_outcome outcome;
  fz_waiter *waiter; /* who waits for it, or NULL */
};

/**
 * From a request. Copies all it needs; the mask is left to the caller.
 * @param user  who asks, for people
 * @return 0 or -ENOMEM
 */
int fz_pending_new(fz_pending **ret_pending, fz_run *run, const fz_request *request, uint64_t uid);
/** Takes NULL; returns NULL. */
fz_pending *fz_pending_free(fz_pending *pending);

/**
 * Does it to layers, as of (step, epoch).
 * @param counts  may be NULL
 * @return what the layers say: 0, an enum fz_change, -ENOMEM
 */
int fz_pending_apply(fz_pending *pending, fz_layers *layers, uint64_t step, uint64_t epoch,
                     struct fz_change_counts *counts);

/** Appends a sentence to the outcome; what does not fit is dropped. */
void fz_outcome_note(struct fz_outcome *outcome, const char *format, ...) __attribute__((format(printf, 2, 3)));
void fz_outcome_warn(struct fz_outcome *outcome, const char *format, ...) __attribute__((format(printf, 2, 3)));

/** Puts it at the end of its run's queue, which owns it from now on. */
void fz_pending_enqueue(fz_pending *pending);

/** Whether `later` leaves nothing of `earlier`. Both have their masks. */
bool fz_pending_replaces(const fz_pending *later, const fz_pending *earlier);

/** The run's plan, `gen`, carries everything that was queued, from (from, epoch) on. Answers what is superseded. */
void fz_pendings_published(fz_run *run, uint64_t gen, uint64_t from, uint64_t epoch);
/** A rank says that it took `gen` at `step`: what that tells of the step at which changes came into effect. */
void fz_pendings_taken(fz_run *run, uint64_t gen, uint64_t step);
/** Answers and forgets what all ranks have applied. */
void fz_pendings_check(fz_run *run);
/** Back into the queue: a new incarnation begins. */
void fz_pendings_requeue(fz_run *run);
/** No rank is left: who waits is answered. The changes stay queued, and are in the first plan of the next launch. */
void fz_pendings_run_ended(fz_run *run);

/** Whether it is not over and this rank has not applied it. */
bool fz_pending_waits_for(const fz_pending *pending, uint32_t rank);

/** Writes the fields of the answer to a change. `dry_run`: nothing was done. */
void fz_pending_write(const fz_pending *pending, fz_json_writer *writer, bool dry_run);

#endif
