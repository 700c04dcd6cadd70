/* batch.c - changes of a run that were tried and wait for the disk: one write makes all of them durable. */
#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/batch.h"
#include "daemon/client.h"
#include "daemon/history.h"
#include "daemon/pending.h"
#include "daemon/publisher.h"
#include "daemon/run.h"
#include "daemon/run_rules.h"
#include "daemon/state.h"
#include "daemon/watchers.h"
#include "protocol/mask.h"

/* No more is added behind so many bytes. */
#define LINES_MAX (1024U * 1024U)

void fz_batch_deinit(struct fz_batch *batch) {
  for (size_t i = 0; i < batch->n; i++)
    fz_pending_free(batch->items[i].pending);
  free(batch->items);
  fz_layers_free(batch->layers);
  free(batch->mask);
  free(batch->lines);
  *batch = (struct fz_batch){ 0 };
}

bool fz_batch_takes(const fz_run *run, const uint64_t *mask) {
  const struct fz_batch *batch = &run->batch;

  if (batch->n == 0)
    return true;
  if (!mask || !batch->mask || batch->length > LINES_MAX)
    return false;
  for (size_t w = 0; w < fz_mask_words(fz_params_count(run->params)); w++)
    if (mask[w] & batch->mask[w])
      return false;
  return true;
}

const fz_layers *fz_batch_layers(const fz_run *run) { return run->batch.n ? run->batch.layers : run->layers; }

/* -------------------------------------------------------------------------------------------------------------- adding */

/** Whose the rules are with this change; false: it leaves the rules alone. */
static bool new_rules(const fz_run *run, const fz_pending *pending, const fz_layers *layers,
                      struct fz_state_rules *ret_rules) {
  *ret_rules = (struct fz_state_rules){ FZ_RULES_CONTROL, pending->source, pending->by };
  if (pending->op == FZ_OP_REVERT) {
    *ret_rules = (struct fz_state_rules){ pending->rules_origin, pending->source, pending->rules_by };
    return fz_layers_rules(layers) != fz_layers_rules(run->layers);
  }
  return pending->op == FZ_OP_RULES_LOAD || pending->op == FZ_OP_RULES_UNLOAD;
}

/** Room for one more item, and for the mask of all. */
static int reserve(fz_run *run, const uint64_t *mask) {
  struct fz_batch *batch = &run->batch;

  if (batch->n == batch->size) {
    const size_t size = batch->size ? 2 * batch->size : 4;
    struct fz_batch_item *items = realloc(batch->items, size * sizeof(*items));
    if (!items)
      return -ENOMEM;
    batch->items = items;
    batch->size = size;
  }
  if (mask && !batch->mask) {
    batch->mask = calloc(fz_mask_words(fz_params_count(run->params)) + 1, sizeof(*batch->mask));
    if (!batch->mask)
      return -ENOMEM;
  }
  return 0;
}

static int append(struct fz_batch *batch, const char *line, size_t length) {
  if (batch->length + length > batch->lines_size) {
    const size_t size = 2 * (batch->length + length);
    char *lines = realloc(batch->lines, size);
    if (!lines)
      return -ENOMEM;
    batch->lines = lines;
    batch->lines_size = size;
  }
  memcpy(batch->lines + batch->length, line, length);
  batch->length += length;
  return 0;
}

static int write_line(fz_run *run, fz_pending *pending, const fz_layers *layers, uint64_t step) {
  struct fz_state_rules rules;
  const bool of_rules = new_rules(run, pending, layers, &rules);
  const struct fz_record record = {
    .event = "change", .gen = run->plan.gen + 1, .has_step = true, .step = step, .pending = pending
  };
  struct fz_state_line line = FZ_STATE_LINE_NULL;

  pending->serial = run->serial + run->batch.n + 1;
  int r = fz_state_line_make(&line, run, layers, of_rules ? &rules : NULL, &record, pending->serial);
  if (r == 0)
    r = append(&run->batch, line.text, line.length);
  if (r == 0)
    run->batch.hash = line.hash;
  fz_state_line_deinit(&line);
  return r;
}

static void refuse(fz_run *run, fz_client *client, uint64_t id, int error) {
  fz_client_error(client, id, error == -E2BIG ? FZ_CODE_TOO_MANY : FZ_CODE_INTERNAL,
                  error == -E2BIG ? "'freezerctl auto' and 'unpin' make room" : NULL,
                  "the change cannot be saved in %s, nothing was changed: %s",
                  run->core->state_dir ? run->core->state_dir : "memory",
                  error == -E2BIG ? "the run's overrides, pins and rules take more than 1 MiB" : strerror(-error));
}

int fz_batch_add(fz_run *run, fz_client *client, const fz_request *request, fz_pending *pending, fz_layers *layers,
                 uint64_t step) {
  struct fz_batch *batch = &run->batch;
  fz_waiter *waiter = NULL;

  /* First what can refuse it without a trace: what is saved is in force after a restart, whatever was answered. */
  if (request->wait_ms > 0 && fz_waiter_new(&waiter, client, request->id, request->wait_ms) < 0) {
    fz_client_error(client, request->id, FZ_CODE_TOO_MANY, NULL, "this connection has too many requests open");
    return -ENOSPC;
  }
  int r = reserve(run, pending->mask);
  if (r == 0)
    r = write_line(run, pending, layers, step);
  if (r < 0) {
    if (waiter)
      fz_waiter_free(waiter);
    refuse(run, client, request->id, r);
    return r;
  }
  fz_layers_free(batch->layers);
  batch->layers = layers;
  for (size_t w = 0; pending->mask && w < fz_mask_words(fz_params_count(run->params)); w++)
    batch->mask[w] |= pending->mask[w];
  pending->waiter = waiter;
  if (waiter)
    waiter->pending = pending;
  batch->items[batch->n++] = (struct fz_batch_item){ pending, client, request->id, request->by_user != NULL };
  run->core->n_batched++;
  return 0;
}

/* ------------------------------------------------------------------------------------------------------------ settling */

static void say_accepted(const fz_run *run, const struct fz_batch_item *item) {
  const fz_pending *pending = item->pending;
  const char *reason = pending->reason ? pending->reason : "";
  char uid[40] = "";

  /* Who it says it is, and who it is; without a name the two are the same. */
  if (item->named)
    snprintf(uid, sizeof(uid), "(uid %" PRIu64 ")", pending->uid);
  fz_log_write(&run->core->log, FZ_LOG_NOTICE,
               FZ_LOG_ABOUT(.event = "change", .run = run->name, .gen = pending->gen,
                            .peer = fz_connection_peer(item->client->connection)),
               "%s%s%s: %s%s%s%s; %s", pending->by, *uid ? " " : "", uid, pending->outcome.text, *reason ? ", \"" : "",
               reason, *reason ? "\"" : "", pending->gen ? "published" : "queued until the ranks can take it");
  fz_watch_tell(run->core,
                FZ_EVENT(.event = "accepted", .run = run, .has = pending->gen ? FZ_EVENT_GEN : 0, .gen = pending->gen,
                         .froze = pending->outcome.delta.froze, .unfroze = pending->outcome.delta.unfroze,
                         .by = pending->by, .reason = pending->reason, .text = pending->outcome.text));
}

/** The whole answer; or, if the ranks are waited for, that it was accepted. */
static void answer(const struct fz_batch_item *item) {
  fz_json_writer *writer = &item->client->core->writer;
  const fz_pending *pending = item->pending;

  if (pending->waiter) {
    fz_answer_part_begin(writer, item->id);
    fz_write_bool(writer, "accepted", true);
    if (pending->gen)
      fz_write_integer(writer, "gen", pending->gen);
    else
      fz_write_null(writer, "gen");
  } else {
    fz_answer_begin(writer, item->id);
    fz_pending_write(pending, writer, false);
  }
  fz_write_end_object(writer);
  fz_client_send(item->client);
}

/** They become the run's. */
static void accept_all(fz_run *run, struct fz_batch *batch) {
  struct fz_state_rules rules;

  /* A change of the rules is alone. */
  if (new_rules(run, batch->items[0].pending, batch->layers, &rules)) {
    fz_run_forget_anchors(run);
    fz_run_name_rules(run, rules.origin, rules.source, rules.by);
    run->rules_unproven = false;
  }
  fz_layers_free(run->layers);
  run->layers = batch->layers;
  batch->layers = NULL;
  for (size_t i = 0; i < batch->n; i++)
    fz_pending_enqueue(batch->items[i].pending);
  fz_publisher_run(run);
  /* No rank can have said yet that it applied them, and none replaces another: all of them are still there. */
  for (size_t i = 0; i < batch->n; i++) {
    say_accepted(run, &batch->items[i]);
    if (batch->items[i].pending->waiter && !fz_run_lives(run))
      fz_waiter_free(batch->items[i].pending->waiter); /* for a launch that may never come */
    answer(&batch->items[i]);
  }
  batch->n = 0;
}

static void refuse_all(fz_run *run, struct fz_batch *batch, int error) {
  for (size_t i = 0; i < batch->n; i++) {
    refuse(run, batch->items[i].client, batch->items[i].id, error);
    if (batch->items[i].pending->waiter)
      fz_waiter_free(batch->items[i].pending->waiter);
  }
}

/** Durable, then published, then answered. */
static void settle(fz_run *run) {
  struct fz_batch batch = run->batch;

  run->batch = (struct fz_batch){ 0 };
  run->core->n_batched -= batch.n;
  const int r = fz_history_add(run, batch.lines, batch.length, true);
  if (r == 0) {
    fz_state_kept(run, batch.n, batch.hash);
    accept_all(run, &batch);
  } else {
    refuse_all(run, &batch, r);
  }
  fz_batch_deinit(&batch);
}

void fz_batches_settle(fz_core *core) {
  for (fz_run *run = core->runs; run && core->n_batched; run = run->next)
    if (run->batch.n)
      settle(run);
}
