/* record.c - the lines of a run's history: what each says. */
#include "config.h"

#include <string.h>

#include "daemon/clock.h"
#include "daemon/history.h"
#include "daemon/pending.h"
#include "daemon/record.h"
#include "daemon/run.h"

static void write_by(fz_json_writer *writer, const fz_pending *pending) {
  fz_write_begin_object(writer, "by");
  fz_write_string(writer, "user", pending->user);
  fz_write_string(writer, "host", pending->host);
  fz_write_integer(writer, "uid", pending->uid);
  fz_write_end_object(writer);
}

static void write_change(fz_json_writer *writer, const fz_pending *pending) {
  fz_write_string(writer, "action", fz_op_name(pending->op));
  fz_write_begin_array(writer, "patterns");
  for (size_t i = 0; i < pending->n_patterns; i++)
    fz_write_string(writer, NULL, pending->patterns[i]);
  fz_write_end_array(writer);
  if (pending->source)
    fz_write_string(writer, "source", pending->source);
  write_by(writer, pending);
  fz_write_string(writer, "reason", pending->reason);
  fz_write_integer(writer, "froze", pending->outcome.delta.froze);
  fz_write_integer(writer, "unfroze", pending->outcome.delta.unfroze);
  fz_write_integer(writer, "elements", pending->outcome.changed_elements);
  fz_write_integer(writer, "trainable", pending->outcome.trainable_after);
}

void fz_record_write(fz_json_writer *writer, const fz_run *run, const struct fz_record *record) {
  const fz_pending *pending = record->pending;
  const bool is_change = pending && strcmp(record->event, "change") == 0;
  char time[FZ_UTC_SIZE];

  fz_clock_format(is_change ? pending->time_ms : fz_clock_utc_ms(), time);
  fz_write_string(writer, "time", time);
  fz_write_string(writer, "event", record->event);
  fz_write_integer(writer, "incarnation", run->incarnation);
  fz_write_integer(writer, "gen", record->gen);
  fz_write_time(writer, "step", record->has_step ? record->step : FZ_TIME_NEVER);
  if (record->has_epoch)
    fz_write_integer(writer, "epoch", record->epoch);
  if (is_change)
    write_change(writer, pending);
  else if (pending)
    fz_write_integer(writer, "change", pending->serial);
  if (record->froze + record->unfroze) {
    fz_write_integer(writer, "froze", record->froze);
    fz_write_integer(writer, "unfroze", record->unfroze);
    fz_write_integer(writer, "elements", record->elements);
  }
  if (!pending && run->params)
    fz_write_integer(writer, "trainable", record->trainable ? *record->trainable : fz_run_trainable(run, NULL));
  fz_write_integer(writer, "total", run->params ? fz_params_elements(run->params) : 0);
  fz_write_string(writer, "text", record->text ? record->text : pending ? pending->outcome.text : NULL);
}

void fz_record_add(fz_run *run, const struct fz_record *record) {
  fz_json_writer writer = FZ_JSON_WRITER_NULL;
  const char *line;
  size_t length;

  fz_write_begin_object(&writer, NULL);
  fz_record_write(&writer, run, record);
  fz_write_end_object(&writer);
  int r = fz_writer_line(&writer, &line, &length);
  if (r == 0)
    r = fz_history_add(run, line, length, false);
  fz_writer_deinit(&writer);
  if (r < 0)
    fz_run_warn(run, "the history cannot be written: %s", strerror(-r));
}
