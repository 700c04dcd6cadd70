/* errors.h - how freezerctl fails: one sentence, a hint with what to type, and the exit status. */
#ifndef FZ_CTL_ERRORS_H
#define FZ_CTL_ERRORS_H

#include "client/ctl/ctl.h"

/** Exit statuses; `freezerctl help exit-codes` explains them. */
enum fz_exit {
  FZ_EXIT_DONE = 0,
  FZ_EXIT_FAILED = 1,
  FZ_EXIT_USAGE = 2,
  FZ_EXIT_NO_DAEMON = 3,
  FZ_EXIT_NOT_FOUND = 4,
  FZ_EXIT_PERMISSION = 5,
  FZ_EXIT_REFUSED = 6,
  FZ_EXIT_RULES = 7,
  FZ_EXIT_UNCONFIRMED = 8,
  FZ_EXIT_TIMEOUT = 124,
  FZ_EXIT_CANNOT_RUN = 126,
  FZ_EXIT_NO_COMMAND = 127,
  FZ_EXIT_INTERRUPTED = 130
};

/** The exit status of an error code: those of PROTOCOL.md and freezerctl's own. Unknown ones are FZ_EXIT_FAILED. */
int fz_exit_for(const char *code);

/**
 * Says what went wrong: "freezerctl: SENTENCE" and "hint: HINT" on stderr; with --json a freezer.error/1 object on
 * stdout besides. A sentence may have further lines. Control characters are escaped.
 * @param code  decides the exit status
 * @param hint  NULL: none
 * @return the exit status
 */
int fz_fail(const fz_ctl *ctl, const char *code, const char *hint, const char *format, ...)
  __attribute__((format(printf, 4, 5)));

/** The same for running out of memory. */
int fz_fail_memory(const fz_ctl *ctl);

/** "freezerctl: SENTENCE" on stderr, for a command that goes on. */
void fz_warn(const char *format, ...) __attribute__((format(printf, 1, 2)));

/** "hint: HINT" on stderr; nothing for NULL or "". */
void fz_hint(const char *hint);

#endif
