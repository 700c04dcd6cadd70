/* bench_idle.c - what a batch costs at which nothing changes, with freezerd attached and without. */
#include "config.h"

#include <stdatomic.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/bench/bench.h"

enum { N_PARAMS = 1000, CALLS = 3000, SYSCALLS = 300, LOADS = 100000 };

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

static void rows(const char *name, bench_work ours, struct subject *subject) {
  struct bench_result result = bench_pair(ours, CALLS, one_syscall, SYSCALLS, subject);
  bench_row(name, "one syscall", &result, 0.1);
  result = bench_pair(ours, CALLS, atomic_loads, LOADS, subject);
  bench_row(name, "an atomic load", &result, 0);
}

int main(void) {
  freezer_options_t options = FREEZER_OPTIONS_INIT;
  options.run = "bench-idle";
  struct subject subject = { .f = bench_open(&options, N_PARAMS) };
  (void)freezer_batch_begin(subject.f, 0, 0);
  if (freezer_generation(subject.f) > 0) {
    rows("idle batch, next step", next_step, &subject);
    rows("idle batch, same step", same_step, &subject);
  } else {
    rows("idle batch, no freezerd", next_step, &subject);
  }
  freezer_close(subject.f);
  return 0;
}
