/* utf8.h - one character of UTF-8 at a time: shortest form only, no surrogates, at most U+10FFFF. */
#ifndef FZ_UTF8_H
#define FZ_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/**
 * Reads the character at `text`, of which `left` bytes are there.
 * @param[out] ret_code  its code point; may be NULL
 * @return its length in bytes, 1 to 4; 0 when the bytes are none (or `left` is 0)
 */
size_t fz_utf8_step(const char *text, size_t left, uint32_t *ret_code);

/** Whether all `length` bytes are characters. */
bool fz_utf8_is_valid(const char *text, size_t length);

#endif
