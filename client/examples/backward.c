/* backward.c - the backward pass of the model: computes what somebody wants, and stops where nobody wants more. */
#include "config.h"

#include <string.h>

#include "client/examples/activations.h"
#include "client/examples/layers.h"
#include "client/examples/model.h"

/* One backward pass. */
struct pass {
  struct model *model;
  const bool *trains;
  size_t first; /* the first tensor that trains */
};

static const float *parameters(const struct pass *pass, size_t tensor) {
  return pass->model->parameters + pass->model->tensors[tensor].offset;
}

/* Where the gradient of a tensor goes; NULL if it is frozen. */
static float *wanted(const struct pass *pass, size_t tensor) {
  return pass->trains[tensor] ? pass->model->gradients + pass->model->tensors[tensor].offset : NULL;
}

/* Whether a tensor before this one trains, so that the gradient must be carried on to the layers below. */
static bool goes_below(const struct pass *pass, size_t tensor) { return pass->first < tensor; }

/*
 * A linear layer with its weight at `weight` and, if it has one, its bias behind it.
 * Returns whether d_in was computed: false means that the pass ends here.
 */
static bool back_linear(struct pass *pass, float *d_in, const float *d_out, const float *in, size_t weight, bool bias,
                        struct linear size) {
  const bool below = goes_below(pass, weight);
  linear_backward(below ? d_in : NULL, wanted(pass, weight), bias ? wanted(pass, weight + 1) : NULL, d_out, in,
                  parameters(pass, weight), size, pass->model->activations->scratch);
  pass->model->backward_products += (uint64_t)below + (uint64_t)pass->trains[weight];
  return below;
}

/* A layer norm with its weight at `weight`, its bias behind it; adds to the residual stream's gradient. */
static bool back_layernorm(struct pass *pass, const float *d_out, const float *in, const float *mean,
                           const float *inverse, size_t weight) {
  const struct model_shape *s = &pass->model->shape;
  const bool below = goes_below(pass, weight);
  layernorm_backward(below ? pass->model->activations->d_residual : NULL, wanted(pass, weight),
                     wanted(pass, weight + 1), d_out, in, mean, inverse, parameters(pass, weight),
                     s->batch * s->context, s->width);
  return below;
}

static bool back_mlp(struct pass *pass, const struct block_activations *block, size_t base) {
  const struct model_shape *s = &pass->model->shape;
  struct activations *a = pass->model->activations;
  const size_t rows = s->batch * s->context, width = s->width;
  if (!back_linear(pass, a->d_wide, a->d_residual, block->hidden, base + DOWN_WEIGHT, true,
                   (struct linear){ rows, 4 * width, width })) {
    return false;
  }
  gelu_backward(a->d_wide, a->d_wide, block->up, rows * 4 * width);
  return back_linear(pass, a->d_narrow, a->d_wide, block->ln2, base + UP_WEIGHT, true,
                     (struct linear){ rows, width, 4 * width }) &&
         back_layernorm(pass, a->d_narrow, block->middle, block->ln2_mean, block->ln2_inverse, base + LN2_WEIGHT);
}

static bool back_attention(struct pass *pass, const struct block_activations *block, size_t base) {
  const struct model_shape *s = &pass->model->shape;
  struct activations *a = pass->model->activations;
  const size_t rows = s->batch * s->context, width = s->width;
  if (!back_linear(pass, a->d_narrow, a->d_residual, block->attended, base + PROJ_WEIGHT, true,
                   (struct linear){ rows, width, width })) {
    return false;
  }
  attention_backward(a->d_wide, a->d_narrow, block->probabilities, block->qkv,
                     (struct attention){ s->batch, s->context, width, s->heads }, a->scratch);
  return back_linear(pass, a->d_narrow, a->d_wide, block->ln1, base + QKV_WEIGHT, true,
                     (struct linear){ rows, width, 3 * width }) &&
         back_layernorm(pass, a->d_narrow, block->in, block->ln1_mean, block->ln1_inverse, base + LN1_WEIGHT);
}

/* From the loss to the residual stream behind the last block. */
static bool back_head(struct pass *pass, size_t base) {
  const struct model_shape *s = &pass->model->shape;
  struct activations *a = pass->model->activations;
  const size_t rows = s->batch * s->context;
  cross_entropy_backward(a->probabilities, a->targets, rows, s->vocabulary);
  if (!back_linear(pass, a->d_narrow, a->probabilities, a->ln_f, base + 2, false,
                   (struct linear){ rows, s->width, s->vocabulary })) {
    return false;
  }
  memset(a->d_residual, 0, rows * s->width * sizeof *a->d_residual);
  return back_layernorm(pass, a->d_narrow, a->blocks[s->layers - 1].out, a->ln_f_mean, a->ln_f_inverse, base);
}

void model_backward(struct model *model, const bool *trains, size_t first) {
  const struct model_shape *s = &model->shape;
  struct activations *a = model->activations;
  struct pass pass = { model, trains, first };
  model->backward_products = 0;
  if (first >= model->count || !back_head(&pass, 2 + s->layers * BLOCK_TENSORS)) {
    return;
  }
  for (size_t i = s->layers; i-- > 0;) {
    const size_t base = 2 + i * BLOCK_TENSORS;
    if (!back_mlp(&pass, &a->blocks[i], base) || !back_attention(&pass, &a->blocks[i], base)) {
      return;
    }
  }
  embedding_backward(wanted(&pass, 0), wanted(&pass, 1), a->d_residual, a->tokens, s->batch, s->context, s->width,
                     s->vocabulary);
}
