/* layers.h - the model's building blocks, each a forward and a backward function over row-major float32 arrays. */
#ifndef CHARLM_LAYERS_H
#define CHARLM_LAYERS_H

#include <stddef.h>

/*
 * Conventions
 *   A row is one position of one sequence; `rows` is batch x context.
 *   d_x is the gradient of the loss with respect to x. A gradient that is not wanted is NULL and costs nothing: this is
 *   where freezing saves time. Gradients of weights are overwritten, never accumulated.
 *   Outputs never overlap inputs, except where a contract says so.
 *   `scratch` is memory for intermediate results, of the size that the function's *_scratch() gives, in floats.
 */

/** out (rows x width) = token embedding + position embedding; position is the row's place in its sequence. */
void embedding_forward(float *out, const unsigned char *tokens, const float *token_weight, const float *position_weight,
                       size_t batch, size_t context, size_t width);

/** d_token_weight (vocabulary x width) and d_position_weight (context x width), from d_out. */
void embedding_backward(float *d_token_weight, float *d_position_weight, const float *d_out,
                        const unsigned char *tokens, size_t batch, size_t context, size_t width, size_t vocabulary);

/** Sizes of a linear layer: out (rows x outputs) = in (rows x inputs) x weight (inputs x outputs) + bias (outputs). */
struct linear {
  size_t rows;
  size_t inputs;
  size_t outputs;
};

/** @param bias  NULL: none */
void linear_forward(float *out, const float *in, const float *weight, const float *bias, struct linear size);

/** @param scratch  used only when d_in is wanted */
void linear_backward(float *d_in, float *d_weight, float *d_bias, const float *d_out, const float *in,
                     const float *weight, struct linear size, float *scratch);
size_t linear_scratch(struct linear size);

/**
 * out = weight * (in - mean) / deviation + bias, row by row.
 * @param[out] mean, inverse  per row: the mean and 1 / the standard deviation, for the backward pass
 */
void layernorm_forward(float *out, float *mean, float *inverse, const float *in, const float *weight, const float *bias,
                       size_t rows, size_t width);

/** @param d_in  is *added to*, because a layer norm reads the residual stream, whose gradient has two sources */
void layernorm_backward(float *d_in, float *d_weight, float *d_bias, const float *d_out, const float *in,
                        const float *mean, const float *inverse, const float *weight, size_t rows, size_t width);

/** GELU in its tanh form, element by element. */
void gelu_forward(float *out, const float *in, size_t count);

/** d_in may be d_out. */
void gelu_backward(float *d_in, const float *d_out, const float *in, size_t count);

/** Sizes of causal multi-head attention; width is a multiple of heads. */
struct attention {
  size_t batch;
  size_t context;
  size_t width;
  size_t heads;
};

/**
 * out (rows x width) from qkv (rows x 3 width: queries, keys, values).
 * @param[out] probabilities  batch x heads x context x context, zero above the diagonal, for the backward pass
 */
void attention_forward(float *out, float *probabilities, const float *qkv, struct attention size, float *scratch);
void attention_backward(float *d_qkv, const float *d_out, const float *probabilities, const float *qkv,
                        struct attention size, float *scratch);
size_t attention_scratch(struct attention size);

/**
 * Turns logits (rows x classes) into probabilities, in place.
 * @return the mean of -log(probability of the target) over all rows
 */
double cross_entropy_forward(float *logits, const unsigned char *targets, size_t rows, size_t classes);

/** Turns the probabilities of cross_entropy_forward() into the gradient of the mean loss by the logits, in place. */
void cross_entropy_backward(float *probabilities, const unsigned char *targets, size_t rows, size_t classes);

#endif
