/* session.c - a peer until its first message has said what it is, and what it is from then on. */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "daemon/batch.h"
#include "daemon/client.h"
#include "daemon/control.h"
#include "daemon/run.h"
#include "daemon/session.h"
#include "daemon/trainer.h"

struct fz_session {
  fz_session *next;
  fz_core *core;
  fz_connection *connection;
  fz_trainer *trainer;
  fz_client *client;
  bool read_only;
  void (*ended)(fz_session *session, void *user);
  void *user;
};

int fz_session_new(fz_session **ret_session, fz_core *core, bool read_only,
                   void (*ended)(fz_session *session, void *user), void *user) {
  fz_session *session = calloc(1, sizeof(*session));

  if (!session)
    return -ENOMEM;
  session->core = core;
  session->read_only = read_only;
  session->ended = ended;
  session->user = user;
  *ret_session = session;
  return 0;
}

void fz_session_start(fz_session *session, fz_connection *connection) { session->connection = connection; }

fz_session *fz_session_free(fz_session *session) {
  if (!session)
    return NULL;
  fz_trainer_free(session->trainer);
  fz_client_free(session->client);
  free(session);
  return NULL;
}

fz_connection *fz_session_connection(const fz_session *session) { return session->connection; }

/** Says what is wrong in the form that this kind of peer reads, and ends the connection. */
static void refuse(fz_session *session, enum fz_code code, const char *message, const char *why) {
  if (session->trainer) {
    fz_trainer_refuse(session->trainer, true, code, "%s", message);
    return;
  }
  fz_answer_error(&session->core->writer, NULL, code, message, NULL);
  (void)fz_connection_send(session->connection, &session->core->writer, -1);
  fz_connection_close(session->connection, why);
}

/** Says what a first message must have; the session stays undecided. */
static void ask_what(fz_session *session, const fz_json *root) {
  fz_json_writer *writer = &session->core->writer;
  uint64_t id;
  const bool has_id = fz_json_integer(fz_json_member(root, "id"), &id);

  fz_answer_error(writer, has_id ? &id : NULL, FZ_CODE_BAD_FIELD,
                  "field 'op' or 'type' is missing: a request has the one, a trainer's message the other", NULL);
  (void)fz_connection_send(session->connection, writer, -1);
}

/** The first message decides. */
static int become(fz_session *session, const fz_json *root) {
  if (session->trainer || session->client)
    return 0;
  if (fz_is_request(root))
    return fz_client_new(&session->client, session->core, session->connection, session->read_only);
  const int r = fz_trainer_new(&session->trainer, session->core, session->connection);
  if (r == 0 && session->read_only)
    fz_trainer_refuse(session->trainer, true, FZ_CODE_PERMISSION,
                      "this socket is for looking only: a trainer attaches at %s", session->core->socket);
  return r;
}

static void hear_trainer(fz_session *session, const fz_json *root) {
  fz_batches_settle(session->core);
  fz_trainer_line(session->trainer, root);
}

static void on_line(void *user, char *line, size_t length) {
  fz_session *session = user;
  fz_json *root = NULL;
  char why[FZ_FIELD_MESSAGE_SIZE] = "";
  int r = fz_json_parse(&root, line, length, why, sizeof(why));

  if (r == FZ_JSON_BROKEN) {
    refuse(session, FZ_CODE_BAD_REQUEST, why, "it sent something that is no message");
    return;
  }
  const bool decided = session->trainer || session->client;
  if (r == 0 && !decided && !fz_json_member(root, "op") && !fz_json_member(root, "type")) {
    ask_what(session, root);
    fz_json_free(root);
    return;
  }
  if (r == 0)
    r = become(session, root);
  if (r < 0)
    refuse(session, FZ_CODE_NO_MEMORY, "freezerd is out of memory", "out of memory");
  else if (session->client)
    fz_control_line(session->client, root);
  else
    hear_trainer(session, root);
  fz_json_free(root);
}

static void on_too_long(void *user) {
  fz_session *session = user;

  refuse(session, FZ_CODE_BAD_REQUEST, "a line is longer than 1 MiB", "a line was too long");
}

static void on_no_room(void *user) {
  fz_session *session = user;

  refuse(session, FZ_CODE_TOO_MANY, "the lines that peers have begun to send take too much memory: try again later",
         "no room for the line that it sends");
}

/** In the form that both kinds of peer read. */
static void on_unread(void *user, size_t bytes) {
  fz_session *session = user;
  const fz_trainer *trainer = session->trainer;
  char text[160];

  snprintf(text, sizeof(text), "this connection ends: %zu KiB wait to be read, and freezerd keeps no more",
           bytes / 1024);
  fz_log_write(&session->core->log, FZ_LOG_WARNING,
               FZ_LOG_ABOUT(.event = "peer", .run = trainer && trainer->run ? trainer->run->name : NULL,
                            .peer = fz_connection_peer(session->connection)),
               "a %s is dropped: it has not read %zu KiB, and more is not kept for it",
               trainer ? "trainer" : "control client", bytes / 1024);
  fz_write_refusal(&session->core->writer, FZ_CODE_TOO_MANY, text);
  (void)fz_connection_send(session->connection, &session->core->writer, -1);
}

static void on_drained(void *user) {
  fz_session *session = user;

  if (session->client)
    fz_client_drained(session->client);
}

static void on_closed(void *user, const char *reason) {
  fz_session *session = user;
  const struct fz_peer *peer = fz_connection_peer(session->connection);

  fz_batches_settle(session->core);
  fz_log_write(&session->core->log, FZ_LOG_DEBUG, FZ_LOG_ABOUT(.event = "peer", .peer = peer),
               "connection of pid %ld ended: %s", (long)peer->pid, reason);
  session->ended(session, session->user);
  fz_session_free(session);
}

const struct fz_connection_events fz_session_events = {
  .line = on_line,
  .too_long = on_too_long,
  .no_room = on_no_room,
  .unread = on_unread,
  .drained = on_drained,
  .closed = on_closed,
};

void fz_session_stop(fz_session *session) {
  while (session->client && session->client->waiters) {
    fz_waiter *waiter = session->client->waiters;
    fz_client_error(session->client, waiter->id, FZ_CODE_CLOSING, NULL, "freezerd stops");
    fz_waiter_free(waiter);
  }
  fz_connection_close(session->connection, "freezerd stops");
}

fz_session *fz_session_next(const fz_session *session) { return session->next; }

void fz_session_link(fz_session **list, fz_session *session) {
  session->next = *list;
  *list = session;
}

void fz_session_unlink(fz_session **list, fz_session *session) {
  while (*list != session)
    list = &(*list)->next;
  *list = session->next;
}
