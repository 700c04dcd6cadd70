/* adamw.h - the AdamW optimizer, with a step count of its own for every tensor. */
#ifndef CHARLM_ADAMW_H
#define CHARLM_ADAMW_H

#include <stdbool.h>
#include <stdint.h>

#include "client/examples/model.h"

/*
 * Adam divides its running means by 1 - beta^t, t being the number of updates that they have seen. With one t for all
 * tensors, a tensor that begins to train at step 1000 would take first steps more than twice too large; so t is
 * counted per tensor. A tensor that is frozen is left alone, with its moments and its count, and goes on from them
 * when it trains again.
 */

/** The state of all tensors; first and second have the layout of model->parameters. */
struct adamw {
  float *first;    /**< running mean of the gradient */
  float *second;   /**< running mean of its square */
  uint64_t *steps; /**< per tensor: updates so far */
};

struct adamw_rates {
  double learning_rate;
  double weight_decay; /**< decoupled: per update, times the learning rate; matrices and embeddings only */
};

/** @return 0; -ENOMEM */
int adamw_init(struct adamw *ret, const struct model *model);

/** Frees what adamw_init() made; an all-zero struct is allowed. */
void adamw_deinit(struct adamw *adamw);

/** Updates each tensor that trains from its gradient; the others keep every bit. */
void adamw_update(struct adamw *adamw, struct model *model, const bool *trains, struct adamw_rates rates);

#endif
