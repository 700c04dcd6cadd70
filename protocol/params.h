/* params.h - the parameter table of a run: names, element counts, baseline flags, refusals, in the trainer's order. */
#ifndef FZ_PARAMS_H
#define FZ_PARAMS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Built with fz_params_new(), fz_params_add() for each parameter in order, fz_params_seal(); immutable and shared by
 * reference after that. Sealing sorts an index of the names (for lookups by name and by prefix), refuses doubled names,
 * and computes the two hashes that ranks compare:
 *   layout hash    over (name, elements) in order
 *   baseline hash  over (requires_grad, may_freeze, may_train) in order
 */
typedef struct fz_params fz_params;

/** One parameter. Strings are owned by the table and NUL-terminated. */
struct fz_param {
  const char *name;
  size_t name_length;
  uint64_t elements;
  bool requires_grad;     /* the baseline flag */
  const char *may_freeze; /* NULL: yes; else a refusal code */
  const char *may_train;  /* NULL: yes; else a refusal code */
};

/** An empty table with one reference. -ENOMEM. */
int fz_params_new(fz_params **ret_params);

fz_params *fz_params_ref(fz_params *params);
/** Takes NULL; returns NULL. */
fz_params *fz_params_unref(fz_params *params);

/**
 * Appends a parameter; copies the strings. `name` need not be NUL-terminated.
 * @return 0; -EINVAL bad name (empty, over FZ_PARAM_NAME_MAX, invalid UTF-8, control characters), bad code or elements
 *         over 2^53; -E2BIG too many parameters or bytes; -ENOMEM. The table is unchanged on failure.
 */
int fz_params_add(fz_params *params, const char *name, size_t name_length, uint64_t elements, bool requires_grad,
                  const char *may_freeze, const char *may_train);

/**
 * Gives the parameter that was added last a further name, under which selectors find it too: of a tied parameter.
 * @return as fz_params_add(); -E2BIG also for too many
 */
int fz_params_add_alias(fz_params *params, const char *name, size_t name_length);

/**
 * Ends building.
 * @param[out] ret_duplicate  index of a parameter whose name, or one of whose aliases, stands there twice, on -EEXIST;
 *                            may be NULL
 * @return 0; -EEXIST doubled name; -ENOMEM
 */
int fz_params_seal(fz_params *params, size_t *ret_duplicate);

size_t fz_params_count(const fz_params *params);
/** Memory that the table takes, about: its entries and strings. */
size_t fz_params_memory(const fz_params *params);
/** Borrowed; `index` < count. */
const struct fz_param *fz_params_get(const fz_params *params, size_t index);
/** Sum of the element counts (saturating). */
uint64_t fz_params_elements(const fz_params *params);
uint64_t fz_params_layout_hash(const fz_params *params);
uint64_t fz_params_baseline_hash(const fz_params *params);
/** The baseline flags as a mask of fz_mask_words(count) words, owned by the table. */
const uint64_t *fz_params_baseline(const fz_params *params);

/** Index of the parameter with exactly this name, or count when there is none. Binary search. */
size_t fz_params_find(const fz_params *params, const char *name, size_t name_length);

/** A further name of a parameter. The string is owned by the table and NUL-terminated. */
struct fz_alias {
  const char *name;
  size_t name_length;
  size_t param; /* index of the parameter */
};

/** All aliases, in the order of their parameters. */
size_t fz_params_count_aliases(const fz_params *params);
/** Borrowed; `index` < count. */
const struct fz_alias *fz_params_get_alias(const fz_params *params, size_t index);
/** Index of the parameter that has this alias, or the count of parameters when there is none. */
size_t fz_params_find_alias(const fz_params *params, const char *name, size_t name_length);

/**
 * The parameters whose name starts with these bytes, as a range of the name-sorted order: positions *ret_first to
 * *ret_end - 1, to be given to fz_params_sorted(). Sorted by bytes (memcmp, shorter first).
 */
void fz_params_prefix_range(const fz_params *params, const char *prefix, size_t length, size_t *ret_first,
                            size_t *ret_end);
/** Index of the parameter at `position` of the name-sorted order. */
size_t fz_params_sorted(const fz_params *params, size_t position);

#endif
