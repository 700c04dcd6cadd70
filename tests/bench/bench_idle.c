/* bench_idle.c - what a batch costs at which nothing changes, with freezerd attached and without. */
#include "config.h"

#include <stdatomic.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/bench/bench.h"

enum { N_PARAMS = 1000, CALLS = 100000 };

struct subject {
  freezer_t *f;
  uint64_t step;
  _Atomic uint64_t word;
};

static void next_step(void *user, unsigned n) {
  struct subject *subject = user;
  while (n--)
    (void)freezer_batch_begin(subject->f, ++subject->step, 0);
}

static void same_step(void *user, unsigned n) {
  struct subject *subject = user;
  while (n--)
    (void)freezer_batch_begin(subject->f, subject->step, 0);
}

static void one_syscall(void *user, unsigned n) {
  (void)user;
  while (n--)
    (void)syscall(SYS_getppid);
}

static void atomic_loads(void *user, unsigned n) {
  struct subject *subject = user;
  while (n--)
    (void)atomic_load_explicit(&subject->word, memory_order_acquire);
}

static void row(const char *name, const char *against, bench_work ours, bench_work theirs, struct subject *subject,
                double target) {
  const struct bench_result result = bench_pair(ours, theirs, subject, CALLS);
  bench_row(name, against, &result, target);
}

int main(void) {
  freezer_options_t options = FREEZER_OPTIONS_INIT;
  options.run = "bench-idle";
  struct subject subject = { .f = bench_open(&options, N_PARAMS) };
  (void)freezer_batch_begin(subject.f, 0, 0);
  const int attached = freezer_generation(subject.f) > 0;
  row(attached ? "idle batch, next step" : "idle batch, no freezerd", "one syscall", next_step, one_syscall, &subject,
      0.1);
  row(attached ? "idle batch, next step" : "idle batch, no freezerd", "an atomic load", next_step, atomic_loads,
      &subject, 0);
  if (attached) {
    row("idle batch, same step", "one syscall", same_step, one_syscall, &subject, 0.1);
    row("idle batch, same step", "an atomic load", same_step, atomic_loads, &subject, 0);
  }
  freezer_close(subject.f);
  return 0;
}
