/* control_list.c - the operation list: each parameter, its state, and why. */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/control.h"
#include "daemon/rules/explain.h"
#include "daemon/run.h"
#include "daemon/since.h"
#include "protocol/mask.h"

/* Bytes of one part, so that a client may begin to print early and no line comes near its limit. */
#define PART_BYTES (64U * 1024U)

/** What the entries are made of. */
struct listing {
  const fz_run *run;
  const fz_request *request;
  uint64_t step, epoch;    /* asked for */
  uint64_t *selected;      /* by the patterns */
  uint64_t *now;           /* flags at (step, epoch) */
  uint64_t *wanted;        /* flags by everything that was accepted */
  struct fz_cause *causes; /* in force */
};

static const char *const layer_names[] = {
  [FZ_LAYER_BASELINE] = "baseline",
  [FZ_LAYER_RULE] = "rule",
  [FZ_LAYER_OVERRIDE] = "override",
  [FZ_LAYER_PIN] = "pin",
};

static void release(struct listing *listing) {
  free(listing->selected);
  free(listing->now);
  free(listing->wanted);
  free(listing->causes);
}

static int gather(struct listing *listing) {
  const fz_run *run = listing->run;
  const size_t n = fz_params_count(run->params), words = fz_mask_words(n);
  int r;

  fz_run_now(run, &listing->step, &listing->epoch);
  listing->now = calloc(words + 1, sizeof(*listing->now));
  listing->wanted = calloc(words + 1, sizeof(*listing->wanted));
  listing->causes = calloc(n + 1, sizeof(*listing->causes));
  if (!listing->now || !listing->wanted || !listing->causes)
    return -ENOMEM;
  if (listing->request->at != FZ_TIME_NEVER) {
    /* Another step than now: what the layers say of it, nothing is pending there. */
    listing->step = listing->request->at;
    r = fz_layers_eval(run->in_force, listing->step, listing->epoch, listing->now, NULL);
    memcpy(listing->wanted, listing->now, words * sizeof(*listing->now));
  } else {
    r = fz_run_mask(run, listing->now);
    if (r == 0 && run->adopted)
      memcpy(listing->wanted, listing->now, words * sizeof(*listing->now));
    else if (r == 0)
      r = fz_layers_eval(run->layers, listing->step, listing->epoch, listing->wanted, NULL);
  }
  if (r == 0)
    r = fz_layers_causes(run->in_force, listing->step, listing->epoch, listing->causes);
  return r;
}

static bool is_asked_for(const struct listing *listing, size_t i) {
  const bool trains = fz_mask_get(listing->now, i);

  switch (listing->request->list_state) {
  case FZ_LIST_STATE_ANY:
    break;
  case FZ_LIST_STATE_FROZEN:
    if (trains)
      return false;
    break;
  case FZ_LIST_STATE_TRAINING:
    if (!trains)
      return false;
    break;
  case FZ_LIST_STATE_PENDING:
    if (trains == fz_mask_get(listing->wanted, i))
      return false;
    break;
  }
  switch (listing->request->list_why) {
  case FZ_LIST_WHY_ANY:
    return true;
  case FZ_LIST_WHY_BASELINE:
    return listing->causes[i].layer == FZ_LAYER_BASELINE;
  case FZ_LIST_WHY_RULE:
    return listing->causes[i].layer == FZ_LAYER_RULE;
  case FZ_LIST_WHY_OVERRIDE:
    return listing->causes[i].layer == FZ_LAYER_OVERRIDE;
  case FZ_LIST_WHY_PIN:
    return listing->causes[i].layer == FZ_LAYER_PIN;
  }
  return true;
}

static void write_entry(const struct listing *listing, size_t i, fz_json_writer *writer) {
  const struct fz_param *param = fz_params_get(listing->run->params, i);
  const bool trains = fz_mask_get(listing->now, i);
  char *why = fz_since_why(listing->run, &listing->causes[i], i, trains);

  fz_write_begin_object(writer, NULL);
  fz_write_string(writer, "name", param->name);
  fz_write_integer(writer, "elements", param->elements);
  fz_write_string(writer, "state", trains ? "training" : "frozen");
  fz_write_bool(writer, "pending", trains != fz_mask_get(listing->wanted, i));
  fz_write_time(writer, "since_step",
                listing->request->at == FZ_TIME_NEVER ? fz_since_step(listing->run, i) : FZ_TIME_NEVER);
  fz_write_string(writer, "layer", layer_names[listing->causes[i].layer]);
  fz_write_string(writer, "why", why ? why : "");
  fz_write_null(writer, "next");
  fz_write_end_object(writer);
  free(why);
}

static void send_parts(fz_client *client, const struct listing *listing) {
  fz_json_writer *writer = &client->core->writer;
  const size_t n = fz_params_count(listing->run->params);
  bool open = false;

  for (size_t i = fz_mask_next(listing->selected, n, 0); i < n; i = fz_mask_next(listing->selected, n, i + 1)) {
    if (!is_asked_for(listing, i))
      continue;
    if (!open) {
      fz_answer_part_begin(writer, listing->request->id);
      fz_write_begin_array(writer, "params");
      open = true;
    }
    write_entry(listing, i, writer);
    if (fz_writer_length(writer) < PART_BYTES)
      continue;
    fz_write_end_array(writer);
    fz_write_end_object(writer);
    fz_client_send(client);
    open = false;
  }
  if (open) {
    fz_write_end_array(writer);
    fz_write_end_object(writer);
    fz_client_send(client);
  }
  fz_answer_begin(writer, listing->request->id);
  fz_write_begin_array(writer, "params");
  fz_write_end_array(writer);
  fz_write_string(writer, "run", listing->run->name);
  fz_write_integer(writer, "gen", listing->run->plan.gen);
  fz_write_integer(writer, "step", listing->step);
  fz_write_integer(writer, "epoch", listing->epoch);
  fz_write_end_object(writer);
  fz_client_send(client);
}

void fz_op_list(fz_client *client, const fz_request *request) {
  struct listing listing = { .run = fz_control_run(client, request), .request = request };

  if (!listing.run)
    return;
  listing.selected = fz_control_match(client, request, listing.run);
  if (!listing.selected)
    return;
  if (gather(&listing) < 0)
    fz_client_error(client, request->id, FZ_CODE_NO_MEMORY, NULL, "out of memory");
  else
    send_parts(client, &listing);
  release(&listing);
}
