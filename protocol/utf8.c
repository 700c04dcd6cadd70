/* utf8.c - one character of UTF-8 at a time: shortest form only, no surrogates, at most U+10FFFF. */
#include "config.h"

#include "protocol/utf8.h"

size_t fz_utf8_step(const char *text, size_t left, uint32_t *ret_code) {
  /* The lowest code point of each length: anything below has a shorter form. */
  static const uint32_t lowest[] = { 0, 0, 0x80, 0x800, 0x10000 };
  if (left == 0)
    return 0;
  const unsigned char lead = (unsigned char)text[0];
  size_t length = 1;
  uint32_t code = lead;
  if (lead >= 0x80) {
    length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
    if (lead < 0xc2 || lead > 0xf4 || length > left)
      return 0;
    code = lead & (0x7fU >> length);
    for (size_t i = 1; i < length; i++) {
      const unsigned char next = (unsigned char)text[i];
      if ((next & 0xc0) != 0x80)
        return 0;
      code = (code << 6) | (next & 0x3fU);
    }
    if (code < lowest[length] || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff))
      return 0;
  }
  if (ret_code != NULL)
    *ret_code = code;
  return length;
}

bool fz_utf8_is_valid(const char *text, size_t length) {
  for (size_t i = 0; i < length;) {
    const size_t step = fz_utf8_step(text + i, length - i, NULL);
    if (step == 0)
      return false;
    i += step;
  }
  return true;
}
