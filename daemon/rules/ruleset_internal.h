/* ruleset_internal.h - a rules document from inside: for ruleset.c, ruleset_parse.c and rules.c only. */
#ifndef FZ_RULESET_INTERNAL_H
#define FZ_RULESET_INTERNAL_H

#include <stddef.h>

#include "daemon/rules/ruleset.h"

/** Selectors with the places they come from, JSON pointers into the document as it was parsed. */
struct fz_selectors {
  fz_selector **items;
  char **pointers;
  size_t n, capacity;
};

struct fz_rule_source {
  char *name; /* NULL: not named */
  char *shown;
  struct fz_selectors selectors;
  struct fz_selectors excepts;
  struct fz_rule rule; /* what others see of it; borrows from the above */
};

struct fz_ruleset {
  size_t references;
  enum fz_profile profile;
  struct fz_rule_source *rules;
  size_t n_rules;
  struct fz_selectors pins;
  char *canonical;
};

/** Makes the canonical text of a document that is otherwise complete. 0; -E2BIG longer than a line; -ENOMEM. */
int fz_ruleset_write(fz_ruleset *ruleset);

/**
 * fz_ruleset_parse() that also hands out what could be read of an invalid document, for finding more that is wrong with
 * it; nothing when it is not even JSON.
 */
int fz_ruleset_parse_all(fz_ruleset **ret_ruleset, const char *text, size_t length, fz_diagnostics *diagnostics);

#endif
