/* control_list.c - the operation list: each parameter, its state, and why; sent as fast as the client reads. */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/control.h"
#include "daemon/run.h"
#include "daemon/since.h"
#include "protocol/mask.h"

/* Bytes of one part, so that a client may begin to print early and no line comes near its limit. */
#define PART_BYTES (64U * 1024U)
/* Bytes that may wait for a client that reads slowly before the rest of its list waits here. */
#define QUEUE_BYTES (512U * 1024U)

/** A list that is being sent: all that it says is of the moment at which it was asked for. */
struct fz_listing {
  fz_listing *next;
  fz_client *client;
  uint64_t id;
  char run[FZ_RUN_NAME_MAX + 1];
  bool adopted;
  enum fz_list_state state;
  enum fz_list_why why;
  fz_params *params;
  fz_layers *layers; /* in force */
  uint64_t gen, step, epoch;
  uint64_t *selected;      /* by the patterns */
  uint64_t *now;           /* flags at (step, epoch) */
  uint64_t *wanted;        /* flags by everything that was accepted */
  uint64_t *since;         /* a step for each; NULL: not known */
  struct fz_cause *causes; /* in force */
  size_t position;         /* first parameter that was not looked at */
};

static const char *const layer_names[] = {
  [FZ_LAYER_BASELINE] = "baseline",
  [FZ_LAYER_RULE] = "rule",
  [FZ_LAYER_OVERRIDE] = "override",
  [FZ_LAYER_PIN] = "pin",
};

void fz_listing_free(fz_listing *listing) {
  fz_listing **link = &listing->client->listings;

  while (*link && *link != listing)
    link = &(*link)->next;
  if (*link) {
    *link = listing->next;
    listing->client->n_open--;
  }
  fz_params_unref(listing->params);
  fz_layers_free(listing->layers);
  free(listing->selected);
  free(listing->now);
  free(listing->wanted);
  free(listing->since);
  free(listing->causes);
  free(listing);
}

/* ---------------------------------------------------------------------------------------------------------- gathering */

static int gather_flags(fz_listing *listing, const fz_run *run, uint64_t at) {
  const size_t words = fz_mask_words(fz_params_count(run->params));
  int r;

  fz_run_now(run, &listing->step, &listing->epoch);
  if (at != FZ_TIME_NEVER) {
    /* Another step than now: what the layers say of it, nothing is pending there. */
    listing->step = at;
    r = fz_layers_eval(listing->layers, listing->step, listing->epoch, listing->now, NULL);
    memcpy(listing->wanted, listing->now, words * sizeof(*listing->now));
    return r;
  }
  r = fz_run_mask(run, listing->now);
  if (r == 0 && run->adopted)
    memcpy(listing->wanted, listing->now, words * sizeof(*listing->now));
  else if (r == 0)
    r = fz_layers_eval(run->layers, listing->step, listing->epoch, listing->wanted, NULL);
  return r;
}

static int gather(fz_listing *listing, const fz_run *run, uint64_t at) {
  const size_t n = fz_params_count(run->params), words = fz_mask_words(n);
  int r = fz_layers_clone(run->in_force, &listing->layers);

  listing->now = calloc(words + 1, sizeof(*listing->now));
  listing->wanted = calloc(words + 1, sizeof(*listing->wanted));
  listing->causes = calloc(n + 1, sizeof(*listing->causes));
  if (r < 0 || !listing->now || !listing->wanted || !listing->causes)
    return -ENOMEM;
  listing->params = fz_params_ref(run->params);
  listing->gen = fz_run_gen_newest(run);
  listing->adopted = run->adopted;
  memcpy(listing->run, run->name, sizeof(listing->run));
  r = gather_flags(listing, run, at);
  if (r == 0)
    r = fz_layers_causes(listing->layers, listing->step, listing->epoch, listing->causes);
  if (r == 0 && run->since && at == FZ_TIME_NEVER) {
    listing->since = malloc((n + 1) * sizeof(*listing->since));
    if (!listing->since)
      return -ENOMEM;
    memcpy(listing->since, run->since, n * sizeof(*listing->since));
  }
  return r;
}

/* ------------------------------------------------------------------------------------------------------------ sending */

static bool is_asked_for(const fz_listing *listing, size_t i) {
  const bool trains = fz_mask_get(listing->now, i);

  switch (listing->state) {
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
  switch (listing->why) {
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

static void write_entry(const fz_listing *listing, size_t i, fz_json_writer *writer) {
  const struct fz_param *param = fz_params_get(listing->params, i);
  const bool trains = fz_mask_get(listing->now, i);
  char *why = fz_since_why(listing->layers, listing->adopted, &listing->causes[i], i, trains);

  fz_write_begin_object(writer, NULL);
  fz_write_string(writer, "name", param->name);
  fz_write_integer(writer, "elements", param->elements);
  fz_write_string(writer, "state", trains ? "training" : "frozen");
  fz_write_bool(writer, "pending", trains != fz_mask_get(listing->wanted, i));
  fz_write_time(writer, "since_step", listing->since ? listing->since[i] : FZ_TIME_NEVER);
  fz_write_string(writer, "layer", layer_names[listing->causes[i].layer]);
  fz_write_string(writer, "why", why ? why : "");
  fz_write_end_object(writer);
  free(why);
}

/** Sends one part. False: nothing is left. */
static bool send_part(fz_listing *listing) {
  fz_json_writer *writer = &listing->client->core->writer;
  const size_t n = fz_params_count(listing->params);
  size_t i = fz_mask_next(listing->selected, n, listing->position);

  while (i < n && !is_asked_for(listing, i))
    i = fz_mask_next(listing->selected, n, i + 1);
  if (i == n)
    return false;
  fz_answer_part_begin(writer, listing->id);
  fz_write_begin_array(writer, "params");
  for (; i < n && fz_writer_length(writer) < PART_BYTES; i = fz_mask_next(listing->selected, n, i + 1))
    if (is_asked_for(listing, i))
      write_entry(listing, i, writer);
  listing->position = i;
  fz_write_end_array(writer);
  fz_write_end_object(writer);
  fz_client_send(listing->client);
  return true;
}

static void send_end(fz_listing *listing) {
  fz_json_writer *writer = &listing->client->core->writer;

  fz_answer_begin(writer, listing->id);
  fz_write_begin_array(writer, "params");
  fz_write_end_array(writer);
  fz_write_string(writer, "run", listing->run);
  fz_write_integer(writer, "gen", listing->gen);
  fz_write_integer(writer, "step", listing->step);
  fz_write_integer(writer, "epoch", listing->epoch);
  fz_write_end_object(writer);
  fz_client_send(listing->client);
}

bool fz_listing_continue(fz_listing *listing) {
  while (fz_connection_queued(listing->client->connection) < QUEUE_BYTES)
    if (!send_part(listing)) {
      send_end(listing);
      fz_listing_free(listing);
      return true;
    }
  return false;
}

void fz_op_list(fz_client *client, const fz_request *request) {
  const fz_run *run = fz_control_run(client, request);
  uint64_t *selected = run ? fz_control_match(client, request, run) : NULL;
  fz_listing *listing;

  if (!selected)
    return;
  listing = client->n_open < FZ_CLIENT_OPEN_MAX ? calloc(1, sizeof(*listing)) : NULL;
  if (!listing) {
    free(selected);
    fz_client_error(client, request->id, FZ_CODE_TOO_MANY, NULL, "this connection has too many requests open");
    return;
  }
  *listing = (fz_listing){
    .next = client->listings,
    .client = client,
    .id = request->id,
    .state = request->list_state,
    .why = request->list_why,
    .selected = selected,
  };
  client->listings = listing;
  client->n_open++;
  if (gather(listing, run, request->at) == 0) {
    (void)fz_listing_continue(listing);
    return;
  }
  fz_listing_free(listing);
  fz_client_error(client, request->id, FZ_CODE_NO_MEMORY, NULL, "out of memory");
}
