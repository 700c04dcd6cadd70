/* loop_memory.c - what libuv allocates with: it ends the process when it cannot enlarge its table of descriptors. */
#include "config.h"

#include <malloc.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "daemon/loop_memory.h"
#include "protocol/limits.h"

/*
 * The table has a pointer for each descriptor up to the highest, and doubles when it is full; of all that libuv holds for
 * us it alone is ever made larger. What is set aside here, and costs nothing until it is used, has room for all
 * descriptors that connections and segments can take, and as many again for the rest and for the doubling.
 */
static void *reserve[2 * (FZ_CONNECTIONS_MAX + FZ_RUNS_MAX)];
static bool reserve_is_used;

static void *enlarge(void *old, size_t size) {
  void *memory = old == reserve ? NULL : realloc(old, size);

  if (memory || size > sizeof(reserve))
    return memory;
  if (old != reserve) {
    const size_t old_size = old ? malloc_usable_size(old) : 0;
    if (reserve_is_used)
      return NULL;
    if (old)
      memcpy(reserve, old, old_size < size ? old_size : size);
    free(old);
    reserve_is_used = true;
  }
  return reserve;
}

static void release(void *memory) {
  if (memory == reserve)
    reserve_is_used = false;
  else
    free(memory);
}

int fz_loop_memory_init(void) { return uv_replace_allocator(malloc, enlarge, calloc, release); }
