/*
 * bench_change.c - from a request on the control socket to the new mask in a trainer, against an echo through libuv; or,
 * with the name of a file to write, against what a line in that file takes until it is on disk.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include <uv.h>

#include "tests/bench/bench.h"

enum { N_PARAMS = 1000, ROUNDS = 401 };
/* About the line that freezerd keeps of such a change. */
enum { LINE_BYTES = 1024 };

/* What the trainer tells. */
struct seen {
  _Atomic int attached;
  _Atomic int stop;
  _Atomic uint64_t flipped_at; /* when it saw the mask change, 0: not since it was reset */
};

/* --- a trainer that does nothing but begin batches --- */

static void run_trainer(struct seen *seen) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  bench_pin(1);
  freezer_options_t options = FREEZER_OPTIONS_INIT;
  options.run = "bench-change";
  freezer_t *f = bench_open(&options, N_PARAMS);
  uint64_t step = 0;
  while (!atomic_load_explicit(&seen->stop, memory_order_relaxed)) {
    if (freezer_batch_begin(f, step++, 0) == 1 && freezer_generation(f) > 1)
      atomic_store(&seen->flipped_at, bench_now());
    if (step == 1)
      atomic_store(&seen->attached, freezer_generation(f) > 0 ? 1 : -1);
  }
  freezer_close(f);
  _exit(0);
}

/* --- an echo --- */

struct echo {
  uv_write_t request;
  char bytes[4096];
};

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer) {
  (void)suggested;
  struct echo *echo = handle->data;
  *buffer = uv_buf_init(echo->bytes, sizeof(echo->bytes));
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buffer) {
  struct echo *echo = stream->data;
  if (n < 0)
    uv_stop(stream->loop);
  if (n <= 0)
    return;
  const uv_buf_t out = uv_buf_init(buffer->base, (unsigned)n);
  uv_write(&echo->request, stream, &out, 1, NULL);
}

static void run_echo(int fd) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  uv_loop_t loop;
  uv_pipe_t pipe;
  struct echo echo;
  bench_require(uv_loop_init(&loop) < 0 || uv_pipe_init(&loop, &pipe, 0) < 0 || uv_pipe_open(&pipe, fd) < 0, "libuv");
  pipe.data = &echo;
  bench_require(uv_read_start((uv_stream_t *)&pipe, on_alloc, on_read) < 0, "libuv");
  uv_run(&loop, UV_RUN_DEFAULT);
  _exit(0);
}

/* --- the client of both --- */

static int connect_to(const char *path) {
  struct sockaddr_un address = { .sun_family = AF_UNIX };
  bench_require(strlen(path) >= sizeof(address.sun_path), "FREEZER_SOCKET");
  strcpy(address.sun_path, path);
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  bench_require(fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0, path);
  return fd;
}

static void write_line(int fd, const char *line) {
  bench_require(send(fd, line, strlen(line), MSG_NOSIGNAL) != (ssize_t)strlen(line), "send");
}

/* Reads to the end of a line, into `line`. */
static void read_line(int fd, char *line, size_t size) {
  size_t length = 0;
  do {
    const ssize_t n = recv(fd, line + length, size - 1 - length, 0);
    bench_require(n <= 0, "recv");
    length += (size_t)n;
  } while (line[length - 1] != '\n');
  line[length] = '\0';
}

static void request_line(char *line, size_t size, int round) {
  snprintf(line, size, "{\"id\":%d,\"protocol\":1,\"op\":\"%s\",\"run\":\"bench-change\",\"patterns\":[\"p.7\"]}\n",
           round + 1, round % 2 ? "auto" : "freeze");
}

static double one_change(int control, struct seen *seen, int round) {
  char line[65536];
  request_line(line, sizeof(line), round);
  atomic_store(&seen->flipped_at, 0);
  const uint64_t begin = bench_now();
  write_line(control, line);
  read_line(control, line, sizeof(line));
  bench_require(!strstr(line, "\"ok\":true"), line);
  uint64_t flipped;
  while ((flipped = atomic_load(&seen->flipped_at)) == 0)
    bench_require(bench_now() - begin > 10000000000U, "the mask did not change");
  return (double)(flipped - begin);
}

static double one_echo(int fd, int round) {
  char line[65536];
  request_line(line, sizeof(line), round);
  const uint64_t begin = bench_now();
  write_line(fd, line);
  read_line(fd, line, sizeof(line));
  return (double)(bench_now() - begin);
}

static double one_line(int fd) {
  static const char line[LINE_BYTES];
  const uint64_t begin = bench_now();
  bench_require(write(fd, line, sizeof(line)) != (ssize_t)sizeof(line) || fdatasync(fd) < 0, "the file");
  return (double)(bench_now() - begin);
}

static pid_t start(void (*run)(void *), void *user) {
  const pid_t child = fork();
  bench_require(child < 0, "fork");
  if (child == 0)
    run(user);
  return child;
}

static void trainer_main(void *user) { run_trainer(user); }
static void echo_main(void *user) { run_echo(*(int *)user); }

static void compare_with_echo(int control, struct seen *seen) {
  static double ours[ROUNDS], theirs[ROUNDS];
  int pair[2];
  bench_require(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0, "socketpair");
  const pid_t echo = start(echo_main, &pair[1]);
  for (int round = -20; round < ROUNDS; round++) {
    const int slot = round < 0 ? 0 : round;
    ours[slot] = one_change(control, seen, round + 20);
    theirs[slot] = one_echo(pair[0], round + 20);
  }
  const struct bench_result result = bench_compare(ours, theirs, ROUNDS);
  bench_row("live change, request to mask", "libuv echo of the request", &result, 3);
  kill(echo, SIGKILL);
  waitpid(echo, NULL, 0);
}

static void compare_with_disk(int control, struct seen *seen, const char *path) {
  static double ours[ROUNDS], theirs[ROUNDS];
  const int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
  bench_require(fd < 0, path);
  for (int round = -20; round < ROUNDS; round++) {
    const int slot = round < 0 ? 0 : round;
    ours[slot] = one_change(control, seen, round + 20);
    theirs[slot] = one_line(fd);
  }
  const struct bench_result result = bench_compare(ours, theirs, ROUNDS);
  bench_row("durable live change, request to mask", "write and fdatasync of a line", &result, 1.5);
  close(fd);
}

int main(int argc, char **argv) {
  struct seen *seen = bench_shared(sizeof(*seen));
  bench_require(!getenv("FREEZER_SOCKET"), "FREEZER_SOCKET is not set");
  /* The trainer has a processor to itself; run.py keeps freezerd on the one of this process and the echo. */
  const pid_t trainer = start(trainer_main, seen);
  bench_pin(0);
  while (atomic_load(&seen->attached) == 0)
    usleep(1000);
  bench_require(atomic_load(&seen->attached) < 0, "the trainer has no plan");

  const int control = connect_to(getenv("FREEZER_SOCKET"));
  if (argc > 1)
    compare_with_disk(control, seen, argv[1]);
  else
    compare_with_echo(control, seen);
  atomic_store(&seen->stop, 1);
  close(control);
  waitpid(trainer, NULL, 0);
  return 0;
}
