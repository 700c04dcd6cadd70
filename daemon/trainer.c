/* trainer.c - a rank's side of the conversation: what it may say when, and what it is told. */
#include "config.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/adopt.h"
#include "daemon/client.h"
#include "daemon/clock.h"
#include "daemon/launch.h"
#include "daemon/progress.h"
#include "daemon/publisher.h"
#include "daemon/run.h"
#include "daemon/run_rules.h"
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

fz_trainer *fz_trainer_free(fz_trainer *trainer) {
  if (!trainer)
    return NULL;
  leave_run(trainer, trainer->said_bye ? "has ended" : "is gone");
  fz_params_unref(trainer->listed);
  free(trainer->rules);
  free(trainer);
  return NULL;
}

/* ---------------------------------------------------------------------------------------------------------- sending */

static int send_message(fz_trainer *trainer, const fz_message *message, int fd) {
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
    (void)send_message(trainer, &message, -1);
}

static void send_error(fz_trainer *trainer, bool close, enum fz_code code, const char *text) {
  const fz_message message = {
    .type = FZ_MESSAGE_ERROR,
    .error = { .code = fz_code_name(code), .message = text, .close = close },
  };

  (void)send_message(trainer, &message, -1);
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
  (void)send_message(trainer, &message, -1);
}

static void send_welcome(fz_trainer *trainer) {
  fz_run *run = trainer->run;
  const fz_message message = {
    .type = FZ_MESSAGE_WELCOME,
    .welcome = {
      .protocol = FZ_PROTOCOL_VERSION,
      .server = "freezerd " PACKAGE_VERSION,
      .run = run->name,
      .incarnation = run->incarnation,
      .segment = run->segment_name,
      .size = fz_segment_size(run->segment),
    },
  };

  trainer->incarnation = run->incarnation;
  trainer->state = FZ_TRAINER_WELCOMED;
  /* Without a descriptor to spare the segment's name has to do. */
  const int r = send_message(trainer, &message, fz_segment_fd(run->segment));
  if (r == -EMFILE || r == -ENFILE)
    (void)send_message(trainer, &message, -1);
}

/* -------------------------------------------------------------------------------------------------------- attaching */

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
  rank->gen = 0;
  fz_rank_enter(run->segment, trainer->rank, trainer->pid);
}

static void admit(fz_trainer *trainer) {
  fz_run *run = trainer->run;

  fz_run_attach_rules(run, trainer, trainer->rules);
  free(trainer->rules);
  trainer->rules = NULL;
  trainer->listed = fz_params_unref(trainer->listed);
  if (!run->segment) {
    const int r = fz_run_incarnate(run);
    if (r < 0) {
      fz_trainer_refuse(trainer, true, FZ_CODE_NO_MEMORY, "no shared memory for run %s: %s", run->name, strerror(-r));
      return;
    }
  }
  reserve(trainer);
  fz_run_check_life(run);
  send_welcome(trainer);
}

static bool knows_params(const fz_trainer *trainer) {
  const fz_params *params = trainer->run->params;

  return params && fz_params_count(params) == trainer->n_params && fz_params_layout_hash(params) == trainer->layout &&
         fz_params_baseline_hash(params) == trainer->baseline;
}

static void ask_for_params(fz_trainer *trainer) {
  const fz_message need = { .type = FZ_MESSAGE_NEED, .need = { .what = "params" } };

  if (fz_params_new(&trainer->listed) < 0) {
    fz_trainer_refuse(trainer, true, FZ_CODE_NO_MEMORY, "out of memory");
    return;
  }
  trainer->state = FZ_TRAINER_LISTING;
  (void)send_message(trainer, &need, -1);
}

static void place(fz_trainer *trainer, const char *name) {
  fz_run *run = NULL;
  const int r = fz_launch_place(trainer, name, &run);

  if (r == FZ_LAUNCH_RETIRED) {
    fz_trainer_refuse(trainer, true, FZ_CODE_LAUNCH_RETIRED,
                      "attempt %" PRIu64 " of job %s has begun, this is %" PRIu64, run->attempt, trainer->job,
                      trainer->attempt);
    return;
  }
  if (r == FZ_LAUNCH_WORLD) {
    fz_trainer_refuse(trainer, true, FZ_CODE_BAD_FIELD,
                      "field 'world' is %" PRIu32 ", but other ranks of this launch said %" PRIu32, trainer->world,
                      run->world);
    return;
  }
  if (r < 0) {
    fz_trainer_refuse(trainer, true, r == -ENOSPC ? FZ_CODE_TOO_MANY : FZ_CODE_NO_MEMORY, "no room for another run: %s",
                      strerror(-r));
    return;
  }
  if (strcmp(run->name, trainer->name) != 0) {
    char text[FZ_RUN_NAME_MAX * 2 + 100];
    snprintf(text, sizeof(text), "another job runs as %s, so this one is %s", trainer->name, run->name);
    fz_trainer_notice(trainer, FZ_LEVEL_WARNING, "renamed", text);
    fz_log_write(&trainer->core->log, FZ_LOG_WARNING, FZ_LOG_ABOUT(.event = "run", .run = run->name), "%s", text);
  }
  if (knows_params(trainer))
    admit(trainer);
  else
    ask_for_params(trainer);
}

/* --------------------------------------------------------------------------------------------------------- messages */

static void on_hello(fz_trainer *trainer, const fz_message *message) {
  const struct fz_hello *hello = &message->hello;

  snprintf(trainer->name, sizeof(trainer->name), "%s", hello->run);
  snprintf(trainer->framework, sizeof(trainer->framework), "%s", hello->framework);
  snprintf(trainer->job, sizeof(trainer->job), "%s", hello->job);
  trainer->attempt = hello->attempt;
  trainer->rank = (uint32_t)hello->rank;
  trainer->world = (uint32_t)hello->world;
  trainer->pid = hello->pid;
  trainer->n_params = hello->n_params;
  trainer->layout = hello->layout;
  trainer->baseline = hello->baseline;
  if (hello->rules) {
    const int r = fz_json_to_text(hello->rules, FZ_RULES_TEXT_MAX, &trainer->rules, NULL);
    if (r < 0) {
      fz_trainer_refuse(trainer, true, r == -E2BIG ? FZ_CODE_TOO_MANY : FZ_CODE_NO_MEMORY,
                        "the rules take more than %u bytes", FZ_RULES_TEXT_MAX);
      return;
    }
  }
  if (hello->resumes)
    trainer->state = FZ_TRAINER_RESUMING;
  else
    place(trainer, trainer->name);
}

static void on_resume(fz_trainer *trainer, const fz_message *message) {
  const int fd = fz_connection_take_fd(trainer->connection);
  char name[FZ_RUN_NAME_MAX + 1];
  const int r = fd < 0 ? -ENOENT : fz_adopt_resume(trainer, fd, name);

  if (r < 0) {
    fz_log_write(&trainer->core->log, FZ_LOG_INFO,
                 FZ_LOG_ABOUT(.event = "rank", .run = trainer->name, .peer = fz_connection_peer(trainer->connection)),
                 "rank %" PRIu32 " comes back with incarnation %" PRIu64 ", which cannot be carried on: %s",
                 trainer->rank, message->resume.incarnation, r == -ENOENT ? "its descriptor is missing" : strerror(-r));
    snprintf(name, sizeof(name), "%s", trainer->name);
  } else {
    trainer->held_incarnation = message->resume.incarnation;
    trainer->held_gen = message->resume.gen;
  }
  place(trainer, name);
}

/** The first parameter in which the tables differ, as a sentence. */
static void describe_difference(const fz_params *ours, const fz_params *theirs, char *text, size_t size) {
  const size_t n = fz_params_count(ours) < fz_params_count(theirs) ? fz_params_count(ours) : fz_params_count(theirs);

  for (size_t i = 0; i < n; i++) {
    const struct fz_param *a = fz_params_get(ours, i), *b = fz_params_get(theirs, i);
    if (strcmp(a->name, b->name) != 0)
      snprintf(text, size, "parameter %zu is '%s' there and '%s' here", i, a->name, b->name);
    else if (a->elements != b->elements)
      snprintf(text, size, "'%s' has %" PRIu64 " elements there and %" PRIu64 " here", a->name, a->elements,
               b->elements);
    else if (a->requires_grad != b->requires_grad)
      snprintf(text, size, "'%s' %s there and %s here", a->name, a->requires_grad ? "trains" : "is frozen",
               b->requires_grad ? "trains" : "is frozen");
    else
      continue;
    return;
  }
  if (fz_params_count(ours) != fz_params_count(theirs))
    snprintf(text, size, "there are %zu parameters there and %zu here", fz_params_count(ours), fz_params_count(theirs));
  else
    snprintf(text, size, "what may be frozen or trained differs");
}

/** The trainer's table is complete. */
static void settle_params(fz_trainer *trainer) {
  fz_run *run = trainer->run;
  char difference[FZ_PARAM_NAME_MAX];

  if (knows_params(trainer)) { /* another rank was faster */
    admit(trainer);
    return;
  }
  if (run->segment) {
    const bool layout = fz_params_layout_hash(run->params) != trainer->layout;
    describe_difference(run->params, trainer->listed, difference, 600);
    fz_trainer_refuse(trainer, true, FZ_CODE_LAYOUT_MISMATCH,
                      "the %s differs from that of the other ranks (%016" PRIx64 " there, %016" PRIx64 " here): %s",
                      layout ? "layout" : "baseline",
                      layout ? fz_params_layout_hash(run->params) : fz_params_baseline_hash(run->params),
                      layout ? trainer->layout : trainer->baseline, difference);
    return;
  }
  if (fz_run_set_params(run, trainer->listed) < 0) {
    fz_trainer_refuse(trainer, true, FZ_CODE_NO_MEMORY, "out of memory");
    return;
  }
  admit(trainer);
}

static void seal_params(fz_trainer *trainer) {
  size_t twice = 0;
  const int r = fz_params_seal(trainer->listed, &twice);

  if (r == -EEXIST) {
    fz_trainer_refuse(trainer, true, FZ_CODE_BAD_FIELD, "parameter %zu, '%.500s', has a name that stood before", twice,
                      fz_params_get(trainer->listed, twice)->name);
    return;
  }
  if (r < 0) {
    fz_trainer_refuse(trainer, true, FZ_CODE_NO_MEMORY, "out of memory");
    return;
  }
  if (fz_params_layout_hash(trainer->listed) != trainer->layout ||
      fz_params_baseline_hash(trainer->listed) != trainer->baseline) {
    fz_trainer_refuse(trainer, true, FZ_CODE_LAYOUT_MISMATCH,
                      "the parameters are not those that hello announced (layout %016" PRIx64 ", announced %016" PRIx64
                      "; baseline %016" PRIx64 ", announced %016" PRIx64 ")",
                      fz_params_layout_hash(trainer->listed), trainer->layout, fz_params_baseline_hash(trainer->listed),
                      trainer->baseline);
    return;
  }
  settle_params(trainer);
}

static void on_params(fz_trainer *trainer, const fz_message *message) {
  const struct fz_params_chunk *chunk = &message->params;
  struct fz_params_entry entry;
  const fz_json *cursor = NULL;
  const size_t n = fz_params_count(trainer->listed);

  if (chunk->first != n || chunk->count > trainer->n_params - n || (chunk->count == 0 && trainer->n_params != 0)) {
    fz_trainer_refuse(trainer, true, FZ_CODE_BAD_FIELD,
                      "params from %" PRIu64 " to %" PRIu64 ", expected from %zu to at most %" PRIu64, chunk->first,
                      chunk->first + chunk->count, n, trainer->n_params);
    return;
  }
  while (fz_params_chunk_next(chunk, &cursor, &entry)) {
    const int r = fz_params_add(trainer->listed, entry.name, strlen(entry.name), entry.elements, entry.requires_grad,
                                entry.may_freeze, entry.may_train);
    if (r < 0) {
      fz_trainer_refuse(trainer, true, r == -E2BIG ? FZ_CODE_TOO_MANY : FZ_CODE_BAD_FIELD,
                        "parameter %zu cannot be taken: %s", fz_params_count(trainer->listed), strerror(-r));
      return;
    }
  }
  if (fz_params_count(trainer->listed) == trainer->n_params)
    seal_params(trainer);
}

/** Whether the plan that holds at `step` can still be had. */
static bool is_late(const fz_trainer *trainer, uint64_t step) {
  const fz_run *run = trainer->run;
  fz_plan plan = FZ_PLAN_NULL;
  bool late = false;

  if (run->plan.gen == 0 || run->ranks[trainer->rank].gen > 0)
    return false;
  if (fz_plan_reserve(&plan, run->segment) == 0)
    late = fz_segment_choose(run->segment, step, run->plan.gen, 0, &plan) == FZ_CHOOSE_LOST;
  fz_plan_deinit(&plan);
  return late;
}

static void on_ready(fz_trainer *trainer, const fz_message *message) {
  fz_run *run = trainer->run;
  struct fz_rank *rank = &run->ranks[trainer->rank];
  char text[80];

  if (trainer->incarnation != run->incarnation || !run->segment)
    return; /* it has been overtaken by another rank's rewind, and will hear of it when it rewinds itself */
  if (is_late(trainer, message->ready.step)) {
    fz_trainer_refuse(trainer, true, FZ_CODE_LATE_RANK,
                      "the plan of step %" PRIu64 " has left the ring, the run is far beyond: this rank joins the next "
                      "incarnation",
                      message->ready.step);
    return;
  }
  trainer->state = FZ_TRAINER_ATTACHED;
  rank->attached = true;
  rank->step = message->ready.step;
  rank->epoch = message->ready.epoch;
  snprintf(text, sizeof(text), "rank %" PRIu32 " attached, %" PRIu32 "/%" PRIu32, trainer->rank, fz_run_attached(run),
           run->world);
  fz_log_write(&trainer->core->log, FZ_LOG_INFO,
               FZ_LOG_ABOUT(.event = "rank", .run = run->name, .peer = fz_connection_peer(trainer->connection)),
               "%s, at step %" PRIu64 " epoch %" PRIu64, text, rank->step, rank->epoch);
  fz_watch_tell(run->core,
                FZ_EVENT(.event = "attached", .has = FZ_EVENT_RANK | FZ_EVENT_STEP | FZ_EVENT_EPOCH, .run = run,
                         .rank = trainer->rank, .step = rank->step, .epoch = rank->epoch, .text = text));
  fz_trainer_subscribe(trainer);
  fz_publisher_run(run);
  fz_progress_note(run);
  fz_waits_check(run->core, run);
}

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

  /* The first rank to rewind opens the new incarnation; the others come after it. */
  if (trainer->incarnation == run->incarnation) {
    fz_log_write(&run->core->log, FZ_LOG_NOTICE, FZ_LOG_ABOUT(.event = "run", .run = run->name),
                 "rank %" PRIu32 " goes to step %" PRIu64 " epoch %" PRIu64 ": a new incarnation begins", trainer->rank,
                 message->rewind.step, message->rewind.epoch);
    const int r = fz_run_incarnate(run);
    if (r < 0) {
      fz_trainer_refuse(trainer, true, FZ_CODE_NO_MEMORY, "no shared memory for run %s: %s", run->name, strerror(-r));
      return;
    }
  }
  rank->attached = false;
  send_welcome(trainer);
}

static void on_bye(fz_trainer *trainer, const fz_message *message) {
  (void)message;
  trainer->said_bye = true;
  trainer->state = FZ_TRAINER_ENDED;
  fz_connection_close(trainer->connection, "it said bye");
}

/* ---------------------------------------------------------------------------------------------------------- dispatch */

#define IN(state) (1U << FZ_TRAINER_##state)

static const struct {
  void (*handle)(fz_trainer *trainer, const fz_message *message);
  unsigned states; /* in which it is expected */
} handlers[] = {
  [FZ_MESSAGE_HELLO] = { on_hello, IN(NEW) },
  [FZ_MESSAGE_RESUME] = { on_resume, IN(RESUMING) },
  [FZ_MESSAGE_PARAMS] = { on_params, IN(LISTING) },
  [FZ_MESSAGE_READY] = { on_ready, IN(WELCOMED) },
  [FZ_MESSAGE_STEP] = { on_step, IN(ATTACHED) },
  [FZ_MESSAGE_EPOCH] = { on_epoch, IN(ATTACHED) },
  [FZ_MESSAGE_METRIC] = { on_metric, IN(ATTACHED) },
  [FZ_MESSAGE_APPLIED] = { on_applied, IN(ATTACHED) },
  [FZ_MESSAGE_REWIND] = { on_rewind, IN(WELCOMED) | IN(ATTACHED) },
  [FZ_MESSAGE_BYE] = { on_bye, IN(NEW) | IN(RESUMING) | IN(LISTING) | IN(WELCOMED) | IN(ATTACHED) },
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
