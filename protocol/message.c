/* message.c - the messages between a trainer and freezerd: a table of fields for each, and what a table cannot say. */
#include "config.h"

#include <stdio.h>
#include <string.h>

#include "protocol/message.h"
#include "protocol/text.h"

#define SENTENCE_MAX 16384U /* a message for people; it may hold the name of a parameter */
#define SERVER_MAX 128U
#define SEGMENT_MAX 255U

enum kind {
  INTEGER, /* min to max */
  TIME,    /* the same; optional, FZ_TIME_NEVER when it is not given */
  FLAG,    /* true or false */
  OPTION,  /* the same; optional, false when it is not given */
  STRING,  /* clean, min to max bytes */
  TEXT,    /* any, at most max bytes */
  HASH,
  OBJECT, /* optional, NULL when it is not given */
  LEVEL
};

struct field {
  const char *name;
  enum kind kind;
  size_t offset; /* in fz_message */
  uint64_t min, max;
};

#define AT(member) offsetof(fz_message, member)

static const struct field hello_fields[] = {
  { "protocol", INTEGER, AT(hello.protocol), 0, FZ_INT_MAX },
  { "run", STRING, AT(hello.run), 1, FZ_RUN_NAME_MAX },
  { "framework", STRING, AT(hello.framework), 0, FZ_FRAMEWORK_MAX },
  { "job", STRING, AT(hello.job), 1, FZ_JOB_NAME_MAX },
  { "attempt", INTEGER, AT(hello.attempt), 0, FZ_INT_MAX },
  { "rank", INTEGER, AT(hello.rank), 0, FZ_WORLD_MAX - 1 },
  { "world", INTEGER, AT(hello.world), 1, FZ_WORLD_MAX },
  { "pid", INTEGER, AT(hello.pid), 1, FZ_INT_MAX },
  { "n_params", INTEGER, AT(hello.n_params), 0, FZ_PARAMS_MAX },
  { "layout", HASH, AT(hello.layout), 0, 0 },
  { "baseline", HASH, AT(hello.baseline), 0, 0 },
  { "resumes", OPTION, AT(hello.resumes), 0, 0 },
  { "rules", OBJECT, AT(hello.rules), 0, 0 },
};

static const struct field resume_fields[] = {
  { "incarnation", INTEGER, AT(resume.incarnation), 0, FZ_INT_MAX },
  { "gen", INTEGER, AT(resume.gen), 0, FZ_GEN_MAX },
  { "step", TIME, AT(resume.step), 0, FZ_STEP_MAX },
  { "epoch", TIME, AT(resume.epoch), 0, FZ_EPOCH_MAX },
};

static const struct field params_fields[] = {
  { "first", INTEGER, AT(params.first), 0, FZ_PARAMS_MAX },
};

/* ready, step, epoch and rewind, which share their place in the union */
static const struct field at_fields[] = {
  { "step", INTEGER, AT(step.step), 0, FZ_STEP_MAX },
  { "epoch", INTEGER, AT(step.epoch), 0, FZ_EPOCH_MAX },
};

static const struct field metric_fields[] = {
  { "step", INTEGER, AT(metric.step), 0, FZ_STEP_MAX },
};

static const struct field applied_fields[] = {
  { "gen", INTEGER, AT(applied.gen), 0, FZ_GEN_MAX },
  { "step", INTEGER, AT(applied.step), 0, FZ_STEP_MAX },
  { "epoch", INTEGER, AT(applied.epoch), 0, FZ_EPOCH_MAX },
};

static const struct field need_fields[] = {
  { "what", STRING, AT(need.what), 1, FZ_CODE_MAX },
};

static const struct field welcome_fields[] = {
  { "protocol", INTEGER, AT(welcome.protocol), 0, FZ_INT_MAX },
  { "server", STRING, AT(welcome.server), 1, SERVER_MAX },
  { "run", STRING, AT(welcome.run), 1, FZ_RUN_NAME_MAX },
  { "incarnation", INTEGER, AT(welcome.incarnation), 0, FZ_INT_MAX },
  { "segment", STRING, AT(welcome.segment), 1, SEGMENT_MAX },
  { "size", INTEGER, AT(welcome.size), 1, FZ_INT_MAX },
};

static const struct field subscribe_fields[] = {
  { "step_every_ms", TIME, AT(subscribe.step_every_ms), 0, FZ_INT_MAX },
  { "epoch", FLAG, AT(subscribe.epoch), 0, 0 },
  { "metrics", FLAG, AT(subscribe.metrics), 0, 0 },
  { "metric_every_ms", INTEGER, AT(subscribe.metric_every_ms), 0, FZ_INT_MAX },
  { "at_step", TIME, AT(subscribe.at_step), 0, FZ_STEP_MAX },
};

static const struct field notice_fields[] = {
  { "level", LEVEL, AT(notice.level), 0, 0 },
  { "code", STRING, AT(notice.code), 1, FZ_CODE_MAX },
  { "message", TEXT, AT(notice.message), 0, SENTENCE_MAX },
};

static const struct field error_fields[] = {
  { "close", OPTION, AT(error.close), 0, 0 },
};

#define FIELDS(table) table##_fields, sizeof(table##_fields) / sizeof(table##_fields[0])

static const struct layout {
  const char *name;
  const struct field *fields;
  size_t n_fields;
} layouts[] = {
  [FZ_MESSAGE_HELLO] = { "hello", FIELDS(hello) },
  [FZ_MESSAGE_RESUME] = { "resume", FIELDS(resume) },
  [FZ_MESSAGE_PARAMS] = { "params", FIELDS(params) },
  [FZ_MESSAGE_READY] = { "ready", FIELDS(at) },
  [FZ_MESSAGE_STEP] = { "step", FIELDS(at) },
  [FZ_MESSAGE_EPOCH] = { "epoch", FIELDS(at) },
  [FZ_MESSAGE_METRIC] = { "metric", FIELDS(metric) },
  [FZ_MESSAGE_APPLIED] = { "applied", FIELDS(applied) },
  [FZ_MESSAGE_REWIND] = { "rewind", FIELDS(at) },
  [FZ_MESSAGE_BYE] = { "bye", NULL, 0 },
  [FZ_MESSAGE_NEED] = { "need", FIELDS(need) },
  [FZ_MESSAGE_WELCOME] = { "welcome", FIELDS(welcome) },
  [FZ_MESSAGE_SUBSCRIBE] = { "subscribe", FIELDS(subscribe) },
  [FZ_MESSAGE_NOTICE] = { "notice", FIELDS(notice) },
  [FZ_MESSAGE_ERROR] = { "error", FIELDS(error) },
};

#define N_MESSAGES (sizeof(layouts) / sizeof(layouts[0]))

static const char *const level_words[] = {
  [FZ_LEVEL_INFO] = "info", [FZ_LEVEL_WARNING] = "warning", [FZ_LEVEL_ERROR] = "error", NULL
};

const char *fz_message_name(enum fz_message_type type) { return layouts[type].name; }

enum fz_code fz_decode_code(int outcome, bool control) {
  if (outcome == FZ_DECODE_VERSION)
    return FZ_CODE_PROTOCOL;
  if (outcome == FZ_DECODE_UNKNOWN)
    return control ? FZ_CODE_UNKNOWN_OP : FZ_CODE_BAD_REQUEST;
  return FZ_CODE_BAD_FIELD;
}

/* --- decoding --- */

static void decode_field(fz_message *message, const struct field *f, const fz_json *root, fz_field_error *error) {
  void *place = (char *)message + f->offset;
  switch (f->kind) {
  case INTEGER:
    *(uint64_t *)place = fz_json_get_integer(root, f->name, f->min, f->max, error);
    break;
  case TIME:
    *(uint64_t *)place = FZ_TIME_NEVER;
    (void)fz_json_find_integer(root, f->name, f->min, f->max, place, error);
    break;
  case FLAG:
    *(bool *)place = fz_json_get_bool(root, f->name, error);
    break;
  case OPTION:
    (void)fz_json_find_bool(root, f->name, place, error);
    break;
  case STRING:
    *(const char **)place = fz_json_get_string(root, f->name, f->min, f->max, error);
    break;
  case TEXT:
    *(const char **)place = fz_json_get_text(root, f->name, f->max, error);
    break;
  case HASH:
    *(uint64_t *)place = fz_json_get_hash(root, f->name, error);
    break;
  case OBJECT:
    (void)fz_json_find_object(root, f->name, place, error);
    break;
  case LEVEL:
    *(enum fz_level *)place = (enum fz_level)fz_json_get_word(root, f->name, level_words, error);
    break;
  }
}

/* `true`, or a refusal code. NULL stands for true. */
static const char *decode_permission(const fz_json *value, fz_field_error *error) {
  if (fz_json_is_true(value))
    return NULL;
  const char *code = fz_json_string(value);
  const size_t length = code == NULL ? 0 : strlen(code);
  if (length == 0 || length > FZ_CODE_MAX || strspn(code, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") != length)
    fz_field_fail(error, value, NULL, "must be true or a code of 1 to %u of A-Z 0-9 _", FZ_CODE_MAX);
  return code;
}

static void decode_entry(const fz_json *entry, struct fz_params_entry *ret_entry, fz_field_error *error) {
  const fz_json *value = fz_json_first(fz_json_as_array(entry, 5, 6, error));
  ret_entry->name = fz_json_as_string(value, 1, FZ_PARAM_NAME_MAX, error);
  value = fz_json_next(value);
  ret_entry->elements = fz_json_as_integer(value, 0, FZ_INT_MAX, error);
  value = fz_json_next(value);
  ret_entry->requires_grad = fz_json_as_bool(value, error);
  value = fz_json_next(value);
  ret_entry->may_freeze = decode_permission(value, error);
  value = fz_json_next(value);
  ret_entry->may_train = decode_permission(value, error);
  value = fz_json_next(value);
  ret_entry->aliases = value == NULL ? NULL : fz_json_as_array(value, 1, FZ_ALIASES_OF_ONE_MAX, error);
  for (const fz_json *alias = fz_json_first(ret_entry->aliases); alias != NULL; alias = fz_json_next(alias))
    (void)fz_json_as_string(alias, 1, FZ_PARAM_NAME_MAX, error);
}

static void decode_params(struct fz_params_chunk *params, const fz_json *root, fz_field_error *error) {
  params->entries = fz_json_get_array(root, "params", 0, FZ_PARAMS_MAX, error);
  for (const fz_json *item = fz_json_first(params->entries); item != NULL; item = fz_json_next(item)) {
    struct fz_params_entry entry;
    decode_entry(item, &entry, error);
    if (fz_field_error_is_set(error))
      return;
    params->count++;
  }
}

bool fz_params_chunk_next(const struct fz_params_chunk *chunk, const fz_json **cursor,
                          struct fz_params_entry *ret_entry) {
  const fz_json *item = *cursor == NULL ? fz_json_first(chunk->entries) : fz_json_next(*cursor);
  if (item == NULL)
    return false;
  fz_field_error error;
  fz_field_error_init(&error, chunk->entries);
  decode_entry(item, ret_entry, &error);
  *cursor = item;
  return true;
}

static void decode_metrics(struct fz_metrics *metric, const fz_json *root, fz_field_error *error) {
  const fz_json *values = fz_json_get_object(root, "values", error);
  const size_t count = fz_json_count(values);
  if (values != NULL && (count < 1 || count > FZ_METRICS_MAX))
    fz_field_fail(error, values, NULL, "must have 1 to %u entries", FZ_METRICS_MAX);
  for (const fz_json *item = fz_json_first(values); item != NULL && !fz_field_error_is_set(error);
       item = fz_json_next(item)) {
    const char *name = fz_json_key(item);
    const size_t length = strlen(name);
    if (length < 1 || length > FZ_METRIC_NAME_MAX || !fz_text_is_clean(name, length))
      fz_field_fail(error, values, NULL, "must have names of 1 to %u bytes without control characters",
                    FZ_METRIC_NAME_MAX);
    metric->values[metric->count++] = (struct fz_metric){ .name = name, .value = fz_json_as_metric(item, error) };
  }
}

static void decode_error(struct fz_error *body, const fz_json *root, fz_field_error *error) {
  const fz_json *object = fz_json_get_object(root, "error", error);
  body->code = fz_json_get_string(object, "code", 1, FZ_CODE_MAX, error);
  body->message = fz_json_get_text(object, "message", SENTENCE_MAX, error);
  (void)fz_json_find_text(object, "hint", SENTENCE_MAX, &body->hint, error);
}

/* What a table cannot say. */
static void decode_rest(fz_message *message, const fz_json *root, fz_field_error *error) {
  if (message->type == FZ_MESSAGE_HELLO && message->hello.rank >= message->hello.world)
    fz_field_fail(error, root, "rank", "must be an integer below 'world'");
  else if (message->type == FZ_MESSAGE_PARAMS)
    decode_params(&message->params, root, error);
  else if (message->type == FZ_MESSAGE_METRIC)
    decode_metrics(&message->metric, root, error);
  else if (message->type == FZ_MESSAGE_ERROR)
    decode_error(&message->error, root, error);
}

/* The two messages that say a version begin with it, and nothing else of another version is looked at. */
static bool is_other_version(fz_message *message, const fz_json *root, fz_field_error *error) {
  if (message->type != FZ_MESSAGE_HELLO && message->type != FZ_MESSAGE_WELCOME)
    return false;
  const struct field *f = &layouts[message->type].fields[0];
  decode_field(message, f, root, error);
  const uint64_t theirs = message->type == FZ_MESSAGE_HELLO ? message->hello.protocol : message->welcome.protocol;
  if (fz_field_error_is_set(error) || theirs == FZ_PROTOCOL_VERSION)
    return false;
  fz_field_fail(error, root, f->name, "must be %u, not %llu", FZ_PROTOCOL_VERSION, (unsigned long long)theirs);
  return true;
}

int fz_message_decode(fz_message *ret_message, const fz_json *root, fz_field_error *error) {
  fz_field_error_init(error, root);
  const char *name = fz_json_get_string(root, "type", 1, FZ_CODE_MAX, error);
  if (fz_field_error_is_set(error))
    return FZ_DECODE_FIELD;
  size_t type = 0;
  while (type < N_MESSAGES && strcmp(name, layouts[type].name) != 0)
    type++;
  if (type == N_MESSAGES) {
    fz_field_fail(error, root, "type", "is unknown: '%s'", name);
    return FZ_DECODE_UNKNOWN;
  }
  memset(ret_message, 0, sizeof(*ret_message));
  ret_message->type = (enum fz_message_type)type;
  if (is_other_version(ret_message, root, error))
    return FZ_DECODE_VERSION;
  const struct layout *layout = &layouts[type];
  for (size_t i = 0; i < layout->n_fields; i++)
    decode_field(ret_message, &layout->fields[i], root, error);
  if (!fz_field_error_is_set(error))
    decode_rest(ret_message, root, error);
  return fz_field_error_is_set(error) ? FZ_DECODE_FIELD : 0;
}

/* --- encoding --- */

static void encode_field(fz_json_writer *writer, const fz_message *message, const struct field *f) {
  const void *place = (const char *)message + f->offset;
  switch (f->kind) {
  case INTEGER:
    fz_write_integer(writer, f->name, *(const uint64_t *)place);
    break;
  case TIME:
    fz_write_time(writer, f->name, *(const uint64_t *)place);
    break;
  case FLAG:
  case OPTION:
    fz_write_bool(writer, f->name, *(const bool *)place);
    break;
  case STRING:
  case TEXT:
    fz_write_string(writer, f->name, *(const char *const *)place);
    break;
  case HASH:
    fz_write_hash(writer, f->name, *(const uint64_t *)place);
    break;
  case OBJECT:
    if (*(const fz_json *const *)place != NULL)
      fz_write_json(writer, f->name, *(const fz_json *const *)place);
    break;
  case LEVEL:
    fz_write_string(writer, f->name, level_words[*(const enum fz_level *)place]);
    break;
  }
}

static void encode_metrics(fz_json_writer *writer, const struct fz_metrics *metric) {
  fz_write_begin_object(writer, "values");
  for (size_t i = 0; i < metric->count; i++)
    fz_write_number(writer, metric->values[i].name, metric->values[i].value);
  fz_write_end_object(writer);
}

static void encode_error(fz_json_writer *writer, const struct fz_error *body) {
  fz_write_begin_object(writer, "error");
  fz_write_string(writer, "code", body->code);
  fz_write_string(writer, "message", body->message);
  if (body->hint != NULL)
    fz_write_string(writer, "hint", body->hint);
  fz_write_end_object(writer);
}

void fz_message_encode(fz_json_writer *writer, const fz_message *message) {
  const struct layout *layout = &layouts[message->type];
  fz_write_begin_object(writer, NULL);
  fz_write_string(writer, "type", layout->name);
  for (size_t i = 0; i < layout->n_fields; i++)
    encode_field(writer, message, &layout->fields[i]);
  if (message->type == FZ_MESSAGE_METRIC)
    encode_metrics(writer, &message->metric);
  else if (message->type == FZ_MESSAGE_ERROR)
    encode_error(writer, &message->error);
  fz_write_end_object(writer);
}

static void encode_permission(fz_json_writer *writer, const char *refusal) {
  if (refusal == NULL)
    fz_write_bool(writer, NULL, true);
  else
    fz_write_string(writer, NULL, refusal);
}

/* The aliases of parameter `param`, of which the first is `*alias`; that moves on. */
static void encode_aliases(fz_json_writer *writer, const fz_params *params, size_t param, size_t *alias) {
  const size_t first = *alias, count = fz_params_count_aliases(params);
  for (; *alias < count && fz_params_get_alias(params, *alias)->param == param; (*alias)++) {
    const struct fz_alias *found = fz_params_get_alias(params, *alias);
    if (*alias == first)
      fz_write_begin_array(writer, NULL);
    fz_write_bytes(writer, NULL, found->name, found->name_length);
  }
  if (*alias > first)
    fz_write_end_array(writer);
}

/* The first alias of parameter `param` or of one behind it. */
static size_t first_alias(const fz_params *params, size_t param) {
  size_t alias = 0;
  while (alias < fz_params_count_aliases(params) && fz_params_get_alias(params, alias)->param < param)
    alias++;
  return alias;
}

size_t fz_params_encode(fz_json_writer *writer, const fz_params *params, size_t first) {
  enum {
    ENDING = 2,               /* of the array and of the object */
    LONG_ENOUGH = 128 * 1024, /* for freezerd, which turns to its other peers between two lines */
  };
  fz_write_begin_object(writer, NULL);
  fz_write_string(writer, "type", layouts[FZ_MESSAGE_PARAMS].name);
  fz_write_integer(writer, "first", first);
  fz_write_begin_array(writer, "params");
  size_t i = first, alias = first_alias(params, first);
  for (; i < fz_params_count(params) && fz_writer_length(writer) < LONG_ENOUGH; i++) {
    const struct fz_param *param = fz_params_get(params, i);
    const size_t mark = fz_writer_length(writer);
    fz_write_begin_array(writer, NULL);
    fz_write_bytes(writer, NULL, param->name, param->name_length);
    fz_write_integer(writer, NULL, param->elements);
    fz_write_bool(writer, NULL, param->requires_grad);
    encode_permission(writer, param->may_freeze);
    encode_permission(writer, param->may_train);
    encode_aliases(writer, params, i, &alias);
    fz_write_end_array(writer);
    if (fz_writer_room(writer) < ENDING) {
      fz_writer_rewind(writer, mark);
      break;
    }
  }
  fz_write_end_array(writer);
  fz_write_end_object(writer);
  return i;
}

void fz_write_version_mismatch(fz_json_writer *writer, const uint64_t *id, uint64_t theirs) {
  char message[80];
  (void)snprintf(message, sizeof(message), "freezerd speaks protocol %u, you %llu", FZ_PROTOCOL_VERSION,
                 (unsigned long long)theirs);
  fz_write_begin_object(writer, NULL);
  fz_write_string(writer, "type", layouts[FZ_MESSAGE_ERROR].name);
  fz_write_bool(writer, "ok", false);
  if (id != NULL)
    fz_write_integer(writer, "id", *id);
  encode_error(writer, &(struct fz_error){ .code = fz_code_name(FZ_CODE_PROTOCOL), .message = message });
  fz_write_integer(writer, "protocol", FZ_PROTOCOL_VERSION);
  fz_write_end_object(writer);
}

void fz_write_refusal(fz_json_writer *writer, enum fz_code code, const char *message) {
  fz_write_begin_object(writer, NULL);
  fz_write_string(writer, "type", layouts[FZ_MESSAGE_ERROR].name);
  fz_write_bool(writer, "ok", false);
  encode_error(writer, &(struct fz_error){ .code = fz_code_name(code), .message = message });
  fz_write_bool(writer, "close", true);
  fz_write_end_object(writer);
}
