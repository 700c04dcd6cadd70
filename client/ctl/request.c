/* request.c - talking to freezerd: connect, ask, wait no longer than makes sense, collect the answer. */
#include "config.h"

#include <errno.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "client/ctl/errors.h"
#include "client/ctl/human.h"
#include "client/ctl/request.h"
#include "client/ctl/verbs.h"
#include "protocol/lines.h"
#include "protocol/sockpath.h"

struct fz_conn {
  const fz_ctl *ctl;
  int fd;
  fz_socket_search search;
  fz_line_reader reader;
  fz_json_writer request;
  uint64_t id;
  enum fz_op op;
  uint64_t wait_ms; /* what the last fz_conn_set_wait() said */
  double deadline;  /* on the monotonic clock; 0: none */
  bool dry;         /* the request changes nothing */
  bool accepted;    /* the change was acknowledged */
  bool has_gen;     /* and accepted_gen is known */
  uint64_t accepted_gen;
};

static volatile sig_atomic_t interrupted;

static void on_interrupt(int signal_number) {
  (void)signal_number;
  interrupted = 1;
}

/* The signal is let in only while ppoll() waits, so that none can slip in between looking and waiting. */
static void catch_interrupt(void) {
  struct sigaction action = { .sa_handler = on_interrupt };
  sigset_t set;

  sigemptyset(&action.sa_mask);
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigprocmask(SIG_BLOCK, &set, NULL);
  sigaction(SIGINT, &action, NULL);
}

/* --- connecting --- */

static const char *state_code(const fz_socket_search *search) {
  const char *code = "no_daemon";
  for (size_t i = 0; i < search->count; i++) {
    if (search->candidates[i].state == FZ_SOCKET_DENIED)
      return "permission";
    if (search->candidates[i].state == FZ_SOCKET_BUSY)
      code = "no_answer";
  }
  return code;
}

static int say_no_daemon(const fz_ctl *ctl, const fz_socket_search *search) {
  const char *code = state_code(search);
  const char *sentence = "no freezerd is running";
  const char *hint = "'systemctl --user start freezerd', or 'freezerctl run -- python train.py'";
  char *lines = NULL;
  size_t size = 0, widest = 0;
  FILE *out = open_memstream(&lines, &size);

  if (!out)
    return fz_fail_memory(ctl);
  if (strcmp(code, "permission") == 0) {
    sentence = "no permission to talk to freezerd";
    hint = "freezerd serves its own user, root, and the group of --socket-group";
  } else if (strcmp(code, "no_answer") == 0) {
    sentence = "freezerd does not answer";
    hint = "it is stopped or overloaded; a training run goes on without it";
  }
  for (size_t i = 0; i < search->count; i++)
    if (strlen(search->candidates[i].path) > widest)
      widest = strlen(search->candidates[i].path);
  for (size_t i = 0; i < search->count; i++)
    fprintf(out, "\n  tried %-*s  %s", (int)widest, search->candidates[i].path, search->candidates[i].reason);
  if (fclose(out) != 0) {
    free(lines);
    return fz_fail_memory(ctl);
  }
  const int status = fz_fail(ctl, code, hint, "%s%s", sentence, lines);
  free(lines);
  return status;
}

/* How long freezerd may be silent. --timeout says so unless the command has something else to wait for. */
static uint64_t answer_ms(const fz_ctl *ctl) {
  const bool waits = ctl->verb->options & (FZ_OPT_BIT(NO_WAIT) | FZ_OPT_BIT(CONDITION));
  return fz_given(&ctl->options, FZ_OPT_TIMEOUT) && !waits ? ctl->options.number[FZ_OPT_TIMEOUT] : FZ_ANSWER_MS;
}

static int connect_to(const fz_ctl *ctl, bool quiet, fz_conn **ret_conn) {
  fz_conn *conn = calloc(1, sizeof(*conn));
  if (!conn)
    return fz_fail_memory(ctl);
  conn->ctl = ctl;
  conn->fd = -1;
  conn->reader = (fz_line_reader)FZ_LINE_READER_NULL;
  conn->request = (fz_json_writer)FZ_JSON_WRITER_NULL;
  fz_socket_search_init(&conn->search, ctl->options.text[FZ_OPT_SOCKET]);
  const int r = fz_socket_connect(&conn->search, (unsigned)answer_ms(ctl), &conn->fd);
  if (r == 0) {
    catch_interrupt();
    *ret_conn = conn;
    return 0;
  }
  int status;
  if (quiet)
    status = r < 0 ? FZ_EXIT_FAILED : fz_exit_for(state_code(&conn->search));
  else if (r < 0)
    status = fz_fail(ctl, "failed", NULL, "cannot make a socket: %s", strerror(-r));
  else
    status = say_no_daemon(ctl, &conn->search);
  fz_conn_free(conn);
  return status;
}

int fz_conn_open(const fz_ctl *ctl, fz_conn **ret_conn) { return connect_to(ctl, false, ret_conn); }

int fz_conn_try(const fz_ctl *ctl, fz_conn **ret_conn) { return connect_to(ctl, true, ret_conn); }

fz_conn *fz_conn_free(fz_conn *conn) {
  if (!conn)
    return NULL;
  if (conn->fd >= 0)
    close(conn->fd);
  fz_line_reader_deinit(&conn->reader);
  fz_writer_deinit(&conn->request);
  free(conn);
  return NULL;
}

const char *fz_conn_path(const fz_conn *conn) {
  const struct fz_socket_candidate *candidate = fz_socket_connected(&conn->search);
  return candidate ? candidate->path : "";
}

/* --- asking --- */

const char *fz_run_wanted(const fz_ctl *ctl) {
  const char *run = ctl->options.text[FZ_OPT_RUN];
  if (!run)
    run = getenv("FREEZER_RUN");
  return run && *run ? run : NULL;
}

static void write_by(fz_json_writer *request) {
  char host[256] = "";
  const struct passwd *entry = getpwuid(getuid());
  const char *user = entry ? entry->pw_name : getenv("LOGNAME");

  if (gethostname(host, sizeof(host) - 1) != 0)
    host[0] = '\0';
  host[strcspn(host, ".")] = '\0';
  fz_write_begin_object(request, "by");
  if (user && *user)
    fz_write_string(request, "user", user);
  if (*host)
    fz_write_string(request, "host", host);
  fz_write_end_object(request);
}

fz_json_writer *fz_conn_begin_run(fz_conn *conn, enum fz_op op, const char *run) {
  conn->op = op;
  conn->dry = true;
  conn->accepted = conn->has_gen = false;
  conn->wait_ms = 0;
  fz_writer_reset(&conn->request);
  fz_request_begin(&conn->request, ++conn->id, op);
  if (run)
    fz_write_string(&conn->request, "run", run);
  write_by(&conn->request);
  if (fz_op_is_change(op))
    conn->dry = fz_given(&conn->ctl->options, FZ_OPT_DRY_RUN);
  return &conn->request;
}

fz_json_writer *fz_conn_begin(fz_conn *conn, enum fz_op op) {
  return fz_conn_begin_run(conn, op, fz_run_wanted(conn->ctl));
}

void fz_conn_write_patterns(fz_json_writer *request, const fz_ctl *ctl) {
  if (ctl->n_operands == 0)
    return;
  fz_write_begin_array(request, "patterns");
  for (size_t i = 0; i < ctl->n_operands; i++)
    fz_write_string(request, NULL, ctl->operands[i]);
  fz_write_end_array(request);
}

void fz_conn_set_wait(fz_conn *conn, uint64_t wait_ms) {
  fz_write_time(&conn->request, "wait_ms", wait_ms);
  conn->wait_ms = wait_ms;
}

/* --- waiting --- */

static int say_interrupted(const fz_conn *conn) {
  if (conn->op == FZ_OP_WATCH)
    return FZ_EXIT_INTERRUPTED; /* the way to end it */
  if (conn->dry)
    return fz_fail(conn->ctl, "interrupted", NULL, "interrupted");
  if (conn->accepted && conn->has_gen)
    return fz_fail(conn->ctl, "interrupted", "'freezerctl status' shows what is pending",
                   "interrupted; the change (gen %s) stays and may still be pending",
                   fz_number(conn->accepted_gen).text);
  return fz_fail(conn->ctl, "interrupted", "'freezerctl status' shows what is pending",
                 "interrupted; the change may still be pending");
}

static int say_silent(const fz_conn *conn) {
  return fz_fail(conn->ctl, "no_answer", conn->dry ? NULL : "the change may still be made, see 'freezerctl status'",
                 "freezerd at %s does not answer", fz_conn_path(conn));
}

static int say_gone(const fz_conn *conn, int error) {
  return fz_fail(
    conn->ctl, "daemon_gone", conn->dry ? NULL : "the change may have been made; the run keeps the plan that it has",
    "freezerd at %s closed the connection%s%s", fz_conn_path(conn), error ? ": " : "", error ? strerror(error) : "");
}

/* Waits until the socket is readable (or writable), the deadline passes or Ctrl-C comes. 0 or the exit status. */
static int wait_for(fz_conn *conn, short events) {
  struct pollfd poll_fd = { .fd = conn->fd, .events = events };
  sigset_t none;
  sigemptyset(&none);
  while (!interrupted) {
    const double left = conn->deadline - fz_now_ms();
    const double clipped = left < 0 ? 0 : left > 3.6e6 ? 3.6e6 : left;
    const struct timespec timeout = { .tv_sec = (time_t)(clipped / 1e3),
                                      .tv_nsec = (long)((clipped / 1e3 - (double)(time_t)(clipped / 1e3)) * 1e9) };
    const int n = ppoll(&poll_fd, 1, conn->deadline > 0 ? &timeout : NULL, &none);
    if (n > 0)
      return 0;
    if (n < 0 && errno != EINTR)
      return fz_fail(conn->ctl, "failed", NULL, "cannot wait for freezerd: %s", strerror(errno));
    if (n == 0 && conn->deadline > 0 && conn->deadline <= fz_now_ms())
      return say_silent(conn);
  }
  return say_interrupted(conn);
}

static int send_request(fz_conn *conn) {
  const char *line;
  size_t length;

  fz_write_end_object(&conn->request);
  const int r = fz_writer_line(&conn->request, &line, &length);
  if (r == -E2BIG)
    return fz_fail(conn->ctl, "usage", NULL, "the request is longer than %u bytes", FZ_LINE_MAX);
  if (r < 0)
    return fz_fail_memory(conn->ctl);
  while (length > 0) {
    size_t sent = 0;
    const int sending = fz_send(conn->fd, line, length, -1, &sent);
    if (sending == -EPIPE || sending == -ECONNRESET)
      return 0; /* what freezerd said before it closed is still there to be read */
    if (sending < 0)
      return say_gone(conn, -sending);
    if (sending == FZ_IO_AGAIN) {
      const int status = wait_for(conn, POLLOUT);
      if (status)
        return status;
    }
    line += sent;
    length -= sent;
  }
  return 0;
}

/* The next line as a value that the caller owns. 0 or the exit status. */
static int receive_line(fz_conn *conn, fz_json **ret_line) {
  char why[FZ_FIELD_MESSAGE_SIZE], *line;
  size_t length;

  for (;;) {
    int r = fz_line_reader_next(&conn->reader, &line, &length);
    if (r == 0) {
      r = fz_json_parse(ret_line, line, length, why, sizeof(why));
      if (r == 0)
        return 0;
      if (r < 0)
        return fz_fail_memory(conn->ctl);
      return fz_fail(conn->ctl, "failed", NULL, "freezerd at %s sent what is no answer: %s", fz_conn_path(conn), why);
    }
    if (r == FZ_LINE_TOO_LONG)
      return fz_fail(conn->ctl, "failed", NULL, "freezerd at %s sent a line that is too long", fz_conn_path(conn));
    r = fz_line_reader_receive(&conn->reader, conn->fd);
    if (r == FZ_IO_CLOSED)
      return say_gone(conn, 0);
    if (r < 0)
      return say_gone(conn, -r);
    if (r == FZ_IO_AGAIN) {
      const int status = wait_for(conn, POLLIN);
      if (status)
        return status;
    }
  }
}

/* An acknowledged change has its own time to reach the ranks. */
static void note_accepted(fz_conn *conn, const fz_json *part) {
  if (!fz_true_of(part, "accepted"))
    return;
  conn->accepted = true;
  conn->has_gen = fz_has_int(part, "gen", &conn->accepted_gen);
  conn->deadline = conn->wait_ms == FZ_TIME_NEVER ? 0 : fz_now_ms() + (double)conn->wait_ms + FZ_ANSWER_MS;
}

int fz_conn_call(fz_conn *conn, fz_answer *answer) {
  const double start = fz_now_ms();
  fz_json *line = NULL;

  conn->deadline = start + (double)answer_ms(conn->ctl);
  if (conn->op == FZ_OP_WAIT)
    conn->deadline = conn->wait_ms == FZ_TIME_NEVER ? 0 : start + (double)conn->wait_ms + FZ_ANSWER_MS;
  int status = send_request(conn);
  while (status == 0 && (status = receive_line(conn, &line)) == 0) {
    uint64_t id;
    if (fz_has_int(line, "id", &id) && id != conn->id) {
      fz_json_free(line);
      continue;
    }
    if (!fz_true_of(line, "part")) {
      answer->root = line;
      answer->took_ms = fz_now_ms() - start;
      return 0;
    }
    note_accepted(conn, line);
    if (fz_answer_add_part(answer, line) < 0) {
      fz_json_free(line);
      return fz_fail_memory(conn->ctl);
    }
  }
  return status;
}

int fz_conn_next_event(fz_conn *conn, fz_json **ret_line) {
  conn->deadline = 0;
  return receive_line(conn, ret_line);
}

int fz_ask(const fz_ctl *ctl, enum fz_op op, fz_answer *answer) {
  __attribute__((cleanup(fz_conn_freep))) fz_conn *conn = NULL;
  int status = fz_conn_open(ctl, &conn);
  if (status)
    return status;
  fz_conn_write_patterns(fz_conn_begin(conn, op), ctl);
  status = fz_conn_call(conn, answer);
  if (status)
    return status;
  return fz_answer_code(answer) ? fz_answer_fail(ctl, answer) : 0;
}
