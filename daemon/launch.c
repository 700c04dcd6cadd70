/* launch.c - which run and which launch of it a trainer belongs to. */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "daemon/adopt.h"
#include "daemon/clock.h"
#include "daemon/launch.h"
#include "daemon/run.h"

/* Jobs that may live under one name at the same time. */
#define CANDIDATES_MAX 100

/** "NAME" for 1, "NAME-2" for 2 and so on; a name that is too long for that is cut. */
static void candidate_name(const char *name, int number, char buffer[FZ_RUN_NAME_MAX + 1]) {
  char suffix[16] = "";

  if (number > 1)
    snprintf(suffix, sizeof(suffix), "-%d", number);
  snprintf(buffer, FZ_RUN_NAME_MAX + 1, "%.*s%s", (int)(FZ_RUN_NAME_MAX - strlen(suffix)), name, suffix);
}

static bool is_same_job(const fz_run *run, const fz_trainer *trainer) { return strcmp(run->job, trainer->job) == 0; }

/** Whether the holder of the trainer's rank is this same process, back on a new connection. */
static bool is_same_process(const fz_run *run, const fz_trainer *trainer) {
  const struct fz_rank *rank = &run->ranks[trainer->rank];

  if (rank->trainer)
    return rank->trainer->pid == trainer->pid &&
           fz_connection_peer(rank->trainer->connection)->pid == fz_connection_peer(trainer->connection)->pid;
  if (fz_rank_read(run->segment, trainer->rank).pid != trainer->pid)
    return false;
  /* In containers many processes say that they are pid 7: the kernel knows the one that lives in this place. */
  const pid_t holder = fz_rank_holder(run->segment, trainer->rank);
  return holder == 0 || holder == fz_connection_peer(trainer->connection)->pid;
}

enum fit { JOINS, TAKES_OVER, FREE, OTHER, RETIRED };

static enum fit fit(const fz_run *run, const fz_trainer *trainer) {
  if (!fz_run_lives(run))
    return FREE;
  if (!is_same_job(run, trainer))
    return OTHER;
  if (trainer->attempt != run->attempt)
    return trainer->attempt > run->attempt ? TAKES_OVER : RETIRED;
  if (trainer->rank < run->world && fz_run_rank_lives(run, trainer->rank) && !is_same_process(run, trainer))
    return OTHER;
  return JOINS;
}

/** The run in which the trainer's job lives, or NULL with 0. Negative errno: one may be there, and cannot be seen now. */
static int find_own(fz_trainer *trainer, const char *name, enum fit *ret_fit, fz_run **ret_run) {
  char candidate[FZ_RUN_NAME_MAX + 1];

  for (int number = 1; number <= CANDIDATES_MAX; number++) {
    candidate_name(name, number, candidate);
    fz_run *run = fz_core_find(trainer->core, candidate);
    /* After a restart of freezerd the segment of a run that lives is the only thing that tells of it. */
    const int r = run ? 0 : fz_adopt_by_name(trainer->core, candidate);
    if (fz_adopt_is_passing(r))
      return r;
    if (!run && r == 0)
      run = fz_core_find(trainer->core, candidate);
    if (!run)
      return 0;
    *ret_fit = fit(run, trainer);
    if (*ret_fit == JOINS || *ret_fit == TAKES_OVER || *ret_fit == RETIRED) {
      *ret_run = run;
      return 0;
    }
  }
  return 0;
}

/** The first run under this name that nobody lives in, made if need be. */
static int find_free(fz_trainer *trainer, const char *name, fz_run **ret_run) {
  char candidate[FZ_RUN_NAME_MAX + 1];

  for (int number = 1; number <= CANDIDATES_MAX; number++) {
    candidate_name(name, number, candidate);
    fz_run *run = fz_core_find(trainer->core, candidate);
    if (!run)
      return fz_core_add(trainer->core, candidate, name, ret_run);
    if (fit(run, trainer) == FREE) {
      *ret_run = run;
      return 0;
    }
  }
  return -ENOSPC;
}

static void take_place(fz_run *run, fz_trainer *trainer) {
  struct fz_rank *rank = &run->ranks[trainer->rank];

  if (rank->trainer) {
    /* The same process on a new connection: the old one has only not noticed yet that it is over. */
    rank->trainer->run = NULL;
    rank->trainer->state = FZ_TRAINER_ENDED;
    fz_connection_abort(rank->trainer->connection, "its process has connected again");
  }
  rank->trainer = trainer;
  rank->attached = false;
  rank->pid = trainer->pid;
  rank->heard_ms = fz_clock_ms();
  trainer->run = run;
  snprintf(run->framework, sizeof(run->framework), "%s", trainer->framework);
}

int fz_launch_place(fz_trainer *trainer, const char *name, fz_run **ret_run) {
  enum fit how = OTHER;
  fz_run *run = NULL;
  int r = find_own(trainer, name, &how, &run);

  if (r < 0)
    return r;
  if (run && how == RETIRED) {
    *ret_run = run;
    return FZ_LAUNCH_RETIRED;
  }
  if (run && how == JOINS && run->world != trainer->world) {
    *ret_run = run;
    return FZ_LAUNCH_WORLD;
  }
  if (!run) {
    r = find_free(trainer, name, &run);
    how = FREE;
  }
  if (r == 0 && how != JOINS)
    r = fz_run_launch(run, trainer->job, trainer->attempt, trainer->world);
  if (r < 0)
    return r;
  take_place(run, trainer);
  *ret_run = run;
  return 0;
}
