/* model.c - a model's tensors and its life. */
#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "client/examples/activations.h"
#include "client/examples/model.h"
#include "client/examples/random.h"

/* 2^28 parameters and 2^30 activations (4 GiB): far beyond what this program can train, far below any overflow. */
enum { MAX_ELEMENTS = 1 << 28 };

static int check_range(const char *name, uint64_t value, uint64_t maximum, struct problem *problem) {
  if (value >= 1 && value <= maximum) {
    return 0;
  }
  return problem_set(problem, -EINVAL, "%s is %" PRIu64 ", but must be 1 to %" PRIu64, name, value, maximum);
}

uint64_t model_elements(const struct model_shape *s) {
  const uint64_t block = 12 * s->width * s->width + 13 * s->width;
  return (2 * s->vocabulary + s->context + 2) * s->width + s->layers * block;
}

uint64_t model_tensors(const struct model_shape *shape) { return 2 + shape->layers * BLOCK_TENSORS + 3; }

int model_shape_check(const struct model_shape *shape, struct problem *problem) {
  if (check_range("layers", shape->layers, 64, problem) < 0 || check_range("width", shape->width, 2048, problem) < 0 ||
      check_range("heads", shape->heads, shape->width, problem) < 0 ||
      check_range("context", shape->context, 4096, problem) < 0 ||
      check_range("vocabulary", shape->vocabulary, 256, problem) < 0 ||
      check_range("batch", shape->batch, 4096, problem) < 0) {
    return -EINVAL;
  }
  if (shape->width % shape->heads != 0) {
    return problem_set(problem, -EINVAL,
                       "width %" PRIu64 " cannot be divided among %" PRIu64 " heads: choose a multiple of it",
                       shape->width, shape->heads);
  }
  if (model_elements(shape) > MAX_ELEMENTS) {
    return problem_set(problem, -EINVAL, "%" PRIu64 " parameters are more than %d: choose less width or layers",
                       model_elements(shape), MAX_ELEMENTS);
  }
  if (activations_floats(shape) > UINT64_C(1) << 30) {
    return problem_set(problem, -EINVAL, "the forward pass would need %" PRIu64 " MiB: choose less batch or context",
                       activations_floats(shape) >> 18);
  }
  return 0;
}

static void add_tensor(struct model *model, const char *name, enum tensor_kind kind, size_t rows, size_t columns) {
  struct tensor *tensor = &model->tensors[model->count++];
  snprintf(tensor->name, sizeof tensor->name, "%s", name);
  tensor->kind = kind;
  tensor->rows = rows;
  tensor->offset = model->elements;
  tensor->elements = rows * columns;
  model->elements += tensor->elements;
}

static void add_block(struct model *model, size_t block, size_t width) {
  const struct {
    const char *name;
    enum tensor_kind kind;
    size_t rows;
    size_t columns;
  } parts[BLOCK_TENSORS] = {
    [LN1_WEIGHT] = { "ln1.weight", TENSOR_NORM, 1, width },
    [LN1_BIAS] = { "ln1.bias", TENSOR_BIAS, 1, width },
    [QKV_WEIGHT] = { "attn.qkv.weight", TENSOR_MATRIX, width, 3 * width },
    [QKV_BIAS] = { "attn.qkv.bias", TENSOR_BIAS, 1, 3 * width },
    [PROJ_WEIGHT] = { "attn.proj.weight", TENSOR_MATRIX, width, width },
    [PROJ_BIAS] = { "attn.proj.bias", TENSOR_BIAS, 1, width },
    [LN2_WEIGHT] = { "ln2.weight", TENSOR_NORM, 1, width },
    [LN2_BIAS] = { "ln2.bias", TENSOR_BIAS, 1, width },
    [UP_WEIGHT] = { "mlp.up.weight", TENSOR_MATRIX, width, 4 * width },
    [UP_BIAS] = { "mlp.up.bias", TENSOR_BIAS, 1, 4 * width },
    [DOWN_WEIGHT] = { "mlp.down.weight", TENSOR_MATRIX, 4 * width, width },
    [DOWN_BIAS] = { "mlp.down.bias", TENSOR_BIAS, 1, width },
  };
  for (size_t i = 0; i < BLOCK_TENSORS; i++) {
    char name[40];
    snprintf(name, sizeof name, "blocks.%zu.%s", block, parts[i].name);
    add_tensor(model, name, parts[i].kind, parts[i].rows, parts[i].columns);
  }
}

static void add_tensors(struct model *model) {
  const struct model_shape *s = &model->shape;
  add_tensor(model, "embed.tokens.weight", TENSOR_EMBEDDING, s->vocabulary, s->width);
  add_tensor(model, "embed.positions.weight", TENSOR_EMBEDDING, s->context, s->width);
  for (size_t block = 0; block < s->layers; block++) {
    add_block(model, block, s->width);
  }
  add_tensor(model, "ln_f.weight", TENSOR_NORM, 1, s->width);
  add_tensor(model, "ln_f.bias", TENSOR_BIAS, 1, s->width);
  add_tensor(model, "head.weight", TENSOR_MATRIX, s->width, s->vocabulary);
}

int model_new(struct model **ret, const struct model_shape *shape, struct problem *problem) {
  const int checked = model_shape_check(shape, problem);
  if (checked < 0) {
    return checked;
  }
  struct model *model = calloc(1, sizeof *model);
  if (model != NULL) {
    model->shape = *shape;
    model->tensors = calloc(model_tensors(shape), sizeof *model->tensors);
    model->parameters = calloc(model_elements(shape), sizeof *model->parameters);
    model->gradients = calloc(model_elements(shape), sizeof *model->gradients);
    model->activations = activations_new(shape);
  }
  if (model == NULL || model->tensors == NULL || model->parameters == NULL || model->gradients == NULL ||
      model->activations == NULL) {
    model_free(model);
    return problem_set(problem, -ENOMEM, "no memory for a model of %" PRIu64 " parameters", model_elements(shape));
  }
  add_tensors(model);
  *ret = model;
  return 0;
}

void model_free(struct model *model) {
  if (model == NULL) {
    return;
  }
  activations_free(model->activations);
  free(model->gradients);
  free(model->parameters);
  free(model->tensors);
  free(model);
}

/* The deviation that a tensor's numbers start with: in a matrix, such that a row keeps its size through the layer. */
static float initial_deviation(const struct tensor *tensor) {
  switch (tensor->kind) {
  case TENSOR_EMBEDDING:
    return 0.1F;
  case TENSOR_MATRIX:
    return 0.5F / sqrtf((float)tensor->rows);
  case TENSOR_NORM:
  case TENSOR_BIAS:
    break;
  }
  return 0;
}

void model_initialise(struct model *model, uint64_t seed) {
  for (size_t i = 0; i < model->count; i++) {
    const struct tensor *tensor = &model->tensors[i];
    const float middle = tensor->kind == TENSOR_NORM ? 1 : 0, deviation = initial_deviation(tensor);
    for (size_t j = 0; j < tensor->elements; j++) {
      model->parameters[tensor->offset + j] = middle + deviation * random_normal(seed, i, j);
    }
  }
}
