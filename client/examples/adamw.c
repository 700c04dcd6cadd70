/* adamw.c - the AdamW optimizer. */
#include "config.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "client/examples/adamw.h"

static const double beta1 = 0.9, beta2 = 0.99;

int adamw_init(struct adamw *ret, const struct model *model) {
  struct adamw adamw = {
    .first = calloc(model->elements, sizeof *adamw.first),
    .second = calloc(model->elements, sizeof *adamw.second),
    .steps = calloc(model->count, sizeof *adamw.steps),
  };
  if (adamw.first == NULL || adamw.second == NULL || adamw.steps == NULL) {
    adamw_deinit(&adamw);
    return -ENOMEM;
  }
  *ret = adamw;
  return 0;
}

void adamw_deinit(struct adamw *adamw) {
  free(adamw->first);
  free(adamw->second);
  free(adamw->steps);
  *adamw = (struct adamw){ 0 };
}

static void update_tensor(float *restrict parameters, float *restrict first, float *restrict second,
                          const float *restrict gradients, size_t count, uint64_t step, double rate, double decay) {
  const float b1 = (float)beta1, b2 = (float)beta2;
  const float size = (float)(rate / (1 - pow(beta1, (double)step)));
  const float correction = (float)(1 / sqrt(1 - pow(beta2, (double)step)));
  const float keep = (float)(1 - rate * decay);
#pragma omp simd
  for (size_t i = 0; i < count; i++) {
    const float g = gradients[i];
    first[i] = b1 * first[i] + (1 - b1) * g;
    second[i] = b2 * second[i] + (1 - b2) * g * g;
    parameters[i] = keep * parameters[i] - size * first[i] / (sqrtf(second[i]) * correction + 1e-8F);
  }
}

void adamw_update(struct adamw *adamw, struct model *model, const bool *trains, struct adamw_rates rates) {
  for (size_t i = 0; i < model->count; i++) {
    const struct tensor *tensor = &model->tensors[i];
    const bool decays = tensor->kind == TENSOR_MATRIX || tensor->kind == TENSOR_EMBEDDING;
    if (trains[i]) {
      adamw->steps[i]++;
      update_tensor(model->parameters + tensor->offset, adamw->first + tensor->offset, adamw->second + tensor->offset,
                    model->gradients + tensor->offset, tensor->elements, adamw->steps[i], rates.learning_rate,
                    decays ? rates.weight_decay : 0);
    }
  }
}
