/* json_fields.c - typed access to parsed values, with the first wrong field kept: path and sentence. */
#include "config.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "protocol/json.h"
#include "protocol/text.h"
#include "protocol/utf8.h"

/* --- paths --- */

/* The values from below `from` down to `value`: their number, 0 when it is not there. Only searched for after an error. */
static size_t find_chain(const fz_json *from, const fz_json *value, const fz_json **chain, size_t depth) {
  if (depth == FZ_JSON_DEPTH_MAX + 1)
    return 0;
  for (const fz_json *item = fz_json_first(from); item != NULL; item = fz_json_next(item)) {
    chain[depth] = item;
    if (item == value)
      return depth + 1;
    const size_t found = find_chain(item, value, chain, depth + 1);
    if (found > 0)
      return found;
  }
  return 0;
}

static size_t index_in(const fz_json *array, const fz_json *value) {
  size_t index = 0;
  for (const fz_json *item = fz_json_first(array); item != NULL && item != value; item = fz_json_next(item))
    index++;
  return index;
}

struct text {
  char *data;
  size_t size;
  size_t length;
};

static void put(struct text *text, const char *bytes, size_t length) {
  if (length >= text->size - text->length) {
    text->size = text->length + 1; /* full: nothing goes behind what was cut off */
    return;
  }
  memcpy(text->data + text->length, bytes, length);
  text->length += length;
  text->data[text->length] = '\0';
}

/* A key from outside, whole characters only, fit to be printed; in a pointer with its two escapes. */
static void put_key(struct text *text, const char *key, bool pointer) {
  for (size_t left = strlen(key); left > 0;) {
    size_t step = fz_utf8_step(key, left, NULL);
    if (step == 0)
      step = 1;
    if (!fz_text_is_clean(key, step))
      put(text, "?", 1);
    else if (pointer && (*key == '~' || *key == '/'))
      put(text, *key == '~' ? "~0" : "~1", 2);
    else
      put(text, key, step);
    key += step;
    left -= step;
  }
}

static void put_path(struct text *text, const fz_json *root, const fz_json *value, bool pointer) {
  const fz_json *chain[FZ_JSON_DEPTH_MAX + 1];
  const size_t depth = value == NULL || value == root ? 0 : find_chain(root, value, chain, 0);
  for (size_t i = 0; i < depth; i++) {
    const char *key = fz_json_key(chain[i]);
    char index[24];
    if (key == NULL) {
      (void)snprintf(index, sizeof(index), pointer ? "/%zu" : "[%zu]",
                     index_in(i == 0 ? root : chain[i - 1], chain[i]));
      put(text, index, strlen(index));
      continue;
    }
    if (pointer || text->length > 0)
      put(text, pointer ? "/" : ".", 1);
    put_key(text, key, pointer);
  }
}

void fz_json_pointer(const fz_json *root, const fz_json *value, char *buffer, size_t size) {
  if (size == 0)
    return;
  buffer[0] = '\0';
  put_path(&(struct text){ .data = buffer, .size = size }, root, value, true);
}

/* --- the error --- */

/* Not the whole struct: there is one for each entry of a long table. */
void fz_field_error_init(fz_field_error *error, const fz_json *root) {
  error->root = root;
  error->set = false;
  error->path[0] = error->message[0] = '\0';
}

void fz_field_fail(fz_field_error *error, const fz_json *value, const char *key, const char *format, ...) {
  if (error->set)
    return;
  error->set = true;
  struct text path = { .data = error->path, .size = sizeof(error->path) };
  put_path(&path, error->root, value, false);
  if (key != NULL) {
    if (path.length > 0)
      put(&path, ".", 1);
    put_key(&path, key, false);
  }
  const bool field = path.length > 0;
  const int length = snprintf(error->message, sizeof(error->message), "%s%s%s ", field ? "field '" : "the message",
                              error->path, field ? "'" : "");
  va_list arguments;
  va_start(arguments, format);
  (void)vsnprintf(error->message + length, sizeof(error->message) - (size_t)length, format, arguments);
  va_end(arguments);
}

/* --- values --- */

/* False after an error, old or new: then there is nothing to read. */
static bool is_there(const fz_json *value, fz_field_error *error) {
  if (value == NULL)
    fz_field_fail(error, NULL, NULL, "lacks a value");
  return !error->set;
}

static bool has_type(const fz_json *value, enum fz_json_type type, const char *must, fz_field_error *error) {
  if (!is_there(value, error))
    return false;
  if (fz_json_get_type(value) != type)
    fz_field_fail(error, value, NULL, "must be %s", must);
  return !error->set;
}

uint64_t fz_json_as_integer(const fz_json *value, uint64_t min, uint64_t max, fz_field_error *error) {
  if (!is_there(value, error))
    return 0;
  uint64_t integer;
  if (fz_json_integer(value, &integer) && integer >= min && integer <= max)
    return integer;
  fz_field_fail(error, value, NULL, "must be an integer from %llu to %llu", (unsigned long long)min,
                (unsigned long long)max);
  return 0;
}

bool fz_json_as_bool(const fz_json *value, fz_field_error *error) {
  return has_type(value, FZ_JSON_BOOL, "true or false", error) && fz_json_is_true(value);
}

double fz_json_as_number(const fz_json *value, fz_field_error *error) {
  if (!has_type(value, FZ_JSON_NUMBER, "a number", error))
    return 0;
  const double number = fz_json_number(value);
  if (isfinite(number))
    return number;
  fz_field_fail(error, value, NULL, "must be a number that a double can hold");
  return 0;
}

double fz_json_as_metric(const fz_json *value, fz_field_error *error) {
  if (value != NULL && fz_json_get_type(value) == FZ_JSON_NULL)
    return (double)NAN;
  return has_type(value, FZ_JSON_NUMBER, "a number or null", error) ? fz_json_number(value) : (double)NAN;
}

const char *fz_json_as_string(const fz_json *value, size_t min, size_t max, fz_field_error *error) {
  if (!is_there(value, error))
    return "";
  const char *string = fz_json_string(value);
  const size_t length = string == NULL ? 0 : strlen(string);
  if (string == NULL || length < min || length > max)
    fz_field_fail(error, value, NULL, "must be a string of %zu to %zu bytes", min, max);
  else if (!fz_text_is_clean(string, length))
    fz_field_fail(error, value, NULL, "must be a string without control characters");
  return error->set ? "" : string;
}

const char *fz_json_as_text(const fz_json *value, size_t max, fz_field_error *error) {
  if (!is_there(value, error))
    return "";
  const char *string = fz_json_string(value);
  if (string == NULL || strlen(string) > max)
    fz_field_fail(error, value, NULL, "must be a string of at most %zu bytes", max);
  return error->set ? "" : string;
}

size_t fz_json_as_word(const fz_json *value, const char *const *words, fz_field_error *error) {
  if (!is_there(value, error))
    return 0;
  const char *string = fz_json_string(value);
  for (size_t i = 0; string != NULL && words[i] != NULL; i++)
    if (strcmp(string, words[i]) == 0)
      return i;
  char list[200];
  struct text text = { .data = list, .size = sizeof(list) };
  for (size_t i = 0; words[i] != NULL; i++) {
    put(&text, i == 0 ? "" : words[i + 1] == NULL ? " or " : ", ", i == 0 ? 0 : words[i + 1] == NULL ? 4 : 2);
    put(&text, words[i], strlen(words[i]));
  }
  fz_field_fail(error, value, NULL, "must be %s", list);
  return 0;
}

uint64_t fz_json_as_hash(const fz_json *value, fz_field_error *error) {
  if (!is_there(value, error))
    return 0;
  const char *string = fz_json_string(value);
  uint64_t hash = 0;
  size_t length = 0;
  for (; string != NULL && string[length] != '\0' && length <= 16; length++) {
    const char c = string[length];
    if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f')))
      break;
    hash = hash * 16 + (uint64_t)(c <= '9' ? c - '0' : c - 'a' + 10);
  }
  if (length == 16 && string[length] == '\0')
    return hash;
  fz_field_fail(error, value, NULL, "must be a string of 16 hex digits, lower case");
  return 0;
}

const fz_json *fz_json_as_array(const fz_json *value, size_t min, size_t max, fz_field_error *error) {
  if (!has_type(value, FZ_JSON_ARRAY, "an array", error))
    return NULL;
  const size_t count = fz_json_count(value);
  if (count < min || count > max)
    fz_field_fail(error, value, NULL, "must be an array of %zu to %zu elements", min, max);
  return error->set ? NULL : value;
}

const fz_json *fz_json_as_object(const fz_json *value, fz_field_error *error) {
  return has_type(value, FZ_JSON_OBJECT, "an object", error) ? value : NULL;
}

/* --- fields --- */

/* The field, or NULL and an error. */
static const fz_json *required(const fz_json *object, const char *key, fz_field_error *error) {
  if (!has_type(object, FZ_JSON_OBJECT, "an object", error))
    return NULL;
  const fz_json *value = fz_json_member(object, key);
  if (value == NULL)
    fz_field_fail(error, object, key, "is missing");
  return value;
}

/* The field, or NULL when it is not given. */
static const fz_json *given(const fz_json *object, const char *key, fz_field_error *error) {
  if (!has_type(object, FZ_JSON_OBJECT, "an object", error))
    return NULL;
  const fz_json *value = fz_json_member(object, key);
  return fz_json_get_type(value) == FZ_JSON_NULL ? NULL : value;
}

uint64_t fz_json_get_integer(const fz_json *object, const char *key, uint64_t min, uint64_t max,
                             fz_field_error *error) {
  return fz_json_as_integer(required(object, key, error), min, max, error);
}

bool fz_json_get_bool(const fz_json *object, const char *key, fz_field_error *error) {
  return fz_json_as_bool(required(object, key, error), error);
}

double fz_json_get_number(const fz_json *object, const char *key, fz_field_error *error) {
  return fz_json_as_number(required(object, key, error), error);
}

const char *fz_json_get_string(const fz_json *object, const char *key, size_t min, size_t max, fz_field_error *error) {
  return fz_json_as_string(required(object, key, error), min, max, error);
}

const char *fz_json_get_text(const fz_json *object, const char *key, size_t max, fz_field_error *error) {
  return fz_json_as_text(required(object, key, error), max, error);
}

size_t fz_json_get_word(const fz_json *object, const char *key, const char *const *words, fz_field_error *error) {
  return fz_json_as_word(required(object, key, error), words, error);
}

uint64_t fz_json_get_hash(const fz_json *object, const char *key, fz_field_error *error) {
  return fz_json_as_hash(required(object, key, error), error);
}

const fz_json *fz_json_get_array(const fz_json *object, const char *key, size_t min, size_t max,
                                 fz_field_error *error) {
  return fz_json_as_array(required(object, key, error), min, max, error);
}

const fz_json *fz_json_get_object(const fz_json *object, const char *key, fz_field_error *error) {
  return fz_json_as_object(required(object, key, error), error);
}

/* Each: reads the field if it is given, and hands it over if it was right. */
#define FIND(read, ret_value) \
  do { \
    const fz_json *value = given(object, key, error); \
    if (value == NULL) \
      return false; \
    const __typeof__(*(ret_value)) found = (read); \
    if (error->set) \
      return false; \
    *(ret_value) = found; \
    return true; \
  } while (0)

bool fz_json_find_integer(const fz_json *object, const char *key, uint64_t min, uint64_t max, uint64_t *ret_integer,
                          fz_field_error *error) {
  FIND(fz_json_as_integer(value, min, max, error), ret_integer);
}

bool fz_json_find_bool(const fz_json *object, const char *key, bool *ret_bool, fz_field_error *error) {
  FIND(fz_json_as_bool(value, error), ret_bool);
}

bool fz_json_find_number(const fz_json *object, const char *key, double *ret_number, fz_field_error *error) {
  FIND(fz_json_as_number(value, error), ret_number);
}

bool fz_json_find_string(const fz_json *object, const char *key, size_t min, size_t max, const char **ret_string,
                         fz_field_error *error) {
  FIND(fz_json_as_string(value, min, max, error), ret_string);
}

bool fz_json_find_text(const fz_json *object, const char *key, size_t max, const char **ret_text,
                       fz_field_error *error) {
  FIND(fz_json_as_text(value, max, error), ret_text);
}

bool fz_json_find_word(const fz_json *object, const char *key, const char *const *words, size_t *ret_index,
                       fz_field_error *error) {
  FIND(fz_json_as_word(value, words, error), ret_index);
}

bool fz_json_find_array(const fz_json *object, const char *key, size_t min, size_t max, const fz_json **ret_array,
                        fz_field_error *error) {
  FIND(fz_json_as_array(value, min, max, error), ret_array);
}

bool fz_json_find_object(const fz_json *object, const char *key, const fz_json **ret_object, fz_field_error *error) {
  FIND(fz_json_as_object(value, error), ret_object);
}
