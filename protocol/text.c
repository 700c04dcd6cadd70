/* text.c - what may stand in a name: valid UTF-8 without control characters. */
#include "config.h"

#include <stdint.h>

#include "protocol/text.h"

/* Bytes of the character that starts at `text`, 0 when it is not one that may stand in a name. */
static size_t clean_character(const unsigned char *text, size_t left) {
  const unsigned char lead = text[0];
  if (lead < 0x80)
    return lead >= 0x20 && lead != 0x7f;
  const size_t length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
  if (lead < 0xc2 || lead > 0xf4 || length > left)
    return 0;
  uint32_t code = lead & (0x7fU >> length);
  for (size_t i = 1; i < length; i++) {
    if ((text[i] & 0xc0) != 0x80)
      return 0;
    code = (code << 6) | (text[i] & 0x3fU);
  }
  if (code < 0xa0) /* C1 */
    return 0;
  if (length == 3 && (code < 0x800 || (code >= 0xd800 && code <= 0xdfff)))
    return 0;
  if (length == 4 && (code < 0x10000 || code > 0x10ffff))
    return 0;
  return length;
}

bool fz_text_is_clean(const char *text, size_t length) {
  for (size_t i = 0; i < length;) {
    const size_t step = clean_character((const unsigned char *)text + i, length - i);
    if (step == 0)
      return false;
    i += step;
  }
  return true;
}
