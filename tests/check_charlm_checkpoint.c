/* check_charlm_checkpoint.c - charlm's text and checkpoints: what is refused, and that going on changes no bit. */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/examples/checkpoint.h"
#include "client/examples/hash.h"
#include "client/examples/random.h"
#include "tests/runner.h"

static const char rhyme[] = "Hickory, dickory, dock. The mouse ran up the clock. The clock struck one, the mouse ran "
                            "down, hickory, dickory, dock.\n";

static const struct model_shape shape = { .layers = 1, .width = 8, .heads = 2, .context = 16, .batch = 2 };

/* The path of a file in the test's folder; static storage. */
static const char *file(const char *name) {
  static char path[2][256];
  static unsigned turn;
  turn ^= 1;
  snprintf(path[turn], sizeof path[turn], "%s/%s", fz_test_root(), name);
  return path[turn];
}

static void write_file(const char *path, const void *bytes, size_t count) {
  FILE *out = fopen(path, "wb");
  ck_assert_ptr_nonnull(out);
  ck_assert_uint_eq(fwrite(bytes, 1, count, out), count);
  ck_assert_int_eq(fclose(out), 0);
}

/* The whole file; free it. */
static unsigned char *read_file(const char *path, size_t *ret_count) {
  struct stat status;
  ck_assert_int_eq(stat(path, &status), 0);
  unsigned char *bytes = malloc((size_t)status.st_size);
  FILE *in = fopen(path, "rb");
  ck_assert(bytes != NULL && in != NULL);
  *ret_count = fread(bytes, 1, (size_t)status.st_size, in);
  ck_assert_uint_eq(*ret_count, (size_t)status.st_size);
  fclose(in);
  return bytes;
}

static void load_rhyme(struct text *text, struct vocabulary *vocabulary) {
  struct problem problem = { "" };
  write_file(file("rhyme"), rhyme, sizeof rhyme - 1);
  ck_assert_msg(text_load(text, vocabulary, file("rhyme"), &problem) == 0, "%s", problem.text);
}

static void begin(struct training *training, struct text *text) {
  const struct settings settings = {
    .seed = 7, .ranks = 1, .epoch_steps = 10, .rates = { .learning_rate = 0.01, .weight_decay = 0.1 }
  };
  struct vocabulary vocabulary = { 0 };
  struct problem problem = { "" };
  load_rhyme(text, &vocabulary);
  ck_assert_msg(training_init(training, shape, &settings, &vocabulary, &problem) == 0, "%s", problem.text);
}

/* Trains to step `end`; at odd steps the first five tensors are frozen, so that update counts differ. */
static void train(struct training *training, const struct text *text, uint64_t end) {
  unsigned char tokens[32], targets[32];
  bool trains[64];
  for (; training->step < end; training->step++) {
    for (size_t i = 0; i < training->model->count; i++) {
      trains[i] = i >= 5 || training->step % 2 == 0;
    }
    const struct batch_place place = { training->settings.seed, training->step, 0 };
    text_batch(tokens, targets, text, place, shape.batch, shape.context);
    model_forward(training->model, tokens, targets);
    model_backward(training->model, trains, 0);
    adamw_update(&training->adamw, training->model, trains, training->settings.rates);
  }
}

START_TEST(going_on_from_a_checkpoint_changes_no_bit)
{
  struct training through, first, second = { 0 };
  struct text text, again;
  struct problem problem = { "" };
  begin(&through, &text);
  train(&through, &text, 20);
  begin(&first, &again);
  train(&first, &again, 11);
  ck_assert_msg(checkpoint_save(file("run"), &first, &problem) == 0, "%s", problem.text);
  ck_assert_msg(checkpoint_load(&second, file("run"), &problem) == 0, "%s", problem.text);
  ck_assert_uint_eq(second.step, 11);
  ck_assert_uint_eq(second.settings.seed, 7);
  ck_assert_uint_eq(second.settings.epoch_steps, 10);
  ck_assert_mem_eq(&second.vocabulary, &first.vocabulary, sizeof second.vocabulary);
  train(&second, &again, 20);
  const size_t bytes = through.model->elements * sizeof(float);
  ck_assert_mem_eq(second.model->parameters, through.model->parameters, bytes);
  ck_assert_mem_eq(second.adamw.first, through.adamw.first, bytes);
  ck_assert_mem_eq(second.adamw.second, through.adamw.second, bytes);
  ck_assert_mem_eq(second.adamw.steps, through.adamw.steps, through.model->count * sizeof *through.adamw.steps);
  ck_assert_uint_eq(second.adamw.steps[0], 10);
  ck_assert_int_ne(access(file("run.tmp"), F_OK), 0);
  training_deinit(&through);
  training_deinit(&first);
  training_deinit(&second);
  text_deinit(&text);
  text_deinit(&again);
}
END_TEST

static void expect_refusal(const unsigned char *bytes, size_t count, const char *what) {
  struct training training = { 0 };
  struct problem problem = { "" };
  write_file(file("bad"), bytes, count);
  ck_assert_msg(checkpoint_load(&training, file("bad"), &problem) < 0, "%s: accepted", what);
  ck_assert_msg(strstr(problem.text, "bad") != NULL, "%s: '%s' does not name the file", what, problem.text);
  ck_assert_msg(training.model == NULL, "%s: output touched", what);
}

static unsigned char *saved(size_t *ret_count) {
  struct training training;
  struct text text;
  struct problem problem = { "" };
  begin(&training, &text);
  train(&training, &text, 3);
  ck_assert_int_eq(checkpoint_save(file("good"), &training, &problem), 0);
  training_deinit(&training);
  text_deinit(&text);
  return read_file(file("good"), ret_count);
}

START_TEST(damaged_checkpoints_are_refused)
{
  size_t count;
  unsigned char *bytes = saved(&count);
  char what[64];
  for (size_t i = 0; i < count; i += i < 400 ? 1 : 97) {
    snprintf(what, sizeof what, "cut at %zu", i);
    expect_refusal(bytes, i, what);
    snprintf(what, sizeof what, "byte %zu changed", i);
    bytes[i] ^= 0x41;
    expect_refusal(bytes, count, what);
    bytes[i] ^= 0x41;
  }
  unsigned char *longer = calloc(1, count + 1);
  ck_assert_ptr_nonnull(longer);
  memcpy(longer, bytes, count);
  expect_refusal(longer, count + 1, "one byte more");
  free(longer);
  free(bytes);
}
END_TEST

/* Writes a number into a good checkpoint, with a hash that fits: what is left to refuse it is its meaning. */
START_TEST(checkpoints_that_make_no_sense_are_refused)
{
  static const struct {
    const char *what;
    size_t offset;
    uint64_t value;
  } cases[] = {
    { "no layers", 16, 0 },
    { "more layers", 16, 2 },
    { "a width that heads do not divide", 24, 7 },
    { "huge width", 24, 2048 },
    { "huge context", 40, UINT64_MAX },
    { "vocabulary of 0", 48, 0 },
    { "batch of 2^32", 56, UINT64_C(1) << 32 },
    { "no ranks", 72, 0 },
    { "2^32 ranks", 72, UINT64_C(1) << 32 },
    { "epochs of no step", 80, 0 },
    { "a learning rate that is not a number", 88, UINT64_C(0x7ff8000000000000) },
    { "negative weight decay", 96, UINT64_C(0xbff0000000000000) },
    { "step 2^40", 104, UINT64_C(1) << 40 },
    { "step below the update counts", 104, 0 },
    { "vocabulary out of order", 112, 0x40 },
    { "a parameter that is not a number", 112 + 256, 0x7fc00000 },
  };
  size_t count;
  unsigned char *bytes = saved(&count);
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    unsigned char before[8];
    memcpy(before, bytes + cases[i].offset, 8);
    memcpy(bytes + cases[i].offset, &cases[i].value, 8);
    const uint64_t hash = hash_bytes(HASH_START, bytes, count - 8);
    memcpy(bytes + count - 8, &hash, 8);
    expect_refusal(bytes, count, cases[i].what);
    memcpy(bytes + cases[i].offset, before, 8);
  }
  free(bytes);
}
END_TEST

START_TEST(a_failed_save_leaves_the_old_file)
{
  size_t count, after;
  unsigned char *bytes = saved(&count);
  struct training training;
  struct text text;
  struct problem problem = { "" };
  begin(&training, &text);
  ck_assert_int_eq(mkdir(file("good.tmp"), 0700), 0);
  ck_assert_int_lt(checkpoint_save(file("good"), &training, &problem), 0);
  ck_assert_ptr_nonnull(strstr(problem.text, "cannot save the checkpoint"));
  ck_assert_int_lt(checkpoint_save(file("no/such/folder"), &training, &problem), 0);
  unsigned char *still = read_file(file("good"), &after);
  ck_assert_uint_eq(after, count);
  ck_assert_mem_eq(still, bytes, count);
  ck_assert_int_eq(rmdir(file("good.tmp")), 0);
  training_deinit(&training);
  text_deinit(&text);
  free(still);
  free(bytes);
}
END_TEST

START_TEST(texts_that_cannot_be_learnt_are_refused)
{
  struct text text = { 0 };
  struct vocabulary vocabulary = { 0 };
  struct problem problem = { "" };
  ck_assert_int_eq(text_load(&text, &vocabulary, file("no-such-text"), &problem), -ENOENT);
  ck_assert_ptr_nonnull(strstr(problem.text, "--text FILE"));
  ck_assert_int_lt(text_load(&text, &vocabulary, fz_test_root(), &problem), 0);
  ck_assert_ptr_nonnull(strstr(problem.text, "not a regular file"));
  write_file(file("empty"), "", 0);
  ck_assert_int_lt(text_load(&text, &vocabulary, file("empty"), &problem), 0);
  ck_assert_ptr_nonnull(strstr(problem.text, "is empty"));
  ck_assert_uint_eq(vocabulary.size, 0);

  load_rhyme(&text, &vocabulary);
  text_deinit(&text);
  write_file(file("other"), "dock#", 5);
  ck_assert_int_lt(text_load(&text, &vocabulary, file("other"), &problem), 0);
  ck_assert_ptr_nonnull(strstr(problem.text, "byte 0x23 at offset 4"));
  ck_assert_ptr_null(text.tokens);
}
END_TEST

/* The same place gives the same batch, another step or rank another one; targets are one character ahead. */
START_TEST(batches_are_a_function_of_their_place)
{
  struct text text;
  struct vocabulary vocabulary = { 0 };
  unsigned char tokens[2][32], targets[2][32];
  load_rhyme(&text, &vocabulary);
  for (uint64_t step = 0; step < 200; step++) {
    text_batch(tokens[0], targets[0], &text, (struct batch_place){ 1, step, 0 }, 2, 16);
    text_batch(tokens[1], targets[1], &text, (struct batch_place){ 1, step, 0 }, 2, 16);
    ck_assert_mem_eq(tokens[0], tokens[1], 32);
    for (size_t i = 0; i < 15; i++) {
      ck_assert_uint_eq(targets[0][i], tokens[0][i + 1]);
      ck_assert_uint_lt(targets[0][i], vocabulary.size);
    }
  }
  text_batch(tokens[1], targets[1], &text, (struct batch_place){ 1, 199, 1 }, 2, 16);
  ck_assert_mem_ne(tokens[0], tokens[1], 32);
  text_deinit(&text);
}
END_TEST

Suite *fz_suite(void) {
  Suite *suite = suite_create("charlm_checkpoint");
  TCase *checkpoint = tcase_create("checkpoint");
  tcase_set_timeout(checkpoint, 20);
  tcase_add_test(checkpoint, going_on_from_a_checkpoint_changes_no_bit);
  tcase_add_test(checkpoint, damaged_checkpoints_are_refused);
  tcase_add_test(checkpoint, checkpoints_that_make_no_sense_are_refused);
  tcase_add_test(checkpoint, a_failed_save_leaves_the_old_file);
  suite_add_tcase(suite, checkpoint);
  TCase *text = tcase_create("text");
  tcase_add_test(text, texts_that_cannot_be_learnt_are_refused);
  tcase_add_test(text, batches_are_a_function_of_their_place);
  suite_add_tcase(suite, text);
  return suite;
}
