/* request.h - talking to freezerd: connect, ask, wait no longer than makes sense, collect the answer. */
#ifndef FZ_CTL_REQUEST_H
#define FZ_CTL_REQUEST_H

#include <stdbool.h>
#include <stdint.h>

#include "client/ctl/answer.h"
#include "client/ctl/ctl.h"
#include "protocol/control.h"

/*
 * fz_conn *conn = NULL;
 * fz_answer answer = FZ_ANSWER_NULL;
 * int status = fz_conn_open(ctl, &conn);
 * if (status == 0) {
 *   fz_json_writer *request = fz_conn_begin(conn, FZ_OP_LIST);
 *   fz_conn_write_patterns(request, ctl);
 *   status = fz_conn_call(conn, &answer);
 * }
 *
 * Whatever returns an exit status has said why it is not 0. What freezerd refuses is no failure of the call: look at
 * fz_answer_code().
 */

/** A connection to freezerd. */
typedef struct fz_conn fz_conn;

/** How long freezerd may take to answer what it does not have to wait for. */
#define FZ_ANSWER_MS 5000U
/** How long a change waits for the ranks unless --timeout says otherwise. */
#define FZ_CHANGE_WAIT_MS 30000U

/** Connects. From then on Ctrl-C ends a call and not the program. @return 0 or the exit status */
int fz_conn_open(const fz_ctl *ctl, fz_conn **ret_conn);
/** The same, saying nothing when there is no freezerd: for commands that do without. 0; else the exit status it would be. */
int fz_conn_try(const fz_ctl *ctl, fz_conn **ret_conn);
/** Takes NULL; returns NULL. */
fz_conn *fz_conn_free(fz_conn *conn);
static inline void fz_conn_freep(fz_conn **conn) { *conn = fz_conn_free(*conn); }

/** The path of the socket, borrowed. */
const char *fz_conn_path(const fz_conn *conn);

/** Begins a request: id, op, run (from --run or $FREEZER_RUN) and by. The writer is the connection's. */
fz_json_writer *fz_conn_begin(fz_conn *conn, enum fz_op op);
/** The same for another run; NULL: none. */
fz_json_writer *fz_conn_begin_run(fz_conn *conn, enum fz_op op, const char *run);

/** Writes the command's operands as `patterns`; nothing if there are none. */
void fz_conn_write_patterns(fz_json_writer *request, const fz_ctl *ctl);

/** How long the ranks may take (`wait_ms`), once the request is acknowledged; FZ_TIME_NEVER: for ever. */
void fz_conn_set_wait(fz_conn *conn, uint64_t wait_ms);

/**
 * Sends the request and collects its answer; `answer` must be empty.
 * @return 0, or the exit status: no answer in time, the connection broke, Ctrl-C
 */
int fz_conn_call(fz_conn *conn, fz_answer *answer);

/**
 * Waits for the next line of a stream that was asked for. The caller owns it.
 * @return 0, or the exit status
 */
int fz_conn_next_event(fz_conn *conn, fz_json **ret_line);

/** The text of the run that is asked for: --run or $FREEZER_RUN, else NULL. */
const char *fz_run_wanted(const fz_ctl *ctl);

/** Connects, asks for `op` with the command's operands as patterns, and says what is refused. 0 or the exit status. */
int fz_ask(const fz_ctl *ctl, enum fz_op op, fz_answer *answer);

#endif
