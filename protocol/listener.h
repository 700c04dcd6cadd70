/* listener.h - freezerd's listening socket: bound safely, one daemon per path, removed only by its owner. */
#ifndef FZ_LISTENER_H
#define FZ_LISTENER_H

#include <stdbool.h>
#include <sys/types.h>

#include "protocol/sockpath.h"

/*
 * Opening, in this order:
 *   1. The path: given; $FREEZER_SOCKET; a socket that systemd handed over ($LISTEN_FDS), which needs none of the rest;
 *      $XDG_RUNTIME_DIR; /tmp/freezer-UID. The folder of the last two is made, 0700, and checked.
 *   2. The folder and those above it are such that nobody else can replace what is in it (folders.h). With a group, the
 *      folder itself may be shared: a volume of containers often is open to all.
 *   3. PATH.lock is opened and locked (flock). Whoever holds the lock owns the path; it holds the pid for people.
 *   4. A socket that is there already is taken over if nobody listens on it.
 *   5. bind under umask 0177, so that there is no moment at which others could connect; then listen.
 * Closing removes the socket if it is still the one that was bound, then the lock file, then gives up the lock.
 *
 * umask belongs to the process: call this before there are threads.
 */
typedef struct fz_listener {
  int fd;      /* non-blocking, close-on-exec; -1: not open */
  int lock_fd; /* -1: none */
  enum fz_socket_place place;
  char path[FZ_SOCKET_PATH_MAX + 1];
  dev_t device;
  ino_t inode;
} fz_listener;

#define FZ_LISTENER_NULL \
  { .fd = -1, .lock_fd = -1 }

enum { FZ_LISTENER_TAKEN = 1 };

/**
 * @param      path    as given by the user; NULL: not given
 * @param      group   FZ_NO_GROUP: the socket is 0600; else 0660 and of this group
 * @param[out] reason  a sentence when it fails, which names the path
 * @return 0; FZ_LISTENER_TAKEN another daemon has this path (reason says its pid, if it is known); negative errno
 */
int fz_listener_open(fz_listener *ret_listener, const char *path, gid_t group, char *reason, size_t reason_size);

/**
 * Closes and removes what fz_listener_open() made; a socket from systemd is only closed. Twice does no harm.
 * The descriptor may have been given to an event loop: then set `fd` to -1 first.
 */
void fz_listener_close(fz_listener *listener);

#endif
