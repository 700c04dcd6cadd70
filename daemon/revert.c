/* revert.c - finds the decisions that a run had at an earlier gen. */
#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/history.h"
#include "daemon/revert.h"
#include "daemon/run.h"
#include "daemon/state.h"

static bool is_change(const fz_json *line) {
  const char *event = fz_json_string(fz_json_member(line, "event"));

  return event && strcmp(event, "change") == 0;
}

static uint64_t integer_of(const fz_json *line, const char *key) {
  uint64_t value = 0;

  return fz_json_integer(fz_json_member(line, key), &value) ? value : 0;
}

/** Whether a line that holds a state is what the decisions of `gen` are. */
static bool is_at(const fz_run *run, const fz_json *line, uint64_t gen) {
  const uint64_t incarnation = integer_of(line, "incarnation");

  return incarnation < run->incarnation || (incarnation == run->incarnation && integer_of(line, "gen") <= gen);
}

/** The line to go back to, which the caller frees; NULL with 0: it is not kept. */
static int find_line(const fz_run *run, uint64_t gen, const char *text, size_t length, size_t *ret_undone,
                     fz_json **ret_line) {
  struct fz_history_cursor cursor = { .text = text, .length = length };
  fz_json *line;

  *ret_undone = 0;
  while ((line = fz_history_older(&cursor))) {
    if (fz_json_member(line, "state")) {
      const bool found = gen == FZ_TIME_NEVER ? *ret_undone > 0 : is_at(run, line, gen);
      if (found)
        break;
      *ret_undone += is_change(line);
    }
    fz_json_free(line);
  }
  *ret_line = line;
  return cursor.error;
}

static int refuse_gen(fz_client *client, const fz_request *request, const fz_run *run) {
  if (request->gen == FZ_TIME_NEVER)
    fz_client_error(client, request->id, FZ_CODE_NO_GEN, "'freezerctl history' shows what is kept",
                    "run %s has no change that could be taken back", run->name);
  else if (request->gen > run->plan.gen)
    fz_client_error(client, request->id, FZ_CODE_NO_GEN, "'freezerctl history' shows them all",
                    "run %s has no gen %" PRIu64 " yet, the newest is %" PRIu64, run->name, request->gen,
                    run->plan.gen);
  else
    fz_client_error(client, request->id, FZ_CODE_NO_GEN, "'freezerctl history' shows what is kept",
                    "the decisions of gen %" PRIu64 " of run %s are not kept any more", request->gen, run->name);
  return -ENOENT;
}

static int take_state(fz_run *run, fz_pending *pending, const fz_json *line) {
  struct fz_state_rules rules = { .origin = FZ_RULES_NONE };
  int r = fz_layers_new(&pending->target, run->params);

  if (r == 0)
    r = fz_state_decisions(run, fz_json_member(line, "state"), pending->target, &rules);
  if (r < 0)
    return r;
  /* Rules that do not fit any more are none. */
  const bool none = !fz_layers_rules(pending->target);
  pending->rules_origin = none ? FZ_RULES_NONE : rules.origin;
  pending->source = !none && rules.source ? strdup(rules.source) : NULL;
  pending->rules_by = !none && rules.by ? strdup(rules.by) : NULL;
  pending->to_gen = integer_of(line, "gen");
  return !none && ((rules.source && !pending->source) || (rules.by && !pending->rules_by)) ? -ENOMEM : 0;
}

int fz_revert_find(fz_client *client, const fz_request *request, fz_run *run, fz_pending *pending) {
  char *text = NULL;
  size_t length = 0;
  fz_json *line = NULL;

  if (request->gen != FZ_TIME_NEVER && request->gen > run->plan.gen)
    return refuse_gen(client, request, run);
  int r = fz_history_read(run, &text, &length);
  if (r == 0)
    r = find_line(run, request->gen, text, length, &pending->undone, &line);
  free(text);
  if (r == 0 && !line)
    return refuse_gen(client, request, run);
  if (r == 0)
    r = take_state(run, pending, line);
  if (request->gen != FZ_TIME_NEVER)
    pending->to_gen = request->gen;
  fz_json_free(line);
  if (r < 0)
    fz_client_error(client, request->id, r == -ENOMEM ? FZ_CODE_NO_MEMORY : FZ_CODE_INTERNAL, NULL,
                    "the history of run %s cannot be used: %s", run->name, strerror(-r));
  return r;
}
