/* layers.c - forward and backward functions of everything but attention. */
#include "config.h"

#include <math.h>
#include <string.h>

#include "client/examples/exponential.h"
#include "client/examples/layers.h"
#include "client/examples/matmul.h"

void embedding_forward(float *out, const unsigned char *tokens, const float *token_weight, const float *position_weight,
                       size_t batch, size_t context, size_t width) {
  for (size_t row = 0; row < batch * context; row++) {
    const float *token = token_weight + tokens[row] * width;
    const float *position = position_weight + row % context * width;
#pragma omp simd
    for (size_t j = 0; j < width; j++) {
      out[row * width + j] = token[j] + position[j];
    }
  }
}

void embedding_backward(float *d_token_weight, float *d_position_weight, const float *d_out,
                        const unsigned char *tokens, size_t batch, size_t context, size_t width, size_t vocabulary) {
  if (d_token_weight != NULL) {
    memset(d_token_weight, 0, vocabulary * width * sizeof *d_token_weight);
  }
  if (d_position_weight != NULL) {
    memset(d_position_weight, 0, context * width * sizeof *d_position_weight);
  }
  for (size_t row = 0; row < batch * context; row++) {
    const float *gradient = d_out + row * width;
    for (size_t j = 0; d_token_weight != NULL && j < width; j++) {
      d_token_weight[tokens[row] * width + j] += gradient[j];
    }
    for (size_t j = 0; d_position_weight != NULL && j < width; j++) {
      d_position_weight[row % context * width + j] += gradient[j];
    }
  }
}

void linear_forward(float *out, const float *in, const float *weight, const float *bias, struct linear size) {
  for (size_t row = 0; row < size.rows; row++) {
    if (bias != NULL) {
      memcpy(out + row * size.outputs, bias, size.outputs * sizeof *out);
    } else {
      memset(out + row * size.outputs, 0, size.outputs * sizeof *out);
    }
  }
  matmul_add(out, size.outputs, matrix_rows(in, size.inputs), weight, size.outputs, size.rows, size.inputs,
             size.outputs);
}

size_t linear_scratch(struct linear size) { return size.inputs * size.outputs; }

void linear_backward(float *d_in, float *d_weight, float *d_bias, const float *d_out, const float *in,
                     const float *weight, struct linear size, float *scratch) {
  if (d_weight != NULL) {
    memset(d_weight, 0, size.inputs * size.outputs * sizeof *d_weight);
    matmul_add(d_weight, size.outputs, matrix_transposed(in, size.inputs), d_out, size.outputs, size.inputs, size.rows,
               size.outputs);
  }
  if (d_bias != NULL) {
    memset(d_bias, 0, size.outputs * sizeof *d_bias);
    for (size_t row = 0; row < size.rows; row++) {
#pragma omp simd
      for (size_t j = 0; j < size.outputs; j++) {
        d_bias[j] += d_out[row * size.outputs + j];
      }
    }
  }
  if (d_in != NULL) {
    transpose(scratch, weight, size.outputs, size.inputs, size.outputs);
    memset(d_in, 0, size.rows * size.inputs * sizeof *d_in);
    matmul_add(d_in, size.inputs, matrix_rows(d_out, size.outputs), scratch, size.inputs, size.rows, size.outputs,
               size.inputs);
  }
}

void layernorm_forward(float *out, float *mean, float *inverse, const float *in, const float *weight, const float *bias,
                       size_t rows, size_t width) {
  for (size_t row = 0; row < rows; row++) {
    const float *x = in + row * width;
    float sum = 0, squares = 0;
#pragma omp simd reduction(+ : sum)
    for (size_t j = 0; j < width; j++) {
      sum += x[j];
    }
    const float middle = sum / (float)width;
#pragma omp simd reduction(+ : squares)
    for (size_t j = 0; j < width; j++) {
      squares += (x[j] - middle) * (x[j] - middle);
    }
    const float scale = 1 / sqrtf(squares / (float)width + 1e-5F);
#pragma omp simd
    for (size_t j = 0; j < width; j++) {
      out[row * width + j] = (x[j] - middle) * scale * weight[j] + bias[j];
    }
    mean[row] = middle;
    inverse[row] = scale;
  }
}

/* Adds one row's share to the gradients of weight and bias. */
static void layernorm_backward_weights(float *d_weight, float *d_bias, const float *dy, const float *x, float mean,
                                       float inverse, size_t width) {
  if (d_weight != NULL) {
#pragma omp simd
    for (size_t j = 0; j < width; j++) {
      d_weight[j] += dy[j] * (x[j] - mean) * inverse;
    }
  }
  if (d_bias != NULL) {
#pragma omp simd
    for (size_t j = 0; j < width; j++) {
      d_bias[j] += dy[j];
    }
  }
}

/* Adds one row's gradient to dx: that of the normalised row, less what its mean and its deviation take up. */
static void layernorm_backward_input(float *dx, const float *dy, const float *x, float mean, float inverse,
                                     const float *weight, size_t width) {
  float sum = 0, product = 0;
#pragma omp simd reduction(+ : sum, product)
  for (size_t j = 0; j < width; j++) {
    const float normalised = dy[j] * weight[j];
    sum += normalised;
    product += normalised * (x[j] - mean) * inverse;
  }
  sum /= (float)width;
  product /= (float)width;
#pragma omp simd
  for (size_t j = 0; j < width; j++) {
    dx[j] += inverse * (dy[j] * weight[j] - sum - (x[j] - mean) * inverse * product);
  }
}

void layernorm_backward(float *d_in, float *d_weight, float *d_bias, const float *d_out, const float *in,
                        const float *mean, const float *inverse, const float *weight, size_t rows, size_t width) {
  if (d_weight != NULL) {
    memset(d_weight, 0, width * sizeof *d_weight);
  }
  if (d_bias != NULL) {
    memset(d_bias, 0, width * sizeof *d_bias);
  }
  for (size_t row = 0; row < rows; row++) {
    const float *dy = d_out + row * width, *x = in + row * width;
    layernorm_backward_weights(d_weight, d_bias, dy, x, mean[row], inverse[row], width);
    if (d_in != NULL) {
      layernorm_backward_input(d_in + row * width, dy, x, mean[row], inverse[row], weight, width);
    }
  }
}

/* tanh(sqrt(2 / pi) * (x + 0.044715 x^3)), the inner part of GELU's tanh form. */
static inline float gelu_tanh(float x) {
  const float twice = 1.5957691216F * (x + 0.044715F * x * x * x);
  return 1 - 2 / (exponential(twice) + 1);
}

void gelu_forward(float *out, const float *in, size_t count) {
#pragma omp simd
  for (size_t i = 0; i < count; i++) {
    out[i] = 0.5F * in[i] * (1 + gelu_tanh(in[i]));
  }
}

void gelu_backward(float *d_in, const float *d_out, const float *in, size_t count) {
#pragma omp simd
  for (size_t i = 0; i < count; i++) {
    const float x = in[i], t = gelu_tanh(x);
    const float slope = 0.7978845608F * (1 + 3 * 0.044715F * x * x);
    d_in[i] = d_out[i] * (0.5F * (1 + t) + 0.5F * x * (1 - t * t) * slope);
  }
}

double cross_entropy_forward(float *logits, const unsigned char *targets, size_t rows, size_t classes) {
  double loss = 0;
  for (size_t row = 0; row < rows; row++) {
    float *p = logits + row * classes;
    float highest = p[0];
    for (size_t j = 1; j < classes; j++) {
      highest = p[j] > highest ? p[j] : highest;
    }
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (size_t j = 0; j < classes; j++) {
      p[j] = exponential(p[j] - highest);
      sum += p[j];
    }
#pragma omp simd
    for (size_t j = 0; j < classes; j++) {
      p[j] /= sum;
    }
    loss -= log((double)p[targets[row]]);
  }
  return loss / (double)rows;
}

void cross_entropy_backward(float *probabilities, const unsigned char *targets, size_t rows, size_t classes) {
  const float scale = 1 / (float)rows;
  for (size_t row = 0; row < rows; row++) {
    float *p = probabilities + row * classes;
    p[targets[row]] -= 1;
#pragma omp simd
    for (size_t j = 0; j < classes; j++) {
      p[j] *= scale;
    }
  }
}
