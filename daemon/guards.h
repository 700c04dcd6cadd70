/* guards.h - changes that are refused, or want to be meant: the sentences for each, in one place. */
#ifndef FZ_GUARDS_H
#define FZ_GUARDS_H

#include <stdbool.h>

#include "daemon/client.h"
#include "daemon/pending.h"
#include "daemon/rules/layers.h"
#include "protocol/plan.h"

/** Answers what the layers said of a change that they did not take. */
void fz_guard_refused(fz_client *client, const fz_request *request, const fz_run *run, enum fz_change what,
                      const struct fz_change_counts *counts);

/**
 * `auto` or `unpin` found none of its own: if pins of the rules or the trainer are what was meant, says so.
 * @return true: an error was answered; false: there is nothing to do
 */
bool fz_guard_no_such(fz_client *client, const fz_request *request, const fz_run *run,
                      const struct fz_change_counts *counts);

/**
 * Judges a change by the plan that it would make: it must not freeze everything, now or later, that trains without it,
 * and half of what trains must not go by accident.
 * @param before   the run's layers without the change
 * @param layers   with the change
 * @param outcome  what it does; warnings are added
 * @return 0; negative: an error was answered
 */
int fz_guard_judge(fz_client *client, const fz_request *request, const fz_run *run, const fz_layers *before,
                   const fz_layers *layers, const fz_plan *plan, struct fz_outcome *outcome);

/** A revert that takes back more than the last change wants to be meant. 0; negative: an error was answered. */
int fz_guard_revert(fz_client *client, const fz_request *request, const fz_pending *pending,
                    struct fz_outcome *outcome);

#endif
