/* fail_malloc.c - preloaded into a program: lets one allocation in so many fail, by a seed. */
#include "config.h"

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

/* glibc's own, under names that nobody overrides. */
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *old, size_t size);

__attribute__((visibility("default"))) void *malloc(size_t size);
__attribute__((visibility("default"))) void *calloc(size_t n, size_t size);
__attribute__((visibility("default"))) void *realloc(void *old, size_t size);

/* A program that cannot start says so and ends; what is tested here is one that runs. */
#define SPARED 3000

static uint64_t state;
static unsigned long rate;
static long allocations = -1;

static int must_fail(void) {
  if (allocations < 0) {
    const char *text = getenv("FAIL_MALLOC");
    const char *seed = getenv("FAIL_MALLOC_SEED");
    rate = text ? strtoul(text, NULL, 10) : 0;
    state = UINT64_C(88172645463325252) ^ (seed ? strtoul(seed, NULL, 10) : 0) * UINT64_C(0x9E3779B97F4A7C15);
    allocations = 0;
  }
  if (rate == 0 || ++allocations < SPARED)
    return 0;
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  if (state % rate != 0)
    return 0;
  errno = ENOMEM;
  return 1;
}

void *malloc(size_t size) { return must_fail() ? NULL : __libc_malloc(size); }

void *calloc(size_t n, size_t size) { return must_fail() ? NULL : __libc_calloc(n, size); }

void *realloc(void *old, size_t size) { return must_fail() ? NULL : __libc_realloc(old, size); }
