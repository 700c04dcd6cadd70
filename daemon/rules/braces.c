/* braces.c - expands {a,b} and {0..11} in patterns. */
#include "config.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/rules/braces.h"

/* A range's numbers have at most this many digits. */
#define RANGE_DIGITS_MAX 9

struct expansion {
  fz_expansion_fn each;
  void *user;
  size_t left; /* expansions that may still come */
  unsigned depth;
  struct fz_pattern_fault *fault;
};

/* The bytes of a class such as [!a-z] or [[:alpha:]_], 0 when it is not closed. */
static size_t class_length(const char *text, size_t length) {
  size_t i = 1;
  if (i < length && (text[i] == '!' || text[i] == '^'))
    i++;
  if (i < length && text[i] == ']')
    i++;
  while (i < length && text[i] != ']') {
    if (text[i] == '\\')
      i++;
    else if (text[i] == '[' && i + 1 < length && text[i + 1] == ':') {
      const char *end = (const char *)memmem(text + i + 2, length - i - 2, ":]", 2);
      if (end)
        i = (size_t)(end - text) + 1;
    }
    i++;
  }
  return i < length ? i + 1 : 0;
}

size_t fz_glob_token(const char *text, size_t length) {
  if (text[0] == '\\')
    return length > 1 ? 2 : 0;
  if (text[0] == '[')
    return class_length(text, length);
  return 1;
}

static int fail(struct expansion *expansion, const char *message, const char *hint, size_t offset, size_t length) {
  *expansion->fault = (struct fz_pattern_fault){ .message = message, .hint = hint, .offset = offset, .length = length };
  return FZ_BRACES_BAD;
}

/* The first of the characters in `set` at or after `from`, outside nested braces, classes and escapes; else length. */
static size_t find_top(const char *text, size_t length, size_t from, const char *set) {
  size_t depth = 0;
  for (size_t i = from; i < length;) {
    if (depth == 0 && strchr(set, text[i]))
      return i;
    if (text[i] == '{')
      depth++;
    else if (text[i] == '}' && depth > 0)
      depth--;
    const size_t token = fz_glob_token(text + i, length - i);
    i += token ? token : 1;
  }
  return length;
}

static bool parse_number(const char *text, size_t length, long *ret_number) {
  long number = 0;
  if (length == 0 || length > RANGE_DIGITS_MAX)
    return false;
  for (size_t i = 0; i < length; i++) {
    if (text[i] < '0' || text[i] > '9')
      return false;
    number = number * 10 + (text[i] - '0');
  }
  *ret_number = number;
  return true;
}

static int expand(struct expansion *expansion, const char *text, const uint32_t *origin, size_t length);

/* A pattern with one group, text[open..close], about to be replaced. */
struct group {
  const char *text;
  const uint32_t *origin;
  size_t length, open, close;
  char *scratch; /* as large as the pattern: what stands for a group is never longer than the group */
  uint32_t *scratch_origin;
};

static int expand_with(struct expansion *expansion, const struct group *group, const char *item,
                       const uint32_t *item_origin, size_t item_length) {
  const size_t tail = group->close + 1;
  const size_t tail_length = group->length - tail;
  const size_t length = group->open + item_length + tail_length;

  memcpy(group->scratch, group->text, group->open);
  memcpy(group->scratch + group->open, item, item_length);
  memcpy(group->scratch + group->open + item_length, group->text + tail, tail_length);
  memcpy(group->scratch_origin, group->origin, group->open * sizeof(uint32_t));
  for (size_t i = 0; i < item_length; i++)
    group->scratch_origin[group->open + i] = item_origin ? item_origin[i] : group->origin[group->open];
  memcpy(group->scratch_origin + group->open + item_length, group->origin + tail, (tail_length + 1) * sizeof(uint32_t));
  return expand(expansion, group->scratch, group->scratch_origin, length);
}

static int expand_range(struct expansion *expansion, const struct group *group, size_t dots) {
  const char *from = group->text + group->open + 1;
  const char *to = group->text + dots + 2;
  const size_t from_length = dots - group->open - 1;
  const size_t to_length = group->close - dots - 2;
  long first, last;
  if (!parse_number(from, from_length, &first) || !parse_number(to, to_length, &last))
    return fail(expansion, "a range is two whole numbers", "write {0..11}", group->origin[group->open],
                group->origin[group->close] + 1 - group->origin[group->open]);
  /* {00..11} keeps its width, as in a shell. */
  const bool padded = (from_length > 1 && from[0] == '0') || (to_length > 1 && to[0] == '0');
  const int width = padded ? (int)(from_length > to_length ? from_length : to_length) : 1;
  for (long i = first;; i += first <= last ? 1 : -1) {
    char item[RANGE_DIGITS_MAX + 3];
    const int item_length = snprintf(item, sizeof(item), "%0*ld", width, i);
    const int r = expand_with(expansion, group, item, NULL, (size_t)item_length);
    if (r || i == last)
      return r;
  }
}

static int expand_list(struct expansion *expansion, const struct group *group) {
  for (size_t from = group->open + 1;;) {
    const size_t end = find_top(group->text, group->length, from, ",}");
    const int r = expand_with(expansion, group, group->text + from, group->origin + from, end - from);
    if (r || end == group->close)
      return r;
    from = end + 1;
  }
}

static int expand_group(struct expansion *expansion, const struct group *group) {
  const size_t comma = find_top(group->text, group->length, group->open + 1, ",}");
  if (comma < group->close)
    return expand_list(expansion, group);
  const char *inside = group->text + group->open + 1;
  const char *dots = (const char *)memmem(inside, group->close - group->open - 1, "..", 2);
  if (dots)
    return expand_range(expansion, group, (size_t)(dots - group->text));
  return fail(expansion, "'{' begins a list {a,b} or a range {0..11}", "for a brace in a name write \\{",
              group->origin[group->open], group->origin[group->close] + 1 - group->origin[group->open]);
}

static int expand(struct expansion *expansion, const char *text, const uint32_t *origin, size_t length) {
  const size_t open = find_top(text, length, 0, "{");
  if (open == length) {
    if (expansion->left == 0)
      return fail(expansion, "{…} makes too many patterns", NULL, 0, 0);
    expansion->left--;
    return expansion->each(expansion->user, text, origin, length);
  }
  const size_t close = find_top(text, length, open + 1, "}");
  if (close == length)
    return fail(expansion, "'{' is not closed", "for a brace in a name write \\{", origin[open], 1);
  if (expansion->depth == FZ_BRACES_DEPTH_MAX)
    return fail(expansion, "too many {…} in one pattern", NULL, origin[open], 1);

  struct group group = { .text = text, .origin = origin, .length = length, .open = open, .close = close };
  group.scratch = (char *)malloc(length + 1);
  group.scratch_origin = (uint32_t *)malloc((length + 1) * sizeof(uint32_t));
  int r = -ENOMEM;
  if (group.scratch && group.scratch_origin) {
    expansion->depth++;
    r = expand_group(expansion, &group);
    expansion->depth--;
  }
  free(group.scratch);
  free(group.scratch_origin);
  return r;
}

int fz_braces_expand(const char *text, size_t length, size_t max, fz_expansion_fn each, void *user,
                     struct fz_pattern_fault *ret_fault) {
  struct expansion expansion = { .each = each, .user = user, .left = max, .fault = ret_fault };
  uint32_t *origin = (uint32_t *)malloc((length + 1) * sizeof(uint32_t));
  if (!origin)
    return -ENOMEM;
  for (size_t i = 0; i <= length; i++)
    origin[i] = (uint32_t)i;
  const int r = expand(&expansion, text, origin, length);
  free(origin);
  return r;
}
