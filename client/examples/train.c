/* train.c - charlm's loop: each step asks Freezer which tensors train, and does no work for the others. */
#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "client/examples/checkpoint.h"
#include "client/examples/hash.h"
#include "client/examples/ranks.h"
#include "client/examples/report.h"
#include "client/examples/train.h"
#include "client/freezer.h"

/* One rank's loop. */
struct loop {
  struct train *train;
  unsigned rank;
  freezer_t *freezer;
  bool *trains; /* per tensor */
  unsigned char *tokens, *targets;
  struct span *spans; /* one per tensor, and one for what else is averaged */
  struct report report;
  struct report_flags flags;
  int last_error; /* of Freezer, so that one that stays is said once */
};

/* The loss and the wish to stop travel with the gradients. */
enum { AVERAGED_LOSS, AVERAGED_STOP, AVERAGED_EXTRA };

/* Every so many steps the ranks compare their parameters, all bits of them. */
enum { COMPARE_EVERY = 64 };

size_t train_averaged(const struct training *training) { return training->model->elements + AVERAGED_EXTRA; }

static void complain(const struct loop *loop, const char *sentence) {
  fprintf(stderr, "charlm: rank %u, step %" PRIu64 ": %s\n", loop->rank, loop->train->training.step, sentence);
}

static void log_freezer(void *user, int level, const char *message) {
  const struct loop *loop = user;
  (void)level;
  fprintf(stderr, "charlm: rank %u: freezer: %s\n", loop->rank, message);
}

static uint64_t epoch_of(const struct training *training) { return training->step / training->settings.epoch_steps; }

/* Registers the tensors in forward order; all of them train unless Freezer says otherwise. */
static int open_freezer(struct loop *loop) {
  const struct training *training = &loop->train->training;
  const struct model *model = training->model;
  freezer_param_t *params = calloc(model->count, sizeof *params);
  if (params == NULL) {
    complain(loop, "no memory");
    return -ENOMEM;
  }
  for (size_t i = 0; i < model->count; i++) {
    params[i] = (freezer_param_t){ .name = model->tensors[i].name,
                                   .elements = model->tensors[i].elements,
                                   .requires_grad = true };
  }
  freezer_options_t options = FREEZER_OPTIONS_INIT;
  options.run = loop->train->options->run;
  options.framework = "charlm";
  options.rank = loop->rank;
  options.world = (uint32_t)training->settings.ranks;
  options.step = training->step;
  options.epoch = epoch_of(training);
  options.log = log_freezer;
  options.log_user = loop;
  const int result = freezer_open(&loop->freezer, &options, params, model->count);
  free(params);
  if (result < 0) {
    complain(loop, freezer_strerror(result));
  }
  return result;
}

static uint64_t trainable_elements(const struct loop *loop) {
  const struct model *model = loop->train->training.model;
  uint64_t elements = 0;
  for (size_t i = 0; i < model->count; i++) {
    elements += loop->trains[i] ? model->tensors[i].elements : 0;
  }
  return elements;
}

/* Takes over the flags that changed. A tensor that is now frozen loses its gradient, so that nothing old is applied. */
static void apply_changes(struct loop *loop) {
  const struct model *model = loop->train->training.model;
  uint64_t froze = 0, unfroze = 0;
  size_t index;
  bool requires_grad;
  while (freezer_next_change(loop->freezer, &index, &requires_grad) == 1) {
    if (!requires_grad) {
      memset(model->gradients + model->tensors[index].offset, 0,
             model->tensors[index].elements * sizeof *model->gradients);
    }
    froze += loop->trains[index] && !requires_grad;
    unfroze += !loop->trains[index] && requires_grad;
    loop->trains[index] = requires_grad;
  }
  loop->flags.generation = freezer_generation(loop->freezer);
  loop->flags.first_trainable = freezer_first_trainable(loop->freezer);
  loop->flags.trainable = trainable_elements(loop);
  if (froze + unfroze > 0) {
    report_change(&loop->report, &loop->train->training, &loop->flags, froze, unfroze);
  }
}

static void begin_batch(struct loop *loop) {
  const struct training *training = &loop->train->training;
  loop->flags.step = training->step;
  loop->flags.epoch = epoch_of(training);
  const int result = freezer_batch_begin(loop->freezer, loop->flags.step, loop->flags.epoch);
  if (result == 1) {
    apply_changes(loop);
  } else if (result < 0 && result != loop->last_error) {
    complain(loop, freezer_strerror(result));
  }
  loop->last_error = result < 0 ? result : 0;
  loop->flags.generation = freezer_generation(loop->freezer);
}

/*
 * What the ranks must agree on: at which step they are, which tensors train, and now and then what they hold. They do,
 * because Freezer gives all of them each change at the same step; this proves it.
 */
static uint64_t signature_of(const struct loop *loop) {
  const struct training *training = &loop->train->training;
  const struct model *model = training->model;
  uint64_t hash = hash_bytes(HASH_START, &training->step, sizeof training->step);
  hash = hash_bytes(hash, loop->trains, model->count * sizeof *loop->trains);
  return training->step % COMPARE_EVERY == 0
           ? hash_bytes(hash, model->parameters, model->elements * sizeof *model->parameters)
           : hash;
}

/* Averages loss, wish to stop and the gradients of what trains. */
static int average(struct loop *loop, float extra[AVERAGED_EXTRA]) {
  const struct train *train = loop->train;
  const struct model *model = train->training.model;
  if (train->allreduce == NULL) {
    return 0;
  }
  size_t count = 0;
  loop->spans[count++] = (struct span){ extra, AVERAGED_EXTRA };
  for (size_t i = 0; i < model->count; i++) {
    if (loop->trains[i]) {
      loop->spans[count++] = (struct span){ model->gradients + model->tensors[i].offset, model->tensors[i].elements };
    }
  }
  switch (allreduce_mean(train->allreduce, loop->rank, signature_of(loop), loop->spans, count)) {
  case 0:
    return 0;
  case ALLREDUCE_DISAGREE:
    complain(loop, "the ranks no longer agree about what trains or what they hold; this is a bug, here or in Freezer");
    return -EPROTO;
  default:
    complain(loop,
             "another rank is gone, so this one ends; to go on, start charlm with --resume and the last checkpoint");
    return -EPIPE;
  }
}

static double now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

/* One step. Returns 1 when all ranks are to stop after it, 0 to go on, a negative errno value after saying why. */
static int train_step(struct loop *loop) {
  struct training *training = &loop->train->training;
  struct model *model = training->model;
  const double begin = now_ms();
  begin_batch(loop);
  const struct batch_place place = { training->settings.seed, training->step, loop->rank };
  text_batch(loop->tokens, loop->targets, &loop->train->text, place, model->shape.batch, model->shape.context);
  float extra[AVERAGED_EXTRA] = {
    [AVERAGED_LOSS] = (float)model_forward(model, loop->tokens, loop->targets),
    [AVERAGED_STOP] = ranks_should_stop() ? 1 : 0,
  };
  model_backward(model, loop->trains, freezer_first_trainable(loop->freezer));
  const int result = average(loop, extra);
  if (result < 0) {
    return result;
  }
  if (!isfinite(extra[AVERAGED_LOSS])) {
    complain(loop, "the loss is no longer finite: start again with a smaller --lr");
    return -ERANGE;
  }
  adamw_update(&training->adamw, model, loop->trains, training->settings.rates);
  freezer_metric(loop->freezer, "loss", (double)extra[AVERAGED_LOSS]);
  training->step++;
  report_step(&loop->report, training, &loop->flags, (double)extra[AVERAGED_LOSS], now_ms() - begin);
  return extra[AVERAGED_STOP] > 0;
}

/* The first rank saves for all: the others hold the same bits. */
static int save(const struct loop *loop) {
  const char *file = loop->train->options->checkpoint;
  struct problem problem = { "" };
  if (loop->rank != 0 || file == NULL) {
    return 0;
  }
  const int result = checkpoint_save(file, &loop->train->training, &problem);
  if (result < 0) {
    complain(loop, problem.text);
    return result;
  }
  report_save(&loop->report, &loop->train->training, file);
  return 0;
}

static void rest(uint64_t microseconds) {
  const struct timespec time = { (time_t)(microseconds / 1000000), (long)(microseconds % 1000000) * 1000 };
  if (microseconds > 0) {
    nanosleep(&time, NULL);
  }
}

static int train_steps(struct loop *loop) {
  const struct options *options = loop->train->options;
  const struct training *training = &loop->train->training;
  const uint64_t end = options->steps == 0 ? STEP_LIMIT - 1 : options->steps;
  int result = 0;
  report_start(&loop->report, training);
  while (result == 0 && training->step < end) {
    result = train_step(loop);
    const bool last = result != 0 || training->step >= end;
    if (result >= 0 && !last && training->step % options->checkpoint_every == 0) {
      /* A full disk now need not be one at the end: training goes on, and the last checkpoint is still there. */
      (void)save(loop);
    }
    if (!last) {
      rest(options->step_delay_us);
    }
  }
  if (result < 0 || save(loop) < 0) {
    return EXIT_FAILURE;
  }
  report_end(&loop->report, training, result == 1);
  return EXIT_SUCCESS;
}

static int allocate(struct loop *loop) {
  const struct model *model = loop->train->training.model;
  const size_t rows = model->shape.batch * model->shape.context;
  loop->trains = malloc(model->count * sizeof *loop->trains);
  loop->tokens = malloc(rows);
  loop->targets = malloc(rows);
  loop->spans = malloc((model->count + 1) * sizeof *loop->spans);
  if (loop->trains == NULL || loop->tokens == NULL || loop->targets == NULL || loop->spans == NULL) {
    complain(loop, "no memory");
    return -ENOMEM;
  }
  for (size_t i = 0; i < model->count; i++) {
    loop->trains[i] = true;
  }
  loop->flags.trainable = model->elements;
  return 0;
}

int train_rank(void *user, unsigned rank) {
  struct train *train = user;
  const struct options *options = train->options;
  struct loop loop = {
    .train = train,
    .rank = rank,
    .report = {
      .silent = rank != 0,
      .json = options->json_log,
      .hashes = options->dump_hash,
      .every = options->log_every,
    },
  };
  int status = EXIT_FAILURE;
  if (allocate(&loop) == 0 && open_freezer(&loop) == 0) {
    status = train_steps(&loop);
  }
  freezer_close(loop.freezer);
  free(loop.spans);
  free(loop.targets);
  free(loop.tokens);
  free(loop.trains);
  return status;
}
