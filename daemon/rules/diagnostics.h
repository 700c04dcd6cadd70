/* diagnostics.h - what is wrong with rules or patterns, and where; collected, never printed here. */
#ifndef FZ_DIAGNOSTICS_H
#define FZ_DIAGNOSTICS_H

#include <stdbool.h>
#include <stddef.h>

/*
 * A diagnostic points into a document: `pointer` is a JSON pointer (RFC 6901) to a value, `at_key` says that the key of
 * that member is meant rather than its value, and for a string `offset` and `length` are the bytes of it that are wrong.
 * rulefile turns that into file:line:column; the daemon sends it as it is.
 */

enum fz_severity { FZ_ERROR, FZ_WARNING };

/** What kind of thing is wrong, where a caller treats kinds differently. */
enum fz_problem {
  FZ_PROBLEM_SYNTAX,   /* not JSON, or JSON that we do not take (doubled key, too deep) */
  FZ_PROBLEM_DOCUMENT, /* keys, types, ranges, windows */
  FZ_PROBLEM_PATTERN,  /* a selector that cannot be compiled, or that exceeded its match limits */
  FZ_PROBLEM_NO_MATCH, /* a selector that selects nothing of a run */
  FZ_PROBLEM_LIMIT     /* too many of something */
};

struct fz_diagnostic {
  enum fz_severity severity;
  enum fz_problem problem;
  char *message; /* a sentence with the value in it, no full stop */
  char *hint;    /* what to write instead, for example "did you mean 'from'?"; NULL: none */
  char *pointer; /* "" is the whole document; for pattern lists "/<index>" */
  bool at_key;
  size_t
    offset; /* bytes into the string at `pointer`, or into the text for FZ_PROBLEM_SYNTAX; SIZE_MAX: the whole value */
  size_t length; /* bytes; 0: one point */
};

/** A list of them, embedded; init with FZ_DIAGNOSTICS_NULL, deinit frees everything. Capped: see `dropped`. */
typedef struct fz_diagnostics {
  struct fz_diagnostic *items;
  size_t n;
  size_t errors;  /* how many of all, dropped ones included, are errors */
  size_t dropped; /* diagnostics beyond FZ_DIAGNOSTICS_MAX that were not kept */
} fz_diagnostics;

#define FZ_DIAGNOSTICS_NULL \
  { .items = NULL }
#define FZ_DIAGNOSTICS_MAX 50U

void fz_diagnostics_deinit(fz_diagnostics *diagnostics);

/**
 * Appends one; the strings are copied, `hint` and `pointer` may be NULL ("").
 * Takes NULL as the list and does nothing then. @return 0 or -ENOMEM
 */
int fz_diagnostics_add(fz_diagnostics *diagnostics, const struct fz_diagnostic *diagnostic);

/** The first error, or NULL. Borrowed. */
const struct fz_diagnostic *fz_diagnostics_first_error(const fz_diagnostics *diagnostics);

#endif
