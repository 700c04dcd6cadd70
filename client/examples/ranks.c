/* ranks.c - one process per rank, and a parent that watches over them. */
#include "config.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/examples/ranks.h"

static volatile sig_atomic_t stop_wished;

static void wish_to_stop(int signal) {
  (void)signal;
  stop_wished = 1;
}

bool ranks_should_stop(void) { return stop_wished != 0; }

static void install_handlers(void) {
  struct sigaction action = { .sa_handler = wish_to_stop, .sa_flags = (int)SA_RESETHAND };
  sigemptyset(&action.sa_mask);
  sigaction(SIGTERM, &action, NULL);
  sigaction(SIGINT, &action, NULL);
}

/* The ranks' parent; ranks that have ended have pid 0. */
struct watch {
  pid_t *pids;
  unsigned count, running;
  struct allreduce *allreduce;
  bool failed;
};

static void forward_stop(const struct watch *watch) {
  for (unsigned rank = 0; rank < watch->count; rank++) {
    if (watch->pids[rank] > 0) {
      kill(watch->pids[rank], SIGTERM);
    }
  }
}

static void rank_ended(struct watch *watch, unsigned rank, int status) {
  if (WIFSIGNALED(status)) {
    fprintf(stderr, "charlm: rank %u (pid %d) was ended by signal %d (%s), so the other ranks end too\n", rank,
            (int)watch->pids[rank], WTERMSIG(status), strsignal(WTERMSIG(status)));
  }
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    watch->failed = true;
    allreduce_break(watch->allreduce);
  }
  watch->pids[rank] = 0;
  watch->running--;
}

static void collect_ended(struct watch *watch) {
  for (unsigned rank = 0; rank < watch->count; rank++) {
    int status;
    if (watch->pids[rank] > 0 && waitpid(watch->pids[rank], &status, WNOHANG) == watch->pids[rank]) {
      rank_ended(watch, rank, status);
    }
  }
}

/* The child's side of the fork; does not return. */
static void become_rank(rank_fn fn, void *user, unsigned rank, pid_t parent, const sigset_t *mask) {
  /* If the parent dies, nobody watches over us any more: stop as if told to. */
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  install_handlers();
  sigprocmask(SIG_SETMASK, mask, NULL);
  if (getppid() != parent) {
    exit(EXIT_FAILURE);
  }
  exit(fn(user, rank));
}

static void start_ranks(struct watch *watch, rank_fn fn, void *user, const sigset_t *mask) {
  const pid_t parent = getpid();
  fflush(NULL);
  for (unsigned rank = 0; rank < watch->count; rank++) {
    const pid_t pid = fork();
    if (pid == 0) {
      become_rank(fn, user, rank, parent, mask);
    }
    if (pid < 0) {
      fprintf(stderr, "charlm: cannot start rank %u: %s; use fewer with --ranks\n", rank, strerror(errno));
      watch->failed = true;
      allreduce_break(watch->allreduce);
      return;
    }
    watch->pids[rank] = pid;
    watch->running++;
  }
}

static int run_children(unsigned count, struct allreduce *allreduce, rank_fn fn, void *user) {
  struct watch watch = { .pids = calloc(count, sizeof *watch.pids), .count = count, .allreduce = allreduce };
  if (watch.pids == NULL) {
    fprintf(stderr, "charlm: no memory to start %u ranks\n", count);
    return EXIT_FAILURE;
  }
  /* Signals wait until they are asked for, so that none is lost between looking and sleeping. */
  sigset_t signals, before;
  sigemptyset(&signals);
  sigaddset(&signals, SIGCHLD);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  signal(SIGCHLD, SIG_DFL);
  sigprocmask(SIG_BLOCK, &signals, &before);
  start_ranks(&watch, fn, user, &before);
  while (watch.running > 0) {
    const int signal = sigwaitinfo(&signals, NULL);
    if (signal == SIGCHLD) {
      collect_ended(&watch);
    } else if (signal > 0) {
      forward_stop(&watch);
    }
  }
  sigprocmask(SIG_SETMASK, &before, NULL);
  free(watch.pids);
  return watch.failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

int ranks_run(unsigned count, struct allreduce *allreduce, rank_fn fn, void *user) {
  if (count > 1) {
    return run_children(count, allreduce, fn, user);
  }
  install_handlers();
  return fn(user, 0);
}
