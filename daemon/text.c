/* text.c - sentences for people: allocated formatting, counts, commands. */
#include "config.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/text.h"

/* Longer command lines are of no use to people. */
#define COMMAND_MAX 2000U

char *fz_text_format(const char *format, ...) {
  va_list arguments;
  char *text;

  va_start(arguments, format);
  const int n = vasprintf(&text, format, arguments);
  va_end(arguments);
  return n < 0 ? NULL : text;
}

const char *fz_text_elements(uint64_t elements, char buffer[FZ_COUNT_SIZE]) {
  static const char units[] = "KMGTP";
  double value = (double)elements;
  int unit = -1;

  while (value >= 999.95 && unit + 1 < (int)sizeof(units) - 1) {
    value /= 1000;
    unit++;
  }
  if (unit < 0)
    snprintf(buffer, FZ_COUNT_SIZE, "%" PRIu64, elements);
  else
    snprintf(buffer, FZ_COUNT_SIZE, "%.1f%c", value, units[unit]);
  return buffer;
}

const char *fz_text_number(uint64_t number, char buffer[FZ_COUNT_SIZE]) {
  char digits[24];
  const int n = snprintf(digits, sizeof(digits), "%" PRIu64, number);
  char *out = buffer;

  for (int i = 0; i < n; i++) {
    if (i > 0 && (n - i) % 3 == 0)
      *out++ = ',';
    *out++ = digits[i];
  }
  *out = '\0';
  return buffer;
}

static size_t quote(const char *text, char *out) {
  static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./:@%+,-";
  char *const start = out;

  if (*text && strspn(text, plain) == strlen(text)) {
    strcpy(out, text);
    return strlen(text);
  }
  *out++ = '\'';
  for (; *text; text++) {
    if (*text == '\'') {
      memcpy(out, "'\\''", 4);
      out += 4;
    } else {
      *out++ = *text;
    }
  }
  *out++ = '\'';
  *out = '\0';
  return (size_t)(out - start);
}

char *fz_text_command(const char *command, char *const *arguments, size_t n) {
  size_t size = strlen(command) + 1;

  for (size_t i = 0; i < n; i++)
    size += 4 * strlen(arguments[i]) + 3;
  char *text = malloc(size + 8);
  if (!text)
    return NULL;
  char *out = text + sprintf(text, "%s", command);
  for (size_t i = 0; i < n; i++) {
    *out++ = ' ';
    out += quote(arguments[i], out);
  }
  if ((size_t)(out - text) > COMMAND_MAX) {
    free(text);
    return fz_text_format("%s PATTERN...", command);
  }
  return text;
}
