/* progress.h - what the ranks of a run report as they train. */
#ifndef FZ_PROGRESS_H
#define FZ_PROGRESS_H

#include <stdint.h>

#include "daemon/core.h"
#include "protocol/message.h"

void fz_progress_step(fz_run *run, uint32_t rank, uint64_t step, uint64_t epoch);
void fz_progress_epoch(fz_run *run, uint32_t rank, uint64_t step, uint64_t epoch);
void fz_progress_applied(fz_run *run, uint32_t rank, const struct fz_applied *applied);
/** Notices the flips that came since the last report, so that an answer is about the step that the ranks are at. */
void fz_progress_look(fz_run *run);
/** Notes the mask of now, so that a later flip that a rule planned is noticed. */
void fz_progress_note(fz_run *run);

#endif
