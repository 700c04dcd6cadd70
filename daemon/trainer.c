/* trainer.c - a rank's side of the conversation: what it may say when, and what it is told. */
#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/attach.h"
#include "daemon/client.h"
#include "daemon/clock.h"
#include "daemon/hold.h"
#include "daemon/progress.h"
#include "daemon/publisher.h"
#include "daemon/run.h"
#include "daemon/trainer.h"
#include "daemon/watchers.h"

#define EVENT_EVERY_MS 1000

/* ------------------------------------------------------------------------------------------------------------- life */

int fz_trainer_new(fz_trainer **ret_trainer, fz_core *core, fz_connection *connection) {
  fz_trainer *trainer = calloc(1, sizeof(*trainer));

  if (!trainer)
    return -ENOMEM;
  trainer->core = core;
  trainer->connection = connection;
  *ret_trainer = trainer;
  return 0;
}

/** Its place in the run becomes free. */
static void leave_run(fz_trainer *trainer, const char *why) {
  fz_run *run = trainer->run;

  if (!run)
    return;
  const bool was_attached = run->ranks[trainer->rank].attached;
  trainer->run = NULL;
  fz_run_release(run, trainer->rank);
  if (was_attached) {
    fz_log_write(&run->core->log, FZ_LOG_INFO,
                 FZ_LOG_ABOUT(.event = "rank", .run = run->name, .peer = fz_connection_peer(trainer->connection)),
                 "rank %" PRIu32 " %s", trainer->rank, why);
    fz_watch_tell(run->core,
                  FZ_EVENT(.event = "detached", .has = FZ_EVENT_RANK, .run = run, .rank = trainer->rank, .text = why));
  }
  fz_run_check_life(run);
  /* A rank that stood still may have been what the others waited for. */
  if (run->blocked)
    fz_publisher_run(run);
  fz_waits_check(run->core, run);
}

void fz_trainer_drop_listed(fz_trainer *trainer) {
  fz_timer_stop(&trainer->core->timers, &trainer->stalled);
  trainer->listed = fz_params_unref(trainer->listed);
  trainer->core->listing_bytes -= trainer->listed_bytes;
  trainer->listed_bytes = 0;
}

static void on_stalled(fz_timer *timer) {
  /* Valid because only trainers have this timer, as their member `stalled`. */
  fz_trainer *trainer = (fz_trainer *)(void *)((char *)timer - offsetof(fz_trainer, stalled));

  if (trainer->state != FZ_TRAINER_LISTING)
    return;
  fz_trainer_refuse(trainer, true, FZ_CODE_TOO_MANY,
                    "the parameters came to a stop at %zu of %" PRIu64 " and are not kept: try again",
                    fz_params_count(trainer->listed), trainer->n_params);
}

void fz_trainer_expect_params(fz_trainer *trainer) {
  trainer->stalled.fire = on_stalled;
  fz_timer_start(&trainer->core->timers, &trainer->stalled, FZ_LISTING_STALL_MS);
}

fz_trainer *fz_trainer_free(fz_trainer *trainer) {
  if (!trainer)
    return NULL;
  fz_hold_leave(trainer);
  leave_run(trainer, trainer->said_bye ? "has ended" : "is gone");
  fz_trainer_drop_listed(trainer);
  fz_segment_free(trainer->handed);
  free(trainer->rules);
  free(trainer);
  return NULL;
}

/* ---------------------------------------------------------------------------------------------------------- sending */

int fz_trainer_send(fz_trainer *trainer, const fz_message *message, int fd) {
  fz_json_writer *writer = &trainer->core->writer;

  fz_message_encode(writer, message);
  return fz_connection_send(trainer->connection, writer, fd);
}

void fz_trainer_notice(fz_trainer *trainer, enum fz_level level, const char *code, const char *text) {
  const fz_message message = {
    .type = FZ_MESSAGE_NOTICE,
    .notice = { .level = level, .code = code, .message = text },
  };

  if (trainer->state != FZ_TRAINER_ENDED)
    (void)fz_trainer_send(trainer, &message, -1);
}

static void send_error(fz_trainer *trainer, bool close, enum fz_code code, const char *text) {
  const fz_message message = {
    .type = FZ_MESSAGE_ERROR,
    .error = { .code = fz_code_name(code), .message = text, .close = close },
  };

  (void)fz_trainer_send(trainer, &message, -1);
}

void fz_trainer_refuse(fz_trainer *trainer, bool close, enum fz_code code, const char *format, ...) {
  char text[1024];
  va_list arguments;

  va_start(arguments, format);
  vsnprintf(text, sizeof(text), format, arguments);
  va_end(arguments);
  fz_log_write(&trainer->core->log, close ? FZ_LOG_WARNING : FZ_LOG_INFO,
               FZ_LOG_ABOUT(.event = "rank", .run = *trainer->name ? trainer->name : NULL,
                            .peer = fz_connection_peer(trainer->connection)),
               "rank %" PRIu32 " is told: %s", trainer->rank, text);
  send_error(trainer, close, code, text);
  if (!close)
    return;
  trainer->state = FZ_TRAINER_ENDED;
  fz_hold_leave(trainer);
  fz_trainer_drop_listed(trainer);
  leave_run(trainer, "was refused");
  fz_connection_close(trainer->connection, "refused");
}

void fz_trainer_retire(fz_trainer *trainer, uint64_t attempt) {
  char text[160];

  snprintf(text, sizeof(text),
           "attempt %" PRIu64 " of this job has begun: there are no more plans for attempt %" PRIu64, attempt,
           trainer->attempt);
  fz_trainer_notice(trainer, FZ_LEVEL_WARNING, fz_code_name(FZ_CODE_LAUNCH_RETIRED), text);
  trainer->state = FZ_TRAINER_ENDED;
  trainer->run = NULL;
}

void fz_trainer_reconnect(fz_trainer *trainer) {
  fz_trainer_notice(trainer, FZ_LEVEL_INFO, "new_incarnation", "a new incarnation begins; connect again");
  fz_connection_close(trainer->connection, "a new incarnation begins");
}

void fz_trainer_subscribe(fz_trainer *trainer) {
  struct fz_rank *rank = &trainer->run->ranks[trainer->rank];
  uint64_t step, epoch;

  fz_run_now(trainer->run, &step, &epoch);
  rank->at_step = fz_waits_next_step(trainer->core, trainer->run, step);
  const fz_message message = {
    .type = FZ_MESSAGE_SUBSCRIBE,
    .subscribe = {
      .step_every_ms = EVENT_EVERY_MS,
      .epoch = true,
      .metrics = true,
      .metric_every_ms = EVENT_EVERY_MS,
      .at_step = rank->at_step,
    },
  };
  (void)fz_trainer_send(trainer, &message, -1);
}

static void send_welcome(fz_trainer *trainer, const fz_segment *segment, const char *name) {
  const fz_message message = {
    .type = FZ_MESSAGE_WELCOME,
    .welcome = {
      .protocol = FZ_PROTOCOL_VERSION,
      .server = "freezerd " PACKAGE_VERSION,
      .run = trainer->run->name,
      .incarnation = fz_segment_get_info(segment)->incarnation,
      .segment = name,
      .size = fz_segment_size(segment),
    },
  };

  trainer->incarnation = message.welcome.incarnation;
  trainer->state = FZ_TRAINER_WELCOMED;
  /* Without a descriptor to spare the segment's name has to do. */
  const int r = fz_trainer_send(trainer, &message, fz_segment_fd(segment));
  if (r < 0 && r != -ENOTCONN)
    (void)fz_trainer_send(trainer, &message, -1);
}

/**
 * Takes its line for a rank that does not have it, holding nothing: so no slot is written again before it has chosen (a
 * rank that comes alone to a launch with plans may need one that is about to leave the ring), and whoever finds the
 * segment later can tell whose it is.
 */
static void reserve(fz_trainer *trainer) {
  fz_run *run = trainer->run;
  struct fz_rank *rank = &run->ranks[trainer->rank];
  const struct fz_rank_line line = fz_rank_read(run->segment, trainer->rank);

  if (line.pid == trainer->pid) {
    uint64_t gen = line.gen;
    if (trainer->held_incarnation == run->incarnation && trainer->held_gen > gen)
      gen = trainer->held_gen;
    rank->gen = gen <= run->plan.gen ? gen : 0;
    return;
  }
  fz_rank_enter(run->segment, trainer->rank, trainer->pid);
  rank->gen = trainer->held_incarnation == run->incarnation ? trainer->held_gen : 0;
  if (rank->gen > run->plan.gen)
    rank->gen = 0;
}

void fz_trainer_welcome(fz_trainer *trainer) {
  trainer->handed = fz_segment_free(trainer->handed);
  reserve(trainer);
  send_welcome(trainer, trainer->run->segment, trainer->run->segment_name);
}

void fz_trainer_welcome_back(fz_trainer *trainer) {
  const fz_segment_info *info = fz_segment_get_info(trainer->handed);
  char name[FZ_SEGMENT_NAME_MAX + 1];

  if (fz_segment_name(name, sizeof(name), trainer->core->uid, info->run_key, info->incarnation) == 0)
    send_welcome(trainer, trainer->handed, name);
}

/* --------------------------------------------------------------------------------------------------------- messages */

static void on_step(fz_trainer *trainer, const fz_message *message) {
  fz_progress_step(trainer->run, trainer->rank, message->step.step, message->step.epoch);
}

static void on_epoch(fz_trainer *trainer, const fz_message *message) {
  fz_progress_epoch(trainer->run, trainer->rank, message->epoch.step, message->epoch.epoch);
}

static void on_metric(fz_trainer *trainer, const fz_message *message) {
  fz_run_keep_metrics(trainer->run, &message->metric);
}

static void on_applied(fz_trainer *trainer, const fz_message *message) {
  fz_progress_applied(trainer->run, trainer->rank, &message->applied);
}

static void on_rewind(fz_trainer *trainer, const fz_message *message) {
  fz_run *run = trainer->run;
  struct fz_rank *rank = &run->ranks[trainer->rank];

  /* The first rank to rewind opens the new incarnation; the others come after it. It may have failed for want of room. */
  if (trainer->incarnation == run->incarnation || !run->segment) {
    fz_log_write(&run->core->log, FZ_LOG_NOTICE, FZ_LOG_ABOUT(.event = "run", .run = run->name),
                 "rank %" PRIu32 " goes to step %" PRIu64 " epoch %" PRIu64 ": a new incarnation begins", trainer->rank,
                 message->rewind.step, message->rewind.epoch);
    if (run->segment)
      fz_gate_set_rewound(run->segment, true);
    const int r = fz_run_incarnate(run);
    if (r < 0) {
      fz_trainer_refuse(trainer, true, FZ_CODE_NO_MEMORY, "no shared memory for run %s: %s", run->name, strerror(-r));
      return;
    }
  }
  rank->attached = false;
  fz_trainer_welcome(trainer);
}

static void on_bye(fz_trainer *trainer, const fz_message *message) {
  (void)message;
  trainer->said_bye = true;
  fz_hold_leave(trainer);
  trainer->state = FZ_TRAINER_ENDED;
  fz_connection_close(trainer->connection, "it said bye");
}

/* ---------------------------------------------------------------------------------------------------------- dispatch */

#define IN(state) (1U << FZ_TRAINER_##state)

static const struct {
  void (*handle)(fz_trainer *trainer, const fz_message *message);
  unsigned states; /* in which it is expected */
} handlers[] = {
  [FZ_MESSAGE_HELLO] = { fz_attach_hello, IN(NEW) },
  [FZ_MESSAGE_RESUME] = { fz_attach_resume, IN(RESUMING) },
  [FZ_MESSAGE_PARAMS] = { fz_attach_params, IN(LISTING) },
  [FZ_MESSAGE_READY] = { fz_attach_ready, IN(WELCOMED) },
  [FZ_MESSAGE_STEP] = { on_step, IN(ATTACHED) },
  [FZ_MESSAGE_EPOCH] = { on_epoch, IN(ATTACHED) },
  [FZ_MESSAGE_METRIC] = { on_metric, IN(ATTACHED) },
  [FZ_MESSAGE_APPLIED] = { on_applied, IN(ATTACHED) },
  [FZ_MESSAGE_REWIND] = { on_rewind, IN(WELCOMED) | IN(ATTACHED) },
  [FZ_MESSAGE_BYE] = { on_bye, IN(NEW) | IN(RESUMING) | IN(HELD) | IN(LISTING) | IN(WELCOMED) | IN(ATTACHED) },
  [FZ_MESSAGE_NEED] = { NULL, 0 },
  [FZ_MESSAGE_WELCOME] = { NULL, 0 },
  [FZ_MESSAGE_SUBSCRIBE] = { NULL, 0 },
  [FZ_MESSAGE_NOTICE] = { NULL, 0 },
  [FZ_MESSAGE_ERROR] = { NULL, 0 },
};

/** Events of a rank that is still in an incarnation which another rank's rewind has ended. */
static bool is_overtaken(const fz_trainer *trainer, enum fz_message_type type) {
  return trainer->state == FZ_TRAINER_ATTACHED && trainer->incarnation != trainer->run->incarnation &&
         type != FZ_MESSAGE_REWIND && type != FZ_MESSAGE_BYE;
}

void fz_trainer_line(fz_trainer *trainer, const fz_json *root) {
  fz_field_error error;
  fz_message message;
  const int outcome = fz_message_decode(&message, root, &error);

  if (trainer->state == FZ_TRAINER_ENDED)
    return;
  if (outcome == FZ_DECODE_VERSION) {
    fz_write_version_mismatch(&trainer->core->writer, NULL, message.hello.protocol);
    (void)fz_connection_send(trainer->connection, &trainer->core->writer, -1);
    fz_connection_close(trainer->connection, "it speaks another protocol version");
    return;
  }
  if (outcome != 0) {
    fz_trainer_refuse(trainer, false, fz_decode_code(outcome, false), "%s", error.message);
    return;
  }
  if (!(handlers[message.type].states & 1U << trainer->state)) {
    /* After a rewind, events of the incarnation before are still on their way. */
    if (trainer->state != FZ_TRAINER_WELCOMED || !(handlers[message.type].states & IN(ATTACHED)))
      fz_trainer_refuse(trainer, false, FZ_CODE_UNEXPECTED, "'%s' is not expected now", fz_message_name(message.type));
    return;
  }
  if (trainer->run)
    trainer->run->ranks[trainer->rank].heard_ms = fz_clock_ms();
  if (trainer->state != FZ_TRAINER_NEW && trainer->run && is_overtaken(trainer, message.type))
    return;
  handlers[message.type].handle(trainer, &message);
}
