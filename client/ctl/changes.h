/* changes.h - tells in words what flips from one mask of a simulation to the next, and which rule does it. */
#ifndef FZ_CTL_CHANGES_H
#define FZ_CTL_CHANGES_H

#include <stdint.h>

#include "daemon/rules/layers.h"
#include "protocol/params.h"

/** Remembers the mask before and what decided each bit; begins with the baseline. */
typedef struct fz_change_teller fz_change_teller;

/** -ENOMEM. */
int fz_change_teller_new(fz_change_teller **ret_teller, fz_params *params);
/** Takes NULL; returns NULL. */
fz_change_teller *fz_change_teller_free(fz_change_teller *teller);

/**
 * "positions: freezes embed_positions; late ends: norm trains": what `mask`, which `layers` give at (step, epoch),
 * changes of the one before. "" when nothing does.
 * @param[out] ret_text  allocated
 * @return 0 or -ENOMEM
 */
int fz_change_teller_next(fz_change_teller *teller, const fz_layers *layers, uint64_t step, uint64_t epoch,
                          const uint64_t *mask, char **ret_text);

#endif
