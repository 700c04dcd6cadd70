/* activations.h - the memory of one forward pass, which the backward pass reads; inside the model only. */
#ifndef CHARLM_ACTIVATIONS_H
#define CHARLM_ACTIVATIONS_H

#include <stdint.h>

#include "client/examples/model.h"

/** One block's results; all have one row per position. */
struct block_activations {
  const float *in; /* the residual stream as the block finds it; the block before owns it */
  float *ln1, *ln1_mean, *ln1_inverse;
  float *qkv;           /* 3 width columns */
  float *probabilities; /* batch x heads x context x context */
  float *attended;
  float *middle; /* the residual stream after attention */
  float *ln2, *ln2_mean, *ln2_inverse;
  float *up;     /* 4 width columns */
  float *hidden; /* 4 width columns */
  float *out;    /* the residual stream after the block */
};

struct activations {
  const unsigned char *tokens, *targets; /* of the last forward pass; borrowed */
  float *embedded;
  struct block_activations *blocks;
  float *ln_f, *ln_f_mean, *ln_f_inverse;
  float *probabilities; /* vocabulary columns */
  /* The backward pass: gradients of the residual stream, of a width-wide and of a 4 width-wide row. */
  float *d_residual, *d_narrow, *d_wide;
  float *scratch; /* what the layers ask for */
  float *memory;  /* all of the above is inside it */
};

/** How many floats the activations of this shape take; the shape's single sizes have been checked. */
uint64_t activations_floats(const struct model_shape *shape);

/** @return NULL without memory */
struct activations *activations_new(const struct model_shape *shape);

/** NULL is allowed. */
void activations_free(struct activations *activations);

#endif
