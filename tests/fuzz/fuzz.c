/* fuzz.c - what the fuzz targets share. */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "protocol/lines.h"
#include "tests/fuzz/fuzz.h"

void fuzz_broken(const char *file, int line, const char *what) {
  (void)dprintf(STDERR_FILENO, "%s:%d: broken: %s\n", file, line, what);
  abort();
}

void fuzz_quiet(void) {
  static FILE *nowhere;
  if (nowhere)
    return;
  nowhere = fopen("/dev/null", "we");
  FUZZ_CHECK(nowhere != NULL);
  stderr = nowhere;
}

int fuzz_file(const void *data, size_t size) {
  const int fd = memfd_create("fuzz", MFD_CLOEXEC);
  FUZZ_CHECK(fd >= 0);
  FUZZ_CHECK(pwrite(fd, data, size, 0) == (ssize_t)size);
  return fd;
}

/* The stream as the reader should see it. */
struct expected {
  const char *at, *end;
  size_t max;
};

/* What the reader gave out is the next line that is not empty. */
static void expect_line(struct expected *expected, const char *line, size_t length) {
  while (expected->at < expected->end && *expected->at == '\n')
    expected->at++;
  FUZZ_CHECK(length > 0 && length <= expected->max && length < (size_t)(expected->end - expected->at));
  FUZZ_CHECK(memcmp(expected->at, line, length) == 0 && !memchr(line, '\n', length));
  FUZZ_CHECK(expected->at[length] == '\n' && line[length] == '\0');
  expected->at += length + 1;
}

/* What was not given out is no whole line. */
static void expect_rest(const fz_line_reader *reader, struct expected *expected) {
  while (expected->at < expected->end && *expected->at == '\n')
    expected->at++;
  FUZZ_CHECK(fz_line_reader_pending(reader) == (size_t)(expected->end - expected->at));
  FUZZ_CHECK(!memchr(expected->at, '\n', (size_t)(expected->end - expected->at)));
}

static void expect_too_long(fz_line_reader *reader, struct expected *expected) {
  char *line;
  size_t length;
  while (expected->at < expected->end && *expected->at == '\n')
    expected->at++;
  FUZZ_CHECK((size_t)(expected->end - expected->at) > expected->max);
  FUZZ_CHECK(!memchr(expected->at, '\n', expected->max + 1));
  FUZZ_CHECK(fz_line_reader_next(reader, &line, &length) == FZ_LINE_TOO_LONG);
}

/* Gives out all whole lines. False: the stream ends here. */
static bool take_lines(fz_line_reader *reader, struct expected *expected, fuzz_line *take, void *context) {
  char *line;
  size_t length;
  for (;;) {
    const int r = fz_line_reader_next(reader, &line, &length);
    if (r == FZ_LINE_TOO_LONG)
      expect_too_long(reader, expected);
    if (r)
      return r == FZ_LINE_NONE;
    FUZZ_CHECK(fz_line_reader_take_fd(reader) == -1);
    expect_line(expected, line, length);
    if (!take(context, line, length))
      return false;
  }
}

void fuzz_lines(const uint8_t *data, size_t size, fuzz_line *take, void *context) {
  if (size < 5)
    return;
  fz_line_reader reader = FZ_LINE_READER_NULL;
  reader.max = data[0] < 16 ? 0 : data[0] * (size_t)16;
  const char *at = (const char *)data + 5, *end = (const char *)data + size;
  struct expected expected = { at, end, reader.max ? reader.max : FZ_LINE_MAX };
  bool goes_on = true;
  for (unsigned turn = 0; goes_on && at < end; turn++) {
    size_t chunk = data[1 + turn % 4] ? data[1 + turn % 4] : 4096;
    if (chunk > (size_t)(end - at))
      chunk = (size_t)(end - at);
    int r = fz_line_reader_push(&reader, at, chunk);
    if (r == -ENOBUFS) { /* more than fits beside what waits for its newline: one byte always does */
      chunk = 1;
      r = fz_line_reader_push(&reader, at, chunk);
    }
    FUZZ_CHECK(r == 0);
    at += chunk;
    goes_on = take_lines(&reader, &expected, take, context);
  }
  if (goes_on)
    expect_rest(&reader, &expected);
  fz_line_reader_deinit(&reader);
}
