/* ranks.h - starts the ranks of a run as processes, watches over them, and passes on the wish to stop. */
#ifndef CHARLM_RANKS_H
#define CHARLM_RANKS_H

#include <stdbool.h>

#include "client/examples/allreduce.h"

/** What a rank does; its return value is its exit status. */
typedef int (*rank_fn)(void *user, unsigned rank);

/**
 * Runs `fn` once per rank: for one rank in this process, for more each in a child of its own, so that all memory but
 * the shared one is private. While it runs, SIGTERM and SIGINT are a wish to stop, of which all ranks learn; a second
 * one ends at once. When a rank ends badly, the all-reduce is broken, so that the others end too.
 * @param allreduce  borrowed; NULL when count is 1
 * @return 0 when all ranks returned 0, else 1; what happened to a rank has been said on standard error
 */
int ranks_run(unsigned count, struct allreduce *allreduce, rank_fn fn, void *user);

/** Whether this process has been told to stop. Ranks must agree on it, through the all-reduce, before they do. */
bool ranks_should_stop(void);

#endif
