/* sockpath.c - where freezerd's socket is: the places in order, what is wrong with each, and connecting to one. */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "protocol/sockpath.h"

#define SYSTEM_PATH "/run/freezer/freezerd.sock"

/* --- directories --- */

static void say(char *reason, size_t size, const char *format, ...) __attribute__((format(printf, 3, 4)));

static void say(char *reason, size_t size, const char *format, ...) {
  if (reason == NULL)
    return;
  va_list arguments;
  va_start(arguments, format);
  (void)vsnprintf(reason, size, format, arguments);
  va_end(arguments);
}

int fz_private_directory_check(const char *path, uid_t uid, char *reason, size_t reason_size) {
  struct stat found;
  if (lstat(path, &found) != 0) {
    const int r = -errno;
    say(reason, reason_size, "%s: %s", path, strerror(-r));
    return r;
  }
  if (!S_ISDIR(found.st_mode)) {
    say(reason, reason_size, "%s is no directory", path);
    return -ENOTDIR;
  }
  if (found.st_uid != uid) {
    say(reason, reason_size, "%s belongs to uid %ld, not to %ld", path, (long)found.st_uid, (long)uid);
    return -EPERM;
  }
  if ((found.st_mode & (S_IRWXG | S_IRWXO)) != 0) {
    say(reason, reason_size, "%s has mode %04o and is open to others; it must be 0700", path,
        (unsigned)(found.st_mode & 07777));
    return -EPERM;
  }
  return 0;
}

int fz_private_directory_make(const char *path, uid_t uid, char *reason, size_t reason_size) {
  if (mkdir(path, S_IRWXU) != 0 && errno != EEXIST) {
    const int r = -errno;
    say(reason, reason_size, "cannot make %s: %s", path, strerror(-r));
    return r;
  }
  return fz_private_directory_check(path, uid, reason, reason_size);
}

/* --- the places --- */

static void add(fz_socket_search *search, enum fz_socket_place place, const char *path) {
  struct fz_socket_candidate *candidate = &search->candidates[search->count++];
  *candidate = (struct fz_socket_candidate){ .place = place, .length = strlen(path) };
  (void)snprintf(candidate->path, sizeof(candidate->path), "%s", path);
}

/* A base directory and what is below it; the length is that of the whole, however much of it can be kept. */
static void add_below(fz_socket_search *search, enum fz_socket_place place, const char *base) {
  static const char below[] = "/freezer/freezerd.sock";
  struct fz_socket_candidate *candidate = &search->candidates[search->count++];
  *candidate = (struct fz_socket_candidate){ .place = place, .length = strlen(base) + sizeof(below) - 1 };
  (void)snprintf(candidate->path, sizeof(candidate->path), "%s%s", base, below);
}

void fz_socket_search_init(fz_socket_search *search, const char *path) {
  *search = (fz_socket_search){ 0 };
  const char *environ_path = getenv("FREEZER_SOCKET");
  if (path != NULL) {
    add(search, FZ_SOCKET_GIVEN, path);
    return;
  }
  if (environ_path != NULL && *environ_path != '\0') {
    add(search, FZ_SOCKET_ENVIRON, environ_path);
    return;
  }
  const char *runtime = getenv("XDG_RUNTIME_DIR");
  if (runtime != NULL && *runtime == '/')
    add_below(search, FZ_SOCKET_XDG, runtime);
  char tmp[64];
  (void)snprintf(tmp, sizeof(tmp), "/tmp/freezer-%ld/freezerd.sock", (long)geteuid());
  add(search, FZ_SOCKET_TMP, tmp);
  add(search, FZ_SOCKET_SYSTEM, SYSTEM_PATH);
}

const struct fz_socket_candidate *fz_socket_connected(const fz_socket_search *search) {
  for (size_t i = 0; i < search->count; i++)
    if (search->candidates[i].state == FZ_SOCKET_CONNECTED)
      return &search->candidates[i];
  return NULL;
}

/* --- connecting --- */

static int settle(struct fz_socket_candidate *candidate, enum fz_socket_state state, int error) {
  candidate->state = state;
  candidate->error = error;
  return FZ_SOCKET_NONE;
}

/* The pid that freezerd left in PATH.lock; 0 when there is none. */
static pid_t read_lock_pid(const char *path) {
  char lock[FZ_SOCKET_DISPLAY_MAX + 8];
  (void)snprintf(lock, sizeof(lock), "%s.lock", path);
  const int fd = open(lock, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  if (fd < 0)
    return 0;
  char text[24] = "";
  const ssize_t length = read(fd, text, sizeof(text) - 1);
  (void)close(fd);
  const long pid = length > 0 ? strtol(text, NULL, 10) : 0;
  return pid > 0 && pid == (pid_t)pid ? (pid_t)pid : 0;
}

/* A socket that nobody listens on; connect says the same of a file that is no socket. */
static int explain_refused(struct fz_socket_candidate *candidate) {
  struct stat found;
  if (lstat(candidate->path, &found) == 0 && !S_ISSOCK(found.st_mode) && !S_ISLNK(found.st_mode)) {
    say(candidate->reason, sizeof(candidate->reason), "there is something else than a socket");
    return settle(candidate, FZ_SOCKET_FAILED, -ENOTSOCK);
  }
  const pid_t pid = read_lock_pid(candidate->path);
  if (pid == 0)
    say(candidate->reason, sizeof(candidate->reason), "stale socket, nobody listens on it");
  else if (kill(pid, 0) != 0 && errno == ESRCH)
    say(candidate->reason, sizeof(candidate->reason), "stale socket of pid %ld (gone)", (long)pid);
  else
    say(candidate->reason, sizeof(candidate->reason), "pid %ld does not listen on it", (long)pid);
  return settle(candidate, FZ_SOCKET_STALE, -ECONNREFUSED);
}

/* Who may, and who asks; a socket that cannot even be looked at is in a folder that cannot be entered. */
static int explain_denied(struct fz_socket_candidate *candidate, int error) {
  const long uid = (long)geteuid();
  const long gid = (long)getegid();
  struct stat found;
  if (stat(candidate->path, &found) == 0)
    say(candidate->reason, sizeof(candidate->reason), "it has uid %ld, gid %ld, mode %04o; you are uid %ld, gid %ld",
        (long)found.st_uid, (long)found.st_gid, (unsigned)(found.st_mode & 07777), uid, gid);
  else
    say(candidate->reason, sizeof(candidate->reason), "its folder cannot be entered by uid %ld, gid %ld", uid, gid);
  return settle(candidate, FZ_SOCKET_DENIED, error);
}

static int explain_failure(struct fz_socket_candidate *candidate, int error) {
  switch (error) {
  case -ENOENT:
  case -ENOTDIR:
    say(candidate->reason, sizeof(candidate->reason), "no such socket");
    return settle(candidate, FZ_SOCKET_ABSENT, error);
  case -ECONNREFUSED:
    return explain_refused(candidate);
  case -EAGAIN:
    say(candidate->reason, sizeof(candidate->reason), "freezerd accepts nobody: it is stopped or overloaded");
    return settle(candidate, FZ_SOCKET_BUSY, error);
  case -EACCES:
  case -EPERM:
    return explain_denied(candidate, error);
  default:
    say(candidate->reason, sizeof(candidate->reason), "%s", strerror(-error));
    return settle(candidate, FZ_SOCKET_FAILED, error);
  }
}

/* What must hold before a connection is worth trying: the length, and that no stranger made the directory. */
static int check_place(struct fz_socket_candidate *candidate) {
  if (candidate->length == 0) /* which the kernel would take for an abstract name */
    return explain_failure(candidate, -ENOENT);
  if (candidate->length > FZ_SOCKET_PATH_MAX) {
    say(candidate->reason, sizeof(candidate->reason), "the path has %zu bytes, a socket's may have %u",
        candidate->length, FZ_SOCKET_PATH_MAX);
    return settle(candidate, FZ_SOCKET_TOO_LONG, -ENAMETOOLONG);
  }
  if (candidate->place != FZ_SOCKET_XDG && candidate->place != FZ_SOCKET_TMP)
    return 0;
  char directory[FZ_SOCKET_PATH_MAX + 1];
  (void)snprintf(directory, sizeof(directory), "%s", candidate->path);
  for (int levels = candidate->place == FZ_SOCKET_XDG ? 2 : 1; levels > 0; levels--)
    *strrchr(directory, '/') = '\0';
  const int r = fz_private_directory_check(directory[0] == '\0' ? "/" : directory, geteuid(), candidate->reason,
                                           sizeof(candidate->reason));
  if (r == 0)
    return 0;
  if (r == -EPERM || (r == -ENOTDIR && candidate->place == FZ_SOCKET_TMP))
    return settle(candidate, FZ_SOCKET_UNSAFE, r);
  if (candidate->place == FZ_SOCKET_TMP)
    return explain_failure(candidate, r);
  say(candidate->reason, sizeof(candidate->reason), "no such directory (XDG_RUNTIME_DIR is stale)");
  return settle(candidate, FZ_SOCKET_NO_DIRECTORY, r);
}

/* Blocks only while a backlog is full, and for at most `timeout_ms`. */
static int connect_socket(int fd, const char *path, unsigned timeout_ms) {
  struct sockaddr_un address = { .sun_family = AF_UNIX };
  memcpy(address.sun_path, path, strlen(path) + 1);
  const struct timeval timeout = { .tv_sec = timeout_ms / 1000, .tv_usec = (suseconds_t)(timeout_ms % 1000) * 1000 };
  if (timeout_ms > 0 && setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout)) != 0)
    return -errno;
  int r;
  do
    r = connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0 ? 0 : -errno;
  while (r == -EINTR);
  if (r != 0 || timeout_ms == 0)
    return r;
  return fcntl(fd, F_SETFL, O_NONBLOCK) == 0 ? 0 : -errno;
}

static int try_candidate(struct fz_socket_candidate *candidate, unsigned timeout_ms, int *ret_fd) {
  const int unusable = check_place(candidate);
  if (unusable != 0)
    return unusable;
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | (timeout_ms == 0 ? SOCK_NONBLOCK : 0), 0);
  if (fd < 0)
    return -errno;
  const int r = connect_socket(fd, candidate->path, timeout_ms);
  if (r != 0) {
    (void)close(fd);
    return explain_failure(candidate, r);
  }
  candidate->state = FZ_SOCKET_CONNECTED;
  *ret_fd = fd;
  return 0;
}

int fz_socket_connect(fz_socket_search *search, unsigned timeout_ms, int *ret_fd) {
  for (size_t i = 0; i < search->count; i++) {
    const int r = try_candidate(&search->candidates[i], timeout_ms, ret_fd);
    if (r != FZ_SOCKET_NONE)
      return r;
  }
  return FZ_SOCKET_NONE;
}

/* --- who is there --- */

int fz_peer_get(int fd, struct fz_peer *ret_peer) {
  struct ucred credentials;
  socklen_t length = sizeof(credentials);
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &length) != 0)
    return -errno;
  *ret_peer = (struct fz_peer){ .pid = credentials.pid, .uid = credentials.uid, .gid = credentials.gid };
  return 0;
}

/* Supplementary groups, which SO_PEERCRED leaves out. Without SO_PEERGROUPS (before Linux 4.13): not a member. */
static bool is_in_group(int fd, gid_t group) {
#ifdef SO_PEERGROUPS
  socklen_t length = 0;
  if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, NULL, &length) == 0 || errno != ERANGE)
    return false;
  gid_t *groups = malloc(length);
  bool found = false;
  if (groups != NULL && getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &length) == 0)
    for (size_t i = 0; i < length / sizeof(groups[0]) && !found; i++)
      found = groups[i] == group;
  free(groups);
  return found;
#else
  (void)fd;
  (void)group;
  return false;
#endif
}

bool fz_peer_is_allowed(int fd, const struct fz_peer *peer, gid_t group) {
  if (peer->uid == geteuid() || peer->uid == 0)
    return true;
  return group != FZ_NO_GROUP && (peer->gid == group || is_in_group(fd, group));
}
