/* fail_calls.h - what a program that libfzfail.so may be preloaded into knows of it. */
#ifndef FZ_TESTS_FAIL_CALLS_H
#define FZ_TESTS_FAIL_CALLS_H

/** From here on calls count, and may fail. Not there (NULL) when the library is not loaded. */
__attribute__((weak, visibility("default"))) void fz_fail_begin(void);

#endif
