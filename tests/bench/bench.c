/* bench.c - what the benchmarks share: a clock, medians of paired rounds, and the rows that run.py reads. */
#include "config.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "tests/bench/bench.h"

uint64_t bench_now(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
}

static int compare(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

double bench_median(double *values, size_t n) {
  qsort(values, n, sizeof(*values), compare);
  return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

static double measure(bench_work work, void *user, unsigned n) {
  const uint64_t begin = bench_now();
  work(user, n);
  return (double)(bench_now() - begin) / n;
}

struct bench_result bench_pair(bench_work ours, unsigned n_ours, bench_work against, unsigned n_against, void *user) {
  double ours_ns[BENCH_ROUNDS], against_ns[BENCH_ROUNDS];
  for (int round = -BENCH_WARM_UP; round < BENCH_ROUNDS; round++) {
    const int slot = round < 0 ? 0 : round;
    ours_ns[slot] = measure(ours, user, n_ours);
    against_ns[slot] = measure(against, user, n_against);
  }
  return bench_compare(ours_ns, against_ns, BENCH_ROUNDS);
}

struct bench_result bench_compare(double *ours, double *against, size_t n) {
  double *ratios = malloc(n * sizeof(*ratios));
  bench_require(!ratios, "malloc");
  for (size_t i = 0; i < n; i++)
    ratios[i] = ours[i] / against[i];
  const struct bench_result result = { .ours = bench_median(ours, n),
                                       .against = bench_median(against, n),
                                       .ratio = bench_median(ratios, n) };
  free(ratios);
  return result;
}

void bench_row(const char *name, const char *against, const struct bench_result *result, double target) {
  printf("{\"what\":\"%s\",\"against\":\"%s\",\"unit\":\"ns\",\"ours\":%.2f,\"theirs\":%.2f,\"ratio\":%.4f,\"target\":",
         name, against, result->ours, result->against, result->ratio);
  if (target > 0)
    printf("%g}\n", target);
  else
    printf("null}\n");
  fflush(stdout);
}

void bench_require(int failed, const char *what) {
  if (!failed)
    return;
  fprintf(stderr, "bench: %s: %s\n", what, errno ? strerror(errno) : "failed");
  exit(EXIT_FAILURE);
}

freezer_t *bench_open(const freezer_options_t *options, size_t count) {
  freezer_param_t *params = calloc(count, sizeof(*params));
  char(*names)[32] = calloc(count, sizeof(*names));
  bench_require(!params || !names, "calloc");
  for (size_t i = 0; i < count; i++) {
    snprintf(names[i], sizeof(names[i]), "p.%zu", i);
    params[i] = (freezer_param_t){ .name = names[i], .elements = 1000, .requires_grad = true };
  }
  freezer_t *f;
  errno = -freezer_open(&f, options, params, count);
  bench_require(errno, "freezer_open");
  free(params);
  free(names);
  return f;
}

void bench_pin(int n) {
  cpu_set_t allowed, wanted;
  bench_require(sched_getaffinity(0, sizeof(allowed), &allowed) < 0, "sched_getaffinity");
  CPU_ZERO(&wanted);
  for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
    if (CPU_ISSET(cpu, &allowed) && n-- == 0)
      CPU_SET(cpu, &wanted);
  if (CPU_COUNT(&wanted) > 0)
    bench_require(sched_setaffinity(0, sizeof(wanted), &wanted) < 0, "sched_setaffinity");
}

void *bench_shared(size_t size) {
  void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  bench_require(memory == MAP_FAILED, "mmap");
  return memory;
}
