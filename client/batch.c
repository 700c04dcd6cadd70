/* batch.c - the beginning of a batch: the gate, the flags, and now and then the link. */
#include "config.h"

#include <errno.h>
#include <time.h>

#include "client/handle.h"

enum { BATCHES_PER_TICK_MAX = 64, TICK_NS = 1000000 };

static int64_t now_ns(void) {
  struct timespec now;
  (void)clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

int64_t fz_now_ms(void) { return now_ns() / 1000000; }

/*
 * Reads the clock, and sees to it that about a millisecond goes by until it is read again. Kept out of
 * freezer_batch_begin(), whose every call would pay for its registers and stack.
 */
__attribute__((noinline, cold)) static void tick(freezer_t *f) {
  const int64_t now = now_ns();
  const int64_t per_batch = (now - f->ticked_at_ns) / f->batches_per_tick;
  const int64_t batches = per_batch > 0 ? TICK_NS / per_batch : BATCHES_PER_TICK_MAX;
  f->batches_per_tick = batches < 1 ? 1 : batches > BATCHES_PER_TICK_MAX ? BATCHES_PER_TICK_MAX : (uint32_t)batches;
  f->batches_left = f->batches_per_tick;
  f->ticked_at_ns = now;
  fz_link_tick(f, now / 1000000);
}

/* The plan for a step, at its first batch. As fz_collective_begin_step(). */
static int begin_step(freezer_t *f) {
  int r = 0;
  if (fz_is_collective(f)) {
    r = fz_collective_begin_step(f);
  } else if (f->current || f->n_later > 0) {
    r = fz_holds_begin_step(f, f->step, f->plan.gen);
    if (r == 1)
      fz_flags_take_spare(f);
  }
  if (r == 1)
    fz_events_plan_taken(f);
  return r;
}

int freezer_batch_begin(freezer_t *f, uint64_t step, uint64_t epoch) {
  if (!f || step > FZ_STEP_MAX || epoch > FZ_EPOCH_MAX || step < f->step || epoch < f->epoch)
    return -EINVAL;
  if (fz_is_inert(f))
    return 0;
  const bool new_step = step != f->step || !f->begun, new_epoch = epoch != f->epoch;
  f->step = step;
  f->epoch = epoch;
  f->begun = true;

  const int r = new_step ? begin_step(f) : 0;
  const bool changed = fz_flags_are_due(f) && fz_flags_follow(f);
  if (step >= f->events.threshold_step || epoch >= f->events.threshold_epoch || r == 1) {
    fz_events_reached(f, new_epoch);
    fz_events_flush(f, f->ticked_at_ns / 1000000);
  }
  if (--f->batches_left == 0)
    tick(f);
  return changed ? 1 : r < 0 ? r : 0;
}

int freezer_batch_next(freezer_t *f) { return f ? freezer_batch_begin(f, f->step + f->begun, f->epoch) : -EINVAL; }
