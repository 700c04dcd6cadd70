/* check_rules_selector.c - selectors: tables, errors with their place, suggestions, and random pairs against a plain matcher. */
#include "config.h"

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "daemon/rules/selector.h"
#include "protocol/mask.h"
#include "protocol/suggest.h"
#include "tests/rules_help.h"
#include "tests/runner.h"

#define NAMES \
  "model.embed.weight=1 model.layers.0.w=1 model.layers.0.b=1 model.layers.1.w=1 model.layers.1.attn.q=1 " \
  "model.layers.10.w=1 model.layers.11.w=1 model.norm=1 l1=1 l1.w=1 l10.w=1 größe.gewicht=1 a{b=1 a*b.c=1 head=1"

/* Expected masks are in the order of NAMES. */
static const struct {
  const char *pattern, *expected;
} matches[] = {
  { "model.embed", "100000000000000" },
  { "model.embed.weight", "100000000000000" },
  { "model.emb", "000000000000000" },
  { "model", "111111110000000" },
  { "model.layers.1", "000110000000000" },
  { "l1", "000000001100000" },
  { "l1.", "000000000000000" },
  { "*", "000000001000101" },
  { "**", "111111111111111" },
  { "*.*", "000000010111010" },
  { "model.*", "000000010000000" },
  { "model.**", "111111110000000" },
  { "model.norm.**", "000000000000000" },
  { "model.**.w", "010101100000000" },
  { "**.w", "010101100110000" },
  { "**.norm", "000000010000000" },
  { "model.**.norm", "000000010000000" },
  { "**.attn.**", "000010000000000" },
  { "model.layers.1*", "000000000000000" },
  { "model.layers.1*.**", "000111100000000" },
  { "model.layers.1?.w", "000001100000000" },
  { "model.layers.?.w", "010100000000000" },
  { "model.layers.[01].*", "011100000000000" },
  { "model.layers.[!0].*", "000100000000000" },
  { "model.layers.[^0].*", "000100000000000" },
  { "model?norm", "000000000000000" },
  { "model[.]norm", "000000000000000" },
  { "model.layers.{0..1}", "011110000000000" },
  { "model.layers.{1..0}", "011110000000000" },
  { "model.layers.{00..11}", "000001100000000" },
  { "model.layers.{0,1{0,1}}.w", "010001100000000" },
  { "{model.{embed,norm},head}", "100000010000001" },
  { "model.layers.{0..11}.w", "010101100000000" },
  { "model.layers.{0,0}.w", "010000000000000" },
  { "l1{,0}.w", "000000000110000" },
  { "name:l1", "000000001000000" },
  { "name:model", "000000000000000" },
  { "name:", "000000000000000" },
  { "prefix:l1", "000000001110000" },
  { "prefix:l1.", "000000000100000" },
  { "prefix:", "111111111111111" },
  { "prefix:model.layers.1", "000111100000000" },
  { "re:layers", "011111100000000" },
  { "re:^layers", "000000000000000" },
  { "re:\\.(10|11)\\.", "000001100000000" },
  { "re:\\d{2}", "000001100010000" },
  { "re:^h", "000000000000001" },
  { "größe", "000000000001000" },
  { "gr??e.*", "000000000001000" },
  { "gr[ö]*.*", "000000000001000" },
  { "a\\{b", "000000000000100" },
  { "a\\*b.c", "000000000000010" },
  { "a[*]b.*", "000000000000010" },
  { "a[{]b", "000000000000100" },
  { "name:a*b.c", "000000000000010" },
};

static const struct {
  const char *pattern, *expected; /* over wte (alias head.weight) and body */
} tied[] = {
  { "head", "10" },      { "head.weight", "10" }, { "head.weigh", "00" },
  { "hea", "00" },       { "prefix:hea", "10" },  { "name:head.weight", "10" },
  { "name:head", "00" }, { "*.weight", "10" },    { "re:^head", "10" },
  { "wte", "10" },       { "**", "11" },          { "body", "01" },
};

START_TEST(aliases_select)
{
  uint64_t mask = 0, names = 0;
  size_t matched = 0;
  fz_params *params = NULL;
  fz_selector *selector = NULL;
  ck_assert_int_eq(fz_params_new(&params), 0);
  ck_assert_int_eq(fz_params_add(params, "wte", 3, 1, true, NULL, NULL), 0);
  ck_assert_int_eq(fz_params_add_alias(params, "head.weight", 11), 0);
  ck_assert_int_eq(fz_params_add(params, "body", 4, 1, true, NULL, NULL), 0);
  ck_assert_int_eq(fz_params_seal(params, NULL), 0);
  ck_assert_int_eq(fz_selector_new(&selector, tied[_i].pattern, strlen(tied[_i].pattern), NULL, NULL), 0);
  ck_assert_int_eq(fz_selector_match(selector, params, &mask, &matched), 0);
  ck_assert_msg(strcmp(help_mask(&mask, 2), tied[_i].expected) == 0, "'%s': %s", tied[_i].pattern, help_mask(&mask, 2));
  ck_assert_uint_eq(matched, fz_mask_count(&mask, 2));
  ck_assert_int_eq(fz_selector_match_names(selector, params, &names, NULL), 0);
  const bool by_name = strchr("w*b", tied[_i].pattern[0]) && strcmp(tied[_i].pattern, "*.weight") != 0;
  ck_assert_uint_eq(names, by_name ? mask : 0);
  fz_selector_free(selector);
  fz_params_unref(params);
}
END_TEST

START_TEST(matches_table)
{
  fz_params *params = help_params(NAMES);
  fz_selector *selector = NULL;
  uint64_t mask[1] = { 0 }, again[1] = { 1 };
  size_t matched = 0;
  const char *pattern = matches[_i].pattern;
  ck_assert_int_eq(fz_selector_new(&selector, pattern, strlen(pattern), NULL, NULL), 0);
  ck_assert_str_eq(fz_selector_text(selector), pattern);
  ck_assert_int_eq(fz_selector_match(selector, params, mask, &matched), 0);
  ck_assert_msg(strcmp(help_mask(mask, 15), matches[_i].expected) == 0, "'%s': %s, not %s", pattern,
                help_mask(mask, 15), matches[_i].expected);
  ck_assert_uint_eq(matched, fz_mask_count(mask, 15));
  /* Bits that were set before stay, and do not count. */
  ck_assert_int_eq(fz_selector_match(selector, params, again, &matched), 0);
  ck_assert_uint_eq(again[0], mask[0] | 1);
  ck_assert_uint_eq(matched, fz_mask_count(mask, 15));
  fz_selector_free(selector);
  fz_params_unref(params);
}
END_TEST

static const struct {
  const char *pattern, *message;
  size_t offset;
} faults[] = {
  { "", "an empty name selects nothing", SIZE_MAX },
  { "a.{b,}", NULL, 0 },
  { "{a,}", "an empty name selects nothing", SIZE_MAX },
  { "model**", "'**' must stand between dots", 5 },
  { "**w.a", "'**' must stand between dots", 0 },
  { "a.***", "'**' must stand between dots", 2 },
  { "a{,.b}.x**", "'**' must stand between dots", 8 },
  { "a{b,**}", "'**' must stand between dots", 4 },
  { "a[bc", "'[' is not closed", 1 },
  { "x.{a,b}[c", "'[' is not closed", 7 },
  { "a]b", "']' without a '['", 1 },
  { "a}b", "'}' without a '{'", 1 },
  { "a{b", "'{' is not closed", 1 },
  { "a{b}", "'{' begins a list {a,b} or a range {0..11}", 1 },
  { "a{1..x}", "a range is two whole numbers", 1 },
  { "a{..}", "a range is two whole numbers", 1 },
  { "a{0..9999999999}", "a range is two whole numbers", 1 },
  { "a{0..10000}", "{…} makes too many patterns", SIZE_MAX },
  { "{0..9}{0..9}{0..9}{0..9}{0..9}", "{…} makes too many patterns", SIZE_MAX },
  { "a\\", "a backslash at the end takes no character", 1 },
  { "re:a(b", "missing closing parenthesis", 6 },
  { "re:a[b", "missing terminating ] for character class", 6 },
  { "re:*", "quantifier does not follow a repeatable item", 3 },
  { "re:(*LIMIT_MATCH=1", "(*VERB) not recognized or malformed", 18 }, /* PCRE2 says one behind the end */
  { "re:\\C", "using \\C is disabled by the application", 5 },
  { "a\tb", "a pattern is UTF-8 without control characters", SIZE_MAX },
  { "a\xff", "a pattern is UTF-8 without control characters", SIZE_MAX },
  { "a.[b-a].c", "invalid syntax", 6 },
};

START_TEST(faults_table)
{
  const char *pattern = faults[_i].pattern;
  fz_diagnostics diagnostics = FZ_DIAGNOSTICS_NULL;
  fz_selector *selector = NULL;
  const int r = fz_selector_new(&selector, pattern, strlen(pattern), "/0", &diagnostics);
  if (!faults[_i].message) {
    ck_assert_msg(r == 0, "'%s'", pattern);
    fz_selector_free(selector);
    return;
  }
  ck_assert_msg(r == FZ_SELECTOR_BAD, "'%s': %d", pattern, r);
  ck_assert_uint_eq(diagnostics.n, 1);
  ck_assert_str_eq(diagnostics.items[0].pointer, "/0");
  ck_assert_msg(strstr(diagnostics.items[0].message, faults[_i].message) != NULL, "'%s': %s", pattern,
                diagnostics.items[0].message);
  ck_assert_msg(diagnostics.items[0].offset == faults[_i].offset, "'%s': offset %zd, not %zd", pattern,
                (ssize_t)diagnostics.items[0].offset, (ssize_t)faults[_i].offset);
  fz_diagnostics_deinit(&diagnostics);
}
END_TEST

START_TEST(braces_are_bounded)
{
  char pattern[4001];
  fz_selector *selector = NULL;
  fz_diagnostics diagnostics = FZ_DIAGNOSTICS_NULL;
  for (size_t i = 0; i < 4000; i += 5)
    memcpy(pattern + i, "{1,2}", 5);
  pattern[4000] = '\0';
  ck_assert_int_eq(fz_selector_new(&selector, pattern, 4000, NULL, &diagnostics), FZ_SELECTOR_BAD);
  memset(pattern, '{', 4000);
  ck_assert_int_eq(fz_selector_new(&selector, pattern, 4000, NULL, &diagnostics), FZ_SELECTOR_BAD);
  for (size_t i = 0; i < 4000; i += 5)
    memcpy(pattern + i, "{1..1}", 5);
  ck_assert_int_eq(fz_selector_new(&selector, pattern, 4000, NULL, &diagnostics), FZ_SELECTOR_BAD);
  fz_diagnostics_deinit(&diagnostics);
}
END_TEST

/* --- suggestions --- */

static fz_params *gpt2(void) {
  fz_params *params;
  char name[64];
  ck_assert_int_eq(fz_params_new(&params), 0);
  ck_assert_int_eq(fz_params_add(params, "model.embed_tokens", 18, 38597376, true, NULL, NULL), 0);
  for (int layer = 0; layer < 12; layer++)
    for (int i = 0; i < 12; i++) {
      const int length = snprintf(name, sizeof(name), "model.layers.%d.p%d", layer, i);
      ck_assert_int_eq(fz_params_add(params, name, (size_t)length, 590656, true, NULL, NULL), 0);
    }
  ck_assert_int_eq(fz_params_add(params, "model.norm.weight", 17, 768, true, NULL, NULL), 0);
  ck_assert_int_eq(fz_params_seal(params, NULL), 0);
  return params;
}

static const struct {
  const char *pattern, *hint;
} hints[] = {
  { "layers.3", "did you mean 'model.layers.3' (12 parameters)?" },
  { "model.layers.1*", "'*' is one name component; 'model.layers.1*.**' matches 36 parameters" },
  { "model.layer.{0..2}", "did you mean 'model.layers.{0..2}' (36 parameters)?" },
  { "model.layrs.3", "did you mean 'model.layers.3' (12 parameters)?" },
  { "model.layers.3.p", "did you mean 'model.layers.3.p0'?" },
  { "norm.weight", "did you mean 'model.norm.weight'?" },
  { "model.nrom", "did you mean 'model.norm' (1 parameter)?" },
  { "module.model.norm", "did you mean 'model.norm' (1 parameter)?" },
  { "module.model.layers.*.p0", "did you mean 'model.layers.*.p0' (12 parameters)?" },
  { "layers.*.p0", "did you mean 'model.layers.*.p0' (12 parameters)?" },
  { "name:model.layers.3", "'name:' is one parameter; 'model.layers.3' matches 12" },
  { "name:norm.weight", "did you mean 'name:model.norm.weight' (1 parameter)?" },
  { "prefix:model.model.layers", "did you mean 'prefix:model.layers' (144 parameters)?" },
  { "xyz", NULL },
  { "re:xyz", NULL },
  { "xyz.**", NULL },
};

START_TEST(hints_table)
{
  fz_params *params = gpt2();
  fz_selector *selector = NULL;
  char *hint = NULL;
  ck_assert_int_eq(fz_selector_new(&selector, hints[_i].pattern, strlen(hints[_i].pattern), NULL, NULL), 0);
  ck_assert_int_eq(fz_selector_hint(selector, params, true, &hint), 0);
  if (hints[_i].hint)
    ck_assert_msg(hint && strcmp(hint, hints[_i].hint) == 0, "'%s': %s", hints[_i].pattern, hint ? hint : "no hint");
  else
    ck_assert_msg(!hint, "'%s': %s", hints[_i].pattern, hint);
  free(hint);
  fz_selector_free(selector);
  fz_params_unref(params);
}
END_TEST

static size_t slow_distance(const char *a, size_t n, const char *b, size_t m) {
  size_t d[16][16];
  for (size_t i = 0; i <= n; i++)
    for (size_t j = 0; j <= m; j++) {
      size_t least = i == 0 ? j : j == 0 ? i : d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
      if (i && j && d[i - 1][j] + 1 < least)
        least = d[i - 1][j] + 1;
      if (i && j && d[i][j - 1] + 1 < least)
        least = d[i][j - 1] + 1;
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && d[i - 2][j - 2] + 1 < least)
        least = d[i - 2][j - 2] + 1;
      d[i][j] = least;
    }
  return d[n][m];
}

START_TEST(distance_is_right)
{
  struct help_random random = { .state = 3 };
  for (unsigned round = 0; round < 100000; round++) {
    char a[10], b[10];
    const size_t n = help_below(&random, 10), m = help_below(&random, 10), limit = help_below(&random, 4);
    for (size_t i = 0; i < 10; i++) {
      a[i] = (char)('a' + help_below(&random, 3));
      b[i] = (char)('a' + help_below(&random, 3));
    }
    const size_t expected = slow_distance(a, n, b, m);
    ck_assert_uint_eq(fz_edit_distance(a, n, b, m, limit), expected > limit ? limit + 1 : expected);
  }
}
END_TEST

START_TEST(suggestions)
{
  const char *const words[] = { "freeze", "unfreeze", "from", "until", "rules", "runs" };
  ck_assert_str_eq(fz_suggest("form", words, 6), "from");
  ck_assert_str_eq(fz_suggest("freze", words, 6), "freeze");
  ck_assert_str_eq(fz_suggest("unt", words, 6), "until");
  ck_assert_str_eq(fz_suggest("rulse", words, 6), "rules");
  ck_assert_ptr_null(fz_suggest("xyzzy", words, 6));
  ck_assert_ptr_null(fz_suggest("", words, 6));
  ck_assert_ptr_null(fz_suggest("q", words, 6));
}
END_TEST

/* --- lists of patterns --- */

static int list(const char *const *patterns, size_t n, const char *expected, const char *message, const char *pointer) {
  fz_params *params = help_params(NAMES);
  fz_diagnostics diagnostics = FZ_DIAGNOSTICS_NULL;
  uint64_t mask[1] = { 77 };
  const int r = fz_patterns_match(params, patterns, n, mask, &diagnostics);
  if (expected)
    ck_assert_str_eq(help_mask(mask, 15), expected);
  if (message) {
    ck_assert_uint_ge(diagnostics.n, 1);
    ck_assert_str_eq(diagnostics.items[0].message, message);
    ck_assert_str_eq(diagnostics.items[0].pointer, pointer);
  } else
    ck_assert_uint_eq(diagnostics.n, 0);
  fz_diagnostics_deinit(&diagnostics);
  fz_params_unref(params);
  return r;
}

#define LIST(...) (const char *const[]){ __VA_ARGS__ }, sizeof((const char *const[]){ __VA_ARGS__ }) / sizeof(char *)

START_TEST(pattern_lists)
{
  ck_assert_int_eq(list(LIST("l1", "head"), "000000001100001", NULL, NULL), 0);
  ck_assert_int_eq(list(LIST("model", "!model.layers.{0..1}"), "100001110000000", NULL, NULL), 0);
  ck_assert_int_eq(list(LIST("!model.layers.{0..1}", "model"), "100001110000000", NULL, NULL), 0);
  ck_assert_int_eq(list(LIST("head", "!hed"), "000000000000001", "no parameter matches 'hed'", "/1"), 0);
  ck_assert_int_eq(list(LIST("l1", "hed"), NULL, "no parameter matches 'hed'", "/1"), FZ_PATTERNS_NO_MATCH);
  ck_assert_int_eq(list(LIST("head", "!head"), NULL, "everything that was selected is excluded again", ""),
                   FZ_PATTERNS_NO_MATCH);
  ck_assert_int_eq(list(LIST("!head"), NULL, "every pattern excludes, none selects", ""), FZ_PATTERNS_BAD);
  ck_assert_int_eq(list(LIST("head", "!a[b"), NULL, "'[' is not closed", "/1"), FZ_PATTERNS_BAD);
}
END_TEST

START_TEST(exclusion_offsets_count_the_mark)
{
  fz_params *params = help_params(NAMES);
  fz_diagnostics diagnostics = FZ_DIAGNOSTICS_NULL;
  const char *patterns[] = { "!a[b", "a[b" };
  uint64_t mask[1];
  ck_assert_int_eq(fz_patterns_match(params, patterns, 2, mask, &diagnostics), FZ_PATTERNS_BAD);
  ck_assert_uint_eq(diagnostics.items[0].offset, 2);
  ck_assert_uint_eq(diagnostics.items[1].offset, 1);
  fz_diagnostics_deinit(&diagnostics);
  fz_params_unref(params);
}
END_TEST

/* --- random globs and names against a matcher that is as plain as can be --- */

/* Matches one component: *, ?, [..] and single characters, all ASCII. */
static bool plain_component(const char *p, const char *p_end, const char *s, const char *s_end) {
  if (p == p_end)
    return s == s_end;
  if (*p == '*')
    return plain_component(p + 1, p_end, s, s_end) || (s < s_end && plain_component(p, p_end, s + 1, s_end));
  if (s == s_end)
    return false;
  if (*p == '[') {
    const char *close = (const char *)memchr(p + 2, ']', (size_t)(p_end - p - 2));
    const bool negated = p[1] == '!';
    const bool in = memchr(p + 1 + negated, *s, (size_t)(close - p - 1 - negated)) != NULL;
    return in != negated && plain_component(close + 1, p_end, s + 1, s_end);
  }
  return (*p == '?' || *p == *s) && plain_component(p + 1, p_end, s + 1, s_end);
}

static const char *component_end(const char *text) {
  const char *dot = strchr(text, '.');
  return dot ? dot : text + strlen(text);
}

/* Matches lists of components; NULL is the end of a list. '**' stands for any number, but as the last for one or more. */
static bool plain_match(const char *p, const char *s) {
  if (!p)
    return !s;
  const char *p_end = component_end(p);
  const char *p_next = *p_end ? p_end + 1 : NULL;
  const char *s_end = s ? component_end(s) : NULL;
  const char *s_next = s && *s_end ? s_end + 1 : NULL;
  if (p_end - p == 2 && p[0] == '*' && p[1] == '*') {
    if (!p_next)
      return s != NULL;
    return plain_match(p_next, s) || (s && plain_match(p, s_next));
  }
  return s && plain_component(p, p_end, s, s_end) && plain_match(p_next, s_next);
}

static void random_pattern(struct help_random *random, char *text) {
  const size_t n = 1 + help_below(random, 4);
  for (size_t i = 0; i < n; i++) {
    if (i)
      *text++ = '.';
    if (help_below(random, 4) == 0) {
      *text++ = '*';
      *text++ = '*';
      continue;
    }
    bool star = false;
    for (size_t k = 1 + help_below(random, 3); k > 0; k--)
      switch (help_below(random, 8)) {
      case 0:
        if (!star)
          *text++ = '*';
        star = true;
        break;
      case 1:
        *text++ = '?';
        star = false;
        break;
      case 2:
        text += sprintf(text, help_below(random, 2) ? "[ab]" : "[!b]");
        star = false;
        break;
      default:
        *text++ = (char)('a' + help_below(random, 2));
        star = false;
      }
  }
  *text = '\0';
}

static fz_params *random_names(struct help_random *random, size_t n) {
  fz_params *params;
  ck_assert_int_eq(fz_params_new(&params), 0);
  for (size_t i = 0; i < n;) {
    char name[40], *end = name;
    for (size_t k = 1 + help_below(random, 4); k > 0; k--) {
      for (size_t c = 1 + help_below(random, 2); c > 0; c--)
        *end++ = (char)('a' + help_below(random, 2));
      *end++ = '.';
    }
    *--end = '\0';
    bool known = false;
    for (size_t k = 0; k < i && !known; k++)
      known = strcmp(fz_params_get(params, k)->name, name) == 0;
    if (known)
      continue;
    ck_assert_int_eq(fz_params_add(params, name, strlen(name), 1, true, NULL, NULL), 0);
    i++;
  }
  ck_assert_int_eq(fz_params_seal(params, NULL), 0);
  return params;
}

START_TEST(random_pairs)
{
  struct help_random random = { .state = 5 };
  size_t hits = 0, pairs = 0;
  for (unsigned round = 0; round < 20; round++) {
    fz_params *params = random_names(&random, 100);
    for (unsigned k = 0; k < 100; k++) {
      char pattern[64];
      random_pattern(&random, pattern);
      const bool bare = strcspn(pattern, "*?[") == strlen(pattern);
      uint64_t *mask = help_select(params, pattern);
      for (size_t i = 0; i < 100; i++) {
        const char *name = fz_params_get(params, i)->name;
        const size_t length = strlen(pattern);
        const bool expected =
          plain_match(pattern, name) || (bare && strncmp(name, pattern, length) == 0 && name[length] == '.');
        ck_assert_msg(fz_mask_get(mask, i) == expected, "'%s' and '%s': %d", pattern, name, !expected);
        hits += expected;
        pairs++;
      }
      free(mask);
    }
    fz_params_unref(params);
  }
  ck_assert_uint_gt(hits, pairs / 20);
}
END_TEST

/* --- sizes and costs --- */

START_TEST(any_number_of_parameters)
{
  const size_t counts[] = { 0, 1, 63, 64, 65, 1000 };
  for (size_t k = 0; k < sizeof(counts) / sizeof(*counts); k++) {
    fz_params *params;
    ck_assert_int_eq(fz_params_new(&params), 0);
    for (size_t i = 0; i < counts[k]; i++) {
      char name[32];
      const int length = snprintf(name, sizeof(name), "m.%zu", i);
      ck_assert_int_eq(fz_params_add(params, name, (size_t)length, 1, true, NULL, NULL), 0);
    }
    ck_assert_int_eq(fz_params_seal(params, NULL), 0);
    const char *const patterns[] = { "m", "**", "prefix:m", "re:m", "m.*" };
    for (size_t i = 0; i < 5; i++) {
      uint64_t *mask = help_select(params, patterns[i]);
      ck_assert_uint_eq(fz_mask_count(mask, counts[k]), counts[k]);
      if (counts[k] % 64)
        ck_assert_uint_eq(mask[counts[k] / 64] >> (counts[k] % 64), 0);
      free(mask);
    }
    fz_params_unref(params);
  }
}
END_TEST

START_TEST(long_names)
{
  char name[4097], pattern[4200];
  fz_params *params;
  memset(name, 'x', 4096);
  for (size_t i = 50; i < 4096; i += 50)
    name[i] = '.';
  name[4096] = '\0';
  ck_assert_int_eq(fz_params_new(&params), 0);
  ck_assert_int_eq(fz_params_add(params, name, 4096, 1, true, NULL, NULL), 0);
  ck_assert_int_eq(fz_params_seal(params, NULL), 0);
  const char *const forms[] = { "%s", "name:%s", "prefix:%s", "re:^%s$", "{%s,y}", "%.4000s*.**" };
  for (size_t i = 0; i < sizeof(forms) / sizeof(*forms); i++) {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    (void)snprintf(pattern, sizeof(pattern), forms[i], name);
#pragma GCC diagnostic pop
    uint64_t *mask = help_select(params, pattern);
    ck_assert_msg(mask[0] == 1, "%s", forms[i]);
    free(mask);
  }
  fz_params_unref(params);
}
END_TEST

START_TEST(endless_backtracking_stops)
{
  fz_params *params = help_params("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaab=1");
  fz_selector *selector = NULL;
  uint64_t mask[1] = { 0 };
  const char *pattern = "re:^(a|aa)+$";
  ck_assert_int_eq(fz_selector_new(&selector, pattern, strlen(pattern), NULL, NULL), 0);
  ck_assert_int_eq(fz_selector_match(selector, params, mask, NULL), -E2BIG);
  fz_selector_free(selector);
  fz_params_unref(params);
}
END_TEST

static fz_params *many(void) {
  fz_params *params;
  ck_assert_int_eq(fz_params_new(&params), 0);
  for (size_t i = 0; i < 100000; i++) {
    char name[64];
    const int length = snprintf(name, sizeof(name), "model.layers.%zu.block.%zu.weight", i / 100, i % 100);
    ck_assert_int_eq(fz_params_add(params, name, (size_t)length, 1, true, NULL, NULL), 0);
  }
  ck_assert_int_eq(fz_params_seal(params, NULL), 0);
  return params;
}

/* Looked up, not scanned: a thousand lookups cost as much as a few scans, not a thousand. */
START_TEST(a_thousand_selectors)
{
  static const char *const forms[] = { "model.layers.%u", "prefix:model.layers.%u.block.9",
                                       "name:model.layers.%u.block.7.weight", "model.layers.%u.block.*.weight" };
  fz_params *params = many();
  uint64_t *mask = (uint64_t *)calloc(fz_mask_words(100000), sizeof(uint64_t));
  struct timespec begin, end;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &begin);
  for (unsigned i = 0; i < 1000; i++) {
    char pattern[64];
    fz_selector *selector = NULL;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    (void)snprintf(pattern, sizeof(pattern), forms[i % 4], i);
#pragma GCC diagnostic pop
    ck_assert_int_eq(fz_selector_new(&selector, pattern, strlen(pattern), NULL, NULL), 0);
    ck_assert_int_eq(fz_selector_match(selector, params, mask, NULL), 0);
    fz_selector_free(selector);
  }
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &end);
  const double seconds = (double)(end.tv_sec - begin.tv_sec) + (double)(end.tv_nsec - begin.tv_nsec) / 1e9;
  /* 1,000 scans of 100,000 names would take well over a second even if a comparison took only 15 ns. */
  ck_assert_msg(seconds < 0.5 * fz_test_slowdown(), "%.3f s", seconds);
  ck_assert_uint_eq(fz_mask_count(mask, 100000), 250 * 100 + 250 * 11 + 250 + 250 * 100);
  free(mask);
  fz_params_unref(params);
}
END_TEST

Suite *fz_suite(void) {
  Suite *suite = suite_create("rules: selectors");
  TCase *tables = tcase_create("tables"), *names = tcase_create("names"), *costs = tcase_create("costs");
  tcase_add_loop_test(tables, matches_table, 0, (int)(sizeof(matches) / sizeof(*matches)));
  tcase_add_loop_test(tables, aliases_select, 0, sizeof(tied) / sizeof(*tied));
  tcase_add_loop_test(tables, faults_table, 0, (int)(sizeof(faults) / sizeof(*faults)));
  tcase_add_loop_test(tables, hints_table, 0, (int)(sizeof(hints) / sizeof(*hints)));
  tcase_add_test(tables, pattern_lists);
  tcase_add_test(tables, exclusion_offsets_count_the_mark);
  tcase_add_test(names, distance_is_right);
  tcase_add_test(names, suggestions);
  tcase_add_test(names, random_pairs);
  tcase_add_test(costs, any_number_of_parameters);
  tcase_add_test(costs, braces_are_bounded);
  tcase_add_test(costs, long_names);
  tcase_add_test(costs, endless_backtracking_stops);
  tcase_add_test(costs, a_thousand_selectors);
  tcase_set_timeout(costs, 30);
  tcase_set_timeout(names, 30);
  suite_add_tcase(suite, tables);
  suite_add_tcase(suite, names);
  suite_add_tcase(suite, costs);
  return suite;
}
