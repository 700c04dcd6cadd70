/* mask.h - a bit per parameter, in 64-bit words: bit i % 64 of word i / 64 is parameter i, 1 = requires grad. */
#ifndef FZ_MASK_H
#define FZ_MASK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** Words that `bits` bits take. Bits beyond the last parameter are always 0. */
static inline size_t fz_mask_words(size_t bits) { return (bits + 63) / 64; }

static inline bool fz_mask_get(const uint64_t *mask, size_t i) { return (mask[i / 64] >> (i % 64)) & 1; }

static inline void fz_mask_put(uint64_t *mask, size_t i, bool value) {
  const uint64_t bit = UINT64_C(1) << (i % 64);
  if (value)
    mask[i / 64] |= bit;
  else
    mask[i / 64] &= ~bit;
}

/** Sets all of the first `bits` bits to `value`, the padding to 0. */
static inline void fz_mask_fill(uint64_t *mask, size_t bits, bool value) {
  for (size_t w = 0; w < bits / 64; w++)
    mask[w] = value ? ~UINT64_C(0) : 0;
  if (bits % 64)
    mask[bits / 64] = value ? (UINT64_C(1) << (bits % 64)) - 1 : 0;
}

/** Index of the first set bit at or after `from`, or `bits` when there is none. */
static inline size_t fz_mask_next(const uint64_t *mask, size_t bits, size_t from) {
  for (size_t w = from / 64; w < fz_mask_words(bits); w++) {
    uint64_t word = mask[w];
    if (w == from / 64)
      word &= ~UINT64_C(0) << (from % 64);
    if (word) {
      const size_t i = w * 64 + (size_t)__builtin_ctzll(word);
      return i < bits ? i : bits;
    }
  }
  return bits;
}

/** Number of set bits. */
static inline size_t fz_mask_count(const uint64_t *mask, size_t bits) {
  size_t n = 0;
  for (size_t w = 0; w < fz_mask_words(bits); w++)
    n += (size_t)__builtin_popcountll(mask[w]);
  return n;
}

#endif
