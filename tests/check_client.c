/* check_client.c - libfreezer against a freezerd that says one thing at a time: calls, plans, events. */
#include "config.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/handle.h"
#include "tests/client_scene.h"
#include "tests/runner.h"

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

START_TEST(plan_with_a_future)
{
  open_at(0, 0);
  fake_attach(&fake, f, 1, 5, 0);
  ck_assert_uint_eq(fake_publish(&fake, 8, future, FUTURE_ROWS, FZ_TIME_NEVER), 1);

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
  (void)fake_publish(&fake, 7, future, FUTURE_ROWS, FZ_TIME_NEVER);
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
  (void)fake_publish(&fake, 1, future, FUTURE_ROWS, 6);
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
  return suite;
}
