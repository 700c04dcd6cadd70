/* problem.c - a sentence about what went wrong. */
#include "config.h"

#include <stdarg.h>
#include <stdio.h>

#include "client/examples/problem.h"

int problem_set(struct problem *problem, int code, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(problem->text, sizeof problem->text, format, arguments);
  va_end(arguments);
  return code;
}
