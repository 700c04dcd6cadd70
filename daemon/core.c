/* core.c - what freezerd knows apart from its loop and sockets: all runs, who watches, and the means to speak. */
#include "config.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/clock.h"
#include "daemon/core.h"
#include "daemon/hold.h"
#include "daemon/pending.h"
#include "daemon/run.h"
#include "daemon/state.h"

/** What the keys of runs are made of. Never another one for a moment's trouble: no run would be found under its key. */
static int find_scope(const char *socket, const char *state_dir, char **ret_scope) {
  char *scope = state_dir ? strdup(state_dir) : realpath(socket, NULL);

  /* A socket that systemd made may be known by a link: the key must not depend on how it was named. */
  if (!scope && !state_dir && (errno == ENOENT || errno == ENOTDIR || errno == EACCES))
    scope = strdup(socket);
  if (!scope)
    return -errno;
  *ret_scope = scope;
  return 0;
}

int fz_core_init(fz_core *core, const char *socket, const char *state_dir) {
  core->timers = (fz_timers){ 0 };
  core->uid = geteuid();
  core->started_ms = fz_clock_ms();
  fz_boot_id(core->boot_id);
  core->socket = strdup(socket);
  core->state_dir = state_dir ? strdup(state_dir) : NULL;
  const int r = find_scope(socket, state_dir, &core->scope);
  if (r < 0 || !core->socket || (state_dir && !core->state_dir)) {
    fz_core_deinit(core);
    return r < 0 ? r : -ENOMEM;
  }
  return 0;
}

void fz_core_deinit(fz_core *core) {
  while (core->runs) {
    fz_run *run = core->runs;
    core->runs = run->next;
    fz_state_checkpoint(run);
    fz_run_drop_segment(run, fz_run_lives(run));
    fz_run_free(run);
  }
  core->n_runs = 0;
  fz_hold_drop_all(core);
  fz_timer_stop(&core->timers, &core->clean);
  fz_timer_stop(&core->timers, &core->trim);
  core->default_rules = fz_ruleset_unref(core->default_rules);
  free(core->default_source);
  free(core->socket);
  free(core->state_dir);
  free(core->scope);
  core->default_source = core->socket = core->state_dir = core->scope = NULL;
  fz_writer_deinit(&core->writer);
}

fz_run *fz_core_find(const fz_core *core, const char *name) {
  for (fz_run *run = core->runs; run; run = run->next)
    if (strcmp(run->name, name) == 0)
      return run;
  return NULL;
}

/** Whether nobody would miss the run's object: no rank lives and no peer points at it. */
static bool is_evictable(const fz_run *run) {
  for (uint32_t i = 0; i < run->world; i++)
    if (run->ranks[i].trainer)
      return false;
  for (const fz_pending *pending = run->pendings; pending; pending = pending->next)
    if (pending->waiter)
      return false;
  return !fz_run_lives(run);
}

void fz_core_remove(fz_core *core, fz_run *run) {
  fz_run **link = &core->runs;

  while (*link != run)
    link = &(*link)->next;
  *link = run->next;
  core->n_runs--;
  fz_run_free(run);
}

/** The run that has been without ranks for longest. `with_table`: of those whose parameters are known. */
static fz_run *find_oldest(const fz_core *core, bool with_table) {
  fz_run *oldest = NULL;

  for (fz_run *run = core->runs; run; run = run->next)
    if ((run->params || !with_table) && is_evictable(run) && (!oldest || run->idle_ms < oldest->idle_ms))
      oldest = run;
  return oldest;
}

static void forget(fz_core *core, fz_run *run, const char *why) {
  fz_log_write(&core->log, FZ_LOG_NOTICE, FZ_LOG_ABOUT(.event = "run", .run = run->name),
               "forgotten%s: it has ended, %s", core->state_dir ? " until it comes again" : ", with its overrides",
               why);
  fz_state_checkpoint(run);
  fz_run_drop_segment(run, false);
  fz_core_remove(core, run);
}

static int evict(fz_core *core) {
  fz_run *oldest = find_oldest(core, false);

  if (!oldest)
    return -ENOSPC;
  forget(core, oldest, "and there are too many others");
  return 0;
}

/** What the runs take that have ended, and how many they are. */
static size_t ended_bytes(const fz_core *core, size_t *ret_count) {
  size_t bytes = 0;

  *ret_count = 0;
  for (const fz_run *run = core->runs; run; run = run->next) {
    if (!run->params || !is_evictable(run))
      continue;
    bytes += fz_params_memory(run->params);
    *ret_count += 1;
  }
  return bytes;
}

static void on_trim(fz_timer *timer) {
  /* Valid because only the core has this timer, as its member `trim`. */
  fz_core *core = (fz_core *)(void *)((char *)timer - offsetof(fz_core, trim));
  size_t count;

  /* The last that ended stays, however large: it is the one that is asked for, and that comes again. */
  while (ended_bytes(core, &count) > FZ_ENDED_BYTES_MAX && count > 1)
    forget(core, find_oldest(core, true), "and the parameters of those that have take too much memory");
}

void fz_core_run_ended(fz_core *core) {
  core->trim.fire = on_trim;
  fz_timer_start(&core->timers, &core->trim, 0);
}

int fz_core_add(fz_core *core, const char *name, const char *requested, fz_run **ret_run) {
  fz_run *run;
  int r = core->n_runs >= FZ_RUNS_MAX ? evict(core) : 0;

  if (r < 0)
    return r;
  r = fz_run_new(&run, core, name, requested);
  if (r < 0)
    return r;
  fz_run **link = &core->runs;
  while (*link)
    link = &(*link)->next;
  *link = run;
  core->n_runs++;
  *ret_run = run;
  return 0;
}
