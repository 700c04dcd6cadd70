/* lines.c - lines over a stream socket, with the descriptors that travel beside them. */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "protocol/lines.h"

/* Buffers grow from FIRST_SIZE and are given back when they are empty and larger than KEPT_SIZE. */
#define FIRST_SIZE ((size_t)4096)
#define KEPT_SIZE ((size_t)64 * 1024)

/* --- reading --- */

static size_t reader_capacity(const fz_line_reader *reader) {
  return (reader->max == 0 ? FZ_LINE_MAX : reader->max) + 1;
}

static void drop_fd(fz_line_reader *reader, size_t index) {
  reader->n_fds--;
  memmove(&reader->fds[index], &reader->fds[index + 1], (reader->n_fds - index) * sizeof(reader->fds[0]));
}

/* Descriptors of spans that end before `offset`: no line can own them any more. */
static void close_passed_fds(fz_line_reader *reader, uint64_t offset) {
  while (reader->n_fds > 0 && reader->fds[0].last < offset) {
    (void)close(reader->fds[0].fd);
    drop_fd(reader, 0);
  }
}

void fz_line_reader_deinit(fz_line_reader *reader) {
  free(reader->data);
  close_passed_fds(reader, UINT64_MAX);
  *reader = (fz_line_reader){ .max = reader->max };
}

/* Nothing is in it: the buffer is used from its front, or given back. */
static void reader_give_back(fz_line_reader *reader) {
  if (reader->start != reader->end)
    return;
  reader->start = reader->end = reader->scanned = 0;
  if (reader->size > KEPT_SIZE) {
    free(reader->data);
    reader->data = NULL;
    reader->size = 0;
  }
}

/* Makes room behind `end`: by moving what is there to the front, else by growing, up to one line and its newline. */
static int reader_make_room(fz_line_reader *reader) {
  reader_give_back(reader);
  if (reader->end < reader->size)
    return 0;
  if (reader->start > 0) {
    memmove(reader->data, reader->data + reader->start, reader->end - reader->start);
    reader->end -= reader->start;
    reader->scanned -= reader->start;
    reader->start = 0;
    return 0;
  }
  const size_t capacity = reader_capacity(reader);
  if (reader->size == capacity)
    return -ENOBUFS;
  size_t size = reader->size == 0 ? FIRST_SIZE : reader->size * 2;
  if (size > capacity)
    size = capacity;
  char *data = realloc(reader->data, size);
  if (data == NULL)
    return -ENOMEM;
  reader->data = data;
  reader->size = size;
  return 0;
}

/* Keeps the first descriptor of a receive of `length` bytes, closes all others. */
static void keep_fds(fz_line_reader *reader, struct msghdr *message, size_t length) {
  const uint64_t first = reader->offset + fz_line_reader_pending(reader);
  bool kept = false;
  for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c != NULL; c = CMSG_NXTHDR(message, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
      continue;
    for (size_t at = 0; at + sizeof(int) <= c->cmsg_len - CMSG_LEN(0); at += sizeof(int)) {
      int fd;
      memcpy(&fd, CMSG_DATA(c) + at, sizeof(fd));
      if (kept || length == 0 || reader->n_fds == FZ_LINE_FDS_MAX) {
        (void)close(fd);
        continue;
      }
      reader->fds[reader->n_fds++] = (struct fz_line_fd){ .fd = fd, .first = first, .last = first + length - 1 };
      kept = true;
    }
  }
}

int fz_line_reader_receive(fz_line_reader *reader, int fd) {
  reader->has_line = false;
  int r = reader_make_room(reader);
  if (r != 0)
    return r;
  union {
    struct cmsghdr align;
    char space[CMSG_SPACE(sizeof(int))];
  } control;
  struct iovec part = { .iov_base = reader->data + reader->end, .iov_len = reader->size - reader->end };
  struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };
  ssize_t length;
  do {
    message.msg_control = control.space;
    message.msg_controllen = CMSG_LEN(sizeof(int)); /* of one: CMSG_SPACE() would have room for two */
    length = recvmsg(fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  } while (length < 0 && errno == EINTR);
  if (length < 0)
    return errno == EAGAIN || errno == EWOULDBLOCK ? FZ_IO_AGAIN : -errno;
  keep_fds(reader, &message, (size_t)length);
  if ((message.msg_flags & MSG_CTRUNC) != 0)
    return -EPROTO;
  if (length == 0)
    return FZ_IO_CLOSED;
  reader->end += (size_t)length;
  return 0;
}

int fz_line_reader_push(fz_line_reader *reader, const void *data, size_t length) {
  reader->has_line = false;
  if (length > reader_capacity(reader) - fz_line_reader_pending(reader))
    return -ENOBUFS;
  while (length > 0) {
    const int r = reader_make_room(reader);
    if (r != 0)
      return r;
    const size_t room = reader->size - reader->end;
    const size_t part = length < room ? length : room;
    memcpy(reader->data + reader->end, data, part);
    reader->end += part;
    data = (const char *)data + part;
    length -= part;
  }
  return 0;
}

int fz_line_reader_next(fz_line_reader *reader, char **ret_line, size_t *ret_length) {
  reader->has_line = false;
  for (;;) {
    close_passed_fds(reader, reader->offset);
    char *newline = NULL;
    if (reader->scanned < reader->end)
      newline = memchr(reader->data + reader->scanned, '\n', reader->end - reader->scanned);
    if (newline == NULL) {
      reader->scanned = reader->end;
      reader_give_back(reader); /* not at the next receive: that may never come */
      return fz_line_reader_pending(reader) < reader_capacity(reader) ? FZ_LINE_NONE : FZ_LINE_TOO_LONG;
    }
    char *line = reader->data + reader->start;
    const size_t length = (size_t)(newline - line);
    reader->line_first = reader->offset;
    reader->line_last = reader->offset + length;
    reader->offset += length + 1;
    reader->start += length + 1;
    reader->scanned = reader->start;
    if (length == 0)
      continue;
    *newline = '\0';
    reader->has_line = true;
    *ret_line = line;
    *ret_length = length;
    return 0;
  }
}

int fz_line_reader_take_fd(fz_line_reader *reader) {
  for (size_t i = 0; reader->has_line && i < reader->n_fds; i++) {
    const struct fz_line_fd found = reader->fds[i];
    if (found.first > reader->line_last || found.last < reader->line_first)
      continue;
    drop_fd(reader, i);
    return found.fd;
  }
  return -1;
}

/* --- sending --- */

/* Only sendmsg() takes a descriptor along, and it costs more than send(). */
static ssize_t send_with_fd(int fd, const void *data, size_t length, int pass_fd) {
  struct iovec part = { .iov_base = (void *)(uintptr_t)data, .iov_len = length };
  union {
    struct cmsghdr align;
    char space[CMSG_SPACE(sizeof(int))];
  } control = { .space = { 0 } };
  const struct msghdr message = {
    .msg_iov = &part, .msg_iovlen = 1, .msg_control = control.space, .msg_controllen = sizeof(control.space)
  };
  control.align.cmsg_level = SOL_SOCKET;
  control.align.cmsg_type = SCM_RIGHTS;
  control.align.cmsg_len = CMSG_LEN(sizeof(int));
  memcpy(CMSG_DATA(&control.align), &pass_fd, sizeof(int));
  return sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
}

int fz_send(int fd, const void *data, size_t length, int pass_fd, size_t *ret_sent) {
  ssize_t sent;
  do
    sent = pass_fd < 0 ? send(fd, data, length, MSG_DONTWAIT | MSG_NOSIGNAL) : send_with_fd(fd, data, length, pass_fd);
  while (sent < 0 && errno == EINTR);
  if (sent < 0)
    return errno == EAGAIN || errno == EWOULDBLOCK ? FZ_IO_AGAIN : -errno;
  *ret_sent = (size_t)sent;
  return 0;
}

static void output_forget_fd(fz_output *output, size_t index) {
  if (output->fds[index].owned)
    (void)close(output->fds[index].fd);
  output->n_fds--;
  memmove(&output->fds[index], &output->fds[index + 1], (output->n_fds - index) * sizeof(output->fds[0]));
}

void fz_output_deinit(fz_output *output) {
  free(output->data);
  while (output->n_fds > 0)
    output_forget_fd(output, output->n_fds - 1);
  *output = (fz_output){ .max = output->max };
}

static int output_make_room(fz_output *output, size_t more) {
  const size_t pending = fz_output_pending(output);
  const size_t max = output->max == 0 ? FZ_OUTPUT_MAX : output->max;
  if (pending > max || more > max - pending)
    return -ENOBUFS;
  if (output->start > 0 && more > output->size - output->end) {
    memmove(output->data, output->data + output->start, pending);
    output->start = 0;
    output->end = pending;
  }
  if (more <= output->size - output->end)
    return 0;
  size_t size = output->size == 0 ? FIRST_SIZE : output->size;
  while (size < pending + more)
    size *= 2;
  char *data = realloc(output->data, size);
  if (data == NULL)
    return -ENOMEM;
  output->data = data;
  output->size = size;
  return 0;
}

int fz_output_push(fz_output *output, const char *line, size_t length) {
  const int r = output_make_room(output, length);
  if (r != 0)
    return r;
  memcpy(output->data + output->end, line, length);
  output->end += length;
  return 0;
}

int fz_output_push_fd(fz_output *output, const char *line, size_t length, int pass_fd, bool owned) {
  if (output->n_fds == FZ_OUTPUT_FDS_MAX)
    return -ENOBUFS;
  const uint64_t offset = output->offset + fz_output_pending(output);
  const int r = fz_output_push(output, line, length);
  if (r == 0)
    output->fds[output->n_fds++] = (struct fz_output_fd){ .fd = pass_fd, .owned = owned, .offset = offset };
  return r;
}

/* What goes into the next send: lines up to one with a descriptor, or that one alone. */
static size_t output_next_part(const fz_output *output, int *ret_pass_fd) {
  const char *first = output->data + output->start;
  const size_t pending = fz_output_pending(output);
  *ret_pass_fd = -1;
  if (output->n_fds == 0)
    return pending;
  if (output->fds[0].offset > output->offset)
    return (size_t)(output->fds[0].offset - output->offset);
  *ret_pass_fd = output->fds[0].fd;
  const char *newline = memchr(first, '\n', pending);
  return newline == NULL ? pending : (size_t)(newline - first) + 1;
}

int fz_output_flush(fz_output *output, int fd) {
  while (fz_output_pending(output) > 0) {
    int pass_fd;
    const size_t length = output_next_part(output, &pass_fd);
    size_t sent;
    const int r = fz_send(fd, output->data + output->start, length, pass_fd, &sent);
    if (r != 0)
      return r;
    if (pass_fd >= 0)
      output_forget_fd(output, 0);
    output->start += sent;
    output->offset += sent;
    output->partial = output->data[output->start - 1] != '\n';
  }
  output->start = output->end = 0;
  if (output->size > KEPT_SIZE) {
    free(output->data);
    output->data = NULL;
    output->size = 0;
  }
  return 0;
}

void fz_output_drop_unsent(fz_output *output) {
  size_t kept = 0;
  if (output->partial) {
    const char *first = output->data + output->start;
    const char *newline = memchr(first, '\n', fz_output_pending(output));
    kept = newline == NULL ? fz_output_pending(output) : (size_t)(newline - first) + 1;
  }
  output->end = output->start + kept;
  while (output->n_fds > 0 && output->fds[output->n_fds - 1].offset >= output->offset + kept)
    output_forget_fd(output, output->n_fds - 1);
}
