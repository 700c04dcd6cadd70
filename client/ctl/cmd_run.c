/* cmd_run.c - run: a command with a freezerd of its own. */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/ctl/child.h"
#include "client/ctl/errors.h"
#include "client/ctl/human.h"
#include "client/ctl/rulesfile.h"
#include "client/ctl/verbs.h"
#include "protocol/sockpath.h"

/* How long freezerd may take to come up. */
#define READY_MS 10000

/* The private daemon. */
struct server {
  const fz_ctl *ctl;
  char program[4096];
  char folder[64]; /* of a socket of its own, "" when it has the usual place */
  char socket[FZ_SOCKET_DISPLAY_MAX + 1];
  pid_t pid; /* 0: not running */
};

/* --- where things are --- */

/* $FREEZERD, else the one beside freezerctl, else the first in PATH. */
static void find_program(struct server *server) {
  char self[sizeof(server->program)];
  const char *given = getenv("FREEZERD");
  const ssize_t length = readlink("/proc/self/exe", self, sizeof(self) - 1);

  if (given && *given) {
    snprintf(server->program, sizeof(server->program), "%s", given);
    return;
  }
  if (length > 0) {
    self[length] = '\0';
    const int n = snprintf(server->program, sizeof(server->program), "%s/freezerd", dirname(self));
    if (n > 0 && (size_t)n < sizeof(server->program) && access(server->program, X_OK) == 0)
      return;
  }
  snprintf(server->program, sizeof(server->program), "freezerd");
}

/* Whether somebody serves the usual place. */
static bool usual_place_is_taken(void) {
  fz_socket_search search;
  int fd = -1;
  unsetenv("FREEZER_SOCKET");
  fz_socket_search_init(&search, NULL);
  if (fz_socket_connect(&search, 0, &fd) == 0) {
    close(fd);
    return true;
  }
  for (size_t i = 0; i < search.count; i++)
    if (search.candidates[i].state == FZ_SOCKET_BUSY)
      return true;
  return false;
}

/* The path that the daemon took, found as every client finds it. False when that is somebody else's. */
static bool learn_path(struct server *server) {
  fz_socket_search search;
  struct fz_peer peer = { 0 };
  int fd = -1;

  fz_socket_search_init(&search, server->socket[0] ? server->socket : NULL);
  if (fz_socket_connect(&search, READY_MS, &fd) != 0)
    return false;
  const bool ours = fz_peer_get(fd, &peer) == 0 && peer.pid == server->pid;
  if (ours)
    snprintf(server->socket, sizeof(server->socket), "%s", fz_socket_connected(&search)->path);
  close(fd);
  return ours;
}

/* --- the daemon --- */

/* Waits until freezerd says on `fd` that it serves. */
static bool wait_ready(int fd) {
  struct pollfd ready = { .fd = fd, .events = POLLIN };
  const double end = fz_now_ms() + READY_MS;
  char byte;
  int n;

  do
    n = poll(&ready, 1, (int)(end - fz_now_ms() > 0 ? end - fz_now_ms() : 0));
  while (n < 0 && errno == EINTR);
  return n == 1 && read(fd, &byte, 1) == 1;
}

/* 0, or a negative errno: it could not be started (-ENOENT: not found), or -EIO: it said why and ended. */
static int start(struct server *server) {
  const fz_ctl *ctl = server->ctl;
  const char *rules = ctl->options.text[FZ_OPT_RULES];
  char ready[16], state_dir[] = "--state-dir=none", level_option[] = "--log-level", ready_option[] = "--ready-fd";
  char level[8], socket_option[] = "--socket", rules_option[] = "--rules", *rules_path = NULL;
  char *argv[12] = { server->program, state_dir, level_option, level, ready_option, ready };
  size_t n = 6;
  int ends[2];

  if (pipe(ends) < 0)
    return -errno;
  (void)fcntl(ends[0], F_SETFD, FD_CLOEXEC);
  snprintf(ready, sizeof(ready), "%d", ends[1]);
  snprintf(level, sizeof(level), "%s", fz_given(&ctl->options, FZ_OPT_VERBOSE) ? "info" : "warning");
  if (server->socket[0]) {
    argv[n++] = socket_option;
    argv[n++] = server->socket;
  }
  if (rules) {
    rules_path = strdup(rules);
    argv[n++] = rules_option;
    argv[n++] = rules_path;
  }
  argv[n] = NULL;
  int r = rules && !rules_path ? -ENOMEM : fz_child_start(argv, true, &server->pid);
  close(ends[1]);
  if (r == 0 && !wait_ready(ends[0])) {
    fz_child_stop(server->pid);
    server->pid = 0;
    r = -EIO;
  }
  close(ends[0]);
  free(rules_path);
  return r;
}

/* A folder that nobody else can enter, for a socket beside the usual place. */
static int own_place(struct server *server) {
  snprintf(server->folder, sizeof(server->folder), "/tmp/freezer-run-XXXXXX");
  if (!mkdtemp(server->folder)) {
    server->folder[0] = '\0';
    return -errno;
  }
  snprintf(server->socket, sizeof(server->socket), "%s/freezerd.sock", server->folder);
  return 0;
}

static void stop(struct server *server) {
  if (server->pid > 0)
    fz_child_stop(server->pid);
  server->pid = 0;
  if (server->folder[0])
    rmdir(server->folder);
}

static int start_failure(const struct server *server, int r) {
  if (r == -ENOENT)
    return fz_fail(server->ctl, "failed", "install freezerd, or set FREEZERD to its path", "cannot find freezerd (%s)",
                   server->program);
  if (r == -EIO)
    return fz_fail(server->ctl, "failed", NULL, "freezerd (%s) did not come up", server->program);
  return fz_fail(server->ctl, "failed", NULL, "cannot start freezerd (%s): %s", server->program, strerror(-r));
}

static int start_and_learn(struct server *server) {
  const int r = start(server);
  if (r < 0 || learn_path(server))
    return r;
  fz_child_stop(server->pid);
  server->pid = 0;
  return -EIO;
}

/* The path given, else the usual place unless it is taken, else a place of its own. 0 or the exit status. */
static int start_somewhere(struct server *server) {
  const char *given = server->ctl->options.text[FZ_OPT_SOCKET];
  int r = 0;

  find_program(server);
  if (given)
    snprintf(server->socket, sizeof(server->socket), "%s", given);
  else if (usual_place_is_taken())
    r = own_place(server);
  if (r == 0)
    r = start_and_learn(server);
  /* Two that start at once both find the usual place free; the second one moves on. */
  if (r == -EIO && !server->socket[0] && usual_place_is_taken()) {
    r = own_place(server);
    if (r == 0)
      r = start_and_learn(server);
  }
  return r < 0 ? start_failure(server, r) : 0;
}

/* --- the command --- */

static int run_command(const fz_ctl *ctl, char **argv) {
  pid_t pid;
  const int r = fz_child_start(argv, false, &pid);

  if (r == -ENOENT)
    return fz_fail(ctl, "no_command", NULL, "command '%s' not found", argv[0]);
  if (r < 0)
    return fz_fail(ctl, "cannot_run", NULL, "cannot run '%s': %s", argv[0], strerror(-r));
  const int status = fz_child_wait(pid);
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

/* Mistakes in the rules are shown with their place, before anything is started. */
static int check_rules(const fz_ctl *ctl) {
  __attribute__((cleanup(fz_rulefile_freep))) fz_rulefile *file = NULL;
  const char *path = ctl->options.text[FZ_OPT_RULES];
  if (!path)
    return 0;
  const int status = fz_rules_open(ctl, path, &file);
  if (status == 0)
    fz_rules_say(file);
  return status;
}

int fz_cmd_run(fz_ctl *ctl) {
  struct server server = { .ctl = ctl };
  int status = check_rules(ctl);

  if (status)
    return status;
  fz_child_block_signals();
  status = start_somewhere(&server);
  if (status == 0) {
    if (!fz_given(&ctl->options, FZ_OPT_QUIET))
      fprintf(stderr, "freezerd: for this command only, socket %s\n", server.socket);
    setenv("FREEZER_SOCKET", server.socket, 1);
    status = run_command(ctl, ctl->operands);
  }
  stop(&server);
  return status;
}
