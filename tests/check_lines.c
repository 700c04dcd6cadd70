/* check_lines.c - framing: any chunking, limits, descriptors beside lines, and queues that never block. */
#include "config.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "protocol/lines.h"
#include "tests/runner.h"
#include "tests/wire.h"

static unsigned open_fds(void) {
  DIR *directory = opendir("/proc/self/fd");
  ck_assert_ptr_nonnull(directory);
  unsigned count = 0;
  while (readdir(directory) != NULL) /* cppcheck-suppress readdirCalled ; readdir_r is deprecated */
    count++;
  (void)closedir(directory);
  return count;
}

static void make_pair(int pair[2]) {
  ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
}

static void send_all(int fd, const char *text, int pass_fd) {
  size_t sent = 0;
  ck_assert_int_eq(fz_send(fd, text, strlen(text), pass_fd, &sent), 0);
  ck_assert_uint_eq(sent, strlen(text));
}

static void expect_line(fz_line_reader *reader, const char *expected) {
  char *line = NULL;
  size_t length = 0;
  ck_assert_int_eq(fz_line_reader_next(reader, &line, &length), 0);
  ck_assert_str_eq(line, expected);
  ck_assert_uint_eq(length, strlen(expected));
}

static void expect_none(fz_line_reader *reader) {
  char *line = NULL;
  size_t length = 0;
  ck_assert_int_eq(fz_line_reader_next(reader, &line, &length), FZ_LINE_NONE);
}

static ino_t inode_of(int fd) {
  struct stat found;
  ck_assert_int_eq(fstat(fd, &found), 0);
  return found.st_ino;
}

/* A file of its own, to be told from others by its inode. */
static int make_file(void) {
  char name[200];
  (void)snprintf(name, sizeof(name), "%s/fileXXXXXX", fz_test_root());
  const int fd = mkostemp(name, O_CLOEXEC);
  ck_assert_int_ge(fd, 0);
  return fd;
}

/* --- reading --- */

/* All golden lines in one stream, pushed `chunk` bytes at a time (0: in random pieces). */
static void read_in_chunks(const struct wire *wire, size_t chunk) {
  char *stream = calloc(1, 1 << 16);
  ck_assert_ptr_nonnull(stream);
  for (size_t i = 0; i < wire->count; i++)
    (void)sprintf(stream + strlen(stream), "%s%s\n", i % 3 == 0 ? "\n\n" : "", wire->lines[i]);
  const size_t total = strlen(stream);
  fz_line_reader reader = FZ_LINE_READER_NULL;
  uint64_t state = 5;
  size_t seen = 0;
  for (size_t at = 0; at < total;) {
    size_t part = chunk == 0 ? 1 + wire_random(&state) % 700 : chunk;
    part = part < total - at ? part : total - at;
    ck_assert_int_eq(fz_line_reader_push(&reader, stream + at, part), 0);
    at += part;
    char *line;
    size_t length;
    while (fz_line_reader_next(&reader, &line, &length) == 0) {
      ck_assert_str_eq(line, wire->lines[seen]);
      ck_assert_uint_eq(length, strlen(wire->lines[seen]));
      seen++;
    }
  }
  ck_assert_uint_eq(seen, wire->count);
  ck_assert_uint_eq(fz_line_reader_pending(&reader), 0);
  fz_line_reader_deinit(&reader);
  free(stream);
}

START_TEST(reads_any_chunking)
{
  static const char *const files[] = { "v1-trainer.jsonl", "v1-requests.jsonl", "v1-answers.jsonl" };
  static const size_t chunks[] = { 1, 2, 3, 7, 100, 4095, 4096, 4097, 1 << 16, 0 };
  for (size_t f = 0; f < 3; f++) {
    struct wire wire;
    wire_load(&wire, files[f]);
    read_in_chunks(&wire, chunks[_i]);
    wire_free(&wire);
  }
}
END_TEST

START_TEST(reads_what_a_socket_has)
{
  int pair[2];
  make_pair(pair);
  fz_line_reader reader = FZ_LINE_READER_NULL;
  ck_assert_int_eq(fz_line_reader_receive(&reader, pair[0]), FZ_IO_AGAIN);
  send_all(pair[1], "one\ntwo\nthr", -1);
  ck_assert_int_eq(fz_line_reader_receive(&reader, pair[0]), 0);
  expect_line(&reader, "one");
  expect_line(&reader, "two");
  expect_none(&reader);
  expect_none(&reader);
  ck_assert_int_eq(fz_line_reader_receive(&reader, pair[0]), FZ_IO_AGAIN);
  send_all(pair[1], "ee\n\n\nfour\nhalf", -1);
  ck_assert_int_eq(fz_line_reader_receive(&reader, pair[0]), 0);
  expect_line(&reader, "three");
  expect_line(&reader, "four");
  (void)close(pair[1]);
  ck_assert_int_eq(fz_line_reader_receive(&reader, pair[0]), FZ_IO_CLOSED);
  expect_none(&reader);
  ck_assert_uint_eq(fz_line_reader_pending(&reader), 4);
  fz_line_reader_deinit(&reader);
  fz_line_reader_deinit(&reader);
  ck_assert_int_eq(fz_line_reader_receive(&reader, -1), -EBADF);
  fz_line_reader_deinit(&reader);
  (void)close(pair[0]);
}
END_TEST

/* A buffer so small that every line is at some edge of it. */
START_TEST(reads_through_a_small_buffer)
{
  for (size_t max = 1; max <= 9; max++) {
    fz_line_reader reader = { .max = max };
    uint64_t state = max;
    for (int i = 0; i < 2000; i++) {
      char line[16];
      const size_t length = 1 + wire_random(&state) % max;
      (void)snprintf(line, length + 1, "%09d", i);
      const size_t cut = wire_random(&state) % (length + 1);
      ck_assert_int_eq(fz_line_reader_push(&reader, line, cut), 0);
      expect_none(&reader);
      ck_assert_int_eq(fz_line_reader_push(&reader, line + cut, length - cut), 0);
      ck_assert_int_eq(fz_line_reader_push(&reader, "\n", 1), 0);
      expect_line(&reader, line);
      ck_assert_uint_le(reader.size, max + 1);
    }
    fz_line_reader_deinit(&reader);
  }
}
END_TEST

START_TEST(limits_a_line)
{
  int pair[2];
  make_pair(pair);
  char *text = malloc(FZ_LINE_MAX + 2);
  ck_assert_ptr_nonnull(text);
  memset(text, 'x', FZ_LINE_MAX + 2);
  for (int longer = 0; longer < 2; longer++) {
    fz_line_reader reader = FZ_LINE_READER_NULL;
    text[FZ_LINE_MAX] = longer ? 'x' : '\n';
    size_t at = 0;
    const size_t total = FZ_LINE_MAX + 1;
    while (at < total) {
      size_t sent;
      if (fz_send(pair[1], text + at, total - at, -1, &sent) == 0)
        at += sent;
      int r = fz_line_reader_receive(&reader, pair[0]);
      while (r == 0) {
        ck_assert_uint_le(reader.size, FZ_LINE_MAX + 1);
        if (at < total)
          expect_none(&reader);
        r = fz_line_reader_receive(&reader, pair[0]);
      }
    }
    char *line;
    size_t length;
    if (longer) {
      ck_assert_int_eq(fz_line_reader_next(&reader, &line, &length), FZ_LINE_TOO_LONG);
      ck_assert_int_eq(fz_line_reader_receive(&reader, pair[0]), -ENOBUFS);
      ck_assert_int_eq(fz_line_reader_push(&reader, "\n", 1), -ENOBUFS);
      ck_assert_int_eq(fz_line_reader_next(&reader, &line, &length), FZ_LINE_TOO_LONG);
    } else {
      ck_assert_int_eq(fz_line_reader_next(&reader, &line, &length), 0);
      ck_assert_uint_eq(length, FZ_LINE_MAX);
      /* What a long line took is given back. */
      ck_assert_int_eq(fz_line_reader_push(&reader, "short\n", 6), 0);
      ck_assert_uint_le(reader.size, 4096);
      expect_line(&reader, "short");
    }
    fz_line_reader_deinit(&reader);
  }
  free(text);
}
END_TEST

/* A peer that sends without end costs one buffer, whatever it sends. */
START_TEST(keeps_no_more_than_a_line)
{
  int pair[2];
  make_pair(pair);
  fz_line_reader reader = { .max = 10000 };
  char junk[5000];
  memset(junk, 'j', sizeof(junk));
  int r = 0;
  for (int i = 0; i < 100 && r != -ENOBUFS; i++) {
    size_t sent;
    (void)fz_send(pair[1], junk, sizeof(junk), -1, &sent);
    r = fz_line_reader_receive(&reader, pair[0]);
    ck_assert_uint_le(reader.size, 10001);
  }
  ck_assert_int_eq(r, -ENOBUFS);
  char *line;
  size_t length;
  ck_assert_int_eq(fz_line_reader_next(&reader, &line, &length), FZ_LINE_TOO_LONG);
  fz_line_reader_deinit(&reader);
}
END_TEST

/* --- descriptors --- */

START_TEST(gives_a_descriptor_to_its_line)
{
  int pair[2];
  make_pair(pair);
  const unsigned before = open_fds();
  const int file = make_file();
  fz_line_reader reader = FZ_LINE_READER_NULL;

  /* Lines before it come in the same receive, and take nothing of their own accord. */
  send_all(pair[1], "hello\nhel", -1);
  send_all(pair[1], "lo2\n", -1);
  send_all(pair[1], "resume\n", file);
  send_all(pair[1], "params\n", -1);
  ck_assert_int_eq(fz_line_reader_take_fd(&reader), -1);
  ck_assert_int_eq(fz_line_reader_receive(&reader, pair[0]), 0);
  ck_assert_int_eq(fz_line_reader_take_fd(&reader), -1);
  expect_line(&reader, "hello");
  expect_line(&reader, "hello2");
  expect_line(&reader, "resume");
  const int taken = fz_line_reader_take_fd(&reader);
  ck_assert_int_ge(taken, 0);
  ck_assert_uint_eq(inode_of(taken), inode_of(file));
  ck_assert_int_ne(fcntl(taken, F_GETFD) & FD_CLOEXEC, 0);
  ck_assert_int_eq(fz_line_reader_take_fd(&reader), -1);
  expect_none(&reader);
  ck_assert_int_eq(fz_line_reader_receive(&reader, pair[0]), 0);
  expect_line(&reader, "params");
  ck_assert_int_eq(fz_line_reader_take_fd(&reader), -1);
  (void)close(taken);
  (void)close(file);
  fz_line_reader_deinit(&reader);
  ck_assert_uint_eq(open_fds(), before);
}
END_TEST

START_TEST(gives_a_descriptor_to_a_line_in_pieces)
{
  int pair[2];
  make_pair(pair);
  const int file = make_file();
  const char *line = "resume with a long tail\n";
  for (size_t cut = 1; cut < strlen(line); cut++) {
    fz_line_reader reader = FZ_LINE_READER_NULL;
    char head[64];
    (void)snprintf(head, sizeof(head), "%.*s", (int)cut, line);
    send_all(pair[1], "first\n", -1);
    send_all(pair[1], head, file);
    ck_assert_int_eq(fz_line_reader_receive(&reader, pair[0]), 0);
    expect_line(&reader, "first");
    expect_none(&reader);
    ck_assert_int_eq(fz_line_reader_take_fd(&reader), -1);
    for (const char *c = line + cut; *c != '\0'; c++) {
      send_all(pair[1], (const char[]){ *c, '\0' }, -1);
      ck_assert_int_eq(fz_line_reader_receive(&reader, pair[0]), 0);
    }
    expect_line(&reader, "resume with a long tail");
    const int taken = fz_line_reader_take_fd(&reader);
    ck_assert_uint_eq(inode_of(taken), inode_of(file));
    (void)close(taken);
    fz_line_reader_deinit(&reader);
  }
}
END_TEST

START_TEST(keeps_descriptors_apart)
{
  int pair[2];
  make_pair(pair);
  fz_line_reader reader = FZ_LINE_READER_NULL;
  int files[FZ_LINE_FDS_MAX];
  for (size_t i = 0; i < FZ_LINE_FDS_MAX; i++) {
    files[i] = make_file();
    send_all(pair[1], "welcome\n", files[i]);
    ck_assert_int_eq(fz_line_reader_receive(&reader, pair[0]), 0);
  }
  for (size_t i = 0; i < FZ_LINE_FDS_MAX; i++) {
    expect_line(&reader, "welcome");
    if (i == 1)
      continue; /* a line that does not ask: the next must not get it */
    const int taken = fz_line_reader_take_fd(&reader);
    ck_assert_uint_eq(inode_of(taken), inode_of(files[i]));
  }
  fz_line_reader_deinit(&reader);
}
END_TEST

/* A line that asks and came without one must not get that of a later line; nor the last of a crowd its successor's. */
START_TEST(gives_no_line_what_is_not_its_own)
{
  int pair[2];
  make_pair(pair);
  fz_line_reader reader = FZ_LINE_READER_NULL;
  const int file = make_file();
  send_all(pair[1], "welcome\n", -1);
  ck_assert_int_eq(fz_line_reader_receive(&reader, pair[0]), 0);
  send_all(pair[1], "welcome\n", file);
  ck_assert_int_eq(fz_line_reader_receive(&reader, pair[0]), 0);
  expect_line(&reader, "welcome");
  ck_assert_int_eq(fz_line_reader_take_fd(&reader), -1);
  expect_line(&reader, "welcome");
  ck_assert_uint_eq(inode_of(fz_line_reader_take_fd(&reader)), inode_of(file));

  for (size_t i = 0; i <= FZ_LINE_FDS_MAX; i++) {
    send_all(pair[1], "welcome\n", i == FZ_LINE_FDS_MAX ? STDIN_FILENO : file);
    ck_assert_int_eq(fz_line_reader_receive(&reader, pair[0]), 0);
  }
  for (size_t i = 0; i < FZ_LINE_FDS_MAX; i++) {
    expect_line(&reader, "welcome");
    ck_assert_uint_eq(inode_of(fz_line_reader_take_fd(&reader)), inode_of(file));
  }
  expect_line(&reader, "welcome");
  ck_assert_int_eq(fz_line_reader_take_fd(&reader), -1);
  fz_line_reader_deinit(&reader);
}
END_TEST

START_TEST(closes_what_nobody_asked_for)
{
  int pair[2];
  make_pair(pair);
  const int file = make_file();
  fz_line_reader reader = FZ_LINE_READER_NULL;
  const unsigned before = open_fds();
  for (int i = 0; i < 3000; i++) {
    send_all(pair[1], i % 2 == 0 ? "step\n" : "\n", file);
    ck_assert_int_eq(fz_line_reader_receive(&reader, pair[0]), 0);
    char *line;
    size_t length;
    while (fz_line_reader_next(&reader, &line, &length) == 0)
      continue;
    ck_assert_uint_le(open_fds(), before);
  }

  /* Without a newline, or with nobody to read the lines, a few wait; no more. */
  for (int i = 0; i < 1000; i++) {
    send_all(pair[1], i % 2 == 0 ? "x" : "y\n", file);
    ck_assert_int_eq(fz_line_reader_receive(&reader, pair[0]), 0);
    ck_assert_uint_le(open_fds(), before + FZ_LINE_FDS_MAX);
  }
  fz_line_reader_deinit(&reader);
  ck_assert_uint_eq(open_fds(), before);
}
END_TEST

static void send_many(int socket, int file, size_t count) {
  char control[CMSG_SPACE(253 * sizeof(int))] = { 0 };
  char byte = 'x';
  struct iovec part = { .iov_base = &byte, .iov_len = 1 };
  struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = control };
  message.msg_controllen = CMSG_SPACE(count * sizeof(int));
  struct cmsghdr *c = CMSG_FIRSTHDR(&message);
  ck_assert_ptr_nonnull(c);
  c->cmsg_level = SOL_SOCKET;
  c->cmsg_type = SCM_RIGHTS;
  c->cmsg_len = CMSG_LEN(count * sizeof(int));
  for (size_t i = 0; i < count; i++)
    memcpy(CMSG_DATA(c) + i * sizeof(int), &file, sizeof(int));
  ck_assert_int_eq(sendmsg(socket, &message, 0), 1);
}

START_TEST(refuses_several_descriptors_at_once)
{
  static const size_t counts[] = { 2, 3, 253 };
  const int file = make_file();
  int pair[2];
  make_pair(pair);
  fz_line_reader reader = FZ_LINE_READER_NULL;
  const unsigned before = open_fds();
  send_many(pair[1], file, counts[_i]);
  ck_assert_int_eq(fz_line_reader_receive(&reader, pair[0]), -EPROTO);
  fz_line_reader_deinit(&reader);
  ck_assert_uint_eq(open_fds(), before);
}
END_TEST

START_TEST(says_that_descriptors_ran_out)
{
  const int file = make_file();
  int pair[2];
  make_pair(pair);
  fz_line_reader reader = FZ_LINE_READER_NULL;
  send_all(pair[1], "resume\n", file);
  struct rlimit before;
  ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &before), 0);
  const struct rlimit none = { .rlim_cur = 0, .rlim_max = before.rlim_max };
  ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
  const int r = fz_line_reader_receive(&reader, pair[0]);
  ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &before), 0);
  ck_assert_int_eq(r, -EPROTO);
  fz_line_reader_deinit(&reader);
}
END_TEST

/* --- sending --- */

START_TEST(survives_a_peer_that_is_gone)
{
  int pair[2];
  make_pair(pair);
  (void)close(pair[1]);
  size_t sent = 99;
  ck_assert_int_eq(fz_send(pair[0], "x\n", 2, -1, &sent), -EPIPE);
  ck_assert_uint_eq(sent, 99);
  fz_output output = FZ_OUTPUT_NULL;
  ck_assert_int_eq(fz_output_push(&output, "x\n", 2), 0);
  ck_assert_int_eq(fz_output_flush(&output, pair[0]), -EPIPE);
  fz_output_deinit(&output);
  fz_output_deinit(&output);
}
END_TEST

/* Line `i` of the stream below: of any length, the last without pattern so that cuts show. */
static size_t make_line(char *line, unsigned i) {
  const size_t length = 1 + (i * 2654435761U) % 3000;
  memset(line, 'a' + (int)(i % 26), length);
  (void)sprintf(line, "%06u", i);
  if (length > 6)
    line[6] = '.';
  const size_t end = length > 7 ? length : 7;
  line[end] = '\n';
  line[end + 1] = '\0';
  return end + 1;
}

/*
 * Lines of all lengths through sockets with little room, each tenth with a descriptor of its own, read in fits and
 * starts: all arrive whole, in order, each descriptor with its line.
 */
START_TEST(sends_through_a_narrow_socket)
{
  enum { LINES = 1500 };
  int pair[2];
  make_pair(pair);
  const int small = 4096;
  ck_assert_int_eq(setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)), 0);
  const unsigned before = open_fds();
  fz_output output = FZ_OUTPUT_NULL;
  fz_line_reader reader = FZ_LINE_READER_NULL;
  uint64_t state = 3;
  unsigned pushed = 0;
  unsigned received = 0;
  ino_t inodes[LINES] = { 0 };
  char line[4096];
  while (received < LINES) {
    for (uint64_t n = wire_random(&state) % 5; n > 0 && pushed < LINES && output.n_fds < FZ_OUTPUT_FDS_MAX; n--) {
      const size_t length = make_line(line, pushed);
      if (pushed % 10 == 3) {
        const int file = make_file();
        inodes[pushed] = inode_of(file);
        ck_assert_int_eq(fz_output_push_fd(&output, line, length, file, true), 0);
      } else
        ck_assert_int_eq(fz_output_push(&output, line, length), 0);
      pushed++;
    }
    ck_assert_int_ge(fz_output_flush(&output, pair[0]), 0);
    if (wire_random(&state) % 3 == 0 || fz_line_reader_receive(&reader, pair[1]) != 0)
      continue;
    char *got;
    size_t got_length;
    while (fz_line_reader_next(&reader, &got, &got_length) == 0) {
      const size_t length = make_line(line, received);
      ck_assert_uint_eq(got_length, length - 1);
      ck_assert_int_eq(memcmp(got, line, got_length), 0);
      if (received % 10 == 3) {
        const int taken = fz_line_reader_take_fd(&reader);
        ck_assert_msg(taken >= 0, "line %u came without its descriptor", received);
        ck_assert_uint_eq(inode_of(taken), inodes[received]);
        (void)close(taken);
      }
      received++;
    }
  }
  ck_assert_uint_eq(fz_output_pending(&output), 0);
  ck_assert_uint_le(output.size, 64 * 1024);
  fz_output_deinit(&output);
  fz_line_reader_deinit(&reader);
  ck_assert_uint_eq(open_fds(), before);
}
END_TEST

START_TEST(limits_a_queue)
{
  fz_output output = { .max = 10 };
  ck_assert_int_eq(fz_output_push(&output, "12345\n", 6), 0);
  ck_assert_int_eq(fz_output_push(&output, "1234\n", 5), -ENOBUFS);
  ck_assert_int_eq(fz_output_push_fd(&output, "1234\n", 5, 0, false), -ENOBUFS);
  ck_assert_uint_eq(output.n_fds, 0);
  ck_assert_int_eq(fz_output_push(&output, "123\n", 4), 0);
  ck_assert_uint_eq(fz_output_pending(&output), 10);
  fz_output_deinit(&output);

  for (size_t i = 0; i < FZ_OUTPUT_FDS_MAX; i++)
    ck_assert_int_eq(fz_output_push_fd(&output, "\n", 1, STDIN_FILENO, false), 0);
  ck_assert_int_eq(fz_output_push_fd(&output, "\n", 1, STDIN_FILENO, false), -ENOBUFS);
  fz_output_deinit(&output);
}
END_TEST

START_TEST(owns_or_borrows_descriptors)
{
  int pair[2];
  make_pair(pair);
  const int lent = make_file();
  const int given = make_file();
  const int unsent = make_file();
  fz_output output = FZ_OUTPUT_NULL;
  ck_assert_int_eq(fz_output_push_fd(&output, "lent\n", 5, lent, false), 0);
  ck_assert_int_eq(fz_output_push_fd(&output, "given\n", 6, given, true), 0);
  ck_assert_int_eq(fz_output_flush(&output, pair[0]), 0);
  ck_assert_int_ge(fcntl(lent, F_GETFD), 0);
  ck_assert_int_eq(fcntl(given, F_GETFD), -1);
  ck_assert_int_eq(fz_output_push_fd(&output, "unsent\n", 7, unsent, true), 0);
  fz_output_deinit(&output);
  ck_assert_int_eq(fcntl(unsent, F_GETFD), -1);
}
END_TEST

/* The first byte takes it along; the rest of the line goes without. */
START_TEST(sends_a_descriptor_once)
{
  int pair[2];
  make_pair(pair);
  const size_t length = 1000 * 1000;
  char *line = malloc(length);
  ck_assert_ptr_nonnull(line);
  memset(line, 'x', length);
  line[length - 1] = '\n';
  const int file = make_file();
  fz_output output = FZ_OUTPUT_NULL;
  ck_assert_int_eq(fz_output_push_fd(&output, line, length, file, true), 0);
  ck_assert_int_eq(fz_output_flush(&output, pair[0]), FZ_IO_AGAIN);
  ck_assert(output.partial);
  ck_assert_uint_eq(output.n_fds, 0);
  ck_assert_int_eq(fcntl(file, F_GETFD), -1);
  fz_output_deinit(&output);
  free(line);
}
END_TEST

/* A trainer's way with a stopped daemon: finish the line that was begun, forget the rest, never wait. */
START_TEST(drops_what_was_not_begun)
{
  int pair[2];
  make_pair(pair);
  fz_output output = { .max = 64 * 1024 * 1024 };
  char *line = malloc(400001);
  ck_assert_ptr_nonnull(line);
  memset(line, 'x', 400000);
  line[400000] = '\n';
  while (fz_output_flush(&output, pair[0]) == 0)
    ck_assert_int_eq(fz_output_push(&output, line, 400001), 0);
  ck_assert(output.partial);
  ck_assert_int_eq(fz_output_push_fd(&output, "old\n", 4, make_file(), true), 0);
  ck_assert_int_eq(fz_output_push(&output, "old\n", 4), 0);
  const unsigned before = open_fds();
  fz_output_drop_unsent(&output);
  ck_assert_uint_eq(open_fds(), before - 1);
  ck_assert_uint_lt(fz_output_pending(&output), 400001);
  ck_assert_uint_gt(fz_output_pending(&output), 0);
  fz_output_drop_unsent(&output);
  ck_assert_int_eq(fz_output_push(&output, "new\n", 4), 0);

  fz_line_reader reader = FZ_LINE_READER_NULL;
  bool newest = false;
  while (!newest) {
    ck_assert_int_ge(fz_output_flush(&output, pair[0]), 0);
    ck_assert_int_ge(fz_line_reader_receive(&reader, pair[1]), 0);
    char *got;
    size_t length;
    while (fz_line_reader_next(&reader, &got, &length) == 0) {
      newest = strcmp(got, "new") == 0;
      ck_assert(newest || length == 400000);
    }
  }
  fz_output_drop_unsent(&output);
  ck_assert_uint_eq(fz_output_pending(&output), 0);
  ck_assert_int_eq(fz_output_push(&output, "gone\n", 5), 0);
  fz_output_drop_unsent(&output);
  ck_assert_uint_eq(fz_output_pending(&output), 0);
  fz_output_deinit(&output);
  fz_line_reader_deinit(&reader);
  free(line);
}
END_TEST

Suite *fz_suite(void) {
  Suite *suite = suite_create("lines");
  TCase *reading = tcase_create("reading");
  tcase_add_loop_test(reading, reads_any_chunking, 0, 10);
  tcase_add_test(reading, reads_what_a_socket_has);
  tcase_add_test(reading, reads_through_a_small_buffer);
  tcase_add_test(reading, limits_a_line);
  tcase_add_test(reading, keeps_no_more_than_a_line);
  suite_add_tcase(suite, reading);
  TCase *descriptors = tcase_create("descriptors");
  tcase_add_test(descriptors, gives_a_descriptor_to_its_line);
  tcase_add_test(descriptors, gives_a_descriptor_to_a_line_in_pieces);
  tcase_add_test(descriptors, keeps_descriptors_apart);
  tcase_add_test(descriptors, gives_no_line_what_is_not_its_own);
  tcase_add_test(descriptors, closes_what_nobody_asked_for);
  tcase_add_loop_test(descriptors, refuses_several_descriptors_at_once, 0, 3);
  tcase_add_test(descriptors, says_that_descriptors_ran_out);
  suite_add_tcase(suite, descriptors);
  TCase *sending = tcase_create("sending");
  tcase_add_test(sending, survives_a_peer_that_is_gone);
  tcase_add_test(sending, sends_through_a_narrow_socket);
  tcase_add_test(sending, limits_a_queue);
  tcase_add_test(sending, owns_or_borrows_descriptors);
  tcase_add_test(sending, sends_a_descriptor_once);
  tcase_add_test(sending, drops_what_was_not_begun);
  suite_add_tcase(suite, sending);
  return suite;
}
