/* check_history.c - the file of a run's history: whole lines only, whatever was left behind at its end. */
#include "config.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/core.h"
#include "daemon/history.h"
#include "daemon/run.h"
#include "tests/runner.h"

static fz_core core;
static fz_run *run;
static char dir[64], path[160];

static void set_up(bool kept) {
  snprintf(dir, sizeof(dir), "/tmp/fzhistoryXXXXXX");
  ck_assert_ptr_nonnull(mkdtemp(dir));
  core = (fz_core)FZ_CORE_NULL;
  fz_log_init(&core.log, open("/dev/null", O_WRONLY | O_CLOEXEC), FZ_LOG_DEBUG, FZ_LOG_HUMAN);
  ck_assert_int_eq(fz_core_init(&core, "/tmp/none", kept ? dir : NULL), 0);
  ck_assert_int_eq(fz_core_add(&core, "run", "run", &run), 0);
  snprintf(path, sizeof(path), "%s/%s/history.ndjson", dir, run->key);
}

static void set_up_kept(void) { set_up(true); }

static void tear_down(void) {
  char other[200];

  unlink(path);
  snprintf(other, sizeof(other), "%s.1", path);
  unlink(other);
  *strrchr(path, '/') = '\0';
  rmdir(path);
  rmdir(dir);
  fz_core_deinit(&core);
}

static int add(const char *line) { return fz_history_add(run, line, strlen(line), true); }

static void holds(const char *want) {
  char *text = NULL;
  size_t length = 0;

  ck_assert_int_eq(fz_history_read(run, &text, &length), 0);
  ck_assert_uint_eq(length, strlen(want));
  ck_assert_int_eq(length ? memcmp(text, want, length) : 0, 0);
  free(text);
}

static void append_raw(const char *bytes, size_t length) {
  const int fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);

  ck_assert_int_ge(fd, 0);
  ck_assert_int_eq(write(fd, bytes, length), (ssize_t)length);
  close(fd);
}

#define FIRST "{\"serial\":1,\"state\":{}}\n"
#define SECOND "{\"serial\":2,\"state\":{\"overrides\":[{\"action\":\"freeze\"}]}}\n"

START_TEST(cut_at_every_byte)
{
  for (size_t cut = 1; cut < strlen(SECOND); cut++) {
    unlink(path);
    ck_assert_int_eq(add(FIRST), 0);
    append_raw(SECOND, cut);
    ck_assert_int_eq(fz_history_mend(run), 0);
    holds(FIRST);
    ck_assert_int_eq(add(SECOND), 0);
    holds(FIRST SECOND);
  }
}
END_TEST

START_TEST(cut_by_the_next_line)
{
  for (size_t cut = 1; cut < strlen(SECOND); cut++) {
    unlink(path);
    ck_assert_int_eq(add(FIRST), 0);
    append_raw(SECOND, cut);
    ck_assert_int_eq(add(SECOND), 0);
    holds(FIRST SECOND);
  }
}
END_TEST

START_TEST(bad_ends)
{
  static const char zeros[5000];
  static const struct {
    const char *bytes;
    size_t length;
  } ends[] = { { zeros, sizeof(zeros) }, { "}\n", 2 }, { "[1]\n", 4 }, { "\n", 1 }, { "{}x\n{\n\xff\n", 8 } };

  for (size_t i = 0; i < sizeof(ends) / sizeof(*ends); i++) {
    unlink(path);
    ck_assert_int_eq(add(FIRST), 0);
    append_raw(ends[i].bytes, ends[i].length);
    ck_assert_int_eq(fz_history_mend(run), 0);
    holds(FIRST);
  }
}
END_TEST

START_TEST(bad_lines_are_passed_over)
{
  const char text[] = FIRST "no line\n" SECOND;
  struct fz_history_cursor cursor = { .text = text, .length = sizeof(text) - 1 };
  uint64_t serial = 0;

  for (uint64_t want = 2; want > 0; want--) {
    fz_json *line = fz_history_older(&cursor);
    ck_assert(fz_json_integer(fz_json_member(line, "serial"), &serial));
    ck_assert_uint_eq(serial, want);
    fz_json_free(line);
  }
  ck_assert_ptr_null(fz_history_older(&cursor));
  ck_assert_int_eq(cursor.error, 0);
}
END_TEST

START_TEST(nothing_half_written)
{
  struct rlimit limit;

  signal(SIGXFSZ, SIG_IGN);
  ck_assert_int_eq(add(FIRST), 0);
  ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &limit), 0);
  for (rlim_t room = 0; room < strlen(SECOND); room += 7) {
    const struct rlimit tight = { strlen(FIRST) + room, limit.rlim_max };
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &tight), 0);
    ck_assert_int_lt(add(SECOND), 0);
    holds(FIRST);
  }
  ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
  ck_assert_int_eq(add(SECOND), 0);
  holds(FIRST SECOND);
}
END_TEST

START_TEST(no_regular_file)
{
  ck_assert_int_eq(add(FIRST), 0);
  unlink(path);
  ck_assert_int_eq(mkfifo(path, 0600), 0);
  ck_assert_int_lt(add(SECOND), 0);
  unlink(path);
  ck_assert_int_eq(symlink("/dev/null", path), 0);
  ck_assert_int_lt(add(SECOND), 0);
}
END_TEST

START_TEST(a_full_file_makes_room)
{
  static char line[1024 * 1024];
  char *text = NULL;
  size_t length = 0;

  memset(line, ' ', sizeof(line) - 1);
  line[0] = '{';
  line[sizeof(line) - 3] = '}';
  line[sizeof(line) - 2] = '\n';
  for (int i = 0; i < 30; i++)
    ck_assert_int_eq(fz_history_add(run, line, sizeof(line) - 1, false), 0);
  ck_assert_int_eq(fz_history_read(run, &text, &length), 0);
  ck_assert_uint_ge(length, FZ_HISTORY_FILE);
  ck_assert_uint_le(length, 2 * (FZ_HISTORY_FILE + sizeof(line)));
  free(text);
}
END_TEST

START_TEST(memory_is_bounded)
{
  char *text = NULL;
  size_t length = 0;

  tear_down();
  set_up(false);
  for (int i = 0; i < 20000; i++)
    ck_assert_int_eq(add(SECOND), 0);
  ck_assert_int_eq(fz_history_read(run, &text, &length), 0);
  ck_assert_uint_le(length, FZ_HISTORY_MEMORY);
  ck_assert_uint_eq(length % strlen(SECOND), 0);
  free(text);
}
END_TEST

Suite *fz_suite(void) {
  Suite *suite = suite_create("history");
  TCase *file = tcase_create("file");

  tcase_add_checked_fixture(file, set_up_kept, tear_down);
  tcase_set_timeout(file, 20);
  tcase_add_test(file, cut_at_every_byte);
  tcase_add_test(file, cut_by_the_next_line);
  tcase_add_test(file, bad_ends);
  tcase_add_test(file, bad_lines_are_passed_over);
  tcase_add_test(file, nothing_half_written);
  tcase_add_test(file, no_regular_file);
  tcase_add_test(file, a_full_file_makes_room);
  tcase_add_test(file, memory_is_bounded);
  suite_add_tcase(suite, file);
  return suite;
}
