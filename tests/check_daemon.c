/* check_daemon.c - the small parts of freezerd: options, log, timers, words for people, recent changes, runs by name. */
#include "config.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <uv.h>

#include "daemon/clock.h"
#include "daemon/core.h"
#include "daemon/log.h"
#include "daemon/options.h"
#include "daemon/recent.h"
#include "daemon/run.h"
#include "daemon/session.h"
#include "daemon/systemd.h"
#include "daemon/text.h"
#include "daemon/timers.h"
#include "tests/runner.h"

/* ---------------------------------------------------------------------------------------------------------- options */

static int parse(fz_options *options, char **ret_out, char **ret_err, int argc, char **argv) {
  size_t out_size, err_size;
  FILE *out = open_memstream(ret_out, &out_size), *err = open_memstream(ret_err, &err_size);

  ck_assert(out && err);
  const int r = fz_options_parse(argc, argv, out, err, options);
  fclose(out);
  fclose(err);
  return r;
}

#define PARSE(options, out, err, ...) \
  parse(options, out, err, (int)(sizeof((char *[]){ __VA_ARGS__ }) / sizeof(char *)), (char *[]){ __VA_ARGS__, NULL })

static char program[] = "freezerd";

START_TEST(options_all)
{
  char socket[] = "--socket=/s", state[] = "--state-dir", dir[] = "/d", rules[] = "--rules=r.yaml";
  char group[] = "--socket-group=4711", ro[] = "--socket-ro=/ro";
  char level[] = "--log-level=debug", form[] = "--log-format", json[] = "json", ready[] = "--ready-fd=7";
  char *out, *err;
  fz_options options;

  ck_assert_int_eq(PARSE(&options, &out, &err, program, socket, state, dir, rules, level, form, json, ready, group, ro),
                   0);
  ck_assert_str_eq(options.socket, "/s");
  ck_assert_str_eq(options.socket_ro, "/ro");
  ck_assert_uint_eq(options.group, 4711);
  ck_assert_str_eq(options.state_dir, "/d");
  ck_assert_str_eq(options.rules, "r.yaml");
  ck_assert_int_eq(options.log_level, FZ_LOG_DEBUG);
  ck_assert_int_eq(options.log_format, FZ_LOG_JSON);
  ck_assert_int_eq(options.ready_fd, 7);
  ck_assert_str_eq(out, "");
  ck_assert_str_eq(err, "");
  free(out);
  free(err);
}
END_TEST

START_TEST(options_environment)
{
  char state[] = "--state-dir=/other";
  char *out, *err;
  fz_options options;

  setenv("FREEZER_STATE_DIR", "none", 1);
  setenv("FREEZER_LOG", "error", 1);
  ck_assert_int_eq(PARSE(&options, &out, &err, program), 0);
  ck_assert(options.no_state && !options.state_dir);
  ck_assert_int_eq(options.log_level, FZ_LOG_ERROR);
  ck_assert_int_eq(options.ready_fd, -1);
  free(out);
  free(err);
  ck_assert_int_eq(PARSE(&options, &out, &err, program, state), 0);
  ck_assert(!options.no_state);
  ck_assert_str_eq(options.state_dir, "/other");
  free(out);
  free(err);
  setenv("FREEZER_LOG", "loud", 1);
  ck_assert_int_eq(PARSE(&options, &out, &err, program), FZ_OPTIONS_BAD);
  ck_assert_ptr_nonnull(strstr(err, "'loud'"));
  free(out);
  free(err);
}
END_TEST

static const char *const bad_options[] = { "--frob",
                                           "--log-level=loud",
                                           "--log-format=xml",
                                           "--ready-fd=-1",
                                           "--ready-fd=x",
                                           "--ready-fd=9z",
                                           "--socket=",
                                           "--state-dir=",
                                           "extra",
                                           "--log-level",
                                           "-x",
                                           "--ready-fd=99999999999" };

START_TEST(options_bad)
{
  char word[64], *out, *err;
  fz_options options = { .ready_fd = 42 };

  snprintf(word, sizeof(word), "%s", bad_options[_i]);
  ck_assert_msg(PARSE(&options, &out, &err, program, word) == FZ_OPTIONS_BAD, "%s", word);
  ck_assert_msg(strstr(err, "hint:") != NULL, "%s: %s", word, err);
  ck_assert_str_eq(out, "");
  ck_assert_int_eq(options.ready_fd, 42);
  free(out);
  free(err);
}
END_TEST

START_TEST(options_help)
{
  char help[] = "--help", version[] = "-V", *out, *err;
  fz_options options;

  ck_assert_int_eq(PARSE(&options, &out, &err, program, help), FZ_OPTIONS_HELP);
  ck_assert_ptr_nonnull(strstr(out, "--ready-fd"));
  free(out);
  free(err);
  ck_assert_int_eq(PARSE(&options, &out, &err, program, version), FZ_OPTIONS_HELP);
  ck_assert_str_eq(out, "freezerd " PACKAGE_VERSION "\n");
  free(out);
  free(err);
}
END_TEST

/* --------------------------------------------------------------------------------------------------------------- log */

/** What one entry looks like. */
static void logged(enum fz_log_format format, enum fz_log_level level, const struct fz_log_about *about,
                   const char *message, char *text, size_t size) {
  int ends[2];
  fz_log log;

  ck_assert_int_eq(pipe2(ends, O_NONBLOCK), 0);
  fz_log_init(&log, ends[1], FZ_LOG_INFO, format);
  fz_log_write(&log, level, about, "%s", message);
  const ssize_t n = read(ends[0], text, size - 1);
  text[n > 0 ? n : 0] = '\0';
  close(ends[0]);
  close(ends[1]);
}

START_TEST(log_forms)
{
  const struct fz_peer peer = { .pid = 12, .uid = 34, .gid = 56 };
  const struct fz_log_about *about = FZ_LOG_ABOUT(.event = "change", .run = "a\"b", .gen = 3, .peer = &peer);
  char text[4096];

  logged(FZ_LOG_HUMAN, FZ_LOG_NOTICE, about, "x\ny\033[1m", text, sizeof(text));
  ck_assert_ptr_nonnull(strstr(text, "Z notice a\"b: x?y?[1m\n"));
  logged(FZ_LOG_JOURNAL, FZ_LOG_WARNING, about, "hello", text, sizeof(text));
  ck_assert_str_eq(text, "<4>a\"b: hello\n");
  logged(FZ_LOG_JSON, FZ_LOG_ERROR, about, "x\ny", text, sizeof(text));
  ck_assert_ptr_nonnull(strstr(text,
                               "\"level\":\"error\",\"event\":\"change\",\"msg\":\"x\\u000ay\",\"run\":\"a\\\"b\","
                               "\"gen\":3,\"uid\":34,\"pid\":12}\n"));
  logged(FZ_LOG_HUMAN, FZ_LOG_DEBUG, about, "quiet", text, sizeof(text));
  ck_assert_str_eq(text, "");
  logged(FZ_LOG_AUTO, FZ_LOG_INFO, FZ_LOG_ABOUT(.event = "daemon"), "plain", text, sizeof(text));
  ck_assert_ptr_nonnull(strstr(text, "Z info daemon: plain\n"));
}
END_TEST

START_TEST(log_long)
{
  static char message[10000], text[32768];

  memset(message, '\001', sizeof(message) - 1);
  logged(FZ_LOG_JSON, FZ_LOG_ERROR, FZ_LOG_ABOUT(.event = "x"), message, text, sizeof(text));
  ck_assert_uint_gt(strlen(text), 6 * 2000);
  ck_assert_str_eq(text + strlen(text) - 3, "\"}\n");
}
END_TEST

/* ------------------------------------------------------------------------------------------------------------- timers */

static int fired[3], n_fired;
static fz_timers timers;

struct counted {
  fz_timer timer;
  int number;
  int again; /* how often it starts itself once more */
  fz_timer *stops;
};

static void fire(fz_timer *timer) {
  struct counted *counted = (struct counted *)timer;

  fired[counted->number]++;
  n_fired++;
  if (counted->stops)
    fz_timer_stop(&timers, counted->stops);
  if (counted->again-- > 0)
    fz_timer_start(&timers, timer, 0);
}

START_TEST(timers_order)
{
  struct counted one = { .timer.fire = fire, .number = 0 }, two = { .timer.fire = fire, .number = 1 };
  struct counted three = { .timer.fire = fire, .number = 2 };

  ck_assert_uint_eq(fz_timers_delay(&timers), UINT64_MAX);
  fz_timer_start(&timers, &one.timer, 100000);
  fz_timer_start(&timers, &two.timer, 0);
  fz_timer_start(&timers, &three.timer, 50000);
  ck_assert_ptr_eq(timers.first, &two.timer);
  ck_assert_ptr_eq(timers.first->next, &three.timer);
  ck_assert_uint_eq(fz_timers_delay(&timers), 0);
  fz_timers_run(&timers);
  ck_assert_int_eq(fired[1], 1);
  ck_assert_int_eq(n_fired, 1);
  ck_assert_uint_gt(fz_timers_delay(&timers), 40000);
  fz_timer_start(&timers, &one.timer, 10);
  ck_assert_ptr_eq(timers.first, &one.timer);
  fz_timer_stop(&timers, &one.timer);
  fz_timer_stop(&timers, &one.timer);
  fz_timer_stop(&timers, &three.timer);
  ck_assert_ptr_null(timers.first);
}
END_TEST

START_TEST(timers_within_callbacks)
{
  struct counted one = { .timer.fire = fire, .number = 0, .again = 5 };
  struct counted two = { .timer.fire = fire, .number = 1 }, three = { .timer.fire = fire, .number = 2 };

  two.stops = &three.timer;
  fz_timer_start(&timers, &one.timer, 0);
  fz_timer_start(&timers, &two.timer, 0);
  fz_timer_start(&timers, &three.timer, 0);
  for (int i = 0; i < 20 && timers.first; i++)
    fz_timers_run(&timers);
  ck_assert_int_eq(fired[0], 6);
  ck_assert_int_eq(fired[1], 1);
  ck_assert_int_eq(fired[2], 0);
}
END_TEST

/* --------------------------------------------------------------------------------------------------------------- words */

START_TEST(words)
{
  char buffer[FZ_COUNT_SIZE], time[FZ_UTC_SIZE];
  char a[] = "model.layers.3", b[] = "re:^a'b$", empty[] = "";
  char *const arguments[] = { a, b, empty };
  char *text;

  ck_assert_str_eq(fz_text_elements(0, buffer), "0");
  ck_assert_str_eq(fz_text_elements(999, buffer), "999");
  ck_assert_str_eq(fz_text_elements(7087872, buffer), "7.1M");
  ck_assert_str_eq(fz_text_elements(999999, buffer), "1.0M");
  ck_assert_str_eq(fz_text_elements(UINT64_MAX, buffer), "18446.7P");
  ck_assert_str_eq(fz_text_number(0, buffer), "0");
  ck_assert_str_eq(fz_text_number(999, buffer), "999");
  ck_assert_str_eq(fz_text_number(1000, buffer), "1,000");
  ck_assert_str_eq(fz_text_number(UINT64_MAX, buffer), "18,446,744,073,709,551,615");
  fz_clock_format(UINT64_C(1767967355123), time);
  ck_assert_str_eq(time, "2026-01-09T14:02:35.123Z");
  text = fz_text_command("freezerctl auto", arguments, 3);
  ck_assert_str_eq(text, "freezerctl auto model.layers.3 're:^a'\\''b$' ''");
  free(text);
}
END_TEST

START_TEST(a_long_command_is_not_written_out)
{
  char *name = malloc(3001);
  ck_assert_ptr_nonnull(name);
  memset(name, 'x', 3000);
  name[3000] = '\0';
  char *text = fz_text_command("freezerctl auto", &name, 1);
  ck_assert_str_eq(text, "freezerctl auto PATTERN...");
  free(text);
  free(name);
}
END_TEST

/* -------------------------------------------------------------------------------------------------------------- recent */

START_TEST(recent_ring)
{
  struct fz_recent recent = { 0 };
  fz_json_writer writer = FZ_JSON_WRITER_NULL;
  const char *line;
  size_t length;

  for (uint64_t gen = 1; gen <= FZ_RECENT_MAX + 3; gen++) {
    const struct fz_recent_entry entry = {
      .incarnation = 1 + gen / 10, .gen = gen, .step = 5, .action = "freeze", .text = fz_text_format("gen %d", (int)gen)
    };
    fz_recent_add(&recent, &entry);
  }
  ck_assert_uint_eq(recent.n, FZ_RECENT_MAX);
  fz_recent_settle(&recent, 2, 12, 777);
  fz_recent_settle(&recent, 1, 13, 888); /* that gen was of another incarnation */
  fz_write_begin_object(&writer, NULL);
  fz_recent_write(&recent, &writer);
  fz_write_end_object(&writer);
  ck_assert_int_eq(fz_writer_line(&writer, &line, &length), 0);
  ck_assert_ptr_nonnull(strstr(line, "\"gen\":12,\"step\":777"));
  ck_assert_ptr_null(strstr(line, "888"));
  ck_assert_ptr_null(strstr(line, "\"gen 3\""));
  ck_assert_ptr_nonnull(strstr(line, "\"gen 4\""));
  ck_assert(strstr(line, "\"gen 19\"") < strstr(line, "\"gen 18\""));
  fz_writer_deinit(&writer);
  fz_recent_deinit(&recent);
}
END_TEST

/* ---------------------------------------------------------------------------------------------------------------- runs */

START_TEST(runs_are_bounded)
{
  fz_core core = FZ_CORE_NULL;
  fz_run *run = NULL, *first = NULL;
  char name[32];

  fz_log_init(&core.log, STDERR_FILENO, FZ_LOG_ERROR, FZ_LOG_HUMAN);
  ck_assert_int_eq(fz_core_init(&core, "/nowhere", NULL), 0);
  for (unsigned i = 0; i < FZ_RUNS_MAX; i++) {
    snprintf(name, sizeof(name), "run%u", i);
    ck_assert_int_eq(fz_core_add(&core, name, name, &run), 0);
    run->idle_ms = i == 7 ? 0 : i + 1;
  }
  ck_assert_int_eq(fz_core_add(&core, "one more", "one more", &first), 0);
  ck_assert_uint_eq(core.n_runs, FZ_RUNS_MAX);
  ck_assert_ptr_null(fz_core_find(&core, "run7"));
  ck_assert_ptr_eq(fz_core_find(&core, "one more"), first);
  ck_assert_ptr_nonnull(fz_core_find(&core, "run0"));
  fz_core_deinit(&core);
}
END_TEST

/** Names until the table takes so much. */
static void fill(fz_params *params, size_t bytes) {
  char name[FZ_PARAM_NAME_MAX];
  int r = 0;

  memset(name, 'x', sizeof(name));
  while (r == 0 && fz_params_memory(params) < bytes)
    r = fz_params_add(params, name, sizeof(name), 1, true, NULL, NULL);
  ck_assert_int_eq(r, 0);
}

START_TEST(ended_runs_are_bounded_by_their_tables)
{
  enum { RUNS = 5, LEFT = 2 };
  fz_core core = FZ_CORE_NULL;
  fz_params *params = NULL;
  fz_run *run = NULL;
  char name[32];

  fz_log_init(&core.log, STDERR_FILENO, FZ_LOG_ERROR, FZ_LOG_HUMAN);
  ck_assert_int_eq(fz_core_init(&core, "/nowhere", NULL), 0);
  ck_assert_int_eq(fz_params_new(&params), 0);
  fill(params, FZ_ENDED_BYTES_MAX / (LEFT + 1) + 1);
  for (int i = 0; i < RUNS; i++) {
    snprintf(name, sizeof(name), "run%d", i);
    ck_assert_int_eq(fz_core_add(&core, name, name, &run), 0);
    run->idle_ms = (uint64_t)(RUNS - i);
    run->params = fz_params_ref(params); /* each counts, though here all are one */
  }
  ck_assert_int_eq(fz_core_add(&core, "empty", "empty", &run), 0);
  run->idle_ms = 0;
  fz_core_run_ended(&core);
  ck_assert_uint_eq(core.n_runs, RUNS + 1);
  fz_timers_run(&core.timers);
  ck_assert_uint_eq(core.n_runs, LEFT + 1);
  ck_assert_ptr_nonnull(fz_core_find(&core, "run0"));
  ck_assert_ptr_nonnull(fz_core_find(&core, "run1"));
  ck_assert_ptr_nonnull(fz_core_find(&core, "empty"));

  /* One alone may be as large as a table may be. */
  fill(params, FZ_ENDED_BYTES_MAX);
  fz_core_run_ended(&core);
  fz_timers_run(&core.timers);
  ck_assert_ptr_nonnull(fz_core_find(&core, "run0"));
  ck_assert_ptr_null(fz_core_find(&core, "run1"));
  fz_params_unref(params);
  fz_core_deinit(&core);
}
END_TEST

static void session_ended(fz_session *session, void *user) {
  (void)session;
  ++*(int *)user;
}

static void send_line(int fd, const char *line) {
  ck_assert_int_eq(send(fd, line, strlen(line), MSG_NOSIGNAL), (ssize_t)strlen(line));
}

/** What has come, after the loop has done what there was to do. */
static void receive(uv_loop_t *loop, int fd, char *text, size_t size) {
  for (int i = 0; i < 5; i++)
    uv_run(loop, UV_RUN_NOWAIT);
  const ssize_t n = recv(fd, text, size - 1, MSG_DONTWAIT);
  text[n > 0 ? n : 0] = '\0';
}

static const char half_hello[] =
  "{\"type\":\"hello\",\"protocol\":1,\"run\":\"half\",\"framework\":\"x\",\"job\":\"j\",\"attempt\":0,\"rank\":0,"
  "\"world\":1,\"pid\":7,\"n_params\":3,\"layout\":\"0123456789abcdef\",\"baseline\":\"0123456789abcdef\"}\n";
static const char one_param[] = "{\"type\":\"params\",\"first\":%d,\"params\":[[\"p%d\",1,true,true,true]]}\n";

/* A trainer that stops in the middle of its list keeps neither memory nor its place for ever. */
START_TEST(stalled_list_ends)
{
  fz_core core = FZ_CORE_NULL;
  fz_session *session = NULL;
  fz_connection *connection = NULL;
  uv_loop_t loop;
  char text[4096], part[128];
  int fds[2], ended = 0;

  fz_log_init(&core.log, STDERR_FILENO, FZ_LOG_ERROR, FZ_LOG_HUMAN);
  ck_assert_int_eq(fz_core_init(&core, "/nowhere", NULL), 0);
  ck_assert_int_eq(uv_loop_init(&loop), 0);
  ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
  const struct fz_peer peer = { .pid = getpid(), .uid = geteuid(), .gid = getegid() };
  ck_assert_int_eq(fz_session_new(&session, &core, false, session_ended, &ended), 0);
  ck_assert_int_eq(fz_connection_new(&connection, &loop, fds[0], &peer, &fz_session_events, &core.traffic, session), 0);
  fz_session_start(session, connection);

  send_line(fds[1], half_hello);
  receive(&loop, fds[1], text, sizeof(text));
  ck_assert_ptr_nonnull(strstr(text, "need"));
  for (int i = 0; i < 2; i++) {
    ck_assert_uint_gt(fz_timers_delay(&core.timers), FZ_LISTING_STALL_MS / 2);
    ck_assert_uint_le(fz_timers_delay(&core.timers), FZ_LISTING_STALL_MS);
    core.timers.first->due -= FZ_LISTING_STALL_MS / 2 + 1; /* as if that time had gone by */
    snprintf(part, sizeof(part), one_param, i, i);
    send_line(fds[1], part);
    receive(&loop, fds[1], text, sizeof(text));
    ck_assert_str_eq(text, "");
  }
  ck_assert_uint_gt(core.listing_bytes, 0);
  core.timers.first->due = 1;
  fz_timers_run(&core.timers);
  receive(&loop, fds[1], text, sizeof(text));
  ck_assert_ptr_nonnull(strstr(text, "too_many"));
  ck_assert_ptr_nonnull(strstr(text, "at 2 of 3"));
  ck_assert_int_eq(ended, 1);
  ck_assert_uint_eq(core.listing_bytes, 0);
  ck_assert_uint_eq(core.traffic.input, 0);
  ck_assert_uint_eq(core.traffic.output, 0);
  (void)close(fds[1]);
  ck_assert_int_eq(uv_loop_close(&loop), 0);
  fz_core_deinit(&core);
}
END_TEST

START_TEST(run_keeps_the_newest_metrics)
{
  fz_core core = FZ_CORE_NULL;
  struct fz_metrics metrics = { .count = FZ_METRICS_MAX };
  static char names[FZ_METRICS_MAX][16];
  fz_run *run = NULL;

  fz_log_init(&core.log, STDERR_FILENO, FZ_LOG_ERROR, FZ_LOG_HUMAN);
  ck_assert_int_eq(fz_core_init(&core, "/nowhere", NULL), 0);
  ck_assert_int_eq(fz_core_add(&core, "r", "r", &run), 0);
  for (size_t i = 0; i < FZ_METRICS_MAX; i++) {
    snprintf(names[i], sizeof(names[i]), "m%zu", i);
    metrics.values[i] = (struct fz_metric){ .name = names[i], .value = (double)i };
  }
  fz_run_keep_metrics(run, &metrics);
  metrics.values[0] = (struct fz_metric){ .name = "m5", .value = 99 };
  metrics.values[1] = (struct fz_metric){ .name = "beyond", .value = 1 };
  metrics.count = 2;
  fz_run_keep_metrics(run, &metrics);
  ck_assert_uint_eq(run->metrics->n, FZ_METRICS_MAX);
  ck_assert_double_eq(run->metrics->items[5].value, 99);
  fz_run_warn(run, "twice");
  fz_run_warn(run, "twice");
  ck_assert_uint_eq(run->n_warnings, 1);
  for (int i = 0; i < 20; i++)
    fz_run_warn(run, "warning %d", i);
  ck_assert_str_eq(run->warnings[run->n_warnings - 1], "warning 19");
  fz_core_deinit(&core);
}
END_TEST

/* ------------------------------------------------------------------------------------------------------------- systemd */

START_TEST(notify)
{
  struct sockaddr_un address = { .sun_family = AF_UNIX };
  char text[64] = "", pid[32];

  ck_assert_int_eq(fz_systemd_notify("READY=1"), 0); /* nobody to tell */
  snprintf(address.sun_path, sizeof(address.sun_path), "%s/notify", fz_test_root());
  const int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
  ck_assert_int_eq(bind(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
  setenv("NOTIFY_SOCKET", address.sun_path, 1);
  ck_assert_int_eq(fz_systemd_notify("READY=1"), 0);
  ck_assert_int_eq(recv(fd, text, sizeof(text) - 1, MSG_DONTWAIT), 7);
  ck_assert_str_eq(text, "READY=1");
  close(fd);
  ck_assert_int_lt(fz_systemd_notify("READY=1"), 0);
  setenv("NOTIFY_SOCKET", "relative", 1);
  ck_assert_int_eq(fz_systemd_notify("READY=1"), -EINVAL);

  ck_assert_uint_eq(fz_systemd_watchdog_ms(), 0);
  setenv("WATCHDOG_USEC", "30000000", 1);
  ck_assert_uint_eq(fz_systemd_watchdog_ms(), 15000);
  snprintf(pid, sizeof(pid), "%ld", (long)getpid() + 1);
  setenv("WATCHDOG_PID", pid, 1);
  ck_assert_uint_eq(fz_systemd_watchdog_ms(), 0);
}
END_TEST

Suite *fz_suite(void) {
  Suite *suite = suite_create("daemon");
  TCase *options = tcase_create("options"), *log = tcase_create("log"), *timer = tcase_create("timers");
  TCase *other = tcase_create("other");

  tcase_add_test(options, options_all);
  tcase_add_test(options, options_environment);
  tcase_add_loop_test(options, options_bad, 0, (int)(sizeof(bad_options) / sizeof(*bad_options)));
  tcase_add_test(options, options_help);
  tcase_add_test(log, log_forms);
  tcase_add_test(log, log_long);
  tcase_add_test(timer, timers_order);
  tcase_add_test(timer, timers_within_callbacks);
  tcase_add_test(other, words);
  tcase_add_test(other, a_long_command_is_not_written_out);
  tcase_set_timeout(other, 30);
  tcase_add_test(other, recent_ring);
  tcase_add_test(other, runs_are_bounded);
  tcase_add_test(other, ended_runs_are_bounded_by_their_tables);
  tcase_add_test(other, stalled_list_ends);
  tcase_add_test(other, run_keeps_the_newest_metrics);
  tcase_add_test(other, notify);
  suite_add_tcase(suite, options);
  suite_add_tcase(suite, log);
  suite_add_tcase(suite, timer);
  suite_add_tcase(suite, other);
  return suite;
}
