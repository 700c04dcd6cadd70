/* braces.h - expands {a,b} and {0..11} in patterns, and checks the brackets of globs. */
#ifndef FZ_BRACES_H
#define FZ_BRACES_H

#include <stddef.h>
#include <stdint.h>

/** How many {…} one pattern may have on the way to one expansion. */
#define FZ_BRACES_DEPTH_MAX 32U

/** What is wrong with a pattern; static strings. */
struct fz_pattern_fault {
  const char *message;
  const char *hint;      /* may be NULL */
  size_t offset, length; /* bytes in the pattern as written */
};

/**
 * Receives one expansion. `origin[i]` is where byte i stands in the pattern as written, `origin[length]` its end.
 * @return 0 to go on; anything else ends the expansion with that result
 */
typedef int (*fz_expansion_fn)(void *user, const char *text, const uint32_t *origin, size_t length);

/**
 * Calls `each` for every expansion in order; once, with the text itself, when there is none. Braces inside [..] or
 * after a backslash stand for themselves.
 * @param max  how many expansions are too many
 * @return 0; FZ_BRACES_BAD with `ret_fault` set; -ENOMEM; what `each` returned
 */
enum { FZ_BRACES_BAD = 1 };
int fz_braces_expand(const char *text, size_t length, size_t max, fz_expansion_fn each, void *user,
                     struct fz_pattern_fault *ret_fault);

/**
 * How many bytes the character, escape or [class] of a glob that begins at `text` takes; at least 1.
 * 0 when it is not complete: a '[' without its ']', a backslash at the end.
 */
size_t fz_glob_token(const char *text, size_t length);

#endif
