/* charlm.c - trains a small language model on characters, with tensors that Freezer may freeze while it runs. */
#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "client/examples/checkpoint.h"
#include "client/examples/options.h"
#include "client/examples/ranks.h"
#include "client/examples/train.h"

enum { EXIT_USAGE = 2 };

/* The text to learn from: named, in the environment, or the one that comes with the sources. */
static const char *text_path(const struct options *options) {
  const char *path = options->text != NULL ? options->text : getenv("CHARLM_TEXT");
  return path != NULL ? path : CHARLM_TEXT;
}

static uint64_t given(uint64_t value, uint64_t otherwise) { return value == NOT_GIVEN ? otherwise : value; }

static double given_rate(double value, double otherwise) { return isnan(value) ? otherwise : value; }

static int load_text(struct train *train, uint64_t context, struct problem *problem) {
  const char *path = text_path(train->options);
  const int result = text_load(&train->text, &train->training.vocabulary, path, problem);
  if (result == 0 && train->text.length <= context) {
    return problem_set(problem, -EINVAL, "the text %s has %zu characters, but --context %" PRIu64 " needs more", path,
                       train->text.length, context);
  }
  return result;
}

static int begin_new(struct train *train, struct problem *problem) {
  const struct options *o = train->options;
  const struct model_shape shape = {
    .layers = given(o->layers, 4),
    .width = given(o->width, 64),
    .heads = given(o->heads, 4),
    .context = given(o->context, 64),
    .batch = given(o->batch, 2),
  };
  const int loaded = load_text(train, shape.context, problem);
  if (loaded < 0) {
    return loaded;
  }
  struct settings settings = {
    .seed = given(o->seed, 1),
    .ranks = given(o->ranks, 1),
    .rates = { given_rate(o->learning_rate, 0.002), given_rate(o->weight_decay, 0.01) },
  };
  const uint64_t per_step = shape.batch * shape.context * settings.ranks;
  const uint64_t steps = train->text.length / per_step;
  settings.epoch_steps = given(o->epoch_steps, steps > 0 ? steps : 1);
  const struct vocabulary vocabulary = train->training.vocabulary;
  return training_init(&train->training, shape, &settings, &vocabulary, problem);
}

/* A checkpoint's sizes cannot change; its settings can. */
static int go_on(struct train *train, struct problem *problem) {
  const struct options *o = train->options;
  struct training *training = &train->training;
  const int loaded = checkpoint_load(training, o->resume, problem);
  if (loaded < 0) {
    return loaded;
  }
  const struct model_shape *shape = &training->model->shape;
  if (given(o->layers, shape->layers) != shape->layers || given(o->width, shape->width) != shape->width ||
      given(o->heads, shape->heads) != shape->heads || given(o->context, shape->context) != shape->context ||
      given(o->batch, shape->batch) != shape->batch) {
    return problem_set(problem, -EINVAL,
                       "%s has %" PRIu64 " layers, width %" PRIu64 ", %" PRIu64 " heads, context %" PRIu64
                       ", batch %" PRIu64 ": leave these options out with --resume",
                       o->resume, shape->layers, shape->width, shape->heads, shape->context, shape->batch);
  }
  struct settings *settings = &training->settings;
  settings->seed = given(o->seed, settings->seed);
  settings->ranks = given(o->ranks, settings->ranks);
  settings->epoch_steps = given(o->epoch_steps, settings->epoch_steps);
  settings->rates.learning_rate = given_rate(o->learning_rate, settings->rates.learning_rate);
  settings->rates.weight_decay = given_rate(o->weight_decay, settings->rates.weight_decay);
  return load_text(train, shape->context, problem);
}

static int set_up(struct train *train, struct problem *problem) {
  const int result = train->options->resume == NULL ? begin_new(train, problem) : go_on(train, problem);
  if (result < 0 || train->training.settings.ranks == 1) {
    return result;
  }
  const unsigned ranks = (unsigned)train->training.settings.ranks;
  const int mapped = allreduce_new(&train->allreduce, ranks, train_averaged(&train->training));
  return mapped < 0 ? problem_set(problem, mapped, "no shared memory for %u ranks; use fewer with --ranks", ranks) : 0;
}

static void complete(struct options *options) {
  options->steps = given(options->steps, 2000);
  options->log_every = given(options->log_every, 100);
  options->step_delay_us = given(options->step_delay_us, 0);
}

int main(int argc, char **argv) {
  struct problem problem = { "" };
  struct options options;
  if (options_parse(&options, argc, argv, &problem) < 0) {
    fprintf(stderr, "charlm: %s\nhint: charlm --help\n", problem.text);
    return EXIT_USAGE;
  }
  if (options.help) {
    options_help();
    return EXIT_SUCCESS;
  }
  complete(&options);
  struct train train = { .options = &options };
  int status = EXIT_FAILURE;
  if (set_up(&train, &problem) < 0) {
    fprintf(stderr, "charlm: %s\n", problem.text);
  } else {
    status = ranks_run((unsigned)train.training.settings.ranks, train.allreduce, train_rank, &train);
  }
  allreduce_free(train.allreduce);
  text_deinit(&train.text);
  training_deinit(&train.training);
  return status;
}
