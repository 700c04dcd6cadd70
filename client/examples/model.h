/* model.h - a small causal transformer over characters: its named tensors, its forward and its backward pass. */
#ifndef CHARLM_MODEL_H
#define CHARLM_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/examples/problem.h"

/*
 * The model
 *   tokens -> embed (token + position) -> blocks.0 ... blocks.N-1 -> ln_f -> head -> probability of the next token
 *   a block:  x = x + attn.proj(attention(attn.qkv(ln1(x))));  x = x + mlp.down(gelu(mlp.up(ln2(x))))
 *
 * Its tensors are numbered in the order in which the forward pass meets them. The backward pass meets them in the
 * opposite order, so where the first tensors are frozen it can stop early: at the first one that trains. The head has
 * weights of its own; were it tied to the embedding, it would be tensor 0, and backward could never stop.
 */

/** What a model is made of. */
struct model_shape {
  uint64_t layers;     /**< blocks, 1 to 64 */
  uint64_t width;      /**< numbers per position, a multiple of heads, 1 to 2048 */
  uint64_t heads;      /**< attention heads */
  uint64_t context;    /**< positions per sequence, 1 to 4096 */
  uint64_t vocabulary; /**< different tokens, 1 to 256 */
  uint64_t batch;      /**< sequences per forward pass, 1 to 4096 */
};

/** What a tensor does, which decides how it starts and whether weight decay applies: not to norms and biases. */
enum tensor_kind { TENSOR_EMBEDDING, TENSOR_MATRIX, TENSOR_NORM, TENSOR_BIAS };

/** A named tensor: a stretch of model->parameters, and the same stretch of model->gradients. */
struct tensor {
  char name[40];
  enum tensor_kind kind;
  size_t rows; /**< 1 for a norm or a bias */
  size_t offset;
  size_t elements;
};

/** The tensors of one block, in forward order; block b begins at tensor 2 + b * BLOCK_TENSORS. */
enum block_tensor {
  LN1_WEIGHT,
  LN1_BIAS,
  QKV_WEIGHT,
  QKV_BIAS,
  PROJ_WEIGHT,
  PROJ_BIAS,
  LN2_WEIGHT,
  LN2_BIAS,
  UP_WEIGHT,
  UP_BIAS,
  DOWN_WEIGHT,
  DOWN_BIAS,
  BLOCK_TENSORS
};

struct activations; /* what the forward pass leaves for the backward pass */

struct model {
  struct model_shape shape;
  struct tensor *tensors;
  size_t count;    /**< of tensors */
  size_t elements; /**< of all tensors together */
  float *parameters;
  float *gradients;
  uint64_t backward_products; /**< matrix products that the last model_backward() computed for linear layers */
  struct activations *activations;
};

/**
 * Checks sizes and their products.
 * @return 0; -EINVAL with a sentence in `problem`
 */
int model_shape_check(const struct model_shape *shape, struct problem *problem);

/** How many numbers and tensors a model of this shape has; the shape has been checked. */
uint64_t model_elements(const struct model_shape *shape);
uint64_t model_tensors(const struct model_shape *shape);

/**
 * Makes a model with all parameters zero.
 * @return 0; -EINVAL (shape) or -ENOMEM with a sentence in `problem`
 */
int model_new(struct model **ret, const struct model_shape *shape, struct problem *problem);

/** Frees a model; NULL is allowed. */
void model_free(struct model *model);

/** Draws the initial parameters: a pure function of the shape and the seed. */
void model_initialise(struct model *model, uint64_t seed);

/**
 * Computes the loss of predicting targets[i] from the tokens up to tokens[i] of its sequence.
 * @param tokens, targets  shape.batch x shape.context, each below shape.vocabulary; borrowed until model_backward()
 * @return mean of -log(probability), in nats
 */
double model_forward(struct model *model, const unsigned char *tokens, const unsigned char *targets);

/**
 * Computes the gradients of the last model_forward()'s loss, once per forward pass.
 * The gradient of a tensor that does not train is not computed and its memory not touched.
 * @param trains  one flag per tensor
 * @param first   no tensor below this one trains: the pass stops there. count: nothing is computed
 */
void model_backward(struct model *model, const bool *trains, size_t first);

#endif
