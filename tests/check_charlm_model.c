/* check_charlm_model.c - charlm's model: its gradients against finite differences, and what freezing leaves out. */
#include "config.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "client/examples/adamw.h"
#include "client/examples/exponential.h"
#include "client/examples/model.h"
#include "client/examples/random.h"
#include "tests/runner.h"

/* Small, and with no size that divides another where the code could depend on it. */
static const struct model_shape tiny = {
  .layers = 2, .width = 6, .heads = 2, .context = 11, .vocabulary = 7, .batch = 2
};

/* A model with one batch; `trains` has room for all tensors. */
struct fixture {
  struct model *model;
  unsigned char tokens[32], targets[32];
  bool trains[64];
};

static void set_up(struct fixture *f) {
  struct problem problem = { "" };
  *f = (struct fixture){ 0 };
  ck_assert_int_eq(model_new(&f->model, &tiny, &problem), 0);
  ck_assert_uint_le(f->model->count, sizeof f->trains);
  model_initialise(f->model, 3);
  /* Norms and biases away from one and zero, or their gradients would hide mistakes. */
  for (size_t i = 0; i < f->model->elements; i++) {
    f->model->parameters[i] += 0.2F * random_normal(4, 0, i);
  }
  for (size_t i = 0; i < tiny.batch * tiny.context; i++) {
    f->tokens[i] = (unsigned char)(random_bits(5, 0, i) % tiny.vocabulary);
    f->targets[i] = (unsigned char)(random_bits(5, 1, i) % tiny.vocabulary);
  }
  memset(f->trains, true, sizeof f->trains);
}

static void tear_down(struct fixture *f) { model_free(f->model); }

static size_t first_that_trains(const struct fixture *f) {
  size_t i = 0;
  while (i < f->model->count && !f->trains[i]) {
    i++;
  }
  return i;
}

/* All gradients of the fixture's batch, frozen ones as NaN; free it. */
static float *gradients(struct fixture *f, size_t first) {
  struct model *model = f->model;
  for (size_t i = 0; i < model->elements; i++) {
    model->gradients[i] = NAN;
  }
  model_forward(model, f->tokens, f->targets);
  model_backward(model, f->trains, first);
  float *copy = malloc(model->elements * sizeof *copy);
  ck_assert_ptr_nonnull(copy);
  memcpy(copy, model->gradients, model->elements * sizeof *copy);
  return copy;
}

/* The slope of the loss by one parameter, from four points, so that the error falls with the fourth power of h. */
static double slope(struct fixture *f, float *parameter) {
  static const float h = 0.02F;
  const float middle = *parameter;
  double loss[5];
  for (int i = -2; i <= 2; i++) {
    *parameter = middle + (float)i * h;
    loss[i + 2] = model_forward(f->model, f->tokens, f->targets);
  }
  *parameter = middle;
  return (8 * (loss[3] - loss[1]) - (loss[4] - loss[0])) / (12 * (double)h);
}

START_TEST(gradients_are_the_slopes_of_the_loss)
{
  struct fixture f;
  set_up(&f);
  float *computed = gradients(&f, 0);
  for (size_t i = 0; i < f.model->count; i++) {
    const struct tensor *tensor = &f.model->tensors[i];
    double difference = 0, size = 0;
    for (size_t j = tensor->offset; j < tensor->offset + tensor->elements; j++) {
      const double expected = slope(&f, &f.model->parameters[j]);
      difference += (computed[j] - expected) * (computed[j] - expected);
      size += expected * expected;
    }
    ck_assert_msg(sqrt(difference) < 2e-3 * sqrt(size) + 2e-6, "%s: difference %g of %g", tensor->name,
                  sqrt(difference), sqrt(size));
    ck_assert_msg(size > 0, "%s has no gradient", tensor->name);
  }
  free(computed);
  tear_down(&f);
}
END_TEST

/* Every tensor frozen alone, then random masks: what trains has the gradient it always had, bit for bit, whether the
   pass stops at the first one that trains or goes on to the bottom; what is frozen has none. */
START_TEST(freezing_changes_no_other_gradient)
{
  struct fixture f;
  set_up(&f);
  float *all = gradients(&f, 0);
  const int count = (int)f.model->count;
  for (int round = 0; round < 2 * count; round++) {
    for (int i = 0; i < count; i++) {
      f.trains[i] = round < count ? i != round : random_bits(6, (uint64_t)round, (uint64_t)i) % 4 == 0;
    }
    float *stopping = gradients(&f, first_that_trains(&f)), *whole = gradients(&f, 0);
    for (size_t i = 0; i < f.model->count; i++) {
      const struct tensor *tensor = &f.model->tensors[i];
      const size_t offset = tensor->offset, bytes = tensor->elements * sizeof *all;
      if (f.trains[i]) {
        ck_assert_msg(memcmp(stopping + offset, all + offset, bytes) == 0, "round %d: %s differs", round, tensor->name);
        ck_assert_msg(memcmp(whole + offset, all + offset, bytes) == 0, "round %d: %s differs", round, tensor->name);
      } else {
        ck_assert_msg(isnan(stopping[offset]) && isnan(whole[offset]), "round %d: %s written", round, tensor->name);
      }
    }
    free(stopping);
    free(whole);
  }
  free(all);
  tear_down(&f);
}
END_TEST

/* Each linear layer costs two products, one for its weight and one for what lies below it. */
START_TEST(frozen_layers_cost_no_products)
{
  const size_t block1 = 2 + BLOCK_TENSORS, linears = 4 * tiny.layers + 1;
  struct fixture f;
  set_up(&f);
  free(gradients(&f, 0));
  ck_assert_uint_eq(f.model->backward_products, 2 * linears);

  f.trains[2 + UP_WEIGHT] = false;
  free(gradients(&f, 0));
  ck_assert_uint_eq(f.model->backward_products, 2 * linears - 1);

  memset(f.trains, false, block1);
  free(gradients(&f, block1));
  ck_assert_msg(f.model->backward_products == 2 * 5, "%d products", (int)f.model->backward_products);

  /* Only the second block's mlp.down.bias trains, and what follows it. */
  memset(f.trains, false, block1 + DOWN_BIAS);
  free(gradients(&f, block1 + DOWN_BIAS));
  ck_assert_uint_eq(f.model->backward_products, 2);

  memset(f.trains, false, f.model->count - 1);
  free(gradients(&f, f.model->count - 1));
  ck_assert_uint_eq(f.model->backward_products, 1);

  memset(f.trains, false, f.model->count);
  free(gradients(&f, f.model->count));
  ck_assert_uint_eq(f.model->backward_products, 0);
  tear_down(&f);
}
END_TEST

START_TEST(loss_falls_and_frozen_tensors_keep_every_bit)
{
  struct fixture f;
  struct adamw adamw;
  set_up(&f);
  ck_assert_int_eq(adamw_init(&adamw, f.model), 0);
  memset(f.trains, false, 2 + QKV_WEIGHT + 1);
  f.trains[2 + UP_WEIGHT] = false;
  const size_t bytes = f.model->elements * sizeof(float);
  float *before = malloc(bytes);
  ck_assert_ptr_nonnull(before);
  memcpy(before, f.model->parameters, bytes);
  const double first = model_forward(f.model, f.tokens, f.targets);
  for (int step = 0; step < 50; step++) {
    model_forward(f.model, f.tokens, f.targets);
    model_backward(f.model, f.trains, first_that_trains(&f));
    adamw_update(&adamw, f.model, f.trains, (struct adamw_rates){ 1e-2, 1e-2 });
  }
  const double last = model_forward(f.model, f.tokens, f.targets);
  ck_assert_msg(last < 0.7 * first, "loss %g, then %g", first, last);
  for (size_t i = 0; i < f.model->count; i++) {
    const struct tensor *tensor = &f.model->tensors[i];
    const bool same =
      memcmp(before + tensor->offset, f.model->parameters + tensor->offset, tensor->elements * sizeof *before) == 0;
    ck_assert_msg(same != f.trains[i], "%s: %s", tensor->name, same ? "trains, but did not move" : "moved");
  }
  free(before);
  adamw_deinit(&adamw);
  tear_down(&f);
}
END_TEST

/* A tensor that begins to train at step 1000 takes the very step that it would have taken at step 0. */
START_TEST(a_late_tensor_moves_like_a_fresh_one)
{
  struct fixture f;
  struct adamw late, fresh;
  set_up(&f);
  ck_assert_int_eq(adamw_init(&late, f.model), 0);
  ck_assert_int_eq(adamw_init(&fresh, f.model), 0);
  const struct tensor *tensor = &f.model->tensors[2 + PROJ_WEIGHT];
  const struct adamw_rates rates = { 1e-2, 1e-2 };
  float *start = malloc(f.model->elements * sizeof *start), *moved = malloc(f.model->elements * sizeof *moved);
  ck_assert(start != NULL && moved != NULL);
  memcpy(start, f.model->parameters, f.model->elements * sizeof *start);
  free(gradients(&f, 0));

  adamw_update(&fresh, f.model, f.trains, rates);
  memcpy(moved, f.model->parameters, f.model->elements * sizeof *moved);
  memcpy(f.model->parameters, start, f.model->elements * sizeof *start);

  f.trains[2 + PROJ_WEIGHT] = false;
  for (int step = 0; step < 1000; step++) {
    adamw_update(&late, f.model, f.trains, rates);
  }
  f.trains[2 + PROJ_WEIGHT] = true;
  adamw_update(&late, f.model, f.trains, rates);
  ck_assert_uint_eq(late.steps[2 + PROJ_WEIGHT], 1);
  ck_assert_uint_eq(late.steps[2 + PROJ_BIAS], 1001);
  ck_assert_mem_eq(f.model->parameters + tensor->offset, moved + tensor->offset, tensor->elements * sizeof *moved);
  free(start);
  free(moved);
  adamw_deinit(&late);
  adamw_deinit(&fresh);
  tear_down(&f);
}
END_TEST

START_TEST(names_are_in_forward_order)
{
  struct fixture f;
  set_up(&f);
  ck_assert_uint_eq(f.model->count, 2 + tiny.layers * BLOCK_TENSORS + 3);
  ck_assert_str_eq(f.model->tensors[0].name, "embed.tokens.weight");
  ck_assert_str_eq(f.model->tensors[1].name, "embed.positions.weight");
  ck_assert_str_eq(f.model->tensors[2].name, "blocks.0.ln1.weight");
  ck_assert_str_eq(f.model->tensors[2 + BLOCK_TENSORS + DOWN_BIAS].name, "blocks.1.mlp.down.bias");
  ck_assert_str_eq(f.model->tensors[f.model->count - 1].name, "head.weight");
  size_t elements = 0;
  for (size_t i = 0; i < f.model->count; i++) {
    ck_assert_uint_eq(f.model->tensors[i].offset, elements);
    elements += f.model->tensors[i].elements;
  }
  ck_assert_uint_eq(f.model->elements, elements);
  tear_down(&f);
}
END_TEST

START_TEST(shapes_out_of_bounds_are_refused)
{
  static const struct {
    const char *says;
    struct model_shape shape;
  } cases[] = {
    { "layers is 0, but must be 1 to 64", { 0, 8, 2, 8, 8, 1 } },
    { "width 9 cannot be divided among 2 heads", { 1, 9, 2, 8, 8, 1 } },
    { "heads is 9, but must be 1 to 8", { 1, 8, 9, 8, 8, 1 } },
    { "vocabulary is 257", { 1, 8, 2, 8, 257, 1 } },
    { "context is 18446744073709551615", { 1, 8, 2, UINT64_MAX, 8, 1 } },
    { "choose less width or layers", { 64, 2048, 2, 8, 8, 1 } },
    { "choose less batch or context", { 4, 64, 4, 4096, 64, 4096 } },
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct problem problem = { "" };
    struct model *model = NULL;
    ck_assert_int_lt(model_new(&model, &cases[i].shape, &problem), 0);
    ck_assert_msg(strstr(problem.text, cases[i].says) != NULL, "'%s' does not say '%s'", problem.text, cases[i].says);
    ck_assert_ptr_null(model);
  }
}
END_TEST

START_TEST(exponential_is_close_and_bounded)
{
  for (float x = -86.9F; x < 88; x += 0.037F) {
    const double expected = exp((double)x);
    ck_assert_msg(fabs((double)exponential(x) - expected) < 5e-7 * expected, "e^%g", (double)x);
  }
  ck_assert_float_gt(exponential(-INFINITY), 0);
  ck_assert_float_lt(exponential(INFINITY), FLT_MAX);
  ck_assert_float_nan(exponential(NAN));
}
END_TEST

Suite *fz_suite(void) {
  Suite *suite = suite_create("charlm_model");
  TCase *model = tcase_create("model");
  tcase_set_timeout(model, 20);
  tcase_add_test(model, gradients_are_the_slopes_of_the_loss);
  tcase_add_test(model, freezing_changes_no_other_gradient);
  tcase_add_test(model, frozen_layers_cost_no_products);
  tcase_add_test(model, names_are_in_forward_order);
  tcase_add_test(model, shapes_out_of_bounds_are_refused);
  tcase_add_test(model, exponential_is_close_and_bounded);
  suite_add_tcase(suite, model);
  TCase *training = tcase_create("training");
  tcase_set_timeout(training, 20);
  tcase_add_test(training, loss_falls_and_frozen_tensors_keep_every_bit);
  tcase_add_test(training, a_late_tensor_moves_like_a_fresh_one);
  suite_add_tcase(suite, training);
  return suite;
}
