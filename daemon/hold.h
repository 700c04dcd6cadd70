/* hold.h - freezerd has just started: whoever comes to a run that lived waits until its segment has been handed back. */
#ifndef FZ_HOLD_H
#define FZ_HOLD_H

#include <stdbool.h>

#include "daemon/core.h"

/*
 * A freezerd that is killed, or ends while ranks live, leaves their segment. The next one finds it by its name, unless
 * that is gone (a logout, a container with a new /dev/shm): then a rank has to hand the descriptor back. Were a process
 * that has none the first to say hello, it would begin another incarnation, and those that live had to go over to it.
 * So for the first seconds nobody is placed in such a run but by the segment.
 *
 * Which runs these are is told by a file, DIR/KEY/living: the boot id and the incarnation of the segment in which ranks
 * live. It is made and removed with the segment, and not synced: it has to outlive freezerd, not the machine. Nobody is
 * held if there is none, if it is of another boot, or if that segment is still there by its name: then it is found, or
 * its ranks are dead. A rank that hands back a segment which a rewind has ended waits as well: there is a newer one, and
 * somebody in it.
 *
 * It ends with the resume that brings the segment. It ends at the latest FZ_HOLD_MS after freezerd began, so that a job
 * that starts later is never held, and FZ_HOLD_HELLO_MS after the first hello, which leaves a trainer the time to get a
 * plan within its attach timeout of 5 s.
 */
#define FZ_HOLD_MS 5000U
#define FZ_HOLD_HELLO_MS 4000U

/** Notes that ranks live, or may, in the segment of the run; without a state directory, or room there, nothing. */
void fz_hold_note(const fz_run *run);
/** That segment of the run with this key goes, or its ranks are dead. */
void fz_hold_forget(const fz_core *core, const char *key, uint64_t incarnation);

/**
 * Whether the trainer must wait; then it is placed later, by fz_attach_arrive(). To be asked when its run is not known
 * and was not found by its name.
 * @param run  the name of its run
 */
bool fz_hold_trainer(fz_trainer *trainer, const char *run);
/** The run is there: those who wait for it are placed. */
void fz_hold_release(fz_core *core, const char *run);
/** A trainer that waits is gone. Does nothing to one that does not wait. */
void fz_hold_leave(fz_trainer *trainer);
/** All trainers are gone. */
void fz_hold_drop_all(fz_core *core);

#endif
