/* session.h - a peer until its first message has said what it is, and what it is from then on. */
#ifndef FZ_SESSION_H
#define FZ_SESSION_H

#include "daemon/connection.h"
#include "daemon/core.h"

typedef struct fz_session fz_session;

/** The callbacks of a connection whose user is a session. */
extern const struct fz_connection_events fz_session_events;

/**
 * A session for a connection that is about to be made; fz_session_start() must follow, or fz_session_free().
 * @param read_only  the peer may ask and watch; it is refused as a trainer, and what would change something is, too
 * @param ended      called when it is over, before it frees itself
 * @return 0 or -ENOMEM
 */
int fz_session_new(fz_session **ret_session, fz_core *core, bool read_only,
                   void (*ended)(fz_session *session, void *user), void *user);
void fz_session_start(fz_session *session, fz_connection *connection);
fz_session *fz_session_free(fz_session *session);

fz_connection *fz_session_connection(const fz_session *session);
/** freezerd stops: requests that wait are answered so, then the connection ends. */
void fz_session_stop(fz_session *session);

/** Sessions of a server, in a list. */
fz_session *fz_session_next(const fz_session *session);
void fz_session_link(fz_session **list, fz_session *session);
void fz_session_unlink(fz_session **list, fz_session *session);

#endif
