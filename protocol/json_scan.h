/* json_scan.h - checks that a text is one JSON object as RFC 8259 has it, before a tree is built from it. */
#ifndef FZ_JSON_SCAN_H
#define FZ_JSON_SCAN_H

#include <stdbool.h>
#include <stddef.h>

/* Characters of one number: as many as the tree's builder looks at. */
#define FZ_JSON_NUMBER_MAX 63U

/** What is known of a text that passed. */
struct fz_json_scan {
  size_t first, end; /* the object: from its '{' to behind its '}' */
  bool odd_numbers;  /* some number is not just 1 to 15 digits: whether it is a whole number, its text must say */
};

/**
 * Goes over the text once: grammar, UTF-8, control characters, escapes, numbers, depth, one object and nothing behind it.
 * Keys are not compared.
 * @param[out] why  a sentence when it is not one; may be NULL
 */
bool fz_json_scan(const char *text, size_t length, struct fz_json_scan *ret_scan, char *why, size_t why_size);

/**
 * The next number of a text that passed, from *at on, which moves behind it. Called once per number, in the text's order.
 * @return its length, 0 when there is none
 */
size_t fz_json_scan_number(const char *text, size_t length, size_t *at, const char **ret_number);

/** Whether a number, as written, is a whole number from 0 to FZ_INT_MAX. */
bool fz_json_number_is_integer(const char *number, size_t length);

#endif
