/* describe.c - a set of parameters in as few names as possible. */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/rules/explain.h"
#include "daemon/rules/strbuf.h"
#include "protocol/mask.h"

/* A module or parameter that is in the set as a whole. */
struct part {
  const char *name; /* so many bytes of a parameter's name */
  size_t length;
  size_t first; /* its first parameter, in the trainer's order */
};

struct parts {
  const fz_params *params;
  const size_t *before; /* how many of the first i names, sorted, are in the set */
  struct part *items;
  size_t n, capacity;
  bool failed;
};

static void add_part(struct parts *parts, const char *name, size_t length, size_t from, size_t to) {
  if (parts->n == parts->capacity) {
    const size_t capacity = parts->capacity ? parts->capacity * 2 : 16;
    void *items = realloc(parts->items, capacity * sizeof(*parts->items));
    if (!items) {
      parts->failed = true;
      return;
    }
    parts->items = (struct part *)items;
    parts->capacity = capacity;
  }
  struct part part = { .name = name, .length = length, .first = SIZE_MAX };
  for (size_t i = from; i < to; i++)
    if (fz_params_sorted(parts->params, i) < part.first)
      part.first = fz_params_sorted(parts->params, i);
  parts->items[parts->n++] = part;
}

/* The first sorted position from `from` on whose name is in the set, or `to`. */
static size_t next_in_set(const struct parts *parts, size_t from, size_t to) {
  size_t low = from, high = to;
  while (low < high) {
    const size_t middle = low + (high - low) / 2;
    if (parts->before[middle + 1] > parts->before[from])
      high = middle;
    else
      low = middle + 1;
  }
  return low;
}

/* Goes through the names in the set from sorted position `from` to `to`, which all begin with the same `prefix` bytes. */
static void collect(struct parts *parts, size_t from, size_t to, size_t prefix) {
  for (size_t i = next_in_set(parts, from, to); i < to && !parts->failed; i = next_in_set(parts, i, to)) {
    const struct fz_param *param = fz_params_get(parts->params, fz_params_sorted(parts->params, i));
    const char *dot = (const char *)memchr(param->name + prefix, '.', param->name_length - prefix);
    const size_t length = dot ? (size_t)(dot - param->name) : param->name_length;
    size_t first = i, end = i + 1;
    if (dot) {
      fz_params_prefix_range(parts->params, param->name, length + 1, &first, &end);
      first = first > from ? first : from;
      end = end < to ? end : to;
    }
    if (parts->before[end] - parts->before[first] == end - first)
      add_part(parts, param->name, length, first, end);
    else
      collect(parts, first, end, length + 1);
    i = end;
  }
}

static int compare_parts(const void *a, const void *b) {
  const struct part *x = (const struct part *)a, *y = (const struct part *)b;
  return (x->first > y->first) - (x->first < y->first);
}

/* Splits "layers.12" into the length of "layers." and 12. */
static bool split_number(const struct part *part, size_t *ret_stem, unsigned long *ret_number) {
  size_t stem = part->length;
  unsigned long number = 0, unit = 1;
  while (stem > 0 && part->length - stem < 9 && part->name[stem - 1] >= '0' && part->name[stem - 1] <= '9') {
    number += unit * (unsigned long)(part->name[--stem] - '0');
    unit *= 10;
  }
  *ret_stem = stem;
  *ret_number = number;
  /* "01" and "1" are different names: a number with a zero before it stays alone. */
  return stem < part->length && (stem == 0 || part->name[stem - 1] == '.') &&
         (part->length - stem == 1 || part->name[stem] != '0');
}

/* How many parts from `i` on are numbered one after the other. */
static size_t run_length(const struct parts *parts, size_t i) {
  size_t stem, n = 1;
  unsigned long number;
  if (!split_number(&parts->items[i], &stem, &number))
    return 1;
  while (i + n < parts->n) {
    const struct part *next = &parts->items[i + n];
    size_t next_stem;
    unsigned long next_number;
    if (!split_number(next, &next_stem, &next_number) || next_stem != stem || next_number != number + n ||
        memcmp(next->name, parts->items[i].name, stem) != 0)
      break;
    n++;
  }
  return n;
}

static char *part_name(const struct parts *parts, size_t i, size_t run) {
  const struct part *first = &parts->items[i], *last = &parts->items[i + run - 1];
  size_t stem;
  unsigned long number;
  if (run == 1)
    return strndup(first->name, first->length);
  (void)split_number(last, &stem, &number);
  return fz_format("%.*s..%lu", (int)first->length, first->name, number);
}

/* Fills in the parts of a set. 0 or -ENOMEM. */
static int find_parts(const fz_params *params, const uint64_t *mask, struct parts *ret_parts) {
  const size_t n = fz_params_count(params);
  size_t *before = (size_t *)malloc((n + 1) * sizeof(*before));
  if (!before)
    return -ENOMEM;
  before[0] = 0;
  for (size_t i = 0; i < n; i++)
    before[i + 1] = before[i] + fz_mask_get(mask, fz_params_sorted(params, i));
  struct parts parts = { .params = params, .before = before };
  collect(&parts, 0, n, 0);
  free(before);
  parts.before = NULL;
  if (parts.failed) {
    free(parts.items);
    return -ENOMEM;
  }
  if (parts.n > 0)
    qsort(parts.items, parts.n, sizeof(*parts.items), compare_parts);
  *ret_parts = parts;
  return 0;
}

int fz_mask_names(const fz_params *params, const uint64_t *mask, size_t max, char ***ret_names, size_t *ret_n,
                  size_t *ret_more) {
  struct parts parts;
  size_t n = 0, more = 0;
  int r = find_parts(params, mask, &parts);
  if (r)
    return r;
  char **names = (char **)calloc(max + 1, sizeof(*names));
  for (size_t i = 0, run; names && !r && i < parts.n; i += run) {
    run = run_length(&parts, i);
    if (n == max)
      more++;
    else if (!(names[n] = part_name(&parts, i, run)))
      r = -ENOMEM;
    else
      n++;
  }
  free(parts.items);
  if (r || !names) {
    fz_names_free(names, n);
    return -ENOMEM;
  }
  *ret_names = names;
  *ret_n = n;
  *ret_more = more;
  return 0;
}

void fz_names_free(char **names, size_t n) {
  for (size_t i = 0; names && i < n; i++)
    free(names[i]);
  free(names);
}

char *fz_mask_describe(const fz_params *params, const uint64_t *mask, size_t max) {
  fz_strbuf buffer = FZ_STRBUF_NULL;
  char **names;
  size_t n, more;
  if (fz_mask_names(params, mask, max, &names, &n, &more))
    return NULL;
  for (size_t i = 0; i < n; i++)
    fz_strbuf_addf(&buffer, "%s%s", i ? ", " : "", names[i]);
  if (more > 0)
    fz_strbuf_addf(&buffer, " and %zu more", more);
  fz_names_free(names, n);
  return fz_strbuf_take(&buffer);
}
