/* check_client.c - libfreezer against a freezerd that says one thing at a time. */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/handle.h"
#include "tests/fake_daemon.h"
#include "tests/runner.h"

static struct fake_daemon fake;
static freezer_t *f;
static char said[4096]; /* what the library logged */

static const freezer_param_t params[] = {
  { .name = "embed", .elements = 100, .requires_grad = true },
  { .name = "layers.0", .elements = 10, .requires_grad = true },
  { .name = "layers.1", .elements = 10, .requires_grad = false },
  { .name = "steps", .elements = 1, .requires_grad = false, .may_train = "NOT_FLOATING" },
};
enum { COUNT = sizeof(params) / sizeof(params[0]) };

static void on_log(void *user, int level, const char *message) {
  (void)user;
  (void)level;
  const size_t length = strlen(said);
  (void)snprintf(said + length, sizeof(said) - length, "%s\n", message);
}

static freezer_options_t options(void) {
  freezer_options_t with = FREEZER_OPTIONS_INIT;
  with.socket = fake.path;
  with.run = "run";
  with.job = "job";
  with.attach_timeout_ms = 0;
  with.log = on_log;
  return with;
}

static void setup(void) {
  static const char *const variables[] = { "FREEZER_DISABLE", "FREEZER_REQUIRE", "FREEZER_ATTACH_TIMEOUT",
                                           "FREEZER_RUN", "FREEZER_SOCKET" };
  for (size_t i = 0; i < sizeof(variables) / sizeof(variables[0]); i++)
    (void)unsetenv(variables[i]);
  said[0] = '\0';
  fake_init(&fake);
}

static void teardown(void) {
  freezer_close(f);
  f = NULL;
  fake_deinit(&fake);
}

static void open_at(uint64_t step, uint64_t epoch) {
  freezer_options_t with = options();
  with.step = step;
  with.epoch = epoch;
  ck_assert_int_eq(freezer_open(&f, &with, params, COUNT), 0);
}

/* ------------------------------------------------------------------------------------------------------ arguments */

START_TEST(bad_arguments)
{
  freezer_options_t with = options();
  ck_assert_int_eq(freezer_open(NULL, &with, params, COUNT), -EINVAL);
  ck_assert_int_eq(freezer_open(&f, &with, NULL, 1), -EINVAL);
#define BAD(member, value) \
  do { \
    with = options(); \
    with.member = (value); \
    ck_assert_int_eq(freezer_open(&f, &with, params, COUNT), -EINVAL); \
    ck_assert_ptr_null(f); \
  } while (0)
  BAD(size, 0);
  BAD(param_size, 8);
  BAD(run, "");
  BAD(run, "a\nb");
  BAD(run, "\xff");
  BAD(job, "");
  BAD(framework, "0123456789012345678901234567890123456789012345678901234567890123456789");
  BAD(rank, 1);
  BAD(world, FZ_WORLD_MAX + 1);
  BAD(step, FZ_STEP_MAX + 1);
  BAD(epoch, FZ_EPOCH_MAX + 1);
  BAD(attach_timeout_ms, -2);
  BAD(rules, "{");
  BAD(rules, "[]");
#undef BAD
  static const freezer_param_t bad[] = {
    { .name = NULL },
    { .name = "" },
    { .name = "a\x01" },
    { .name = "\xc3" },
    { .name = "a", .elements = UINT64_MAX },
    { .name = "a", .may_freeze = "" },
    { .name = "a", .may_train = "not ok" },
  };
  with = options();
  for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
    ck_assert_int_eq(freezer_open(&f, &with, &bad[i], 1), -EINVAL);
  static const freezer_param_t twice[] = { { .name = "a" }, { .name = "b" }, { .name = "a" } };
  ck_assert_int_eq(freezer_open(&f, &with, twice, 3), -EINVAL);
  ck_assert_ptr_nonnull(strstr(said, "parameter 2 has the name of an earlier one: 'a'"));
  ck_assert_ptr_null(f);
}
END_TEST

/* A caller of a later version, whose structs have grown. */
START_TEST(larger_structs)
{
  struct {
    freezer_param_t now;
    void *later;
  } grown[2] = { { .now = params[0] }, { .now = params[2] } };
  struct {
    freezer_options_t now;
    void *later;
  } with = { .now = options() };
  with.now.size = sizeof(with);
  with.now.param_size = sizeof(grown[0]);
  ck_assert_int_eq(freezer_open(&f, &with.now, &grown[0].now, 2), 0);
  ck_assert_str_eq(fake_flags(f, 2), "10");
}
END_TEST

START_TEST(null_handles)
{
  size_t index = 7;
  bool flag = false;
  ck_assert_int_eq(freezer_batch_begin(NULL, 0, 0), -EINVAL);
  ck_assert(freezer_requires_grad(NULL, 0));
  ck_assert_int_eq(freezer_next_change(NULL, &index, &flag), 0);
  ck_assert_int_eq(freezer_batch_next(NULL), -EINVAL);
  ck_assert_uint_eq(freezer_next_changes(NULL, &index, &flag, 1), 0);
  ck_assert_int_eq(freezer_info(NULL, &(freezer_info_t){ .size = sizeof(freezer_info_t) }), -EINVAL);
  ck_assert_uint_eq(freezer_generation(NULL), 0);
  ck_assert_int_eq(freezer_metric(NULL, "a", 1), -EINVAL);
  ck_assert_int_eq(freezer_rewind(NULL, 0, 0), -EINVAL);
  freezer_close(NULL);
  ck_assert_ptr_nonnull(freezer_strerror(-EINVAL));
  ck_assert_ptr_nonnull(freezer_strerror(-12345));
  ck_assert_ptr_nonnull(freezer_strerror(1));
}
END_TEST

START_TEST(steps_out_of_range_and_back)
{
  open_at(10, 2);
  ck_assert_int_eq(freezer_batch_begin(f, 9, 2), -EINVAL);
  ck_assert_int_eq(freezer_batch_begin(f, 10, 1), -EINVAL);
  ck_assert_int_eq(freezer_batch_begin(f, 10, 2), 0);
  ck_assert_int_eq(freezer_batch_begin(f, 10, 2), 0);
  ck_assert_int_eq(freezer_batch_begin(f, 12, 2), 0);
  ck_assert_int_eq(freezer_batch_begin(f, 11, 2), -EINVAL);
  ck_assert_int_eq(freezer_batch_begin(f, FZ_STEP_MAX + 1, 2), -EINVAL);
  ck_assert_int_eq(freezer_batch_begin(f, UINT64_MAX, 2), -EINVAL);
  ck_assert_int_eq(freezer_batch_begin(f, 12, FZ_EPOCH_MAX + 1), -EINVAL);
  ck_assert_int_eq(freezer_batch_begin(f, FZ_STEP_MAX, FZ_EPOCH_MAX), 0);
  ck_assert_int_eq(freezer_rewind(f, FZ_STEP_MAX + 1, 0), -EINVAL);
  ck_assert_int_eq(freezer_rewind(f, 3, 0), 0);
  ck_assert_int_eq(freezer_batch_begin(f, 3, 0), 0);
}
END_TEST

START_TEST(one_step_after_another)
{
  freezer_info_t info = { .size = sizeof(info) };
  open_at(10, 2);
  ck_assert_int_eq(freezer_batch_next(f), 0); /* the first */
  ck_assert_int_eq(freezer_info(f, &info), 0);
  ck_assert_uint_eq(info.step, 10);
  ck_assert_int_eq(freezer_batch_next(f), 0);
  ck_assert_int_eq(freezer_batch_begin(f, 11, 3), 0);
  ck_assert_int_eq(freezer_batch_next(f), 0);
  ck_assert_int_eq(freezer_info(f, &info), 0);
  ck_assert_uint_eq(info.step, 12);
  ck_assert_uint_eq(info.epoch, 3);
  ck_assert_int_eq(freezer_batch_begin(f, FZ_STEP_MAX, 3), 0);
  ck_assert_int_eq(freezer_batch_next(f), -EINVAL);
}
END_TEST

START_TEST(metric_names)
{
  char name[8];
  open_at(0, 0);
  ck_assert_int_eq(freezer_metric(f, NULL, 1), -EINVAL);
  ck_assert_int_eq(freezer_metric(f, "", 1), -EINVAL);
  ck_assert_int_eq(freezer_metric(f, "a\tb", 1), -EINVAL);
  for (unsigned i = 0; i < FZ_METRICS_MAX; i++) {
    (void)snprintf(name, sizeof(name), "m%u", i);
    ck_assert_int_eq(freezer_metric(f, name, i), 0);
  }
  ck_assert_int_eq(freezer_metric(f, "one more", 1), -ENOSPC);
  ck_assert_int_eq(freezer_metric(f, "m0", NAN), 0);
}
END_TEST

/* ----------------------------------------------------------------------------------------------- without freezerd */

START_TEST(without_daemon)
{
  fake_kill(&fake);
  open_at(0, 0);
  for (uint64_t step = 0; step < 1000; step++)
    ck_assert_int_eq(freezer_batch_begin(f, step, step / 10), 0);
  ck_assert_str_eq(fake_flags(f, COUNT), "1100");
  ck_assert_uint_eq(freezer_generation(f), 0);
  ck_assert_uint_eq(freezer_first_trainable(f), 0);
  ck_assert(freezer_requires_grad(f, COUNT));
  ck_assert_str_eq(fake_changes(f), "");
}
END_TEST

START_TEST(environment)
{
  freezer_options_t with = options();
  fake_kill(&fake);
  (void)setenv("FREEZER_REQUIRE", "1", 1);
  ck_assert_int_eq(freezer_open(&f, &with, params, COUNT), -ENOTCONN);
  (void)setenv("FREEZER_REQUIRE", "0", 1);
  ck_assert_int_eq(freezer_open(&f, &with, params, COUNT), 0);
  freezer_close(f);
  f = NULL;

  fake_listen(&fake);
  (void)setenv("FREEZER_DISABLE", "1", 1);
  (void)setenv("FREEZER_REQUIRE", "1", 1);
  ck_assert_int_eq(freezer_open(&f, &with, params, COUNT), 0);
  ck_assert(!fake_accept(&fake));
  freezer_close(f);
  f = NULL;
  (void)unsetenv("FREEZER_DISABLE");

  /* A freezerd that is there and says nothing is waited for, as long as the environment says. */
  (void)setenv("FREEZER_ATTACH_TIMEOUT", "30", 1);
  (void)setenv("FREEZER_SOCKET", fake.path, 1);
  (void)setenv("FREEZER_RUN", "from the environment", 1);
  with.attach_timeout_ms = -1;
  with.socket = with.run = NULL;
  ck_assert_int_eq(freezer_open(&f, &with, params, COUNT), -ETIMEDOUT);
  (void)unsetenv("FREEZER_REQUIRE");
  ck_assert_int_eq(freezer_open(&f, &with, params, COUNT), 0);
  ck_assert(fake_accept(&fake));
  ck_assert_str_eq(fake_expect(&fake, NULL, 0, 0, FZ_MESSAGE_HELLO)->hello.run, "from the environment");
}
END_TEST

START_TEST(no_parameters)
{
  freezer_options_t with = options();
  ck_assert_int_eq(freezer_open(&f, &with, NULL, 0), 0);
  fake_attach(&fake, f, 1, 0, 0);
  (void)fake_publish(&fake, 1, &(const struct fake_row){ .mask = "", .edge = 1 }, 1, FZ_TIME_NEVER);
  ck_assert_int_eq(freezer_batch_begin(f, 1, 0), 0);
  ck_assert_uint_eq(freezer_generation(f), 1);
  ck_assert_uint_eq(freezer_first_trainable(f), 0);
}
END_TEST

/* ------------------------------------------------------------------------------------------------------ the plan */

static const struct fake_row future[] = {
  { 0, 0, "1100", 0 }, { 0, 3, "0100", 0 }, { 20, 0, "1110", 0 }, { 20, 3, "0110", 0 }
};

START_TEST(plan_with_a_future)
{
  open_at(0, 0);
  fake_attach(&fake, f, 1, 5, 0);
  ck_assert_uint_eq(fake_publish(&fake, 8, future, 4, FZ_TIME_NEVER), 1);

  ck_assert_int_eq(freezer_batch_begin(f, 7, 0), 0); /* not active yet */
  ck_assert_uint_eq(freezer_generation(f), 0);
  ck_assert_int_eq(freezer_batch_begin(f, 8, 0), 0); /* in force, and no bit differs */
  ck_assert_uint_eq(freezer_generation(f), 1);
  const struct fz_applied applied = fake_expect(&fake, f, 8, 0, FZ_MESSAGE_APPLIED)->applied;
  ck_assert_uint_eq(applied.gen, 1);
  ck_assert_uint_eq(applied.step, 8);

  ck_assert_int_eq(freezer_batch_begin(f, 19, 2), 0);
  /* The epoch turns within the step: a validation batch had the step of the training batch that comes now. */
  ck_assert_int_eq(freezer_batch_begin(f, 19, 3), 1);
  ck_assert_str_eq(fake_flags(f, COUNT), "0100");
  ck_assert_uint_eq(freezer_first_trainable(f), 1);
  ck_assert_str_eq(fake_changes(f), "0-");
  ck_assert_str_eq(fake_changes(f), "");
  fake_kill(&fake); /* the future is in the plan */
  ck_assert_int_eq(freezer_batch_begin(f, 20, 3), 1);
  ck_assert_str_eq(fake_changes(f), "2+");
  ck_assert_str_eq(fake_flags(f, COUNT), "0110");
  ck_assert_int_eq(freezer_batch_begin(f, FZ_STEP_MAX, FZ_EPOCH_MAX), 0);
  ck_assert_str_eq(fake_flags(f, COUNT), "0110");
}
END_TEST

/* The first call at a step fixes the plan for it. */
START_TEST(plan_is_fixed_for_the_step)
{
  open_at(0, 0);
  fake_attach(&fake, f, 1, 3, 0);
  (void)fake_publish(&fake, 4, &(const struct fake_row){ .mask = "0000" }, 1, FZ_TIME_NEVER);
  ck_assert_int_eq(freezer_batch_begin(f, 3, 5), 0);
  ck_assert_int_eq(freezer_batch_begin(f, 4, 5), 1);
  ck_assert_str_eq(fake_changes(f), "0- 1-");
  ck_assert_uint_eq(freezer_first_trainable(f), COUNT);
  (void)fake_publish(&fake, 5, &(const struct fake_row){ .mask = "1111" }, 1, FZ_TIME_NEVER);
  ck_assert_int_eq(freezer_batch_begin(f, 4, 6), 0);
  ck_assert_int_eq(freezer_batch_begin(f, 5, 6), 1);
  ck_assert_str_eq(fake_changes(f), "0+ 1+ 2+ 3+");
}
END_TEST

/* What was not fetched yet is not forgotten. */
START_TEST(changes_add_up)
{
  open_at(0, 0);
  fake_attach(&fake, f, 1, 0, 0);
  (void)fake_publish(&fake, 1, &(const struct fake_row){ .mask = "0100" }, 1, FZ_TIME_NEVER);
  (void)fake_publish(&fake, 2, &(const struct fake_row){ .mask = "0010" }, 1, FZ_TIME_NEVER);
  ck_assert_int_eq(freezer_batch_begin(f, 1, 0), 1);
  ck_assert_int_eq(freezer_batch_begin(f, 2, 0), 1);
  ck_assert_str_eq(fake_changes(f), "0- 1- 2+");
}
END_TEST

START_TEST(many_at_a_time)
{
  size_t indices[COUNT + 1];
  bool flags[COUNT + 1];
  open_at(0, 0);
  fake_attach(&fake, f, 1, 0, 0);
  (void)fake_publish(&fake, 1, &(const struct fake_row){ .mask = "0010" }, 1, FZ_TIME_NEVER);
  ck_assert_int_eq(freezer_batch_next(f), 1);
  ck_assert_uint_eq(freezer_next_changes(f, indices, flags, 0), 0);
  ck_assert_uint_eq(freezer_next_changes(f, indices, flags, 2), 2);
  ck_assert(indices[0] == 0 && !flags[0] && indices[1] == 1 && !flags[1]);
  ck_assert_uint_eq(freezer_next_changes(f, indices, flags, COUNT + 1), 1);
  ck_assert(indices[0] == 2 && flags[0]);
  ck_assert_uint_eq(freezer_next_changes(f, indices, flags, COUNT + 1), 0);
}
END_TEST

START_TEST(an_edge_writes_all)
{
  static const struct fake_row rows[] = { { 0, 0, "0000", 1 }, { 9, 0, "1111", 2 }, { 12, 0, "1111", 3 } };
  open_at(0, 0);
  fake_attach(&fake, f, 1, 0, 0);
  (void)fake_publish(&fake, 1, rows, 3, FZ_TIME_NEVER);
  ck_assert_int_eq(freezer_batch_begin(f, 1, 0), 1);
  ck_assert_str_eq(fake_changes(f), "0- 1- 2- 3-");
  (void)fake_publish(&fake, 2, rows, 3, FZ_TIME_NEVER); /* an extension: the same edge */
  ck_assert_int_eq(freezer_batch_begin(f, 2, 0), 0);
  ck_assert_uint_eq(freezer_generation(f), 2);
  ck_assert_int_eq(freezer_batch_begin(f, 9, 0), 1);
  ck_assert_str_eq(fake_changes(f), "0+ 1+ 2+ 3+");
  ck_assert_int_eq(freezer_batch_begin(f, 12, 0), 1);
  ck_assert_str_eq(fake_changes(f), "0+ 1+ 2+ 3+");
}
END_TEST

START_TEST(gate_and_line)
{
  uint64_t started, gen;
  open_at(0, 0);
  fake_attach(&fake, f, 1, 6, 1);
  fz_gate_read(fake.segment, &started, &gen);
  ck_assert_uint_eq(started, 7); /* raised before ready */
  (void)fake_publish(&fake, 7, future, 4, FZ_TIME_NEVER);
  (void)freezer_batch_begin(f, 9, 2);
  fz_gate_read(fake.segment, &started, &gen);
  ck_assert_uint_eq(started, 10);
  const struct fz_rank_line line = fz_rank_read(fake.segment, 0);
  ck_assert_uint_eq(line.pid, (uint64_t)getpid());
  ck_assert_uint_eq(line.gen, 1);
  ck_assert_uint_eq(line.step, 9);
  ck_assert_uint_eq(line.epoch, 2);
  freezer_close(f);
  f = NULL;
  ck_assert_uint_eq(fz_rank_read(fake.segment, 0).pid, 0);
  (void)fake_expect(&fake, NULL, 0, 0, FZ_MESSAGE_APPLIED);
  (void)fake_expect(&fake, NULL, 0, 0, FZ_MESSAGE_BYE);
}
END_TEST

/* --------------------------------------------------------------------------------------------------------- events */

START_TEST(nothing_is_sent_unasked)
{
  open_at(0, 0);
  fake_attach(&fake, f, 1, 0, 0);
  for (uint64_t step = 1; step < 3000; step++) {
    ck_assert_int_eq(freezer_metric(f, "loss", 1), 0);
    ck_assert_int_eq(freezer_batch_begin(f, step, step / 7), 0);
  }
  ck_assert_ptr_null(fake_read(&fake));
}
END_TEST

static void subscribe(const struct fz_subscribe *wanted) {
  fake_subscribe(&fake, wanted);
  for (int i = 0; i < 100; i++) { /* until the library has looked at the socket */
    ck_assert_int_eq(freezer_batch_begin(f, f->step, f->epoch), 0);
    usleep(1000);
  }
}

START_TEST(every_step)
{
  open_at(0, 0);
  fake_attach(&fake, f, 1, 0, 0);
  subscribe(&(const struct fz_subscribe){ .step_every_ms = 0, .at_step = FZ_TIME_NEVER });
  (void)fake_expect(&fake, f, 0, 0, FZ_MESSAGE_STEP);
  for (uint64_t step = 1; step < 100; step++) {
    ck_assert_int_eq(freezer_batch_begin(f, step, 0), 0);
    ck_assert_int_eq(freezer_batch_begin(f, step, 0), 0);
    const fz_message *message = fake_read(&fake);
    ck_assert_ptr_nonnull(message);
    ck_assert_int_eq(message->type, FZ_MESSAGE_STEP);
    ck_assert_uint_eq(message->step.step, step);
    ck_assert_ptr_null(fake_read(&fake));
  }
}
END_TEST

START_TEST(steps_by_time)
{
  open_at(0, 0);
  fake_attach(&fake, f, 1, 0, 0);
  subscribe(&(const struct fz_subscribe){ .step_every_ms = 20, .at_step = FZ_TIME_NEVER });
  (void)fake_read(&fake);
  unsigned count = 0;
  uint64_t last = 0;
  for (uint64_t step = 1; step <= 200; step++) {
    ck_assert_int_eq(freezer_batch_begin(f, step, 0), 0);
    usleep(1000);
    for (const fz_message *message; (message = fake_read(&fake)); count++) {
      ck_assert_uint_gt(message->step.step, last);
      last = message->step.step;
    }
  }
  ck_assert_uint_ge(count, 3);
  ck_assert_uint_le(count, 60 * (unsigned)fz_test_slowdown());
}
END_TEST

START_TEST(epochs_and_one_step)
{
  open_at(0, 0);
  fake_attach(&fake, f, 1, 0, 0);
  subscribe(&(const struct fz_subscribe){ .step_every_ms = FZ_TIME_NEVER, .epoch = true, .at_step = 8 });
  for (uint64_t step = 1; step < 12; step++)
    ck_assert_int_eq(freezer_batch_begin(f, step, step / 5), 0);
  ck_assert_uint_eq(fake_expect(&fake, NULL, 0, 0, FZ_MESSAGE_EPOCH)->epoch.epoch, 1);
  ck_assert_uint_eq(fake_expect(&fake, NULL, 0, 0, FZ_MESSAGE_STEP)->step.step, 8);
  ck_assert_uint_eq(fake_expect(&fake, NULL, 0, 0, FZ_MESSAGE_EPOCH)->epoch.step, 10);
  ck_assert_ptr_null(fake_read(&fake));
  /* A step that was reached already is answered at once. */
  subscribe(&(const struct fz_subscribe){ .step_every_ms = FZ_TIME_NEVER, .at_step = 3 });
  ck_assert_uint_eq(fake_expect(&fake, f, 11, 2, FZ_MESSAGE_STEP)->step.step, 11);
}
END_TEST

START_TEST(wake_is_told)
{
  open_at(0, 0);
  fake_attach(&fake, f, 1, 0, 0);
  (void)fake_publish(&fake, 1, future, 4, 6);
  (void)fake_expect(&fake, f, 1, 0, FZ_MESSAGE_APPLIED);
  for (uint64_t step = 2; step < 12; step++)
    ck_assert_int_eq(freezer_batch_begin(f, step, 0), 0);
  ck_assert_uint_eq(fake_expect(&fake, NULL, 0, 0, FZ_MESSAGE_STEP)->step.step, 6);
  ck_assert_ptr_null(fake_read(&fake));
}
END_TEST

START_TEST(metrics)
{
  open_at(0, 0);
  fake_attach(&fake, f, 1, 0, 0);
  ck_assert_int_eq(freezer_metric(f, "early", 0.5), 0);
  subscribe(&(const struct fz_subscribe){ .step_every_ms = FZ_TIME_NEVER, .metrics = true, .at_step = FZ_TIME_NEVER });
  const fz_message *message = fake_expect(&fake, f, 0, 0, FZ_MESSAGE_METRIC);
  ck_assert_uint_eq(message->metric.count, 1);
  ck_assert_str_eq(message->metric.values[0].name, "early");

  ck_assert_int_eq(freezer_batch_begin(f, 4, 0), 0);
  ck_assert_int_eq(freezer_metric(f, "loss", 1.0 / 3), 0);
  message = fake_expect(&fake, NULL, 0, 0, FZ_MESSAGE_METRIC);
  ck_assert_uint_eq(message->metric.step, 4);
  ck_assert_uint_eq(message->metric.count, 1);
  ck_assert_double_eq(message->metric.values[0].value, 1.0 / 3);
  ck_assert_int_eq(freezer_metric(f, "loss", INFINITY), 0);
  message = fake_expect(&fake, NULL, 0, 0, FZ_MESSAGE_METRIC);
  ck_assert(isnan(message->metric.values[0].value));

  /* Limited: only the newest value of each name. */
  subscribe(&(const struct fz_subscribe){
    .step_every_ms = FZ_TIME_NEVER, .metrics = true, .metric_every_ms = 50, .at_step = FZ_TIME_NEVER });
  for (int i = 0; i < 100; i++)
    ck_assert_int_eq(freezer_metric(f, "loss", i), 0);
  message = fake_expect(&fake, f, 4, 0, FZ_MESSAGE_METRIC);
  ck_assert_uint_eq(message->metric.count, 1);
  ck_assert_double_eq(message->metric.values[0].value, 99);
}
END_TEST

/* ---------------------------------------------------------------------------------------- freezerd comes and goes */

START_TEST(daemon_comes_later)
{
  fake_kill(&fake);
  open_at(0, 0);
  for (uint64_t step = 0; step < 100; step++)
    ck_assert_int_eq(freezer_batch_begin(f, step, 0), 0);
  fake_listen(&fake);
  fake_attach(&fake, f, 1, 100, 0);
  (void)fake_publish(&fake, 101, &(const struct fake_row){ .mask = "0111" }, 1, FZ_TIME_NEVER);
  ck_assert_int_eq(freezer_batch_begin(f, 101, 0), 1);
  ck_assert_str_eq(fake_changes(f), "0- 2+ 3+");
}
END_TEST

static void begin_with_plan(void) {
  open_at(0, 0);
  fake_attach(&fake, f, 1, 0, 0);
  (void)fake_publish(&fake, 1, future, 4, FZ_TIME_NEVER);
  (void)fake_expect(&fake, f, 1, 0, FZ_MESSAGE_APPLIED);
}

START_TEST(daemon_adopts_the_segment)
{
  begin_with_plan();
  fake_kill(&fake);
  ck_assert_int_eq(freezer_batch_begin(f, 2, 0), 0);
  (void)fake_publish(&fake, 3, &(const struct fake_row){ .mask = "0000" }, 1, FZ_TIME_NEVER); /* just before it died */
  fake_listen(&fake);

  const struct fz_hello hello = fake_expect(&fake, f, 2, 0, FZ_MESSAGE_HELLO)->hello;
  ck_assert(hello.resumes);
  const struct fz_resume resume = fake_expect(&fake, f, 2, 0, FZ_MESSAGE_RESUME)->resume;
  ck_assert_uint_eq(resume.incarnation, 1);
  ck_assert_uint_eq(resume.gen, 1);
  ck_assert_uint_eq(resume.step, 2);
  const int fd = fz_line_reader_take_fd(&fake.reader);
  ck_assert_int_ge(fd, 0);
  fz_segment *adopted = NULL;
  ck_assert_int_eq(fz_segment_map(&adopted, fd, true), 0);
  fz_segment_free(fake.segment);
  fake.segment = adopted;
  /* It took this rank for gone, and enters its line anew, as that of one that holds nothing. */
  fz_rank_enter(adopted, 0, fz_rank_read(adopted, 0).pid);
  fake_welcome(&fake, "run");
  const struct fz_at ready = fake_expect(&fake, f, 2, 0, FZ_MESSAGE_READY)->ready;
  ck_assert_uint_eq(ready.step, 2);
  ck_assert_uint_eq(fz_rank_read(adopted, 0).gen, 1);

  ck_assert_int_eq(freezer_batch_begin(f, 3, 0), 1);
  ck_assert_uint_eq(freezer_generation(f), 2);
  ck_assert_uint_eq(fake_expect(&fake, f, 3, 0, FZ_MESSAGE_APPLIED)->applied.gen, 2);
}
END_TEST

/* Until the new incarnation has a plan, the old gate decides, and the new one is raised beside it. */
START_TEST(new_incarnation)
{
  begin_with_plan();
  fz_segment *old = NULL;
  ck_assert_int_eq(fz_segment_open(&old, fake.segment_name, true), 0);
  fake_kill(&fake);
  fake_listen(&fake);
  (void)fake_expect(&fake, f, 2, 0, FZ_MESSAGE_HELLO);
  (void)fake_expect(&fake, f, 2, 0, FZ_MESSAGE_RESUME);
  fake_segment(&fake, "run", "job", 2);
  fake_welcome(&fake, "run");
  (void)fake_expect(&fake, f, 2, 0, FZ_MESSAGE_READY);

  struct fz_rank_line line = fz_rank_read(old, 0);
  ck_assert_uint_eq(line.pid, (uint64_t)getpid());
  ck_assert_int_eq(freezer_batch_begin(f, 20, 0), 1); /* the old plan's future */
  ck_assert_str_eq(fake_changes(f), "2+");
  uint64_t started, gen;
  fz_gate_read(old, &started, &gen);
  ck_assert_uint_eq(started, 21);
  fz_gate_read(fake.segment, &started, &gen);
  ck_assert_uint_eq(started, 21);

  ck_assert_uint_eq(fake_publish(&fake, 25, &(const struct fake_row){ .mask = "0001" }, 1, FZ_TIME_NEVER), 1);
  ck_assert_int_eq(freezer_batch_begin(f, 24, 0), 0);
  ck_assert_str_eq(fake_flags(f, COUNT), "1110");
  ck_assert_int_eq(freezer_batch_begin(f, 25, 0), 1);
  ck_assert_str_eq(fake_flags(f, COUNT), "0001");
  ck_assert_uint_eq(freezer_generation(f), 1);
  ck_assert_uint_eq(fz_rank_read(old, 0).pid, 0);
  const struct fz_applied applied = fake_expect(&fake, f, 25, 0, FZ_MESSAGE_APPLIED)->applied;
  ck_assert_uint_eq(applied.gen, 1);
  ck_assert_uint_eq(applied.step, 25);
  fz_segment_free(old);
}
END_TEST

/* freezerd took this rank for gone, and gave its line to a process whose number is another one, or the same (in another
   namespace): that one holds nothing yet, and what it may still need must not be overwritten. */
START_TEST(line_that_was_given_away)
{
  const bool same_number = _i == 1;
  int ready[2];
  begin_with_plan();
  ck_assert_int_eq(pipe(ready), 0);
  const int fd = shm_open(fake.segment_name, O_RDWR | O_CLOEXEC, 0);
  ck_assert_int_ge(fd, 0);
  (void)close(fd); /* which drops this process's lock */
  const pid_t other = fork();
  if (other == 0) {
    (void)fz_rank_lock(fake.segment, 0);
    (void)!write(ready[1], "", 1);
    for (;;)
      pause();
  }
  char byte;
  ck_assert_int_eq(read(ready[0], &byte, 1), 1);
  fz_rank_enter(fake.segment, 0, same_number ? f->identity.pid : f->identity.pid + 1);
  (void)fake_publish(&fake, 2, &(const struct fake_row){ .mask = "0000" }, 1, FZ_TIME_NEVER);
  ck_assert_int_eq(freezer_batch_begin(f, 2, 0), 1);
  ck_assert_str_eq(fake_flags(f, COUNT), "0000");
  ck_assert_uint_eq(fz_rank_read(fake.segment, 0).gen, 0);
  freezer_close(f);
  f = NULL;
  ck_assert_uint_ne(fz_rank_read(fake.segment, 0).pid, 0);
  ck_assert_int_eq(kill(other, SIGKILL), 0);
  ck_assert_int_eq(waitpid(other, NULL, 0), other);
  (void)close(ready[0]);
  (void)close(ready[1]);
}
END_TEST

/* An incarnation whose first plan is ahead when freezerd dies: other ranks may use it already, so this one must too. */
START_TEST(plan_ahead_survives_the_next_incarnation)
{
  begin_with_plan();
  fake_kill(&fake);
  for (uint64_t i = 0; i < 3; i++) {
    fake_listen(&fake);
    (void)fake_expect(&fake, f, 2, 0, FZ_MESSAGE_HELLO);
    (void)fake_expect(&fake, f, 2, 0, FZ_MESSAGE_RESUME);
    fake_segment(&fake, "run", "job", 1);
    fake_welcome(&fake, "run");
    (void)fake_expect(&fake, f, 2, 0, FZ_MESSAGE_READY);
    if (i == 0) /* the only one of the three that comes to a plan */
      (void)fake_publish(&fake, 10, &(const struct fake_row){ .mask = "0010" }, 1, FZ_TIME_NEVER);
    fake_kill(&fake);
  }
  ck_assert_uint_eq(f->n_later, 2);
  ck_assert_int_eq(freezer_batch_begin(f, 9, 0), 0);
  ck_assert_int_eq(freezer_batch_begin(f, 10, 0), 1);
  ck_assert_str_eq(fake_flags(f, COUNT), "0010");
  ck_assert_uint_eq(f->n_later, 1);
  (void)fake_publish(&fake, 12, &(const struct fake_row){ .mask = "1111" }, 1, FZ_TIME_NEVER);
  ck_assert_int_eq(freezer_batch_begin(f, 12, 0), 1);
  ck_assert_str_eq(fake_flags(f, COUNT), "1111");
  ck_assert_uint_eq(f->n_later, 0);
}
END_TEST

START_TEST(rewind_gets_a_new_incarnation)
{
  begin_with_plan();
  ck_assert_int_eq(freezer_batch_begin(f, 20, 0), 1);
  ck_assert_int_eq(freezer_batch_begin(f, 10, 0), -EINVAL);
  ck_assert_int_eq(freezer_rewind(f, 10, 0), 0);
  const struct fz_at back = fake_expect(&fake, NULL, 0, 0, FZ_MESSAGE_REWIND)->rewind;
  ck_assert_uint_eq(back.step, 10);
  ck_assert_str_eq(fake_flags(f, COUNT), "1110"); /* stay as they are */
  ck_assert_int_eq(freezer_batch_begin(f, 10, 0), 0);
  ck_assert_str_eq(fake_flags(f, COUNT), "1110");

  fake_segment(&fake, "run", "job", 1);
  fake_welcome(&fake, "run");
  ck_assert_uint_eq(fake_expect(&fake, f, 10, 0, FZ_MESSAGE_READY)->ready.step, 10);
  (void)fake_publish(&fake, 11, future, 4, FZ_TIME_NEVER);
  ck_assert_int_eq(freezer_batch_begin(f, 11, 0), 1);
  ck_assert_str_eq(fake_flags(f, COUNT), "1100");
  ck_assert_uint_eq(freezer_generation(f), 1);
}
END_TEST

START_TEST(rewind_while_daemon_is_away)
{
  begin_with_plan();
  ck_assert_int_eq(freezer_batch_begin(f, 30, 0), 1);
  fake_kill(&fake);
  usleep(30000);
  ck_assert_int_eq(freezer_batch_begin(f, 31, 0), 0);
  ck_assert_int_eq(freezer_rewind(f, 5, 0), 0);
  ck_assert_int_eq(freezer_batch_begin(f, 5, 0), 0);
  fake_listen(&fake);
  (void)fake_expect(&fake, f, 5, 0, FZ_MESSAGE_HELLO);
  (void)fake_expect(&fake, f, 5, 0, FZ_MESSAGE_RESUME);
  fake_welcome(&fake, "run"); /* the same segment: freezerd does not know that training went back */
  (void)fake_expect(&fake, f, 5, 0, FZ_MESSAGE_READY);
  ck_assert_uint_eq(fake_expect(&fake, f, 5, 0, FZ_MESSAGE_REWIND)->rewind.step, 5);
  fake_segment(&fake, "run", "job", 1);
  fake_welcome(&fake, "run");
  (void)fake_expect(&fake, f, 5, 0, FZ_MESSAGE_READY);
  (void)fake_publish(&fake, 6, &(const struct fake_row){ .mask = "0000" }, 1, FZ_TIME_NEVER);
  ck_assert_int_eq(freezer_batch_begin(f, 6, 0), 1);
  ck_assert_str_eq(fake_flags(f, COUNT), "0000");
}
END_TEST

START_TEST(refusal_is_told_once_and_tried_again)
{
  const fz_message refusal = {
    .type = FZ_MESSAGE_ERROR,
    .error = { .code = "layout_mismatch", .message = "another layout: 'embed' differs", .close = true },
  };
  open_at(0, 0);
  for (int i = 0; i < 2; i++) {
    (void)fake_expect(&fake, f, 0, 0, FZ_MESSAGE_HELLO);
    fake_send(&fake, &refusal, -1);
    for (int n = 0; n < 50; n++) {
      (void)freezer_batch_begin(f, 0, 0);
      usleep(1000);
    }
    (void)fake_kill(&fake);
    fake_listen(&fake);
  }
  ck_assert_str_eq(said, "freezerd: another layout: 'embed' differs\n");
  fake_attach(&fake, f, 1, 0, 0);
}
END_TEST

START_TEST(who_is_at_the_other_end)
{
  freezer_info_t info = { .size = sizeof(info) };
  open_at(0, 0);
  ck_assert_int_eq(freezer_info(f, NULL), -EINVAL);
  info.size--;
  ck_assert_int_eq(freezer_info(f, &info), -EINVAL);
  info.size++;
  ck_assert_int_eq(freezer_info(f, &info), 0);
  ck_assert(!info.attached);
  ck_assert_str_eq(info.run, "run");
  fake_attach(&fake, f, 1, 0, 0);
  ck_assert_int_eq(freezer_info(f, &info), 0);
  ck_assert(info.attached);
  ck_assert_str_eq(info.socket, fake.path);
  ck_assert_uint_eq(info.incarnation, 0);
  (void)fake_publish(&fake, 1, &(const struct fake_row){ .mask = "1100" }, 1, FZ_TIME_NEVER);
  ck_assert_int_eq(freezer_batch_begin(f, 1, 0), 0);
  ck_assert_int_eq(freezer_info(f, &info), 0);
  ck_assert_uint_eq(info.incarnation, fz_segment_get_info(f->current)->incarnation);
  fake_kill(&fake);
  for (uint64_t step = 2; f->link.state != FZ_LINK_DOWN; step++)
    ck_assert_int_eq(freezer_batch_begin(f, step, 0), 0);
  ck_assert_int_eq(freezer_info(f, &info), 0);
  ck_assert(!info.attached);
  ck_assert_ptr_null(info.socket);
}
END_TEST

START_TEST(renamed_run)
{
  freezer_info_t info = { .size = sizeof(info) };
  open_at(0, 0);
  (void)fake_expect(&fake, f, 0, 0, FZ_MESSAGE_HELLO);
  ck_assert_int_eq(fz_params_new(&fake.params), 0);
  for (size_t i = 0; i < COUNT; i++)
    ck_assert_int_eq(fz_params_add(fake.params, params[i].name, strlen(params[i].name), params[i].elements,
                                   params[i].requires_grad, params[i].may_freeze, params[i].may_train),
                     0);
  ck_assert_int_eq(fz_params_seal(fake.params, NULL), 0);
  fake_segment(&fake, "run-2", "job", 1);
  fake_welcome(&fake, "run-2");
  (void)fake_expect(&fake, f, 0, 0, FZ_MESSAGE_READY);
  ck_assert_ptr_nonnull(strstr(said, "this one is called 'run-2'"));
  ck_assert_int_eq(freezer_info(f, &info), 0);
  ck_assert_str_eq(info.run, "run-2");
}
END_TEST

static void expect_to_be_left(void) {
  for (int i = 0; i < 2000 && f->link.state != FZ_LINK_DOWN; i++) {
    ck_assert_int_eq(freezer_batch_begin(f, 0, 0), 0);
    usleep(500);
  }
  ck_assert_int_eq(f->link.state, FZ_LINK_DOWN);
  ck_assert_uint_eq(f->n_later, 0);
  ck_assert_str_eq(fake_flags(f, COUNT), "1100");
}

static const char *const garbage[] = {
  "garbage\n",
  "{}\n",
  "[]\n",
  "{\"type\":\"welcome\"}\n",
  "\xff\xfe\n",
  "{\"type\":\"need\",\"type\":\"need\"}\n",
  "{\"type\":\"subscribe\",\"step_every_ms\":-1}\n",
};

START_TEST(garbage_ends_the_connection)
{
  open_at(0, 0);
  (void)fake_expect(&fake, f, 0, 0, FZ_MESSAGE_HELLO);
  size_t sent;
  ck_assert_int_eq(fz_send(fake.connection, garbage[_i], strlen(garbage[_i]), -1, &sent), 0);
  expect_to_be_left();
}
END_TEST

START_TEST(unknown_message_is_ignored)
{
  static const char line[] = "{\"type\":\"compliment\",\"text\":\"well trained\"}\n";
  open_at(0, 0);
  (void)fake_expect(&fake, f, 0, 0, FZ_MESSAGE_HELLO);
  size_t sent;
  ck_assert_int_eq(fz_send(fake.connection, line, sizeof(line) - 1, -1, &sent), 0);
  for (int i = 0; i < 50; i++) {
    (void)freezer_batch_begin(f, 0, 0);
    usleep(1000);
  }
  ck_assert_int_eq(f->link.state, FZ_LINK_HELLO);
}
END_TEST

/* A freezerd without a descriptor to spare: the name has to do. */
START_TEST(segment_by_name)
{
  begin_with_plan();
  fake_kill(&fake);
  fake_listen(&fake);
  (void)fake_expect(&fake, f, 1, 0, FZ_MESSAGE_HELLO);
  (void)fake_expect(&fake, f, 1, 0, FZ_MESSAGE_RESUME);
  fake_segment(&fake, "run", "job", 1);
  const fz_message welcome = {
    .type = FZ_MESSAGE_WELCOME,
    .welcome = { .protocol = 1,
                 .server = "x",
                 .run = "run",
                 .incarnation = 2,
                 .segment = fake.segment_name,
                 .size = 1 },
  };
  fake_send(&fake, &welcome, -1);
  (void)fake_expect(&fake, f, 1, 0, FZ_MESSAGE_READY);
  ck_assert_uint_eq(f->n_later, 1);
}
END_TEST

/* A welcome whose descriptor is missing, or of something else. */
START_TEST(bad_descriptors)
{
  open_at(0, 0);
  (void)fake_expect(&fake, f, 0, 0, FZ_MESSAGE_HELLO);
  const fz_message welcome = {
    .type = FZ_MESSAGE_WELCOME,
    .welcome = { .protocol = 1, .server = "x", .run = "run", .incarnation = 1, .segment = "/none", .size = 8192 },
  };
  int fd = -1;
  if (_i == 1)
    fd = open("/dev/null", O_RDWR | O_CLOEXEC);
  else if (_i == 2)
    fd = memfd_create("none", MFD_CLOEXEC);
  fake_send(&fake, &welcome, fd);
  if (fd >= 0)
    (void)close(fd);
  expect_to_be_left();
  ck_assert_ptr_nonnull(strstr(said, "cannot use the segment '/none'"));
}
END_TEST

/* A segment for other parameters, another rank, another incarnation. */
START_TEST(wrong_segments)
{
  open_at(0, 0);
  (void)fake_expect(&fake, f, 0, 0, FZ_MESSAGE_HELLO);
  ck_assert_int_eq(fz_params_new(&fake.params), 0);
  for (size_t i = 0; i < COUNT; i++)
    ck_assert_int_eq(fz_params_add(fake.params, params[i].name, strlen(params[i].name), _i == 0, true, NULL, NULL), 0);
  ck_assert_int_eq(fz_params_seal(fake.params, NULL), 0);
  fake_segment(&fake, "run", "job", 1);
  if (_i == 1)
    fake.incarnation++;
  fake_welcome(&fake, "run");
  expect_to_be_left();
}
END_TEST

Suite *fz_suite(void) {
  Suite *suite = suite_create("client");
  TCase *alone = tcase_create("alone");
  tcase_add_checked_fixture(alone, setup, teardown);
  tcase_add_test(alone, bad_arguments);
  tcase_add_test(alone, larger_structs);
  tcase_add_test(alone, null_handles);
  tcase_add_test(alone, steps_out_of_range_and_back);
  tcase_add_test(alone, one_step_after_another);
  tcase_add_test(alone, metric_names);
  tcase_add_test(alone, without_daemon);
  tcase_add_test(alone, environment);
  suite_add_tcase(suite, alone);

  TCase *plan = tcase_create("plan");
  tcase_add_checked_fixture(plan, setup, teardown);
  tcase_add_test(plan, no_parameters);
  tcase_add_test(plan, plan_with_a_future);
  tcase_add_test(plan, plan_is_fixed_for_the_step);
  tcase_add_test(plan, changes_add_up);
  tcase_add_test(plan, many_at_a_time);
  tcase_add_test(plan, an_edge_writes_all);
  tcase_add_test(plan, gate_and_line);
  suite_add_tcase(suite, plan);

  TCase *events = tcase_create("events");
  tcase_add_checked_fixture(events, setup, teardown);
  tcase_add_test(events, nothing_is_sent_unasked);
  tcase_add_test(events, every_step);
  tcase_add_test(events, steps_by_time);
  tcase_add_test(events, epochs_and_one_step);
  tcase_add_test(events, wake_is_told);
  tcase_add_test(events, metrics);
  suite_add_tcase(suite, events);

  TCase *link = tcase_create("link");
  tcase_set_timeout(link, 15);
  tcase_add_checked_fixture(link, setup, teardown);
  tcase_add_test(link, daemon_comes_later);
  tcase_add_test(link, daemon_adopts_the_segment);
  tcase_add_loop_test(link, line_that_was_given_away, 0, 2);
  tcase_add_test(link, new_incarnation);
  tcase_add_test(link, plan_ahead_survives_the_next_incarnation);
  tcase_add_test(link, rewind_gets_a_new_incarnation);
  tcase_add_test(link, rewind_while_daemon_is_away);
  tcase_add_test(link, refusal_is_told_once_and_tried_again);
  tcase_add_test(link, who_is_at_the_other_end);
  tcase_add_test(link, renamed_run);
  tcase_add_loop_test(link, garbage_ends_the_connection, 0, sizeof(garbage) / sizeof(garbage[0]));
  tcase_add_test(link, unknown_message_is_ignored);
  tcase_add_test(link, segment_by_name);
  tcase_add_loop_test(link, bad_descriptors, 0, 3);
  tcase_add_loop_test(link, wrong_segments, 0, 2);
  suite_add_tcase(suite, link);
  return suite;
}
