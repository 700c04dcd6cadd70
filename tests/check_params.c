/* check_params.c - the parameter table, masks and the rows of a plan. */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/hash.h"
#include "protocol/limits.h"
#include "protocol/mask.h"
#include "protocol/params.h"
#include "protocol/plan.h"
#include "protocol/text.h"
#include "tests/runner.h"

static fz_params *params;

static void setup(void) { ck_assert_int_eq(fz_params_new(&params), 0); }

static void teardown(void) { params = fz_params_unref(params); }

static int add(const char *name, uint64_t elements) {
  return fz_params_add(params, name, strlen(name), elements, true, NULL, NULL);
}

/* As many, and as long names, as there may be: and then no more. */
START_TEST(full_tables)
{
  static char longest[FZ_PARAM_NAME_MAX];
  const bool by_count = _i == 0;
  const size_t length = by_count ? 1 : sizeof(longest);
  size_t n = 0;
  int r = 0;
  memset(longest, 'x', sizeof(longest));
  while ((r = fz_params_add(params, longest, length, 1, true, NULL, NULL)) == 0)
    n++;
  ck_assert_int_eq(r, -E2BIG);
  ck_assert_uint_eq(fz_params_count(params), n);
  ck_assert_uint_le(fz_params_memory(params), FZ_PARAM_BYTES_MAX + 2 * FZ_PARAMS_MAX * sizeof(struct fz_param));
  if (by_count)
    ck_assert_uint_eq(n, FZ_PARAMS_MAX);
  else
    ck_assert_uint_gt((n + 2) * (FZ_PARAM_NAME_MAX + 1), FZ_PARAM_BYTES_MAX);
}
END_TEST

START_TEST(names_that_are_refused)
{
  static char longest[FZ_PARAM_NAME_MAX + 2];
  memset(longest, 'x', FZ_PARAM_NAME_MAX + 1);
  ck_assert_int_eq(add("", 1), -EINVAL);
  ck_assert_int_eq(add(longest, 1), -EINVAL);
  ck_assert_int_eq(add("a\nb", 1), -EINVAL);
  ck_assert_int_eq(add("a\x7f", 1), -EINVAL);
  ck_assert_int_eq(fz_params_add(params, "a\0b", 3, 1, true, NULL, NULL), -EINVAL);
  ck_assert_int_eq(add("a", FZ_INT_MAX + 1), -EINVAL);
  ck_assert_int_eq(fz_params_add(params, "a", 1, 1, true, "lower", NULL), -EINVAL);
  ck_assert_int_eq(fz_params_add(params, "a", 1, 1, true, NULL, ""), -EINVAL);
  ck_assert_int_eq(fz_params_add(params, "a", 1, 1, true, NULL, "A23456789012345678901234567890123"), -EINVAL);
  ck_assert_uint_eq(fz_params_count(params), 0);
  longest[FZ_PARAM_NAME_MAX] = '\0';
  ck_assert_int_eq(add(longest, FZ_INT_MAX), 0);
  ck_assert_int_eq(fz_params_add(params, "a", 1, 0, true, "A2345678901234567890123456789012", "B"), 0);
  ck_assert_int_eq(fz_params_add(params, "not all of it", 3, 0, true, NULL, NULL), 0);
  ck_assert_int_eq(fz_params_seal(params, NULL), 0);
  ck_assert_str_eq(fz_params_get(params, 2)->name, "not");
  ck_assert_str_eq(fz_params_get(params, 1)->may_freeze, "A2345678901234567890123456789012");
}
END_TEST

/* Bytes, and whether they may stand in a name. */
static const struct {
  const char *text;
  bool clean;
} texts[] = {
  { "plain", true },
  { "\xc3\xa9", true },
  { "\xe2\x82\xac", true },
  { "\xf0\x9f\x98\x80", true },
  { "\xc3", false },
  { "\xa9", false },
  { "\xc0\x80", false },
  { "\xe0\x80\x80", false },
  { "\xf0\x80\x80\x80", false },
  { "\xed\xa0\x80", false },
  { "\xf4\x90\x80\x80", false },
  { "\xff", false },
  { "\xc2\x85", false },
  /* C1 */ { "\xc2\xa0", true },
  { "\x1b[31m", false },
  { "\xf4\x8f\xbf\xbf", true },
};

START_TEST(clean_text)
{ ck_assert_msg(fz_text_is_clean(texts[_i].text, strlen(texts[_i].text)) == texts[_i].clean, "text %d", _i); }
END_TEST

START_TEST(duplicates)
{
  size_t duplicate = 99;
  ck_assert_int_eq(add("b", 1), 0);
  ck_assert_int_eq(add("a", 1), 0);
  ck_assert_int_eq(add("c", 1), 0);
  ck_assert_int_eq(add("c", 1), 0);
  ck_assert_int_eq(add("a", 1), 0);
  ck_assert_int_eq(fz_params_seal(params, &duplicate), -EEXIST);
  ck_assert_uint_eq(duplicate, 3); /* the first that stood before */
}
END_TEST

static int add_alias(const char *name) { return fz_params_add_alias(params, name, strlen(name)); }

START_TEST(aliases)
{
  ck_assert_int_eq(add("wte", 1), 0);
  ck_assert_int_eq(add_alias("head"), 0);
  ck_assert_int_eq(add_alias("encoder"), 0);
  ck_assert_int_eq(add_alias(""), -EINVAL);
  ck_assert_int_eq(add_alias("a\nb"), -EINVAL);
  ck_assert_int_eq(add("body", 1), 0);
  ck_assert_int_eq(fz_params_seal(params, NULL), 0);
  ck_assert_uint_eq(fz_params_count_aliases(params), 2);
  ck_assert_str_eq(fz_params_get_alias(params, 1)->name, "encoder");
  ck_assert_uint_eq(fz_params_find_alias(params, "encoder", 7), 0);
  ck_assert_uint_eq(fz_params_find_alias(params, "wte", 3), 2);
  ck_assert_uint_eq(fz_params_find(params, "head", 4), 2);
}
END_TEST

/* An alias that is the name of a parameter, and one that stands there twice. */
START_TEST(doubled_aliases)
{
  size_t duplicate = 99;
  ck_assert_int_eq(add("a", 1), 0);
  ck_assert_int_eq(add("b", 1), 0);
  ck_assert_int_eq(add_alias(_i == 0 ? "a" : "c"), 0);
  ck_assert_int_eq(add_alias(_i == 0 ? "d" : "c"), 0);
  ck_assert_int_eq(fz_params_seal(params, &duplicate), -EEXIST);
  ck_assert_uint_eq(duplicate, 1);
}
END_TEST

START_TEST(too_many_aliases)
{
  char name[16];
  for (unsigned i = 0; i <= FZ_ALIASES_MAX; i++) {
    (void)snprintf(name, sizeof(name), "p%u", i);
    if (i % FZ_ALIASES_OF_ONE_MAX == 0)
      ck_assert_int_eq(add(name, 1), 0);
    name[0] = 'a';
    ck_assert_int_eq(add_alias(name), i < FZ_ALIASES_MAX ? 0 : -E2BIG);
    if (i == FZ_ALIASES_OF_ONE_MAX - 1)
      ck_assert_int_eq(add_alias("more"), -E2BIG);
  }
}
END_TEST

START_TEST(finding)
{
  static const char *const names[] = { "m.b", "m", "m.a", "n", "m.a.w", "ma", "l" };
  const size_t count = sizeof(names) / sizeof(names[0]);
  size_t first, end;
  for (size_t i = 0; i < count; i++)
    ck_assert_int_eq(add(names[i], i), 0);
  ck_assert_int_eq(fz_params_seal(params, NULL), 0);
  for (size_t i = 0; i < count; i++)
    ck_assert_uint_eq(fz_params_find(params, names[i], strlen(names[i])), i);
  ck_assert_uint_eq(fz_params_find(params, "m.", 2), count);
  ck_assert_uint_eq(fz_params_find(params, "", 0), count);
  ck_assert_uint_eq(fz_params_find(params, "zz", 2), count);

  fz_params_prefix_range(params, "m.", 2, &first, &end);
  ck_assert_uint_eq(end - first, 3);
  ck_assert_str_eq(fz_params_get(params, fz_params_sorted(params, first))->name, "m.a");
  ck_assert_str_eq(fz_params_get(params, fz_params_sorted(params, end - 1))->name, "m.b");
  fz_params_prefix_range(params, "", 0, &first, &end);
  ck_assert_uint_eq(first, 0);
  ck_assert_uint_eq(end, count);
  fz_params_prefix_range(params, "x", 1, &first, &end);
  ck_assert_uint_eq(first, end);
  ck_assert_uint_eq(fz_params_elements(params), 21);
}
END_TEST

/* Many names against a scan. */
START_TEST(prefixes_against_a_scan)
{
  enum { MANY = 3000 };
  char name[64];
  uint64_t random = 12345;
  for (int i = 0; i < MANY; i++) {
    random = random * UINT64_C(6364136223846793005) + 1442695040888963407U;
    (void)snprintf(name, sizeof(name), "l%u.%c.%d", (unsigned)(random >> 60), 'a' + (int)(random >> 58 & 3), i);
    ck_assert_int_eq(add(name, 1), 0);
  }
  ck_assert_int_eq(fz_params_seal(params, NULL), 0);
  static const char *const prefixes[] = { "l", "l1", "l1.", "l15.b", "l15.b.1", "l9.z", "a", "m" };
  for (size_t p = 0; p < sizeof(prefixes) / sizeof(prefixes[0]); p++) {
    size_t first, end, expected = 0;
    const size_t length = strlen(prefixes[p]);
    fz_params_prefix_range(params, prefixes[p], length, &first, &end);
    for (size_t i = 0; i < MANY; i++)
      expected += strncmp(fz_params_get(params, i)->name, prefixes[p], length) == 0;
    ck_assert_uint_eq(end - first, expected);
    for (; first < end; first++)
      ck_assert_int_eq(strncmp(fz_params_get(params, fz_params_sorted(params, first))->name, prefixes[p], length), 0);
  }
}
END_TEST

START_TEST(an_empty_table)
{
  ck_assert_int_eq(fz_params_seal(params, NULL), 0);
  ck_assert_uint_eq(fz_params_count(params), 0);
  ck_assert_uint_eq(fz_params_find(params, "a", 1), 0);
  ck_assert_uint_eq(fz_params_layout_hash(params), FZ_HASH_START);
  ck_assert_ptr_nonnull(fz_params_baseline(params));
}
END_TEST

/* Worked out by hand from PROTOCOL.md: another implementation must come to the same. */
START_TEST(hashes_of_the_protocol)
{
  static const char layout[] = "ab\0\x02\x01\0\0\0\0\0\0c\0\0\0\0\0\0\0\0\0";
  static const char baseline[] = "\x01\0\0\0NO\0ZERO\0";
  ck_assert_int_eq(fz_params_add(params, "ab", 2, 258, true, NULL, NULL), 0);
  ck_assert_int_eq(fz_params_add(params, "c", 1, 0, false, "NO", "ZERO"), 0);
  ck_assert_int_eq(fz_params_seal(params, NULL), 0);
  ck_assert_uint_eq(fz_params_layout_hash(params), fz_hash_bytes(FZ_HASH_START, layout, sizeof(layout) - 1));
  ck_assert_uint_eq(fz_params_baseline_hash(params), fz_hash_bytes(FZ_HASH_START, baseline, sizeof(baseline) - 1));
  ck_assert_uint_eq(fz_hash_bytes(FZ_HASH_START, "foobar", 6), UINT64_C(0x85944171f73967e8)); /* FNV's own */
  ck_assert_uint_eq(fz_params_baseline(params)[0], 1);
}
END_TEST

START_TEST(masks)
{
  uint64_t mask[3];
  fz_mask_fill(mask, 130, true);
  ck_assert_uint_eq(mask[2], 3);
  ck_assert_uint_eq(fz_mask_count(mask, 130), 130);
  fz_mask_fill(mask, 130, false);
  ck_assert_uint_eq(fz_mask_next(mask, 130, 0), 130);
  fz_mask_put(mask, 64, true);
  fz_mask_put(mask, 129, true);
  ck_assert_uint_eq(fz_mask_next(mask, 130, 0), 64);
  ck_assert_uint_eq(fz_mask_next(mask, 130, 65), 129);
  ck_assert_uint_eq(fz_mask_next(mask, 130, 130), 130);
  ck_assert(fz_mask_get(mask, 129));
  fz_mask_put(mask, 129, false);
  ck_assert_uint_eq(fz_mask_count(mask, 130), 1);
}
END_TEST

/* Every cell of random grids, against the definition. */
START_TEST(rows_against_the_definition)
{
  uint64_t random = 99 + (uint64_t)_i;
  struct fz_plan_row rows[36];
  uint64_t steps[6] = { 0 }, epochs[6] = { 0 };
  size_t n_rows = 0;
  for (int i = 1; i < 6; i++) {
    random = random * UINT64_C(6364136223846793005) + 1442695040888963407U;
    steps[i] = steps[i - 1] + 1 + (random >> 62);
    epochs[i] = epochs[i - 1] + 1 + (random >> 60 & 3);
  }
  for (int s = 0; s < 6; s++)
    for (int e = 0; e < 6; e++)
      rows[n_rows++] = (struct fz_plan_row){ .from_step = steps[s], .from_epoch = epochs[e] };
  for (uint64_t step = 0; step < 30; step++)
    for (uint64_t epoch = 0; epoch < 30; epoch++) {
      size_t expected = 0;
      for (size_t i = 0; i < n_rows; i++)
        if (rows[i].from_step <= step && rows[i].from_epoch <= epoch)
          expected = i;
      ck_assert_uint_eq(fz_plan_row_at(rows, n_rows, step, epoch), expected);
    }
}
END_TEST

Suite *fz_suite(void) {
  Suite *suite = suite_create("params");
  TCase *tcase = tcase_create("params");
  tcase_add_checked_fixture(tcase, setup, teardown);
  tcase_add_test(tcase, names_that_are_refused);
  tcase_add_loop_test(tcase, clean_text, 0, sizeof(texts) / sizeof(texts[0]));
  tcase_add_test(tcase, duplicates);
  tcase_add_test(tcase, aliases);
  tcase_add_loop_test(tcase, doubled_aliases, 0, 2);
  tcase_add_test(tcase, too_many_aliases);
  tcase_add_test(tcase, finding);
  tcase_add_test(tcase, prefixes_against_a_scan);
  tcase_add_test(tcase, an_empty_table);
  tcase_add_test(tcase, hashes_of_the_protocol);
  tcase_add_test(tcase, masks);
  tcase_set_timeout(tcase, 60);
  tcase_add_loop_test(tcase, full_tables, 0, 2);
  tcase_add_loop_test(tcase, rows_against_the_definition, 0, 20);
  suite_add_tcase(suite, tcase);
  return suite;
}
