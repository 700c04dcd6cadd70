/* strbuf.h - text that grows; a failed allocation is remembered and asked for once, at the end. */
#ifndef FZ_STRBUF_H
#define FZ_STRBUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** Embedded; init with FZ_STRBUF_NULL. */
typedef struct fz_strbuf {
  char *data; /* NUL-terminated once anything was added, else NULL */
  size_t length;
  size_t capacity;
  bool failed; /* out of memory: later additions do nothing */
} fz_strbuf;

#define FZ_STRBUF_NULL \
  { .data = NULL }

void fz_strbuf_deinit(fz_strbuf *buffer);
void fz_strbuf_add(fz_strbuf *buffer, const char *text, size_t length);
void fz_strbuf_addf(fz_strbuf *buffer, const char *format, ...) __attribute__((format(printf, 2, 3)));
/** A number for people, with a comma between thousands: 9,000. */
void fz_strbuf_add_number(fz_strbuf *buffer, uint64_t number);

/**
 * Hands the text over (never NULL on success: "" if nothing was added) and empties the buffer.
 * @return an allocated string, NULL when out of memory
 */
char *fz_strbuf_take(fz_strbuf *buffer);

/** printf into an allocated string, NULL when out of memory. */
char *fz_format(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
