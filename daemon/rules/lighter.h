/* lighter.h - the rules layer of profile lighter: callbacks that write flags at transitions and remember one bit each. */
#ifndef FZ_LIGHTER_H
#define FZ_LIGHTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/rules/ruleset.h"

/*
 * At each batch every callback looks at its limit. Not reached and not frozen: it freezes, a pass over all parameters
 * that writes 0 to what it selects and 1 to all others. Reached and frozen: it releases, a pass that writes 1 to all.
 * So a state is what the last pass left, and a bit per callback.
 *
 * From one batch, the anchor, on, and as long as time does not go back, no callback freezes any more: those that do not
 * hold then are past their limit. All that can still happen are releases, so the later states follow from the state at
 * the anchor alone: the same mask until the first limit, ones from there.
 */

#define FZ_LIGHTER_NOBODY SIZE_MAX

/** Immutable once made, and counted. */
struct fz_lighter_state {
  size_t references;
  size_t n_callbacks;
  bool *frozen;   /* per callback */
  uint64_t *mask; /* what the passes have left */
  uint32_t edge;  /* passes so far */
  size_t writer;  /* the callback that made the last pass; FZ_LIGHTER_NOBODY: none has */
};

/** Nothing has happened: the given mask, no bit set. -ENOMEM. */
int fz_lighter_start(const fz_rules *rules, const uint64_t *mask, uint32_t edge, struct fz_lighter_state **ret_state);

struct fz_lighter_state *fz_lighter_ref(struct fz_lighter_state *state);
/** Takes NULL; returns NULL. */
struct fz_lighter_state *fz_lighter_unref(struct fz_lighter_state *state);

/** What a batch at (step, epoch) makes of a state: every callback in order, as lighter runs them. -ENOMEM. */
int fz_lighter_batch(const struct fz_lighter_state *state, const fz_rules *rules, uint64_t step, uint64_t epoch,
                     struct fz_lighter_state **ret_state);

/** What has come of the state at an anchor. */
struct fz_lighter_now {
  bool all_ones; /* else the anchor's mask */
  uint32_t edge;
  size_t writer;
};

/** At a batch at or after the anchor of which `anchored` is the state. */
struct fz_lighter_now fz_lighter_at(const struct fz_lighter_state *anchored, const fz_rules *rules, uint64_t step,
                                    uint64_t epoch);

#endif
