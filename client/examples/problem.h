/* problem.h - a sentence about what went wrong, filled where it is known and printed once by the program. */
#ifndef CHARLM_PROBLEM_H
#define CHARLM_PROBLEM_H

/** One problem: what, why and, where it helps, what to type. Empty text: none. */
struct problem {
  char text[768];
};

/**
 * Fills `problem` with a sentence.
 * @param code  a negative errno value
 * @return code, so that a caller can write `return problem_set(...)`
 */
int problem_set(struct problem *problem, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

#endif
