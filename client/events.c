/* events.c - what a rank tells freezerd: the newest of each kind, and only what was asked for. */
#include "config.h"

#include <errno.h>
#include <math.h>
#include <string.h>

#include "client/handle.h"
#include "protocol/text.h"

/* An event that waits is kept here, not in the queue: one of its kind, however long the socket takes nothing. */

void fz_events_set_thresholds(freezer_t *f) {
  struct fz_events *events = &f->events;
  uint64_t step = FZ_TIME_NEVER, epoch = f->epoch + 1;
  if (f->plan.gen > 0 && !events->woke) {
    step = f->plan.wake_step;
    epoch = f->plan.wake_epoch < epoch ? f->plan.wake_epoch : epoch;
  }
  if (f->link.state == FZ_LINK_READY) {
    if (events->wanted.at_step < step)
      step = events->wanted.at_step;
    if (events->wanted.step_every_ms == 0)
      step = 0;
  }
  events->threshold_step = step;
  events->threshold_epoch = epoch;
}

void fz_events_unsubscribe(freezer_t *f) {
  /* A wake is told again, if it still holds, to the freezerd that comes, and so is where the epoch began. */
  f->events.woke = f->events.step_unsent = false;
  f->events.epoch_unsent = f->events.epoch_step != FZ_TIME_NEVER;
  f->events.wanted = (struct fz_subscribe){ .step_every_ms = FZ_TIME_NEVER, .at_step = FZ_TIME_NEVER };
  fz_events_set_thresholds(f);
}

void fz_events_subscribe(freezer_t *f, const struct fz_subscribe *wanted) {
  f->events.wanted = *wanted;
  f->events.step_at_ms = f->events.metrics_at_ms = 0;
  f->events.step_sent = FZ_TIME_NEVER;
  /* It may be reached already: then the answer is due at once. */
  if (f->begun && f->step >= wanted->at_step) {
    f->events.step_unsent = true;
    f->events.wanted.at_step = FZ_TIME_NEVER;
  }
  fz_events_set_thresholds(f);
}

void fz_events_plan_taken(freezer_t *f) {
  f->events.applied = (struct fz_applied){ .gen = f->plan.gen, .step = f->step, .epoch = f->epoch };
  /* The last plans of an incarnation that is being left mean nothing to the freezerd of the next one. */
  f->events.applied_unsent = f->n_later == 0;
  f->events.woke = false;
  fz_events_set_thresholds(f);
}

void fz_events_reached(freezer_t *f, bool new_epoch) {
  struct fz_events *events = &f->events;
  if (f->plan.gen > 0 && !events->woke && (f->step >= f->plan.wake_step || f->epoch >= f->plan.wake_epoch)) {
    events->woke = true;
    events->step_unsent = true;
  }
  if (f->step >= events->wanted.at_step) {
    events->wanted.at_step = FZ_TIME_NEVER;
    events->step_unsent = true;
  }
  if (events->wanted.step_every_ms == 0 && events->step_sent != f->step)
    events->step_unsent = true;
  if (new_epoch) {
    events->epoch_unsent = true;
    events->epoch_step = f->step;
  }
  fz_events_set_thresholds(f);
}

/* Queues the values that wait. Marked as sent only when the line is in the queue. */
static void push_metrics(freezer_t *f) {
  struct fz_events *events = &f->events;
  fz_message message = { .type = FZ_MESSAGE_METRIC, .metric.step = f->step };
  for (size_t i = 0; i < events->n_metrics; i++)
    if (events->metrics[i].unsent)
      message.metric.values[message.metric.count++] =
        (struct fz_metric){ .name = events->metrics[i].name, .value = events->metrics[i].value };
  if (message.metric.count > 0 && !fz_link_push(f, &message))
    return;
  for (size_t i = 0; i < events->n_metrics; i++)
    events->metrics[i].unsent = false;
  events->metrics_unsent = false;
}

static bool push_applied(freezer_t *f) {
  const fz_message message = { .type = FZ_MESSAGE_APPLIED, .applied = f->events.applied };
  return fz_link_push(f, &message);
}

static bool push_epoch(freezer_t *f) {
  const fz_message message = { .type = FZ_MESSAGE_EPOCH, .epoch = { .step = f->events.epoch_step, .epoch = f->epoch } };
  return fz_link_push(f, &message);
}

static bool push_step(freezer_t *f) {
  const fz_message message = { .type = FZ_MESSAGE_STEP, .step = { .step = f->step, .epoch = f->epoch } };
  return fz_link_push(f, &message);
}

static bool is_epoch_due(const struct fz_events *events) { return events->epoch_unsent && events->wanted.epoch; }

static void push_waiting(freezer_t *f) {
  struct fz_events *events = &f->events;
  if (events->applied_unsent && push_applied(f))
    events->applied_unsent = false;
  if (is_epoch_due(events) && push_epoch(f))
    events->epoch_unsent = false;
  if (events->step_unsent && push_step(f)) {
    events->step_unsent = false;
    events->step_sent = f->step;
  }
}

static void see_what_is_due(freezer_t *f, int64_t now_ms, bool *ret_metrics) {
  struct fz_events *events = &f->events;
  const uint64_t every = events->wanted.step_every_ms;
  if (every != FZ_TIME_NEVER && every > 0 && f->begun && events->step_sent != f->step && now_ms >= events->step_at_ms) {
    events->step_unsent = true;
    events->step_at_ms = now_ms + (int64_t)every;
  }
  *ret_metrics = events->wanted.metrics && events->metrics_unsent && now_ms >= events->metrics_at_ms;
  if (*ret_metrics)
    events->metrics_at_ms = now_ms + (int64_t)events->wanted.metric_every_ms;
}

void fz_events_flush(freezer_t *f, int64_t now_ms) {
  /* As long as the socket has not taken what went before, nothing is queued behind it: newer events replace older. */
  if (f->link.state != FZ_LINK_READY || fz_output_pending(&f->link.output) > 0)
    return;
  bool metrics = false;
  see_what_is_due(f, now_ms, &metrics);
  if (!metrics && !f->events.applied_unsent && !is_epoch_due(&f->events) && !f->events.step_unsent)
    return;
  push_waiting(f);
  if (metrics)
    push_metrics(f);
  (void)fz_link_flush(f);
}

static struct fz_metric_slot *find_metric(struct fz_events *events, const char *name) {
  for (size_t i = 0; i < events->n_metrics; i++)
    if (strcmp(events->metrics[i].name, name) == 0)
      return &events->metrics[i];
  return NULL;
}

int freezer_metric(freezer_t *f, const char *name, double value) {
  if (!f || !name)
    return -EINVAL;
  const size_t length = strnlen(name, FZ_METRIC_NAME_MAX + 1);
  if (length == 0 || length > FZ_METRIC_NAME_MAX || !fz_text_is_clean(name, length))
    return -EINVAL;
  if (fz_is_inert(f))
    return 0;
  struct fz_events *events = &f->events;
  struct fz_metric_slot *slot = find_metric(events, name);
  if (!slot) {
    if (events->n_metrics == FZ_METRICS_MAX)
      return -ENOSPC;
    slot = &events->metrics[events->n_metrics++];
    memcpy(slot->name, name, length + 1);
  }
  slot->value = isfinite(value) ? value : (double)NAN;
  slot->unsent = events->metrics_unsent = true;
  /* Every value is wanted: it does not wait for the next batch. */
  if (events->wanted.metrics && events->wanted.metric_every_ms == 0)
    fz_events_flush(f, fz_now_ms());
  return 0;
}
