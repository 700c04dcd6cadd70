/* message.h - the messages between a trainer and freezerd, as structs; PROTOCOL.md section 3 has their meaning. */
#ifndef FZ_MESSAGE_H
#define FZ_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "protocol/json.h"
#include "protocol/limits.h"
#include "protocol/params.h"
#include "protocol/status.h"
#include "protocol/writer.h"

#define FZ_PROTOCOL_VERSION 1U

/*
 * Decoding:  fz_json_parse() a line, fz_message_decode() its root. Strings and rules in the message are borrowed from
 *            the root.
 * Encoding:  fill a message (strings borrowed from anywhere), fz_message_encode() it, fz_writer_line().
 *            `params` is encoded by fz_params_encode(), which cuts the table into lines.
 */

/* X(C name, name on the wire and of the union's member) */
#define FZ_MESSAGES(X) \
  /* trainer to freezerd */ \
  X(HELLO, hello) \
  X(RESUME, resume) \
  X(PARAMS, params) \
  X(READY, ready) \
  X(STEP, step) \
  X(EPOCH, epoch) \
  X(METRIC, metric) \
  X(APPLIED, applied) \
  X(REWIND, rewind) \
  X(BYE, bye) \
  /* freezerd to trainer */ \
  X(NEED, need) \
  X(WELCOME, welcome) \
  X(SUBSCRIBE, subscribe) \
  X(NOTICE, notice) \
  X(ERROR, error)

enum fz_message_type {
#define X(c, wire) FZ_MESSAGE_##c,
  FZ_MESSAGES(X)
#undef X
};

enum fz_level { FZ_LEVEL_INFO, FZ_LEVEL_WARNING, FZ_LEVEL_ERROR };

struct fz_hello {
  uint64_t protocol; /* FZ_PROTOCOL_VERSION when it was decoded */
  const char *run;
  const char *framework;
  const char *job;
  uint64_t attempt;
  uint64_t rank; /* < world */
  uint64_t world;
  uint64_t pid;
  uint64_t n_params;
  uint64_t layout;
  uint64_t baseline;
  bool resumes;
  const fz_json *rules; /* an object, or NULL: it brings none */
};

/** A trainer that held a segment when its connection ended; the segment's descriptor comes with this line. */
struct fz_resume {
  uint64_t incarnation;
  uint64_t gen;
  uint64_t step, epoch; /* FZ_TIME_NEVER: it has not begun a batch yet */
};

struct fz_params_chunk {
  uint64_t first;
  uint64_t count;
  const fz_json *entries; /* checked: read with fz_params_chunk_next() */
};

struct fz_at {
  uint64_t step, epoch;
};

struct fz_metric {
  const char *name;
  double value; /* NaN: no value */
};

struct fz_metrics {
  uint64_t step;
  size_t count;
  struct fz_metric values[FZ_METRICS_MAX];
};

struct fz_applied {
  uint64_t gen;
  uint64_t step, epoch;
};

struct fz_need {
  const char *what; /* "params" */
};

/** The segment's descriptor comes with this line. */
struct fz_welcome {
  uint64_t protocol;
  const char *server;
  const char *run;
  uint64_t incarnation;
  const char *segment;
  uint64_t size;
};

struct fz_subscribe {
  uint64_t step_every_ms; /* FZ_TIME_NEVER: no step events; 0: every step */
  bool epoch;
  bool metrics;
  uint64_t metric_every_ms; /* 0: every value */
  uint64_t at_step;         /* FZ_TIME_NEVER: none */
};

struct fz_notice {
  enum fz_level level;
  const char *code;
  const char *message;
};

struct fz_error {
  const char *code; /* fz_code_parse() for those that we know */
  const char *message;
  const char *hint; /* or NULL */
  bool close;
};

typedef struct fz_message {
  enum fz_message_type type;
  union {
    struct fz_hello hello;
    struct fz_resume resume;
    struct fz_params_chunk params;
    struct fz_at ready, step, epoch, rewind;
    struct fz_metrics metric;
    struct fz_applied applied;
    struct fz_need need;
    struct fz_welcome welcome;
    struct fz_subscribe subscribe;
    struct fz_notice notice;
    struct fz_error error;
  };
} fz_message;

/** Its name on the wire. */
const char *fz_message_name(enum fz_message_type type);

enum {
  FZ_DECODE_FIELD = 1,   /* a field is missing, of the wrong type or out of range */
  FZ_DECODE_UNKNOWN = 2, /* no message of that type, no operation of that name */
  FZ_DECODE_VERSION = 3  /* a peer of another protocol version; nothing else was read */
};

/**
 * Reads a message from either side.
 * @param[out] ret_message  meaningful only on 0; on FZ_DECODE_VERSION hello.protocol or welcome.protocol is the peer's
 * @param[out] error        initialised here; a sentence on every outcome but 0
 * @return 0, or an FZ_DECODE_ outcome
 */
int fz_message_decode(fz_message *ret_message, const fz_json *root, fz_field_error *error);

/** Which error code answers an FZ_DECODE_ outcome: bad_field, unknown_op (bad_request for messages), protocol. */
enum fz_code fz_decode_code(int outcome, bool control);

/** An entry of `params`. Borrowed from the root. */
struct fz_params_entry {
  const char *name;
  uint64_t elements;
  bool requires_grad;
  const char *may_freeze; /* NULL: yes; else a refusal code */
  const char *may_train;
  const fz_json *aliases; /* an array of names, or NULL */
};

/**
 * Reads the next entry of a decoded chunk; *cursor is NULL the first time.
 *   const fz_json *cursor = NULL;
 *   while (fz_params_chunk_next(&message.params, &cursor, &entry)) ...
 */
bool fz_params_chunk_next(const struct fz_params_chunk *chunk, const fz_json **cursor,
                          struct fz_params_entry *ret_entry);

/** Writes any message but `params`. Failures are the writer's. */
void fz_message_encode(fz_json_writer *writer, const fz_message *message);

/**
 * Writes one `params` message with the entries from `first` on, as many as make a line of good length, never beyond the
 * limit of the writer.
 * @return the index of the first entry that is not in it: fz_params_count() when this is the last line
 */
size_t fz_params_encode(fz_json_writer *writer, const fz_params *params, size_t first);

/** Writes the answer to a peer of another version, the one form that all versions read. */
void fz_write_version_mismatch(fz_json_writer *writer, const uint64_t *id, uint64_t theirs);
/**
 * A whole line for a peer that is turned away before it has said what it is: an error to a trainer, and an answer without
 * an id to a control client.
 */
void fz_write_refusal(fz_json_writer *writer, enum fz_code code, const char *message);

#endif
