/* allreduce.c - averaging through shared memory, with a barrier that can be broken. */
#include "config.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "client/examples/allreduce.h"

/* What the processes share, ahead of their numbers. */
struct shared {
  _Atomic uint32_t generation; /* barriers passed; the futex that ranks wait at */
  _Atomic uint32_t arrived;    /* ranks at the current barrier */
  _Atomic uint32_t broken;
  struct {
    alignas(64) uint64_t signature;
    uint64_t floats;
  } ranks[];
};

struct allreduce {
  struct shared *shared;
  float *rooms; /* ranks x floats */
  unsigned ranks;
  size_t floats;
  size_t mapped;
};

int allreduce_new(struct allreduce **ret, unsigned ranks, size_t floats) {
  const size_t header = sizeof(struct shared) + ranks * sizeof(((struct shared *)NULL)->ranks[0]);
  size_t room, bytes;
  if (__builtin_mul_overflow(floats, sizeof(float), &room) || __builtin_mul_overflow(room, ranks, &bytes) ||
      __builtin_add_overflow(bytes, header, &bytes)) {
    return -ENOMEM;
  }
  struct allreduce *allreduce = calloc(1, sizeof *allreduce);
  if (allreduce == NULL) {
    return -ENOMEM;
  }
  void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    free(allreduce);
    return -errno;
  }
  void *rooms = (char *)memory + header;
  *allreduce =
    (struct allreduce){ .shared = memory, .rooms = rooms, .ranks = ranks, .floats = floats, .mapped = bytes };
  *ret = allreduce;
  return 0;
}

void allreduce_free(struct allreduce *allreduce) {
  if (allreduce != NULL) {
    munmap(allreduce->shared, allreduce->mapped);
    free(allreduce);
  }
}

static void wake_all(struct shared *shared) {
  syscall(SYS_futex, &shared->generation, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

/* Returns when all ranks have come, or false when the barrier is broken. The last one to come opens it. */
static bool barrier(struct allreduce *allreduce) {
  struct shared *shared = allreduce->shared;
  const uint32_t generation = atomic_load(&shared->generation);
  if (atomic_fetch_add(&shared->arrived, 1) + 1 == allreduce->ranks) {
    atomic_store(&shared->arrived, 0);
    atomic_fetch_add(&shared->generation, 1);
    wake_all(shared);
  }
  while (atomic_load(&shared->generation) == generation && atomic_load(&shared->broken) == 0) {
    /* Sleeps only while the generation is still that one, so a wake-up in between is not lost. */
    syscall(SYS_futex, &shared->generation, FUTEX_WAIT, generation, NULL, NULL, 0);
  }
  return atomic_load(&shared->broken) == 0;
}

void allreduce_break(struct allreduce *allreduce) {
  atomic_store(&allreduce->shared->broken, 1);
  atomic_fetch_add(&allreduce->shared->generation, 1);
  wake_all(allreduce->shared);
}

static size_t put(float *room, const struct span *spans, size_t count) {
  size_t used = 0;
  for (size_t i = 0; i < count; i++) {
    memcpy(room + used, spans[i].values, spans[i].count * sizeof *room);
    used += spans[i].count;
  }
  return used;
}

static void get(const float *room, const struct span *spans, size_t count) {
  size_t used = 0;
  for (size_t i = 0; i < count; i++) {
    memcpy(spans[i].values, room + used, spans[i].count * sizeof *room);
    used += spans[i].count;
  }
}

/* Averages this rank's part of the numbers over all rooms. */
static void average_part(struct allreduce *allreduce, unsigned rank, size_t used) {
  const size_t part = (used + allreduce->ranks - 1) / allreduce->ranks;
  const size_t begin = rank * part < used ? rank * part : used;
  const size_t end = begin + part < used ? begin + part : used;
  const float share = 1 / (float)allreduce->ranks;
  for (size_t i = begin; i < end; i++) {
    float sum = 0;
    for (unsigned other = 0; other < allreduce->ranks; other++) {
      sum += allreduce->rooms[other * allreduce->floats + i];
    }
    for (unsigned other = 0; other < allreduce->ranks; other++) {
      allreduce->rooms[other * allreduce->floats + i] = sum * share;
    }
  }
}

static bool all_agree(const struct allreduce *allreduce, unsigned rank) {
  const struct shared *shared = allreduce->shared;
  for (unsigned other = 0; other < allreduce->ranks; other++) {
    if (shared->ranks[other].signature != shared->ranks[rank].signature ||
        shared->ranks[other].floats != shared->ranks[rank].floats) {
      return false;
    }
  }
  return true;
}

int allreduce_mean(struct allreduce *allreduce, unsigned rank, uint64_t signature, const struct span *spans,
                   size_t count) {
  float *room = allreduce->rooms + rank * allreduce->floats;
  const size_t used = put(room, spans, count);
  allreduce->shared->ranks[rank].signature = signature;
  allreduce->shared->ranks[rank].floats = used;
  if (!barrier(allreduce)) {
    return ALLREDUCE_BROKEN;
  }
  if (!all_agree(allreduce, rank)) {
    return ALLREDUCE_DISAGREE;
  }
  average_part(allreduce, rank, used);
  if (!barrier(allreduce)) {
    return ALLREDUCE_BROKEN;
  }
  get(room, spans, count);
  return 0;
}
