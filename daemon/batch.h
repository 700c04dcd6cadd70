/* batch.h - changes of a run that were tried and wait for the disk: one write makes all of them durable. */
#ifndef FZ_BATCH_H
#define FZ_BATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/core.h"
#include "daemon/rules/layers.h"
#include "protocol/control.h"

/*
 * A write to disk takes as long for a hundred lines as for one. So what clients ask for while freezerd is busy, mostly
 * with the write before, is tried one after the other, each on the layers that the one before would leave, and settled
 * together when the loop has read from every client that had something to say: one write, then one plan with all of
 * them, then their answers. Either all of a batch are kept or each is answered that nothing was changed.
 *
 * Nobody sees a batch: it is settled before anything else is looked at or done, whatever it is. And it has only changes
 * of different parameters: what is asked of a parameter is judged by what holds for it, not by what may still fail.
 * Rules and reverts are alone in theirs.
 */
struct fz_batch_item {
  fz_pending *pending;
  fz_client *client;
  uint64_t id;
  bool named; /* the client said who asks */
};

/** Of a run. Init with zeros. */
struct fz_batch {
  struct fz_batch_item *items;
  size_t n, size;
  fz_layers *layers; /* with all of them; NULL if there are none */
  uint64_t *mask;    /* what they select; NULL: one of them is about more than parameters */
  char *lines;       /* of the history */
  size_t length, lines_size;
  uint64_t hash; /* of the state in the last line */
};

/** What was added is forgotten without an answer. */
void fz_batch_deinit(struct fz_batch *batch);

/** Whether a change of these parameters (NULL: of more than parameters) can be tried with what was added. */
bool fz_batch_takes(const fz_run *run, const uint64_t *mask);

/** What the next change is tried on: the run's layers with all that was added. */
const fz_layers *fz_batch_layers(const fz_run *run);

/**
 * Adds a change that was tried.
 * @param pending  consumed on success; its mask is what it selects
 * @param layers   with it; consumed on success
 * @param step     at which it was tried
 * @return 0; negative: an error was answered
 */
int fz_batch_add(fz_run *run, fz_client *client, const fz_request *request, fz_pending *pending, fz_layers *layers,
                 uint64_t step);

/** Writes, publishes and answers what was added to any run. */
void fz_batches_settle(fz_core *core);

#endif
