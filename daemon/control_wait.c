/* control_wait.c - watch and wait: requests that go on until something happens. */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/control.h"
#include "daemon/pending.h"
#include "daemon/run.h"
#include "daemon/trainer.h"
#include "daemon/watchers.h"
#include "protocol/mask.h"

void fz_op_watch(fz_client *client, const fz_request *request) {
  const fz_run *run = NULL;
  int r;

  if (request->run) {
    run = fz_control_run(client, request);
    if (!run)
      return;
  }
  r = client->n_open >= FZ_CLIENT_OPEN_MAX ? -ENOSPC : fz_watch_start(client, request->id, run ? run->name : NULL);
  if (r < 0) {
    fz_client_error(client, request->id, r == -ENOSPC ? FZ_CODE_TOO_MANY : FZ_CODE_NO_MEMORY, NULL, "%s",
                    r == -ENOSPC ? "this connection has too many requests open" : "out of memory");
    return;
  }
  fz_answer_begin(&client->core->writer, request->id);
  fz_write_end_object(&client->core->writer);
  fz_client_send(client);
}

/* ---------------------------------------------------------------------------------------------------------- conditions */

/** Whether all that the pattern selects has this flag. A pattern that selects nothing waits. */
static bool all_are(const fz_run *run, const char *pattern, bool trains) {
  const size_t n = fz_params_count(run->params), words = fz_mask_words(n);
  uint64_t *mask = calloc(2 * words + 1, sizeof(*mask));
  bool all = false;

  if (mask && fz_patterns_match(run->params, &pattern, 1, mask, NULL) == 0 && fz_run_mask(run, mask + words) == 0) {
    all = true;
    for (size_t w = 0; w < words; w++)
      all = all && (mask[w] & (trains ? ~mask[words + w] : mask[words + w])) == 0;
  }
  free(mask);
  return all;
}

/** Without a gen, what was accepted so far; with one, that or a newer one. */
static bool is_applied(const fz_run *run, const fz_waiter *waiter) {
  if (waiter->gen == FZ_TIME_NEVER) {
    for (const fz_pending *pending = run->pendings; pending; pending = pending->next)
      if (pending->accepted_ms <= waiter->since_ms)
        return false;
    return run->plan.gen > 0;
  }
  return run->segment && fz_run_applied_gen(run) >= waiter->gen;
}

static bool in_sync(const fz_run *run) {
  return fz_run_complete(run) && run->plan.gen > 0 && fz_run_applied_gen(run) == run->plan.gen;
}

static bool is_met(const fz_run *run, const fz_waiter *waiter) {
  uint64_t step, epoch;

  switch (waiter->wait_for) {
  case FZ_WAIT_ATTACHED:
    return fz_run_complete(run);
  case FZ_WAIT_APPLIED:
    return is_applied(run, waiter);
  case FZ_WAIT_FROZEN:
    return all_are(run, waiter->pattern, false);
  case FZ_WAIT_TRAINING:
    return all_are(run, waiter->pattern, true);
  case FZ_WAIT_STEP:
    fz_run_now(run, &step, &epoch);
    return fz_run_attached(run) > 0 && step >= waiter->step;
  case FZ_WAIT_IDLE:
    return run->n_pendings == 0;
  case FZ_WAIT_DETACHED:
    return !run->live;
  case FZ_WAIT_IN_SYNC:
    return in_sync(run);
  }
  return false;
}

static void answer(fz_waiter *waiter, const fz_run *run, bool met) {
  fz_client *client = waiter->client;
  fz_json_writer *writer = &client->core->writer;
  uint64_t step = 0, epoch = 0;

  fz_answer_begin(writer, waiter->id);
  fz_write_bool(writer, "met", met);
  if (run) {
    fz_run_now(run, &step, &epoch);
    fz_write_string(writer, "run", run->name);
    fz_write_integer(writer, "step", step);
    fz_write_integer(writer, "gen", fz_run_gen_newest(run));
  }
  fz_write_end_object(writer);
  fz_client_send(client);
  fz_waiter_free(waiter);
}

void fz_wait_expired(fz_waiter *waiter) { answer(waiter, fz_control_find(waiter->client->core, waiter->run), false); }

/* -------------------------------------------------------------------------------------------------------------- waiting */

uint64_t fz_waits_next_step(const fz_core *core, const fz_run *run, uint64_t step) {
  uint64_t next = FZ_TIME_NEVER;

  for (const fz_waiter *waiter = core->waiters; waiter; waiter = waiter->core_next)
    if (waiter->wait_for == FZ_WAIT_STEP && waiter->step > step && waiter->step < next &&
        fz_control_find(core, waiter->run) == run)
      next = waiter->step;
  return next;
}

void fz_waits_check(fz_core *core, const fz_run *run) {
  fz_waiter *waiter = core->waiters;

  while (waiter) {
    fz_waiter *next = waiter->core_next;
    if (run->params && fz_control_find(core, waiter->run) == run && is_met(run, waiter))
      answer(waiter, run, true);
    waiter = next;
  }
}

/** Ranks are asked to say when they come to the step, so that the answer is not up to a second late. */
static void ask_ranks(fz_run *run, uint64_t step) {
  for (uint32_t i = 0; i < run->world; i++)
    if (run->ranks[i].attached && step < run->ranks[i].at_step)
      fz_trainer_subscribe(run->ranks[i].trainer);
}

void fz_wait_start(fz_waiter *waiter) {
  fz_core *core = waiter->client->core;
  fz_run *run = fz_control_find(core, waiter->run);
  const enum fz_wait_for wait_for = waiter->wait_for;
  const uint64_t step = waiter->step;

  waiter->core_next = core->waiters;
  core->waiters = waiter;
  if (!run)
    return;
  if (is_met(run, waiter))
    answer(waiter, run, true);
  else if (wait_for == FZ_WAIT_STEP)
    ask_ranks(run, step);
}

/** A pattern that is wrong would wait for ever. */
static bool check_pattern(fz_client *client, const fz_request *request) {
  const fz_run *run = fz_control_find(client->core, request->run);
  fz_diagnostics diagnostics = FZ_DIAGNOSTICS_NULL;
  bool good = true;

  if (!request->pattern || !run)
    return true;
  uint64_t *mask = calloc(fz_mask_words(fz_params_count(run->params)) + 1, sizeof(*mask));
  const int r = mask ? fz_patterns_match(run->params, &request->pattern, 1, mask, &diagnostics) : -ENOMEM;
  if (r != 0) {
    const struct fz_diagnostic *first = fz_diagnostics_first_error(&diagnostics);
    fz_client_error(client, request->id,
                    r < 0                  ? FZ_CODE_NO_MEMORY
                    : r == FZ_PATTERNS_BAD ? FZ_CODE_BAD_PATTERN
                                           : FZ_CODE_NO_MATCH,
                    first ? first->hint : NULL, "%s", first ? first->message : "out of memory");
    good = false;
  }
  fz_diagnostics_deinit(&diagnostics);
  free(mask);
  return good;
}

void fz_op_wait(fz_client *client, const fz_request *request) {
  fz_waiter *waiter = NULL;
  int r;

  if (!check_pattern(client, request))
    return;
  r = fz_waiter_new(&waiter, client, request->id, request->wait_ms);
  if (r == 0) {
    waiter->wait_for = request->wait_for;
    waiter->gen = request->gen;
    waiter->step = request->step;
    waiter->run = request->run ? strdup(request->run) : NULL;
    waiter->pattern = request->pattern ? strdup(request->pattern) : NULL;
    if ((request->run && !waiter->run) || (request->pattern && !waiter->pattern)) {
      fz_waiter_free(waiter);
      r = -ENOMEM;
    }
  }
  if (r < 0) {
    fz_client_error(client, request->id, r == -ENOSPC ? FZ_CODE_TOO_MANY : FZ_CODE_NO_MEMORY, NULL, "%s",
                    r == -ENOSPC ? "this connection has too many requests open" : "out of memory");
    return;
  }
  fz_wait_start(waiter);
}
