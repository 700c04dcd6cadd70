/* bench_event.c - a step event, from freezer_batch_begin() into the socket, against a bare send of the same bytes. */
#include "config.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "protocol/json.h"
#include "protocol/lines.h"
#include "protocol/message.h"
#include "protocol/params.h"
#include "protocol/segment.h"
#include "protocol/writer.h"
#include "tests/bench/bench.h"

/* Less than a socket buffer holds, so that no send meets a full one. */
enum { BURST = 100, TEXT_MAX = 256 };

/* What the sink, a process that plays freezerd and asks for every step, tells the trainer. */
struct sink {
  _Atomic uint64_t events;     /* step events received */
  _Atomic uint64_t bare_bytes; /* bytes received on the bare connection */
  size_t length;
  char text[TEXT_MAX]; /* a step event, with its newline */
};

/* --- the sink --- */

struct connection {
  int fd;
  fz_line_reader reader;
  fz_output output;
  fz_segment *segment;
  bool subscribed;
};

static void say(struct connection *connection, const fz_message *message, int pass_fd) {
  fz_json_writer writer = FZ_JSON_WRITER_NULL;
  const char *line;
  size_t length;
  fz_message_encode(&writer, message);
  bench_require(fz_writer_line(&writer, &line, &length) < 0, "encode");
  const int r = pass_fd < 0 ? fz_output_push(&connection->output, line, length)
                            : fz_output_push_fd(&connection->output, line, length, pass_fd, false);
  bench_require(r < 0, "queue");
  bench_require(fz_output_flush(&connection->output, connection->fd) != 0, "send");
  fz_writer_deinit(&writer);
}

static void make_segment(struct connection *connection, const char *name) {
  fz_segment_info info = { .incarnation = 1, .daemon_pid = (uint64_t)getpid(), .world = 1 };
  strcpy(info.run, "bench-event");
  fz_run_key("bench", "bench-event", info.run_key);
  strcpy(info.job, "bench");
  fz_boot_id(info.boot_id);
  fz_params *params = NULL;
  bench_require(fz_params_new(&params) < 0, "parameters");
  bench_require(fz_params_add(params, "p.0", 3, 1000, true, NULL, NULL) < 0, "parameters");
  bench_require(fz_params_seal(params, NULL) < 0, "parameters");
  errno = -fz_segment_create(&connection->segment, name, &info, params);
  bench_require(errno, "segment");
  fz_segment_unlink(name);
  fz_params_unref(params);
}

static void welcome(struct connection *connection) {
  char name[64];
  snprintf(name, sizeof(name), "/freezer.bench.%ld", (long)getpid());
  make_segment(connection, name);
  const fz_message message = { .type = FZ_MESSAGE_WELCOME,
                               .welcome = { .protocol = FZ_PROTOCOL_VERSION,
                                            .server = "bench",
                                            .run = "bench-event",
                                            .incarnation = 1,
                                            .segment = name,
                                            .size = fz_segment_size(connection->segment) } };
  say(connection, &message, fz_segment_fd(connection->segment));
}

static void subscribe(struct connection *connection) {
  const fz_message message = { .type = FZ_MESSAGE_SUBSCRIBE,
                               .subscribe = { .step_every_ms = 0, .metric_every_ms = 0, .at_step = FZ_TIME_NEVER } };
  say(connection, &message, -1);
  connection->subscribed = true;
}

/* Counts a step event, and keeps the text of the last one: the longest so far, since steps grow. */
static void count_event(struct sink *sink, const char *line, size_t length) {
  if (length + 1 < TEXT_MAX) {
    memcpy(sink->text, line, length);
    sink->text[length] = '\n';
    sink->length = length + 1;
  }
  atomic_fetch_add(&sink->events, 1);
}

static void answer(struct sink *sink, struct connection *connection, const char *line, size_t length) {
  static const char step[] = "{\"type\":\"step\"";
  if (strncmp(line, step, strlen(step)) == 0) {
    count_event(sink, line, length);
    return;
  }
  fz_json *root;
  fz_message message;
  fz_field_error error;
  char why[256];
  bench_require(fz_json_parse(&root, line, length, why, sizeof(why)) != 0, why);
  bench_require(fz_message_decode(&message, root, &error) != 0, error.message);
  const fz_message need = { .type = FZ_MESSAGE_NEED, .need = { .what = "params" } };
  if (message.type == FZ_MESSAGE_HELLO)
    say(connection, &need, -1);
  else if (message.type == FZ_MESSAGE_PARAMS)
    welcome(connection);
  else if (message.type == FZ_MESSAGE_READY)
    subscribe(connection);
  fz_json_free(root);
}

static void drain_events(struct sink *sink, struct connection *connection) {
  int r;
  do {
    char *line;
    size_t length;
    r = fz_line_reader_receive(&connection->reader, connection->fd);
    while (fz_line_reader_next(&connection->reader, &line, &length) == 0)
      answer(sink, connection, line, length);
  } while (r == 0);
  bench_require(r != FZ_IO_AGAIN && r != FZ_IO_CLOSED, "receive");
}

static void drain_bare(struct sink *sink, int fd) {
  static char bytes[65536];
  ssize_t n;
  while ((n = recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT)) > 0)
    atomic_fetch_add(&sink->bare_bytes, (uint64_t)n);
}

/*
 * Serves the trainer's connection and the bare one. Once it has subscribed it reads only when the bell rings: a reader
 * that sleeps in the socket would be woken by each send, which costs more than all that is measured here.
 */
static void run_sink(struct sink *sink, int listener, int bare, int bell) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  struct connection connection = { .fd = accept(listener, NULL, NULL) };
  bench_require(connection.fd < 0, "accept");
  struct pollfd fds[2] = { { .fd = bell, .events = POLLIN }, { .fd = connection.fd, .events = POLLIN } };
  char rings[64];
  while (poll(fds, connection.subscribed ? 1 : 2, -1) > 0) {
    if (fds[0].revents && recv(bell, rings, sizeof(rings), 0) <= 0)
      break;
    drain_events(sink, &connection);
    drain_bare(sink, bare);
  }
  _exit(0);
}

/* --- the trainer --- */

struct subject {
  freezer_t *f;
  uint64_t step;
  int bare, bell;
  struct sink *sink;
};

static void ring(const struct subject *subject) { bench_require(write(subject->bell, "!", 1) != 1, "bell"); }

static void events(void *user, unsigned n) {
  struct subject *subject = user;
  while (n--)
    (void)freezer_batch_begin(subject->f, ++subject->step, 0);
}

static void bare_sends(void *user, unsigned n) {
  struct subject *subject = user;
  while (n--)
    bench_require(send(subject->bare, subject->sink->text, subject->sink->length, MSG_NOSIGNAL | MSG_DONTWAIT) < 0,
                  "bare send");
}

/* One burst, timed, then waits until the sink has read it. */
static double burst_of_events(struct subject *subject) {
  const uint64_t before = atomic_load(&subject->sink->events), begin = bench_now();
  events(subject, BURST);
  const double ns = (double)(bench_now() - begin) / BURST;
  ring(subject);
  while (atomic_load(&subject->sink->events) < before + BURST)
    sched_yield();
  return ns;
}

static double burst_of_sends(struct subject *subject) {
  const uint64_t before = atomic_load(&subject->sink->bare_bytes), begin = bench_now();
  bare_sends(subject, BURST);
  const double ns = (double)(bench_now() - begin) / BURST;
  ring(subject);
  while (atomic_load(&subject->sink->bare_bytes) < before + BURST * subject->sink->length)
    sched_yield();
  return ns;
}

static struct bench_result compare(struct subject *subject) {
  enum { ROUNDS = 401 };
  static double ours[ROUNDS], theirs[ROUNDS];
  for (int round = -20; round < ROUNDS; round++) {
    const int slot = round < 0 ? 0 : round;
    ours[slot] = burst_of_events(subject);
    theirs[slot] = burst_of_sends(subject);
  }
  return bench_compare(ours, theirs, ROUNDS);
}

static int listen_at(struct sockaddr_un *address) {
  char folder[] = "/tmp/fzXXXXXX";
  bench_require(!mkdtemp(folder), "mkdtemp");
  *address = (struct sockaddr_un){ .sun_family = AF_UNIX };
  snprintf(address->sun_path, sizeof(address->sun_path), "%s/s", folder);
  const int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  bench_require(listener < 0 || bind(listener, (struct sockaddr *)address, sizeof(*address)) < 0, "bind");
  bench_require(listen(listener, 4) < 0, "listen");
  return listener;
}

static void remove_socket(struct sockaddr_un *address) {
  unlink(address->sun_path);
  *strrchr(address->sun_path, '/') = '\0';
  rmdir(address->sun_path);
}

int main(void) {
  struct sockaddr_un address;
  int pair[2], bell[2];
  struct sink *sink = bench_shared(sizeof(*sink));
  const int listener = listen_at(&address);
  bench_require(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0, "socketpair");
  bench_require(socketpair(AF_UNIX, SOCK_STREAM, 0, bell) < 0, "socketpair");
  const pid_t child = fork();
  bench_require(child < 0, "fork");
  if (child == 0)
    run_sink(sink, listener, pair[1], bell[1]);

  freezer_options_t options = FREEZER_OPTIONS_INIT;
  options.socket = address.sun_path;
  options.run = "bench-event";
  options.attach_timeout_ms = 0;
  struct subject subject = { .f = bench_open(&options, 1), .bare = pair[0], .bell = bell[0], .sink = sink };
  /* Steps of six digits from the first event on: all events are of one length. */
  subject.step = 100000;
  const uint64_t deadline = bench_now() + 20000000000U;
  while (atomic_load(&sink->events) == 0 && bench_now() < deadline) {
    events(&subject, 1);
    ring(&subject);
    usleep(1000);
  }
  remove_socket(&address);
  errno = ETIMEDOUT;
  bench_require(atomic_load(&sink->events) == 0, "no step event came");
  const struct bench_result result = compare(&subject);
  bench_row("a step event", "send of the same bytes", &result, 1.5);
  freezer_close(subject.f);
  close(pair[0]);
  kill(child, SIGKILL);
  waitpid(child, NULL, 0);
  return 0;
}
