/* state.h - what of a run outlives freezerd: its rules, overrides, pins and incarnation, in the state directory. */
#ifndef FZ_STATE_H
#define FZ_STATE_H

#include <stdbool.h>

#include "daemon/run.h"

/*
 * DIR/KEY/state.json, one JSON object, KEY being the run's key. It is written to a file beside it, synced and renamed,
 * and the folder synced, before what it says is published or answered: what was confirmed is on disk. What was on disk
 * and not yet published is published by the next freezerd (`gen` in it is higher than that of the segment).
 *
 * Without a state directory nothing here does anything.
 */

/** Where rules come from, for a save that is ahead of its run. */
struct fz_state_rules {
  enum fz_rules_origin origin;
  const char *source, *by; /* NULL: none */
};

/**
 * Writes the run's state with these layers, unless that is what was written last.
 * @param rules  NULL: as the run says
 * @return 0; -E2BIG it would be larger than what is read back; -ENOSPC and the like: what was written before still holds
 */
int fz_state_save(fz_run *run, const fz_layers *layers, const struct fz_state_rules *rules);

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

#endif
