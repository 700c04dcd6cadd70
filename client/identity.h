/* identity.h - who this rank is: the run's name and the launch, given or found in the scheduler's environment. */
#ifndef FZ_CLIENT_IDENTITY_H
#define FZ_CLIENT_IDENTITY_H

#include <stdint.h>

#include "protocol/limits.h"

struct fz_identity {
  char run[FZ_RUN_NAME_MAX + 1];
  char framework[FZ_FRAMEWORK_MAX + 1];
  char job[FZ_JOB_NAME_MAX + 1];
  uint64_t attempt;
  uint32_t rank, world;
  uint64_t pid;
};

/**
 * Fills in the run's name: `given`; $FREEZER_RUN; else the program's name (SLURM: the job's) and what tells this job
 * from others: SLURM's job and step, torchrun's run id, the pod, or the parent process.
 * @param program  what to take for the program's name; NULL: that of this process
 * @return 0; -EINVAL a name that was given is empty, too long or not clean
 */
int fz_identity_run(struct fz_identity *identity, const char *given, const char *program);

/**
 * Fills in job and attempt: `given`; torchrun's run id and restart count; SLURM's job, step and restart count; MPI's
 * job; else with several ranks the parent process, with one this process (pid and start time).
 * @return 0; -EINVAL as above
 */
int fz_identity_launch(struct fz_identity *identity, const char *given, uint64_t attempt);

#endif
