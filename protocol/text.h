/* text.h - what may stand in a name: valid UTF-8 without control characters. */
#ifndef FZ_TEXT_H
#define FZ_TEXT_H

#include <stdbool.h>
#include <stddef.h>

/**
 * Whether `length` bytes are valid UTF-8 (shortest form, no surrogates, at most U+10FFFF) and hold no control character
 * (C0, DEL, C1). The empty text is.
 */
bool fz_text_is_clean(const char *text, size_t length);

#endif
