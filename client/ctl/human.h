/* human.h - numbers, times and names as people read them. */
#ifndef FZ_CTL_HUMAN_H
#define FZ_CTL_HUMAN_H

#include <stddef.h>
#include <stdint.h>

/** A short text by value, so that it can stand in an argument list: fz_count(n).text. */
struct fz_short {
  char text[64];
};

/** "7.1M", "0.8M", "1.5K", "12", "7.0B": element counts. */
struct fz_short fz_count(uint64_t count);

/** "4,032". */
struct fz_short fz_number(uint64_t number);

/** "36.1 %" of `whole`; "0.0 %" when there is nothing. Never "100.0 %" unless it is all of it. */
struct fz_short fz_percent(uint64_t part, uint64_t whole);

/** "12 parameters", "1 parameter": the noun gets an s unless there is one of it. */
struct fz_short fz_plural(uint64_t count, const char *noun);

/** "0.1 ms", "87 ms", "1.9 s", "2 min 5 s", "3 h 12 min". */
struct fz_short fz_duration(double milliseconds);

/** "14:02:35" in local time from an RFC 3339 time in UTC; with the date in front when that is not today's. */
struct fz_short fz_clock(const char *rfc3339);

/** Milliseconds of a monotonic clock. */
double fz_now_ms(void);

/**
 * A copy of text from outside that is safe on a terminal: control characters and bytes that are not UTF-8 become \xNN.
 * @return an allocated string, NULL when out of memory
 */
char *fz_escape(const char *text);

/** The same where the locale has no other letters: all that is not ASCII becomes \xNN, too. */
char *fz_escape_to_ascii(const char *text);

/** Columns that a text takes on the terminal. */
size_t fz_width(const char *text);

/**
 * Shortens a text to `width` columns with an ellipsis, which is "..." where the locale has no other.
 * @param middle  cut in the middle (names) instead of at the end
 * @return an allocated string, NULL when out of memory
 */
char *fz_shorten(const char *text, size_t width, int middle);

#endif
