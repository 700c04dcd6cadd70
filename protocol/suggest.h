/* suggest.h - did-you-mean: the name that somebody most likely meant. */
#ifndef FZ_SUGGEST_H
#define FZ_SUGGEST_H

#include <stdbool.h>
#include <stddef.h>

/** Words that are further apart than this are not suggested for each other. */
#define FZ_SUGGEST_DISTANCE_MAX 2U

/**
 * Edit distance (insert, delete, replace, swap of neighbours: 1 each) of two byte strings.
 * @return the distance, or `limit` + 1 when it is larger than `limit`
 */
size_t fz_edit_distance(const char *a, size_t a_length, const char *b, size_t b_length, size_t limit);

/**
 * Remembers the best candidate of a stream of them. Ranking: whole-component tail, one edit, prefix, two edits;
 * then the shorter and the earlier one. Initialise with the word; nothing is copied, nothing is to be freed.
 */
struct fz_suggestion {
  const char *word; /* borrowed */
  size_t word_length;
  const char *best; /* borrowed from the candidate; NULL: nothing is near */
  size_t best_length;
  unsigned rank; /* of best; smaller is better */
};

#define FZ_SUGGESTION(w, length) \
  { .word = (w), .word_length = (length) }

/**
 * Offers a candidate, which must outlive the suggestion. With `dotted`, a candidate of which the word is a
 * whole-component tail ("layers.3" of "model.layers.3") is the best of all.
 */
void fz_suggestion_offer(struct fz_suggestion *suggestion, const char *candidate, size_t length, bool dotted);

/** The nearest of `n` words, or NULL. For commands, options, keys. */
const char *fz_suggest(const char *word, const char *const *candidates, size_t n);

#endif
