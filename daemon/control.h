/* control.h - requests of control clients: which function does which operation, and what they share. */
#ifndef FZ_DAEMON_CONTROL_H
#define FZ_DAEMON_CONTROL_H

#include "daemon/client.h"
#include "daemon/core.h"
#include "daemon/rules/diagnostics.h"
#include "protocol/control.h"

/** Handles one line of a control client. */
void fz_control_line(fz_client *client, const fz_json *root);

/**
 * The run that a request means: by name, job, or unique prefix; without `run`, the only one there is or that lives.
 * @return the run, whose parameters are known; NULL: an error was answered
 */
fz_run *fz_control_run(fz_client *client, const fz_request *request);
/** The same search without an answer. `spec` may be NULL. NULL: none, or several. */
fz_run *fz_control_find(const fz_core *core, const char *spec);

/**
 * What the request's patterns select, as a new mask; without patterns, everything.
 * @return the mask, which the caller frees; NULL: an error was answered
 */
uint64_t *fz_control_match(fz_client *client, const fz_request *request, const fz_run *run);

/** Answers `rules_invalid` with all that was found. */
void fz_control_rules_invalid(fz_client *client, uint64_t id, const fz_diagnostics *diagnostics);

/* The operations. Each answers, at once or later. */
void fz_op_ping(fz_client *client, const fz_request *request);
void fz_op_runs(fz_client *client, const fz_request *request);
void fz_op_status(fz_client *client, const fz_request *request);
void fz_op_list(fz_client *client, const fz_request *request);
void fz_op_is_frozen(fz_client *client, const fz_request *request);
void fz_op_explain(fz_client *client, const fz_request *request);
void fz_op_history(fz_client *client, const fz_request *request);
void fz_op_change(fz_client *client, const fz_request *request);
void fz_op_rules_check(fz_client *client, const fz_request *request);
void fz_op_rules_show(fz_client *client, const fz_request *request);
void fz_op_watch(fz_client *client, const fz_request *request);
void fz_op_wait(fz_client *client, const fz_request *request);

#endif
