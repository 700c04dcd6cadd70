/* attention.c - causal multi-head attention, forward and backward. */
#include "config.h"

#include <math.h>
#include <string.h>

#include "client/examples/exponential.h"
#include "client/examples/layers.h"
#include "client/examples/matmul.h"

/* Rows of scores computed together: what lies above the diagonal of such a tile is the only work wasted. */
enum { TILE = 8 };

/* One head of one sequence: where its queries, keys and values are, and its place in the other arrays. */
struct head {
  size_t qkv;           /* offset of the first query; keys follow `width` later, values 2 `width` */
  size_t out;           /* offset in out and d_out */
  size_t probabilities; /* offset in probabilities */
};

static struct head head_at(struct attention size, size_t sequence, size_t head) {
  const size_t columns = size.width / size.heads;
  return (struct head){
    .qkv = sequence * size.context * 3 * size.width + head * columns,
    .out = sequence * size.context * size.width + head * columns,
    .probabilities = (sequence * size.heads + head) * size.context * size.context,
  };
}

static size_t tile_rows(struct attention size, size_t first) {
  return size.context - first < TILE ? size.context - first : TILE;
}

static void softmax(float *scores, size_t count, float scale) {
  float highest = scores[0];
  for (size_t j = 1; j < count; j++) {
    highest = scores[j] > highest ? scores[j] : highest;
  }
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (size_t j = 0; j < count; j++) {
    scores[j] = exponential((scores[j] - highest) * scale);
    sum += scores[j];
  }
#pragma omp simd
  for (size_t j = 0; j < count; j++) {
    scores[j] /= sum;
  }
}

size_t attention_scratch(struct attention size) {
  return size.context * size.width / size.heads + size.context * size.context;
}

static void head_forward(float *out, float *probabilities, const float *qkv, struct attention size, float *keys) {
  const size_t columns = size.width / size.heads, stride = 3 * size.width;
  const float scale = 1 / sqrtf((float)columns);
  transpose(keys, qkv + size.width, stride, size.context, columns);
  memset(probabilities, 0, size.context * size.context * sizeof *probabilities);
  for (size_t first = 0; first < size.context; first += TILE) {
    const size_t rows = tile_rows(size, first), seen = first + rows;
    float *scores = probabilities + first * size.context;
    matmul_add(scores, size.context, matrix_rows(qkv + first * stride, stride), keys, size.context, rows, columns,
               seen);
    for (size_t i = 0; i < rows; i++) {
      float *row = scores + i * size.context;
      softmax(row, first + i + 1, scale);
      memset(row + first + i + 1, 0, (rows - i - 1) * sizeof *row);
    }
    for (size_t i = 0; i < rows; i++) {
      memset(out + (first + i) * size.width, 0, columns * sizeof *out);
    }
    matmul_add(out + first * size.width, size.width, matrix_rows(scores, size.context), qkv + 2 * size.width, stride,
               rows, seen, columns);
  }
}

void attention_forward(float *out, float *probabilities, const float *qkv, struct attention size, float *scratch) {
  for (size_t sequence = 0; sequence < size.batch; sequence++) {
    for (size_t i = 0; i < size.heads; i++) {
      const struct head head = head_at(size, sequence, i);
      head_forward(out + head.out, probabilities + head.probabilities, qkv + head.qkv, size, scratch);
    }
  }
}

/* Turns the gradient of one row of probabilities into that of its unscaled scores, in place. */
static void softmax_backward(float *gradient, const float *probabilities, size_t count, float scale) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (size_t j = 0; j < count; j++) {
    sum += gradient[j] * probabilities[j];
  }
#pragma omp simd
  for (size_t j = 0; j < count; j++) {
    gradient[j] = probabilities[j] * (gradient[j] - sum) * scale;
  }
}

static void head_backward(float *d_qkv, const float *d_out, const float *probabilities, const float *qkv,
                          struct attention size, float *scratch) {
  const size_t columns = size.width / size.heads, stride = 3 * size.width, width = size.width;
  const float scale = 1 / sqrtf((float)columns);
  float *values = scratch, *d_scores = scratch + size.context * columns;
  transpose(values, qkv + 2 * width, stride, size.context, columns);
  memset(d_scores, 0, size.context * size.context * sizeof *d_scores);
  for (size_t first = 0; first < size.context; first += TILE) {
    const size_t rows = tile_rows(size, first), seen = first + rows;
    float *tile = d_scores + first * size.context;
    matmul_add(tile, size.context, matrix_rows(d_out + first * width, width), values, size.context, rows, columns,
               seen);
    for (size_t i = 0; i < rows; i++) {
      const size_t row = i * size.context;
      softmax_backward(tile + row, probabilities + first * size.context + row, seen, scale);
    }
    /* queries of this tile; keys and values of all positions that it saw */
    matmul_add(d_qkv + first * stride, stride, matrix_rows(tile, size.context), qkv + width, stride, rows, seen,
               columns);
    matmul_add(d_qkv + width, stride, matrix_transposed(tile, size.context), qkv + first * stride, stride, seen, rows,
               columns);
    matmul_add(d_qkv + 2 * width, stride, matrix_transposed(probabilities + first * size.context, size.context),
               d_out + first * width, width, seen, rows, columns);
  }
}

void attention_backward(float *d_qkv, const float *d_out, const float *probabilities, const float *qkv,
                        struct attention size, float *scratch) {
  memset(d_qkv, 0, size.batch * size.context * 3 * size.width * sizeof *d_qkv);
  for (size_t sequence = 0; sequence < size.batch; sequence++) {
    for (size_t i = 0; i < size.heads; i++) {
      const struct head head = head_at(size, sequence, i);
      head_backward(d_qkv + head.qkv, d_out + head.out, probabilities + head.probabilities, qkv + head.qkv, size,
                    scratch);
    }
  }
}
