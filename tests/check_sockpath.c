/* check_sockpath.c - where the socket is sought, what is said of each place, and binding against races and strangers. */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "protocol/listener.h"
#include "tests/runner.h"
#include "tests/wire.h"

#define NOBODY 65534

static char reason[600];

/* A path below a new folder of this test's own. */
static const char *new_path(const char *name) {
  static char path[200];
  char folder[100];
  (void)snprintf(folder, sizeof(folder), "%s/dXXXXXX", fz_test_root());
  ck_assert_ptr_nonnull(mkdtemp(folder));
  (void)snprintf(path, sizeof(path), "%s/%s", folder, name);
  return path;
}

static void no_environment(void) {
  (void)unsetenv("FREEZER_SOCKET");
  (void)unsetenv("XDG_RUNTIME_DIR");
  (void)unsetenv("LISTEN_PID");
  (void)unsetenv("LISTEN_FDS");
}

static int try_open(fz_listener *listener, const char *path) {
  reason[0] = '\0';
  return fz_listener_open(listener, path, FZ_NO_GROUP, reason, sizeof(reason));
}

static void must_open(fz_listener *listener, const char *path) {
  const int r = try_open(listener, path);
  ck_assert_msg(r == 0, "%d: %s", r, reason);
}

static int connect_to(const char *path, unsigned timeout_ms, struct fz_socket_candidate *ret_candidate) {
  fz_socket_search search;
  fz_socket_search_init(&search, path);
  ck_assert_uint_eq(search.count, 1);
  int fd = -1;
  const int r = fz_socket_connect(&search, timeout_ms, &fd);
  *ret_candidate = search.candidates[0];
  ck_assert_int_eq(r, fd >= 0 ? 0 : FZ_SOCKET_NONE);
  ck_assert_int_eq(search.candidates[0].reason[0] == '\0', r == 0);
  ck_assert_ptr_eq(fz_socket_connected(&search), r == 0 ? &search.candidates[0] : NULL);
  return fd;
}

static void expect_state(const char *path, enum fz_socket_state state, const char *word) {
  struct fz_socket_candidate candidate;
  const int fd = connect_to(path, 0, &candidate);
  ck_assert_msg(candidate.state == state, "%d: %s", (int)candidate.state, candidate.reason);
  ck_assert_msg(strstr(candidate.reason, word) != NULL, "'%s' does not say '%s'", candidate.reason, word);
  if (fd >= 0)
    (void)close(fd);
}

static mode_t mode_of(const char *path) {
  struct stat found;
  return lstat(path, &found) == 0 ? found.st_mode : 0;
}

/* A socket file, listening or not, made by hand. */
static int bind_by_hand(const char *path, int backlog) {
  struct sockaddr_un address = { .sun_family = AF_UNIX };
  (void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  ck_assert_int_eq(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
  if (backlog >= 0)
    ck_assert_int_eq(listen(fd, backlog), 0);
  return fd;
}

/* --- the search --- */

START_TEST(lists_the_places)
{
  no_environment();
  char tmp[64];
  (void)snprintf(tmp, sizeof(tmp), "/tmp/freezer-%ld/freezerd.sock", (long)geteuid());
  fz_socket_search search;
  fz_socket_search_init(&search, NULL);
  ck_assert_uint_eq(search.count, 2);
  ck_assert_int_eq(search.candidates[0].place, FZ_SOCKET_TMP);
  ck_assert_str_eq(search.candidates[0].path, tmp);
  ck_assert_int_eq(search.candidates[1].place, FZ_SOCKET_SYSTEM);
  ck_assert_str_eq(search.candidates[1].path, "/run/freezer/freezerd.sock");

  (void)setenv("XDG_RUNTIME_DIR", "/run/user/1000", 1);
  (void)setenv("FREEZER_SOCKET", "", 1);
  fz_socket_search_init(&search, NULL);
  ck_assert_uint_eq(search.count, 3);
  ck_assert_int_eq(search.candidates[0].place, FZ_SOCKET_XDG);
  ck_assert_str_eq(search.candidates[0].path, "/run/user/1000/freezer/freezerd.sock");
  ck_assert_uint_eq(search.candidates[0].length, strlen(search.candidates[0].path));
  ck_assert_int_eq(search.candidates[1].place, FZ_SOCKET_TMP);

  (void)setenv("XDG_RUNTIME_DIR", "relative", 1);
  fz_socket_search_init(&search, NULL);
  ck_assert_uint_eq(search.count, 2);

  (void)setenv("FREEZER_SOCKET", "/from/environment", 1);
  fz_socket_search_init(&search, NULL);
  ck_assert_uint_eq(search.count, 1);
  ck_assert_int_eq(search.candidates[0].place, FZ_SOCKET_ENVIRON);
  ck_assert_str_eq(search.candidates[0].path, "/from/environment");

  fz_socket_search_init(&search, "/given");
  ck_assert_uint_eq(search.count, 1);
  ck_assert_int_eq(search.candidates[0].place, FZ_SOCKET_GIVEN);
  ck_assert_str_eq(search.candidates[0].path, "/given");
}
END_TEST

START_TEST(says_what_is_wrong)
{
  const char *path = new_path("s");
  expect_state(path, FZ_SOCKET_ABSENT, "no such socket");
  expect_state("", FZ_SOCKET_ABSENT, "no such socket");
  expect_state("/nowhere/at/all", FZ_SOCKET_ABSENT, "no such socket");
  expect_state("/etc/passwd/s", FZ_SOCKET_ABSENT, "no such socket");

  const int bound = bind_by_hand(path, -1);
  expect_state(path, FZ_SOCKET_STALE, "nobody listens");
  (void)close(bound);
  expect_state(path, FZ_SOCKET_STALE, "nobody listens");

  path = new_path("file");
  (void)close(open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
  expect_state(path, FZ_SOCKET_FAILED, "something else than a socket");
}
END_TEST

START_TEST(counts_the_bytes_of_a_path)
{
  fz_listener listener = FZ_LISTENER_NULL;
  char path[400];
  for (size_t length = FZ_SOCKET_PATH_MAX - 1; length <= FZ_SOCKET_PATH_MAX + 1; length++) {
    const int head = snprintf(path, sizeof(path), "%s", new_path(""));
    memset(path + head, 's', length - (size_t)head);
    path[length] = '\0';
    const int r = try_open(&listener, path);
    if (length <= FZ_SOCKET_PATH_MAX) {
      ck_assert_msg(r == 0, "%s", reason);
      expect_state(path, FZ_SOCKET_CONNECTED, "");
      fz_listener_close(&listener);
      ck_assert_uint_eq(mode_of(path), 0);
    } else {
      ck_assert_int_eq(r, -ENAMETOOLONG);
      ck_assert_ptr_nonnull(strstr(reason, "108 bytes"));
      ck_assert_ptr_nonnull(strstr(reason, "107"));
      expect_state(path, FZ_SOCKET_TOO_LONG, "108 bytes");
      expect_state(path, FZ_SOCKET_TOO_LONG, "107");
    }
  }
  memset(path, 's', sizeof(path) - 1);
  path[0] = '/';
  path[sizeof(path) - 1] = '\0';
  expect_state(path, FZ_SOCKET_TOO_LONG, "399 bytes");
  ck_assert_int_eq(try_open(&listener, ""), -EINVAL);
}
END_TEST

static uint64_t now_ms(void) {
  struct timespec now;
  (void)clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

START_TEST(waits_for_a_full_backlog_only_as_told)
{
  const char *path = new_path("s");
  const int listening = bind_by_hand(path, 0);
  struct fz_socket_candidate candidate;
  const int first = connect_to(path, 0, &candidate);
  ck_assert_int_ge(first, 0);
  ck_assert_int_ne(fcntl(first, F_GETFL) & O_NONBLOCK, 0);
  ck_assert_int_ne(fcntl(first, F_GETFD) & FD_CLOEXEC, 0);
  const uint64_t start = now_ms();
  ck_assert_int_eq(connect_to(path, 0, &candidate), -1);
  ck_assert_int_eq(candidate.state, FZ_SOCKET_BUSY);
  ck_assert_int_eq(connect_to(path, 150, &candidate), -1);
  ck_assert_int_eq(candidate.state, FZ_SOCKET_BUSY);
  ck_assert_uint_ge(now_ms() - start, 140);

  if (fork() == 0) {
    (void)usleep(50000);
    (void)accept(listening, NULL, NULL);
    (void)pause();
  }
  const int second = connect_to(path, 3000, &candidate);
  ck_assert_int_ge(second, 0);
  ck_assert_int_ne(fcntl(second, F_GETFL) & O_NONBLOCK, 0);
}
END_TEST

START_TEST(tries_the_places_in_turn)
{
  no_environment();
  char runtime[100];
  (void)snprintf(runtime, sizeof(runtime), "%s", new_path("run"));
  (void)setenv("XDG_RUNTIME_DIR", runtime, 1);
  fz_socket_search search;
  int fd = -1;
  fz_socket_search_init(&search, NULL);
  (void)fz_socket_connect(&search, 0, &fd);
  ck_assert_int_eq(search.candidates[0].state, FZ_SOCKET_NO_DIRECTORY);
  ck_assert_str_eq(search.candidates[0].reason, "no such directory (XDG_RUNTIME_DIR is stale)");
  ck_assert_int_ne(search.candidates[1].state, FZ_SOCKET_UNTRIED);

  ck_assert_int_eq(mkdir(runtime, 0700), 0);
  fz_socket_search_init(&search, NULL);
  (void)fz_socket_connect(&search, 0, &fd);
  ck_assert_int_eq(search.candidates[0].state, FZ_SOCKET_ABSENT);

  fz_listener listener = FZ_LISTENER_NULL;
  must_open(&listener, NULL);
  ck_assert_int_eq(listener.place, FZ_SOCKET_XDG);
  fz_socket_search_init(&search, NULL);
  ck_assert_int_eq(fz_socket_connect(&search, 0, &fd), 0);
  ck_assert_int_eq(search.candidates[0].state, FZ_SOCKET_CONNECTED);
  ck_assert_int_eq(search.candidates[1].state, FZ_SOCKET_UNTRIED);
  ck_assert_str_eq(fz_socket_connected(&search)->path, listener.path);

  /* A runtime directory that others can enter is not to be trusted, whoever listens in it. */
  ck_assert_int_eq(chmod(runtime, 0711), 0);
  fz_socket_search_init(&search, NULL);
  (void)fz_socket_connect(&search, 0, &fd);
  ck_assert_int_eq(search.candidates[0].state, FZ_SOCKET_UNSAFE);
  ck_assert_ptr_nonnull(strstr(search.candidates[0].reason, "0711"));
  ck_assert_int_eq(chmod(runtime, 0700), 0);
  fz_listener_close(&listener);
}
END_TEST

/* --- directories --- */

START_TEST(trusts_private_directories_only)
{
  char path[120];
  (void)snprintf(path, sizeof(path), "%s", new_path("d"));
  const uid_t uid = geteuid();
  ck_assert_int_eq(fz_private_directory_check(path, uid, reason, sizeof(reason)), -ENOENT);
  (void)umask(0);
  ck_assert_int_eq(fz_private_directory_make(path, uid, reason, sizeof(reason)), 0);
  ck_assert_uint_eq(mode_of(path) & 07777, 0700);
  ck_assert_int_eq(fz_private_directory_make(path, uid, NULL, 0), 0);
  ck_assert_int_eq(fz_private_directory_check(path, uid + 1, reason, sizeof(reason)), -EPERM);
  ck_assert_ptr_nonnull(strstr(reason, "belongs to uid"));
  static const mode_t open_modes[] = { 0701, 0710, 0720, 0740, 0702, 0777, 01777 };
  for (size_t i = 0; i < sizeof(open_modes) / sizeof(open_modes[0]); i++) {
    ck_assert_int_eq(chmod(path, open_modes[i]), 0);
    ck_assert_int_eq(fz_private_directory_make(path, uid, reason, sizeof(reason)), -EPERM);
    ck_assert_uint_eq(mode_of(path) & 07777, open_modes[i]);
  }
  ck_assert_int_eq(chmod(path, 0700), 0);

  char link[130];
  (void)snprintf(link, sizeof(link), "%s-link", path);
  ck_assert_int_eq(symlink(path, link), 0);
  ck_assert_int_eq(fz_private_directory_make(link, uid, reason, sizeof(reason)), -ENOTDIR);
  ck_assert_int_eq(fz_private_directory_make("/nowhere/at/all", uid, reason, sizeof(reason)), -ENOENT);
}
END_TEST

START_TEST(makes_its_folder_or_refuses)
{
  no_environment();
  char runtime[100];
  (void)snprintf(runtime, sizeof(runtime), "%s", new_path("run"));
  ck_assert_int_eq(mkdir(runtime, 0700), 0);
  (void)setenv("XDG_RUNTIME_DIR", runtime, 1);
  char folder[120];
  (void)snprintf(folder, sizeof(folder), "%s/freezer", runtime);

  fz_listener listener = FZ_LISTENER_NULL;
  (void)umask(0);
  must_open(&listener, NULL);
  ck_assert_uint_eq(mode_of(folder) & 07777, 0700);
  ck_assert_int_eq(strncmp(listener.path, folder, strlen(folder)), 0);
  fz_listener_close(&listener);

  ck_assert_int_eq(chmod(folder, 0770), 0);
  ck_assert_int_eq(try_open(&listener, NULL), -EPERM);
  ck_assert_ptr_nonnull(strstr(reason, folder));
  ck_assert_int_eq(rmdir(folder), 0);
  ck_assert_int_eq(symlink("/tmp", folder), 0);
  ck_assert_int_eq(try_open(&listener, NULL), -ENOTDIR);
  ck_assert_int_eq(listener.fd, -1);
}
END_TEST

/* --- the listener --- */

START_TEST(opens_and_closes)
{
  const char *path = new_path("s");
  char lock[220];
  (void)snprintf(lock, sizeof(lock), "%s.lock", path);
  fz_listener first = FZ_LISTENER_NULL;
  fz_listener second = FZ_LISTENER_NULL;
  (void)umask(0);
  for (int i = 0; i < 3; i++) {
    must_open(&first, path);
    ck_assert_uint_eq(umask(0), 0);
    ck_assert_uint_eq(mode_of(path) & 07777, 0600);
    ck_assert_uint_eq(mode_of(lock) & 07777, 0600);
    ck_assert_int_ne(fcntl(first.fd, F_GETFL) & O_NONBLOCK, 0);
    ck_assert_int_ne(fcntl(first.fd, F_GETFD) & FD_CLOEXEC, 0);
    ck_assert_int_ne(fcntl(first.lock_fd, F_GETFD) & FD_CLOEXEC, 0);
    expect_state(path, FZ_SOCKET_CONNECTED, "");

    ck_assert_int_eq(try_open(&second, path), FZ_LISTENER_TAKEN);
    char pid[40];
    (void)snprintf(pid, sizeof(pid), "(pid %ld)", (long)getpid());
    ck_assert_msg(strstr(reason, pid) != NULL, "%s", reason);
    fz_listener_close(&second);
    expect_state(path, FZ_SOCKET_CONNECTED, "");

    fz_listener_close(&first);
    fz_listener_close(&first);
    ck_assert_uint_eq(mode_of(path), 0);
    ck_assert_uint_eq(mode_of(lock), 0);
  }
}
END_TEST

START_TEST(takes_over_what_a_dead_daemon_left)
{
  const char *path = new_path("s");
  fz_listener listener = FZ_LISTENER_NULL;
  const pid_t child = fork();
  if (child == 0) {
    must_open(&listener, path);
    (void)raise(SIGKILL);
  }
  ck_assert_int_eq(waitpid(child, NULL, 0), child);
  ck_assert(S_ISSOCK(mode_of(path)));
  char gone[60];
  (void)snprintf(gone, sizeof(gone), "stale socket of pid %ld (gone)", (long)child);
  expect_state(path, FZ_SOCKET_STALE, gone);
  must_open(&listener, path);
  expect_state(path, FZ_SOCKET_CONNECTED, "");
  fz_listener_close(&listener);
}
END_TEST

START_TEST(leaves_alone_what_is_not_its_own)
{
  fz_listener listener = FZ_LISTENER_NULL;
  char path[220];
  (void)snprintf(path, sizeof(path), "%s", new_path("s"));

  /* Somebody listens there without our lock. */
  const int other = bind_by_hand(path, 5);
  ck_assert_int_eq(try_open(&listener, path), FZ_LISTENER_TAKEN);
  expect_state(path, FZ_SOCKET_CONNECTED, "");
  (void)close(other);
  must_open(&listener, path);

  /* The path became another's while it was ours. */
  ck_assert_int_eq(unlink(path), 0);
  const int newer = bind_by_hand(path, 5);
  fz_listener_close(&listener);
  expect_state(path, FZ_SOCKET_CONNECTED, "");
  (void)close(newer);

  /* No socket at all. */
  (void)snprintf(path, sizeof(path), "%s", new_path("file"));
  (void)close(open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0644));
  ck_assert_int_eq(try_open(&listener, path), -EEXIST);
  ck_assert(S_ISREG(mode_of(path)));
  (void)snprintf(path, sizeof(path), "%s", new_path("link"));
  ck_assert_int_eq(symlink("/nowhere", path), 0);
  ck_assert_int_eq(try_open(&listener, path), -EEXIST);
  ck_assert(S_ISLNK(mode_of(path)));
  (void)snprintf(path, sizeof(path), "%s", new_path("folder"));
  ck_assert_int_eq(mkdir(path, 0700), 0);
  ck_assert_int_eq(try_open(&listener, path), -EEXIST);
  ck_assert_int_eq(try_open(&listener, "/nowhere/at/all"), -ENOENT);
  ck_assert_ptr_nonnull(strstr(reason, "/nowhere/at/all"));
}
END_TEST

START_TEST(is_not_led_astray_by_a_lock_file)
{
  fz_listener listener = FZ_LISTENER_NULL;
  char path[200];
  char lock[220];
  (void)snprintf(path, sizeof(path), "%s", new_path("s"));
  (void)snprintf(lock, sizeof(lock), "%s.lock", path);
  char victim[240];
  (void)snprintf(victim, sizeof(victim), "%s.victim", path);
  const int fd = open(victim, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
  ck_assert_int_eq(write(fd, "precious", 8), 8);
  (void)close(fd);
  ck_assert_int_eq(symlink(victim, lock), 0);
  ck_assert_int_eq(try_open(&listener, path), -ELOOP);
  struct stat found;
  ck_assert_int_eq(stat(victim, &found), 0);
  ck_assert_int_eq(found.st_size, 8);
  ck_assert_int_eq(unlink(lock), 0);
  ck_assert_int_eq(mkfifo(lock, 0600), 0);
  ck_assert_int_lt(try_open(&listener, path), 0);
  ck_assert_int_eq(unlink(lock), 0);
  if (geteuid() == 0) {
    (void)close(open(lock, O_CREAT | O_WRONLY | O_CLOEXEC, 0666));
    ck_assert_int_eq(chown(lock, NOBODY, NOBODY), 0);
    ck_assert_int_eq(try_open(&listener, path), -EPERM);
  }
}
END_TEST

/* --- races --- */

int __real_flock(int fd, int operation);
int __wrap_flock(int fd, int operation);

/* What happens between opening the lock file and locking it: its holder ends and removes it, so many times. */
static unsigned removals;
static char removed[220];

int __wrap_flock(int fd, int operation) {
  if (removals > 0) {
    removals--;
    (void)unlink(removed);
  }
  return __real_flock(fd, operation);
}

START_TEST(locks_the_file_that_others_see)
{
  const char *path = new_path("s");
  (void)snprintf(removed, sizeof(removed), "%s.lock", path);
  fz_listener listener = FZ_LISTENER_NULL;
  removals = 5;
  must_open(&listener, path);
  ck_assert_uint_eq(removals, 0);
  struct stat locked;
  struct stat named;
  ck_assert_int_eq(fstat(listener.lock_fd, &locked), 0);
  ck_assert_int_eq(stat(removed, &named), 0);
  ck_assert_uint_eq(locked.st_ino, named.st_ino);
  fz_listener_close(&listener);
  removals = 1000000;
  ck_assert_int_eq(try_open(&listener, path), -EBUSY);
}
END_TEST

/* What all processes of a race see. */
struct race {
  atomic_uint holders;
  atomic_uint wins;
  atomic_uint faults;
};

static struct race *new_race(void) {
  struct race *race = mmap(NULL, sizeof(*race), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  ck_assert_ptr_ne(race, MAP_FAILED);
  return race;
}

/* Opens and ends again and again, sometimes as kill -9 would: then what it held is left behind. */
static void compete(struct race *race, const char *path, bool crash, uint64_t state) {
  for (int i = 0; i < 40; i++) {
    fz_listener listener = FZ_LISTENER_NULL;
    const int r = try_open(&listener, path);
    if (r != 0) {
      race->faults += r != FZ_LISTENER_TAKEN;
      (void)usleep(wire_random(&state) % 500);
      continue;
    }
    race->faults += atomic_fetch_add(&race->holders, 1) != 0;
    race->faults += (mode_of(path) & 0777) != 0600;
    fz_socket_search search;
    fz_socket_search_init(&search, path);
    int fd = -1;
    race->faults += fz_socket_connect(&search, 0, &fd) != 0;
    (void)close(fd);
    (void)usleep(wire_random(&state) % 300);
    race->wins++;
    race->holders--;
    if (crash && i == 20)
      _exit(0); /* the kernel drops the lock, the files stay */
    fz_listener_close(&listener);
  }
  _exit(0);
}

START_TEST(lets_one_of_many_win)
{
  enum { PROCESSES = 8 };
  struct race *race = new_race();
  const char *path = new_path("s");
  pid_t pids[PROCESSES];
  for (int i = 0; i < PROCESSES; i++) {
    pids[i] = fork();
    if (pids[i] == 0)
      compete(race, path, i % 2 == 1, 77 + (uint64_t)i);
  }
  for (int i = 0; i < PROCESSES; i++) {
    int status = 1;
    ck_assert_int_eq(waitpid(pids[i], &status, 0), pids[i]);
    ck_assert_int_eq(status, 0);
  }
  ck_assert_uint_eq(race->faults, 0);
  ck_assert_uint_eq(race->holders, 0);
  ck_assert_uint_ge(race->wins, PROCESSES);
  fz_listener listener = FZ_LISTENER_NULL;
  must_open(&listener, path);
  fz_listener_close(&listener);
}
END_TEST

/* Whoever looks at any moment sees no socket that is open to others, even where the umask would allow it. */
START_TEST(is_never_open_to_others)
{
  struct race *race = new_race();
  const char *path = new_path("s");
  (void)umask(0);
  const pid_t watcher = fork();
  if (watcher == 0) {
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (;;) {
      const mode_t mode = mode_of(path);
      race->faults += mode != 0 && (mode & 0777) != 0600;
      race->wins += mode != 0;
    }
  }
  for (int i = 0; i < 300 || (race->wins < 50 && i < 100000); i++) {
    fz_listener listener = FZ_LISTENER_NULL;
    must_open(&listener, path);
    fz_listener_close(&listener);
  }
  (void)kill(watcher, SIGKILL);
  (void)waitpid(watcher, NULL, 0);
  ck_assert_uint_gt(race->wins, 0);
  ck_assert_uint_eq(race->faults, 0);
}
END_TEST

/* --- socket activation --- */

/* Runs as the child that systemd would have started. @return what fz_listener_open() said, in the exit status */
static int run_activated(const char *fds, bool right_pid, int passed, const char *path) {
  const pid_t child = fork();
  if (child == 0) {
    if (passed != 3 && dup2(passed, 3) != 3)
      _exit(99);
    char pid[24];
    (void)snprintf(pid, sizeof(pid), "%ld", (long)getpid() + !right_pid);
    (void)setenv("LISTEN_PID", pid, 1);
    (void)setenv("LISTEN_FDS", fds, 1);
    fz_listener listener = FZ_LISTENER_NULL;
    const int r = try_open(&listener, NULL);
    if (r == 0 && right_pid) {
      const bool good = listener.place == FZ_SOCKET_ACTIVATED && listener.fd == 3 && strcmp(listener.path, path) == 0 &&
                        (fcntl(3, F_GETFD) & FD_CLOEXEC) != 0 && (fcntl(3, F_GETFL) & O_NONBLOCK) != 0 &&
                        getenv("LISTEN_PID") == NULL && getenv("LISTEN_FDS") == NULL;
      fz_listener_close(&listener);
      _exit(good && S_ISSOCK(mode_of(path)) ? 0 : 98);
    }
    if (r == 0 && listener.place == FZ_SOCKET_XDG) {
      fz_listener_close(&listener);
      _exit(50);
    }
    _exit(r < 0 ? -r : r);
  }
  int status = 0;
  ck_assert_int_eq(waitpid(child, &status, 0), child);
  ck_assert(WIFEXITED(status));
  return WEXITSTATUS(status);
}

START_TEST(takes_a_socket_from_systemd)
{
  no_environment();
  char path[200];
  (void)snprintf(path, sizeof(path), "%s", new_path("s"));
  char runtime[200];
  (void)snprintf(runtime, sizeof(runtime), "%s", path);
  *strrchr(runtime, '/') = '\0';
  (void)setenv("XDG_RUNTIME_DIR", runtime, 1);
  const int listening = bind_by_hand(path, 5);
  ck_assert_int_eq(run_activated("1", true, listening, path), 0);
  ck_assert_int_eq(run_activated("2", true, listening, path), EINVAL);
  ck_assert_int_eq(run_activated("0", true, listening, path), EINVAL);
  ck_assert_int_eq(run_activated("1", false, listening, path), 50); /* meant for another process */
  ck_assert_int_eq(run_activated("1", true, socket(AF_UNIX, SOCK_STREAM, 0), path), EINVAL);
  ck_assert_int_eq(run_activated("1", true, socket(AF_UNIX, SOCK_DGRAM, 0), path), EINVAL);
  ck_assert_int_eq(run_activated("1", true, open("/dev/null", O_RDONLY), path), EINVAL);
}
END_TEST

/* --- who may --- */

START_TEST(knows_its_peer)
{
  int pair[2];
  ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
  struct fz_peer peer = { 0 };
  ck_assert_int_eq(fz_peer_get(pair[0], &peer), 0);
  ck_assert_int_eq(peer.pid, getpid());
  ck_assert_uint_eq(peer.uid, geteuid());
  ck_assert_uint_eq(peer.gid, getegid());
  ck_assert(fz_peer_is_allowed(pair[0], &peer, FZ_NO_GROUP));
  peer.uid = 0;
  ck_assert(fz_peer_is_allowed(pair[0], &peer, FZ_NO_GROUP));
  peer.uid = geteuid() + 1;
  ck_assert(!fz_peer_is_allowed(pair[0], &peer, FZ_NO_GROUP));
  ck_assert(fz_peer_is_allowed(pair[0], &peer, peer.gid));
  ck_assert(!fz_peer_is_allowed(pair[0], &peer, peer.gid + 12345));
  ck_assert_int_lt(fz_peer_get(STDIN_FILENO, &peer), 0);
  if (geteuid() != 0)
    return;
  ck_assert_int_eq(seteuid(NOBODY), 0);
  peer.uid = 0;
  ck_assert(fz_peer_is_allowed(pair[0], &peer, FZ_NO_GROUP));
  peer.uid = NOBODY - 1;
  ck_assert(!fz_peer_is_allowed(pair[0], &peer, FZ_NO_GROUP));
  ck_assert_int_eq(seteuid(0), 0);
}
END_TEST

/* A stranger connects, with `group` among its groups or not. Exit status: the state of the one place that it tried. */
static pid_t start_stranger(const char *path, gid_t group, bool member) {
  const pid_t child = fork();
  if (child != 0)
    return child;
  if (setgroups(member ? 1 : 0, &group) != 0 || setgid(NOBODY) != 0 || setuid(NOBODY) != 0)
    _exit(99);
  fz_socket_search search;
  fz_socket_search_init(&search, path);
  int fd;
  (void)fz_socket_connect(&search, 0, &fd);
  (void)usleep(200000);
  _exit((int)search.candidates[0].state);
}

static int end_of(pid_t child) {
  int status = 0;
  ck_assert_int_eq(waitpid(child, &status, 0), child);
  ck_assert(WIFEXITED(status));
  return WEXITSTATUS(status);
}

START_TEST(lets_a_group_in)
{
  enum { GROUP = 54321 };
  if (geteuid() != 0)
    return; /* only root can be somebody else */
  const char *path = new_path("s");
  char folder[200];
  (void)snprintf(folder, sizeof(folder), "%s", path);
  *strrchr(folder, '/') = '\0';
  ck_assert_int_eq(chmod(fz_test_root(), 0711), 0);
  ck_assert_int_eq(chmod(folder, 0711), 0);

  fz_listener listener = FZ_LISTENER_NULL;
  must_open(&listener, path);
  ck_assert_int_eq(end_of(start_stranger(path, GROUP, true)), FZ_SOCKET_DENIED);
  fz_listener_close(&listener);

  ck_assert_int_eq(fz_listener_open(&listener, path, GROUP, reason, sizeof(reason)), 0);
  ck_assert_uint_eq(mode_of(path) & 07777, 0660);
  ck_assert_int_eq(end_of(start_stranger(path, GROUP, false)), FZ_SOCKET_DENIED);
  const pid_t member = start_stranger(path, GROUP, true);
  int fd = -1;
  for (int i = 0; i < 100 && fd < 0; i++) {
    (void)usleep(5000);
    fd = accept(listener.fd, NULL, NULL);
  }
  struct fz_peer peer;
  ck_assert_int_eq(fz_peer_get(fd, &peer), 0);
  ck_assert_uint_eq(peer.uid, NOBODY);
  ck_assert_uint_ne(peer.gid, GROUP);
  ck_assert(fz_peer_is_allowed(fd, &peer, GROUP));
  ck_assert(!fz_peer_is_allowed(fd, &peer, GROUP + 1));
  ck_assert(!fz_peer_is_allowed(fd, &peer, FZ_NO_GROUP));
  ck_assert_int_eq(end_of(member), FZ_SOCKET_CONNECTED);
  fz_listener_close(&listener);
}
END_TEST

Suite *fz_suite(void) {
  Suite *suite = suite_create("sockpath");
  TCase *search = tcase_create("search");
  tcase_add_test(search, lists_the_places);
  tcase_add_test(search, says_what_is_wrong);
  tcase_add_test(search, counts_the_bytes_of_a_path);
  tcase_add_test(search, waits_for_a_full_backlog_only_as_told);
  tcase_add_test(search, tries_the_places_in_turn);
  tcase_add_test(search, trusts_private_directories_only);
  suite_add_tcase(suite, search);
  TCase *listener = tcase_create("listener");
  tcase_add_test(listener, makes_its_folder_or_refuses);
  tcase_add_test(listener, opens_and_closes);
  tcase_add_test(listener, takes_over_what_a_dead_daemon_left);
  tcase_add_test(listener, leaves_alone_what_is_not_its_own);
  tcase_add_test(listener, is_not_led_astray_by_a_lock_file);
  tcase_add_test(listener, takes_a_socket_from_systemd);
  suite_add_tcase(suite, listener);
  TCase *races = tcase_create("races");
  tcase_set_timeout(races, 20);
  tcase_add_test(races, locks_the_file_that_others_see);
  tcase_add_test(races, lets_one_of_many_win);
  tcase_add_test(races, is_never_open_to_others);
  suite_add_tcase(suite, races);
  TCase *peers = tcase_create("peers");
  tcase_add_test(peers, knows_its_peer);
  tcase_add_test(peers, lets_a_group_in);
  suite_add_tcase(suite, peers);
  return suite;
}
