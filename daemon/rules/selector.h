/* selector.h - patterns over parameter names: compiled once, matched against a parameter table into a mask. */
#ifndef FZ_SELECTOR_H
#define FZ_SELECTOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/rules/diagnostics.h"
#include "protocol/params.h"

/*
 *   model.layers.3         that parameter, or every parameter of the module of that name ("model.layers.3." and on)
 *   model.*.weight         glob over dotted names: `*` within one component, `**` any number of whole components
 *                          (`**` alone: everything; `x.**`: what lies below x, not x itself), `?` one character that is
 *                          no dot, `[a-z]` `[!a-z]` one character
 *   model.layers.{0..11}   expands before anything else, also `{a,b}`; the result may be bare names or globs
 *   name:TEXT              exactly this name
 *   prefix:TEXT            every name that starts with these bytes; no dot boundary
 *   re:TEXT                a PCRE2 regular expression, searched anywhere in the name; anchor it yourself
 *
 * A bare name, one without any of * ? [ ] { } \, reaches into its module; a glob means parameters only, so
 * 'model.layers.1*' selects no parameter of the modules 1, 10 and 11, but 'model.layers.1*.**' does. In a glob a
 * backslash takes the next character as it is.
 */
typedef struct fz_selector fz_selector;

/** Caps that keep one pattern from costing too much. */
#define FZ_SELECTOR_EXPANSIONS_MAX 10000U

/**
 * Compiles a pattern. `text` need not be NUL-terminated.
 * On an error in the pattern one diagnostic is added, with the pointer `pointer` and the byte offset in the pattern.
 * @return 0; FZ_SELECTOR_BAD; -ENOMEM
 */
enum { FZ_SELECTOR_BAD = 1 };
int fz_selector_new(fz_selector **ret_selector, const char *text, size_t length, const char *pointer,
                    fz_diagnostics *diagnostics);

/** Takes NULL; returns NULL. */
fz_selector *fz_selector_free(fz_selector *selector);

/** The pattern as it was written, borrowed. */
const char *fz_selector_text(const fz_selector *selector);

/**
 * Sets the bit of every parameter that is selected, by its name or an alias; other bits stay as they are.
 * @param[out] ret_matched  how many parameters this selector selects, set before or not; may be NULL
 * @return 0; -E2BIG a regular expression ran into its limits on some name (bits may be set then); -ENOMEM
 */
int fz_selector_match(const fz_selector *selector, const fz_params *params, uint64_t *mask, size_t *ret_matched);

/** The same without aliases: a tied parameter is found under its first name only, as lighter finds it. */
int fz_selector_match_names(const fz_selector *selector, const fz_params *params, uint64_t *mask, size_t *ret_matched);

/**
 * Why a selector that selects nothing does so: an allocated hint such as "did you mean 'model.layers.3' (12
 * parameters)?", or NULL when nothing is near.
 * @param counts  whether the hint says how many parameters the suggestion selects
 * @return 0 or -ENOMEM
 */
int fz_selector_hint(const fz_selector *selector, const fz_params *params, bool counts, char **ret_hint);

/**
 * A list of patterns as a command gets it: the union of all, less those written with a leading '!'. A list that only
 * excludes is an error. Adds one diagnostic per bad pattern and per one that selects nothing (severity FZ_ERROR, pointer
 * "/<index>", message "no parameter matches 'layers.3'", with a hint); an exclusion that selects nothing is a warning.
 * @param mask  fz_mask_words(count) words, overwritten
 * @return 0; FZ_PATTERNS_BAD some pattern is wrong; FZ_PATTERNS_NO_MATCH all are well-formed, but at least one selects
 *         nothing, or all that was selected was excluded; -ENOMEM. The mask is undefined unless 0.
 */
enum { FZ_PATTERNS_BAD = 1, FZ_PATTERNS_NO_MATCH = 2 };
int fz_patterns_match(const fz_params *params, const char *const *patterns, size_t n, uint64_t *mask,
                      fz_diagnostics *diagnostics);

#endif
