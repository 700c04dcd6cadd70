/* activations.c - one stretch of memory, cut into the results of all layers. */
#include "config.h"

#include <stdlib.h>

#include "client/examples/activations.h"
#include "client/examples/layers.h"

/* Cuts pieces off a stretch of memory; without memory it only counts. */
struct cutter {
  float *memory;
  uint64_t used;
};

static float *cut(struct cutter *cutter, uint64_t floats) {
  float *piece = cutter->memory == NULL ? NULL : cutter->memory + cutter->used;
  cutter->used += floats;
  return piece;
}

static void cut_block(struct cutter *cutter, struct block_activations *block, const struct model_shape *shape) {
  const uint64_t rows = shape->batch * shape->context, width = shape->width;
  block->ln1 = cut(cutter, rows * width);
  block->ln1_mean = cut(cutter, rows);
  block->ln1_inverse = cut(cutter, rows);
  block->qkv = cut(cutter, rows * 3 * width);
  block->probabilities = cut(cutter, rows * shape->heads * shape->context);
  block->attended = cut(cutter, rows * width);
  block->middle = cut(cutter, rows * width);
  block->ln2 = cut(cutter, rows * width);
  block->ln2_mean = cut(cutter, rows);
  block->ln2_inverse = cut(cutter, rows);
  block->up = cut(cutter, rows * 4 * width);
  block->hidden = cut(cutter, rows * 4 * width);
  block->out = cut(cutter, rows * width);
}

static uint64_t larger(uint64_t a, uint64_t b) { return a > b ? a : b; }

static uint64_t scratch_floats(const struct model_shape *s) {
  const uint64_t attention = attention_scratch((struct attention){ s->batch, s->context, s->width, s->heads });
  const uint64_t up = linear_scratch((struct linear){ 1, s->width, 4 * s->width });
  const uint64_t head = linear_scratch((struct linear){ 1, s->width, s->vocabulary });
  return larger(attention, larger(up, head));
}

/* `blocks` may be NULL when only the total is asked for. */
static void cut_all(struct cutter *cutter, struct activations *a, const struct model_shape *shape) {
  const uint64_t rows = shape->batch * shape->context, width = shape->width;
  a->embedded = cut(cutter, rows * width);
  for (uint64_t i = 0; i < shape->layers; i++) {
    struct block_activations unused = { 0 }, *block = a->blocks == NULL ? &unused : &a->blocks[i];
    cut_block(cutter, block, shape);
    block->in = i == 0 || a->blocks == NULL ? a->embedded : a->blocks[i - 1].out;
  }
  a->ln_f = cut(cutter, rows * width);
  a->ln_f_mean = cut(cutter, rows);
  a->ln_f_inverse = cut(cutter, rows);
  a->probabilities = cut(cutter, rows * shape->vocabulary);
  a->d_residual = cut(cutter, rows * width);
  a->d_narrow = cut(cutter, rows * width);
  a->d_wide = cut(cutter, rows * 4 * width);
  a->scratch = cut(cutter, scratch_floats(shape));
}

uint64_t activations_floats(const struct model_shape *shape) {
  struct cutter counter = { 0 };
  struct activations none = { 0 };
  cut_all(&counter, &none, shape);
  return counter.used;
}

struct activations *activations_new(const struct model_shape *shape) {
  struct activations *a = calloc(1, sizeof *a);
  if (a == NULL) {
    return NULL;
  }
  a->blocks = calloc(shape->layers, sizeof *a->blocks);
  a->memory = calloc(activations_floats(shape), sizeof *a->memory);
  if (a->blocks == NULL || a->memory == NULL) {
    activations_free(a);
    return NULL;
  }
  struct cutter cutter = { .memory = a->memory };
  cut_all(&cutter, a, shape);
  return a;
}

void activations_free(struct activations *activations) {
  if (activations == NULL) {
    return;
  }
  free(activations->memory);
  free(activations->blocks);
  free(activations);
}
