/* check_gate.c - the gate and the plan ring under real processes: ranks never differ at a step. */
#include "config.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "protocol/mask.h"
#include "protocol/segment.h"
#include "tests/runner.h"

/*
 * N processes step through the gate as trainers do, each with a map of its own, while the test publishes plan after
 * plan. Every rank notes the gen that it used at each step in memory that all share. At the end the notes are judged by
 * an oracle that knows nothing of the gate: at step s, every rank must have used the newest gen of all that were ever
 * published with active_from <= s. That is more than that they agree: it is what the argument in segment.h promises.
 */
enum { RANKS_MAX = 6, STEPS_MAX = 40000, GENS_MAX = 200000, PARAMS = 130 };

struct shared {
  _Atomic uint32_t used[RANKS_MAX][STEPS_MAX]; /* gen + 1; 0: this rank did not come to this step */
  _Atomic uint64_t at[RANKS_MAX];              /* step that the rank is at, for bounded skew */
  _Atomic uint32_t n_ready, n_ended;
  _Atomic bool run_free; /* nobody waits for plans any more */
  _Atomic bool stop;
  _Atomic uint64_t n_changes; /* plans taken */
  uint64_t active_from[GENS_MAX];
};

struct setup {
  uint32_t world;
  uint64_t steps;
  uint64_t skew;    /* how far ranks may be apart, 0: any */
  uint64_t margin;  /* between the gate and the target of a plan */
  unsigned join_us; /* rank r joins r times this late, having trained without the gate meanwhile */
  unsigned n_masks; /* masks in each plan: how long a copy takes */
  uint64_t pace;    /* every so many steps a rank waits for a plan newer than its own, 0: never */
};

static struct shared *shared;
static fz_segment *segment;
static char name[FZ_SEGMENT_NAME_MAX + 1];
static pid_t pids[RANKS_MAX];

static uint64_t random_next(uint64_t *state) {
  *state ^= *state << 13;
  *state ^= *state >> 7;
  *state ^= *state << 17;
  return *state;
}

static uint64_t mask_word(uint64_t gen, size_t mask, size_t word) {
  uint64_t state = gen * 1000003 + mask * 101 + word + 1;
  return random_next(&state);
}

/* Of ranks and publishers, which are killed: they must not write to the file in which Check counts. */
__attribute__((format(printf, 1, 2))) static void give_up(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vfprintf(stderr, format, arguments);
  va_end(arguments);
  atomic_store(&shared->stop, true);
  _exit(1);
}

/* What the publisher puts into the plan of `gen`. */
static void make_plan(fz_plan *plan, uint64_t gen, uint64_t active_from, unsigned n_masks) {
  plan->gen = gen;
  plan->active_from = active_from;
  plan->n_params = PARAMS;
  plan->n_rows = plan->n_masks = n_masks;
  const size_t words = fz_mask_words(PARAMS);
  for (size_t m = 0; m < n_masks; m++) {
    plan->rows[m] =
      (struct fz_plan_row){ .from_step = m * gen, .from_epoch = m, .mask = (uint32_t)m, .edge = (uint32_t)gen };
    for (size_t w = 0; w < words; w++)
      plan->masks[m * words + w] = mask_word(gen, m, w);
    plan->masks[(m + 1) * words - 1] &= (UINT64_C(1) << (PARAMS % 64)) - 1;
  }
}

/* A plan that was never published, or is torn, differs from what its gen says. */
static bool is_plan(const fz_plan *plan, unsigned n_masks) {
  const size_t words = fz_mask_words(PARAMS);
  if (plan->n_rows != n_masks || plan->n_masks != n_masks || plan->n_params != PARAMS)
    return false;
  for (size_t m = 0; m < n_masks; m++) {
    if (plan->rows[m].from_step != m * plan->gen || plan->rows[m].edge != plan->gen || plan->rows[m].mask != m)
      return false;
    for (size_t w = 0; w + 1 < words; w++)
      if (plan->masks[m * words + w] != mask_word(plan->gen, m, w))
        return false;
  }
  return true;
}

static void pause_randomly(uint64_t *random) {
  const uint64_t r = random_next(random);
  if (r % 64 == 0)
    sched_yield();
  for (volatile uint64_t i = r % 256; i > 0; i--)
    ;
}

static void wait_for_others(const struct setup *setup, uint32_t rank, uint64_t step) {
  atomic_store(&shared->at[rank], step);
  if (setup->skew == 0)
    return;
  for (uint32_t r = 0; r < setup->world; r++)
    while (atomic_load(&shared->at[r]) + setup->skew < step && !atomic_load(&shared->stop))
      sched_yield();
}

/* A trainer before its rank is attached: the baseline holds, noted as gen 0. Returns the step that it comes to. */
static uint64_t train_alone(const struct setup *setup, uint32_t rank) {
  struct timespec now, begin;
  clock_gettime(CLOCK_MONOTONIC, &begin);
  uint64_t step = 0;
  for (;; step++) {
    clock_gettime(CLOCK_MONOTONIC, &now);
    const int64_t us = (now.tv_sec - begin.tv_sec) * 1000000 + (now.tv_nsec - begin.tv_nsec) / 1000;
    if (us >= (int64_t)setup->join_us * rank || step + 1 >= setup->steps)
      return step;
    atomic_store(&shared->used[rank][step], 1);
    usleep(20);
  }
}

/* However seldom the publisher runs on a busy machine, it has a plan ahead of a rank that holds `gen`. */
static void wait_for_plan(const fz_segment *mine, uint64_t gen) {
  uint64_t started, newest = gen;
  while (newest == gen && newest + 1 < GENS_MAX && !atomic_load(&shared->run_free) && !atomic_load(&shared->stop)) {
    sched_yield();
    fz_gate_read(mine, &started, &newest);
  }
}

static _Noreturn void rank_main(const struct setup *setup, uint32_t rank) {
  fz_segment *mine = NULL;
  fz_plan plan = FZ_PLAN_NULL, spare = FZ_PLAN_NULL;
  uint64_t random = rank * 7919 + 1, step = setup->join_us ? train_alone(setup, rank) : 0;
  if (fz_segment_open(&mine, name, false) < 0 || fz_plan_reserve(&plan, mine) < 0 || fz_plan_reserve(&spare, mine) < 0)
    give_up("rank %u cannot map\n", (unsigned)rank);
  fz_rank_enter(mine, rank, (uint64_t)getpid());
  if (step > 0)
    (void)fz_gate_raise(mine, step - 1);
  atomic_fetch_add(&shared->n_ready, 1);

  for (; step < setup->steps; step++) {
    wait_for_others(setup, rank, step);
    if (atomic_load(&shared->n_ready) < setup->world)
      usleep(20); /* there is no plan before all have joined: this rank goes on, at a trainer's pace */
    else if (setup->pace && step % setup->pace == 0)
      wait_for_plan(mine, plan.gen);
    pause_randomly(&random);
    const uint64_t newest = fz_gate_raise(mine, step);
    pause_randomly(&random);
    const int r = fz_segment_choose(mine, step, newest, plan.gen, &spare);
    if (r == 0) {
      const fz_plan old = plan;
      plan = spare;
      spare = old;
      if (!is_plan(&plan, setup->n_masks))
        give_up("rank %u, step %llu: a plan that was never published\n", (unsigned)rank, (unsigned long long)step);
      atomic_fetch_add(&shared->n_changes, 1);
      fz_rank_hold(mine, rank, plan.gen);
    } else if (r != FZ_CHOOSE_HELD) {
      give_up("rank %u, step %llu: a slot that this rank needs was overwritten\n", (unsigned)rank,
              (unsigned long long)step);
    }
    fz_rank_note(mine, rank, step, 0);
    atomic_store(&shared->used[rank][step], (uint32_t)plan.gen + 1);
  }
  fz_rank_leave(mine, rank);
  atomic_store(&shared->at[rank], UINT64_MAX / 2);
  atomic_fetch_add(&shared->n_ended, 1);
  _exit(0);
}

static void begin(const struct setup *setup) {
  fz_params *params = NULL;
  ck_assert_int_eq(fz_params_new(&params), 0);
  for (int i = 0; i < PARAMS; i++) {
    char text[32];
    const int n = snprintf(text, sizeof(text), "layer.%d", i);
    ck_assert_int_eq(fz_params_add(params, text, (size_t)n, 1, true, NULL, NULL), 0);
  }
  ck_assert_int_eq(fz_params_seal(params, NULL), 0);
  const fz_segment_info info = { .run = "gate", .run_key = "0123456789abcdef", .job = "job", .world = setup->world };
  (void)snprintf(name, sizeof(name), "/freezer-check-gate.%ld", (long)getpid());
  ck_assert_int_eq(fz_segment_create(&segment, name, &info, params), 0);
  fz_params_unref(params);
  shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  ck_assert_ptr_ne(shared, MAP_FAILED);
  for (uint32_t rank = 0; rank < setup->world; rank++) {
    pids[rank] = fork();
    ck_assert_int_ge(pids[rank], 0);
    if (pids[rank] == 0)
      rank_main(setup, rank);
  }
}

/* One publication, tried until it is in or the ranks have ended. */
static bool publish(const struct setup *setup, fz_plan *plan, uint64_t *last_active_from) {
  uint64_t margin = setup->margin;
  while (atomic_load(&shared->n_ended) < setup->world && !atomic_load(&shared->stop)) {
    uint64_t started, newest;
    fz_gate_read(segment, &started, &newest);
    uint64_t target = started + margin;
    if (target < *last_active_from)
      target = *last_active_from;
    make_plan(plan, newest + 1, target, setup->n_masks);
    const int r = fz_segment_publish(segment, plan);
    if (r == 0) {
      shared->active_from[plan->gen] = *last_active_from = target;
      return true;
    }
    if (r != FZ_PUBLISH_LATE && r != FZ_PUBLISH_FULL)
      give_up("fz_segment_publish(): %d\n", r);
    if (r == FZ_PUBLISH_LATE)
      margin = margin ? margin * 2 : 1;
    else
      sched_yield();
  }
  return false;
}

/* Publishes as fast as it goes. Returns the newest gen. */
static uint64_t publish_all(const struct setup *setup, uint64_t n_most) {
  fz_plan plan = FZ_PLAN_NULL;
  const int r = fz_plan_reserve(&plan, segment);
  if (r < 0)
    give_up("fz_plan_reserve(): %d\n", r);
  while (atomic_load(&shared->n_ready) < setup->world) /* the joining rule */
    usleep(100);
  uint64_t last = 0, started, newest;
  fz_gate_read(segment, &started, &newest);
  if (newest > 0)
    last = shared->active_from[newest];
  for (uint64_t n = 0; n < n_most && newest + 1 < GENS_MAX && publish(setup, &plan, &last); n++)
    newest++;
  fz_plan_deinit(&plan);
  return newest;
}

static void end(const struct setup *setup) {
  for (uint32_t rank = 0; rank < setup->world; rank++) {
    int status;
    ck_assert_int_eq(waitpid(pids[rank], &status, 0), pids[rank]);
    ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "rank %u ended with %d", (unsigned)rank, status);
  }
}

static void judge(const struct setup *setup, uint64_t n_gens) {
  uint64_t newest = 0;
  for (uint64_t step = 0; step < setup->steps; step++) {
    while (newest < n_gens && shared->active_from[newest + 1] <= step)
      newest++;
    for (uint32_t rank = 0; rank < setup->world; rank++) {
      const uint32_t used = atomic_load(&shared->used[rank][step]);
      ck_assert_msg(used == newest + 1, "step %llu: rank %u used gen %d, the newest active is %llu",
                    (unsigned long long)step, (unsigned)rank, (int)used - 1, (unsigned long long)newest);
    }
  }
}

static void drop(void) {
  if (name[0])
    (void)fz_segment_unlink(name);
  segment = fz_segment_free(segment);
}

static const struct setup setups[] = {
  { .world = 2, .steps = 40000, .pace = 1000, .skew = 1, .margin = 0, .n_masks = 2 },
  { .world = 4, .steps = 20000, .pace = 500, .skew = 2, .margin = 0, .n_masks = 3 },
  { .world = 4, .steps = 20000, .pace = 500, .skew = 0, .margin = 1, .n_masks = 3 },
  { .world = 6, .steps = 5000, .pace = 125, .skew = 3, .margin = 5, .n_masks = 200 },
  { .world = 1, .steps = 40000, .pace = 1000, .skew = 0, .margin = 0, .n_masks = 1 },
};

START_TEST(ranks_agree)
{
  const struct setup *setup = &setups[_i];
  begin(setup);
  const uint64_t n_gens = publish_all(setup, UINT64_MAX);
  end(setup);
  judge(setup, n_gens);
  ck_assert_uint_gt(n_gens, FZ_PLAN_SLOTS); /* the ring went round */
  ck_assert_uint_gt(atomic_load(&shared->n_changes), 10);
}
END_TEST

/* Each rank trains on alone until it joins: up to then, and until the first plan, all have the baseline. */
START_TEST(ranks_join_late)
{
  const struct setup setup = {
    .world = 4, .steps = 12000, .pace = 500, .skew = 0, .margin = 0, .join_us = 60000, .n_masks = 2
  };
  begin(&setup);
  const uint64_t n_gens = publish_all(&setup, UINT64_MAX);
  end(&setup);
  judge(&setup, n_gens);
  ck_assert_uint_gt(n_gens, 0);
  ck_assert_uint_gt(shared->active_from[1], 0);
}
END_TEST

START_TEST(stopped_rank_blocks_nobody)
{
  const struct setup setup = { .world = 3, .steps = 30000, .pace = 500, .skew = 0, .margin = 0, .n_masks = 2 };
  begin(&setup);
  uint64_t n_gens = publish_all(&setup, 1);
  ck_assert_int_eq(kill(pids[1], SIGSTOP), 0);
  int status;
  ck_assert_int_eq(waitpid(pids[1], &status, WUNTRACED), pids[1]);
  ck_assert(WIFSTOPPED(status));
  atomic_store(&shared->run_free, true);

  /* The others run to their end while the ring fills and no further. */
  fz_plan plan = FZ_PLAN_NULL;
  ck_assert_int_eq(fz_plan_reserve(&plan, segment), 0);
  uint64_t last = shared->active_from[n_gens];
  int r = 0;
  const uint64_t held = fz_rank_read(segment, 1).gen;
  while (atomic_load(&shared->n_ended) < 2 || r != FZ_PUBLISH_FULL) {
    uint64_t started, newest;
    fz_gate_read(segment, &started, &newest);
    last = started + 2 > last ? started + 2 : last;
    make_plan(&plan, newest + 1, last, setup.n_masks);
    r = fz_segment_publish(segment, &plan);
    if (r == 0) {
      shared->active_from[plan.gen] = last;
      n_gens = plan.gen;
    }
    usleep(10);
  }
  ck_assert_int_eq(r, FZ_PUBLISH_FULL);
  ck_assert_uint_eq(n_gens, held + FZ_PLAN_SLOTS - 1 + (held == 0));

  ck_assert_int_eq(kill(pids[1], SIGCONT), 0);
  fz_plan_deinit(&plan);
  end(&setup);
  judge(&setup, n_gens);
}
END_TEST

/* A freezerd that was killed between writing a slot and publishing it leaves nothing that anybody sees. */
START_TEST(killed_between_write_and_publish)
{
  const struct setup setup = { .world = 2, .steps = 20000, .skew = 1, .margin = 0, .n_masks = 50 };
  begin(&setup);
  uint64_t n_gens = 0;
  while (atomic_load(&shared->n_ended) < setup.world) {
    const pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
      (void)publish_all(&setup, UINT64_MAX);
      _exit(0);
    }
    usleep(3000);
    (void)kill(pid, SIGKILL);
    int status;
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_msg(WIFSIGNALED(status) || WEXITSTATUS(status) == 0, "a publisher gave up");
    /* Like a new freezerd: what it published is what the gate says, its target is in the slot. */
    uint64_t started;
    fz_gate_read(segment, &started, &n_gens);
    fz_plan plan = FZ_PLAN_NULL;
    ck_assert_int_eq(fz_plan_reserve(&plan, segment), 0);
    if (n_gens > 0) {
      ck_assert_int_eq(fz_segment_read_plan(segment, n_gens, &plan), 0);
      shared->active_from[n_gens] = plan.active_from;
    }
    fz_plan_deinit(&plan);
  }
  end(&setup);
  judge(&setup, n_gens);
}
END_TEST

/* What the processes above come to by chance, step by step. */
START_TEST(one_step_at_a_time)
{
  const struct setup setup = { .world = 2, .n_masks = 1 };
  begin(&(const struct setup){ .world = 2, .steps = 0 });
  end(&setup);
  uint64_t started, gen;
  fz_gate_read(segment, &started, &gen);
  ck_assert_uint_eq(started, 0);
  ck_assert_uint_eq(gen, 0);

  fz_plan plan = FZ_PLAN_NULL, out = FZ_PLAN_NULL;
  ck_assert_int_eq(fz_plan_reserve(&plan, segment), 0);
  ck_assert_int_eq(fz_plan_reserve(&out, segment), 0);
  ck_assert_uint_eq(fz_gate_raise(segment, 4), 0);
  ck_assert_uint_eq(fz_gate_raise(segment, 2), 0); /* a slow rank lowers nothing */
  fz_gate_read(segment, &started, &gen);
  ck_assert_uint_eq(started, 5);

  make_plan(&plan, 1, 4, setup.n_masks);
  ck_assert_int_eq(fz_segment_publish(segment, &plan), FZ_PUBLISH_LATE);
  make_plan(&plan, 2, 5, setup.n_masks);
  ck_assert_int_eq(fz_segment_publish(segment, &plan), -EINVAL);
  make_plan(&plan, 1, 5, setup.n_masks);
  ck_assert_int_eq(fz_segment_publish(segment, &plan), 0);
  make_plan(&plan, 2, 4, setup.n_masks);
  ck_assert_int_eq(fz_segment_publish(segment, &plan), -EINVAL); /* active_from never decreases */
  make_plan(&plan, 2, 9, setup.n_masks);
  ck_assert_int_eq(fz_segment_publish(segment, &plan), 0);

  ck_assert_int_eq(fz_segment_choose(segment, 4, 2, 0, &out), FZ_CHOOSE_HELD);
  ck_assert_int_eq(fz_segment_choose(segment, 5, 2, 0, &out), 0);
  ck_assert_uint_eq(out.gen, 1);
  ck_assert_int_eq(fz_segment_choose(segment, 8, 2, 1, &out), FZ_CHOOSE_HELD);
  ck_assert_int_eq(fz_segment_choose(segment, 9, 2, 1, &out), 0);
  ck_assert_uint_eq(out.gen, 2);
  ck_assert(is_plan(&out, setup.n_masks));
  ck_assert_int_eq(fz_segment_choose(segment, 9, 2, 2, &out), FZ_CHOOSE_HELD);

  fz_plan_deinit(&plan);
  fz_plan_deinit(&out);
}
END_TEST

START_TEST(slots_are_kept_for_who_needs_them)
{
  begin(&(const struct setup){ .world = 3, .steps = 0 });
  end(&(const struct setup){ .world = 3 });
  fz_plan plan = FZ_PLAN_NULL;
  ck_assert_int_eq(fz_plan_reserve(&plan, segment), 0);
  fz_rank_enter(segment, 2, 1);
  for (uint64_t gen = 1; gen <= FZ_PLAN_SLOTS; gen++) {
    make_plan(&plan, gen, gen, 1);
    ck_assert_int_eq(fz_segment_publish(segment, &plan), 0);
  }
  make_plan(&plan, FZ_PLAN_SLOTS + 1, FZ_PLAN_SLOTS + 1, 1);
  ck_assert(!fz_segment_slot_free(segment, plan.gen));
  ck_assert_int_eq(fz_segment_publish(segment, &plan), FZ_PUBLISH_FULL);
  fz_rank_hold(segment, 2, 1); /* holds what the slot holds: still needed */
  ck_assert_int_eq(fz_segment_publish(segment, &plan), FZ_PUBLISH_FULL);
  fz_rank_hold(segment, 2, 2);
  ck_assert_int_eq(fz_segment_publish(segment, &plan), 0);
  ck_assert_int_eq(fz_segment_read_plan(segment, 1, &plan), FZ_CHOOSE_LOST);
  ck_assert_int_eq(fz_segment_choose(segment, 1, FZ_PLAN_SLOTS + 1, 0, &plan), FZ_CHOOSE_LOST);
  make_plan(&plan, FZ_PLAN_SLOTS + 2, FZ_PLAN_SLOTS + 2, 1);
  ck_assert_int_eq(fz_segment_publish(segment, &plan), FZ_PUBLISH_FULL);
  fz_rank_leave(segment, 2);
  ck_assert_int_eq(fz_segment_publish(segment, &plan), 0);
  fz_plan_deinit(&plan);
}
END_TEST

START_TEST(locks_tell_who_lives)
{
  begin(&(const struct setup){ .world = 2, .steps = 0 });
  end(&(const struct setup){ .world = 2 });
  int ready[2], go[2];
  ck_assert_int_eq(pipe(ready), 0);
  ck_assert_int_eq(pipe(go), 0);
  const pid_t pid = fork();
  if (pid == 0) {
    fz_segment *mine = NULL;
    char byte = 0;
    if (fz_segment_open(&mine, name, false) < 0 || fz_rank_lock(mine, 1) < 0 || write(ready[1], "r", 1) != 1)
      _exit(1);
    const pid_t child = fork(); /* a data loader: it outlives the rank, and keeps no lock */
    if (child == 0) {
      (void)close(go[1]);
      _exit(read(go[0], &byte, 1) < 0 ? 1 : 0);
    }
    pause();
  }
  char byte;
  ck_assert_int_eq(read(ready[0], &byte, 1), 1);
  ck_assert(fz_rank_is_locked(segment, 1));
  ck_assert(!fz_rank_is_locked(segment, 0));
  ck_assert_int_eq(fz_rank_lock(segment, 1), -EAGAIN);
  ck_assert_int_eq(kill(pid, SIGKILL), 0);
  ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
  ck_assert(!fz_rank_is_locked(segment, 1));
  ck_assert_int_eq(fz_rank_lock(segment, 1), 0);
}
END_TEST

Suite *fz_suite(void) {
  Suite *suite = suite_create("gate");
  TCase *exact = tcase_create("exact");
  tcase_add_checked_fixture(exact, NULL, drop);
  tcase_add_test(exact, one_step_at_a_time);
  tcase_add_test(exact, slots_are_kept_for_who_needs_them);
  tcase_add_test(exact, locks_tell_who_lives);
  suite_add_tcase(suite, exact);
  TCase *processes = tcase_create("processes");
  tcase_set_timeout(processes, 30);
  tcase_add_checked_fixture(processes, NULL, drop);
  tcase_add_loop_test(processes, ranks_agree, 0, sizeof(setups) / sizeof(setups[0]));
  tcase_add_test(processes, ranks_join_late);
  tcase_add_test(processes, stopped_rank_blocks_nobody);
  tcase_add_test(processes, killed_between_write_and_publish);
  suite_add_tcase(suite, processes);
  return suite;
}
