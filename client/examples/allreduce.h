/* allreduce.h - forked processes average their gradients through memory that they share. */
#ifndef CHARLM_ALLREDUCE_H
#define CHARLM_ALLREDUCE_H

#include <stddef.h>
#include <stdint.h>

/*
 * How it works
 *   allreduce_new() maps memory that is shared with children forked later; it has room for one set of numbers per rank.
 *   Each rank writes its numbers into its own room and waits for the others (first barrier). Then each rank averages a
 *   part of the numbers over all rooms, always in the order of the ranks, writes the result into all rooms, and waits
 *   again (second barrier). So every rank finds the same bits in its own room.
 *   A rank that dies would leave the others waiting for ever: whoever sees it calls allreduce_break().
 */

struct allreduce;

/** Outcomes above zero. */
enum allreduce_outcome {
  ALLREDUCE_BROKEN = 1,   /**< a rank is gone */
  ALLREDUCE_DISAGREE = 2, /**< the ranks came with different signatures; all of them are told so */
};

/** A stretch of numbers to be averaged in place. */
struct span {
  float *values;
  size_t count;
};

/**
 * @param ranks   processes that will take part, 1 or more
 * @param floats  the most that one allreduce_mean() will be given
 * @return 0; -ENOMEM; another negative errno value of mmap()
 */
int allreduce_new(struct allreduce **ret, unsigned ranks, size_t floats);

/** Unmaps; in each process that has it. NULL is allowed. */
void allreduce_free(struct allreduce *allreduce);

/**
 * Replaces every number by its mean over all ranks; returns when all ranks have called it.
 * @param signature  of what this rank believes it is averaging; must be the same on all ranks
 * @return 0 or an outcome; after an outcome the numbers are undefined and no further call succeeds
 */
int allreduce_mean(struct allreduce *allreduce, unsigned rank, uint64_t signature, const struct span *spans,
                   size_t count);

/** Makes every waiting and every later allreduce_mean() return ALLREDUCE_BROKEN. */
void allreduce_break(struct allreduce *allreduce);

#endif
