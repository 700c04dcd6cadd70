/* runner.h - what every unit test program shares: its main, and a folder of its own to write in. */
#ifndef FZ_TESTS_RUNNER_H
#define FZ_TESTS_RUNNER_H

#include <check.h>

/** The suite of this test program; each tests/check_x.c defines it, runner.c runs it. */
Suite *fz_suite(void);

/**
 * This program's temporary folder, with a path short enough for sockets below it. It is the working directory of no
 * test; the runner removes it with all that is in it when the last test has ended, however that was.
 * @return the path without a trailing slash; static storage
 */
const char *fz_test_root(void);

/** By what a test multiplies its time limits, 1 or more; greater in builds with sanitizers ($FZ_TEST_SLOW). */
int fz_test_slowdown(void);

#endif
