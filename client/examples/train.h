/* train.h - charlm's loop: where a trainer meets Freezer. */
#ifndef CHARLM_TRAIN_H
#define CHARLM_TRAIN_H

#include "client/examples/allreduce.h"
#include "client/examples/options.h"
#include "client/examples/text.h"
#include "client/examples/training.h"

/** What all ranks begin with; each works on a copy of its own. */
struct train {
  const struct options *options;
  struct training training;
  struct text text;
  struct allreduce *allreduce; /**< NULL with one rank */
};

/**
 * How many numbers train_rank() averages at most over the ranks.
 */
size_t train_averaged(const struct training *training);

/**
 * Trains as rank `rank` until the last step or until told to stop; a rank_fn whose user is a struct train.
 * @return exit status; what went wrong has been said on standard error
 */
int train_rank(void *user, unsigned rank);

#endif
