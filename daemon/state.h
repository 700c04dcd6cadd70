/* state.h - what of a run outlives freezerd: its rules, overrides, pins and incarnation, in the state directory. */
#ifndef FZ_STATE_H
#define FZ_STATE_H

#include <stdbool.h>

#include "daemon/record.h"
#include "daemon/run.h"

/*
 * The state is on disk, in a line of the history (history.h), before what it says is published or answered: what was
 * confirmed is on disk. What was on disk and not yet published is published by the next freezerd (`gen` in it is higher
 * than that of the segment).
 *
 * DIR/KEY/state.json, one JSON object, KEY being the run's key, is a copy of the newest state, so that nobody depends on
 * a long history. It is made a moment after a change and at the end, written to a file beside it, synced and renamed,
 * and the folder synced. The one of the two with the higher `serial` counts.
 *
 * Without a state directory the lines are kept in memory, and nothing outlives freezerd.
 */

/** Where rules come from, for a save that is ahead of its run. */
struct fz_state_rules {
  enum fz_rules_origin origin;
  const char *source, *by; /* NULL: none */
};

/** A line of the history that holds a state. */
struct fz_state_line {
  fz_json_writer writer;
  const char *text; /* with its newline; the writer's */
  size_t length;
  uint64_t hash; /* of the state */
};

#define FZ_STATE_LINE_NULL \
  { .writer = FZ_JSON_WRITER_NULL }

void fz_state_line_deinit(struct fz_state_line *line);

/**
 * Makes the line of the run's state with these layers.
 * @param rules  NULL: as the run says
 * @param about  what the line says besides
 * @return 0; -E2BIG it would be larger than what is read back; -ENOMEM
 */
int fz_state_line_make(struct fz_state_line *line, const fz_run *run, const fz_layers *layers,
                       const struct fz_state_rules *rules, const struct fz_record *about, uint64_t serial);

/** `n` lines with states are on disk; the last of them, which holds a state of this hash, is what the run now is. */
void fz_state_kept(fz_run *run, uint64_t n, uint64_t hash);

/**
 * Puts the run's state on disk.
 * @param about  what the line of the history says besides; NULL: a line only if the state is not what was kept last
 * @return as fz_state_line_make(); -ENOSPC and the like: what was kept before still holds
 */
int fz_state_save(fz_run *run, const struct fz_record *about);

/** Copies the newest state to state.json, unless it is there. */
void fz_state_checkpoint(fz_run *run);

/**
 * The parameters of a run that is new here are known: reads what was saved of it and does that to its layers, as far as
 * it fits them. What cannot be read is a warning, and is left as it is until the next save.
 * @return 0 or -ENOMEM
 */
int fz_state_restore(fz_run *run, fz_layers *layers);

/**
 * Whether the state that was read was saved in this incarnation, so that nothing of it is missing.
 * @param[out] ret_gen  of the plan that carries it
 */
bool fz_state_knows(const fz_run *run, uint64_t incarnation, uint64_t *ret_gen);

/**
 * Does the rules, overrides and pins of a kept state to new layers of the run, as far as they fit its parameters.
 * @param[out] ret_rules  where its rules came from; borrowed from `state`
 * @return 0; -EBADMSG the state is damaged; -ENOMEM
 */
int fz_state_decisions(fz_run *run, const fz_json *state, fz_layers *layers, struct fz_state_rules *ret_rules);

#endif
