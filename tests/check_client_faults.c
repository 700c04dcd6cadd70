/* check_client_faults.c - what training must not notice: a full socket, a fork, no memory, no descriptors. */
#include "config.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "client/handle.h"
#include "tests/fake_daemon.h"
#include "tests/runner.h"

/* The linker puts these in the place of the library's calls: they count, and fail when they are told to. */
static unsigned long n_allocations;
static unsigned long fail_at = ULONG_MAX; /* the allocation of that number fails, and all after it */

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *memory, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *memory, size_t size);

static bool may_allocate(void) { return n_allocations++ < fail_at; }

void *__wrap_malloc(size_t size) { return may_allocate() ? __real_malloc(size) : NULL; }

void *__wrap_calloc(size_t count, size_t size) { return may_allocate() ? __real_calloc(count, size) : NULL; }

void *__wrap_realloc(void *memory, size_t size) { return may_allocate() ? __real_realloc(memory, size) : NULL; }

static struct fake_daemon fake;
static freezer_t *f;

static const freezer_param_t params[] = {
  { .name = "embed", .elements = 100, .requires_grad = true },
  { .name = "layers.0", .elements = 10, .requires_grad = true, .may_freeze = "ZERO" },
  { .name = "layers.1", .elements = 10, .requires_grad = false },
};
enum { COUNT = sizeof(params) / sizeof(params[0]) };

static freezer_options_t options(void) {
  freezer_options_t with = FREEZER_OPTIONS_INIT;
  with.socket = fake.path;
  with.run = "run";
  with.job = "job";
  with.attach_timeout_ms = 0;
  return with;
}

static void setup(void) {
  (void)unsetenv("FREEZER_DISABLE");
  (void)unsetenv("FREEZER_REQUIRE");
  fail_at = ULONG_MAX;
  fake_init(&fake);
}

static void teardown(void) {
  fail_at = ULONG_MAX;
  freezer_close(f);
  f = NULL;
  fake_deinit(&fake);
}

static void open_attached(void) {
  const freezer_options_t with = options();
  ck_assert_int_eq(freezer_open(&f, &with, params, COUNT), 0);
  fake_attach(&fake, f, 1, 0, 0);
}

static int64_t now_us(void) {
  struct timespec now;
  (void)clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static unsigned count_descriptors(void) {
  unsigned count = 0;
  DIR *folder = opendir("/proc/self/fd");
  ck_assert_ptr_nonnull(folder);
  while (readdir(folder))
    count++;
  closedir(folder);
  return count;
}

static void subscribe_to_all(void) {
  fake_subscribe(&fake, &(const struct fz_subscribe){ .epoch = true, .metrics = true, .at_step = FZ_TIME_NEVER });
  for (int i = 0; i < 50; i++) {
    ck_assert_int_eq(freezer_batch_begin(f, f->step, f->epoch), 0);
    usleep(1000);
  }
  while (fake_read(&fake))
    ;
}

/* A freezerd that is stopped: the socket fills, events replace each other, every line that was begun is ended. */
static void fill_and_read(uint64_t n_steps) {
  subscribe_to_all();
  int64_t longest = 0, before = now_us();
  for (uint64_t step = 1; step <= n_steps; step++) {
    ck_assert_int_eq(freezer_batch_begin(f, step, step / 100), 0);
    ck_assert_int_eq(freezer_metric(f, "loss", (double)step), 0);
    const int64_t now = now_us();
    longest = now - before > longest ? now - before : longest;
    before = now;
    ck_assert_uint_lt(fz_output_pending(&f->link.output), 1000);
  }
  ck_assert_int_lt(longest, 300000 * fz_test_slowdown());

  uint64_t last = 0, n_read = 0;
  for (int i = 0; i < 200 && last < n_steps; i++) {
    for (const fz_message *message; (message = fake_read(&fake)); n_read++) {
      if (message->type != FZ_MESSAGE_STEP)
        continue;
      ck_assert_uint_ge(message->step.step, last);
      last = message->step.step;
    }
    ck_assert_int_eq(freezer_batch_begin(f, n_steps, n_steps / 100), 0);
    usleep(1000);
  }
  ck_assert_uint_eq(last, n_steps); /* the newest came in the end */
  ck_assert_uint_lt(n_read, n_steps);
}

START_TEST(socket_full)
{
  open_attached();
  fill_and_read(100000);
}
END_TEST

/* With hardly any room, lines go out in pieces. */
START_TEST(partial_lines)
{
  open_attached();
  const int size = 1;
  ck_assert_int_eq(setsockopt(f->link.fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)), 0);
  fill_and_read(20000);
}
END_TEST

/* Many parameters, and a socket that takes little at a time. */
START_TEST(parameters_in_pieces)
{
  enum { MANY = 20000 };
  freezer_param_t *many = calloc(MANY, sizeof(*many));
  char *names = malloc(MANY * 40UL);
  for (size_t i = 0; i < MANY; i++) {
    (void)snprintf(names + i * 40, 40, "model.layers.%zu.\"quoted\"\\weight", i);
    many[i] = (freezer_param_t){ .name = names + i * 40, .elements = i, .requires_grad = i % 3 == 0 };
  }
  const freezer_options_t with = options();
  ck_assert_int_eq(freezer_open(&f, &with, many, MANY), 0);
  free(many);
  free(names);
  fake_attach(&fake, f, 1, 0, 0);
  ck_assert_uint_eq(fz_segment_n_params(fake.segment), MANY);
}
END_TEST

static void count_allocations(uint64_t first, uint64_t end) {
  const unsigned long before = n_allocations;
  int failed = 0; /* what asserts allocates */
  for (uint64_t step = first; step < end; step++)
    failed |= freezer_batch_begin(f, step, step / 10);
  const unsigned long after = n_allocations;
  ck_assert_int_eq(failed, 0);
  ck_assert_uint_eq(after, before);
}

START_TEST(idle_allocates_nothing)
{
  open_attached();
  count_allocations(1, 50000);
  (void)fake_publish(&fake, 50001, &(const struct fake_row){ .mask = "010" }, 1, FZ_TIME_NEVER);
  const unsigned long before = n_allocations;
  const int changed = freezer_batch_begin(f, 50002, 5000); /* hardly even where a plan comes */
  const unsigned long after = n_allocations;
  ck_assert_int_eq(changed, 1);
  (void)fake_changes(f);
  ck_assert_uint_le(after - before, 2); /* the buffers of the first event */
  count_allocations(50003, 60000);
  fake_kill(&fake);
  count_allocations(60000, 70000);
}
END_TEST

START_TEST(idle_without_daemon_allocates_nothing)
{
  fake_kill(&fake);
  const freezer_options_t with = options();
  ck_assert_int_eq(freezer_open(&f, &with, params, COUNT), 0);
  count_allocations(1, 100000);
}
END_TEST

/* Each allocation of freezer_open() fails once: it says so, and leaves nothing behind. */
START_TEST(open_without_memory)
{
  const freezer_options_t with = options();
  const unsigned n_descriptors = count_descriptors();
  int r = -ENOMEM;
  for (unsigned long n = 0; r == -ENOMEM; n++) {
    ck_assert_uint_lt(n, 1000);
    fail_at = n_allocations + n;
    r = freezer_open(&f, &with, params, COUNT);
    fail_at = ULONG_MAX;
    ck_assert_msg(r == 0 || r == -ENOMEM, "allocation %lu: %d", n, r);
    ck_assert(r == 0 || !f);
  }
  /* From there on it is the connection's: open succeeds, and it comes about later. */
  freezer_close(f);
  f = NULL;
  while (fake_accept(&fake))
    ;
  fake_kill(&fake);
  ck_assert_uint_eq(count_descriptors(), n_descriptors - 1);
}
END_TEST

START_TEST(attach_without_memory)
{
  for (unsigned long n = 0; n < 40; n++) {
    const freezer_options_t with = options();
    ck_assert_int_eq(freezer_open(&f, &with, params, COUNT), 0);
    (void)fake_expect(&fake, f, 0, 0, FZ_MESSAGE_HELLO);
    const fz_message need = { .type = FZ_MESSAGE_NEED, .need = { .what = "params" } };
    fake_send(&fake, &need, -1);
    fail_at = n_allocations + n;
    int failed = 0;
    for (int i = 0; i < 20; i++) {
      failed |= freezer_batch_begin(f, 0, 0);
      usleep(500);
    }
    fail_at = ULONG_MAX;
    ck_assert_int_eq(failed, 0);
    freezer_close(f);
    f = NULL;
    fake_kill(&fake);
    fake_listen(&fake);
  }
}
END_TEST

START_TEST(without_descriptors)
{
  const struct rlimit none = { .rlim_cur = 3, .rlim_max = 4096 };
  struct rlimit before;
  const freezer_options_t with = options();
  ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &before), 0);
  ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
  ck_assert_int_eq(freezer_open(&f, &with, params, COUNT), 0);
  for (uint64_t step = 0; step < 1000; step++)
    ck_assert_int_eq(freezer_batch_begin(f, step, 0), 0);
  const struct rlimit again = { .rlim_cur = 1024, .rlim_max = 4096 };
  ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &again), 0);
  fake_attach(&fake, f, 1, 1000, 0);
}
END_TEST

START_TEST(no_descriptor_is_left)
{
  const unsigned before = count_descriptors();
  for (int i = 0; i < 3; i++) {
    open_attached();
    freezer_close(f);
    f = NULL;
    fake.segment = fz_segment_free(fake.segment);
    (void)fz_segment_unlink(fake.segment_name);
    (void)close(fake.connection);
    fake.connection = -1;
    ck_assert_uint_eq(count_descriptors(), before);
  }
}
END_TEST

/* The name is gone (logout, another /dev/shm): the descriptor is enough. */
START_TEST(segment_without_a_name)
{
  open_attached();
  ck_assert_int_eq(fz_segment_unlink(fake.segment_name), 0);
  fake.segment_name[0] = '\0';
  (void)fake_publish(&fake, 1, &(const struct fake_row){ .mask = "011" }, 1, FZ_TIME_NEVER);
  ck_assert_int_eq(freezer_batch_begin(f, 1, 0), 1);
  ck_assert_str_eq(fake_flags(f, COUNT), "011");
}
END_TEST

/* A data loader: it has the flags, and does nothing. */
START_TEST(forked_child_is_inert)
{
  open_attached();
  (void)fake_publish(&fake, 1, &(const struct fake_row){ .mask = "011" }, 1, FZ_TIME_NEVER);
  ck_assert_int_eq(freezer_batch_begin(f, 1, 0), 1);
  (void)fake_expect(&fake, f, 1, 0, FZ_MESSAGE_APPLIED);
  subscribe_to_all();
  const pid_t pid = fork();
  ck_assert_int_ge(pid, 0);
  if (pid == 0) {
    bool good = freezer_batch_begin(f, 5, 1) == 0 && freezer_metric(f, "loss", 1) == 0 && freezer_rewind(f, 0, 0) == 0;
    good = good && strcmp(fake_flags(f, COUNT), "011") == 0 && freezer_generation(f) == 1;
    freezer_close(f);
    /* It may have one of its own. */
    const freezer_options_t with = options();
    freezer_t *own = NULL;
    good = good && freezer_open(&own, &with, params, COUNT) == 0 && freezer_batch_begin(own, 7, 0) == 0;
    freezer_close(own);
    _exit(good ? 0 : 1);
  }
  int status;
  ck_assert_int_eq(waitpid(pid, &status, 0), pid);
  ck_assert_int_eq(status, 0);
  ck_assert_ptr_null(fake_read(&fake));
  ck_assert_uint_eq(fz_rank_read(fake.segment, 0).step, 1);
  /* The rank itself goes on. */
  ck_assert_int_eq(freezer_batch_begin(f, 2, 0), 0);
  ck_assert_uint_eq(fake_expect(&fake, f, 2, 0, FZ_MESSAGE_STEP)->step.step, 2);
  ck_assert_uint_eq(fz_rank_read(fake.segment, 0).step, 2);
}
END_TEST

Suite *fz_suite(void) {
  Suite *suite = suite_create("client_faults");
  TCase *faults = tcase_create("faults");
  tcase_set_timeout(faults, 20);
  tcase_add_checked_fixture(faults, setup, teardown);
  tcase_add_test(faults, socket_full);
  tcase_add_test(faults, partial_lines);
  tcase_add_test(faults, parameters_in_pieces);
  tcase_add_test(faults, idle_allocates_nothing);
  tcase_add_test(faults, idle_without_daemon_allocates_nothing);
  tcase_add_test(faults, open_without_memory);
  tcase_add_test(faults, attach_without_memory);
  tcase_add_test(faults, without_descriptors);
  tcase_add_test(faults, no_descriptor_is_left);
  tcase_add_test(faults, segment_without_a_name);
  tcase_add_test(faults, forked_child_is_inert);
  suite_add_tcase(suite, faults);
  return suite;
}
