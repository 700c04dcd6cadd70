/* json.h - the one decoder for JSON from outside: bounded parse, then typed access with a sticky error. */
#ifndef FZ_JSON_H
#define FZ_JSON_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "protocol/limits.h"

/*
 * MODEL
 *
 * Bytes from outside become values in two stages.
 *
 *   fz_json_parse()   the text as a whole: length, UTF-8, control characters, numbers as RFC 8259 writes them, depth,
 *                     doubled keys, U+0000, text behind the object. What fails here is not JSON that we take: the text
 *                     is dropped, and with it, on a socket, the connection.
 *   accessors         one field each: there, of the right type, in range. The first field that is wrong is kept in an
 *                     fz_field_error, with its path and a sentence; from then on all accessors that are given the same
 *                     error answer zero, false, "" or NULL. So a decoder reads all its fields in a row and looks at the
 *                     error once.
 *
 *   fz_json *root = NULL;
 *   fz_field_error error;
 *   r = fz_json_parse(&root, line, length, why, sizeof(why));
 *   fz_field_error_init(&error, root);
 *   name = fz_json_get_string(root, "run", 1, FZ_RUN_NAME_MAX, &error);
 *   if (fz_json_find_integer(root, "at_step", 0, FZ_STEP_MAX, &at, &error)) ...
 *   for (const fz_json *item = fz_json_first(fz_json_get_array(root, "patterns", 1, 4096, &error)); item != NULL;
 *        item = fz_json_next(item))
 *     use(fz_json_as_string(item, 1, FZ_PATTERN_MAX, &error));
 *   if (fz_field_error_is_set(&error)) answer(error.message);
 *   fz_json_free(root);
 *
 * Values and strings are borrowed from the root and live until fz_json_free(root). Strings hold no U+0000, so they are
 * C strings. Everything takes NULL for a value, which stands for one that is missing.
 *
 *   fz_json_get_*   a required field of an object: missing is an error
 *   fz_json_find_*  an optional field: missing or null is false, and leaves the output alone
 *   fz_json_as_*    a value itself, for elements of arrays
 */

/** A value in a parsed text. */
typedef struct fz_json fz_json;

enum fz_json_type {
  FZ_JSON_NULL, /* of a missing value too */
  FZ_JSON_BOOL,
  FZ_JSON_NUMBER,
  FZ_JSON_STRING,
  FZ_JSON_ARRAY,
  FZ_JSON_OBJECT
};

enum { FZ_JSON_BROKEN = 1 };

/**
 * Parses one object of at most FZ_LINE_MAX bytes. Bytes below 0x20 are refused everywhere, so the text is one line.
 * @param      text  need not be NUL-terminated
 * @param[out] why   a sentence on FZ_JSON_BROKEN; may be NULL
 * @return 0; FZ_JSON_BROKEN; -ENOMEM
 */
int fz_json_parse(fz_json **ret_root, const char *text, size_t length, char *why, size_t why_size);

/** Frees a root. Takes NULL, returns NULL. */
fz_json *fz_json_free(fz_json *root);

static inline void fz_json_freep(fz_json **root) { *root = fz_json_free(*root); }

/** Holds any path or sentence of ours; longer names from outside are cut at a whole character. */
#define FZ_FIELD_PATH_SIZE 160U
#define FZ_FIELD_MESSAGE_SIZE 400U

/** The first field that was wrong. */
typedef struct fz_field_error {
  const fz_json *root;
  bool set;
  char path[FZ_FIELD_PATH_SIZE];       /* "rank", "params[3][1]", "error.code"; "" is the object itself */
  char message[FZ_FIELD_MESSAGE_SIZE]; /* "field 'rank' must be an integer below 'world'" */
} fz_field_error;

/** Nothing wrong yet. `root` is where paths begin. */
void fz_field_error_init(fz_field_error *error, const fz_json *root);
static inline bool fz_field_error_is_set(const fz_field_error *error) { return error->set; }

/**
 * Records "field 'PATH' " and the formatted rest, if nothing was recorded before.
 * @param value  where; with `key`, the field `key` of the object `value`, there or not
 */
void fz_field_fail(fz_field_error *error, const fz_json *value, const char *key, const char *format, ...)
  __attribute__((format(printf, 4, 5)));

/* --- structure --- */

enum fz_json_type fz_json_get_type(const fz_json *value);
/** The field `key` of an object, case-sensitive; NULL when it has none or `value` is no object. */
const fz_json *fz_json_member(const fz_json *value, const char *key);
/** First element of an array or field of an object, in the order of the text; NULL when there is none. */
const fz_json *fz_json_first(const fz_json *value);
/** The one after it, NULL after the last. Going through an array this way is linear. */
const fz_json *fz_json_next(const fz_json *value);
/** The key of a field of an object; NULL of an element or the root. */
const char *fz_json_key(const fz_json *value);
/** How many elements or fields; counts them. */
size_t fz_json_count(const fz_json *value);
/** Where `value` stands below `root`, as a JSON pointer (RFC 6901), cut to `size`; "" of the root or when it is not there. */
void fz_json_pointer(const fz_json *root, const fz_json *value, char *buffer, size_t size);

/* --- unchecked reads, for values whose type was looked at --- */

/** The string, or NULL when it is none. */
const char *fz_json_string(const fz_json *value);
/** true only of the value `true`. */
bool fz_json_is_true(const fz_json *value);
/** The number, NaN when it is none or not finite. */
double fz_json_number(const fz_json *value);
/**
 * The number as an exact integer: what was written is a whole number from 0 to FZ_INT_MAX. `1.0` and `1e3` are; 2^53 + 1
 * and 0.99999999999999999999 are not, though a double cannot tell.
 */
bool fz_json_integer(const fz_json *value, uint64_t *ret_integer);

/* --- checked reads --- */

/** An integer from `min` to `max` <= FZ_INT_MAX. 0 after an error. */
uint64_t fz_json_as_integer(const fz_json *value, uint64_t min, uint64_t max, fz_field_error *error);
bool fz_json_as_bool(const fz_json *value, fz_field_error *error);
/** A finite number, negative ones too. */
double fz_json_as_number(const fz_json *value, fz_field_error *error);
/** A number, or "no value" (NaN): null, or one beyond the range of a double. */
double fz_json_as_metric(const fz_json *value, fz_field_error *error);
/** A string of `min` to `max` bytes that fz_text_is_clean() takes: a name. "" after an error. */
const char *fz_json_as_string(const fz_json *value, size_t min, size_t max, fz_field_error *error);
/** A string of at most `max` bytes with anything in it, line breaks too. "" after an error. */
const char *fz_json_as_text(const fz_json *value, size_t max, fz_field_error *error);
/** One of `words` (NULL-terminated): its index. 0 after an error. */
size_t fz_json_as_word(const fz_json *value, const char *const *words, fz_field_error *error);
/** 16 lower-case hex digits. */
uint64_t fz_json_as_hash(const fz_json *value, fz_field_error *error);
/** An array of `min` to `max` elements. NULL after an error. */
const fz_json *fz_json_as_array(const fz_json *value, size_t min, size_t max, fz_field_error *error);
/** An object. NULL after an error. */
const fz_json *fz_json_as_object(const fz_json *value, fz_field_error *error);

uint64_t fz_json_get_integer(const fz_json *object, const char *key, uint64_t min, uint64_t max, fz_field_error *error);
bool fz_json_get_bool(const fz_json *object, const char *key, fz_field_error *error);
double fz_json_get_number(const fz_json *object, const char *key, fz_field_error *error);
const char *fz_json_get_string(const fz_json *object, const char *key, size_t min, size_t max, fz_field_error *error);
const char *fz_json_get_text(const fz_json *object, const char *key, size_t max, fz_field_error *error);
size_t fz_json_get_word(const fz_json *object, const char *key, const char *const *words, fz_field_error *error);
uint64_t fz_json_get_hash(const fz_json *object, const char *key, fz_field_error *error);
const fz_json *fz_json_get_array(const fz_json *object, const char *key, size_t min, size_t max, fz_field_error *error);
const fz_json *fz_json_get_object(const fz_json *object, const char *key, fz_field_error *error);

/* True when the field is there, not null, and right. */
bool fz_json_find_integer(const fz_json *object, const char *key, uint64_t min, uint64_t max, uint64_t *ret_integer,
                          fz_field_error *error);
bool fz_json_find_bool(const fz_json *object, const char *key, bool *ret_bool, fz_field_error *error);
bool fz_json_find_number(const fz_json *object, const char *key, double *ret_number, fz_field_error *error);
bool fz_json_find_string(const fz_json *object, const char *key, size_t min, size_t max, const char **ret_string,
                         fz_field_error *error);
bool fz_json_find_text(const fz_json *object, const char *key, size_t max, const char **ret_text,
                       fz_field_error *error);
bool fz_json_find_word(const fz_json *object, const char *key, const char *const *words, size_t *ret_index,
                       fz_field_error *error);
bool fz_json_find_array(const fz_json *object, const char *key, size_t min, size_t max, const fz_json **ret_array,
                        fz_field_error *error);
bool fz_json_find_object(const fz_json *object, const char *key, const fz_json **ret_object, fz_field_error *error);

#endif
