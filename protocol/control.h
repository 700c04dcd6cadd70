/* control.h - requests of control clients and their answers; PROTOCOL.md section 4 has their meaning. */
#ifndef FZ_CONTROL_H
#define FZ_CONTROL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "protocol/json.h"
#include "protocol/limits.h"
#include "protocol/message.h"
#include "protocol/status.h"
#include "protocol/writer.h"

/* X(C name, name on the wire, whether it is a change) */
#define FZ_OPS(X) \
  X(PING, "ping", false) \
  X(RUNS, "runs", false) \
  X(STATUS, "status", false) \
  X(LIST, "list", false) \
  X(FREEZE, "freeze", true) \
  X(UNFREEZE, "unfreeze", true) \
  X(AUTO, "auto", true) \
  X(PIN, "pin", true) \
  X(UNPIN, "unpin", true) \
  X(IS_FROZEN, "is_frozen", false) \
  X(RULES_LOAD, "rules_load", true) \
  X(RULES_CHECK, "rules_check", false) \
  X(RULES_SHOW, "rules_show", false) \
  X(RULES_UNLOAD, "rules_unload", true) \
  X(EXPLAIN, "explain", false) \
  X(HISTORY, "history", false) \
  X(REVERT, "revert", true) \
  X(WATCH, "watch", false) \
  X(WAIT, "wait", false)

enum fz_op {
#define X(c, wire, change) FZ_OP_##c,
  FZ_OPS(X)
#undef X
};

/** What a pin holds a parameter at. */
enum fz_pin_value { FZ_PIN_AS_IS, FZ_PIN_FROZEN, FZ_PIN_TRAINING };

enum fz_wait_for {
  FZ_WAIT_ATTACHED,
  FZ_WAIT_APPLIED,
  FZ_WAIT_FROZEN,
  FZ_WAIT_TRAINING,
  FZ_WAIT_STEP,
  FZ_WAIT_IDLE,
  FZ_WAIT_DETACHED,
  FZ_WAIT_IN_SYNC
};

/** What `list` shows. Both are filters; ANY does not filter. */
enum fz_list_state { FZ_LIST_STATE_ANY, FZ_LIST_STATE_FROZEN, FZ_LIST_STATE_TRAINING, FZ_LIST_STATE_PENDING };
enum fz_list_why { FZ_LIST_WHY_ANY, FZ_LIST_WHY_BASELINE, FZ_LIST_WHY_RULE, FZ_LIST_WHY_OVERRIDE, FZ_LIST_WHY_PIN };

/**
 * One request. Fields that its op does not have are as FZ_REQUEST_NULL leaves them; strings and values are borrowed from
 * the root, and NULL when they were not given.
 */
typedef struct fz_request {
  bool has_id; /* and what was read before a failure may be used: answer with this id */
  uint64_t id;
  uint64_t protocol; /* 0: not said */
  enum fz_op op;
  const char *run;
  const char *by_user, *by_host;

  /* changes */
  const char *reason;
  bool dry_run, force, include_baseline, yes;
  uint64_t wait_ms; /* of `wait` too; there FZ_TIME_NEVER is no limit */

  const fz_json *patterns; /* an array of clean strings, 1 to FZ_PATTERN_MAX bytes: fz_json_first(), fz_json_string() */
  size_t n_patterns;

  /* freeze, unfreeze; FZ_TIME_NEVER: not given */
  uint64_t for_steps; /* at least 1 */
  uint64_t at_step, until_step, until_epoch;

  enum fz_pin_value pin_value;

  /* rules_load, rules_check */
  const fz_json *rules; /* an object */
  const char *source;
  bool allow_missing;

  /* list; `at` is a step, FZ_TIME_NEVER: now */
  enum fz_list_state list_state;
  enum fz_list_why list_why;
  uint64_t at;

  const char *param; /* explain */

  uint64_t limit; /* history; FZ_TIME_NEVER: as many as fit */

  /* wait */
  enum fz_wait_for wait_for;
  uint64_t gen;        /* of revert too; FZ_TIME_NEVER: the newest, or to before the last change */
  uint64_t step;       /* FZ_TIME_NEVER: not given */
  const char *pattern; /* given for frozen and training */
} fz_request;

#define FZ_REQUEST_NULL \
  { \
    .for_steps = FZ_TIME_NEVER, .at_step = FZ_TIME_NEVER, .until_step = FZ_TIME_NEVER, .until_epoch = FZ_TIME_NEVER, \
    .at = FZ_TIME_NEVER, .limit = FZ_TIME_NEVER, .gen = FZ_TIME_NEVER, .step = FZ_TIME_NEVER \
  }

#define FZ_WAIT_MS_MAX UINT64_C(86400000)

const char *fz_op_name(enum fz_op op);
/** Whether it changes what is frozen, and has the fields that all changes have. */
bool fz_op_is_change(enum fz_op op);
/** False when there is none of that name. */
bool fz_op_parse(const char *name, enum fz_op *ret_op);
const char *fz_wait_for_name(enum fz_wait_for wait_for);

/** What a peer's first message makes it: one with `op` is a control client, all else a trainer. */
bool fz_is_request(const fz_json *root);

/**
 * Reads a request.
 * @param[out] ret_request  initialised here; has_id and id are right on every outcome
 * @param[out] error        initialised here; a sentence on every outcome but 0
 * @return 0, or an FZ_DECODE_ outcome (message.h)
 */
int fz_request_decode(fz_request *ret_request, const fz_json *root, fz_field_error *error);

/* --- freezerd's answers; each begins and ends one line --- */

/** {"id":7,"ok":true and leaves the object open for the answer's fields: end it with fz_write_end_object(). */
void fz_answer_begin(fz_json_writer *writer, uint64_t id);
/** {"id":7,"part":true and leaves the object open. */
void fz_answer_part_begin(fz_json_writer *writer, uint64_t id);
/** {"id":7,"event":{ and leaves both objects open: end both. */
void fz_answer_event_begin(fz_json_writer *writer, uint64_t id);
/**
 * A whole error answer.
 * @param id    NULL: the request had none
 * @param hint  may be NULL
 */
void fz_answer_error(fz_json_writer *writer, const uint64_t *id, enum fz_code code, const char *message,
                     const char *hint);
/** The same, left open within `error` for `details`: end both objects. */
void fz_answer_error_begin(fz_json_writer *writer, const uint64_t *id, enum fz_code code, const char *message,
                           const char *hint);

/* --- a control client's requests --- */

/** {"protocol":1,"id":7,"op":"freeze" and leaves the object open: end it with fz_write_end_object(). */
void fz_request_begin(fz_json_writer *writer, uint64_t id, enum fz_op op);

#endif
