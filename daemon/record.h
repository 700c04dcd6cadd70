/* record.h - the lines of a run's history: what each says. */
#ifndef FZ_RECORD_H
#define FZ_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/core.h"
#include "protocol/writer.h"

/** What a line says; history.h lists the events. Fields that do not apply are left zero or NULL. */
struct fz_record {
  const char *event;
  uint64_t gen;
  bool has_step, has_epoch;
  uint64_t step, epoch;
  const fz_pending *pending; /* of change, applied and superseded */
  const char *text;          /* for people; NULL: the change's */
  size_t froze, unfroze;     /* parameters; of a change, as its outcome says */
  uint64_t elements;         /* of these */
  const uint64_t *trainable; /* elements after it; NULL: as they are now */
};

/** Writes the fields of a line, without beginning and ending the object. */
void fz_record_write(fz_json_writer *writer, const fz_run *run, const struct fz_record *record);

/** Adds a line that nothing depends on: it is on disk with the next change. What goes wrong is a warning. */
void fz_record_add(fz_run *run, const struct fz_record *record);

#endif
