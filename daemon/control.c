/* control.c - requests of control clients: which function does which operation, and what they share. */
#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/batch.h"
#include "daemon/control.h"
#include "daemon/flips.h"
#include "daemon/rules/selector.h"
#include "daemon/run.h"
#include "daemon/text.h"
#include "protocol/mask.h"

static void (*const ops[])(fz_client *client, const fz_request *request) = {
  [FZ_OP_PING] = fz_op_ping,
  [FZ_OP_RUNS] = fz_op_runs,
  [FZ_OP_STATUS] = fz_op_status,
  [FZ_OP_LIST] = fz_op_list,
  [FZ_OP_FREEZE] = fz_op_change,
  [FZ_OP_UNFREEZE] = fz_op_change,
  [FZ_OP_AUTO] = fz_op_change,
  [FZ_OP_PIN] = fz_op_change,
  [FZ_OP_UNPIN] = fz_op_change,
  [FZ_OP_IS_FROZEN] = fz_op_is_frozen,
  [FZ_OP_RULES_LOAD] = fz_op_change,
  [FZ_OP_RULES_CHECK] = fz_op_rules_check,
  [FZ_OP_RULES_SHOW] = fz_op_rules_show,
  [FZ_OP_RULES_UNLOAD] = fz_op_change,
  [FZ_OP_EXPLAIN] = fz_op_explain,
  [FZ_OP_HISTORY] = fz_op_history,
  [FZ_OP_REVERT] = fz_op_change,
  [FZ_OP_WATCH] = fz_op_watch,
  [FZ_OP_WAIT] = fz_op_wait,
};

void fz_control_line(fz_client *client, const fz_json *root) {
  fz_json_writer *writer = &client->core->writer;
  fz_request request;
  fz_field_error error;
  const int outcome = fz_request_decode(&request, root, &error);
  const uint64_t *id = request.has_id ? &request.id : NULL;

  if (outcome == FZ_DECODE_VERSION) {
    fz_write_version_mismatch(writer, id, request.protocol);
    fz_client_send(client);
    fz_connection_close(client->connection, "it speaks another protocol version");
    return;
  }
  if (outcome != 0) {
    fz_answer_error(writer, id, fz_decode_code(outcome, true), error.message, NULL);
    fz_client_send(client);
    return;
  }
  if (client->read_only && fz_op_is_change(request.op) && !request.dry_run) {
    fz_client_error(client, request.id, FZ_CODE_PERMISSION, "freezerctl --socket PATH, or $FREEZER_SOCKET",
                    "this socket is for looking only: changes are made at %s", client->core->socket);
    return;
  }
  /* Only these can be tried on what is not on disk yet: they have a mask that says what they are about. */
  const bool joins = ops[request.op] == fz_op_change && request.n_patterns && !request.dry_run;
  if (!joins)
    fz_batches_settle(client->core);
  ops[request.op](client, &request);
  if (!joins)
    fz_batches_settle(client->core);
}

/* ------------------------------------------------------------------------------------------------------ which run */

enum how { EXACT, JOB, PREFIX };

static bool matches(const fz_run *run, const char *spec, enum how how) {
  switch (how) {
  case EXACT:
    return strcmp(run->name, spec) == 0;
  case JOB:
    return strcmp(run->job, spec) == 0;
  case PREFIX:
    return strncmp(run->name, spec, strlen(spec)) == 0;
  }
  return false;
}

/** How many runs match; the one that lives counts alone if there is just one. */
static size_t count(const fz_core *core, const char *spec, enum how how, fz_run **ret_run) {
  size_t n = 0, n_live = 0;
  fz_run *any = NULL, *live = NULL;

  for (fz_run *run = core->runs; run; run = run->next) {
    if (!run->params || (spec && !matches(run, spec, how)))
      continue;
    n++;
    any = run;
    if (run->live) {
      n_live++;
      live = run;
    }
  }
  *ret_run = n_live == 1 ? live : any;
  return n_live == 1 ? 1 : n;
}

static size_t search(const fz_core *core, const char *spec, fz_run **ret_run) {
  size_t n = 0;

  if (!spec)
    return count(core, NULL, EXACT, ret_run);
  for (int how = EXACT; n == 0 && how <= PREFIX; how++)
    n = count(core, spec, (enum how)how, ret_run);
  return n;
}

fz_run *fz_control_find(const fz_core *core, const char *spec) {
  fz_run *run = NULL;

  return search(core, spec, &run) == 1 ? run : NULL;
}

/** "runs: a, b, c", for a hint. */
static char *list_runs(const fz_core *core) {
  char text[400] = "runs:";
  size_t length = strlen(text);

  for (const fz_run *run = core->runs; run; run = run->next) {
    if (!run->params)
      continue;
    const int n = snprintf(text + length, sizeof(text) - length, "%s %s", length > 5 ? "," : "", run->name);
    if (n < 0 || (size_t)n >= sizeof(text) - length) {
      strcpy(text + (length < sizeof(text) - 6 ? length : sizeof(text) - 6), ", ...");
      break;
    }
    length += (size_t)n;
  }
  return length > 5 ? strdup(text) : NULL;
}

fz_run *fz_control_run(fz_client *client, const fz_request *request) {
  fz_run *run = NULL;
  const size_t n = search(client->core, request->run, &run);
  char *hint;

  if (n == 1) {
    fz_flips_look(run);
    return run;
  }
  hint = list_runs(client->core);
  if (n == 0 && !request->run)
    fz_client_error(client, request->id, FZ_CODE_NO_RUN, "start a trainer, it attaches by itself",
                    "no run has attached to this freezerd");
  else if (n == 0)
    fz_client_error(client, request->id, FZ_CODE_NO_RUN, hint ? hint : "no run has attached to this freezerd yet",
                    "no run '%s'", request->run);
  else if (request->run)
    fz_client_error(client, request->id, FZ_CODE_AMBIGUOUS_RUN, hint, "%zu runs match '%s'", n, request->run);
  else
    fz_client_error(client, request->id, FZ_CODE_AMBIGUOUS_RUN, hint, "there are %zu runs: say which", n);
  free(hint);
  return NULL;
}

/* ----------------------------------------------------------------------------------------------------- which parameters */

/** The pattern that a diagnostic is about, "/<index>" in the list; NULL: it is about the list. */
static const char *pattern_of(const struct fz_diagnostic *diagnostic, const char *const *patterns, size_t n) {
  char *end;

  if (diagnostic->pointer[0] != '/')
    return NULL;
  const unsigned long long index = strtoull(diagnostic->pointer + 1, &end, 10);
  return *end == '\0' && index < n ? patterns[index] : NULL;
}

static void answer_bad_pattern(fz_client *client, const fz_request *request, const struct fz_diagnostic *first,
                               const char *pattern) {
  const char *message = first ? first->message : "a pattern is wrong";

  /* Some sentences, as that of one which takes too long, have the pattern in them. */
  if (pattern && !strstr(message, pattern))
    fz_client_error(client, request->id, FZ_CODE_BAD_PATTERN, first->hint, "pattern '%s': %s", pattern, message);
  else
    fz_client_error(client, request->id, FZ_CODE_BAD_PATTERN, first ? first->hint : NULL, "%s", message);
}

static void answer_patterns(fz_client *client, const fz_request *request, const fz_run *run, int outcome,
                            const fz_diagnostics *diagnostics, const char *const *patterns) {
  const struct fz_diagnostic *first = fz_diagnostics_first_error(diagnostics);
  const char *message = first ? first->message : "the patterns select nothing";
  const size_t n = fz_params_count(run->params);

  if (outcome < 0)
    fz_client_error(client, request->id, FZ_CODE_NO_MEMORY, NULL, "out of memory");
  else if (outcome == FZ_PATTERNS_BAD)
    answer_bad_pattern(client, request, first, first ? pattern_of(first, patterns, request->n_patterns) : NULL);
  else
    fz_client_error(client, request->id, FZ_CODE_NO_MATCH, first ? first->hint : NULL, "%s in run %s (%zu parameter%s)",
                    message, run->name, n, fz_text_plural(n));
}

uint64_t *fz_control_match(fz_client *client, const fz_request *request, const fz_run *run) {
  const size_t n_params = fz_params_count(run->params);
  uint64_t *mask = calloc(fz_mask_words(n_params) + 1, sizeof(*mask));
  const char **patterns = calloc(request->n_patterns + 1, sizeof(*patterns));
  fz_diagnostics diagnostics = FZ_DIAGNOSTICS_NULL;
  int r = mask && patterns ? 0 : -ENOMEM;

  if (r == 0 && request->n_patterns == 0)
    fz_mask_fill(mask, n_params, true);
  if (r == 0 && request->n_patterns > 0) {
    size_t i = 0;
    for (const fz_json *item = fz_json_first(request->patterns); item; item = fz_json_next(item))
      patterns[i++] = fz_json_string(item);
    r = fz_patterns_match(run->params, patterns, i, mask, &diagnostics);
  }
  if (r != 0) {
    answer_patterns(client, request, run, r, &diagnostics, patterns);
    free(mask);
    mask = NULL;
  }
  fz_diagnostics_deinit(&diagnostics);
  free(patterns);
  return mask;
}

/* --------------------------------------------------------------------------------------------------------------- rules */

static void write_detail(fz_json_writer *writer, const struct fz_diagnostic *item) {
  fz_write_begin_object(writer, NULL);
  fz_write_string(writer, "severity", item->severity == FZ_ERROR ? "error" : "warning");
  fz_write_string(writer, "path", item->pointer);
  fz_write_bool(writer, "key", item->at_key);
  if (item->offset == SIZE_MAX) {
    fz_write_null(writer, "offset");
  } else {
    fz_write_integer(writer, "offset", item->offset);
    fz_write_integer(writer, "length", item->length);
  }
  fz_write_string(writer, "message", item->message);
  fz_write_string(writer, "hint", item->hint);
  fz_write_end_object(writer);
}

void fz_control_rules_invalid(fz_client *client, uint64_t id, const fz_diagnostics *diagnostics) {
  const struct fz_diagnostic *first = fz_diagnostics_first_error(diagnostics);
  fz_json_writer *writer = &client->core->writer;
  char message[1024];

  snprintf(message, sizeof(message), "%s%s", first ? first->message : "the rules are not valid",
           diagnostics->errors > 1 ? " (and more)" : "");
  fz_answer_error_begin(writer, &id, FZ_CODE_RULES_INVALID, message, first ? first->hint : NULL);
  fz_write_begin_array(writer, "details");
  for (size_t i = 0; i < diagnostics->n; i++)
    write_detail(writer, &diagnostics->items[i]);
  fz_write_end_array(writer);
  fz_write_end_object(writer);
  fz_write_end_object(writer);
  fz_client_send(client);
}
