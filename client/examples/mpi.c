/* mpi.c - Freezer with MPI: the ranks of a linear regression, of which only the first is attached to freezerd. */
/*
 * mpirun -n 3 client/examples/mpi [STEPS [MICROSECONDS_PER_STEP]]
 *
 * Each process has data of its own; gradients are summed by MPI_Allreduce. Freezer's few bytes per step begin to be
 * broadcast at one step and are waited for at the next, in a communicator of their own. Rank 0 alone needs a freezerd.
 * Prints a line per rank and step: rank, step, generation, one digit per tensor (1: it trains), and the sum of the
 * weights in hexadecimal, which is the same to the last bit on all ranks.
 */
#include <errno.h>
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "client/freezer.h"

enum { TENSORS = 4, WIDTH = 8, BATCH = 16 };

/* One broadcast is under way at a time. */
struct plans {
  MPI_Comm comm;
  MPI_Request request;
};

struct model {
  float weights[TENSORS][WIDTH], gradients[TENSORS][WIDTH];
  bool requires_grad[TENSORS];
};

static int begin_broadcast(void *user, void *data, size_t size) {
  struct plans *plans = user;
  if (size > INT32_MAX)
    return -EMSGSIZE;
  return MPI_Ibcast(data, (int)size, MPI_BYTE, 0, plans->comm, &plans->request) == MPI_SUCCESS ? 0 : -EIO;
}

static int end_broadcast(void *user) {
  struct plans *plans = user;
  return MPI_Wait(&plans->request, MPI_STATUS_IGNORE) == MPI_SUCCESS ? 0 : -EIO;
}

static void say(void *user, int level, const char *message) {
  (void)level;
  (void)fprintf(stderr, "mpi rank %d: %s\n", *(const int *)user, message);
}

static float uniform(unsigned *state) { return (float)rand_r(state) / (float)RAND_MAX - 0.5F; }

/* Squared error of a batch against the sum of all inputs; what is frozen needs no gradient. */
static void backward(struct model *model, unsigned *data) {
  for (int i = 0; i < BATCH; i++) {
    float x[TENSORS][WIDTH], error = 0;
    for (int t = 0; t < TENSORS; t++)
      for (int j = 0; j < WIDTH; j++) {
        x[t][j] = uniform(data);
        error += (model->weights[t][j] - 1) * x[t][j];
      }
    for (int t = 0; t < TENSORS; t++)
      for (int j = 0; j < WIDTH && model->requires_grad[t]; j++)
        model->gradients[t][j] += 2 * error * x[t][j] / BATCH;
  }
}

static void update(struct model *model, int world) {
  for (int t = 0; t < TENSORS; t++)
    if (model->requires_grad[t]) {
      (void)MPI_Allreduce(MPI_IN_PLACE, model->gradients[t], WIDTH, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
      for (int j = 0; j < WIDTH; j++) {
        model->weights[t][j] -= 0.1F * model->gradients[t][j] / (float)world;
        model->gradients[t][j] = 0;
      }
    }
}

static void print_step(const struct model *model, int rank, unsigned long step, unsigned long generation) {
  char mask[TENSORS + 1] = "";
  float sum = 0;
  for (int t = 0; t < TENSORS; t++) {
    mask[t] = model->requires_grad[t] ? '1' : '0';
    for (int j = 0; j < WIDTH; j++)
      sum += model->weights[t][j] * (float)(t * WIDTH + j + 1);
  }
  (void)printf("%d %lu %lu %s %a\n", rank, step, generation, mask, (double)sum);
}

static void train(freezer_t *f, struct model *model, int rank, int world, unsigned long steps, useconds_t pause) {
  unsigned data = (unsigned)rank + 1;
  for (unsigned long step = 0; step < steps; step++) {
    size_t index;
    bool flag;
    if (freezer_batch_begin(f, step, 0) == 1)
      while (freezer_next_change(f, &index, &flag) == 1)
        model->requires_grad[index] = flag;
    backward(model, &data);
    update(model, world);
    print_step(model, rank, step, freezer_generation(f));
    (void)usleep(pause);
  }
}

int main(int argc, char **argv) {
  static const freezer_param_t params[TENSORS] = {
    { .name = "a", .elements = WIDTH, .requires_grad = true },
    { .name = "b", .elements = WIDTH, .requires_grad = true },
    { .name = "c", .elements = WIDTH, .requires_grad = true },
    { .name = "d", .elements = WIDTH, .requires_grad = true },
  };
  struct model model = { .requires_grad = { true, true, true, true } };
  struct plans plans = { .request = MPI_REQUEST_NULL };
  int rank, world;
  (void)MPI_Init(&argc, &argv);
  (void)MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  (void)MPI_Comm_size(MPI_COMM_WORLD, &world);
  (void)MPI_Comm_dup(MPI_COMM_WORLD, &plans.comm); /* so that Freezer's messages meet none of the training's */
  (void)MPI_Comm_set_errhandler(plans.comm, MPI_ERRORS_RETURN);
  const unsigned long steps = argc > 1 ? strtoul(argv[1], NULL, 10) : 1000;
  const useconds_t pause = argc > 2 ? (useconds_t)strtoul(argv[2], NULL, 10) : 10000;
  (void)setvbuf(stdout, NULL, _IOLBF, 0);

  freezer_options_t options = FREEZER_OPTIONS_INIT;
  options.framework = "mpi";
  options.log = say;
  options.log_user = &rank;
  options.broadcast = begin_broadcast;
  options.broadcast_wait = end_broadcast;
  options.broadcast_user = &plans;
  options.broadcast_root = rank == 0;
  freezer_t *f = NULL;
  const int r = freezer_open(&f, &options, params, TENSORS);
  if (r < 0) {
    (void)fprintf(stderr, "mpi rank %d: %s\n", rank, freezer_strerror(r));
    (void)MPI_Abort(MPI_COMM_WORLD, 1);
  }
  train(f, &model, rank, world, steps, pause);
  (void)end_broadcast(&plans); /* the last step's: no step comes that would wait for it, and the header is f's */
  freezer_close(f);
  (void)MPI_Comm_free(&plans.comm);
  (void)MPI_Finalize();
  return 0;
}
