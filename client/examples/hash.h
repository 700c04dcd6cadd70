/* hash.h - a 64-bit hash (FNV-1a) that tells whether bytes changed; no protection against somebody who wants to fool it. */
#ifndef CHARLM_HASH_H
#define CHARLM_HASH_H

#include <stddef.h>
#include <stdint.h>

#define HASH_START UINT64_C(0xcbf29ce484222325)

/** Continues a hash, begun with HASH_START, over more bytes. */
static inline uint64_t hash_bytes(uint64_t hash, const void *bytes, size_t count) {
  const unsigned char *b = bytes;
  for (size_t i = 0; i < count; i++) {
    hash = (hash ^ b[i]) * UINT64_C(0x100000001b3);
  }
  return hash;
}

#endif
