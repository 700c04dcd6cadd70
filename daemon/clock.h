/* clock.h - the daemon's two clocks: one that never jumps, for intervals, and the wall's, for people. */
#ifndef FZ_CLOCK_H
#define FZ_CLOCK_H

#include <stddef.h>
#include <stdint.h>

#define FZ_UTC_SIZE 32U

/** Milliseconds of the monotonic clock. */
uint64_t fz_clock_ms(void);
/** Milliseconds since the epoch, UTC. */
uint64_t fz_clock_utc_ms(void);
/** RFC 3339 with milliseconds, "2026-01-09T14:02:35.123Z". */
void fz_clock_format(uint64_t utc_ms, char ret_text[FZ_UTC_SIZE]);

#endif
