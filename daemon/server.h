/* server.h - freezerd's loop: the listener, its connections, signals, timers, and an orderly end. */
#ifndef FZ_SERVER_H
#define FZ_SERVER_H

#include "daemon/core.h"
#include "protocol/listener.h"

typedef struct fz_server fz_server;

/**
 * @param core       borrowed; its timers are served by the loop
 * @param listener   open; the server watches it, the caller closes it after fz_server_free()
 * @param read_only  the same, for peers that may look and change nothing; fd -1: there is none
 * @param group      whose members are served besides our user and root; FZ_NO_GROUP
 * @return 0 or negative errno
 */
int fz_server_new(fz_server **ret_server, fz_core *core, const fz_listener *listener, const fz_listener *read_only,
                  gid_t group);
/** Closes what is open and the loop. @return 0; -EBUSY a handle was left over, a bug of ours */
int fz_server_free(fz_server *server);

/** Serves until SIGTERM or SIGINT, then ends all connections; SIGHUP reads the default rules again. 0 or negative errno. */
int fz_server_run(fz_server *server);

#endif
