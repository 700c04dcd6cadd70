/* handle.h - what a freezer_t holds, and who in libfreezer does what. */
#ifndef FZ_CLIENT_HANDLE_H
#define FZ_CLIENT_HANDLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "client/freezer.h"
#include "client/identity.h"
#include "protocol/json.h"
#include "protocol/limits.h"
#include "protocol/lines.h"
#include "protocol/message.h"
#include "protocol/params.h"
#include "protocol/plan.h"
#include "protocol/segment.h"
#include "protocol/sockpath.h"
#include "protocol/writer.h"

/*
 * MODEL
 *
 * Two things are kept apart, because the second must never depend on the first.
 *
 *   the link (link.c, events.c)   the connection to freezerd: connect, hello, parameters, welcome, ready, events. It is
 *                                 driven in small non-blocking pieces by fz_link_tick(), from freezer_batch_begin() or
 *                                 from the waits of freezer_open() and freezer_rewind(). It may be down at any time.
 *   the plan (flags.c, holds.c)   the flags in force, a private copy of the plan that they come from, and the maps of
 *                                 the segments in which plans appear. It goes on with the link down.
 *
 * Segments held:
 *
 *   current   its plan is in force; its gate is consulted at every step
 *   later     newer incarnations, oldest first, whose first plan is not in force yet. Their gates are raised at every
 *             step as well, beside that of `current`, so that all ranks go over to one at the same step: that of its
 *             first plan. One that was given up by freezerd before it had a plan is dropped, as it never will have one;
 *             one that has a plan stays, since other ranks may be using it already
 *   stale     what was held when training went back. Not consulted; kept to be shown to freezerd at a reconnect
 *
 * A rank that attaches for the first time has one later only; when its first plan is in force that becomes current.
 *
 * The clock is read every `batches_per_tick` batches, adapted to about a millisecond: an idle freezer_batch_begin() is
 * the gate's operation and a few compares.
 */

enum fz_link_state {
  FZ_LINK_OFF,    /* FREEZER_DISABLE */
  FZ_LINK_DOWN,   /* no connection; the next attempt is at retry_at */
  FZ_LINK_HELLO,  /* hello is on its way, the answer is not there */
  FZ_LINK_PARAMS, /* freezerd asked for the parameters */
  FZ_LINK_READY   /* ready was sent */
};

struct fz_metric_slot {
  char name[FZ_METRIC_NAME_MAX + 1];
  double value;
  bool unsent;
};

struct fz_link {
  enum fz_link_state state;
  fz_socket_search places;              /* untried: copied for each attempt */
  char path[FZ_SOCKET_DISPLAY_MAX + 1]; /* of the socket, while fd is open */
  int fd;
  uid_t peer_uid;
  fz_line_reader reader;
  fz_output output;
  fz_json_writer writer;
  size_t next_param; /* first that was not sent, in FZ_LINK_PARAMS */
  int64_t retry_at_ms, poll_at_ms;
  int64_t retry_wait_ms;                /* after a refusal, grows */
  bool refused;                         /* freezerd said no; cleared by welcome */
  bool owes_rewind;                     /* training went back, and no segment came for that yet */
  char last_error[FZ_CODE_MAX + 1];     /* not to log the same refusal again and again */
  char name_given[FZ_RUN_NAME_MAX + 1]; /* what freezerd called the run last */
};

/* What freezerd asked for, and what waits to be sent: the newest of each kind. */
struct fz_events {
  struct fz_subscribe wanted;
  int64_t step_at_ms, metrics_at_ms; /* not before */
  bool step_unsent, epoch_unsent, applied_unsent, metrics_unsent;
  uint64_t step_sent;  /* last step that a step event told, FZ_TIME_NEVER before the first */
  uint64_t epoch_step; /* at which this epoch began, FZ_TIME_NEVER if it began before us */
  struct fz_applied applied;
  bool woke;                                /* the wake of this plan was told */
  uint64_t threshold_step, threshold_epoch; /* an event may be due from there on: one compare in the fast path */
  size_t n_metrics;
  struct fz_metric_slot metrics[FZ_METRICS_MAX];
};

#define FZ_LATER_MAX 4U

/* What passes between machines, and what came of it (collective.c). */
struct fz_collective {
  freezer_broadcast_fn broadcast; /* NULL: one machine */
  freezer_broadcast_wait_fn wait; /* NULL: broadcast does */
  void *user;
  bool root;
  bool unsent;        /* root: the plan in `ahead` has still to be handed out */
  bool has_ahead;     /* `ahead` was handed out and holds from the next step on */
  bool under_way;     /* a header was begun, and is to be waited for */
  uint64_t header[3]; /* the one of the last broadcast: freed only with the handle, since it may be under way */
  uint64_t last_gen;  /* root: newest gen that was taken from the segment */
  fz_plan ahead;
  uint64_t *words; /* a plan as it is handed out */
  size_t n_words;  /* that fit there */
};

struct freezer {
  unsigned fork_count; /* of the process that opened it */
  freezer_log_fn log;
  void *log_user;
  bool require;
  int attach_timeout_ms;

  fz_params *params;
  size_t n_params, n_words;
  fz_json *rules;
  struct fz_identity identity;

  /* where training is: of the last batch, or before the first (begun is false) of the one that comes */
  bool begun;
  uint64_t step, epoch;

  /* flags.c */
  uint64_t *flags;
  uint64_t *unwritten; /* parameters that freezer_next_change() has still to yield */
  size_t cursor;
  size_t first_trainable;
  fz_plan plan, spare; /* plan.gen is 0 when none is in force */
  size_t row;
  uint32_t edge;                            /* of the row that the flags were written from */
  uint64_t row_until_step, row_until_epoch; /* the row in force holds before both */

  /* holds.c */
  fz_segment *current, *stale;
  fz_segment *later[FZ_LATER_MAX];
  size_t n_later;
  bool lost_told, damage_told;

  /* batch.c */
  uint32_t batches_left, batches_per_tick;
  int64_t ticked_at_ns;

  struct fz_link link;
  struct fz_events events;
  struct fz_collective collective;
};

/* --- open.c --- */

/** Gives one line to the caller's log function, if there is one. */
void fz_log(const freezer_t *f, enum freezer_log_level level, const char *format, ...)
  __attribute__((format(printf, 3, 4)));

/* --- fork.c --- */

/** How many forks lie between this process and the first that asked: another number, another process. */
extern unsigned fz_fork_count;
/** Makes forks count; once is enough. 0; -ENOMEM. */
int fz_fork_watch(void);

static inline bool fz_is_inert(const freezer_t *f) { return f->fork_count != fz_fork_count; }

/* --- flags.c: from a plan to flags --- */

/** Sets the flags to the baseline. */
void fz_flags_reset(freezer_t *f);
/** The plan in `spare` comes into force: swaps it with `plan`. The flags follow in fz_flags_follow(). */
void fz_flags_take_spare(freezer_t *f);
/** Forgets the plan; the flags stay. */
void fz_flags_forget_plan(freezer_t *f);
/** Whether the row in force ends before (f->step, f->epoch). */
static inline bool fz_flags_are_due(const freezer_t *f) {
  return f->step >= f->row_until_step || f->epoch >= f->row_until_epoch;
}
/** Brings the flags to the plan's row at (f->step, f->epoch). @return whether there is anything to write */
bool fz_flags_follow(freezer_t *f);

/* --- holds.c: segments --- */

/**
 * The gates, at the start of `step`: raises them, and copies the newest plan for it into f->spare.
 * @param held  newest gen that was taken from `current`
 * @return 1 there is another plan; 0 there is none; -EBADMSG a slot is damaged
 */
int fz_holds_begin_step(freezer_t *f, uint64_t step, uint64_t held);
/** Whether the segment that would give the next plan has one. */
bool fz_holds_has_plan(const freezer_t *f);
/** What freezerd is shown at a reconnect: the newest segment held, or NULL; and the gen held of it. */
fz_segment *fz_holds_newest(const freezer_t *f, uint64_t *ret_gen);
/**
 * The segment that came with `welcome`. Enters the rank's line and raises the gate to the step that was begun.
 * @param fd  consumed
 * @return 0; 1 it is one that was held already; -EBUSY plans of too many incarnations are still ahead; other negative
 *         errno: nothing changed
 */
int fz_holds_welcome(freezer_t *f, int fd, uint64_t incarnation);
/** Training goes back: no plan holds any more, the flags stay. @return whether any segment is held */
bool fz_holds_rewind(freezer_t *f);
/** Leaves the lines and unmaps. */
void fz_holds_drop(freezer_t *f);

/* --- collective.c: several machines --- */

/** Takes the caller's broadcast. 0; -EINVAL; -ENOMEM. */
int fz_collective_init(freezer_t *f, const freezer_options_t *options);
void fz_collective_deinit(freezer_t *f);
/**
 * At the start of a step: what was handed out before comes into force; then the plan of the next step is handed out.
 * @return 1 another plan is in force; 0 the same; negative errno of the broadcast, or of what it brought
 */
int fz_collective_begin_step(freezer_t *f);
/** Where training begins, or goes on: hands out the plan of f->step itself. 0; negative errno. */
int fz_collective_begin(freezer_t *f);

static inline bool fz_is_collective(const freezer_t *f) { return f->collective.broadcast != NULL; }

/* --- events.c: what is told to freezerd --- */

/** freezerd asked for other events. */
void fz_events_subscribe(freezer_t *f, const struct fz_subscribe *wanted);
/** No events are wanted, until asked again. */
void fz_events_unsubscribe(freezer_t *f);
/** A plan came into force at f->step. */
void fz_events_plan_taken(freezer_t *f);
/** Looks what is due at (f->step, f->epoch) and sends it; called when a threshold was reached. */
void fz_events_reached(freezer_t *f, bool new_epoch);
/** Sends what is due by the clock, and what waited for room. */
void fz_events_flush(freezer_t *f, int64_t now_ms);
/** Computes the thresholds again. */
void fz_events_set_thresholds(freezer_t *f);

/* --- link.c: the connection --- */

/** Not connected, nothing wanted; the first attempt is due at once. */
void fz_link_init(freezer_t *f);
/** One non-blocking piece of work: connect, receive, send. */
void fz_link_tick(freezer_t *f, int64_t now_ms);
/** Encodes and queues a message. @return whether it was */
bool fz_link_push(freezer_t *f, const fz_message *message);
/** Sends what the socket takes; ends the connection when it is broken. @return whether all of it went */
bool fz_link_flush(freezer_t *f);
/** Ends the connection; the next attempt is in `retry_ms`. */
void fz_link_end(freezer_t *f, int64_t retry_ms);
/**
 * Drives the link until the next plan is there, freezerd is gone or refuses, or the attach timeout is over.
 * @return 0; -ENOTCONN; -ECONNREFUSED; -ETIMEDOUT
 */
int fz_link_wait(freezer_t *f);
/** Tells that training goes on at (f->step, f->epoch), after fz_holds_rewind(). */
void fz_link_rewind(freezer_t *f, bool held);
/** bye, as far as the socket takes it, and the end. */
void fz_link_close(freezer_t *f);

int64_t fz_now_ms(void);

#endif
