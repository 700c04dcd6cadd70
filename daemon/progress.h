/* progress.h - what the ranks of a run report as they train. */
#ifndef FZ_PROGRESS_H
#define FZ_PROGRESS_H

#include <stdint.h>

#include "daemon/core.h"
#include "protocol/message.h"

void fz_progress_step(fz_run *run, uint32_t rank, uint64_t step, uint64_t epoch);
void fz_progress_epoch(fz_run *run, uint32_t rank, uint64_t step, uint64_t epoch);
void fz_progress_applied(fz_run *run, uint32_t rank, const struct fz_applied *applied);
/** A rank came, or came back: notes the mask of now. */
void fz_progress_note(fz_run *run);

#endif
