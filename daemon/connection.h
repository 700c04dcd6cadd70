/* connection.h - one peer on the socket: lines and descriptors in, a bounded queue of lines out. */
#ifndef FZ_CONNECTION_H
#define FZ_CONNECTION_H

#include <stdbool.h>
#include <stddef.h>

#include "protocol/sockpath.h"
#include "protocol/writer.h"

struct uv_loop_s;

/*
 * A connection is its socket. It ends by itself: the peer hangs up, does not read what is queued for it, or is closed
 * from within; then, from the loop and never from within a call on it, its owner is told once and it frees itself.
 * Until then every call on it is allowed; sending to one that is ending does nothing.
 */
typedef struct fz_connection fz_connection;

/**
 * The memory that all connections take for what comes in and goes out. Each may have as much as is free, besides its own
 * limit: so the more they take together the less each may, those that have most meet the bound first, and there is
 * always as much left for another one as each of them has.
 */
struct fz_traffic {
  size_t input, output; /* bytes */
};

/** What the owner hears. All are called from the loop, `unread` from within fz_connection_send() as well. */
struct fz_connection_events {
  /** A whole line, NUL-terminated, without its newline; borrowed for the call. */
  void (*line)(void *user, char *line, size_t length);
  /** The line was longer than a line may be; the connection goes on only until what is queued was sent. */
  void (*too_long)(void *user);
  /** The line that it has begun to send takes more than all together may; it goes on as after too_long. */
  void (*no_room)(void *user);
  /** It has not read `bytes`, more than it may let wait: what it had not begun to read is dropped. It ends after this
      call, when a last line that the owner sends now was read, or after a while. */
  void (*unread)(void *user, size_t bytes);
  /** All that was queued has been sent. */
  void (*drained)(void *user);
  /** It is over; `reason` is a sentence for the log. The connection is freed after the call. */
  void (*closed)(void *user, const char *reason);
};

/**
 * Takes over a connected, non-blocking socket (closed on failure too).
 * @param events   borrowed, must outlive the connection
 * @param traffic  what it takes is counted there; borrowed as well
 * @return 0; -ENOMEM and what libuv returns: `closed` is not called then
 */
int fz_connection_new(fz_connection **ret_connection, struct uv_loop_s *loop, int fd, const struct fz_peer *peer,
                      const struct fz_connection_events *events, struct fz_traffic *traffic, void *user);

/** Who is at the other end. */
const struct fz_peer *fz_connection_peer(const fz_connection *connection);

/**
 * Queues what the writer holds as one line, sends what can be sent at once, and resets the writer. A peer that lets more
 * than FZ_OUTPUT_MAX bytes wait, or more than is free of FZ_OUTPUT_BYTES_MAX, is dropped. A message that could not be written (-ENOMEM, -E2BIG) ends the connection as
 * well: the peer would wait for it for ever.
 * @param fd  a descriptor that goes with it, borrowed (a duplicate is sent); -1: none
 * @return 0; -ENOTCONN the connection is ending; -EMFILE, -ENFILE the descriptor could not be duplicated, nothing was
 *         queued
 */
int fz_connection_send(fz_connection *connection, fz_json_writer *writer, int fd);

/** Bytes that wait for the peer to read; none once the connection is ending. */
size_t fz_connection_queued(const fz_connection *connection);

/** The descriptor that came with the line that is being handled: the caller owns it. -1: none. */
int fz_connection_take_fd(fz_connection *connection);

/** Ends it when what is queued was sent, or after a second. `reason` is a literal. */
void fz_connection_close(fz_connection *connection, const char *reason);
/** Ends it now. `reason` is a literal. */
void fz_connection_abort(fz_connection *connection, const char *reason);

#endif
