/* text.h - the text to learn from: its vocabulary, and batches drawn from it. */
#ifndef CHARLM_TEXT_H
#define CHARLM_TEXT_H

#include <stddef.h>
#include <stdint.h>

#include "client/examples/problem.h"

/** The different bytes of a text, in ascending order; a token is an index into them. */
struct vocabulary {
  size_t size; /**< 1 to 256 */
  unsigned char bytes[256];
};

/** A text as tokens. */
struct text {
  unsigned char *tokens;
  size_t length;
};

/** Where a batch lies in the stream of batches; it decides the batch together with the text. */
struct batch_place {
  uint64_t seed;
  uint64_t step;
  uint64_t rank;
};

/**
 * Reads a text. A vocabulary of size 0 is made from the text; another is kept, and must cover the text.
 * @param[in,out] vocabulary
 * @return 0; a negative errno value with a sentence in `problem`: cannot be read, empty, longer than 1 GiB, or with
 *         a byte that the vocabulary lacks
 */
int text_load(struct text *ret, struct vocabulary *vocabulary, const char *path, struct problem *problem);

/** Frees what text_load() made; an all-zero struct is allowed. */
void text_deinit(struct text *text);

/**
 * Draws a batch: sequences from random places of the text, and as targets the same moved on by one. A pure function
 * of text, place and sizes.
 * @param[out] tokens, targets  batch x context
 * @param text  longer than context
 */
void text_batch(unsigned char *tokens, unsigned char *targets, const struct text *text, struct batch_place place,
                size_t batch, size_t context);

#endif
