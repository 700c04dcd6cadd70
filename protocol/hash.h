/* hash.h - FNV-1a, 64 bits: the hash of layouts, baselines and run keys, the same on every machine. */
#ifndef FZ_HASH_H
#define FZ_HASH_H

#include <stddef.h>
#include <stdint.h>

/*
 * A check that two processes mean the same thing, not a defence against somebody who seeks collisions: all parties run
 * as one user. PROTOCOL.md says which bytes go in; numbers go in as eight bytes, lowest first.
 */
#define FZ_HASH_START UINT64_C(0xcbf29ce484222325)

static inline uint64_t fz_hash_bytes(uint64_t hash, const void *data, size_t length) {
  const unsigned char *bytes = (const unsigned char *)data;
  for (size_t i = 0; i < length; i++)
    hash = (hash ^ bytes[i]) * UINT64_C(0x100000001b3);
  return hash;
}

static inline uint64_t fz_hash_number(uint64_t hash, uint64_t value) {
  unsigned char bytes[8];
  for (size_t i = 0; i < sizeof(bytes); i++)
    bytes[i] = (unsigned char)(value >> (8 * i));
  return fz_hash_bytes(hash, bytes, sizeof(bytes));
}

#endif
