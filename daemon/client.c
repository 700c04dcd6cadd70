/* client.c - a control client: its connection, and its requests that are not answered yet. */
#include "config.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/client.h"
#include "daemon/clock.h"
#include "daemon/pending.h"
#include "daemon/watchers.h"

int fz_client_new(fz_client **ret_client, fz_core *core, fz_connection *connection, bool read_only) {
  fz_client *client = calloc(1, sizeof(*client));

  if (!client)
    return -ENOMEM;
  client->core = core;
  client->connection = connection;
  client->read_only = read_only;
  *ret_client = client;
  return 0;
}

fz_client *fz_client_free(fz_client *client) {
  if (!client)
    return NULL;
  while (client->waiters)
    fz_waiter_free(client->waiters);
  while (client->listings)
    fz_listing_free(client->listings);
  fz_watch_stop(client);
  free(client);
  return NULL;
}

void fz_client_send(fz_client *client) { (void)fz_connection_send(client->connection, &client->core->writer, -1); }

void fz_client_drained(fz_client *client) {
  while (client->listings && fz_listing_continue(client->listings)) {
  }
}

void fz_client_error(fz_client *client, uint64_t id, enum fz_code code, const char *hint, const char *format, ...) {
  char text[2048];
  va_list arguments;

  va_start(arguments, format);
  vsnprintf(text, sizeof(text), format, arguments);
  va_end(arguments);
  fz_answer_error(&client->core->writer, &id, code, text, hint);
  fz_client_send(client);
}

/* ---------------------------------------------------------------------------------------------------------- waiters */

static void on_limit(fz_timer *timer);

int fz_waiter_new(fz_waiter **ret_waiter, fz_client *client, uint64_t id, uint64_t limit_ms) {
  if (client->n_open >= FZ_CLIENT_OPEN_MAX)
    return -ENOSPC;
  fz_waiter *waiter = calloc(1, sizeof(*waiter));
  if (!waiter)
    return -ENOMEM;
  *waiter = (fz_waiter){
    .next = client->waiters,
    .client = client,
    .id = id,
    .timer = { .fire = on_limit },
    .gen = FZ_TIME_NEVER,
    .step = FZ_TIME_NEVER,
    .since_ms = fz_clock_ms(),
  };
  client->waiters = waiter;
  client->n_open++;
  if (limit_ms != FZ_TIME_NEVER)
    fz_timer_start(&client->core->timers, &waiter->timer, limit_ms);
  *ret_waiter = waiter;
  return 0;
}

void fz_waiter_free(fz_waiter *waiter) {
  fz_core *core = waiter->client->core;
  fz_waiter **link = &waiter->client->waiters;

  while (*link != waiter)
    link = &(*link)->next;
  *link = waiter->next;
  waiter->client->n_open--;
  for (link = &core->waiters; *link; link = &(*link)->core_next)
    if (*link == waiter) {
      *link = waiter->core_next;
      break;
    }
  fz_timer_stop(&core->timers, &waiter->timer);
  if (waiter->pending)
    waiter->pending->waiter = NULL;
  free(waiter->run);
  free(waiter->pattern);
  free(waiter);
}

void fz_waiter_change_done(fz_waiter *waiter) {
  fz_client *client = waiter->client;

  fz_answer_begin(&client->core->writer, waiter->id);
  fz_pending_write(waiter->pending, &client->core->writer, false);
  fz_write_end_object(&client->core->writer);
  fz_client_send(client);
  fz_waiter_free(waiter);
}

static void on_limit(fz_timer *timer) {
  /* Valid because only waiters have this callback, with their member `timer`. */
  fz_waiter *waiter = (fz_waiter *)(void *)((char *)timer - offsetof(fz_waiter, timer));

  /* The time ran out is no error: the answer says how far it came. */
  if (waiter->pending)
    fz_waiter_change_done(waiter);
  else
    fz_wait_expired(waiter);
}
