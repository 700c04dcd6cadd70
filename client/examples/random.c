/* random.c - counter-based random numbers. */
#include "config.h"

#include <math.h>

#include "client/examples/random.h"

/* The finaliser of splitmix64: every input bit reaches every output bit. */
static uint64_t mix(uint64_t x) {
  x ^= x >> 30;
  x *= UINT64_C(0xbf58476d1ce4e5b9);
  x ^= x >> 27;
  x *= UINT64_C(0x94d049bb133111eb);
  return x ^ (x >> 31);
}

uint64_t random_bits(uint64_t seed, uint64_t stream, uint64_t index) {
  const uint64_t step = UINT64_C(0x9e3779b97f4a7c15);
  return mix(mix(mix(seed + step) + stream + step) + index + step);
}

float random_normal(uint64_t seed, uint64_t stream, uint64_t index) {
  /* Box-Muller. The first number lies in (0, 1], so that its logarithm is finite. */
  double radius = ((double)(random_bits(seed, stream, 2 * index) >> 11) + 1) * 0x1p-53;
  double angle = (double)(random_bits(seed, stream, 2 * index + 1) >> 11) * 0x1p-53;
  return (float)(sqrt(-2 * log(radius)) * cos(2 * M_PI * angle));
}
