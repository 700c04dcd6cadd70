/* sockpath.h - where freezerd's socket is: the places in order, what is wrong with each, and connecting to one. */
#ifndef FZ_SOCKPATH_H
#define FZ_SOCKPATH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/*
 * PLACES, in this order. A path that was given is the only one that is tried.
 *
 *   given      --socket, or an option of the library
 *   environ    $FREEZER_SOCKET (when it is set and not empty)
 *   XDG        $XDG_RUNTIME_DIR/freezer/freezerd.sock, if $XDG_RUNTIME_DIR is a folder of ours with mode 0700
 *   tmp        /tmp/freezer-UID/freezerd.sock, in a folder of ours that nobody else can enter
 *   system     /run/freezer/freezerd.sock (clients only)
 */
enum fz_socket_place {
  FZ_SOCKET_GIVEN,
  FZ_SOCKET_ENVIRON,
  FZ_SOCKET_XDG,
  FZ_SOCKET_TMP,
  FZ_SOCKET_SYSTEM,
  FZ_SOCKET_ACTIVATED /* systemd handed it over (listener.h) */
};

/** What became of a place. */
enum fz_socket_state {
  FZ_SOCKET_UNTRIED,
  FZ_SOCKET_CONNECTED,
  FZ_SOCKET_NO_DIRECTORY, /* XDG: the directory itself is not there */
  FZ_SOCKET_UNSAFE,       /* the directory is not ours, or open to others */
  FZ_SOCKET_TOO_LONG,     /* more than FZ_SOCKET_PATH_MAX bytes */
  FZ_SOCKET_ABSENT,       /* no such file */
  FZ_SOCKET_STALE,        /* a socket that nobody listens on */
  FZ_SOCKET_BUSY,         /* the listener's backlog is full: it is stopped or overloaded */
  FZ_SOCKET_DENIED,       /* no permission */
  FZ_SOCKET_FAILED        /* anything else: `error` */
};

#define FZ_SOCKET_PATH_MAX 107U /* what sun_path holds, without its NUL */
#define FZ_SOCKET_DISPLAY_MAX 255U

struct fz_socket_candidate {
  enum fz_socket_place place;
  enum fz_socket_state state;
  int error;                            /* negative errno, 0 when connected or untried */
  size_t length;                        /* of the path */
  char path[FZ_SOCKET_DISPLAY_MAX + 1]; /* cut at the end when it is longer than that, and then too long anyway */
  char reason[200];                     /* "stale socket of pid 123 (gone)"; "" when untried or connected */
};

#define FZ_SOCKET_CANDIDATES_MAX 3U

typedef struct fz_socket_search {
  size_t count;
  struct fz_socket_candidate candidates[FZ_SOCKET_CANDIDATES_MAX];
} fz_socket_search;

/**
 * Lists the places for a client; looks at the environment, not at the file system.
 * @param path  as given by the user; NULL: not given
 */
void fz_socket_search_init(fz_socket_search *search, const char *path);

enum { FZ_SOCKET_NONE = 1 };

/**
 * Connects to the first place where somebody accepts.
 * @param      timeout_ms  how long to wait where the backlog is full; 0: not at all (then nothing here blocks)
 * @param[out] ret_fd      a non-blocking, close-on-exec stream socket that the caller owns
 * @return 0, and the last candidate that is not untried is the one; FZ_SOCKET_NONE: each candidate has its reason;
 *         -EMFILE and the like: no socket could be made
 */
int fz_socket_connect(fz_socket_search *search, unsigned timeout_ms, int *ret_fd);

/** The candidate that fz_socket_connect() connected to, or NULL. Borrowed. */
const struct fz_socket_candidate *fz_socket_connected(const fz_socket_search *search);

/**
 * Whether `path` is a directory (not a link to one) of `uid` that its group and others have no access to.
 * @param[out] reason  a sentence when it is not, with owner and mode; may be NULL
 * @return 0; -ENOENT, -ENOTDIR, -EPERM (owner or mode), other negative errno of lstat
 */
int fz_private_directory_check(const char *path, uid_t uid, char *reason, size_t reason_size);

/** Makes such a directory, 0700, unless it is there, and checks it. As fz_private_directory_check(). */
int fz_private_directory_make(const char *path, uid_t uid, char *reason, size_t reason_size);

/** Who is at the other end, as of the moment of connect. */
struct fz_peer {
  pid_t pid;
  uid_t uid;
  gid_t gid;
};

/** 0; negative errno. */
int fz_peer_get(int fd, struct fz_peer *ret_peer);

#define FZ_NO_GROUP ((gid_t)-1)

/**
 * Whether the peer may talk to this process: the same user, root, or a member of `group` (its own or a supplementary
 * one; FZ_NO_GROUP: nobody).
 */
bool fz_peer_is_allowed(int fd, const struct fz_peer *peer, gid_t group);

#endif
