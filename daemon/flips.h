/* flips.h - the flips that a plan brings by itself: each is told once, in the log, to watchers and in the history. */
#ifndef FZ_FLIPS_H
#define FZ_FLIPS_H

#include <stdint.h>

#include "daemon/core.h"

/*
 * Ranks flip by the plan that they hold, whether freezerd looks or not. Afterwards it goes through the boundaries of the
 * plan from (flip_step, flip_epoch), up to which all has been told, to where the ranks are. If they crossed some of steps
 * and some of epochs meanwhile, neither the order nor the masks that were in force are known. So a boundary of epochs waits
 * for the report of the step at which that epoch began. Without one, what came of them all is told as one flip.
 */

/** A rank was at (step, epoch). */
void fz_flips_reported(fz_run *run, uint64_t step, uint64_t epoch);
/** A rank says at which step its epoch began. */
void fz_flips_epoch_began(fz_run *run, uint64_t step, uint64_t epoch);
/** Tells of what came until now, so that an answer is about the step that the ranks are at. */
void fz_flips_look(fz_run *run);
/** The same where there may be no further report. */
void fz_flips_finish(fz_run *run);
/** Before another plan takes the place of run->plan, which was in force for the last time at `last_step`. */
void fz_flips_end_plan(fz_run *run, uint64_t last_step);
/** run->plan is a new one: of itself it flips only behind (step, epoch). */
void fz_flips_begin_plan(fz_run *run, uint64_t step, uint64_t epoch);
/** run->plan is that of a freezerd before this one: goes on behind what its history tells. */
void fz_flips_carry_on(fz_run *run);

#endif
