/* startup.c - what freezerd does between its command line and its loop, and after it. */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/adopt.h"
#include "daemon/core.h"
#include "daemon/default_rules.h"
#include "daemon/server.h"
#include "daemon/startup.h"
#include "daemon/systemd.h"
#include "daemon/text.h"
#include "protocol/folders.h"
#include "protocol/listener.h"

/* ----------------------------------------------------------------------------------------------------- state directory */

/** The path that is said or usual, allocated. -ENOENT: there is none. */
static int choose_state_dir(const fz_options *options, char **ret_path) {
  const char *base = getenv("XDG_STATE_HOME"), *home = getenv("HOME");

  if (options->state_dir) {
    *ret_path = strdup(options->state_dir);
  } else if (base && *base == '/') {
    *ret_path = fz_text_format("%s/freezer", base);
  } else {
    if (!home || *home != '/') {
      const struct passwd *user = getpwuid(geteuid());
      home = user ? user->pw_dir : NULL;
    }
    if (!home || !*home)
      return -ENOENT;
    *ret_path = fz_text_format("%s/.local/state/freezer", home);
  }
  return *ret_path ? 0 : -ENOMEM;
}

/** Makes a folder and those above it, 0700. */
static int make_folders(const char *path) {
  char *copy = strdup(path);
  int r = 0;

  if (!copy)
    return -ENOMEM;
  for (char *slash = copy; r == 0 && slash;) {
    slash = strchr(slash + 1, '/');
    if (slash)
      *slash = '\0';
    if (mkdir(copy, 0700) < 0 && errno != EEXIST)
      r = -errno;
    if (slash)
      *slash = '/';
  }
  free(copy);
  return r;
}

/** The real path of the state directory, made if need be. NULL with 0: none is to be used. */
static int open_state_dir(const fz_log *log, const fz_options *options, char **ret_path) {
  char *path = NULL, *real = NULL, reason[PATH_MAX] = "";
  int r;

  *ret_path = NULL;
  if (options->no_state)
    return 0;
  r = choose_state_dir(options, &path);
  if (r < 0) {
    fz_log_write(log, FZ_LOG_ERROR, FZ_LOG_ABOUT(.event = "daemon"), "%s",
                 r == -ENOENT ? "no place for the state directory is known: say --state-dir DIR, or --state-dir none"
                              : strerror(-r));
    return r;
  }
  r = make_folders(path);
  if (r == 0) {
    real = realpath(path, NULL);
    r = real ? access(real, W_OK | X_OK) : -1;
    r = r < 0 ? -errno : 0;
  }
  if (r == 0)
    r = fz_folder_check(real, false, reason, sizeof(reason));
  if (r < 0) {
    fz_log_write(log, FZ_LOG_ERROR, FZ_LOG_ABOUT(.event = "daemon"), "state directory %s: %s", path,
                 *reason ? reason : strerror(-r));
    free(real);
  } else {
    *ret_path = real;
  }
  free(path);
  return r;
}

/** Two daemons on one state directory would take each other's runs for their own. The lock ends with the process. */
static int lock_state_dir(const fz_log *log, const char *path) {
  const int fd = path ? open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
  int r;

  if (!path)
    return 0;
  r = fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0 ? -errno : 0;
  if (r == -EWOULDBLOCK)
    fz_log_write(log, FZ_LOG_ERROR, FZ_LOG_ABOUT(.event = "daemon"),
                 "another freezerd keeps its state in %s: give this one its own --state-dir, or none", path);
  else if (r < 0)
    fz_log_write(log, FZ_LOG_ERROR, FZ_LOG_ABOUT(.event = "daemon"), "state directory %s: %s", path, strerror(-r));
  if (r < 0 && fd >= 0)
    close(fd);
  return r < 0 ? r : fd;
}

/* --------------------------------------------------------------------------------------------------------------- rules */

static int read_rules(fz_core *core, const char *path) {
  const int r = fz_default_rules_read(core, path);

  if (r == -EINVAL)
    fz_log_write(&core->log, FZ_LOG_ERROR, FZ_LOG_ABOUT(.event = "rules"), "%s has errors: freezerd does not start",
                 path);
  return r == 0 ? FZ_EXIT_OK : r == -EINVAL ? FZ_EXIT_RULES : FZ_EXIT_FAILED;
}

/* ------------------------------------------------------------------------------------------------------------- running */

static void say_ready(const fz_core *core, int ready_fd) {
  char text[PATH_MAX];

  fz_log_write(&core->log, FZ_LOG_NOTICE, FZ_LOG_ABOUT(.event = "daemon"),
               "freezerd " PACKAGE_VERSION " listens on %s, state in %s", core->socket,
               core->state_dir ? core->state_dir : "memory only");
  snprintf(text, sizeof(text), "READY=1\nSTATUS=listens on %s\nMAINPID=%ld", core->socket, (long)getpid());
  if (fz_systemd_notify(text) < 0)
    fz_log_write(&core->log, FZ_LOG_WARNING, FZ_LOG_ABOUT(.event = "daemon"), "the service manager cannot be told");
  if (ready_fd < 0)
    return;
  snprintf(text, sizeof(text), "%s\n", core->socket);
  if (write(ready_fd, text, strlen(text)) < 0)
    fz_log_write(&core->log, FZ_LOG_WARNING, FZ_LOG_ABOUT(.event = "daemon"), "cannot write to descriptor %d: %s",
                 ready_fd, strerror(errno));
  if (ready_fd > STDERR_FILENO)
    close(ready_fd);
}

static int serve(fz_core *core, const fz_listener *listener, const fz_listener *read_only, const fz_options *options) {
  fz_server *server = NULL;
  int r = fz_server_new(&server, core, listener, read_only, options->group);

  if (r < 0) {
    fz_log_write(&core->log, FZ_LOG_ERROR, FZ_LOG_ABOUT(.event = "daemon"), "cannot serve: %s", strerror(-r));
    return FZ_EXIT_FAILED;
  }
  fz_adopt_begin(core); /* and not before: the history would tell of a freezerd that could not serve */
  say_ready(core, options->ready_fd);
  r = fz_server_run(server);
  const int closed = fz_server_free(server);
  if (closed < 0)
    fz_log_write(&core->log, FZ_LOG_ERROR, FZ_LOG_ABOUT(.event = "daemon"), "the loop did not close");
  return r < 0 || closed < 0 ? FZ_EXIT_FAILED : FZ_EXIT_OK;
}

/** Opens both sockets, or none. */
static int open_listeners(const fz_core *core, const fz_options *options, fz_listener *listener,
                          fz_listener *read_only) {
  char reason[512] = "";
  int r = fz_listener_open(listener, options->socket, options->group, reason, sizeof(reason));

  if (r == 0 && options->socket_ro) {
    r = fz_listener_open(read_only, options->socket_ro, options->group, reason, sizeof(reason));
    if (r != 0)
      fz_listener_close(listener);
  }
  if (r == 0)
    return FZ_EXIT_OK;
  fz_log_write(&core->log, FZ_LOG_ERROR, FZ_LOG_ABOUT(.event = "daemon"), "%s", *reason ? reason : strerror(-r));
  return r == -EACCES || r == -EPERM ? FZ_EXIT_PERMISSION : FZ_EXIT_FAILED;
}

static int listen_and_serve(fz_core *core, const fz_options *options, const char *state_dir) {
  fz_listener listener = FZ_LISTENER_NULL, read_only = FZ_LISTENER_NULL;
  int r = open_listeners(core, options, &listener, &read_only);

  if (r != FZ_EXIT_OK)
    return r;
  const int lock_fd = lock_state_dir(&core->log, state_dir);
  if (lock_fd < 0) {
    fz_listener_close(&read_only);
    fz_listener_close(&listener);
    return FZ_EXIT_FAILED;
  }
  r = fz_core_init(core, listener.path, state_dir);
  if (r < 0)
    fz_log_write(&core->log, FZ_LOG_ERROR, FZ_LOG_ABOUT(.event = "daemon"), "%s", strerror(-r));
  r = r < 0 ? FZ_EXIT_FAILED : serve(core, &listener, &read_only, options);
  if (core->scope)
    fz_adopt_clean(core);
  fz_listener_close(&read_only);
  fz_listener_close(&listener);
  if (lock_fd > 0)
    close(lock_fd);
  return r;
}

int fz_daemon_run(const fz_options *options) {
  fz_core core = FZ_CORE_NULL;
  char *state_dir = NULL;
  int r;

  fz_log_init(&core.log, STDERR_FILENO, options->log_level, options->log_format);
  /* A peer that goes away is an error code of a send, not the end of the daemon. */
  signal(SIGPIPE, SIG_IGN);
  /* So is a file that may not grow any more. */
  signal(SIGXFSZ, SIG_IGN);
  r = options->rules ? read_rules(&core, options->rules) : FZ_EXIT_OK;
  if (r == FZ_EXIT_OK) {
    const int failed = open_state_dir(&core.log, options, &state_dir);
    r = failed == -EACCES || failed == -EPERM ? FZ_EXIT_PERMISSION : failed < 0 ? FZ_EXIT_FAILED : FZ_EXIT_OK;
  }
  if (r == FZ_EXIT_OK)
    r = listen_and_serve(&core, options, state_dir);
  fz_core_deinit(&core);
  free(state_dir);
  return r;
}
