/* status.h - error codes on the wire, and the exit status that freezerctl makes of each. */
#ifndef FZ_STATUS_H
#define FZ_STATUS_H

/*
 * X(C name, name on the wire, exit status of freezerctl). A code is never given another meaning, and never reused when
 * it is retired.
 */
#define FZ_CODES(X) \
  X(INTERNAL, "internal", 1) \
  X(UNKNOWN_OP, "unknown_op", 1) \
  X(TOO_MANY, "too_many", 1) \
  X(NO_MEMORY, "no_memory", 1) \
  X(CLOSING, "closing", 1) \
  X(PROTOCOL, "protocol", 1) \
  X(BAD_REQUEST, "bad_request", 2) \
  X(BAD_FIELD, "bad_field", 2) \
  X(BAD_PATTERN, "bad_pattern", 2) \
  X(UNEXPECTED, "unexpected", 2) \
  X(NO_RUN, "no_run", 4) \
  X(AMBIGUOUS_RUN, "ambiguous_run", 4) \
  X(NO_MATCH, "no_match", 4) \
  X(NO_PARAM, "no_param", 4) \
  X(NO_RULES, "no_rules", 4) \
  X(NO_GEN, "no_gen", 4) \
  X(PERMISSION, "permission", 5) \
  X(REFUSED_EMPTY, "refused_empty", 6) \
  X(REFUSED_BASELINE, "refused_baseline", 6) \
  X(REFUSED_PINNED, "refused_pinned", 6) \
  X(REFUSED_TRAINER, "refused_trainer", 6) \
  X(NEEDS_YES, "needs_yes", 6) \
  X(RULES_INVALID, "rules_invalid", 7) \
  /* to trainers only */ \
  X(LAYOUT_MISMATCH, "layout_mismatch", 1) \
  X(LAUNCH_RETIRED, "launch_retired", 1) \
  X(LATE_RANK, "late_rank", 1)

enum fz_code {
#define X(c, wire, status) FZ_CODE_##c,
  FZ_CODES(X)
#undef X
};

/** Its name on the wire. */
const char *fz_code_name(enum fz_code code);
/** The exit status for it. */
int fz_code_exit_status(enum fz_code code);
/** The code of that name; INTERNAL for one that we do not know (a newer peer's), which exits 1 as well. */
enum fz_code fz_code_parse(const char *name);

#endif
