/* check_charlm_ranks.c - charlm's ranks: the same bits on all of them, and an end when one dies. */
#include "config.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <unistd.h>

#include "client/examples/allreduce.h"
#include "client/examples/random.h"
#include "client/examples/ranks.h"
#include "tests/runner.h"

enum { RANKS = 3, NUMBERS = 1001, ROUNDS = 50 };

/* What the ranks of a test share with it. */
struct board {
  struct allreduce *allreduce;
  float results[RANKS][NUMBERS];
  int outcomes[RANKS];
  pid_t pids[RANKS];
};

static struct board *new_board(void) {
  struct board *board = mmap(NULL, sizeof *board, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  ck_assert_ptr_ne(board, MAP_FAILED);
  ck_assert_int_eq(allreduce_new(&board->allreduce, RANKS, NUMBERS), 0);
  return board;
}

static void free_board(struct board *board) {
  allreduce_free(board->allreduce);
  munmap(board, sizeof *board);
}

/* The ranks' complaints are expected: they must not look like the test's own. */
static void be_quiet(void) {
  const int fd = open("/dev/null", O_WRONLY);
  ck_assert_int_ge(fd, 0);
  dup2(fd, STDERR_FILENO);
  close(fd);
}

static void fill(float *numbers, unsigned rank, unsigned round) {
  for (unsigned i = 0; i < NUMBERS; i++) {
    numbers[i] = random_normal(rank, round, i);
  }
}

static int average_rounds(void *user, unsigned rank) {
  struct board *board = user;
  float *numbers = board->results[rank];
  for (unsigned round = 0; round < ROUNDS; round++) {
    fill(numbers, rank, round);
    /* two spans, so that the seam is somewhere */
    const struct span spans[] = { { numbers, 7 }, { numbers + 7, NUMBERS - 7 } };
    board->outcomes[rank] = allreduce_mean(board->allreduce, rank, round, spans, 2);
    if (board->outcomes[rank] != 0) {
      return EXIT_FAILURE;
    }
  }
  return EXIT_SUCCESS;
}

START_TEST(all_ranks_find_the_same_mean)
{
  struct board *board = new_board();
  float numbers[RANKS][NUMBERS];
  ck_assert_int_eq(ranks_run(RANKS, board->allreduce, average_rounds, board), EXIT_SUCCESS);
  for (unsigned rank = 0; rank < RANKS; rank++) {
    fill(numbers[rank], rank, ROUNDS - 1);
    ck_assert_mem_eq(board->results[rank], board->results[0], sizeof board->results[0]);
  }
  for (unsigned i = 0; i < NUMBERS; i++) {
    ck_assert_float_eq_tol(board->results[0][i], (numbers[0][i] + numbers[1][i] + numbers[2][i]) / 3, 1e-6F);
  }
  free_board(board);
}
END_TEST

static int disagree(void *user, unsigned rank) {
  struct board *board = user;
  const struct span span = { board->results[rank], NUMBERS };
  board->outcomes[rank] = allreduce_mean(board->allreduce, rank, rank == 1 ? 5 : 4, &span, 1);
  return EXIT_SUCCESS;
}

START_TEST(all_ranks_learn_of_a_disagreement)
{
  struct board *board = new_board();
  ck_assert_int_eq(ranks_run(RANKS, board->allreduce, disagree, board), EXIT_SUCCESS);
  for (unsigned rank = 0; rank < RANKS; rank++) {
    ck_assert_int_eq(board->outcomes[rank], ALLREDUCE_DISAGREE);
  }
  free_board(board);
}
END_TEST

static int die_in_the_middle(void *user, unsigned rank) {
  struct board *board = user;
  const struct span span = { board->results[rank], NUMBERS };
  for (unsigned round = 0;; round++) {
    if (rank == 1 && round == 10) {
      raise(SIGKILL);
    }
    board->outcomes[rank] = allreduce_mean(board->allreduce, rank, round, &span, 1);
    if (board->outcomes[rank] != 0) {
      return EXIT_FAILURE;
    }
  }
}

START_TEST(a_killed_rank_ends_the_others)
{
  struct board *board = new_board();
  be_quiet();
  ck_assert_int_eq(ranks_run(RANKS, board->allreduce, die_in_the_middle, board), EXIT_FAILURE);
  ck_assert_int_eq(board->outcomes[0], ALLREDUCE_BROKEN);
  ck_assert_int_eq(board->outcomes[1], 0);
  ck_assert_int_eq(board->outcomes[2], ALLREDUCE_BROKEN);
  free_board(board);
}
END_TEST

/* Each rank trains until one of them has been told to stop: all must leave after the same round. */
static int stop_together(void *user, unsigned rank) {
  struct board *board = user;
  float stop = 0;
  const struct span span = { &stop, 1 };
  while (board->outcomes[rank] == 0 && stop == 0) {
    if (rank == 2 && board->results[2][0] == 20) {
      kill(getppid(), SIGTERM);
    }
    stop = ranks_should_stop() ? 1 : 0;
    board->outcomes[rank] = allreduce_mean(board->allreduce, rank, 0, &span, 1);
    board->results[rank][0]++;
  }
  return board->outcomes[rank];
}

START_TEST(a_signal_stops_all_ranks_at_one_step)
{
  struct board *board = new_board();
  ck_assert_int_eq(ranks_run(RANKS, board->allreduce, stop_together, board), EXIT_SUCCESS);
  ck_assert_float_gt(board->results[0][0], 20);
  for (unsigned rank = 1; rank < RANKS; rank++) {
    ck_assert_float_eq(board->results[rank][0], board->results[0][0]);
  }
  free_board(board);
}
END_TEST

Suite *fz_suite(void) {
  Suite *suite = suite_create("charlm_ranks");
  TCase *ranks = tcase_create("ranks");
  tcase_set_timeout(ranks, 20);
  tcase_add_test(ranks, all_ranks_find_the_same_mean);
  tcase_add_test(ranks, all_ranks_learn_of_a_disagreement);
  tcase_add_test(ranks, a_killed_rank_ends_the_others);
  tcase_add_test(ranks, a_signal_stops_all_ranks_at_one_step);
  suite_add_tcase(suite, ranks);
  return suite;
}
