/* writer.c - writes JSON into a growing, bounded buffer: exact integers, valid UTF-8, one line. */
#include "config.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/json_locale.h"
#include "protocol/utf8.h"
#include "protocol/writer.h"

static size_t limit_of(const fz_json_writer *writer) { return writer->max == 0 ? FZ_LINE_MAX : writer->max; }

/* The newline and the NUL that fz_writer_line() puts behind the text always have room. */
static bool reserve(fz_json_writer *writer, size_t more) {
  enum { FIRST = 256, ENDING = 2 };
  if (writer->error != 0)
    return false;
  if (more > limit_of(writer) - writer->length) {
    writer->error = -E2BIG;
    return false;
  }
  const size_t needed = writer->length + more + ENDING;
  if (needed <= writer->size)
    return true;
  size_t size = writer->size == 0 ? FIRST : writer->size * 2;
  if (size < needed)
    size = needed;
  char *data = realloc(writer->data, size);
  if (data == NULL) {
    writer->error = -ENOMEM;
    return false;
  }
  writer->data = data;
  writer->size = size;
  return true;
}

static void append(fz_json_writer *writer, const char *bytes, size_t length) {
  if (length == 0 || !reserve(writer, length))
    return;
  memcpy(writer->data + writer->length, bytes, length);
  writer->length += length;
}

static void append_char(fz_json_writer *writer, char c) { append(writer, &c, 1); }

void fz_writer_deinit(fz_json_writer *writer) {
  free(writer->data);
  *writer = (fz_json_writer){ .max = writer->max };
}

void fz_writer_reset(fz_json_writer *writer) {
  writer->length = 0;
  writer->error = 0;
}

int fz_writer_line(fz_json_writer *writer, const char **ret_line, size_t *ret_length) {
  if (!reserve(writer, 0))
    return writer->error;
  writer->data[writer->length] = '\n';
  writer->data[writer->length + 1] = '\0';
  *ret_line = writer->data;
  *ret_length = writer->length + 1;
  return 0;
}

int fz_writer_copy(fz_json_writer *writer, char **ret_text, size_t *ret_length) {
  if (writer->error != 0)
    return writer->error;
  char *text = malloc(writer->length + 1);
  if (text == NULL)
    return -ENOMEM;
  if (writer->length > 0)
    memcpy(text, writer->data, writer->length);
  text[writer->length] = '\0';
  *ret_text = text;
  if (ret_length != NULL)
    *ret_length = writer->length;
  return 0;
}

size_t fz_writer_room(const fz_json_writer *writer) {
  return writer->error != 0 ? 0 : limit_of(writer) - writer->length;
}

void fz_writer_rewind(fz_json_writer *writer, size_t mark) {
  writer->length = mark;
  if (writer->error == -E2BIG)
    writer->error = 0;
}

/* --- values --- */

static size_t print_integer(char buffer[20], uint64_t value) {
  char reversed[20];
  size_t length = 0;
  do
    reversed[length++] = (char)('0' + value % 10);
  while ((value /= 10) > 0);
  for (size_t i = 0; i < length; i++)
    buffer[i] = reversed[length - 1 - i];
  return length;
}

static void append_escape(fz_json_writer *writer, unsigned char c) {
  static const char hex[] = "0123456789abcdef";
  static const char named[] = "\bb\tt\nn\ff\rr\"\"\\\\";
  for (size_t i = 0; named[i] != '\0'; i += 2)
    if ((unsigned char)named[i] == c) {
      append(writer, (const char[]){ '\\', named[i + 1] }, 2);
      return;
    }
  append(writer, (const char[]){ '\\', 'u', '0', '0', hex[c >> 4], hex[c & 15] }, 6);
}

/* Goes over the text in runs that can be copied as they are. */
static void append_quoted(fz_json_writer *writer, const char *text, size_t length) {
  append_char(writer, '"');
  size_t run = 0;
  for (size_t i = 0; i < length;) {
    const unsigned char c = (unsigned char)text[i];
    size_t step = 1;
    if (c >= 0x80)
      step = fz_utf8_step(text + i, length - i, NULL);
    if (step > 0 && c >= 0x20 && c != '"' && c != '\\') {
      i += step;
      continue;
    }
    append(writer, text + run, i - run);
    if (step == 0)
      append(writer, "\xef\xbf\xbd", 3);
    else
      append_escape(writer, c);
    run = ++i;
  }
  append(writer, text + run, length - run);
  append_char(writer, '"');
}

/* A comma unless this is the first thing in its array or object, or the value of a key; then the key. */
static void begin_value(fz_json_writer *writer, const char *key) {
  const char last = writer->length == 0 ? '\0' : writer->data[writer->length - 1];
  if (last != '\0' && last != '{' && last != '[' && last != ':')
    append_char(writer, ',');
  if (key == NULL)
    return;
  append_quoted(writer, key, strlen(key));
  append_char(writer, ':');
}

void fz_write_begin_object(fz_json_writer *writer, const char *key) { fz_write_raw(writer, key, "{", 1); }

void fz_write_end_object(fz_json_writer *writer) { append_char(writer, '}'); }

void fz_write_begin_array(fz_json_writer *writer, const char *key) { fz_write_raw(writer, key, "[", 1); }

void fz_write_end_array(fz_json_writer *writer) { append_char(writer, ']'); }

void fz_write_string(fz_json_writer *writer, const char *key, const char *string) {
  if (string == NULL)
    fz_write_null(writer, key);
  else
    fz_write_bytes(writer, key, string, strlen(string));
}

void fz_write_bytes(fz_json_writer *writer, const char *key, const char *string, size_t length) {
  begin_value(writer, key);
  append_quoted(writer, string, length);
}

void fz_write_integer(fz_json_writer *writer, const char *key, uint64_t value) {
  char buffer[20];
  fz_write_raw(writer, key, buffer, print_integer(buffer, value));
}

void fz_write_time(fz_json_writer *writer, const char *key, uint64_t step_or_epoch) {
  if (step_or_epoch == FZ_TIME_NEVER)
    fz_write_null(writer, key);
  else
    fz_write_integer(writer, key, step_or_epoch);
}

void fz_write_number(fz_json_writer *writer, const char *key, double value) {
  if (!isfinite(value)) {
    fz_write_null(writer, key);
    return;
  }
  char buffer[64];
  size_t length = 0;
  const struct fz_json_locale locale = fz_json_locale_enter();
  for (int digits = 15; digits <= 17; digits++) {
    length = (size_t)snprintf(buffer, sizeof(buffer), "%.*g", digits, value);
    if (strtod(buffer, NULL) == value)
      break;
  }
  fz_json_locale_leave(locale);
  fz_write_raw(writer, key, buffer, length);
}

void fz_write_bool(fz_json_writer *writer, const char *key, bool value) {
  fz_write_raw(writer, key, value ? "true" : "false", value ? 4 : 5);
}

void fz_write_null(fz_json_writer *writer, const char *key) { fz_write_raw(writer, key, "null", 4); }

void fz_write_hash(fz_json_writer *writer, const char *key, uint64_t hash) {
  char buffer[17];
  (void)snprintf(buffer, sizeof(buffer), "%016llx", (unsigned long long)hash);
  fz_write_bytes(writer, key, buffer, 16);
}

void fz_write_raw(fz_json_writer *writer, const char *key, const char *json, size_t length) {
  begin_value(writer, key);
  append(writer, json, length);
}

static void write_parsed_number(fz_json_writer *writer, const char *key, const fz_json *value) {
  uint64_t integer;
  if (fz_json_integer(value, &integer))
    fz_write_integer(writer, key, integer);
  else if (isnan(fz_json_number(value)))
    fz_write_raw(writer, key, "1e999", 5); /* beyond a double: null would make a missing field of a wrong one */
  else
    fz_write_number(writer, key, fz_json_number(value));
}

/* As deep as parsed text may be. */
void fz_write_json(fz_json_writer *writer, const char *key, const fz_json *value) {
  const enum fz_json_type type = fz_json_get_type(value);
  switch (type) {
  case FZ_JSON_NULL:
    fz_write_null(writer, key);
    break;
  case FZ_JSON_BOOL:
    fz_write_bool(writer, key, fz_json_is_true(value));
    break;
  case FZ_JSON_NUMBER:
    write_parsed_number(writer, key, value);
    break;
  case FZ_JSON_STRING:
    fz_write_string(writer, key, fz_json_string(value));
    break;
  case FZ_JSON_ARRAY:
  case FZ_JSON_OBJECT:
    fz_write_raw(writer, key, type == FZ_JSON_ARRAY ? "[" : "{", 1);
    for (const fz_json *item = fz_json_first(value); item != NULL; item = fz_json_next(item))
      fz_write_json(writer, fz_json_key(item), item);
    append_char(writer, type == FZ_JSON_ARRAY ? ']' : '}');
    break;
  }
}

int fz_json_to_text(const fz_json *value, size_t max, char **ret_text, size_t *ret_length) {
  fz_json_writer writer = { .max = max };
  fz_write_json(&writer, NULL, value);
  const int r = fz_writer_copy(&writer, ret_text, ret_length);
  fz_writer_deinit(&writer);
  return r;
}
