/* text.h - sentences for people: allocated formatting, counts, commands. */
#ifndef FZ_DAEMON_TEXT_H
#define FZ_DAEMON_TEXT_H

#include <stddef.h>
#include <stdint.h>

#define FZ_COUNT_SIZE 32U

/** An allocated string, or NULL when out of memory. */
char *fz_text_format(const char *format, ...) __attribute__((format(printf, 1, 2)));

/** "7.1M", "124.4M", "1.5K", "768". */
const char *fz_text_elements(uint64_t elements, char buffer[FZ_COUNT_SIZE]);
/** "9,000". */
const char *fz_text_number(uint64_t number, char buffer[FZ_COUNT_SIZE]);
/** "s" unless n is 1. */
static inline const char *fz_text_plural(uint64_t n) { return n == 1 ? "" : "s"; }

/** "COMMAND 'pattern' …" as a shell takes it, quoted where needed; allocated, NULL when out of memory. */
char *fz_text_command(const char *command, char *const *arguments, size_t n);

#endif
