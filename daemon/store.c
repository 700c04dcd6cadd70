/* store.c - a run's folder in the state directory: opening it, replacing a file, adding to one. */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/run.h"
#include "daemon/store.h"

int fz_store_open(const fz_run *run, bool make) {
  const int top = open(run->core->state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  int fd, r = 0;

  if (top < 0)
    return -errno;
  if (make && mkdirat(top, run->key, 0700) == 0)
    r = fsync(top);
  else if (make && errno != EEXIST)
    r = -1;
  fd = r < 0 ? -1 : openat(top, run->key, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
  r = fd < 0 ? -errno : fd;
  close(top);
  return r;
}

static int write_all(int fd, const char *text, size_t length) {
  while (length) {
    const ssize_t n = write(fd, text, length);
    if (n < 0 && errno == EINTR)
      continue;
    if (n <= 0)
      return n < 0 ? -errno : -EIO;
    text += n;
    length -= (size_t)n;
  }
  return 0;
}

int fz_store_replace(int folder, const char *name, const char *text, size_t length) {
  char other[64];

  snprintf(other, sizeof(other), "%s.new", name);
  /* What a freezerd that was killed left there, or anything else, is not written through. */
  (void)unlinkat(folder, other, 0);
  const int fd = openat(folder, other, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd < 0)
    return -errno;
  int r = write_all(fd, text, length);
  if (r == 0 && fsync(fd) < 0)
    r = -errno;
  if (close(fd) < 0 && r == 0)
    r = -errno;
  if (r == 0 && renameat(folder, other, folder, name) < 0)
    r = -errno;
  if (r < 0) {
    (void)unlinkat(folder, other, 0);
    return r;
  }
  return fsync(folder) < 0 ? -errno : 0;
}

/* -------------------------------------------------------------------------------------------------------------- adding */

/** How much of the file are whole lines. */
static int whole_lines(int fd, off_t size, off_t *ret_size) {
  char bytes[4096];

  while (size > 0) {
    const off_t from = size > (off_t)sizeof(bytes) ? size - (off_t)sizeof(bytes) : 0;
    const ssize_t n = pread(fd, bytes, (size_t)(size - from), from);
    if (n != size - from)
      return n < 0 ? -errno : -EIO;
    const char *newline = memrchr(bytes, '\n', (size_t)n);
    if (newline) {
      *ret_size = from + (newline - bytes) + 1;
      return 0;
    }
    size = from;
  }
  *ret_size = 0;
  return 0;
}

/** One that failed here before may have left half a line. */
static int measure(int fd, off_t *ret_size) {
  struct stat status;
  char last;

  if (fstat(fd, &status) < 0)
    return -errno;
  /* What somebody planted there is not written through. */
  if (!S_ISREG(status.st_mode) || status.st_nlink != 1 || status.st_uid != geteuid())
    return -EPERM;
  *ret_size = status.st_size;
  if (status.st_size == 0 || (pread(fd, &last, 1, status.st_size - 1) == 1 && last == '\n'))
    return 0;
  const int r = whole_lines(fd, status.st_size, ret_size);
  if (r < 0)
    return r;
  return ftruncate(fd, *ret_size) < 0 ? -errno : 0;
}

static int add(int fd, int folder, off_t size, const char *line, size_t length, bool sync) {
  ssize_t n;

  do
    n = write(fd, line, length);
  while (n < 0 && errno == EINTR);
  if (n < 0)
    return -errno;
  if ((size_t)n < length)
    return -ENOSPC;
  if (!sync)
    return 0;
  if (fdatasync(fd) < 0)
    return -errno;
  /* The first line of a new file: its name must last as well. */
  return size == 0 && fsync(folder) < 0 ? -errno : 0;
}

int fz_store_append(int folder, const char *name, const char *line, size_t length, bool sync, off_t *ret_size) {
  const int fd = openat(folder, name, O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
  off_t size = 0;

  if (fd < 0)
    return -errno;
  int r = measure(fd, &size);
  if (r == 0) {
    r = add(fd, folder, size, line, length, sync);
    if (r < 0 && ftruncate(fd, size) < 0)
      r = -EIO;
    if (r == 0)
      *ret_size = size + (off_t)length;
  }
  close(fd);
  return r;
}

/* ------------------------------------------------------------------------------------------------------------- reading */

int fz_store_read(int folder, const char *name, size_t max, char **ret_text, size_t *ret_length) {
  const int fd = openat(folder, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  struct stat status;
  size_t length = 0;
  char *text = NULL;
  ssize_t n = 1;
  int r;

  if (fd < 0)
    return -errno;
  r = fstat(fd, &status) < 0 ? -errno : !S_ISREG(status.st_mode) ? -EINVAL : 0;
  if (r == 0 && (uint64_t)status.st_size > max)
    r = -EFBIG;
  if (r == 0) {
    text = malloc((size_t)status.st_size + 1);
    r = text ? 0 : -ENOMEM;
  }
  while (r == 0 && n != 0 && length < (size_t)status.st_size) {
    n = read(fd, text + length, (size_t)status.st_size - length);
    if (n > 0)
      length += (size_t)n;
    else if (n < 0 && errno != EINTR)
      r = -errno;
  }
  close(fd);
  if (r < 0) {
    free(text);
    return r;
  }
  text[length] = '\0';
  *ret_text = text;
  *ret_length = length;
  return 0;
}

int fz_store_cut(int folder, const char *name, size_t length) {
  const int fd = openat(folder, name, O_WRONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);

  if (fd < 0)
    return -errno;
  const int r = ftruncate(fd, (off_t)length) < 0 || fsync(fd) < 0 ? -errno : 0;
  close(fd);
  return r;
}
