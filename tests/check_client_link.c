/* check_client_link.c - libfreezer and a freezerd that comes, goes, comes back as another one, or sends garbage. */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/handle.h"
#include "tests/client_scene.h"
#include "tests/runner.h"

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
  (void)fake_publish(&fake, 1, future, FUTURE_ROWS, FZ_TIME_NEVER);
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
  (void)fake_publish(&fake, 11, future, FUTURE_ROWS, FZ_TIME_NEVER);
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
  Suite *suite = suite_create("client link");
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
