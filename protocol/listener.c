/* listener.c - freezerd's listening socket: bound safely, one daemon per path, removed only by its owner. */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "protocol/folders.h"
#include "protocol/listener.h"

#define FIRST_PASSED_FD 3 /* systemd's SD_LISTEN_FDS_START */

/* Where a reason goes. */
struct reason {
  char *text;
  size_t size;
};

static int fail(const struct reason *reason, int r, const char *format, ...) __attribute__((format(printf, 3, 4)));

static int fail(const struct reason *reason, int r, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  (void)vsnprintf(reason->text, reason->size, format, arguments);
  va_end(arguments);
  return r;
}

/* --- the path --- */

static int set_path(fz_listener *listener, enum fz_socket_place place, const char *path, const struct reason *reason) {
  const size_t length = strlen(path);
  if (length == 0 || length > FZ_SOCKET_PATH_MAX)
    return fail(reason, length == 0 ? -EINVAL : -ENAMETOOLONG,
                "the socket's path has %zu bytes, 1 to %u are allowed: %s", length, FZ_SOCKET_PATH_MAX, path);
  listener->place = place;
  memcpy(listener->path, path, length + 1);
  return 0;
}

/* Our own folder, made if need be; its name in `directory`. */
static int set_path_in(fz_listener *listener, enum fz_socket_place place, const char *directory,
                       const struct reason *reason) {
  char path[FZ_SOCKET_DISPLAY_MAX + 1];
  (void)snprintf(path, sizeof(path), "%s/freezerd.sock", directory);
  const int r = set_path(listener, place, path, reason);
  if (r != 0)
    return r;
  return fz_private_directory_make(directory, geteuid(), reason->text, reason->size);
}

/* Where clients look; a runtime directory that is stale, not ours or too long for a socket is left out, as they do. */
static int choose_default_path(fz_listener *listener, const struct reason *reason) {
  char directory[FZ_SOCKET_PATH_MAX + 1];
  const char *runtime = getenv("XDG_RUNTIME_DIR");
  const size_t below = strlen("/freezer/freezerd.sock");
  if (runtime != NULL && *runtime == '/' && strlen(runtime) + below <= FZ_SOCKET_PATH_MAX &&
      fz_private_directory_check(runtime, geteuid(), NULL, 0) == 0) {
    (void)snprintf(directory, sizeof(directory), "%s/freezer", runtime);
    return set_path_in(listener, FZ_SOCKET_XDG, directory, reason);
  }
  (void)snprintf(directory, sizeof(directory), "/tmp/freezer-%ld", (long)geteuid());
  return set_path_in(listener, FZ_SOCKET_TMP, directory, reason);
}

/* --- a socket from systemd --- */

static bool is_listening_unix_stream(int fd) {
  int domain = 0;
  int type = 0;
  int listening = 0;
  socklen_t length = sizeof(int);
  return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &length) == 0 && domain == AF_UNIX &&
         getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length) == 0 && type == SOCK_STREAM &&
         getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &length) == 0 && listening != 0;
}

/* Whether the environment speaks of sockets for this very process. */
static bool is_activated(void) {
  const char *pid = getenv("LISTEN_PID");
  return pid != NULL && getenv("LISTEN_FDS") != NULL && strtol(pid, NULL, 10) == (long)getpid();
}

static int adopt_passed(fz_listener *listener, const struct reason *reason) {
  const long count = strtol(getenv("LISTEN_FDS"), NULL, 10);
  (void)unsetenv("LISTEN_PID");
  (void)unsetenv("LISTEN_FDS");
  (void)unsetenv("LISTEN_FDNAMES");
  if (count != 1)
    return fail(reason, -EINVAL, "the socket unit handed over %ld sockets, one is needed", count);
  if (!is_listening_unix_stream(FIRST_PASSED_FD))
    return fail(reason, -EINVAL, "the socket unit handed over something else than a listening Unix stream socket");
  if (fcntl(FIRST_PASSED_FD, F_SETFD, FD_CLOEXEC) != 0 || fcntl(FIRST_PASSED_FD, F_SETFL, O_NONBLOCK) != 0)
    return fail(reason, -errno, "the socket that was handed over: %s", strerror(errno));
  struct sockaddr_un address = { 0 };
  socklen_t length = sizeof(address);
  if (getsockname(FIRST_PASSED_FD, (struct sockaddr *)&address, &length) != 0)
    return fail(reason, -errno, "the socket that was handed over: %s", strerror(errno));
  (void)snprintf(listener->path, sizeof(listener->path), "%.*s", (int)FZ_SOCKET_PATH_MAX, address.sun_path);
  listener->place = FZ_SOCKET_ACTIVATED;
  listener->fd = FIRST_PASSED_FD;
  return 0;
}

/* --- the lock --- */

static void lock_name(const fz_listener *listener, char *buffer, size_t size) {
  (void)snprintf(buffer, size, "%s.lock", listener->path);
}

/* Whether the file that is locked is still the one of that name: the holder before us removes it when it ends. */
static bool is_same_file(int fd, const char *name) {
  struct stat locked;
  struct stat named;
  return fstat(fd, &locked) == 0 && lstat(name, &named) == 0 && locked.st_dev == named.st_dev &&
         locked.st_ino == named.st_ino;
}

static int fail_taken(const fz_listener *listener, int lock_fd, const struct reason *reason) {
  char text[24] = "";
  const ssize_t length = pread(lock_fd, text, sizeof(text) - 1, 0);
  const long pid = length > 0 ? strtol(text, NULL, 10) : 0;
  if (pid > 0)
    return fail(reason, FZ_LISTENER_TAKEN, "freezerd runs already on %s (pid %ld)", listener->path, pid);
  return fail(reason, FZ_LISTENER_TAKEN, "freezerd runs already on %s", listener->path);
}

/* One try. @return 0 locked; -ESTALE the file was removed in between: try again; FZ_LISTENER_TAKEN; negative errno */
static int try_lock(fz_listener *listener, const char *name, const struct reason *reason) {
  const int fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, S_IRUSR | S_IWUSR);
  if (fd < 0)
    return fail(reason, -errno, "cannot open %s: %s", name, strerror(errno));
  struct stat found;
  int r = 0;
  if (fstat(fd, &found) != 0)
    r = fail(reason, -errno, "%s: %s", name, strerror(errno));
  else if (!S_ISREG(found.st_mode) || found.st_uid != geteuid())
    r = fail(reason, -EPERM, "%s is not a file of uid %ld", name, (long)geteuid());
  else if (found.st_nlink > 1)
    r = fail(reason, -EPERM, "%s is another name of some file: it would be overwritten", name);
  else if (flock(fd, LOCK_EX | LOCK_NB) != 0)
    r = errno == EWOULDBLOCK ? fail_taken(listener, fd, reason)
                             : fail(reason, -errno, "cannot lock %s: %s", name, strerror(errno));
  else if (!is_same_file(fd, name))
    r = -ESTALE;
  if (r != 0) {
    (void)close(fd);
    return r;
  }
  listener->lock_fd = fd;
  return 0;
}

static int take_lock(fz_listener *listener, const struct reason *reason) {
  enum { TRIES = 100 };
  char name[FZ_SOCKET_PATH_MAX + 8];
  lock_name(listener, name, sizeof(name));
  int r = -ESTALE;
  for (int i = 0; i < TRIES && r == -ESTALE; i++)
    r = try_lock(listener, name, reason);
  if (r == -ESTALE)
    return fail(reason, -EBUSY, "%s is removed again and again", name);
  if (r != 0)
    return r;
  /* The pid is for people: if it cannot be written, the lock holds all the same. */
  if (ftruncate(listener->lock_fd, 0) == 0)
    (void)dprintf(listener->lock_fd, "%ld\n", (long)getpid());
  return 0;
}

/* --- the socket --- */

/* Whether somebody listens on the path: 0 nobody, FZ_LISTENER_TAKEN, or a negative errno. */
static int probe(const char *path, const struct reason *reason) {
  fz_socket_search search;
  fz_socket_search_init(&search, path);
  int fd;
  const int r = fz_socket_connect(&search, 0, &fd);
  if (r == 0)
    (void)close(fd);
  const struct fz_socket_candidate *found = &search.candidates[0];
  if (r < 0)
    return fail(reason, r, "cannot make a socket: %s", strerror(-r));
  if (r == 0 || found->state == FZ_SOCKET_BUSY)
    return fail(reason, FZ_LISTENER_TAKEN, "somebody listens on %s already", path);
  if (found->state == FZ_SOCKET_STALE || found->state == FZ_SOCKET_ABSENT)
    return 0;
  return fail(reason, found->error, "%s: %s", path, found->reason);
}

/* Removes a socket that nobody listens on; nothing else is ever removed. */
static int clear_path(const char *path, const struct reason *reason) {
  struct stat found;
  if (lstat(path, &found) != 0)
    return errno == ENOENT ? 0 : fail(reason, -errno, "%s: %s", path, strerror(errno));
  if (!S_ISSOCK(found.st_mode))
    return fail(reason, -EEXIST, "%s is there and is no socket", path);
  const int r = probe(path, reason);
  if (r != 0)
    return r;
  if (unlink(path) != 0 && errno != ENOENT)
    return fail(reason, -errno, "cannot remove the stale socket %s: %s", path, strerror(errno));
  return 0;
}

static int bind_private(fz_listener *listener) {
  struct sockaddr_un address = { .sun_family = AF_UNIX };
  memcpy(address.sun_path, listener->path, strlen(listener->path) + 1);
  const mode_t before = umask(0177);
  const int r = bind(listener->fd, (const struct sockaddr *)&address, sizeof(address)) == 0 ? 0 : -errno;
  (void)umask(before);
  return r;
}

/* From here on the socket at the path is ours, and closing removes it. */
static int note_identity(fz_listener *listener) {
  struct stat made;
  if (lstat(listener->path, &made) != 0)
    return -errno;
  listener->device = made.st_dev;
  listener->inode = made.st_ino;
  return 0;
}

/* From narrow to wide, so that nobody connects who may not. */
static int open_to_group(const char *path, gid_t group) {
  if (group == FZ_NO_GROUP)
    return 0;
  if (lchown(path, (uid_t)-1, group) != 0 || chmod(path, S_IRUSR | S_IWUSR | S_IRGRP | S_IWGRP) != 0)
    return -errno;
  return 0;
}

static int bind_and_listen(fz_listener *listener, gid_t group, const struct reason *reason) {
  listener->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (listener->fd < 0)
    return fail(reason, -errno, "cannot make a socket: %s", strerror(errno));
  int r = bind_private(listener);
  if (r == 0)
    r = note_identity(listener);
  if (r == 0)
    r = open_to_group(listener->path, group);
  if (r == 0 && listen(listener->fd, SOMAXCONN) != 0)
    r = -errno;
  return r == 0 ? 0 : fail(reason, r, "cannot listen on %s: %s", listener->path, strerror(-r));
}

static int open_at_path(fz_listener *listener, gid_t group, const struct reason *reason) {
  char why[400] = "";
  int r = fz_folder_check_of(listener->path, group != FZ_NO_GROUP, why, sizeof(why));
  if (r != 0)
    return fail(reason, r, "no socket at %s: %s", listener->path, *why ? why : strerror(-r));
  r = take_lock(listener, reason);
  if (r == 0)
    r = clear_path(listener->path, reason);
  return r == 0 ? bind_and_listen(listener, group, reason) : r;
}

int fz_listener_open(fz_listener *ret_listener, const char *path, gid_t group, char *reason, size_t reason_size) {
  const struct reason why = { .text = reason, .size = reason_size };
  fz_listener listener = FZ_LISTENER_NULL;
  const char *environ_path = getenv("FREEZER_SOCKET");
  int r;
  if (path != NULL)
    r = set_path(&listener, FZ_SOCKET_GIVEN, path, &why);
  else if (environ_path != NULL && *environ_path != '\0')
    r = set_path(&listener, FZ_SOCKET_ENVIRON, environ_path, &why);
  else if (is_activated())
    r = adopt_passed(&listener, &why);
  else
    r = choose_default_path(&listener, &why);
  if (r == 0 && listener.place != FZ_SOCKET_ACTIVATED)
    r = open_at_path(&listener, group, &why);
  if (r != 0) {
    fz_listener_close(&listener);
    return r;
  }
  *ret_listener = listener;
  return 0;
}

void fz_listener_close(fz_listener *listener) {
  if (listener->fd >= 0)
    (void)close(listener->fd);
  struct stat found;
  if (listener->inode != 0 && lstat(listener->path, &found) == 0 && found.st_dev == listener->device &&
      found.st_ino == listener->inode)
    (void)unlink(listener->path);
  if (listener->lock_fd >= 0) {
    char name[FZ_SOCKET_PATH_MAX + 8];
    lock_name(listener, name, sizeof(name));
    (void)unlink(name);
    (void)close(listener->lock_fd);
  }
  *listener = (fz_listener)FZ_LISTENER_NULL;
}
