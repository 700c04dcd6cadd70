/* timers.c - deadlines of the core, all served by the one timer of the loop. */
#include "config.h"

#include <stddef.h>

#include "daemon/clock.h"
#include "daemon/timers.h"

static void unlink_timer(fz_timer *timer) {
  *timer->link = timer->next;
  if (timer->next)
    timer->next->link = timer->link;
  timer->next = NULL;
  timer->link = NULL;
  timer->due = 0;
}

static void tell(fz_timers *timers) {
  if (timers->changed)
    timers->changed(timers->user);
}

void fz_timer_start(fz_timers *timers, fz_timer *timer, uint64_t delay_ms) {
  fz_timer **place = &timers->first;

  if (timer->due)
    unlink_timer(timer);
  timer->due = fz_clock_ms() + delay_ms;
  if (timer->due == 0)
    timer->due = 1;
  while (*place && (*place)->due <= timer->due)
    place = &(*place)->next;
  timer->next = *place;
  timer->link = place;
  if (timer->next)
    timer->next->link = &timer->next;
  *place = timer;
  if (place == &timers->first)
    tell(timers);
}

void fz_timer_stop(fz_timers *timers, fz_timer *timer) {
  if (!timer->due)
    return;
  const bool was_first = timers->first == timer;
  unlink_timer(timer);
  if (was_first)
    tell(timers);
}

uint64_t fz_timers_delay(const fz_timers *timers) {
  if (!timers->first)
    return UINT64_MAX;
  const uint64_t now = fz_clock_ms();
  return timers->first->due > now ? timers->first->due - now : 0;
}

void fz_timers_run(fz_timers *timers) {
  /* One reading of the clock, so that a timer that starts itself again with no delay does not keep us here. */
  const uint64_t now = fz_clock_ms();

  while (timers->first && timers->first->due <= now) {
    fz_timer *timer = timers->first;
    unlink_timer(timer);
    timer->fire(timer);
    if (timer == timers->first && timer->due >= now)
      break;
  }
  tell(timers);
}
