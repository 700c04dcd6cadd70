/* recent.c - the last changes of a run, for `status`. */
#include "config.h"

#include <stdlib.h>

#include "daemon/clock.h"
#include "daemon/recent.h"

static void forget(struct fz_recent_entry *entry) {
  free(entry->text);
  free(entry->by);
  free(entry->reason);
  *entry = (struct fz_recent_entry){ 0 };
}

void fz_recent_deinit(struct fz_recent *recent) {
  for (size_t i = 0; i < FZ_RECENT_MAX; i++)
    forget(&recent->entries[i]);
  recent->first = recent->n = 0;
}

void fz_recent_add(struct fz_recent *recent, const struct fz_recent_entry *entry) {
  size_t place = (recent->first + recent->n) % FZ_RECENT_MAX;

  if (recent->n == FZ_RECENT_MAX) {
    place = recent->first;
    recent->first = (recent->first + 1) % FZ_RECENT_MAX;
  } else {
    recent->n++;
  }
  forget(&recent->entries[place]);
  recent->entries[place] = *entry;
}

void fz_recent_settle(struct fz_recent *recent, uint64_t incarnation, uint64_t gen, uint64_t step) {
  for (size_t i = 0; i < FZ_RECENT_MAX; i++) {
    struct fz_recent_entry *entry = &recent->entries[i];
    if (entry->incarnation == incarnation && entry->gen == gen && entry->step != FZ_TIME_NEVER)
      entry->step = step;
  }
}

void fz_recent_write(const struct fz_recent *recent, fz_json_writer *writer) {
  fz_write_begin_array(writer, "recent");
  for (size_t i = recent->n; i-- > 0;) {
    const struct fz_recent_entry *entry = &recent->entries[(recent->first + i) % FZ_RECENT_MAX];
    char time[FZ_UTC_SIZE];
    fz_clock_format(entry->time_ms, time);
    fz_write_begin_object(writer, NULL);
    fz_write_string(writer, "time", time);
    fz_write_integer(writer, "gen", entry->gen);
    fz_write_time(writer, "step", entry->step);
    fz_write_string(writer, "action", entry->action);
    fz_write_string(writer, "text", entry->text ? entry->text : "");
    fz_write_string(writer, "by", entry->by);
    fz_write_string(writer, "reason", entry->reason);
    fz_write_integer(writer, "params", entry->params);
    fz_write_integer(writer, "elements", entry->elements);
    fz_write_end_object(writer);
  }
  fz_write_end_array(writer);
}
