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
/* One that is slow is given longer to come to the last word. */
#define LAST_WORD_MS 10000

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
  struct fz_traffic *traffic;
  size_t input, output_bytes; /* its part of that */
  const char *reason;         /* why it ends; NULL: it does not */
  bool is_slow;               /* it was dropped for what it did not read */
  bool gone;                  /* its handles are closing */
};

/** Counts what it takes now. */
static void count(fz_connection *connection) {
  struct fz_traffic *traffic = connection->traffic;

  traffic->input += connection->reader.size - connection->input;
  traffic->output += connection->output.size - connection->output_bytes;
  connection->input = connection->reader.size;
  connection->output_bytes = connection->output.size;
}

static size_t free_of(size_t max, size_t taken) { return taken < max ? max - taken : 0; }

static void free_connection(fz_connection *connection) {
  fz_line_reader_deinit(&connection->reader);
  fz_output_deinit(&connection->output);
  count(connection);
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

  count(connection);
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

  if (r == 0) {
    take_lines(connection);
    count(connection);
    if (connection->input > free_of(FZ_INPUT_BYTES_MAX, connection->traffic->input) && !connection->reason &&
        !connection->gone) {
      connection->events->no_room(connection->user);
      fz_connection_close(connection, "no room for the line that it sends");
    }
  } else if (r == FZ_IO_CLOSED)
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
                      const struct fz_connection_events *events, struct fz_traffic *traffic, void *user) {
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
  connection->traffic = traffic;
  connection->user = user;
  watch(connection);
  *ret_connection = connection;
  return 0;
}

const struct fz_peer *fz_connection_peer(const fz_connection *connection) { return &connection->peer; }

/** As fz_connection_send(), and -ENOBUFS: nothing was queued, it has too much to read already. */
static int push(fz_connection *connection, fz_json_writer *writer, int fd) {
  const char *line;
  size_t length;
  int r, copy;

  r = fz_writer_line(writer, &line, &length);
  if (r < 0) {
    fz_connection_abort(connection, r == -E2BIG ? "an answer did not fit into a line" : "out of memory");
    return -ENOTCONN;
  }
  if (fz_output_pending(&connection->output) + length > free_of(FZ_OUTPUT_BYTES_MAX, connection->traffic->output))
    return -ENOBUFS;
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
  count(connection);
  if (r < 0 && r != -ENOBUFS) {
    fz_connection_abort(connection, "out of memory");
    return -ENOTCONN;
  }
  return r;
}

/** Ends it when what is queued was sent, or after a while. */
static void close_within(fz_connection *connection, const char *reason, uint64_t limit_ms) {
  if (connection->gone || connection->reason)
    return;
  connection->reason = reason;
  if (!fz_output_pending(&connection->output)) {
    fz_connection_abort(connection, reason);
    return;
  }
  uv_timer_start(&connection->linger, on_linger, limit_ms, 0);
  watch(connection);
}

/** What it has begun to read is a line that must have its end; behind that there is room for a last word. */
static void drop_slow(fz_connection *connection) {
  const size_t bytes = fz_output_pending(&connection->output);

  if (connection->is_slow)
    return;
  connection->is_slow = true;
  fz_output_drop_unsent(&connection->output);
  connection->events->unread(connection->user, bytes);
  close_within(connection, "it does not read what it asked for", LAST_WORD_MS);
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
  if (r == -ENOBUFS) {
    drop_slow(connection);
    r = -ENOTCONN;
  }
  return r;
}

size_t fz_connection_queued(const fz_connection *connection) {
  return connection->gone ? 0 : fz_output_pending(&connection->output);
}

int fz_connection_take_fd(fz_connection *connection) { return fz_line_reader_take_fd(&connection->reader); }

void fz_connection_close(fz_connection *connection, const char *reason) {
  close_within(connection, reason, CLOSE_TIMEOUT_MS);
}
