/* child.c - the processes of `freezerctl run`: a daemon beside a command, and what becomes of both. */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "client/ctl/child.h"

#define STOP_SECONDS 5

static const int passed_on[] = { SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGALRM, SIGCONT };
static sigset_t blocked, before;

void fz_child_block_signals(void) {
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGCHLD);
  for (size_t i = 0; i < sizeof(passed_on) / sizeof(passed_on[0]); i++)
    sigaddset(&blocked, passed_on[i]);
  sigprocmask(SIG_BLOCK, &blocked, &before);
}

/* In the child, up to exec. The pipe closes by itself when exec succeeds, and carries errno when it does not. */
static void become(char *const *argv, bool group, pid_t parent, int pipe_fd) {
  int error = 0;

  if (group) {
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    /* The parent may have died before the line above: then nobody waits for this process. */
    if (getppid() != parent)
      _exit(EXIT_FAILURE);
  }
  sigprocmask(SIG_SETMASK, &before, NULL);
  execvp(argv[0], argv);
  error = errno;
  if (write(pipe_fd, &error, sizeof(error)) < 0)
    _exit(EXIT_FAILURE);
  _exit(EXIT_FAILURE);
}

int fz_child_start(char *const *argv, bool group, pid_t *ret_pid) {
  const pid_t parent = getpid();
  int ends[2], error = 0;

  if (pipe2(ends, O_CLOEXEC) < 0)
    return -errno;
  const pid_t pid = fork();
  if (pid < 0) {
    error = errno;
    close(ends[0]);
    close(ends[1]);
    return -error;
  }
  if (pid == 0)
    become(argv, group, parent, ends[1]);
  close(ends[1]);
  ssize_t n;
  do
    n = read(ends[0], &error, sizeof(error));
  while (n < 0 && errno == EINTR);
  close(ends[0]);
  if (n == (ssize_t)sizeof(error)) {
    waitpid(pid, NULL, 0);
    return -error;
  }
  *ret_pid = pid;
  return 0;
}

/* Reaps whoever has ended; true when `pid` was among them. */
static bool reap(pid_t pid, int *ret_status) {
  int status;
  pid_t ended;
  bool found = false;
  while ((ended = waitpid(-1, &status, WNOHANG)) > 0)
    if (ended == pid) {
      *ret_status = status;
      found = true;
    }
  return found || (ended < 0 && errno == ECHILD);
}

int fz_child_wait(pid_t pid) {
  int status = 0;
  while (!reap(pid, &status)) {
    siginfo_t info;
    const int number = sigwaitinfo(&blocked, &info);
    /* SI_KERNEL: from the terminal, which sends it to the whole group. */
    if (number > 0 && number != SIGCHLD && info.si_code != SI_KERNEL)
      kill(pid, number);
  }
  return status;
}

void fz_child_stop(pid_t pid) {
  sigset_t child;
  struct timespec now, end;
  int status;

  sigemptyset(&child);
  sigaddset(&child, SIGCHLD);
  clock_gettime(CLOCK_MONOTONIC, &end);
  end.tv_sec += STOP_SECONDS;
  kill(pid, SIGTERM);
  while (waitpid(pid, &status, WNOHANG) == 0) {
    const struct timespec tick = { .tv_nsec = 200000000 };
    clock_gettime(CLOCK_MONOTONIC, &now);
    if (now.tv_sec > end.tv_sec)
      kill(pid, SIGKILL);
    sigtimedwait(&child, NULL, &tick);
  }
}
