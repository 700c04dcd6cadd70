/* training.c - the life of a training run. */
#include "config.h"

#include <errno.h>
#include <math.h>

#include "client/examples/training.h"

int settings_check(const struct settings *settings, struct problem *problem) {
  if (settings->ranks < 1 || settings->ranks > 64) {
    return problem_set(problem, -EINVAL, "ranks must be 1 to 64");
  }
  if (settings->epoch_steps < 1 || settings->epoch_steps > STEP_LIMIT) {
    return problem_set(problem, -EINVAL, "an epoch must have 1 to 2^40 steps");
  }
  if (!(settings->rates.learning_rate >= 0 && settings->rates.learning_rate <= 1)) {
    return problem_set(problem, -EINVAL, "the learning rate must be 0 to 1");
  }
  if (!(settings->rates.weight_decay >= 0 && settings->rates.weight_decay <= 1)) {
    return problem_set(problem, -EINVAL, "the weight decay must be 0 to 1");
  }
  return 0;
}

int training_init(struct training *ret, struct model_shape shape, const struct settings *settings,
                  const struct vocabulary *vocabulary, struct problem *problem) {
  struct training training = { .settings = *settings, .vocabulary = *vocabulary };
  shape.vocabulary = vocabulary->size;
  int result = settings_check(settings, problem);
  if (result == 0) {
    result = model_new(&training.model, &shape, problem);
  }
  if (result == 0 && adamw_init(&training.adamw, training.model) < 0) {
    result = problem_set(problem, -ENOMEM, "no memory for the optimizer's state");
  }
  if (result < 0) {
    training_deinit(&training);
    return result;
  }
  model_initialise(training.model, settings->seed);
  *ret = training;
  return 0;
}

void training_deinit(struct training *training) {
  adamw_deinit(&training->adamw);
  model_free(training->model);
  *training = (struct training){ 0 };
}
