/* bench_load.c - many runs in one process, each at a steady pace, for run.py to look at freezerd meanwhile. */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "tests/bench/bench.h"

enum { N_PARAMS = 200, STEPS_PER_EPOCH = 100 };

static void sleep_until(uint64_t moment) {
  const struct timespec until = { .tv_sec = (time_t)(moment / 1000000000U), .tv_nsec = (long)(moment % 1000000000U) };
  while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR)
    ;
}

/* One step of every run, evenly over the period, as runs that know nothing of each other would. */
static void step_all(freezer_t **runs, unsigned n, uint64_t step, uint64_t begin, uint64_t period) {
  for (unsigned i = 0; i < n; i++) {
    sleep_until(begin + period * i / n);
    (void)freezer_batch_begin(runs[i], step, step / STEPS_PER_EPOCH);
    (void)freezer_metric(runs[i], "loss", 1.0 / (double)(step + 1));
  }
}

int main(int argc, char **argv) {
  errno = 0;
  bench_require(argc != 4, "usage: bench_load RUNS STEPS_PER_SECOND SECONDS");
  const unsigned n = (unsigned)atoi(argv[1]), pace = (unsigned)atoi(argv[2]), seconds = (unsigned)atoi(argv[3]);
  freezer_t **runs = calloc(n, sizeof(*runs));
  bench_require(!runs || !n || !pace, "arguments");
  for (unsigned i = 0; i < n; i++) {
    char name[32];
    snprintf(name, sizeof(name), "bench-load-%u", i);
    freezer_options_t options = FREEZER_OPTIONS_INIT;
    options.run = name;
    runs[i] = bench_open(&options, N_PARAMS);
    (void)freezer_batch_begin(runs[i], 0, 0);
    bench_require(freezer_generation(runs[i]) == 0, "a run has no plan");
  }
  puts("attached");
  fflush(stdout);
  const uint64_t period = 1000000000U / pace, begin = bench_now();
  for (uint64_t step = 1; step <= (uint64_t)pace * seconds; step++)
    step_all(runs, n, step, begin + step * period, period);
  for (unsigned i = 0; i < n; i++)
    freezer_close(runs[i]);
  free(runs);
  return 0;
}
