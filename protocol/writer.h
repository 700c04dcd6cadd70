/* writer.h - writes JSON into a growing, bounded buffer: exact integers, valid UTF-8, one line. */
#ifndef FZ_WRITER_H
#define FZ_WRITER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "protocol/json.h"
#include "protocol/limits.h"

/*
 * A writer keeps its first failure (-ENOMEM, -E2BIG) and does nothing after it, so that a message is written in a row
 * and looked at once, in fz_writer_line().
 *
 *   fz_json_writer writer = FZ_JSON_WRITER_NULL;
 *   fz_write_begin_object(&writer, NULL);
 *   fz_write_integer(&writer, "id", 7);
 *   fz_write_begin_array(&writer, "names");
 *   fz_write_string(&writer, NULL, "a.weight");
 *   fz_write_end_array(&writer);
 *   fz_write_end_object(&writer);
 *   r = fz_writer_line(&writer, &line, &length);
 *   fz_writer_reset(&writer);           the buffer is kept: a message like the last one allocates nothing
 *   fz_writer_deinit(&writer);
 *
 * Every fz_write_* function takes the key of the field that it writes, or NULL in an array and for the outermost value.
 * Commas are put by themselves. Keys are ours: they are escaped like strings.
 */
typedef struct fz_json_writer {
  char *data;
  size_t length;
  size_t size;
  size_t max; /* bytes that a result may have, newline not counted; 0: FZ_LINE_MAX */
  int error;
} fz_json_writer;

#define FZ_JSON_WRITER_NULL \
  { 0 }

/** Frees the buffer and leaves FZ_JSON_WRITER_NULL, but for `max`. */
void fz_writer_deinit(fz_json_writer *writer);
/** Begins again; forgets text and failure, keeps the buffer. */
void fz_writer_reset(fz_json_writer *writer);

/**
 * The text with a newline behind it and a NUL behind that. `ret_length` counts the newline.
 * Borrowed, until the writer is written to, reset or deinitialised.
 * @return 0; -E2BIG; -ENOMEM
 */
int fz_writer_line(fz_json_writer *writer, const char **ret_line, size_t *ret_length);
/** The text without newline, as a C string that the caller frees; `ret_length` may be NULL. 0; -E2BIG; -ENOMEM. */
int fz_writer_copy(fz_json_writer *writer, char **ret_text, size_t *ret_length);

/** Bytes written so far: a mark for fz_writer_rewind(), and a measure of what still fits. */
static inline size_t fz_writer_length(const fz_json_writer *writer) { return writer->length; }
/** Bytes that may still be written. */
size_t fz_writer_room(const fz_json_writer *writer);
/**
 * Takes back what was written after `mark` was read, an -E2BIG with it. Between the two, as many arrays and objects must
 * have been begun as ended. This is how a long array is cut into lines: mark, write an element, and if the writer is
 * full, rewind, end the line and begin the next with that element.
 */
void fz_writer_rewind(fz_json_writer *writer, size_t mark);

void fz_write_begin_object(fz_json_writer *writer, const char *key);
void fz_write_end_object(fz_json_writer *writer);
void fz_write_begin_array(fz_json_writer *writer, const char *key);
void fz_write_end_array(fz_json_writer *writer);

/** NULL is written as null. Bytes that are not UTF-8 come out as U+FFFD. */
void fz_write_string(fz_json_writer *writer, const char *key, const char *string);
void fz_write_bytes(fz_json_writer *writer, const char *key, const char *string, size_t length);
void fz_write_integer(fz_json_writer *writer, const char *key, uint64_t value);
/** FZ_TIME_NEVER is written as null. */
void fz_write_time(fz_json_writer *writer, const char *key, uint64_t step_or_epoch);
/** 15 to 17 digits, as few as read back as the same double; null when it is not finite. The locale does not matter. */
void fz_write_number(fz_json_writer *writer, const char *key, double value);
void fz_write_bool(fz_json_writer *writer, const char *key, bool value);
void fz_write_null(fz_json_writer *writer, const char *key);
/** 16 lower-case hex digits, as a string. */
void fz_write_hash(fz_json_writer *writer, const char *key, uint64_t hash);
/** A value that was parsed: no white space, keys in their order, numbers as above. NULL is written as null. */
void fz_write_json(fz_json_writer *writer, const char *key, const fz_json *value);
/** Text that is JSON already, from one of ours. */
void fz_write_raw(fz_json_writer *writer, const char *key, const char *json, size_t length);

/** `value` as compact text, as fz_write_json() writes it; the caller frees it. 0; -ENOMEM; -E2BIG over `max` bytes. */
int fz_json_to_text(const fz_json *value, size_t max, char **ret_text, size_t *ret_length);

#endif
