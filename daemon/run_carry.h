/* run_carry.h - decisions that were made over one parameter table, made again over another. */
#ifndef FZ_RUN_CARRY_H
#define FZ_RUN_CARRY_H

#include "daemon/core.h"
#include "daemon/rules/layers.h"

/*
 * Patterns are resolved again. What selects nothing any more is dropped, with a warning on the run. All return 0 or
 * -ENOMEM.
 */

/** Rules, overrides and pins of the run's layers, added to new ones. */
int fz_run_carry(fz_run *run, fz_layers *layers);
/** One override; its mask is not looked at. */
int fz_run_carry_override(fz_run *run, const struct fz_override *old, fz_layers *layers);
/** One pin; its mask and values are not looked at. */
int fz_run_carry_pin(fz_run *run, const struct fz_pin *old, fz_layers *layers);

#endif
