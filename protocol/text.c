/* text.c - what may stand in a name: valid UTF-8 without control characters. */
#include "config.h"

#include <stdint.h>

#include "protocol/text.h"
#include "protocol/utf8.h"

bool fz_text_is_clean(const char *text, size_t length) {
  for (size_t i = 0; i < length;) {
    if (text[i] >= 0x20 && text[i] < 0x7f) { /* most of all text */
      i++;
      continue;
    }
    uint32_t code;
    const size_t step = fz_utf8_step(text + i, length - i, &code);
    if (step == 0 || code < 0x20 || (code >= 0x7f && code < 0xa0))
      return false;
    i += step;
  }
  return true;
}
