/* exponential.h - e^x in float32, written so that a compiler can compute several at once. */
#ifndef CHARLM_EXPONENTIAL_H
#define CHARLM_EXPONENTIAL_H

#include <stdint.h>
#include <string.h>

/**
 * e^x with a relative error below 5e-7; x is clamped to -87 ... 88, so that the result is neither infinite nor
 * denormal. A NaN stays one.
 */
static inline float exponential(float x) {
  const float raised = x < -87.0F ? -87.0F : x;
  const float bounded = raised > 88.0F ? 88.0F : raised;
  /* x = n ln 2 + r, |r| <= ln 2 / 2. Adding 1.5 * 2^23 leaves no room for a fraction: it rounds, and n is in the low
     bits. ln 2 comes in two parts, the first one short, so that n times it is exact. */
  const float round = 12582912.0F;
  const float shifted = bounded * 1.44269504F + round;
  const float n = shifted - round;
  const float r = (bounded - n * 0.693359375F) + n * 2.12194440e-4F;
  const float e = 1 + r * (1 + r * (1 / 2.0F + r * (1 / 6.0F + r * (1 / 24.0F + r * (1 / 120.0F + r / 720.0F)))));
  uint32_t bits, zero;
  memcpy(&bits, &shifted, sizeof bits);
  memcpy(&zero, &round, sizeof zero);
  bits = (bits - zero + 127) << 23;
  float power;
  memcpy(&power, &bits, sizeof power);
  return e * power;
}

#endif
