/* since.h - since which step and gen each parameter of a run is as it is, and why in a few words. */
#ifndef FZ_SINCE_H
#define FZ_SINCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/core.h"
#include "daemon/rules/layers.h"

/**
 * Compares the mask of now with the one that was seen last; what differs is so since `step`. The first mask that is seen
 * is the one of the start.
 * @return how many bits differ
 */
size_t fz_since_note(fz_run *run, uint64_t step);
/** The same for a mask that the plan had from `step` on, and that may be past by now. */
void fz_since_flip(fz_run *run, const uint64_t *mask, uint64_t step);
/** Since which step; FZ_TIME_NEVER: since the start, or it is not known. */
uint64_t fz_since_step(const fz_run *run, size_t param);
/** The gen that made it so; that of now if it is so since the start, or it is not known. */
uint64_t fz_since_gen(const fz_run *run, size_t param);
/** Forgets it all: another table of parameters. */
void fz_since_forget(fz_run *run);

/**
 * The cause in a few words.
 * @param adopted  freezerd was restarted without state: what the layers cannot explain is said to come from before
 * @param trains   the flag that is to be explained
 * @return an allocated string, NULL when out of memory
 */
char *fz_since_why(const fz_layers *layers, bool adopted, const struct fz_cause *cause, size_t param, bool trains);

#endif
