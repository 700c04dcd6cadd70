/* attach.h - how a trainer becomes a rank of a run: from hello to ready. */
#ifndef FZ_ATTACH_H
#define FZ_ATTACH_H

#include "daemon/trainer.h"

/* The messages on that way; trainer.h has the states. Each answers, refuses, or waits for the next one. */
void fz_attach_hello(fz_trainer *trainer, const fz_message *message);
void fz_attach_resume(fz_trainer *trainer, const fz_message *message);
void fz_attach_params(fz_trainer *trainer, const fz_message *message);
void fz_attach_ready(fz_trainer *trainer, const fz_message *message);

/**
 * Its run is looked for: among those known, by the name of its segment, by the segment that the trainer handed back. Then
 * it gets its place there.
 * @param run       the name that it asked for, or that its segment has
 * @param may_wait  whether another rank may first be waited for (hold.h)
 */
void fz_attach_arrive(fz_trainer *trainer, const char *run, bool may_wait);

#endif
