/* revert.h - finds the decisions that a run had at an earlier gen. */
#ifndef FZ_REVERT_H
#define FZ_REVERT_H

#include "daemon/client.h"
#include "daemon/pending.h"

/**
 * Reads what a `revert` goes back to out of the history into `pending`: target, rules and their origin, and how many
 * changes it takes back. A gen is one of the run's incarnation; those before its first change have the decisions with
 * which the incarnation began. Without a gen it is to before the last change.
 * @return 0; negative: an error was answered
 */
int fz_revert_find(fz_client *client, const fz_request *request, fz_run *run, fz_pending *pending);

#endif
