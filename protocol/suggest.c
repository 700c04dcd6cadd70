/* suggest.c - did-you-mean. */
#include "config.h"

#include <limits.h>
#include <string.h>

#include "protocol/suggest.h"

/* Distances up to this limit come from a band of cells around the diagonal. */
#define LIMIT_MAX 8

static size_t least(size_t a, size_t b) { return a < b ? a : b; }

/*
 * Cell (i, j) is the distance of the first i bytes of a and the first j of b; only |i - j| <= limit can stay within the
 * limit. Three rows of 2 * limit + 1 cells, since a swap looks two rows back; cell k of row i is j = i + k - limit.
 */
size_t fz_edit_distance(const char *a, size_t a_length, const char *b, size_t b_length, size_t limit) {
  size_t rows[3][2 * LIMIT_MAX + 1];
  limit = least(limit, LIMIT_MAX);
  const size_t beyond = limit + 1;
  const size_t width = 2 * limit + 1;

  if ((a_length > b_length ? a_length - b_length : b_length - a_length) > limit)
    return beyond;
  for (size_t i = 0; i <= a_length; i++) {
    size_t *row = rows[i % 3];
    const size_t *above = rows[(i + 2) % 3];
    const size_t *two_above = rows[(i + 1) % 3];
    size_t smallest = beyond;
    for (size_t k = 0; k < width; k++) {
      size_t cell = beyond;
      if (i + k >= limit && i + k - limit <= b_length) {
        const size_t j = i + k - limit;
        if (i == 0)
          cell = j;
        else if (j == 0)
          cell = i;
        else {
          cell = above[k] + (a[i - 1] != b[j - 1]);
          if (k + 1 < width)
            cell = least(cell, above[k + 1] + 1);
          if (k > 0)
            cell = least(cell, row[k - 1] + 1);
          if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
            cell = least(cell, two_above[k] + 1);
        }
      }
      row[k] = least(cell, beyond);
      smallest = least(smallest, row[k]);
    }
    if (smallest == beyond)
      return beyond;
  }
  return rows[a_length % 3][b_length + limit - a_length];
}

static bool is_tail(const char *word, size_t word_length, const char *candidate, size_t length) {
  return length > word_length + 1 && candidate[length - word_length - 1] == '.' &&
         memcmp(candidate + length - word_length, word, word_length) == 0;
}

void fz_suggestion_offer(struct fz_suggestion *suggestion, const char *candidate, size_t length, bool dotted) {
  const char *word = suggestion->word;
  const size_t word_length = suggestion->word_length;
  unsigned rank = UINT_MAX;
  if (word_length == 0)
    return;
  if (dotted && is_tail(word, word_length, candidate, length))
    rank = 0;
  else {
    /* A word of two letters is within two edits of every other one: at most half of it may change. */
    const size_t limit = least(FZ_SUGGEST_DISTANCE_MAX, word_length / 2);
    const size_t distance = fz_edit_distance(word, word_length, candidate, length, limit);
    /* One slip is likelier than a word cut short, that likelier than two slips. */
    if (distance <= least(limit, 1))
      rank = 1 + (unsigned)distance;
    else if (length > word_length && memcmp(candidate, word, word_length) == 0)
      rank = 3;
    else if (distance <= limit)
      rank = 4;
  }
  if (rank == UINT_MAX)
    return;
  if (!suggestion->best || rank < suggestion->rank || (rank == suggestion->rank && length < suggestion->best_length)) {
    suggestion->best = candidate;
    suggestion->best_length = length;
    suggestion->rank = rank;
  }
}

const char *fz_suggest(const char *word, const char *const *candidates, size_t n) {
  struct fz_suggestion suggestion = FZ_SUGGESTION(word, strlen(word));
  for (size_t i = 0; i < n; i++)
    fz_suggestion_offer(&suggestion, candidates[i], strlen(candidates[i]), false);
  return suggestion.best;
}
