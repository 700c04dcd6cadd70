/* strbuf.c - text that grows. */
#include "config.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/rules/strbuf.h"

void fz_strbuf_deinit(fz_strbuf *buffer) {
  free(buffer->data);
  *buffer = (fz_strbuf)FZ_STRBUF_NULL;
}

/* Room for `extra` more bytes and the NUL. */
static bool reserve(fz_strbuf *buffer, size_t extra) {
  if (buffer->failed)
    return false;
  if (buffer->capacity - buffer->length > extra && buffer->data)
    return true;
  const size_t capacity = (buffer->length + extra + 1) * 3 / 2 + 16;
  char *data = (char *)realloc(buffer->data, capacity);
  if (!data) {
    buffer->failed = true;
    return false;
  }
  buffer->data = data;
  buffer->capacity = capacity;
  return true;
}

void fz_strbuf_add(fz_strbuf *buffer, const char *text, size_t length) {
  if (!reserve(buffer, length))
    return;
  memcpy(buffer->data + buffer->length, text, length);
  buffer->length += length;
  buffer->data[buffer->length] = '\0';
}

static void add_format(fz_strbuf *buffer, const char *format, va_list arguments) __attribute__((format(printf, 2, 0)));

static void add_format(fz_strbuf *buffer, const char *format, va_list arguments) {
  va_list again;
  va_copy(again, arguments);
  const int length = vsnprintf(NULL, 0, format, again);
  va_end(again);
  if (length < 0)
    buffer->failed = true;
  else if (reserve(buffer, (size_t)length)) {
    (void)vsnprintf(buffer->data + buffer->length, (size_t)length + 1, format, arguments);
    buffer->length += (size_t)length;
  }
}

void fz_strbuf_addf(fz_strbuf *buffer, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  add_format(buffer, format, arguments);
  va_end(arguments);
}

void fz_strbuf_add_number(fz_strbuf *buffer, uint64_t number) {
  char digits[24];
  const int n = snprintf(digits, sizeof(digits), "%" PRIu64, number);
  for (int i = 0; i < n; i++) {
    if (i > 0 && (n - i) % 3 == 0)
      fz_strbuf_add(buffer, ",", 1);
    fz_strbuf_add(buffer, digits + i, 1);
  }
}

char *fz_strbuf_take(fz_strbuf *buffer) {
  fz_strbuf_add(buffer, "", 0);
  char *data = buffer->failed ? NULL : buffer->data;
  if (buffer->failed)
    free(buffer->data);
  *buffer = (fz_strbuf)FZ_STRBUF_NULL;
  return data;
}

char *fz_format(const char *format, ...) {
  fz_strbuf buffer = FZ_STRBUF_NULL;
  va_list arguments;
  va_start(arguments, format);
  add_format(&buffer, format, arguments);
  va_end(arguments);
  return fz_strbuf_take(&buffer);
}
