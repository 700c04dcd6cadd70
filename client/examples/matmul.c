/* matmul.c - a matrix product as weighted sums of rows, four rows at a time. */
#include "config.h"

#include "client/examples/matmul.h"

struct matrix matrix_rows(const float *data, size_t stride) {
  return (struct matrix){ data, stride, 1 };
}

struct matrix matrix_transposed(const float *data, size_t stride) {
  return (struct matrix){ data, 1, stride };
}

/* out[] += the sum of weights[k] * rows[k][]. Four rows per pass: one load and one store of out[] for eight flops. */
static void add_rows(float *restrict out, const float *weights, size_t weight_stride, const float *restrict rows,
                     size_t row_stride, size_t count, size_t columns) {
  size_t k = 0;
  for (; k + 4 <= count; k += 4) {
    const float w0 = weights[k * weight_stride], w1 = weights[(k + 1) * weight_stride];
    const float w2 = weights[(k + 2) * weight_stride], w3 = weights[(k + 3) * weight_stride];
    const float *r0 = rows + k * row_stride, *r1 = r0 + row_stride, *r2 = r1 + row_stride, *r3 = r2 + row_stride;
#pragma omp simd
    for (size_t j = 0; j < columns; j++) {
      out[j] += w0 * r0[j] + w1 * r1[j] + w2 * r2[j] + w3 * r3[j];
    }
  }
  for (; k < count; k++) {
    const float w = weights[k * weight_stride];
    const float *row = rows + k * row_stride;
#pragma omp simd
    for (size_t j = 0; j < columns; j++) {
      out[j] += w * row[j];
    }
  }
}

void matmul_add(float *out, size_t out_stride, struct matrix left, const float *right, size_t right_stride, size_t rows,
                size_t inner, size_t columns) {
  for (size_t i = 0; i < rows; i++) {
    add_rows(out + i * out_stride, left.data + i * left.row_stride, left.column_stride, right, right_stride, inner,
             columns);
  }
}

void transpose(float *out, const float *in, size_t in_stride, size_t rows, size_t columns) {
  for (size_t i = 0; i < rows; i++) {
    for (size_t j = 0; j < columns; j++) {
      out[j * rows + i] = in[i * in_stride + j];
    }
  }
}
