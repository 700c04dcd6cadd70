/* matmul.h - the one matrix product that the whole model is made of. */
#ifndef CHARLM_MATMUL_H
#define CHARLM_MATMUL_H

#include <stddef.h>

/** A read-only matrix: element (i, j) is data[i * row_stride + j * column_stride]. */
struct matrix {
  const float *data;
  size_t row_stride;
  size_t column_stride;
};

/** `data` as a matrix whose rows are `stride` apart. */
struct matrix matrix_rows(const float *data, size_t stride);

/** The transpose of matrix_rows(data, stride), without moving anything. */
struct matrix matrix_transposed(const float *data, size_t stride);

/**
 * out += left x right. `out` is rows x columns with rows `out_stride` apart, left is rows x inner, and right is
 * inner x columns with contiguous rows `right_stride` apart. `out` overlaps neither of the others.
 * The order of summation depends on the sizes only, so equal inputs give equal bits.
 */
void matmul_add(float *out, size_t out_stride, struct matrix left, const float *right, size_t right_stride, size_t rows,
                size_t inner, size_t columns);

/** out (columns x rows, contiguous) = the transpose of in (rows x columns, rows `in_stride` apart). */
void transpose(float *out, const float *in, size_t in_stride, size_t rows, size_t columns);

#endif
