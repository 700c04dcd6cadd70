/* core.h - what freezerd knows apart from its loop and sockets: all runs, who watches, and the means to speak. */
#ifndef FZ_CORE_H
#define FZ_CORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "daemon/connection.h"
#include "daemon/log.h"
#include "daemon/rules/ruleset.h"
#include "daemon/timers.h"
#include "protocol/segment.h"
#include "protocol/writer.h"

/*
 * WHO OWNS WHAT
 *
 *   server       the loop, the listener, the signals; one session per accepted connection
 *   session      one peer, until its first message has said what it is: then a trainer or a client
 *   trainer      a rank's side of the conversation; points at the run that took it in, which points back from ranks[]
 *   client       a control client's requests that wait for something (waiters) or go on for ever (watchers)
 *   core         all runs, by name
 *   run          parameters, layers, the segment of its incarnation, its ranks, the changes on their way (pendings)
 *
 * Peers end in the loop, never from within a call on them; runs end when core needs the room, and only when no peer
 * points at them. Everything runs in one thread.
 *
 * HOW A CHANGE GOES
 *
 *   control_change   reads a request, tries it on a clone of the run's layers, judges the plan (guards)
 *   batch            what was tried, until the loop has read what else clients want: on disk, all in one write
 *   pending          what was accepted, until every rank has it
 *   publisher        layers -> plan -> gate, as soon as the ranks are attached and the ring has room
 *   trainer          `applied` of the ranks; when all have said it, the pending is answered and becomes history
 */
typedef struct fz_core fz_core;
typedef struct fz_run fz_run;
typedef struct fz_trainer fz_trainer;
typedef struct fz_client fz_client;
typedef struct fz_pending fz_pending;
typedef struct fz_waiter fz_waiter;
typedef struct fz_watcher fz_watcher;
typedef struct fz_listing fz_listing;
typedef struct fz_hold fz_hold;

struct fz_core {
  fz_log log;
  fz_timers timers;
  fz_json_writer writer; /* for the line that is being written; every sender leaves it reset */
  char *socket;          /* path, for people */
  char *state_dir;       /* real path; NULL: nothing is kept */
  char *scope;           /* what run keys are hashed with: the state directory's path, without one the socket's */
  char boot_id[FZ_BOOT_ID_MAX + 1];
  uid_t uid;
  uint64_t started_ms;
  fz_ruleset *default_rules; /* --rules, or NULL */
  char *default_source;      /* its path */
  fz_run *runs;              /* by the time at which they came, oldest first */
  size_t n_runs;
  size_t n_batched; /* changes in the runs' batches, batch.h */
  fz_watcher *watchers;
  fz_waiter *waiters;        /* of `wait` */
  fz_hold *holds;            /* hold.h */
  fz_timer clean;            /* until the segments of the dead are removed */
  fz_timer trim;             /* until runs that have ended are looked at for what they take */
  struct fz_traffic traffic; /* memory of all connections' buffers */
  size_t listing_bytes;      /* memory of the tables that trainers have begun to send */
};

#define FZ_CORE_NULL \
  { .uid = (uid_t)-1 }

/**
 * @param socket     path of the socket, for people and for run keys
 * @param state_dir  an existing folder, or NULL
 * @return 0 or negative errno
 */
int fz_core_init(fz_core *core, const char *socket, const char *state_dir);
/** All peers are gone. Segments in which ranks live stay for the next freezerd, the others are removed. */
void fz_core_deinit(fz_core *core);

/** The run of this name, or NULL. Borrowed. */
fz_run *fz_core_find(const fz_core *core, const char *name);
/** A new run, empty; when there are too many, the one that has been without ranks for longest goes. -ENOSPC, -ENOMEM. */
int fz_core_add(fz_core *core, const char *name, const char *requested, fz_run **ret_run);
/**
 * A run has ended: soon, but not from within this call, those that ended first are forgotten, until the parameter tables
 * of the others take no more than FZ_ENDED_BYTES_MAX.
 */
void fz_core_run_ended(fz_core *core);
/** Forgets a run that came to nothing: it has no segment, and no peer points at it. */
void fz_core_remove(fz_core *core, fz_run *run);

#endif
