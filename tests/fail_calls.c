/* fail_calls.c - preloaded into a program: counts its calls of the C library by kind, and lets chosen ones fail. */
#include "config.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/fail_calls.h"

/*
 * What fails is said in the environment:
 *   FZ_FAIL_KIND    a name of the list below; without one nothing fails
 *   FZ_FAIL_AT      which call of that kind, 1 is the first; FZ_FAIL_TIMES: so many in a row (1)
 *   FZ_FAIL_RATE    instead: one in so many, at random, by FZ_FAIL_SEED, from call FZ_FAIL_AT on
 *   FZ_FAIL_ERRNO   what it fails with, a number. 0: it takes or gives half, where it can
 *   FZ_FAIL_FROM    "main": calls count from main() on. "begin": from fz_fail_begin(), which the program calls
 *   FZ_FAIL_REPORT  a file that `struct report` is kept in, which outlives kill -9
 *
 * Calls count until main() returns. Not seen are those that the C library makes itself, of the memory it asks for apart.
 * Left out are the standard streams, which are the program's and not what is tested, and pipes, which in freezerd are
 * libuv's: it ends the process when its own pipe breaks.
 *
 * A sanitizer has an allocator of its own, which this does not replace: there system calls fail, and no allocation.
 */
#define FOR_EACH_KIND(X) \
  X(malloc) \
  X(open) \
  X(shm_open) \
  X(opendir) \
  X(read) \
  X(write) \
  X(fsync) \
  X(close) \
  X(rename) \
  X(link) \
  X(unlink) \
  X(mkdir) \
  X(stat) \
  X(realpath) \
  X(truncate) \
  X(fallocate) \
  X(mmap) \
  X(fcntl) \
  X(flock) \
  X(socket) \
  X(connect) \
  X(bind) \
  X(listen) \
  X(accept) \
  X(send) \
  X(recv) \
  X(getsockopt)

#define EXPORT __attribute__((visibility("default")))

#define KIND(name) KIND_##name,
enum kind { FOR_EACH_KIND(KIND) N_KINDS };

#define NAME(name) #name,
static const char *const names[] = { FOR_EACH_KIND(NAME) };

/** What the test reads; numbers in the machine's order. */
struct report {
  uint64_t n_kinds;
  uint64_t n_failed; /* calls that were made to fail */
  int64_t live;      /* blocks of memory more than at the beginning when main() returned; INT64_MIN before that */
  char trace[4072];  /* from where the first of them was called: lines of FILE+OFFSET */
  struct {
    char name[16];
    uint64_t calls;
  } kinds[N_KINDS];
};

static struct report own_report, *report = &own_report;
static atomic_bool counts;
static __thread bool inside;
static enum kind fail_kind = N_KINDS;
static uint64_t fail_at, fail_times, fail_rate;
static int fail_errno;
static _Atomic uint64_t n_calls[N_KINDS], n_failed, random_state;
static _Atomic int64_t live;

/** The C library's own function of that name. */
#define REAL(name) \
  static __typeof__(name) *real; \
  if (!real) \
  real = (__typeof__(name) *)find(#name)

static void *find(const char *name) {
  const bool was_inside = inside;
  inside = true;
  void *function = dlsym(RTLD_NEXT, name);
  inside = was_inside;
  return function;
}

/* ------------------------------------------------------------------------------------------------------------ choosing */

static void keep_trace(void) {
  void *frames[32];
  size_t length = 0;

  inside = true;
  const int n = backtrace(frames, (int)(sizeof(frames) / sizeof(*frames)));
  for (int i = 2; i < n; i++) {
    Dl_info info;
    if (!dladdr(frames[i], &info) || !info.dli_fname)
      continue;
    const int written = snprintf(report->trace + length, sizeof(report->trace) - length, "%s+0x%lx\n", info.dli_fname,
                                 (unsigned long)((char *)frames[i] - (char *)info.dli_fbase - 1));
    if (written < 0 || (size_t)written >= sizeof(report->trace) - length)
      break;
    length += (size_t)written;
  }
  inside = false;
}

static uint64_t next_random(void) {
  uint64_t z = atomic_fetch_add(&random_state, UINT64_C(0x9e3779b97f4a7c15));
  z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
  z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
  return z ^ (z >> 31);
}

/** Counts a call; errno is set if it is to fail. */
static bool fails(enum kind kind) {
  if (!atomic_load_explicit(&counts, memory_order_relaxed) || inside)
    return false;
  const uint64_t n = atomic_fetch_add(&n_calls[kind], 1) + 1;
  report->kinds[kind].calls = n;
  if (kind != fail_kind || n < fail_at)
    return false;
  if (fail_rate ? next_random() % fail_rate != 0 : n >= fail_at + fail_times)
    return false;
  report->n_failed = atomic_fetch_add(&n_failed, 1) + 1;
  if (report->n_failed == 1 && report != &own_report)
    keep_trace();
  errno = fail_errno;
  return true;
}

/** As fails(), of a call for a descriptor that may be one of those that are left out. */
static bool fails_on(enum kind kind, int fd) {
  if (!atomic_load_explicit(&counts, memory_order_relaxed) || inside || fd <= STDERR_FILENO)
    return false;
  if (kind == KIND_read || kind == KIND_write) {
    struct stat st;
    inside = true;
    const bool is_file = fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
    inside = false;
    if (!is_file)
      return false;
  }
  return fails(kind);
}

static size_t half(size_t size) { return size > 1 ? size / 2 : size; }

/* ---------------------------------------------------------------------------------------------------------------- life */

static uint64_t number(const char *name, uint64_t otherwise) {
  const char *text = getenv(name);
  return text ? strtoull(text, NULL, 10) : otherwise;
}

static void open_report(const char *path) {
  const int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  void *map = MAP_FAILED;

  if (fd >= 0 && ftruncate(fd, sizeof(*report)) == 0)
    map = mmap(NULL, sizeof(*report), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (fd >= 0)
    close(fd);
  if (map == MAP_FAILED) {
    fprintf(stderr, "%s: %s\n", path, strerror(errno));
    abort();
  }
  report = map;
}

static void read_environment(void) {
  const char *kind = getenv("FZ_FAIL_KIND"), *path = getenv("FZ_FAIL_REPORT");

  if (path)
    open_report(path);
  report->n_kinds = N_KINDS;
  report->live = INT64_MIN;
  for (size_t i = 0; i < N_KINDS; i++) {
    strncpy(report->kinds[i].name, names[i], sizeof(report->kinds[i].name) - 1);
    if (kind && strcmp(kind, names[i]) == 0)
      fail_kind = (enum kind)i;
  }
  fail_at = number("FZ_FAIL_AT", 1);
  fail_times = number("FZ_FAIL_TIMES", 1);
  fail_rate = number("FZ_FAIL_RATE", 0);
  random_state = number("FZ_FAIL_SEED", 0);
  fail_errno = (int)number("FZ_FAIL_ERRNO", ENOMEM);
}

void fz_fail_begin(void) { atomic_store(&counts, true); }

static int (*program)(int argc, char **argv, char **environment);

static int run_program(int argc, char **argv, char **environment) {
  const char *from = getenv("FZ_FAIL_FROM");

  read_environment();
  if (!from || strcmp(from, "begin") != 0)
    fz_fail_begin();
  const int status = program(argc, argv, environment);
  atomic_store(&counts, false);
  report->live = atomic_load(&live);
  return status;
}

typedef int start_main(int (*main)(int, char **, char **), int argc, char **argv, void (*init)(void),
                       void (*fini)(void), void (*rtld_fini)(void), void *stack_end);

__attribute__((visibility("default"))) start_main __libc_start_main;

int __libc_start_main(int (*main)(int, char **, char **), int argc, char **argv, void (*init)(void), void (*fini)(void),
                      void (*rtld_fini)(void), void *stack_end) {
  REAL(__libc_start_main);
  program = main;
  return real(run_program, argc, argv, init, fini, rtld_fini, stack_end);
}

/* -------------------------------------------------------------------------------------------------------------- memory */

/* glibc's own, under names that nobody overrides. */
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *old, size_t size);
void __libc_free(void *memory);

/** What comes and goes inside is not the program's. */
static void *account(void *memory, int blocks) {
  if (atomic_load_explicit(&counts, memory_order_relaxed) && !inside)
    atomic_fetch_add_explicit(&live, blocks, memory_order_relaxed);
  return memory;
}

EXPORT void *malloc(size_t size) { return fails(KIND_malloc) ? NULL : account(__libc_malloc(size), 1); }

EXPORT void *calloc(size_t n, size_t size) { return fails(KIND_malloc) ? NULL : account(__libc_calloc(n, size), 1); }

EXPORT void *realloc(void *old, size_t size) {
  return fails(KIND_malloc) ? NULL : account(__libc_realloc(old, size), (old ? 0 : 1) - (old && !size ? 1 : 0));
}

EXPORT void free(void *memory) {
  if (memory)
    (void)account(NULL, -1);
  __libc_free(memory);
}

/* --------------------------------------------------------------------------------------------------------------- files */

static mode_t mode_of(int flags, va_list arguments) {
  return flags & (O_CREAT | O_TMPFILE) ? va_arg(arguments, mode_t) : 0;
}

EXPORT int open(const char *path, int flags, ...) {
  va_list arguments;

  va_start(arguments, flags);
  const mode_t mode = mode_of(flags, arguments);
  va_end(arguments);
  REAL(open);
  return fails(KIND_open) ? -1 : real(path, flags, mode);
}

EXPORT int openat(int folder, const char *path, int flags, ...) {
  va_list arguments;

  va_start(arguments, flags);
  const mode_t mode = mode_of(flags, arguments);
  va_end(arguments);
  REAL(openat);
  return fails(KIND_open) ? -1 : real(folder, path, flags, mode);
}

EXPORT int shm_open(const char *name, int flags, mode_t mode) {
  REAL(shm_open);
  return fails(KIND_shm_open) ? -1 : real(name, flags, mode);
}

EXPORT DIR *opendir(const char *path) {
  REAL(opendir);
  return fails(KIND_opendir) ? NULL : real(path);
}

EXPORT ssize_t read(int fd, void *data, size_t size) {
  REAL(read);
  if (fails_on(KIND_read, fd)) {
    if (fail_errno)
      return -1;
    size = half(size);
  }
  return real(fd, data, size);
}

EXPORT ssize_t pread(int fd, void *data, size_t size, off_t offset) {
  REAL(pread);
  if (fails_on(KIND_read, fd)) {
    if (fail_errno)
      return -1;
    size = half(size);
  }
  return real(fd, data, size, offset);
}

EXPORT ssize_t write(int fd, const void *data, size_t size) {
  REAL(write);
  if (fails_on(KIND_write, fd)) {
    if (fail_errno)
      return -1;
    size = half(size);
  }
  return real(fd, data, size);
}

EXPORT ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) {
  REAL(pwrite);
  if (fails_on(KIND_write, fd)) {
    if (fail_errno)
      return -1;
    size = half(size);
  }
  return real(fd, data, size, offset);
}

EXPORT int fsync(int fd) {
  REAL(fsync);
  return fails_on(KIND_fsync, fd) ? -1 : real(fd);
}

EXPORT int fdatasync(int fd) {
  REAL(fdatasync);
  return fails_on(KIND_fsync, fd) ? -1 : real(fd);
}

/** Closes it all the same, as Linux does. */
EXPORT int close(int fd) {
  REAL(close);
  const bool failed = fails_on(KIND_close, fd);
  const int error = errno, r = real(fd);
  if (failed)
    errno = error;
  return failed ? -1 : r;
}

EXPORT int rename(const char *from, const char *to) {
  REAL(rename);
  return fails(KIND_rename) ? -1 : real(from, to);
}

EXPORT int renameat(int from_folder, const char *from, int to_folder, const char *to) {
  REAL(renameat);
  return fails(KIND_rename) ? -1 : real(from_folder, from, to_folder, to);
}

EXPORT int linkat(int from_folder, const char *from, int to_folder, const char *to, int flags) {
  REAL(linkat);
  return fails(KIND_link) ? -1 : real(from_folder, from, to_folder, to, flags);
}

EXPORT int unlink(const char *path) {
  REAL(unlink);
  return fails(KIND_unlink) ? -1 : real(path);
}

EXPORT int unlinkat(int folder, const char *path, int flags) {
  REAL(unlinkat);
  return fails(KIND_unlink) ? -1 : real(folder, path, flags);
}

EXPORT int shm_unlink(const char *name) {
  REAL(shm_unlink);
  return fails(KIND_unlink) ? -1 : real(name);
}

EXPORT int mkdir(const char *path, mode_t mode) {
  REAL(mkdir);
  return fails(KIND_mkdir) ? -1 : real(path, mode);
}

EXPORT int mkdirat(int folder, const char *path, mode_t mode) {
  REAL(mkdirat);
  return fails(KIND_mkdir) ? -1 : real(folder, path, mode);
}

EXPORT int fstat(int fd, struct stat *st) {
  REAL(fstat);
  return fails_on(KIND_stat, fd) ? -1 : real(fd, st);
}

EXPORT int stat(const char *path, struct stat *st) {
  REAL(stat);
  return fails(KIND_stat) ? -1 : real(path, st);
}

EXPORT int lstat(const char *path, struct stat *st) {
  REAL(lstat);
  return fails(KIND_stat) ? -1 : real(path, st);
}

EXPORT char *realpath(const char *path, char *resolved) {
  REAL(realpath);
  return fails(KIND_realpath) ? NULL : real(path, resolved);
}

EXPORT int ftruncate(int fd, off_t size) {
  REAL(ftruncate);
  return fails_on(KIND_truncate, fd) ? -1 : real(fd, size);
}

/** Returns its error. */
EXPORT int posix_fallocate(int fd, off_t offset, off_t size) {
  REAL(posix_fallocate);
  return fails_on(KIND_fallocate, fd) ? fail_errno : real(fd, offset, size);
}

EXPORT void *mmap(void *address, size_t size, int protection, int flags, int fd, off_t offset) {
  REAL(mmap);
  return fails(KIND_mmap) ? MAP_FAILED : real(address, size, protection, flags, fd, offset);
}

EXPORT int fcntl(int fd, int command, ...) {
  va_list arguments;

  va_start(arguments, command);
  void *argument = va_arg(arguments, void *);
  va_end(arguments);
  REAL(fcntl);
  /* The others ask, or set, what the kernel has at hand. */
  const bool can_fail = command == F_DUPFD_CLOEXEC || command == F_DUPFD || command == F_SETLK;
  return can_fail && fails_on(KIND_fcntl, fd) ? -1 : real(fd, command, argument);
}

EXPORT int flock(int fd, int operation) {
  REAL(flock);
  return fails_on(KIND_flock, fd) ? -1 : real(fd, operation);
}

/* ------------------------------------------------------------------------------------------------------------- sockets */

EXPORT int socket(int domain, int type, int protocol) {
  REAL(socket);
  return fails(KIND_socket) ? -1 : real(domain, type, protocol);
}

EXPORT int connect(int fd, const struct sockaddr *address, socklen_t size) {
  REAL(connect);
  return fails(KIND_connect) ? -1 : real(fd, address, size);
}

EXPORT int bind(int fd, const struct sockaddr *address, socklen_t size) {
  REAL(bind);
  return fails(KIND_bind) ? -1 : real(fd, address, size);
}

EXPORT int listen(int fd, int backlog) {
  REAL(listen);
  return fails(KIND_listen) ? -1 : real(fd, backlog);
}

/** The connection that was not taken stays in the queue, unless it is said to be gone. */
EXPORT int accept4(int fd, struct sockaddr *address, socklen_t *size, int flags) {
  REAL(accept4);
  if (!fails(KIND_accept))
    return real(fd, address, size, flags);
  if (fail_errno == ECONNABORTED) {
    const int gone = real(fd, NULL, NULL, SOCK_CLOEXEC);
    inside = true;
    if (gone >= 0)
      close(gone);
    inside = false;
    errno = fail_errno;
  }
  return -1;
}

EXPORT ssize_t send(int fd, const void *data, size_t size, int flags) {
  REAL(send);
  if (fails(KIND_send)) {
    if (fail_errno)
      return -1;
    size = half(size);
  }
  return real(fd, data, size, flags);
}

EXPORT ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
  REAL(sendmsg);
  struct msghdr less = *message;
  struct iovec first;
  if (fails(KIND_send)) {
    if (fail_errno)
      return -1;
    first = (struct iovec){ message->msg_iov[0].iov_base, half(message->msg_iov[0].iov_len) };
    less.msg_iov = &first;
    less.msg_iovlen = 1;
  }
  return real(fd, &less, flags);
}

EXPORT ssize_t recvmsg(int fd, struct msghdr *message, int flags) {
  REAL(recvmsg);
  if (!fails(KIND_recv))
    return real(fd, message, flags);
  if (fail_errno)
    return -1;
  struct iovec *const all = message->msg_iov, first = { all[0].iov_base, half(all[0].iov_len) };
  struct msghdr less = *message;
  less.msg_iov = (struct iovec *)(uintptr_t)&first;
  less.msg_iovlen = 1;
  const ssize_t n = real(fd, &less, flags);
  *message = less;
  message->msg_iov = all;
  return n;
}

EXPORT int getsockopt(int fd, int level, int name, void *value, socklen_t *size) {
  REAL(getsockopt);
  return fails(KIND_getsockopt) ? -1 : real(fd, level, name, value, size);
}
