/* lines.h - lines over a stream socket, with the descriptors that travel beside them. */
#ifndef FZ_LINES_H
#define FZ_LINES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "protocol/limits.h"

/*
 * MODEL
 *
 * A stream has no messages: a read may end anywhere, and holds half a line or many. fz_line_reader gathers bytes and
 * gives out whole lines; fz_output queues lines and sends as much of them as the socket takes. Neither blocks, neither
 * knows what is in a line, and neither keeps more than its cap.
 *
 * Descriptors. A sender passes a descriptor with the bytes of exactly one line. A receiver gets it together with some of
 * that line's bytes, and perhaps with lines that came before; never with bytes sent after. So a receive that brings a
 * descriptor covers a span of the stream, and the line that owns the descriptor has bytes in that span. Which of those
 * lines it is the protocol says (the one that is `welcome` or `resume`): its handler calls fz_line_reader_take_fd().
 * A descriptor that no line took is closed when the last line of its span has gone by. At most FZ_LINE_FDS_MAX are kept
 * waiting, more are closed as they come.
 *
 *   reading, when the socket is readable                writing
 *     do {                                                r = fz_output_push(&output, line, length);
 *       r = fz_line_reader_receive(&reader, fd);          ...
 *       while (fz_line_reader_next(&reader, &l, &n) == 0) r = fz_output_flush(&output, fd);
 *         handle(l, n);                                   if (r == FZ_IO_AGAIN) wait until the socket is writable
 *     } while (r == 0 && there is time);
 */

enum {
  FZ_IO_AGAIN = 1, /* the socket has no bytes, or no room, now */
  FZ_IO_CLOSED = 2 /* the peer has closed its end */
};

#define FZ_LINE_FDS_MAX 4U

/* A descriptor that waits for its line, and the span of the stream that came with it. */
struct fz_line_fd {
  int fd;
  uint64_t first, last; /* offsets of bytes in the stream */
};

/** Bytes received and not yet given out. */
typedef struct fz_line_reader {
  char *data;
  size_t size;
  size_t start, end;              /* of what is in it */
  size_t scanned;                 /* no newline before it */
  size_t max;                     /* of a line, newline not counted; 0: FZ_LINE_MAX */
  uint64_t offset;                /* in the stream, of data[start] */
  uint64_t line_first, line_last; /* span of the line that was given out last */
  bool has_line;
  size_t n_fds;
  struct fz_line_fd fds[FZ_LINE_FDS_MAX];
} fz_line_reader;

#define FZ_LINE_READER_NULL \
  { 0 }

/** Frees the buffer, closes descriptors that wait, leaves FZ_LINE_READER_NULL but for `max`. */
void fz_line_reader_deinit(fz_line_reader *reader);

/**
 * Receives once, as much as there is room for, without blocking.
 * @return 0 some bytes came; FZ_IO_AGAIN; FZ_IO_CLOSED; -EPROTO descriptors were cut off (too many, or this process has
 *         none left); -ENOBUFS no room: lines wait for fz_line_reader_next(), or it has said FZ_LINE_TOO_LONG; -ENOMEM;
 *         other negative errno of recvmsg
 */
int fz_line_reader_receive(fz_line_reader *reader, int fd);

/** Adds bytes that came in another way. 0; -ENOBUFS nothing was added, take lines first; -ENOMEM. */
int fz_line_reader_push(fz_line_reader *reader, const void *data, size_t length);

enum {
  FZ_LINE_NONE = 1,    /* no whole line there */
  FZ_LINE_TOO_LONG = 2 /* more than the limit without a newline; stays so: end the connection */
};

/**
 * The next line, without its newline and with a NUL in its place (it may hold others: the length counts). Empty lines
 * are passed over. Borrowed, until the next call on the reader; so is the right to take its descriptor.
 * @return 0; FZ_LINE_NONE; FZ_LINE_TOO_LONG
 */
int fz_line_reader_next(fz_line_reader *reader, char **ret_line, size_t *ret_length);

/** The descriptor that came with the line given out last: the caller owns it. -1 when none did, or it was taken. */
int fz_line_reader_take_fd(fz_line_reader *reader);

/** Bytes that wait for a newline or for fz_line_reader_next(). */
static inline size_t fz_line_reader_pending(const fz_line_reader *reader) { return reader->end - reader->start; }

/**
 * Sends once without blocking and without SIGPIPE; `pass_fd` (-1: none) goes with the first byte.
 * @param[out] ret_sent  how many bytes went, at least 1 on 0
 * @return 0; FZ_IO_AGAIN; -EPIPE, -ECONNRESET the peer is gone; other negative errno of sendmsg
 */
int fz_send(int fd, const void *data, size_t length, int pass_fd, size_t *ret_sent);

/* A descriptor that goes with a line. */
struct fz_output_fd {
  int fd;
  bool owned;
  uint64_t offset; /* in the stream, of the line's first byte */
};

#define FZ_OUTPUT_FDS_MAX 4U

/** Lines that wait for the socket. A line that was begun is always sent to its end. */
typedef struct fz_output {
  char *data;
  size_t size;
  size_t start, end; /* of what is in it */
  size_t max;        /* bytes that may wait; 0: FZ_OUTPUT_MAX */
  uint64_t offset;   /* in the stream, of data[start] */
  bool partial;      /* data[start] is within a line whose beginning was sent */
  size_t n_fds;
  struct fz_output_fd fds[FZ_OUTPUT_FDS_MAX];
} fz_output;

#define FZ_OUTPUT_NULL \
  { 0 }

/** Frees the queue, closes descriptors that it owns, leaves FZ_OUTPUT_NULL but for `max`. */
void fz_output_deinit(fz_output *output);

/**
 * Queues one line. `length` counts its newline.
 * @return 0; -ENOBUFS it would be more than `max`, nothing was queued; -ENOMEM
 */
int fz_output_push(fz_output *output, const char *line, size_t length);

/**
 * The same, with a descriptor beside the line.
 * @param owned  true: the queue closes it when it was sent, or at the end (never on failure here); false: it is
 *               borrowed, and the caller keeps it open until fz_output_pending() is 0. Closing *any* descriptor of a
 *               file drops the process's record locks on it: a trainer lends, freezerd gives away a duplicate.
 * @return as fz_output_push(); -ENOBUFS also when FZ_OUTPUT_FDS_MAX wait
 */
int fz_output_push_fd(fz_output *output, const char *line, size_t length, int pass_fd, bool owned);

/** Bytes that wait. */
static inline size_t fz_output_pending(const fz_output *output) { return output->end - output->start; }

/** Sends what the socket takes. 0: nothing waits any more; FZ_IO_AGAIN; negative errno as fz_send(). */
int fz_output_flush(fz_output *output, int fd);

/**
 * Drops the lines that were not begun: what is left is the rest of a line that was, or nothing. For a trainer that
 * would rather send newer events.
 */
void fz_output_drop_unsent(fz_output *output);

#endif
