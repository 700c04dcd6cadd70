/* timers.h - deadlines of the core, all served by the one timer of the loop. */
#ifndef FZ_TIMERS_H
#define FZ_TIMERS_H

#include <stdbool.h>
#include <stdint.h>

/*
 * A timer is embedded in what it belongs to and fires once. It may be started again from within its own callback, and
 * stopped or freed with its owner from within any. Few run at a time (one per waiting request and per busy run), so a
 * sorted list is enough.
 */
typedef struct fz_timer fz_timer;
typedef struct fz_timers fz_timers;

struct fz_timer {
  uint64_t due; /* 0: not running */
  void (*fire)(fz_timer *timer);
  fz_timer *next;
  fz_timer **link; /* what points at this one */
};

struct fz_timers {
  fz_timer *first;
  void (*changed)(void *user); /* the earliest deadline is another one; may be NULL */
  void *user;
};

/** Fires `delay_ms` from now; a running timer is moved. */
void fz_timer_start(fz_timers *timers, fz_timer *timer, uint64_t delay_ms);
/** Does nothing to one that does not run. */
void fz_timer_stop(fz_timers *timers, fz_timer *timer);
/** Milliseconds until the earliest deadline, 0 when it has passed, UINT64_MAX when there is none. */
uint64_t fz_timers_delay(const fz_timers *timers);
/** Fires what is due. */
void fz_timers_run(fz_timers *timers);

#endif
