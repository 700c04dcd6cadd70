/* bench.h - what the benchmarks share: a clock, medians of paired rounds, and the rows that run.py reads. */
#ifndef FZ_BENCH_H
#define FZ_BENCH_H

#include <stddef.h>
#include <stdint.h>

#include "client/freezer.h"

/*
 * Two things are compared by running them in turns, a round of the one and a round of the other, so that whatever else
 * the machine does meets both. A row gives the median time of each and the median of the rounds' ratios.
 */

#define BENCH_ROUNDS 1001
#define BENCH_WARM_UP 20

/** Nanoseconds of CLOCK_MONOTONIC, which all processes share. */
uint64_t bench_now(void);

/** Sorts `values` and returns the middle one. `n` > 0. */
double bench_median(double *values, size_t n);

/** A piece of work: does it `n` times. */
typedef void (*bench_work)(void *user, unsigned n);

/** Medians of a comparison, in nanoseconds for one time of the work. */
struct bench_result {
  double ours, against, ratio;
};

/**
 * Runs `ours` and `against` in turns, so many times each round. Counts that make rounds of about the same 50 us are good:
 * short enough that most are not interrupted, and that both meet the processor in one state.
 */
struct bench_result bench_pair(bench_work ours, unsigned n_ours, bench_work against, unsigned n_against, void *user);

/** The medians of rounds that were measured elsewhere. Sorts both arrays. */
struct bench_result bench_compare(double *ours, double *against, size_t n);

/** Prints one row. `target` is the highest ratio that is good enough; 0: none. */
void bench_row(const char *name, const char *against, const struct bench_result *result, double target);

/** Ends the program with a sentence if `failed`. */
void bench_require(int failed, const char *what);

/** Opens a handle for `count` parameters p.0, p.1, …; ends the program if that fails. */
freezer_t *bench_open(const freezer_options_t *options, size_t count);

/**
 * Keeps this process, and those that it forks, on the n-th of the processors that it may use, counted from 0; does nothing
 * if there are not as many. Where processes that wake each other run decides what that costs: both sides of a comparison
 * are to run in the same places.
 */
void bench_pin(int n);

/** Anonymous memory that forked processes share, zeroed. */
void *bench_shared(size_t size);

#endif
