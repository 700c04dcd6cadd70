/* training.h - what a training run is at a step: everything that its next steps depend on, and a checkpoint holds. */
#ifndef CHARLM_TRAINING_H
#define CHARLM_TRAINING_H

#include <stdint.h>

#include "client/examples/adamw.h"
#include "client/examples/model.h"
#include "client/examples/text.h"

/** Steps are below this. */
#define STEP_LIMIT (UINT64_C(1) << 40)

/** What was chosen at the start. */
struct settings {
  uint64_t seed;
  uint64_t ranks;       /**< 1 to 64 */
  uint64_t epoch_steps; /**< steps that make an epoch, 1 to 2^40 */
  struct adamw_rates rates;
};

/** A run; all-zero: none. */
struct training {
  struct settings settings;
  struct vocabulary vocabulary;
  uint64_t step; /**< steps completed */
  struct model *model;
  struct adamw adamw;
};

/**
 * Begins a run: step 0, initial parameters drawn from the seed.
 * @param shape  its vocabulary is overwritten with that of `vocabulary`
 * @return 0; a negative errno value with a sentence in `problem`
 */
int training_init(struct training *ret, struct model_shape shape, const struct settings *settings,
                  const struct vocabulary *vocabulary, struct problem *problem);

/** Frees a run; an all-zero struct is allowed. */
void training_deinit(struct training *training);

/**
 * Checks settings.
 * @return 0; -EINVAL with a sentence in `problem`
 */
int settings_check(const struct settings *settings, struct problem *problem);

#endif
