/* random.h - random numbers as a pure function of their coordinates: nothing to store, nothing to restore. */
#ifndef CHARLM_RANDOM_H
#define CHARLM_RANDOM_H

#include <stdint.h>

/** 64 random bits, the same ones for the same (seed, stream, index) on every machine. */
uint64_t random_bits(uint64_t seed, uint64_t stream, uint64_t index);

/** A number from the standard normal distribution; a pure function of (seed, stream, index) too. */
float random_normal(uint64_t seed, uint64_t stream, uint64_t index);

#endif
