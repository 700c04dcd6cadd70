/* wire.h - the golden lines of tests/data/wire, and the ways in which a line can be wrong. */
#ifndef FZ_TESTS_WIRE_H
#define FZ_TESTS_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "protocol/json.h"

#define WIRE_LINES_MAX 64

/** A file of tests/data/wire, cut into its lines (no newlines). */
struct wire {
  char *text;
  size_t count;
  char *lines[WIRE_LINES_MAX];
};

/** Reads a file, or fails the test. */
void wire_load(struct wire *wire, const char *name);
void wire_free(struct wire *wire);

/** Parses a line, or fails the test. */
fz_json *wire_parse(const char *line);

/** What a field must be; decides which values are wrong for it. */
enum wire_kind { WIRE_INTEGER, WIRE_BOOL, WIRE_STRING, WIRE_TEXT, WIRE_HASH, WIRE_OBJECT, WIRE_ARRAY, WIRE_WORD };

/** A field of a message, as PROTOCOL.md has it; written down here apart from the decoder's own tables. */
struct wire_field {
  const char *name;
  enum wire_kind kind;
  bool required;
  uint64_t min, max; /* of integers; bytes of strings */
};

/** The decoder under test: 0, or an outcome and where. */
typedef int wire_decode(const fz_json *root, fz_field_error *error);

/**
 * Takes a good line and tries the field in every wrong form: missing, doubled, null, of each other type, just out of
 * range; and at both ends of its range, where it is right. Fails the test with the line that was treated wrongly.
 */
void wire_try_field(const char *line, const struct wire_field *field, wire_decode *decode);

/**
 * Decodes lines of which up to two bytes come from another line, so that much of it still is JSON. Fails unless the error
 * is set just when the outcome is not 0, and unless good lines, wrong fields and unknown kinds are all met often.
 * @param good  called with each line that was taken; may be NULL
 */
void wire_try_anything(const struct wire *wire, uint64_t seed, wire_decode *decode, void (*good)(const fz_json *root));

/** Fails unless every proper beginning of the line is refused as a whole. */
void wire_try_truncations(const char *line);

/** A small generator of numbers, the same on every machine. */
uint64_t wire_random(uint64_t *state);

#endif
