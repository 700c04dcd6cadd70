/* run_rules.h - which rules a run has: its trainer's, freezerd's default, or loaded ones. */
#ifndef FZ_RUN_RULES_H
#define FZ_RUN_RULES_H

#include <stdbool.h>

#include "daemon/rules/layers.h"
#include "daemon/run.h"
#include "protocol/plan.h"

/**
 * A rank is taken in: rules that it brings, or the default, become the run's if it has none of its own. What cannot
 * apply leaves the run without rules, said in the log, in `status` and to the trainer.
 * @param text  canonical or not, as the trainer sent it; NULL: it brings none
 * @return 0; -ENOMEM: nothing was done, it is to come again
 */
int fz_run_attach_rules(fz_run *run, fz_trainer *trainer, const char *text);

/** Binds the run's rules to the table of new layers; rules that do not fit it any more are dropped with a warning. */
int fz_run_carry_rules(fz_run *run, fz_layers *layers);

/**
 * Rules that were saved, for layers without any. What they do not select any more is a warning.
 * @return 0, also when they do not fit; -ENOMEM
 */
int fz_run_restore_rules(fz_run *run, fz_layers *layers, const fz_json *document);

/**
 * Rules that came with an attach are about to be in force for the first time. If they would freeze everything the run
 * goes on without them.
 * @return true: they were taken out, plan again
 */
bool fz_run_prove_rules(fz_run *run, const fz_plan *plan);

/** Notes where the run's rules come from; the strings are copied, NULL: none. */
void fz_run_name_rules(fz_run *run, enum fz_rules_origin origin, const char *source, const char *by);

#endif
