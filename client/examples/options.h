/* options.h - charlm's command line. */
#ifndef CHARLM_OPTIONS_H
#define CHARLM_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "client/examples/problem.h"

/** A number that was not given. */
#define NOT_GIVEN UINT64_MAX

/** Everything that can be given; NULL, NOT_GIVEN, NAN: not given. */
struct options {
  const char *text, *run, *checkpoint, *resume;
  uint64_t layers, width, heads, context, batch;
  uint64_t steps, seed, ranks, epoch_steps;
  double learning_rate, weight_decay;
  uint64_t checkpoint_every, log_every, step_delay_us;
  bool json_log, dump_hash, help;
};

/**
 * Reads the command line; strings are borrowed from it.
 * @return 0; -EINVAL with a sentence in `problem`
 */
int options_parse(struct options *ret, int argc, char **argv, struct problem *problem);

/** Prints the help. */
void options_help(void);

#endif
