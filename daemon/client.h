/* client.h - a control client: its connection, and its requests that are not answered yet. */
#ifndef FZ_CLIENT_H
#define FZ_CLIENT_H

#include <stdbool.h>
#include <stdint.h>

#include "daemon/connection.h"
#include "daemon/core.h"
#include "daemon/timers.h"
#include "protocol/control.h"

/* Requests of one client that wait or watch at the same time. */
#define FZ_CLIENT_OPEN_MAX 256U

struct fz_client {
  fz_core *core;
  fz_connection *connection;
  fz_waiter *waiters;
  fz_listing *listings; /* that it has not read to their end */
  size_t n_open;        /* waiters, listings and watchers */
  bool read_only;       /* it may change nothing */
};

/** A request that waits: for its change (pending), or for a condition (`wait`). Owned by its client. */
struct fz_waiter {
  fz_waiter *next;      /* of the client */
  fz_waiter *core_next; /* of all `wait` requests */
  fz_client *client;
  uint64_t id;
  fz_timer timer; /* runs if it has a limit */
  fz_pending *pending;
  /* `wait` */
  enum fz_wait_for wait_for;
  char *run; /* as asked for; NULL: the only one */
  char *pattern;
  uint64_t gen, step; /* FZ_TIME_NEVER: not given */
  uint64_t since_ms;
};

/** -ENOMEM. */
int fz_client_new(fz_client **ret_client, fz_core *core, fz_connection *connection, bool read_only);
/** Forgets its requests; the changes behind them stay pending. Takes NULL, returns NULL. */
fz_client *fz_client_free(fz_client *client);

/** Sends what the core's writer holds. */
void fz_client_send(fz_client *client);
void fz_client_error(fz_client *client, uint64_t id, enum fz_code code, const char *hint, const char *format, ...)
  __attribute__((format(printf, 5, 6)));

/** It has read all that was queued for it: its listings go on. */
void fz_client_drained(fz_client *client);
/** Sends more of a listing, as much as may be queued. @return true: it was the rest, and the listing is freed */
bool fz_listing_continue(fz_listing *listing);
/** Unlinks it from its client. */
void fz_listing_free(fz_listing *listing);

/**
 * Keeps a request open until something happens or `limit_ms` (FZ_TIME_NEVER: none) have passed; the caller sets what it
 * waits for. -ENOSPC too many are open; -ENOMEM.
 */
int fz_waiter_new(fz_waiter **ret_waiter, fz_client *client, uint64_t id, uint64_t limit_ms);
/** Unlinks it from client, core and pending. */
void fz_waiter_free(fz_waiter *waiter);

/** Its change was applied or superseded: answers, and frees the waiter. */
void fz_waiter_change_done(fz_waiter *waiter);

/** Adds a `wait` to those that are looked at when something happens, and looks at it at once. */
void fz_wait_start(fz_waiter *waiter);
/** Its time ran out: answers that the condition was not met, and frees the waiter. */
void fz_wait_expired(fz_waiter *waiter);
/** Looks at all `wait` requests that may be about this run. */
void fz_waits_check(fz_core *core, const fz_run *run);
/** The lowest step that a `wait` on this run asks for, beyond `step`; FZ_TIME_NEVER: none. */
uint64_t fz_waits_next_step(const fz_core *core, const fz_run *run, uint64_t step);

#endif
