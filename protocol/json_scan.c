/* json_scan.c - checks that a text is one JSON object as RFC 8259 has it, before a tree is built from it. */
#include "config.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "protocol/json_scan.h"
#include "protocol/limits.h"
#include "protocol/utf8.h"

/*
 * cJSON takes much that is no JSON (control characters, invalid UTF-8, 01, 1., text behind the value) and loses what
 * C strings and doubles cannot hold. So it only ever sees text that passed here, and what it then fails at is memory.
 */

/* What may come next. */
enum expect { AN_OBJECT, A_VALUE, A_VALUE_OR_END, A_KEY, A_KEY_OR_END, A_COLON, A_COMMA_OR_END, NOTHING };

struct scanner {
  const char *text;
  size_t length;
  size_t at;
  enum expect expect;
  unsigned depth;
  bool in_array[FZ_JSON_DEPTH_MAX]; /* by level */
  bool odd_numbers;
  char *why;
  size_t why_size;
};

static bool fail(struct scanner *s, const char *format, ...) __attribute__((format(printf, 2, 3)));

static bool fail(struct scanner *s, const char *format, ...) {
  if (s->why == NULL)
    return false;
  va_list arguments;
  va_start(arguments, format);
  const int length = vsnprintf(s->why, s->why_size, format, arguments);
  va_end(arguments);
  if (length >= 0 && (size_t)length < s->why_size)
    (void)snprintf(s->why + length, s->why_size - (size_t)length, " at byte %zu", s->at + 1);
  return false;
}

static bool is_digit(char c) { return c >= '0' && c <= '9'; }

static char peek(const struct scanner *s, size_t ahead) {
  return ahead < s->length - s->at ? s->text[s->at + ahead] : '\0';
}

/* A character that fits nowhere; says the worst of it. */
static bool fail_character(struct scanner *s) {
  static const char *const wanted[] = { "an object",    "a value", "a value or ']'",    "a key",
                                        "a key or '}'", "':'",     "a comma or the end" };
  if (s->at == s->length)
    return fail(s, "not JSON: the text ends, %s was expected", wanted[s->expect]);
  if ((unsigned char)s->text[s->at] < 0x20)
    return fail(s, "a raw control character");
  if (s->at == 0 && s->length >= 3 && memcmp(s->text, "\xef\xbb\xbf", 3) == 0)
    return fail(s, "a byte order mark");
  if (fz_utf8_step(s->text + s->at, s->length - s->at, NULL) == 0)
    return fail(s, "not UTF-8");
  if (s->expect == NOTHING)
    return fail(s, "text behind the object");
  return fail(s, "not JSON: %s was expected", wanted[s->expect]);
}

/* Four hex digits at `ahead`, or -1. */
static long read_hex4(const struct scanner *s, size_t ahead) {
  long code = 0;
  for (size_t i = 0; i < 4; i++) {
    const char c = peek(s, ahead + i);
    int digit;
    if (is_digit(c))
      digit = c - '0';
    else if ((c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'))
      digit = (c | 0x20) - 'a' + 10;
    else
      return -1;
    code = code * 16 + digit;
  }
  return code;
}

/* From a backslash to behind its escape. */
static bool scan_escape(struct scanner *s) {
  const char kind = peek(s, 1);
  if (kind != '\0' && strchr("\"\\/bfnrt", kind) != NULL) {
    s->at += 2;
    return true;
  }
  const long code = kind == 'u' ? read_hex4(s, 2) : -1;
  if (code < 0)
    return fail(s, "not JSON: no such escape");
  if (code == 0)
    return fail(s, "U+0000 in a string");
  if (code < 0xd800 || code > 0xdfff) {
    s->at += 6;
    return true;
  }
  const long low = peek(s, 6) == '\\' && peek(s, 7) == 'u' ? read_hex4(s, 8) : -1;
  if (code > 0xdbff || low < 0xdc00 || low > 0xdfff)
    return fail(s, "half of a surrogate pair");
  s->at += 12;
  return true;
}

/* From a quote to behind the one that ends the string. */
static bool scan_string(struct scanner *s) {
  s->at++;
  while (s->at < s->length) {
    const char c = s->text[s->at];
    if (c >= 0x20 && c < 0x7f && c != '"' && c != '\\') { /* most of all text */
      s->at++;
      continue;
    }
    if (c == '"') {
      s->at++;
      return true;
    }
    if (c == '\\') {
      if (!scan_escape(s))
        return false;
      continue;
    }
    if ((unsigned char)c < 0x20)
      return fail(s, "a raw control character");
    const size_t step = fz_utf8_step(s->text + s->at, s->length - s->at, NULL);
    if (step == 0)
      return fail(s, "not UTF-8");
    s->at += step;
  }
  return fail(s, "not JSON: a string without end");
}

static size_t skip_digits(struct scanner *s) {
  const size_t first = s->at;
  while (is_digit(peek(s, 0)))
    s->at++;
  return s->at - first;
}

static bool scan_number(struct scanner *s) {
  const size_t first = s->at;
  s->at += peek(s, 0) == '-';
  const bool leading_zero = peek(s, 0) == '0';
  const size_t digits = skip_digits(s);
  bool good = digits == 1 || (digits > 1 && !leading_zero);
  bool odd = digits > 15;
  if (peek(s, 0) == '.') {
    s->at++;
    good = skip_digits(s) > 0 && good;
    odd = true;
  }
  if (peek(s, 0) == 'e' || peek(s, 0) == 'E') {
    s->at += peek(s, 1) == '+' || peek(s, 1) == '-' ? 2 : 1;
    good = skip_digits(s) > 0 && good;
    odd = true;
  }
  const size_t length = s->at - first;
  if (!good || length > FZ_JSON_NUMBER_MAX) {
    s->at = first;
    return fail(s, good ? "a number of more than 63 characters" : "not JSON: no such number");
  }
  s->odd_numbers |= odd;
  return true;
}

static bool scan_literal(struct scanner *s) {
  static const char *const words[] = { "true", "false", "null" };
  for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
    const size_t length = strlen(words[i]);
    if (length <= s->length - s->at && memcmp(s->text + s->at, words[i], length) == 0) {
      s->at += length;
      return true;
    }
  }
  return fail_character(s);
}

static void after_value(struct scanner *s) { s->expect = s->depth == 0 ? NOTHING : A_COMMA_OR_END; }

static bool open_level(struct scanner *s, bool array) {
  if (s->depth == FZ_JSON_DEPTH_MAX)
    return fail(s, "more than %u levels of nesting", FZ_JSON_DEPTH_MAX);
  s->in_array[s->depth++] = array;
  s->expect = array ? A_VALUE_OR_END : A_KEY_OR_END;
  s->at++;
  return true;
}

static bool close_level(struct scanner *s, bool array) {
  const bool may_end = s->expect == A_COMMA_OR_END || s->expect == (array ? A_VALUE_OR_END : A_KEY_OR_END);
  if (s->depth == 0 || !may_end || s->in_array[s->depth - 1] != array)
    return fail_character(s);
  s->depth--;
  s->at++;
  after_value(s);
  return true;
}

/* A value that is no object and no array. */
static bool scan_scalar(struct scanner *s) {
  const char c = s->text[s->at];
  const bool good = c == '"' ? scan_string(s) : c == '-' || is_digit(c) ? scan_number(s) : scan_literal(s);
  if (good)
    after_value(s);
  return good;
}

static bool scan_separator(struct scanner *s) {
  const char c = s->text[s->at];
  if (s->expect == A_COLON && c == ':')
    s->expect = A_VALUE;
  else if (s->expect == A_COMMA_OR_END && c == ',')
    s->expect = s->in_array[s->depth - 1] ? A_VALUE : A_KEY;
  else
    return fail_character(s);
  s->at++;
  return true;
}

static bool scan_token(struct scanner *s) {
  const char c = s->text[s->at];
  if (c == '}' || c == ']')
    return close_level(s, c == ']');
  switch (s->expect) {
  case AN_OBJECT:
    return c == '{' ? open_level(s, false) : fail_character(s);
  case A_VALUE:
  case A_VALUE_OR_END:
    return c == '{' || c == '[' ? open_level(s, c == '[') : scan_scalar(s);
  case A_KEY:
  case A_KEY_OR_END:
    if (c != '"')
      return fail_character(s);
    s->expect = A_COLON;
    return scan_string(s);
  case A_COLON:
  case A_COMMA_OR_END:
    return scan_separator(s);
  case NOTHING:
    break;
  }
  return fail_character(s);
}

bool fz_json_scan(const char *text, size_t length, struct fz_json_scan *ret_scan, char *why, size_t why_size) {
  struct scanner s = { .text = text, .length = length, .expect = AN_OBJECT, .why = why, .why_size = why_size };
  if (length > FZ_LINE_MAX) {
    s.at = FZ_LINE_MAX;
    return fail(&s, "more than %u bytes", FZ_LINE_MAX);
  }
  size_t first = 0;
  size_t end = 0;
  while (s.at < length) {
    if (text[s.at] == ' ') {
      s.at++;
      continue;
    }
    if (s.expect == AN_OBJECT)
      first = s.at;
    if (!scan_token(&s))
      return false;
    end = s.expect == NOTHING ? s.at : 0;
    if (end != 0)
      break;
  }
  while (s.at < length && text[s.at] == ' ')
    s.at++;
  if (end == 0 || s.at < length)
    return fail_character(&s);
  *ret_scan = (struct fz_json_scan){ .first = first, .end = end, .odd_numbers = s.odd_numbers };
  return true;
}

size_t fz_json_scan_number(const char *text, size_t length, size_t *at, const char **ret_number) {
  bool in_string = false;
  size_t i = *at;
  for (; i < length; i++) {
    if (in_string && text[i] == '\\')
      i++;
    else if (text[i] == '"')
      in_string = !in_string;
    else if (!in_string && (text[i] == '-' || is_digit(text[i])))
      break;
  }
  const size_t first = i;
  while (i < length && (is_digit(text[i]) || strchr("+-.eE", text[i]) != NULL))
    i++;
  *at = i;
  *ret_number = text + first;
  return i - first;
}

/* The digits without sign, point, exponent and outer zeros, and the power of ten that they are to be taken by. */
struct decimal {
  uint64_t digits;
  unsigned count; /* of digits */
  long zeros;     /* that came after them */
  long exponent;
};

/* False when there are more digits than any number up to FZ_INT_MAX has. */
static bool decimal_add(struct decimal *d, char digit) {
  if (digit == '0') {
    d->zeros += d->count > 0;
    return true;
  }
  for (; d->zeros > 0; d->zeros--, d->count++)
    d->digits *= 10;
  d->digits = d->digits * 10 + (uint64_t)(digit - '0');
  return ++d->count <= 16;
}

bool fz_json_number_is_integer(const char *number, size_t length) {
  struct decimal d = { 0 };
  const bool negative = length > 0 && number[0] == '-';
  bool fraction = false;
  size_t i = negative;
  for (; i < length && number[i] != 'e' && number[i] != 'E'; i++) {
    if (number[i] == '.') {
      fraction = true;
      continue;
    }
    d.exponent -= fraction;
    if (!decimal_add(&d, number[i]))
      return false;
  }
  if (d.digits == 0)
    return true;
  if (negative)
    return false;
  if (i < length) {
    const bool down = number[++i] == '-';
    long exponent = 0;
    for (i += number[i] == '-' || number[i] == '+'; i < length && exponent < 1000; i++)
      exponent = exponent * 10 + (number[i] - '0');
    d.exponent += down ? -exponent : exponent;
  }
  d.exponent += d.zeros;
  if (d.exponent < 0)
    return false;
  for (; d.exponent > 0 && d.digits <= FZ_INT_MAX; d.exponent--)
    d.digits *= 10;
  return d.digits <= FZ_INT_MAX;
}
