/* launch.h - which run and which launch of it a trainer belongs to. */
#ifndef FZ_LAUNCH_H
#define FZ_LAUNCH_H

#include "daemon/core.h"
#include "daemon/trainer.h"

/*
 * A launch is one start of a job's processes: (job, attempt). For a `hello` under the name NAME the candidates are the
 * runs NAME, NAME-2, NAME-3, ... in this order:
 *
 *   1. A run in which this very job lives is its run, wherever in the order it stands:
 *        same attempt, its rank free or held by this process     it joins
 *        same attempt, its rank held by another process          it is another job after all: next candidate
 *        a newer attempt                                         the run goes over to it, the old attempt is retired
 *        an older attempt                                        refused, launch_retired
 *   2. Else the first candidate that does not exist or in which nobody lives becomes its run: a new launch.
 */
enum {
  FZ_LAUNCH_RETIRED = 1, /* a newer attempt of its job has begun */
  FZ_LAUNCH_WORLD = 2    /* other ranks of its launch announced another world; ret_run is set */
};

/**
 * Finds or makes the trainer's run and takes its place among the ranks: sets trainer->run.
 * @param name  the run that it asks for, or the one that its segment names
 * @return 0; an outcome above (trainer->run stays NULL); -ENOSPC too many runs; other negative errno: not now
 */
int fz_launch_place(fz_trainer *trainer, const char *name, fz_run **ret_run);

#endif
