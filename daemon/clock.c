/* clock.c - the daemon's two clocks: one that never jumps, for intervals, and the wall's, for people. */
#include "config.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "daemon/clock.h"

static uint64_t read_clock(clockid_t id) {
  struct timespec now;

  if (clock_gettime(id, &now) < 0)
    return 0;
  return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

uint64_t fz_clock_ms(void) { return read_clock(CLOCK_MONOTONIC); }

uint64_t fz_clock_utc_ms(void) { return read_clock(CLOCK_REALTIME); }

void fz_clock_format(uint64_t utc_ms, char ret_text[FZ_UTC_SIZE]) {
  const time_t seconds = (time_t)(utc_ms / 1000);
  struct tm parts;
  char date[24];

  if (!gmtime_r(&seconds, &parts) || !strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", &parts))
    strcpy(date, "1970-01-01T00:00:00");
  snprintf(ret_text, FZ_UTC_SIZE, "%s.%03uZ", date, (unsigned)(utc_ms % 1000));
}
