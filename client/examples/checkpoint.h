/* checkpoint.h - a training run as a file. */
#ifndef CHARLM_CHECKPOINT_H
#define CHARLM_CHECKPOINT_H

#include "client/examples/training.h"

/*
 * The file, in the byte order of the machine that wrote it (another one refuses it)
 *   header      see checkpoint.c: magic, byte order, version, sizes, settings, step, vocabulary
 *   parameters, first moments, second moments   elements x float32 each
 *   update counts                               tensors x uint64
 *   hash        uint64 over all bytes before it
 * Version 1. A change of the header or of the order of tensors raises it; other versions are refused by name.
 */

/**
 * Writes a checkpoint so that at every moment either the old file or the new one is there, whole: into PATH.tmp,
 * which is flushed to disk and then takes the place of PATH.
 * @return 0; a negative errno value with a sentence in `problem`, and the old file as it was
 */
int checkpoint_save(const char *path, const struct training *training, struct problem *problem);

/**
 * Reads a checkpoint. Nothing of the file is believed before it has been checked.
 * @param[out] ret  the run, as it was saved; untouched on failure
 * @return 0; a negative errno value with a sentence in `problem`
 */
int checkpoint_load(struct training *ret, const char *path, struct problem *problem);

#endif
