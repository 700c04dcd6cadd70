/* server.c - freezerd's loop: the listener, its connections, signals, timers, and an orderly end. */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uv.h>

#include "daemon/batch.h"
#include "daemon/default_rules.h"
#include "daemon/loop_memory.h"
#include "daemon/server.h"
#include "daemon/session.h"
#include "daemon/systemd.h"
#include "protocol/control.h"
#include "protocol/limits.h"

/* How many connections are taken before the others get their turn. */
#define ACCEPTS_PER_TURN 64
/* Descriptors that libuv needs for a loop: epoll's, and those of its pipes. */
#define LOOP_FDS 8
/* What is still queued for peers when freezerd stops may take this long. */
#define STOP_MS 1000

static const int signals[] = { SIGTERM, SIGINT, SIGHUP };
#define N_SIGNALS (sizeof(signals) / sizeof(*signals))

/** A socket that peers come in by. */
struct door {
  uv_poll_t poll;
  fz_server *server;
  const fz_listener *listener;
  bool read_only;
};

#define N_DOORS 2

struct fz_server {
  uv_loop_t loop;
  fz_core *core;
  gid_t group;
  int spare_fd; /* given up for a moment when there are no descriptors left, so that a peer can be told */
  struct door doors[N_DOORS];
  uv_signal_t signals[N_SIGNALS];
  uv_check_t check;
  uv_timer_t timer;    /* the earliest of the core's */
  uv_timer_t watchdog; /* the service manager's */
  uv_timer_t stopping;
  fz_session *sessions;
  size_t n_sessions;
  bool stops;
};

/* --------------------------------------------------------------------------------------------------------- accepting */

static void session_ended(fz_session *session, void *user) {
  fz_server *server = user;

  fz_session_unlink(&server->sessions, session);
  server->n_sessions--;
}

/** A peer that cannot be served gets a sentence and is closed. */
static void turn_away(fz_server *server, int fd, enum fz_code code, const char *message) {
  const char *line;
  size_t length;

  fz_write_refusal(&server->core->writer, code, message);
  /* A fresh socket takes one line; if it does not, the peer sees only the end. */
  if (fz_writer_line(&server->core->writer, &line, &length) == 0 && send(fd, line, length, MSG_NOSIGNAL) < 0)
    fz_log_write(&server->core->log, FZ_LOG_DEBUG, FZ_LOG_ABOUT(.event = "peer"), "a peer left before it was told");
  fz_writer_reset(&server->core->writer);
  close(fd);
}

/** Names who is served and who came, with what the socket itself says, so that either side can be put right. */
static void refuse_stranger(const struct door *door, int fd, const struct fz_peer *peer) {
  fz_server *server = door->server;
  const fz_core *core = server->core;
  struct stat st = { 0 };
  char text[400], members[60] = "";

  if (server->group != FZ_NO_GROUP)
    snprintf(members, sizeof(members), ", members of group %lu", (unsigned long)server->group);
  (void)lstat(door->listener->path, &st); /* what it cannot say is 0 */
  snprintf(
    text, sizeof(text),
    "this freezerd serves uid %lu%s and root (its socket has uid %lu, gid %lu, mode %04o); you are uid %lu, gid %lu",
    (unsigned long)core->uid, members, (unsigned long)st.st_uid, (unsigned long)st.st_gid,
    (unsigned)(st.st_mode & 07777), (unsigned long)peer->uid, (unsigned long)peer->gid);
  fz_log_write(&core->log, FZ_LOG_WARNING, FZ_LOG_ABOUT(.event = "peer", .peer = peer),
               "refused a connection of uid %lu, gid %lu", (unsigned long)peer->uid, (unsigned long)peer->gid);
  turn_away(server, fd, FZ_CODE_PERMISSION, text);
}

static void welcome(const struct door *door, int fd) {
  fz_server *server = door->server;
  fz_core *core = server->core;
  fz_connection *connection;
  fz_session *session;
  struct fz_peer peer = { .uid = (uid_t)-1, .gid = (gid_t)-1 };

  if (fz_peer_get(fd, &peer) < 0 || !fz_peer_is_allowed(fd, &peer, server->group)) {
    refuse_stranger(door, fd, &peer);
    return;
  }
  if (server->n_sessions >= FZ_CONNECTIONS_MAX) {
    turn_away(server, fd, FZ_CODE_TOO_MANY, "freezerd has too many connections");
    return;
  }
  if (fz_session_new(&session, core, door->read_only, session_ended, server) < 0) {
    turn_away(server, fd, FZ_CODE_NO_MEMORY, "freezerd is out of memory");
    return;
  }
  const int r = fz_connection_new(&connection, &server->loop, fd, &peer, &fz_session_events, &core->traffic, session);
  if (r < 0) {
    fz_log_write(&core->log, FZ_LOG_WARNING, FZ_LOG_ABOUT(.event = "peer"), "cannot serve a connection: %s",
                 uv_strerror(r));
    fz_session_free(session);
    return;
  }
  fz_session_start(session, connection);
  fz_session_link(&server->sessions, session);
  server->n_sessions++;
}

/** No descriptor is left: the spare one is used to take the connection off the queue, or the loop would spin. */
static void accept_with_spare(const struct door *door) {
  fz_server *server = door->server;

  fz_log_write(&server->core->log, FZ_LOG_ERROR, FZ_LOG_ABOUT(.event = "peer"),
               "out of descriptors: a connection is turned away");
  if (server->spare_fd < 0)
    return;
  close(server->spare_fd);
  const int fd = accept4(door->listener->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (fd >= 0)
    turn_away(server, fd, FZ_CODE_TOO_MANY, "freezerd is out of descriptors");
  server->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static void on_connect(uv_poll_t *poll, int status, int events) {
  const struct door *door = poll->data;

  (void)events;
  if (status < 0) {
    fz_log_write(&door->server->core->log, FZ_LOG_ERROR, FZ_LOG_ABOUT(.event = "peer"), "cannot accept connections: %s",
                 uv_strerror(status));
    return;
  }
  for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
    const int fd = accept4(door->listener->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
      welcome(door, fd);
    } else if (errno == EMFILE || errno == ENFILE) {
      accept_with_spare(door);
      return;
    } else if (errno != EINTR && errno != ECONNABORTED) {
      return;
    }
  }
}

/* -------------------------------------------------------------------------------------------------------------- timers */

static void on_timer(uv_timer_t *timer) {
  fz_server *server = timer->data;
  fz_timers_run(&server->core->timers);
}

static void timers_changed(void *user) {
  fz_server *server = user;
  const uint64_t delay = fz_timers_delay(&server->core->timers);

  if (uv_is_closing((uv_handle_t *)&server->timer))
    return;
  uv_timer_stop(&server->timer);
  if (delay == UINT64_MAX)
    return;
  uv_update_time(&server->loop);
  /* The two clocks round differently: a millisecond more, and what is due is due. */
  uv_timer_start(&server->timer, on_timer, delay + 1, 0);
}

/** All that had something to say has been read. */
static void on_check(uv_check_t *check) {
  fz_server *server = check->data;
  fz_batches_settle(server->core);
}

static void on_watchdog(uv_timer_t *timer) {
  (void)timer;
  (void)fz_systemd_notify("WATCHDOG=1");
}

/* ------------------------------------------------------------------------------------------------------------ stopping */

static void close_handle(uv_handle_t *handle) {
  if (!uv_is_closing(handle))
    uv_close(handle, NULL);
}

static void close_doors(fz_server *server) {
  for (size_t i = 0; i < N_DOORS; i++)
    if (server->doors[i].server)
      close_handle((uv_handle_t *)&server->doors[i].poll);
}

static void close_own_handles(fz_server *server) {
  close_doors(server);
  close_handle((uv_handle_t *)&server->check);
  close_handle((uv_handle_t *)&server->timer);
  close_handle((uv_handle_t *)&server->watchdog);
  close_handle((uv_handle_t *)&server->stopping);
  for (size_t i = 0; i < N_SIGNALS; i++)
    close_handle((uv_handle_t *)&server->signals[i]);
}

static void abort_sessions(fz_server *server) {
  for (fz_session *session = server->sessions; session; session = fz_session_next(session))
    fz_connection_abort(fz_session_connection(session), "freezerd stops");
}

static void on_stop_timeout(uv_timer_t *timer) { abort_sessions(timer->data); }

static void stop(fz_server *server) {
  if (server->stops)
    return;
  server->stops = true;
  (void)fz_systemd_notify("STOPPING=1");
  close_doors(server);
  for (fz_session *session = server->sessions; session; session = fz_session_next(session))
    fz_session_stop(session);
  uv_timer_start(&server->stopping, on_stop_timeout, STOP_MS, 0);
  uv_stop(&server->loop);
}

static void on_signal(uv_signal_t *handle, int number) {
  fz_server *server = handle->data;

  fz_batches_settle(server->core);
  if (number == SIGHUP) {
    fz_default_rules_reload(server->core);
    return;
  }
  fz_log_write(&server->core->log, FZ_LOG_NOTICE, FZ_LOG_ABOUT(.event = "daemon"), "stops on %s",
               number == SIGTERM ? "SIGTERM" : "SIGINT");
  stop(server);
}

/* ---------------------------------------------------------------------------------------------------------------- life */

static int init_door(fz_server *server, struct door *door, const fz_listener *listener) {
  const int r = uv_poll_init(&server->loop, &door->poll, listener->fd);

  if (r < 0)
    return r;
  door->poll.data = door;
  door->server = server;
  door->listener = listener;
  return 0;
}

static int open_doors(fz_server *server) {
  int r = 0;

  for (size_t i = 0; r == 0 && i < N_DOORS; i++)
    if (server->doors[i].server)
      r = uv_poll_start(&server->doors[i].poll, UV_READABLE, on_connect);
  return r;
}

static int init_handles(fz_server *server, const fz_listener *listener, const fz_listener *read_only) {
  const uint64_t watchdog_ms = fz_systemd_watchdog_ms();
  int r = init_door(server, &server->doors[0], listener);

  if (r == 0 && read_only->fd >= 0) {
    server->doors[1].read_only = true;
    r = init_door(server, &server->doors[1], read_only);
  }
  if (r < 0) {
    close_doors(server);
    return r;
  }
  server->check.data = server->timer.data = server->watchdog.data = server->stopping.data = server;
  (void)uv_check_init(&server->loop, &server->check);
  (void)uv_check_start(&server->check, on_check);
  (void)uv_timer_init(&server->loop, &server->timer);
  (void)uv_timer_init(&server->loop, &server->watchdog);
  (void)uv_timer_init(&server->loop, &server->stopping);
  for (size_t i = 0; i < N_SIGNALS; i++) {
    (void)uv_signal_init(&server->loop, &server->signals[i]); /* fails only as the loop's own init does */
    server->signals[i].data = server;
  }
  for (size_t i = 0; r == 0 && i < N_SIGNALS; i++)
    r = uv_signal_start(&server->signals[i], on_signal, signals[i]);
  if (r == 0)
    r = open_doors(server);
  if (r == 0 && watchdog_ms > 0)
    r = uv_timer_start(&server->watchdog, on_watchdog, watchdog_ms, watchdog_ms);
  if (r < 0)
    close_own_handles(server);
  return r;
}

/** Whether so many descriptors are left as libuv takes for its loop: it ends the process when it gets none for signals. */
static int check_descriptors(void) {
  int fds[LOOP_FDS], n = 0, r = 0;

  for (; r == 0 && n < LOOP_FDS; n++) {
    fds[n] = open("/dev/null", O_RDONLY | O_CLOEXEC);
    r = fds[n] < 0 ? -errno : 0;
  }
  while (n-- > 0)
    if (fds[n] >= 0)
      close(fds[n]);
  return r;
}

int fz_server_new(fz_server **ret_server, fz_core *core, const fz_listener *listener, const fz_listener *read_only,
                  gid_t group) {
  fz_server *server = calloc(1, sizeof(*server));

  if (!server)
    return -ENOMEM;
  server->core = core;
  server->group = group;
  server->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
  int r = check_descriptors();
  if (r == 0)
    r = fz_loop_memory_init();
  if (r == 0)
    r = uv_loop_init(&server->loop);
  if (r == 0) {
    r = init_handles(server, listener, read_only);
    if (r < 0) {
      uv_run(&server->loop, UV_RUN_DEFAULT);
      (void)uv_loop_close(&server->loop);
    }
  }
  if (r < 0) {
    if (server->spare_fd >= 0)
      close(server->spare_fd);
    free(server);
    return r;
  }
  core->timers.changed = timers_changed;
  core->timers.user = server;
  timers_changed(server);
  *ret_server = server;
  return 0;
}

int fz_server_run(fz_server *server) {
  uv_run(&server->loop, UV_RUN_DEFAULT);
  /* Until the peers have what was queued for them, or have taken too long. */
  while (server->sessions)
    uv_run(&server->loop, UV_RUN_ONCE);
  return 0;
}

int fz_server_free(fz_server *server) {
  server->core->timers.changed = NULL;
  abort_sessions(server);
  close_own_handles(server);
  uv_run(&server->loop, UV_RUN_DEFAULT);
  const int r = uv_loop_close(&server->loop);
  if (server->spare_fd >= 0)
    close(server->spare_fd);
  free(server);
  return r;
}
