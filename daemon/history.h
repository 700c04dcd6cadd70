/* history.h - what happened to a run, line by line: the record that a change must be in before it is published. */
#ifndef FZ_HISTORY_H
#define FZ_HISTORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/core.h"
#include "protocol/json.h"
#include "protocol/limits.h"

/*
 * DIR/KEY/history.ndjson has one JSON object a line, oldest first. Lines are only added, each with one write; a line
 * that has `state` is on disk before what it says is published or answered. Such a line holds all decisions of the run
 * (rules, overrides, pins) as they are with it and its `serial`, which grows by one with each of them. So the newest of
 * them is the run's state, and each of them is somewhere that a revert can go back to. state.json (state.h) is a copy of
 * the newest one, made now and then.
 *
 *   event        says
 *   change       a change was accepted: `action`, who, why, what it does now. Has `state`, and its `serial` names it
 *   applied      every rank has the change of that `serial`: `gen`, `step`
 *   superseded   that change never came into effect, gen `gen` replaced it
 *   attached     the first plan of an incarnation. Has `state`
 *   incarnation  a new segment. Has `state`
 *   state        what depends on where a plan begins was worked out again (the end of `for N`). Has `state`
 *   flip         a rule began or ended: `step`, `epoch`
 *   refused      rules that came with a trainer, or the default ones, were not taken
 *   restarted    a new freezerd carries the incarnation on
 *
 * A file that grows beyond FZ_HISTORY_FILE bytes becomes history.ndjson.1, in place of the one before: so at most twice
 * as much is kept, plus a line. Without a state directory the newest FZ_HISTORY_MEMORY bytes of lines are kept in memory.
 */
#define FZ_HISTORY_FILE (8U * 1024U * 1024U)
#define FZ_HISTORY_MEMORY (256U * 1024U)

/** Of a run. Init with zeros. */
struct fz_history {
  char *memory; /* without a state directory: the lines */
  size_t length, size;
};

void fz_history_deinit(struct fz_history *history);

/**
 * Adds a line, which ends in a newline.
 * @param sync  it is on disk when this returns
 * @return 0; negative errno: nothing was added
 */
int fz_history_add(fz_run *run, const char *line, size_t length, bool sync);

/** All lines that are kept, oldest first; allocated. None is no error. 0 or negative errno. */
int fz_history_read(const fz_run *run, char **ret_text, size_t *ret_length);

/** Cuts what a crash left half-written off the end, and says so in the log. 0 or negative errno. */
int fz_history_mend(fz_run *run);

/** Goes through lines from the newest to the oldest, over those that are no JSON. */
struct fz_history_cursor {
  const char *text;
  size_t length; /* of what is not gone through yet */
  int error;     /* 0, or the negative errno that ended it before the oldest line */
};
/** The next older line, which the caller frees; NULL: none is left, or `error` says why it ends here. */
fz_json *fz_history_older(struct fz_history_cursor *cursor);

#endif
