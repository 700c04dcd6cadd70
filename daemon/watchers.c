/* watchers.c - events, for the control clients that watch. */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/client.h"
#include "daemon/clock.h"
#include "daemon/run.h"
#include "daemon/watchers.h"

static void write_event(fz_json_writer *writer, uint64_t id, const struct fz_event *event, const char *time) {
  fz_answer_event_begin(writer, id);
  fz_write_string(writer, "time", time);
  fz_write_string(writer, "event", event->event);
  fz_write_string(writer, "run", event->run->name);
  fz_write_string(writer, "text", event->text ? event->text : event->event);
  if (event->has & FZ_EVENT_GEN)
    fz_write_integer(writer, "gen", event->gen);
  if (event->has & FZ_EVENT_STEP)
    fz_write_integer(writer, "step", event->step);
  if (event->has & FZ_EVENT_EPOCH)
    fz_write_integer(writer, "epoch", event->epoch);
  if (event->has & FZ_EVENT_RANK)
    fz_write_integer(writer, "rank", event->rank);
  if (event->froze)
    fz_write_integer(writer, "froze", event->froze);
  if (event->unfroze)
    fz_write_integer(writer, "unfroze", event->unfroze);
  if (event->by)
    fz_write_string(writer, "by", event->by);
  if (event->reason)
    fz_write_string(writer, "reason", event->reason);
  fz_write_end_object(writer);
  fz_write_end_object(writer);
}

void fz_watch_tell(fz_core *core, const struct fz_event *event) {
  char time[FZ_UTC_SIZE];

  if (!core->watchers)
    return;
  fz_clock_format(fz_clock_utc_ms(), time);
  for (fz_watcher *watcher = core->watchers; watcher; watcher = watcher->next) {
    if (watcher->run && strcmp(watcher->run, event->run->name) != 0)
      continue;
    write_event(&core->writer, watcher->id, event, time);
    fz_client_send(watcher->client);
  }
}

int fz_watch_start(fz_client *client, uint64_t id, const char *run) {
  fz_watcher *watcher = calloc(1, sizeof(*watcher));
  char *copy = run ? strdup(run) : NULL;

  if (!watcher || (run && !copy)) {
    free(watcher);
    free(copy);
    return -ENOMEM;
  }
  *watcher = (fz_watcher){ .next = client->core->watchers, .client = client, .id = id, .run = copy };
  client->core->watchers = watcher;
  client->n_open++;
  return 0;
}

void fz_watch_stop(fz_client *client) {
  fz_watcher **link = &client->core->watchers;

  while (*link) {
    fz_watcher *watcher = *link;
    if (watcher->client != client) {
      link = &watcher->next;
      continue;
    }
    *link = watcher->next;
    free(watcher->run);
    free(watcher);
  }
}
