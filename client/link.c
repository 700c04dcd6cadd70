/* link.c - the connection to freezerd, in small non-blocking pieces: connect, hello, parameters, welcome, ready. */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "client/handle.h"

enum {
  RETRY_MS = 250,    /* between two attempts to connect */
  REFUSED_MS = 1000, /* after a refusal, doubled up to */
  REFUSED_MAX_MS = 8000,
  POLL_MS = 20, /* between two looks at an idle socket */
  RECEIVES_PER_TICK = 4,
  PARAMS_CHUNK = 64 * 1024 /* bytes of one params line: what one batch may spend on attaching */
};

void fz_link_init(freezer_t *f) {
  f->link.fd = -1;
  f->link.retry_wait_ms = REFUSED_MS;
  f->events.epoch_step = FZ_TIME_NEVER;
  fz_events_unsubscribe(f);
}

void fz_link_end(freezer_t *f, int64_t retry_ms) {
  struct fz_link *link = &f->link;
  if (link->fd >= 0)
    (void)close(link->fd);
  link->fd = -1;
  link->state = FZ_LINK_DOWN;
  link->retry_at_ms = fz_now_ms() + retry_ms;
  fz_line_reader_deinit(&link->reader);
  fz_output_deinit(&link->output);
  fz_events_unsubscribe(f);
}

/* Ends a connection that was in use: freezerd went away. */
static void lose(freezer_t *f, int error) {
  if (f->link.state == FZ_LINK_READY)
    fz_log(f, FREEZER_LOG_WARNING, "%s: training goes on with the %s that it has", freezer_strerror(error),
           f->plan.gen > 0 ? "plan" : "flags");
  fz_link_end(f, 0);
  f->link.retry_at_ms += RETRY_MS;
}

/* freezerd, or what it sent, is not to be worked with: later again, ever less often. */
static void give_up_for_now(freezer_t *f) {
  struct fz_link *link = &f->link;
  link->refused = true;
  fz_link_end(f, link->retry_wait_ms);
  link->retry_wait_ms = link->retry_wait_ms * 2 > REFUSED_MAX_MS ? REFUSED_MAX_MS : link->retry_wait_ms * 2;
}

/* -------------------------------------------------------------------------------------------------------- sending */

static bool push_line(freezer_t *f, int pass_fd) {
  struct fz_link *link = &f->link;
  const char *line;
  size_t length;
  int r = fz_writer_line(&link->writer, &line, &length);
  if (r == 0)
    r = pass_fd < 0 ? fz_output_push(&link->output, line, length)
                    : fz_output_push_fd(&link->output, line, length, pass_fd, false);
  return r == 0;
}

bool fz_link_push(freezer_t *f, const fz_message *message) {
  fz_writer_reset(&f->link.writer);
  f->link.writer.max = 0;
  fz_message_encode(&f->link.writer, message);
  return push_line(f, -1);
}

bool fz_link_flush(freezer_t *f) {
  struct fz_link *link = &f->link;
  if (link->fd < 0 || fz_output_pending(&link->output) == 0)
    return true;
  const int r = fz_output_flush(&link->output, link->fd);
  if (r < 0)
    lose(f, r);
  return r == 0;
}

static bool push_resume(freezer_t *f, fz_segment *segment, uint64_t gen) {
  struct fz_link *link = &f->link;
  const fz_message message = {
    .type = FZ_MESSAGE_RESUME,
    .resume = { .incarnation = fz_segment_get_info(segment)->incarnation,
                .gen = gen,
                .step = f->begun ? f->step : FZ_TIME_NEVER,
                .epoch = f->begun ? f->epoch : FZ_TIME_NEVER },
  };
  fz_writer_reset(&link->writer);
  fz_message_encode(&link->writer, &message);
  return push_line(f, fz_segment_fd(segment));
}

static bool push_hello(freezer_t *f) {
  uint64_t gen;
  fz_segment *held = fz_holds_newest(f, &gen);
  const fz_message message = {
    .type = FZ_MESSAGE_HELLO,
    .hello = { .protocol = FZ_PROTOCOL_VERSION,
               .run = f->identity.run,
               .framework = f->identity.framework,
               .job = f->identity.job,
               .attempt = f->identity.attempt,
               .rank = f->identity.rank,
               .world = f->identity.world,
               .pid = f->identity.pid,
               .n_params = f->n_params,
               .layout = fz_params_layout_hash(f->params),
               .baseline = fz_params_baseline_hash(f->params),
               .resumes = held != NULL,
               .rules = f->rules },
  };
  return fz_link_push(f, &message) && (!held || push_resume(f, held, gen));
}

static bool push_ready(freezer_t *f) {
  const fz_message message = { .type = FZ_MESSAGE_READY, .ready = { .step = f->step, .epoch = f->epoch } };
  return fz_link_push(f, &message);
}

static bool push_rewind(freezer_t *f) {
  const fz_message message = { .type = FZ_MESSAGE_REWIND, .rewind = { .step = f->step, .epoch = f->epoch } };
  return fz_link_push(f, &message);
}

/* The next parameters, once the socket has taken those before. */
static void send_params(freezer_t *f) {
  struct fz_link *link = &f->link;
  if (fz_output_pending(&link->output) > 0)
    return;
  fz_writer_reset(&link->writer);
  link->writer.max = PARAMS_CHUNK;
  const size_t next = fz_params_encode(&link->writer, f->params, link->next_param);
  if (!push_line(f, -1)) {
    give_up_for_now(f);
    return;
  }
  link->next_param = next;
  if (next == f->n_params)
    link->state = FZ_LINK_HELLO;
}

/* ------------------------------------------------------------------------------------------------------- receiving */

static void on_need(freezer_t *f) {
  if (f->link.state != FZ_LINK_HELLO)
    return;
  f->link.next_param = 0;
  f->link.state = FZ_LINK_PARAMS;
}

static void tell_attached(freezer_t *f, const struct fz_welcome *welcome, bool anew) {
  struct fz_link *link = &f->link;
  if (strcmp(welcome->run, link->name_given) != 0) {
    const size_t length = strlen(welcome->run);
    memcpy(link->name_given, welcome->run, length + 1);
    if (strcmp(welcome->run, f->identity.run) != 0)
      fz_log(f, FREEZER_LOG_WARNING, "another job trains as run '%s': this one is called '%s'", f->identity.run,
             welcome->run);
  }
  fz_log(f, FREEZER_LOG_INFO, "%s %s as run '%s', rank %u of %u, incarnation %llu",
         anew ? "attached to" : "attached again to", welcome->server, welcome->run, (unsigned)f->identity.rank,
         (unsigned)f->identity.world, (unsigned long long)welcome->incarnation);
}

/* The segment by its descriptor, or by its name from a freezerd that had none to spare. The caller owns it. */
static int open_segment(fz_line_reader *reader, const char *name) {
  int fd = fz_line_reader_take_fd(reader);
  if (fd < 0)
    fd = shm_open(name, O_RDWR | O_CLOEXEC, 0);
  return fd < 0 ? -errno : fd;
}

static void on_welcome(freezer_t *f, const struct fz_welcome *welcome) {
  struct fz_link *link = &f->link;
  const int fd = open_segment(&link->reader, welcome->segment);
  const int r = fd < 0 ? fd : fz_holds_welcome(f, fd, welcome->incarnation);
  if (r < 0) {
    fz_log(f, FREEZER_LOG_ERROR, "cannot use the segment '%s' that freezerd sent: %s", welcome->segment,
           freezer_strerror(r));
    give_up_for_now(f);
    return;
  }
  if (r == 0) {
    f->events.applied_unsent = false;
    link->owes_rewind = false;
  }
  link->state = FZ_LINK_READY;
  link->refused = false;
  link->retry_wait_ms = REFUSED_MS;
  link->last_error[0] = '\0';
  tell_attached(f, welcome, r == 0);
  if (!push_ready(f) || (link->owes_rewind && !push_rewind(f))) {
    give_up_for_now(f);
    return;
  }
  fz_events_set_thresholds(f);
}

static void on_notice(const freezer_t *f, const struct fz_notice *notice) {
  static const enum freezer_log_level levels[] = {
    [FZ_LEVEL_INFO] = FREEZER_LOG_INFO,
    [FZ_LEVEL_WARNING] = FREEZER_LOG_WARNING,
    [FZ_LEVEL_ERROR] = FREEZER_LOG_ERROR,
  };
  fz_log(f, levels[notice->level], "%s", notice->message);
}

/* An error before welcome is a refusal; one after it is about a message of ours, and ends nothing by itself. */
static void on_error(freezer_t *f, const struct fz_error *error) {
  struct fz_link *link = &f->link;
  if (strncmp(error->code, link->last_error, FZ_CODE_MAX) != 0) {
    (void)snprintf(link->last_error, sizeof(link->last_error), "%s", error->code);
    fz_log(f, FREEZER_LOG_WARNING, "freezerd: %s%s%s", error->message, error->hint ? "; " : "",
           error->hint ? error->hint : "");
  }
  if (link->state != FZ_LINK_READY || error->close)
    give_up_for_now(f);
}

static void handle(freezer_t *f, const fz_message *message) {
  switch (message->type) {
  case FZ_MESSAGE_NEED:
    on_need(f);
    break;
  case FZ_MESSAGE_WELCOME:
    on_welcome(f, &message->welcome);
    break;
  case FZ_MESSAGE_SUBSCRIBE:
    fz_events_subscribe(f, &message->subscribe);
    break;
  case FZ_MESSAGE_NOTICE:
    on_notice(f, &message->notice);
    break;
  case FZ_MESSAGE_ERROR:
    on_error(f, &message->error);
    break;
  case FZ_MESSAGE_HELLO:
  case FZ_MESSAGE_RESUME:
  case FZ_MESSAGE_PARAMS:
  case FZ_MESSAGE_READY:
  case FZ_MESSAGE_STEP:
  case FZ_MESSAGE_EPOCH:
  case FZ_MESSAGE_METRIC:
  case FZ_MESSAGE_APPLIED:
  case FZ_MESSAGE_REWIND:
  case FZ_MESSAGE_BYE:
    break; /* a trainer's own: a peer that sends them is confused, and harmless */
  }
}

static void on_line(freezer_t *f, const char *line, size_t length) {
  char why[FZ_FIELD_MESSAGE_SIZE] = "";
  fz_json *root = NULL;
  fz_message message;
  fz_field_error error;
  int r = fz_json_parse(&root, line, length, why, sizeof(why));
  if (r == 0) {
    r = fz_message_decode(&message, root, &error);
    if (r == 0)
      handle(f, &message);
    /* What a newer freezerd may say besides does not concern us. */
    if (r == FZ_DECODE_UNKNOWN)
      r = 0;
    if (r > 0)
      (void)snprintf(why, sizeof(why), "%s", error.message);
  }
  fz_json_free(root);
  if (r == 0)
    return;
  fz_log(f, FREEZER_LOG_ERROR, "cannot understand freezerd: %s", r < 0 ? freezer_strerror(r) : why);
  give_up_for_now(f);
}

static void receive(freezer_t *f) {
  struct fz_link *link = &f->link;
  for (int i = 0; i < RECEIVES_PER_TICK && link->fd >= 0; i++) {
    const int r = fz_line_reader_receive(&link->reader, link->fd);
    char *line;
    size_t length;
    int next;
    while (link->fd >= 0 && (next = fz_line_reader_next(&link->reader, &line, &length)) != FZ_LINE_NONE) {
      if (next == FZ_LINE_TOO_LONG) {
        fz_log(f, FREEZER_LOG_ERROR, "freezerd sent a line without end");
        give_up_for_now(f);
        return;
      }
      on_line(f, line, length);
    }
    if (r == FZ_IO_AGAIN || link->fd < 0)
      return;
    if (r != 0) {
      lose(f, r == FZ_IO_CLOSED ? -ECONNRESET : r);
      return;
    }
  }
}

/* ------------------------------------------------------------------------------------------------------ the machine */

static void begin(freezer_t *f, int64_t now_ms) {
  struct fz_link *link = &f->link;
  fz_socket_search search = link->places;
  int fd = -1;
  link->retry_at_ms = now_ms + RETRY_MS;
  if (fz_socket_connect(&search, 0, &fd) != 0)
    return;
  struct fz_peer peer;
  if (fz_peer_get(fd, &peer) < 0) {
    (void)close(fd);
    return;
  }
  (void)snprintf(link->path, sizeof(link->path), "%s", fz_socket_connected(&search)->path);
  link->fd = fd;
  link->peer_uid = peer.uid;
  link->state = FZ_LINK_HELLO;
  link->poll_at_ms = now_ms;
  if (!push_hello(f)) {
    fz_log(f, FREEZER_LOG_ERROR, "cannot greet freezerd: out of memory, or the rules are too long");
    give_up_for_now(f);
    return;
  }
  (void)fz_link_flush(f);
}

void fz_link_tick(freezer_t *f, int64_t now_ms) {
  struct fz_link *link = &f->link;
  if (link->state == FZ_LINK_OFF)
    return;
  if (link->state == FZ_LINK_DOWN && now_ms >= link->retry_at_ms)
    begin(f, now_ms);
  if (link->state == FZ_LINK_DOWN)
    return;
  if (now_ms >= link->poll_at_ms) {
    receive(f);
    link->poll_at_ms = now_ms + (link->state == FZ_LINK_READY ? POLL_MS : 0);
  }
  if (link->state == FZ_LINK_PARAMS)
    send_params(f);
  (void)fz_link_flush(f);
  fz_events_flush(f, now_ms);
}

/* The ranks do not train the same parameters: there will be no plan, whoever waits for it. */
static bool is_at_odds(const freezer_t *f) {
  return f->identity.world > 1 && strcmp(f->link.last_error, fz_code_name(FZ_CODE_LAYOUT_MISMATCH)) == 0;
}

int fz_link_wait(freezer_t *f) {
  struct fz_link *link = &f->link;
  const int64_t end = fz_now_ms() + f->attach_timeout_ms;
  bool connected = link->state != FZ_LINK_DOWN;
  link->last_error[0] = '\0';
  for (;;) {
    const int64_t now = fz_now_ms();
    link->poll_at_ms = 0;
    link->refused = false;
    if (!connected)
      link->retry_at_ms = 0;
    fz_link_tick(f, now);
    if (link->state == FZ_LINK_READY && fz_holds_has_plan(f))
      return 0;
    if (is_at_odds(f))
      return -EPROTOTYPE;
    if (link->refused)
      return -ECONNREFUSED;
    if (link->state == FZ_LINK_DOWN || link->state == FZ_LINK_OFF)
      return -ENOTCONN;
    connected = true;
    if (now >= end)
      return -ETIMEDOUT;
    /* The first plan is told by the gate, not by the socket: a millisecond at a time. */
    const bool sends = fz_output_pending(&link->output) > 0 || link->state == FZ_LINK_PARAMS;
    struct pollfd waits = { .fd = link->fd, .events = (short)(POLLIN | (sends ? POLLOUT : 0)) };
    (void)poll(&waits, 1, link->state == FZ_LINK_READY ? 1 : (int)(end - now));
  }
}

void fz_link_rewind(freezer_t *f, bool held) {
  struct fz_link *link = &f->link;
  f->events.applied_unsent = f->events.step_unsent = f->events.epoch_unsent = false;
  f->events.epoch_step = FZ_TIME_NEVER;
  /* Owed until another segment comes: the connection may end before freezerd has read it. */
  link->owes_rewind = held;
  if (link->state != FZ_LINK_READY)
    return;
  if (push_rewind(f))
    (void)fz_link_flush(f);
  else
    give_up_for_now(f);
}

void fz_link_close(freezer_t *f) {
  struct fz_link *link = &f->link;
  if (link->state == FZ_LINK_READY) {
    const fz_message message = { .type = FZ_MESSAGE_BYE };
    f->events.step_at_ms = f->events.metrics_at_ms = 0; /* the last values do not wait for their turn */
    fz_events_flush(f, fz_now_ms());
    if (link->fd >= 0 && fz_link_push(f, &message))
      (void)fz_link_flush(f);
  }
  if (link->fd >= 0)
    (void)close(link->fd);
  link->fd = -1;
  link->state = FZ_LINK_OFF;
}
