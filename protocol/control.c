/* control.c - requests of control clients and their answers. */
#include "config.h"

#include <string.h>

#include "protocol/control.h"

#define WORD_MAX 32U
#define SOURCE_MAX 4096U /* a path, for people */
#define HOST_MAX 255U

static const struct {
  const char *name;
  bool change;
} ops[] = {
#define X(c, wire, change) [FZ_OP_##c] = { wire, change },
  FZ_OPS(X)
#undef X
};

static const char *const wait_words[] = {
  [FZ_WAIT_ATTACHED] = "attached", [FZ_WAIT_APPLIED] = "applied", [FZ_WAIT_FROZEN] = "frozen",
  [FZ_WAIT_TRAINING] = "training", [FZ_WAIT_STEP] = "step",       [FZ_WAIT_IDLE] = "idle",
  [FZ_WAIT_DETACHED] = "detached", [FZ_WAIT_IN_SYNC] = "in-sync", NULL,
};

/* These stand for what follows "any" in their enums. */
static const char *const pin_words[] = { "frozen", "training", NULL };
static const char *const state_words[] = { "frozen", "training", "pending", NULL };
static const char *const why_words[] = { "baseline", "rule", "override", "pin", NULL };

const char *fz_op_name(enum fz_op op) { return ops[op].name; }

bool fz_op_is_change(enum fz_op op) { return ops[op].change; }

bool fz_op_parse(const char *name, enum fz_op *ret_op) {
  for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]); i++)
    if (strcmp(ops[i].name, name) == 0) {
      *ret_op = (enum fz_op)i;
      return true;
    }
  return false;
}

const char *fz_wait_for_name(enum fz_wait_for wait_for) { return wait_words[wait_for]; }

bool fz_is_request(const fz_json *root) { return fz_json_member(root, "op") != NULL; }

/* --- decoding --- */

/* 0 when it was not given, else the word's place in its enum, behind "any". */
static size_t find_word(const fz_json *root, const char *key, const char *const *words, fz_field_error *error) {
  size_t index;
  return fz_json_find_word(root, key, words, &index, error) ? index + 1 : 0;
}

static void decode_patterns(fz_request *request, const fz_json *root, bool required, fz_field_error *error) {
  if (required)
    request->patterns = fz_json_get_array(root, "patterns", 1, FZ_PATTERNS_MAX, error);
  else
    (void)fz_json_find_array(root, "patterns", 0, FZ_PATTERNS_MAX, &request->patterns, error);
  for (const fz_json *item = fz_json_first(request->patterns); item != NULL; item = fz_json_next(item)) {
    (void)fz_json_as_string(item, 1, FZ_PATTERN_MAX, error);
    request->n_patterns++;
  }
}

static void decode_change(fz_request *request, const fz_json *root, fz_field_error *error) {
  (void)fz_json_find_string(root, "reason", 0, FZ_REASON_MAX, &request->reason, error);
  (void)fz_json_find_bool(root, "dry_run", &request->dry_run, error);
  (void)fz_json_find_bool(root, "force", &request->force, error);
  (void)fz_json_find_bool(root, "include_baseline", &request->include_baseline, error);
  (void)fz_json_find_bool(root, "yes", &request->yes, error);
  (void)fz_json_find_integer(root, "wait_ms", 0, FZ_WAIT_MS_MAX, &request->wait_ms, error);
}

static void decode_times(fz_request *request, const fz_json *root, fz_field_error *error) {
  (void)fz_json_find_integer(root, "for", 1, FZ_STEP_MAX, &request->for_steps, error);
  (void)fz_json_find_integer(root, "at_step", 0, FZ_STEP_MAX, &request->at_step, error);
  (void)fz_json_find_integer(root, "until_step", 0, FZ_STEP_MAX, &request->until_step, error);
  (void)fz_json_find_integer(root, "until_epoch", 0, FZ_EPOCH_MAX, &request->until_epoch, error);
}

static void decode_list(fz_request *request, const fz_json *root, fz_field_error *error) {
  decode_patterns(request, root, false, error);
  request->list_state = (enum fz_list_state)find_word(root, "state", state_words, error);
  request->list_why = (enum fz_list_why)find_word(root, "why", why_words, error);
  (void)fz_json_find_integer(root, "at", 0, FZ_STEP_MAX, &request->at, error);
}

static void decode_wait(fz_request *request, const fz_json *root, fz_field_error *error) {
  request->wait_for = (enum fz_wait_for)fz_json_get_word(root, "for", wait_words, error);
  request->wait_ms = FZ_TIME_NEVER;
  (void)fz_json_find_integer(root, "wait_ms", 0, FZ_INT_MAX, &request->wait_ms, error);
  (void)fz_json_find_integer(root, "gen", 0, FZ_GEN_MAX, &request->gen, error);
  (void)fz_json_find_integer(root, "step", 0, FZ_STEP_MAX, &request->step, error);
  (void)fz_json_find_string(root, "pattern", 1, FZ_PATTERN_MAX, &request->pattern, error);
  const bool selects = request->wait_for == FZ_WAIT_FROZEN || request->wait_for == FZ_WAIT_TRAINING;
  if (selects && request->pattern == NULL)
    fz_field_fail(error, root, "pattern", "is missing");
  if (request->wait_for == FZ_WAIT_STEP && request->step == FZ_TIME_NEVER)
    fz_field_fail(error, root, "step", "is missing");
}

static void decode_rules(fz_request *request, const fz_json *root, fz_field_error *error) {
  request->rules = fz_json_get_object(root, "rules", error);
  (void)fz_json_find_bool(root, "allow_missing", &request->allow_missing, error);
  (void)fz_json_find_string(root, "source", 0, SOURCE_MAX, &request->source, error);
}

static void decode_op_fields(fz_request *request, const fz_json *root, fz_field_error *error) {
  switch (request->op) {
  case FZ_OP_PING:
  case FZ_OP_RUNS:
  case FZ_OP_STATUS:
  case FZ_OP_RULES_SHOW:
  case FZ_OP_RULES_UNLOAD:
  case FZ_OP_WATCH:
    break;
  case FZ_OP_LIST:
    decode_list(request, root, error);
    break;
  case FZ_OP_FREEZE:
  case FZ_OP_UNFREEZE:
    decode_patterns(request, root, true, error);
    decode_times(request, root, error);
    break;
  case FZ_OP_PIN:
    decode_patterns(request, root, true, error);
    request->pin_value = (enum fz_pin_value)find_word(root, "value", pin_words, error);
    break;
  case FZ_OP_AUTO:
  case FZ_OP_UNPIN:
  case FZ_OP_IS_FROZEN:
    decode_patterns(request, root, true, error);
    break;
  case FZ_OP_RULES_LOAD:
  case FZ_OP_RULES_CHECK:
    decode_rules(request, root, error);
    break;
  case FZ_OP_EXPLAIN:
    request->param = fz_json_get_string(root, "param", 1, FZ_PARAM_NAME_MAX, error);
    break;
  case FZ_OP_WAIT:
    decode_wait(request, root, error);
    break;
  case FZ_OP_HISTORY:
    (void)fz_json_find_integer(root, "limit", 1, FZ_INT_MAX, &request->limit, error);
    break;
  case FZ_OP_REVERT:
    (void)fz_json_find_integer(root, "gen", 1, FZ_GEN_MAX, &request->gen, error);
    break;
  }
}

static void decode_common(fz_request *request, const fz_json *root, fz_field_error *error) {
  (void)fz_json_find_string(root, "run", 1, FZ_RUN_NAME_MAX, &request->run, error);
  const fz_json *by;
  if (!fz_json_find_object(root, "by", &by, error))
    return;
  (void)fz_json_find_string(by, "user", 0, HOST_MAX, &request->by_user, error);
  (void)fz_json_find_string(by, "host", 0, HOST_MAX, &request->by_host, error);
}

int fz_request_decode(fz_request *ret_request, const fz_json *root, fz_field_error *error) {
  *ret_request = (fz_request)FZ_REQUEST_NULL;
  fz_field_error_init(error, root);
  ret_request->has_id = fz_json_integer(fz_json_member(root, "id"), &ret_request->id);
  if (fz_json_find_integer(root, "protocol", 0, FZ_INT_MAX, &ret_request->protocol, error) &&
      ret_request->protocol != FZ_PROTOCOL_VERSION) {
    fz_field_fail(error, root, "protocol", "must be %u, not %llu", FZ_PROTOCOL_VERSION,
                  (unsigned long long)ret_request->protocol);
    return FZ_DECODE_VERSION;
  }
  (void)fz_json_get_integer(root, "id", 0, FZ_INT_MAX, error);
  const char *name = fz_json_get_string(root, "op", 1, WORD_MAX, error);
  if (fz_field_error_is_set(error))
    return FZ_DECODE_FIELD;
  if (!fz_op_parse(name, &ret_request->op)) {
    fz_field_fail(error, root, "op", "is unknown: '%s'", name);
    return FZ_DECODE_UNKNOWN;
  }
  decode_common(ret_request, root, error);
  if (fz_op_is_change(ret_request->op))
    decode_change(ret_request, root, error);
  decode_op_fields(ret_request, root, error);
  return fz_field_error_is_set(error) ? FZ_DECODE_FIELD : 0;
}

/* --- answers and requests --- */

void fz_answer_begin(fz_json_writer *writer, uint64_t id) {
  fz_write_begin_object(writer, NULL);
  fz_write_integer(writer, "id", id);
  fz_write_bool(writer, "ok", true);
}

void fz_answer_part_begin(fz_json_writer *writer, uint64_t id) {
  fz_write_begin_object(writer, NULL);
  fz_write_integer(writer, "id", id);
  fz_write_bool(writer, "part", true);
}

void fz_answer_event_begin(fz_json_writer *writer, uint64_t id) {
  fz_write_begin_object(writer, NULL);
  fz_write_integer(writer, "id", id);
  fz_write_begin_object(writer, "event");
}

void fz_answer_error_begin(fz_json_writer *writer, const uint64_t *id, enum fz_code code, const char *message,
                           const char *hint) {
  fz_write_begin_object(writer, NULL);
  if (id != NULL)
    fz_write_integer(writer, "id", *id);
  fz_write_bool(writer, "ok", false);
  fz_write_begin_object(writer, "error");
  fz_write_string(writer, "code", fz_code_name(code));
  fz_write_string(writer, "message", message);
  if (hint != NULL)
    fz_write_string(writer, "hint", hint);
}

void fz_answer_error(fz_json_writer *writer, const uint64_t *id, enum fz_code code, const char *message,
                     const char *hint) {
  fz_answer_error_begin(writer, id, code, message, hint);
  fz_write_end_object(writer);
  fz_write_end_object(writer);
}

void fz_request_begin(fz_json_writer *writer, uint64_t id, enum fz_op op) {
  fz_write_begin_object(writer, NULL);
  fz_write_integer(writer, "protocol", FZ_PROTOCOL_VERSION);
  fz_write_integer(writer, "id", id);
  fz_write_string(writer, "op", fz_op_name(op));
}
