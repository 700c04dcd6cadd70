/* check_memory.c - memory runs out at every single allocation: an error each time, nothing lost, nothing half done. */
#include "config.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "protocol/lines.h"
#include "protocol/message.h"
#include "tests/runner.h"
#include "tests/wire.h"

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *memory, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *memory, size_t size);

/* How many allocations are still to succeed; below zero: all. */
static long left = -1;

static bool fails(void) {
  if (left < 0)
    return false;
  return left == 0 || left-- == 0;
}

void *__wrap_malloc(size_t size) { return fails() ? NULL : __real_malloc(size); }

void *__wrap_calloc(size_t count, size_t size) { return fails() ? NULL : __real_calloc(count, size); }

void *__wrap_realloc(void *memory, size_t size) { return fails() ? NULL : __real_realloc(memory, size); }

#define WRONG (-EINVAL)

/*
 * Runs it with room for 0, 1, 2, … allocations until it succeeds. @return how often it failed.
 * What it makes it must have freed again, succeed or not: the leak checker of a sanitized build looks. It asserts nothing
 * itself, since libcheck allocates too: it returns WRONG.
 */
static unsigned starve(int (*run)(const char *), const char *text) {
  unsigned failures = 0;
  for (;; failures++) {
    left = (long)failures;
    const int r = run(text);
    left = -1;
    if (r == 0)
      return failures;
    ck_assert_int_eq(r, -ENOMEM);
    ck_assert_uint_lt(failures, 100000);
  }
}

static int parse_and_write(const char *text) {
  fz_json *root = NULL;
  int r = fz_json_parse(&root, text, strlen(text), NULL, 0);
  char *copy = NULL;
  if (r == 0)
    r = fz_json_to_text(root, 0, &copy, NULL);
  free(copy);
  fz_json_free(root);
  return r;
}

START_TEST(parsing_and_writing)
{
  cJSON_InitHooks(&(cJSON_Hooks){ .malloc_fn = __wrap_malloc, .free_fn = free });
  ck_assert_uint_gt(starve(parse_and_write, "{\"a\":[1,2.5,\"x\",{\"b\":null}],\"c\":\"\\u00e9\"}"), 10);
  char many[600] = "{\"k\":0";
  for (int i = 0; i < 40; i++)
    (void)sprintf(many + strlen(many), ",\"k%d\":%d", i, i);
  strcat(many, "}");
  ck_assert_uint_gt(starve(parse_and_write, many), 80);
}
END_TEST

/* A line in, a line out, with a descriptor: the whole way of a message. */
static int carry(const char *text) {
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0)
    return WRONG;
  fz_output output = FZ_OUTPUT_NULL;
  fz_line_reader reader = FZ_LINE_READER_NULL;
  int r = fz_output_push_fd(&output, text, strlen(text), STDIN_FILENO, false);
  if (output.n_fds != (r == 0))
    r = WRONG;
  if (r == 0)
    r = fz_output_flush(&output, pair[0]);
  bool whole = false;
  while (r == 0 && !whole) {
    r = fz_line_reader_receive(&reader, pair[1]);
    char *line;
    size_t length;
    whole = r == 0 && fz_line_reader_next(&reader, &line, &length) == 0;
  }
  fz_output_deinit(&output);
  fz_line_reader_deinit(&reader);
  (void)close(pair[0]);
  (void)close(pair[1]);
  return r;
}

START_TEST(framing)
{
  char *text = calloc(1, 30002);
  ck_assert_ptr_nonnull(text);
  memset(text, 'x', 30000);
  text[30000] = '\n';
  ck_assert_uint_ge(starve(carry, text), 4);
  free(text);
}
END_TEST

/* A writer that failed says so at the end, whatever was written after. */
static int write_much(const char *text) {
  fz_json_writer writer = FZ_JSON_WRITER_NULL;
  fz_write_begin_array(&writer, NULL);
  for (int i = 0; i < 200; i++)
    fz_write_string(&writer, NULL, text);
  fz_write_end_array(&writer);
  const char *line = NULL;
  size_t length;
  int r = fz_writer_line(&writer, &line, &length);
  if ((line == NULL) != (r != 0))
    r = WRONG;
  fz_writer_deinit(&writer);
  return r;
}

START_TEST(writing)
{ ck_assert_uint_ge(starve(write_much, "some text of no great length"), 4); }
END_TEST

Suite *fz_suite(void) {
  Suite *suite = suite_create("memory");
  TCase *tests = tcase_create("memory");
  tcase_add_test(tests, parsing_and_writing);
  tcase_add_test(tests, framing);
  tcase_add_test(tests, writing);
  suite_add_tcase(suite, tests);
  return suite;
}
