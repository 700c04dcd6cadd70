/* identity.c - who this rank is: the run's name and the launch, given or found in the scheduler's environment. */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/identity.h"
#include "protocol/text.h"

/* A variable that is set and not empty, or NULL. */
static const char *variable(const char *name) {
  const char *value = getenv(name);
  return value && *value ? value : NULL;
}

static uint64_t number(const char *name) {
  const char *text = variable(name);
  char *end = NULL;
  errno = 0;
  const unsigned long long value = text && *text >= '0' && *text <= '9' ? strtoull(text, &end, 10) : 0;
  return end && *end == '\0' && errno == 0 && value <= FZ_INT_MAX ? value : 0;
}

/* What people gave must be right as it is. */
static int take_given(char *to, size_t to_size, const char *given) {
  const size_t length = strnlen(given, to_size);
  if (length == 0 || length == to_size || !fz_text_is_clean(given, length))
    return -EINVAL;
  memcpy(to, given, length + 1);
  return 0;
}

/* What we found is made right: cut to fit, and with other bytes than printable ASCII replaced. */
static void take_found(char *to, size_t to_size, const char *head, const char *tail) {
  (void)snprintf(to, to_size, "%.70s-%.120s", head, tail);
  for (char *c = to; *c; c++)
    if (*c < 0x20 || *c > 0x7e)
      *c = '_';
}

/* A shell in an allocation is not a job of its own: its ranks were started by hand. */
static bool in_slurm_job(void) {
  const char *name = variable("SLURM_JOB_NAME");
  return variable("SLURM_JOB_ID") && !(name && (strcmp(name, "bash") == 0 || strcmp(name, "interactive") == 0));
}

static void slurm_step(char *buffer, size_t size) {
  const char *step = variable("SLURM_STEP_ID");
  (void)snprintf(buffer, size, "%s%s%s", variable("SLURM_JOB_ID"), step ? "." : "", step ? step : "");
}

/* torchrun without a rendezvous id calls every job "none". */
static const char *torch_run(void) {
  const char *id = variable("TORCHELASTIC_RUN_ID");
  return id && strcmp(id, "none") != 0 ? id : NULL;
}

static const char *mpi_job(void) {
  const char *job = variable("PMIX_NAMESPACE");
  if (!job)
    job = variable("OMPI_MCA_ess_base_jobid");
  return job ? job : variable("PMI_JOBID");
}

/* When the process was started, in ticks since the machine was; 0 when it cannot be read. */
static unsigned long long start_time(pid_t pid) {
  char path[64], text[1024];
  (void)snprintf(path, sizeof(path), "/proc/%ld/stat", (long)pid);
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0)
    return 0;
  const ssize_t n = read(fd, text, sizeof(text) - 1);
  (void)close(fd);
  text[n > 0 ? n : 0] = '\0';
  /* The second field, the name, may hold anything; it ends with the last bracket. The start time is the 22nd. */
  const char *at = strrchr(text, ')');
  for (int field = 2; at && field < 22; field++)
    at = strchr(at + 1, ' ');
  return at ? strtoull(at + 1, NULL, 10) : 0;
}

int fz_identity_run(struct fz_identity *identity, const char *given, const char *program) {
  if (!given)
    given = variable("FREEZER_RUN");
  if (given)
    return take_given(identity->run, sizeof(identity->run), given);

  char tail[121];
  const char *head = program ? program : program_invocation_short_name, *torch = torch_run(),
             *pod = variable("HOSTNAME");
  if (in_slurm_job()) {
    slurm_step(tail, sizeof(tail));
    head = variable("SLURM_JOB_NAME") ? variable("SLURM_JOB_NAME") : head;
  } else if (torch) {
    (void)snprintf(tail, sizeof(tail), "%s", torch);
  } else if (variable("KUBERNETES_SERVICE_HOST") && pod) {
    (void)snprintf(tail, sizeof(tail), "%s", pod);
  } else {
    (void)snprintf(tail, sizeof(tail), "%ld", (long)getppid());
  }
  take_found(identity->run, sizeof(identity->run), head, tail);
  return 0;
}

int fz_identity_launch(struct fz_identity *identity, const char *given, uint64_t attempt) {
  identity->attempt = attempt;
  if (given)
    return take_given(identity->job, sizeof(identity->job), given);

  char tail[121];
  const char *head, *torch = torch_run(), *mpi = mpi_job();
  if (torch) {
    head = "torchelastic";
    (void)snprintf(tail, sizeof(tail), "%s", torch);
    identity->attempt = number("TORCHELASTIC_RESTART_COUNT");
  } else if (in_slurm_job()) {
    head = "slurm";
    slurm_step(tail, sizeof(tail));
    identity->attempt = number("SLURM_RESTART_COUNT");
  } else if (mpi) {
    head = "mpi";
    (void)snprintf(tail, sizeof(tail), "%s", mpi);
  } else {
    const pid_t pid = identity->world > 1 ? getppid() : getpid();
    head = identity->world > 1 ? "parent" : "process";
    (void)snprintf(tail, sizeof(tail), "%ld.%llu", (long)pid, start_time(pid));
  }
  take_found(identity->job, sizeof(identity->job), head, tail);
  return 0;
}
