/* adopt.h - segments of a freezerd before us, in which ranks live: carried on, so that they see one gate throughout. */
#ifndef FZ_ADOPT_H
#define FZ_ADOPT_H

#include <stdbool.h>
#include <stdint.h>

#include "daemon/core.h"
#include "daemon/trainer.h"

/*
 * A segment is carried on if it is one of ours: its run key is that of this state directory (or socket) and its run, its
 * boot id is this boot's, and a rank lives in it. The run takes parameters, launch and plan from it, and its gens go on.
 * What nobody told this freezerd (rules that were loaded, overrides, pins) is not in it: the plan stays as it is until a
 * change is asked for, and `status` says so.
 */

/** Removes what a killed freezerd left in shared memory: segments of ours in which nobody lives. */
void fz_adopt_clean(fz_core *core);
/**
 * At the start: the same, but what was made last may still be entered; that is looked at again after FZ_HOLD_MS. And
 * carries on what has a name and lives: what has none, or cannot be seen now, follows when a rank comes.
 */
void fz_adopt_begin(fz_core *core);

/**
 * Whether a failure to adopt is one of the moment: the segment, and what was saved of its run, are as good as before. A
 * rank that wants to go on with it must not be given another one: it is refused, and comes back.
 */
bool fz_adopt_is_passing(int error);

/**
 * Looks for a segment of a run that is not known yet by its name in shared memory.
 * @return 0 it was adopted: the run is there; -ENOENT there is none; other negative errno
 */
int fz_adopt_by_name(fz_core *core, const char *name);

/**
 * A trainer handed back the descriptor of the segment that it holds: keeps it as trainer->handed.
 * @param fd  consumed
 * @return 0; -EBADMSG, -EPERM and the like: it is none of ours, go on without it
 */
int fz_adopt_take(fz_trainer *trainer, int fd);
/** Adopts what the trainer handed back; the run that it names is not known. 0; negative errno. */
int fz_adopt_handed(fz_trainer *trainer);

#endif
