/* connection.c - one peer on the socket: lines and descriptors in, a bounded queue of lines out. */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>
#include <uv.h>

#include "daemon/connection.h"
#include "protocol/lines.h"

#define CLOSE_TIMEOUT_MS 1000

struct fz_connection {
  uv_poll_t poll;
  uv_timer_t linger; /* runs while a closing connection still has something to send */
  int open_handles;
  int fd;
  struct fz_peer peer;
  const struct fz_connection_events *events;
  void *user;
  fz_line_reader reader;
  fz_output output;
  const char *reason; /* why it ends; NULL: it does not */
  bool gone;          /* its handles are closing */
};

static void free_connection(fz_connection *connection) {
  fz_line_reader_deinit(&connection->reader);
  fz_output_deinit(&connection->output);
  close(connection->fd);
  free(connection);
}

static void handle_closed(uv_handle_t *handle) {
  fz_connection *connection = handle->data;

  if (--connection->open_handles > 0)
    return;
  connection->events->closed(connection->user, connection->reason);
  free_connection(connection);
}

void fz_connection_abort(fz_connection *connection, const char *reason) {
  if (connection->gone)
    return;
  connection->gone = true;
  if (!connection->reason)
    connection->reason = reason;
  uv_close((uv_handle_t *)&connection->poll, handle_closed);
  uv_close((uv_handle_t *)&connection->linger, handle_closed);
}

static void on_linger(uv_timer_t *timer) {
  fz_connection *connection = timer->data;
  fz_connection_abort(connection, connection->reason);
}

static void on_ready(uv_poll_t *poll, int status, int events);

static void watch(fz_connection *connection) {
  int events = connection->reason ? 0 : UV_READABLE;

  if (fz_output_pending(&connection->output))
    events |= UV_WRITABLE;
  const int r = uv_poll_start(&connection->poll, events, on_ready);
  if (r < 0)
    fz_connection_abort(connection, uv_strerror(r));
}

static void flush(fz_connection *connection) {
  const int r = fz_output_flush(&connection->output, connection->fd);

  if (r < 0)
    fz_connection_abort(connection, "the peer is gone");
  else if (connection->reason && r == 0)
    fz_connection_abort(connection, connection->reason);
  else
    watch(connection);
}

static void take_lines(fz_connection *connection) {
  char *line;
  size_t length;
  int r;

  while (!connection->reason && !connection->gone) {
    r = fz_line_reader_next(&connection->reader, &line, &length);
    if (r == FZ_LINE_NONE)
      return;
    if (r == FZ_LINE_TOO_LONG) {
      connection->events->too_long(connection->user);
      fz_connection_close(connection, "a line was too long");
      return;
    }
    connection->events->line(connection->user, line, length);
  }
}

/** Once per turn of the loop, so that a peer that always has more to say does not keep the others waiting. */
static void receive(fz_connection *connection) {
  const int r = fz_line_reader_receive(&connection->reader, connection->fd);

  if (r == 0)
    take_lines(connection);
  else if (r == FZ_IO_CLOSED)
    fz_connection_abort(connection, "the peer hung up");
  else if (r == -EPROTO)
    fz_connection_abort(connection, "descriptors were cut off");
  else if (r < 0)
    fz_connection_abort(connection, r == -ENOMEM ? "out of memory" : "the peer is gone");
}

static void on_ready(uv_poll_t *poll, int status, int events) {
  fz_connection *connection = poll->data;

  if (status < 0) {
    fz_connection_abort(connection, "the peer is gone");
    return;
  }
  if ((events & UV_WRITABLE) && fz_output_pending(&connection->output)) {
    flush(connection);
    if (!connection->gone && !connection->reason && !fz_output_pending(&connection->output))
      connection->events->drained(connection->user);
  }
  if ((events & UV_READABLE) && !connection->gone && !connection->reason)
    receive(connection);
}

int fz_connection_new(fz_connection **ret_connection, struct uv_loop_s *loop, int fd, const struct fz_peer *peer,
                      const struct fz_connection_events *events, void *user) {
  fz_connection *connection = calloc(1, sizeof(*connection));
  int r = connection ? uv_poll_init(loop, &connection->poll, fd) : -ENOMEM;

  if (r < 0) {
    close(fd);
    free(connection);
    return r;
  }
  (void)uv_timer_init(loop, &connection->linger); /* never fails */
  connection->poll.data = connection;
  connection->linger.data = connection;
  connection->open_handles = 2;
  connection->fd = fd;
  connection->peer = *peer;
  connection->events = events;
  connection->user = user;
  watch(connection);
  *ret_connection = connection;
  return 0;
}

const struct fz_peer *fz_connection_peer(const fz_connection *connection) { return &connection->peer; }

static int push(fz_connection *connection, fz_json_writer *writer, int fd) {
  const char *line;
  size_t length;
  int r, copy;

  r = fz_writer_line(writer, &line, &length);
  if (r < 0) {
    fz_connection_abort(connection, r == -E2BIG ? "an answer did not fit into a line" : "out of memory");
    return -ENOTCONN;
  }
  if (fd < 0) {
    r = fz_output_push(&connection->output, line, length);
  } else {
    copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (copy < 0)
      return -errno;
    r = fz_output_push_fd(&connection->output, line, length, copy, true);
    if (r < 0)
      close(copy);
  }
  if (r < 0) {
    fz_connection_abort(connection, r == -ENOBUFS ? "it does not read what it asked for" : "out of memory");
    return -ENOTCONN;
  }
  return 0;
}

int fz_connection_send(fz_connection *connection, fz_json_writer *writer, int fd) {
  int r = -ENOTCONN;

  if (!connection->gone && !connection->reason) {
    const bool waits = fz_output_pending(&connection->output) > 0;
    r = push(connection, writer, fd);
    if (r == 0 && !waits)
      flush(connection);
  }
  fz_writer_reset(writer);
  return r;
}

size_t fz_connection_queued(const fz_connection *connection) {
  return connection->gone ? 0 : fz_output_pending(&connection->output);
}

int fz_connection_take_fd(fz_connection *connection) { return fz_line_reader_take_fd(&connection->reader); }

void fz_connection_close(fz_connection *connection, const char *reason) {
  if (connection->gone || connection->reason)
    return;
  connection->reason = reason;
  if (!fz_output_pending(&connection->output)) {
    fz_connection_abort(connection, reason);
    return;
  }
  uv_timer_start(&connection->linger, on_linger, CLOSE_TIMEOUT_MS, 0);
  watch(connection);
}
