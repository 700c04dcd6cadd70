/* forward.c - the forward pass of the model. */
#include "config.h"

#include "client/examples/activations.h"
#include "client/examples/layers.h"
#include "client/examples/model.h"

static const float *parameters(const struct model *model, size_t tensor) {
  return model->parameters + model->tensors[tensor].offset;
}

static void add(float *out, const float *a, const float *b, size_t count) {
#pragma omp simd
  for (size_t i = 0; i < count; i++) {
    out[i] = a[i] + b[i];
  }
}

/* `base` is the index of the block's first tensor. */
static void block_forward(const struct model *model, struct block_activations *block, size_t base) {
  const struct model_shape *s = &model->shape;
  const size_t rows = s->batch * s->context, width = s->width;
  const struct attention heads = { s->batch, s->context, width, s->heads };

  layernorm_forward(block->ln1, block->ln1_mean, block->ln1_inverse, block->in, parameters(model, base + LN1_WEIGHT),
                    parameters(model, base + LN1_BIAS), rows, width);
  linear_forward(block->qkv, block->ln1, parameters(model, base + QKV_WEIGHT), parameters(model, base + QKV_BIAS),
                 (struct linear){ rows, width, 3 * width });
  attention_forward(block->attended, block->probabilities, block->qkv, heads, model->activations->scratch);
  linear_forward(block->middle, block->attended, parameters(model, base + PROJ_WEIGHT),
                 parameters(model, base + PROJ_BIAS), (struct linear){ rows, width, width });
  add(block->middle, block->middle, block->in, rows * width);

  layernorm_forward(block->ln2, block->ln2_mean, block->ln2_inverse, block->middle,
                    parameters(model, base + LN2_WEIGHT), parameters(model, base + LN2_BIAS), rows, width);
  linear_forward(block->up, block->ln2, parameters(model, base + UP_WEIGHT), parameters(model, base + UP_BIAS),
                 (struct linear){ rows, width, 4 * width });
  gelu_forward(block->hidden, block->up, rows * 4 * width);
  linear_forward(block->out, block->hidden, parameters(model, base + DOWN_WEIGHT), parameters(model, base + DOWN_BIAS),
                 (struct linear){ rows, 4 * width, width });
  add(block->out, block->out, block->middle, rows * width);
}

double model_forward(struct model *model, const unsigned char *tokens, const unsigned char *targets) {
  const struct model_shape *s = &model->shape;
  struct activations *a = model->activations;
  const size_t rows = s->batch * s->context, last = 2 + s->layers * BLOCK_TENSORS;
  a->tokens = tokens;
  a->targets = targets;
  embedding_forward(a->embedded, tokens, parameters(model, 0), parameters(model, 1), s->batch, s->context, s->width);
  for (size_t i = 0; i < s->layers; i++) {
    block_forward(model, &a->blocks[i], 2 + i * BLOCK_TENSORS);
  }
  layernorm_forward(a->ln_f, a->ln_f_mean, a->ln_f_inverse, a->blocks[s->layers - 1].out, parameters(model, last),
                    parameters(model, last + 1), rows, s->width);
  linear_forward(a->probabilities, a->ln_f, parameters(model, last + 2), NULL,
                 (struct linear){ rows, s->width, s->vocabulary });
  return cross_entropy_forward(a->probabilities, targets, rows, s->vocabulary);
}
