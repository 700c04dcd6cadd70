/* rules_help.h - what the tests of the rules engine share: tables of parameters, rulesets from text, masks as text. */
#ifndef FZ_TESTS_RULES_HELP_H
#define FZ_TESTS_RULES_HELP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/rules/layers.h"
#include "daemon/rules/ruleset.h"
#include "protocol/params.h"

/** A table from "l1.w=1 l1.b=0 …"; "=0!CODE" and "=1!CODE" are refused by the trainer. Aborts the test on a bad one. */
fz_params *help_params(const char *text);

/** A ruleset from JSON in which ' stands for "; aborts the test if it is not valid. */
fz_ruleset *help_ruleset(const char *text);

/** The same, bound with missing selectors allowed. */
fz_rules *help_rules(fz_params *params, const char *text);

/** "0110": one character per parameter, in one of a few static buffers. */
const char *help_mask(const uint64_t *mask, size_t n);

/** The mask of a selection, to be freed. */
uint64_t *help_select(const fz_params *params, const char *pattern);

/** Freezes or thaws what one pattern selects, within a window. @return that of fz_layers_add_override() */
int help_override(fz_layers *layers, enum fz_action action, const char *pattern, struct fz_window window);

/** A repeatable sequence of numbers. */
struct help_random {
  uint64_t state;
};
uint64_t help_next(struct help_random *random);
/** 0 to n - 1. */
static inline uint64_t help_below(struct help_random *random, uint64_t n) { return help_next(random) % n; }

#endif
