/* recent.h - the last changes of a run, for `status`. */
#ifndef FZ_RECENT_H
#define FZ_RECENT_H

#include <stddef.h>
#include <stdint.h>

#include "protocol/limits.h"
#include "protocol/writer.h"

struct fz_recent_entry {
  uint64_t time_ms; /* wall clock */
  uint64_t incarnation, gen;
  uint64_t step; /* at which it took effect; FZ_TIME_NEVER: not yet known */
  const char *action;
  char *text;   /* "froze model.layers.4 (7.1M)" */
  char *by;     /* "ana@gpu07"; NULL: a rule */
  char *reason; /* may be NULL */
  uint64_t params, elements;
};

/** A ring. Init with zeros. */
struct fz_recent {
  struct fz_recent_entry entries[FZ_RECENT_MAX];
  size_t first, n;
};

void fz_recent_deinit(struct fz_recent *recent);
/** Takes over the strings of `entry`; the oldest entry goes when there are too many. `action` is a literal. */
void fz_recent_add(struct fz_recent *recent, const struct fz_recent_entry *entry);
/** The step at which `gen` of an incarnation really took effect is known now. */
void fz_recent_settle(struct fz_recent *recent, uint64_t incarnation, uint64_t gen, uint64_t step);
/** Writes the array `recent`, newest first. */
void fz_recent_write(const struct fz_recent *recent, fz_json_writer *writer);

#endif
