/* publisher.h - brings a run's layers into force: layers -> plan -> gate. */
#ifndef FZ_PUBLISHER_H
#define FZ_PUBLISHER_H

#include <stdbool.h>
#include <stdint.h>

#include "daemon/core.h"

/*
 * A plan is published when all ranks are attached and there is something to publish: the first plan of an incarnation,
 * a change (pending.h), or the extension of a plan that runs out. What cannot be published now (a rank is missing; a
 * rank that stands still holds the slot that is needed) stays queued: whoever removes the obstacle calls
 * fz_publisher_run() again, and a timer looks as well.
 *
 * Where a plan begins. The gate says how many steps were begun; a plan for gen g is aimed at that step, and if a rank
 * has begun it before the plan is in the gate, it is made again for a step further on, with a margin that doubles each
 * time. What depends on where it begins is worked out again as well: `for N` of changes that are not published yet, and
 * the anchor of a lighter ruleset.
 */

/** Publishes if there is something to publish and nothing in the way. Errors are logged and tried again later. */
void fz_publisher_run(fz_run *run);
/** The plan's wake-up was reached: extend it if that is so. */
void fz_publisher_wake(fz_run *run, uint64_t step, uint64_t epoch);
/** Starts the timer that looks after vanished and blocking ranks, if it does not run. */
void fz_publisher_look_again(fz_run *run);
/** The timer fired. */
void fz_publisher_retry(fz_run *run);

/** Whether it is this rank that keeps what is queued from being published: it is missing, or holds the slot needed. */
bool fz_publisher_waits_for(const fz_run *run, uint32_t rank);

/** (step, epoch) at which a plan made now would begin. */
void fz_publisher_point(const fz_run *run, uint64_t *ret_step, uint64_t *ret_epoch);

#endif
