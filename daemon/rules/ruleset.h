/* ruleset.h - the rules document: parsed from canonical JSON and validated, then bound to the parameters of a run. */
#ifndef FZ_RULESET_H
#define FZ_RULESET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/rules/diagnostics.h"
#include "daemon/rules/selector.h"
#include "protocol/limits.h"
#include "protocol/params.h"

/*
 * fz_ruleset_parse() is the only validator of rules: the daemon calls it for what comes over the wire, rulefile for
 * what people write. A fz_ruleset knows no run. fz_ruleset_bind() resolves its selectors against a parameter table into
 * masks, once per run; everything that evaluates rules works on the result, a fz_rules.
 */

enum fz_profile { FZ_PROFILE_OWNED, FZ_PROFILE_LIGHTER };
enum fz_action { FZ_FREEZE, FZ_TRAIN };

/** "owned", "lighter"; "freeze", "train". */
const char *fz_profile_name(enum fz_profile profile);
const char *fz_action_name(enum fz_action action);

/**
 * A half-open window. In force from the moment that both starts are reached, until either end is:
 *   step >= from_step && epoch >= from_epoch && step < until_step && epoch < until_epoch.
 * No end is FZ_TIME_NEVER.
 */
struct fz_window {
  uint64_t from_step, from_epoch;
  uint64_t until_step, until_epoch;
};

#define FZ_WINDOW_ALWAYS \
  { .until_step = FZ_TIME_NEVER, .until_epoch = FZ_TIME_NEVER }

enum fz_phase { FZ_PHASE_WAITS, FZ_PHASE_ACTIVE, FZ_PHASE_OVER };

/** Where a window stands at (step, epoch). One whose end has come is over, even if it never began. */
enum fz_phase fz_window_phase(const struct fz_window *window, uint64_t step, uint64_t epoch);
static inline bool fz_window_active(const struct fz_window *window, uint64_t step, uint64_t epoch) {
  return step >= window->from_step && epoch >= window->from_epoch && step < window->until_step &&
         epoch < window->until_epoch;
}

/** A rule as written, normalised: lighter's keys have become name: and prefix: selectors. Borrowed from its ruleset. */
struct fz_rule {
  const char *name; /* as written, or "rule 3" (counted from 1): what people see. Never NULL */
  bool named;
  enum fz_action action;
  fz_selector *const *selectors;
  size_t n_selectors; /* 0 in profile lighter only */
  fz_selector *const *excepts;
  size_t n_excepts;
  struct fz_window window;
};

typedef struct fz_ruleset fz_ruleset;

/**
 * Parses and validates a rules document.
 * Every error that can be found without a run is added to `diagnostics`, in document order, up to its cap.
 * @param text  JSON; need not be NUL-terminated, at most FZ_RULES_TEXT_MAX bytes
 * @return 0 (warnings may have been added); FZ_RULESET_INVALID; -ENOMEM
 */
enum { FZ_RULESET_INVALID = 1 };
int fz_ruleset_parse(fz_ruleset **ret_ruleset, const char *text, size_t length, fz_diagnostics *diagnostics);

fz_ruleset *fz_ruleset_ref(fz_ruleset *ruleset);
/** Takes NULL; returns NULL. */
fz_ruleset *fz_ruleset_unref(fz_ruleset *ruleset);

enum fz_profile fz_ruleset_profile(const fz_ruleset *ruleset);
size_t fz_ruleset_count(const fz_ruleset *ruleset);
/** Borrowed; `index` < count. */
const struct fz_rule *fz_ruleset_get(const fz_ruleset *ruleset, size_t index);
size_t fz_ruleset_n_pins(const fz_ruleset *ruleset);
/** The pattern of pin `index`, borrowed. */
const char *fz_ruleset_pin(const fz_ruleset *ruleset, size_t index);

/** The document in its one canonical form: NUL-terminated JSON without white space, borrowed. */
const char *fz_ruleset_canonical(const fz_ruleset *ruleset);
/** Whether two documents mean the same by their canonical form. NULL equals NULL only. */
bool fz_ruleset_equal(const fz_ruleset *a, const fz_ruleset *b);

/* --- bound to a run --- */

/** A ruleset with its masks over one parameter table. Immutable and counted. */
typedef struct fz_rules fz_rules;

enum { FZ_BIND_NO_MATCH = 1, FZ_BIND_LIMIT = 2 };

/**
 * Resolves every selector. In profile owned one that selects nothing is an error (a warning with `allow_missing`), in
 * profile lighter a warning; an exception that selects nothing is a warning in both. Pointers are those of the document
 * as fz_ruleset_parse() got it, so that rulefile can place them.
 * @param run  the run's name for messages ("'layers.3' matches nothing in gpt2-ft"), or NULL
 * @return 0; FZ_BIND_NO_MATCH; FZ_BIND_LIMIT masks would take too much memory, or a regular expression ran into its
 *         limits (said in the diagnostics); -ENOMEM
 */
int fz_ruleset_bind(fz_ruleset *ruleset, fz_params *params, const char *run, bool allow_missing, fz_rules **ret_rules,
                    fz_diagnostics *diagnostics);

/**
 * fz_ruleset_parse() and fz_ruleset_bind() in one, so that the errors of both come out together: the selectors of a
 * document with an unknown key are still held against the run.
 * @return 0; FZ_CHECK_INVALID the document is wrong; FZ_CHECK_NO_MATCH it is right, but selectors select nothing;
 *         FZ_CHECK_LIMIT as FZ_BIND_LIMIT; -ENOMEM
 */
enum { FZ_CHECK_INVALID = 1, FZ_CHECK_NO_MATCH, FZ_CHECK_LIMIT };
int fz_ruleset_check(const char *text, size_t length, fz_params *params, const char *run, bool allow_missing,
                     fz_rules **ret_rules, fz_diagnostics *diagnostics);

fz_rules *fz_rules_ref(fz_rules *rules);
/** Takes NULL; returns NULL. */
fz_rules *fz_rules_unref(fz_rules *rules);

/** Both borrowed. */
fz_ruleset *fz_rules_ruleset(const fz_rules *rules);
fz_params *fz_rules_params(const fz_rules *rules);
/** What rule `index` selects, exceptions taken away: a borrowed mask. In profile lighter too. */
const uint64_t *fz_rules_mask(const fz_rules *rules, size_t index);
size_t fz_rules_matches(const fz_rules *rules, size_t index);
/** What the document's `pin` selects: a borrowed mask. */
const uint64_t *fz_rules_pinned(const fz_rules *rules);

#endif
