/* watchers.h - events, for the control clients that watch. */
#ifndef FZ_WATCHERS_H
#define FZ_WATCHERS_H

#include <stdint.h>

#include "daemon/core.h"

struct fz_watcher {
  fz_watcher *next;
  fz_client *client;
  uint64_t id;
  char *run; /* its name; NULL: all */
};

/* Which numbers an event has. */
enum { FZ_EVENT_GEN = 1, FZ_EVENT_STEP = 2, FZ_EVENT_EPOCH = 4, FZ_EVENT_RANK = 8 };

/** What happened. Texts may be NULL; counts of 0 are not told. */
struct fz_event {
  const char *event; /* its name on the wire */
  const fz_run *run;
  const char *text; /* a sentence without time and run */
  unsigned has;     /* FZ_EVENT_… */
  uint64_t gen, step, epoch, rank;
  uint64_t froze, unfroze;
  const char *by, *reason;
};

#define FZ_EVENT(...) (&(const struct fz_event){ __VA_ARGS__ })

/** Tells all who watch this run; costs nothing when nobody does. */
void fz_watch_tell(fz_core *core, const struct fz_event *event);
/** Starts a watch. `run` is copied, NULL: all. -ENOMEM. */
int fz_watch_start(fz_client *client, uint64_t id, const char *run);
/** Ends the watches of a client. */
void fz_watch_stop(fz_client *client);

#endif
