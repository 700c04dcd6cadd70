/* check_collective.c - several machines: what the root hands out is in force everywhere at the same step. */
#include "config.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/handle.h"
#include "tests/fake_daemon.h"
#include "tests/runner.h"

static const freezer_param_t params[] = {
  { .name = "a", .elements = 1, .requires_grad = true },
  { .name = "b", .elements = 2, .requires_grad = true },
  { .name = "c", .elements = 3, .requires_grad = false },
};
enum { COUNT = sizeof(params) / sizeof(params[0]) };

static freezer_options_t options(const char *socket) {
  freezer_options_t with = FREEZER_OPTIONS_INIT;
  with.socket = socket;
  with.run = "run";
  with.job = "job";
  with.attach_timeout_ms = 0;
  return with;
}

/* ------------------------------------------------------------------------- two processes, played one after the other */

/* The root's bytes wait here for the follower. */
static struct wire {
  unsigned char bytes[65536];
  size_t written, read;
  int result; /* of the next broadcasts */
} wire;

static int give(void *user, void *data, size_t size) {
  struct wire *to = user;
  if (to->result == 0) {
    memcpy(to->bytes + to->written, data, size);
    to->written += size;
  }
  return to->result;
}

static int take(void *user, void *data, size_t size) {
  struct wire *from = user;
  if (from->result == 0) {
    ck_assert_uint_le(from->read + size, from->written);
    memcpy(data, from->bytes + from->read, size);
    from->read += size;
    if (from->read == from->written)
      from->read = from->written = 0;
  }
  return from->result;
}

static struct fake_daemon fake;
static freezer_t *root, *follower;

static void open_both(void) {
  freezer_options_t with = options(fake.path);
  with.broadcast = give;
  with.broadcast_user = &wire;
  with.broadcast_root = true;
  ck_assert_int_eq(freezer_open(&root, &with, params, COUNT), 0);
  with.broadcast = take;
  with.broadcast_root = false;
  ck_assert_int_eq(freezer_open(&follower, &with, params, COUNT), 0);
}

static void setup(void) {
  memset(&wire, 0, sizeof(wire));
  fake_init(&fake);
  open_both();
}

static void teardown(void) {
  freezer_close(root);
  freezer_close(follower);
  root = follower = NULL;
  fake_deinit(&fake);
}

/* A step of both, which must answer the same. */
static const char *step(uint64_t at, uint64_t epoch) {
  const int r = freezer_batch_begin(root, at, epoch);
  ck_assert_int_eq(freezer_batch_begin(follower, at, epoch), r);
  ck_assert_uint_eq(freezer_generation(follower), freezer_generation(root));
  ck_assert_uint_eq(wire.written, 0);
  char of_root[COUNT + 1];
  memcpy(of_root, fake_flags(root, COUNT), sizeof(of_root));
  ck_assert_str_eq(fake_flags(follower, COUNT), of_root);
  return fake_flags(follower, COUNT);
}

/* The root attaches at step 0: fake_attach() lets it begin that step again and again, which hands out nothing more. */
static void attach(void) {
  (void)step(0, 0);
  fake_attach(&fake, root, 1, 0, 0);
  ck_assert_uint_eq(wire.written, 0);
  uint64_t started, gen;
  fz_gate_read(fake.segment, &started, &gen);
  ck_assert_uint_eq(started, 2); /* the plan of step 1 is settled: there is none */
}

START_TEST(a_plan_reaches_everybody)
{
  static const struct fake_row rows[] = {
    { 0, 0, "011", 0 }, { 0, 2, "001", 0 }, { 6, 0, "111", 0 }, { 6, 2, "101", 0 }
  };
  attach();
  (void)fake_publish(&fake, 2, rows, 4, FZ_TIME_NEVER);
  ck_assert_str_eq(step(1, 0), "110");
  ck_assert_uint_eq(fz_rank_read(fake.segment, 0).gen, 1); /* taken, handed out, and not in force yet */
  ck_assert_uint_eq(freezer_generation(root), 0);
  ck_assert_str_eq(step(2, 0), "011");
  const struct fz_applied applied = fake_expect(&fake, NULL, 0, 0, FZ_MESSAGE_APPLIED)->applied;
  ck_assert_uint_eq(applied.step, 2); /* exactly where it was to hold */
  ck_assert_str_eq(step(3, 0), "011");
  ck_assert_str_eq(step(5, 2), "001");
  ck_assert_str_eq(step(6, 2), "101");

  uint64_t started, gen;
  fz_gate_read(fake.segment, &started, &gen);
  ck_assert_uint_eq(started, 8);
  (void)fake_publish(&fake, 8, &(const struct fake_row){ .mask = "000" }, 1, FZ_TIME_NEVER);
  ck_assert_str_eq(step(7, 2), "101");
  ck_assert_str_eq(step(8, 2), "000");
  size_t index;
  bool flag;
  ck_assert_int_eq(freezer_next_change(follower, &index, &flag), 1);
}
END_TEST

START_TEST(nothing_but_a_header_when_idle)
{
  attach();
  (void)fake_publish(&fake, 2, &(const struct fake_row){ .mask = "011" }, 1, FZ_TIME_NEVER);
  (void)step(1, 0);
  (void)step(2, 0);
  ck_assert_int_eq(freezer_batch_begin(root, 3, 0), 0);
  ck_assert_uint_le(wire.written, 32);
  ck_assert_int_eq(freezer_batch_begin(root, 3, 0), 0); /* once a step */
  ck_assert_uint_le(wire.written, 32);
  ck_assert_int_eq(freezer_batch_begin(follower, 3, 0), 0);
  ck_assert_int_eq(freezer_batch_begin(follower, 3, 0), 0);
  ck_assert_uint_eq(wire.written, 0);
}
END_TEST

START_TEST(a_broadcast_that_fails_is_made_up_for)
{
  attach();
  (void)fake_publish(&fake, 2, &(const struct fake_row){ .mask = "011" }, 1, FZ_TIME_NEVER);
  wire.result = -ECONNRESET;
  ck_assert_int_eq(freezer_batch_begin(root, 1, 0), -ECONNRESET);
  ck_assert_int_eq(freezer_batch_begin(follower, 1, 0), -ECONNRESET);
  wire.result = 3; /* not an errno value */
  ck_assert_int_eq(freezer_batch_begin(root, 2, 0), -EIO);
  ck_assert_int_eq(freezer_batch_begin(follower, 2, 0), -EIO);
  wire.result = 0;
  ck_assert_str_eq(step(3, 0), "110");
  ck_assert_str_eq(step(4, 0), "011");
}
END_TEST

/* As take() and give(), but a broadcast only begins: what the follower asked for is there when it has waited. */
static struct {
  void *data;
  size_t size;
} asked;

static int give_later(void *user, void *data, size_t size) { return give(user, data, size); }

static int take_later(void *user, void *data, size_t size) {
  (void)user;
  ck_assert_ptr_null(asked.data);
  asked.data = data;
  asked.size = size;
  return 0;
}

static int wait_for_it(void *user) {
  void *const data = asked.data;
  asked.data = NULL;
  return data ? take(user, data, asked.size) : 0; /* the root has nothing to wait for */
}

START_TEST(a_broadcast_that_only_begins)
{
  freezer_close(root);
  freezer_close(follower);
  fake_deinit(&fake);
  memset(&wire, 0, sizeof(wire));
  fake_init(&fake);
  freezer_options_t with = options(fake.path);
  with.broadcast = give_later;
  with.broadcast_wait = wait_for_it;
  with.broadcast_user = &wire;
  with.broadcast_root = true;
  ck_assert_int_eq(freezer_open(&root, &with, params, COUNT), 0);
  with.broadcast = take_later;
  with.broadcast_root = false;
  ck_assert_int_eq(freezer_open(&follower, &with, params, COUNT), 0);

  /* The follower comes to step 0 first, and waits for nobody. */
  ck_assert_int_eq(freezer_batch_begin(follower, 0, 0), 0);
  void *const data = asked.data;
  asked.data = NULL;
  fake_attach(&fake, root, 1, 0, 0);
  (void)fake_publish(&fake, 2, &(const struct fake_row){ .mask = "011" }, 1, FZ_TIME_NEVER);
  ck_assert_int_eq(freezer_batch_begin(root, 1, 0), 0);
  asked.data = data;
  ck_assert_int_eq(freezer_batch_begin(follower, 1, 0), 0);
  ck_assert_uint_gt(wire.written, wire.read); /* the root's word of step 1: it is for step 2 */
  ck_assert_str_eq(fake_flags(follower, COUNT), "110");

  /* Its header ends at step 2, and the plan comes behind it. */
  void *const second = asked.data;
  asked.data = NULL;
  ck_assert_int_eq(freezer_batch_begin(root, 2, 0), 1);
  ck_assert_str_eq(fake_flags(root, COUNT), "011");
  asked.data = second;
  ck_assert_int_eq(freezer_batch_begin(follower, 2, 0), 1);
  ck_assert_str_eq(fake_flags(follower, COUNT), "011");
  asked.data = NULL;
}
END_TEST

START_TEST(rewind_of_both)
{
  attach();
  (void)fake_publish(&fake, 2, &(const struct fake_row){ .mask = "011" }, 1, FZ_TIME_NEVER);
  (void)step(1, 0);
  (void)step(9, 0);
  ck_assert_int_eq(freezer_rewind(root, 4, 0), 0);
  ck_assert_int_eq(freezer_rewind(follower, 4, 0), 0);
  (void)fake_expect(&fake, NULL, 0, 0, FZ_MESSAGE_APPLIED);
  (void)fake_expect(&fake, NULL, 0, 0, FZ_MESSAGE_REWIND);
  fake_segment(&fake, "run", "job", 1);
  fake_welcome(&fake, "run");
  ck_assert_str_eq(step(4, 0), "011"); /* as they were */
  (void)fake_expect(&fake, root, 4, 0, FZ_MESSAGE_READY);
  (void)fake_publish(&fake, 6, &(const struct fake_row){ .mask = "100" }, 1, FZ_TIME_NEVER);
  ck_assert_str_eq(step(5, 0), "011");
  ck_assert_str_eq(step(6, 0), "100");
}
END_TEST

START_TEST(other_models_and_garbage)
{
  static const freezer_param_t others[] = { { .name = "x" } };
  freezer_options_t with = options(fake.path);
  freezer_t *other = NULL;
  attach();
  with.broadcast = take;
  with.broadcast_user = &wire;
  (void)fake_publish(&fake, 2, &(const struct fake_row){ .mask = "011" }, 1, FZ_TIME_NEVER);
  ck_assert_int_eq(freezer_batch_begin(root, 1, 0), 0);
  ck_assert_int_eq(freezer_open(&other, &with, others, 1), -EPROTO);
  ck_assert_uint_eq(wire.written, 0); /* it received all that there was */

  static const uint64_t garbage[][3] = { { 1, 2, 0 }, { 0x01006e616c70667a, 0, UINT64_MAX } };
  for (size_t i = 0; i < 2; i++) {
    ck_assert_int_eq(give(&wire, (void *)(uintptr_t)garbage[i], sizeof(garbage[i])), 0);
    ck_assert_int_eq(freezer_batch_begin(follower, 1 + i, 0), -EPROTO);
  }
  /* A plan with a row that points beyond its masks. */
  uint64_t header[3] = { 0x01006e616c70667a, fz_params_layout_hash(follower->params), 8 + 3 + 1 };
  uint64_t plan[12] = { 1, 0, 0, 0, 0, 0, 1, 1, 0, 0, 7, 0 };
  ck_assert_int_eq(give(&wire, header, sizeof(header)), 0);
  ck_assert_int_eq(give(&wire, plan, sizeof(plan)), 0);
  ck_assert_int_eq(freezer_batch_begin(follower, 5, 0), -EBADMSG);
  ck_assert_str_eq(fake_flags(follower, COUNT), "110");
}
END_TEST

START_TEST(only_the_root_attaches)
{
  freezer_options_t with = options(fake.path);
  freezer_t *f = NULL;
  with.broadcast = give;
  with.broadcast_user = &wire;
  with.broadcast_root = true;
  with.world = 2;
  ck_assert_int_eq(freezer_open(&f, &with, params, COUNT), -EINVAL);
  ck_assert(fake_accept(&fake)); /* the root of setup() */
  ck_assert(!fake_accept(&fake));
}
END_TEST

/* -------------------------------------------------------------------------------------------------- real processes */

enum { PROCESSES = 3, STEPS = 3000, AHEAD = 500, STEP_US = 50 };

/* A broadcast through memory that all share, with a barrier before and behind. */
static struct shared {
  _Atomic unsigned arrived, round;
  unsigned char bytes[65536];
  _Atomic unsigned gens[PROCESSES][STEPS];
} * shared;

static void barrier(void) {
  const unsigned round = atomic_load(&shared->round);
  if (atomic_fetch_add(&shared->arrived, 1) + 1 == PROCESSES) {
    atomic_store(&shared->arrived, 0);
    atomic_fetch_add(&shared->round, 1);
  }
  while (atomic_load(&shared->round) == round)
    sched_yield();
}

static int share(void *user, void *data, size_t size) {
  const bool *is_root = user;
  if (*is_root)
    memcpy(shared->bytes, data, size);
  barrier();
  if (!*is_root)
    memcpy(data, shared->bytes, size);
  barrier();
  return 0;
}

static int train(unsigned process, const char *socket) {
  bool is_root = process == 0;
  freezer_options_t with = options(socket);
  freezer_t *f = NULL;
  with.broadcast = share;
  with.broadcast_user = &is_root;
  with.broadcast_root = is_root;
  if (freezer_open(&f, &with, params, COUNT) < 0)
    return 1;
  for (uint64_t at = 0; at < STEPS; at++) {
    if (freezer_batch_begin(f, at, 0) < 0)
      return 1;
    if (is_root)
      usleep(STEP_US);
    atomic_store(&shared->gens[process][at], (unsigned)freezer_generation(f) + 1);
  }
  freezer_close(f);
  return 0;
}

START_TEST(processes_agree)
{
  shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  ck_assert_ptr_ne(shared, MAP_FAILED);
  struct fake_daemon own;
  fake_init(&own);
  pid_t pids[PROCESSES];
  for (unsigned i = 0; i < PROCESSES; i++) {
    pids[i] = fork();
    ck_assert_int_ge(pids[i], 0);
    if (pids[i] == 0)
      _exit(train(i, own.path));
  }
  fake_attach(&own, NULL, 1, 0, 0);
  uint64_t active_from[8] = { 0 }, n = 0;
  while (n < 7 && waitpid(pids[0], NULL, WNOHANG) == 0) {
    uint64_t started, gen;
    fz_gate_read(own.segment, &started, &gen);
    if (started + AHEAD < STEPS) {
      active_from[++n] = started + AHEAD; /* far enough to be published before they are there */
      const struct fake_row row = { .mask = n % 2 ? "010" : "101" };
      (void)fake_publish(&own, active_from[n], &row, 1, FZ_TIME_NEVER);
    }
    usleep(2000);
  }
  for (unsigned i = 0; i < PROCESSES; i++) {
    int status = 0;
    if (waitpid(pids[i], &status, 0) == pids[i])
      ck_assert_int_eq(status, 0);
  }
  uint64_t newest = 0;
  for (uint64_t at = 0; at < STEPS; at++) {
    while (newest < n && active_from[newest + 1] <= at)
      newest++;
    for (unsigned i = 0; i < PROCESSES; i++)
      ck_assert_uint_eq(atomic_load(&shared->gens[i][at]), newest + 1);
  }
  ck_assert_uint_gt(n, 0);
  fake_deinit(&own);
}
END_TEST

Suite *fz_suite(void) {
  Suite *suite = suite_create("collective");
  TCase *tcase = tcase_create("collective");
  tcase_set_timeout(tcase, 20);
  tcase_add_checked_fixture(tcase, setup, teardown);
  tcase_add_test(tcase, a_plan_reaches_everybody);
  tcase_add_test(tcase, nothing_but_a_header_when_idle);
  tcase_add_test(tcase, a_broadcast_that_fails_is_made_up_for);
  tcase_add_test(tcase, a_broadcast_that_only_begins);
  tcase_add_test(tcase, rewind_of_both);
  tcase_add_test(tcase, other_models_and_garbage);
  tcase_add_test(tcase, only_the_root_attaches);
  tcase_add_test(tcase, processes_agree);
  suite_add_tcase(suite, tcase);
  return suite;
}
