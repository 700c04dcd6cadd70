/* params.c - the parameter table of a run: names, element counts, baseline flags, refusals, in the trainer's order. */
#include "config.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/hash.h"
#include "protocol/limits.h"
#include "protocol/mask.h"
#include "protocol/params.h"
#include "protocol/text.h"

/* Strings live in chunks that never move, so that struct fz_param may point into them while the table grows. */
struct chunk {
  struct chunk *next;
  size_t used, size;
  char bytes[];
};

enum { CHUNK_SIZE = 64 * 1024 };

struct fz_params {
  size_t n_refs;
  bool sealed;
  size_t n, n_allocated;
  struct fz_param *items;
  size_t n_aliases, n_aliases_allocated;
  struct fz_alias *aliases;
  uint32_t *sorted; /* indexes in the order of the names */
  uint64_t *baseline;
  uint64_t elements, layout_hash, baseline_hash;
  size_t n_bytes; /* of all names and codes, charged against FZ_PARAM_BYTES_MAX */
  struct chunk *chunks;
};

int fz_params_new(fz_params **ret_params) {
  fz_params *params = calloc(1, sizeof(*params));
  if (!params)
    return -ENOMEM;
  params->n_refs = 1;
  *ret_params = params;
  return 0;
}

fz_params *fz_params_ref(fz_params *params) {
  params->n_refs++;
  return params;
}

fz_params *fz_params_unref(fz_params *params) {
  if (!params || --params->n_refs > 0)
    return NULL;
  while (params->chunks) {
    struct chunk *next = params->chunks->next;
    free(params->chunks);
    params->chunks = next;
  }
  free(params->items);
  free(params->aliases);
  free(params->sorted);
  free(params->baseline);
  free(params);
  return NULL;
}

/* Makes sure that the newest chunk has room for `size` bytes, so that what follows cannot fail. */
static int reserve_bytes(fz_params *params, size_t size) {
  if (params->chunks && params->chunks->size - params->chunks->used >= size)
    return 0;
  const size_t room = size > CHUNK_SIZE ? size : CHUNK_SIZE;
  struct chunk *chunk = malloc(sizeof(*chunk) + room);
  if (!chunk)
    return -ENOMEM;
  *chunk = (struct chunk){ .next = params->chunks, .size = room };
  params->chunks = chunk;
  return 0;
}

static int reserve_item(fz_params *params) {
  if (params->n < params->n_allocated)
    return 0;
  const size_t n = params->n_allocated ? params->n_allocated * 2 : 64;
  struct fz_param *items = realloc(params->items, n * sizeof(*items));
  if (!items)
    return -ENOMEM;
  params->items = items;
  params->n_allocated = n;
  return 0;
}

static const char *keep(fz_params *params, const char *text, size_t length) {
  struct chunk *chunk = params->chunks;
  char *copy = chunk->bytes + chunk->used;
  memcpy(copy, text, length);
  copy[length] = '\0';
  chunk->used += length + 1;
  params->n_bytes += length + 1;
  return copy;
}

static bool is_code(const char *code) {
  const size_t length = strnlen(code, FZ_CODE_MAX + 1);
  if (length == 0 || length > FZ_CODE_MAX)
    return false;
  return strspn(code, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") == length;
}

/* Models refuse thousands of parameters for one reason: a code equal to that of the parameter before is not copied. */
static const char *keep_code(fz_params *params, const char *code, const char *before) {
  if (!code)
    return NULL;
  if (before && strcmp(before, code) == 0)
    return before;
  return keep(params, code, strlen(code));
}

int fz_params_add(fz_params *params, const char *name, size_t name_length, uint64_t elements, bool requires_grad,
                  const char *may_freeze, const char *may_train) {
  assert(!params->sealed);
  if (name_length == 0 || name_length > FZ_PARAM_NAME_MAX || !fz_text_is_clean(name, name_length))
    return -EINVAL;
  if (elements > FZ_INT_MAX || (may_freeze && !is_code(may_freeze)) || (may_train && !is_code(may_train)))
    return -EINVAL;
  const size_t most = name_length + 1 + 2 * (FZ_CODE_MAX + 1);
  if (params->n >= FZ_PARAMS_MAX || params->n_bytes + most > FZ_PARAM_BYTES_MAX)
    return -E2BIG;
  int r = reserve_bytes(params, most);
  if (r == 0)
    r = reserve_item(params);
  if (r < 0)
    return r;

  const struct fz_param *before = params->n ? &params->items[params->n - 1] : NULL;
  const struct fz_param added = {
    .name = keep(params, name, name_length),
    .name_length = name_length,
    .elements = elements,
    .requires_grad = requires_grad,
    .may_freeze = keep_code(params, may_freeze, before ? before->may_freeze : NULL),
    .may_train = keep_code(params, may_train, before ? before->may_train : NULL),
  };
  params->items[params->n++] = added;
  params->elements = params->elements > UINT64_MAX - elements ? UINT64_MAX : params->elements + elements;
  return 0;
}

static int reserve_alias(fz_params *params) {
  if (params->n_aliases < params->n_aliases_allocated)
    return 0;
  const size_t n = params->n_aliases_allocated ? params->n_aliases_allocated * 2 : 16;
  struct fz_alias *aliases = realloc(params->aliases, n * sizeof(*aliases));
  if (!aliases)
    return -ENOMEM;
  params->aliases = aliases;
  params->n_aliases_allocated = n;
  return 0;
}

/* How many of them the parameter that was added last has already. */
static size_t count_aliases_of_last(const fz_params *params) {
  size_t n = 0;
  while (n < params->n_aliases && params->aliases[params->n_aliases - 1 - n].param == params->n - 1)
    n++;
  return n;
}

int fz_params_add_alias(fz_params *params, const char *name, size_t name_length) {
  assert(!params->sealed && params->n > 0);
  if (name_length == 0 || name_length > FZ_PARAM_NAME_MAX || !fz_text_is_clean(name, name_length))
    return -EINVAL;
  if (params->n_aliases >= FZ_ALIASES_MAX || count_aliases_of_last(params) >= FZ_ALIASES_OF_ONE_MAX ||
      params->n_bytes + name_length + 1 > FZ_PARAM_BYTES_MAX)
    return -E2BIG;
  int r = reserve_bytes(params, name_length + 1);
  if (r == 0)
    r = reserve_alias(params);
  if (r < 0)
    return r;
  params->aliases[params->n_aliases++] =
    (struct fz_alias){ .name = keep(params, name, name_length), .name_length = name_length, .param = params->n - 1 };
  return 0;
}

static int compare_bytes(const char *a, size_t a_length, const char *b, size_t b_length) {
  const int order = memcmp(a, b, a_length < b_length ? a_length : b_length);
  if (order)
    return order;
  return (a_length > b_length) - (a_length < b_length);
}

/* Equal names stay in the order of their indexes, so that the later one is the duplicate. */
static int compare_names(const void *a, const void *b, void *items) {
  const uint32_t i = *(const uint32_t *)a, j = *(const uint32_t *)b;
  const struct fz_param *p = (const struct fz_param *)items + i, *q = (const struct fz_param *)items + j;
  const int order = compare_bytes(p->name, p->name_length, q->name, q->name_length);
  return order ? order : (i > j) - (i < j);
}

/* The lowest index whose name stood before, or the count. */
static size_t find_duplicate(const fz_params *params, const uint32_t *sorted) {
  size_t first = params->n;
  for (size_t k = 1; k < params->n; k++) {
    const struct fz_param *p = &params->items[sorted[k - 1]], *q = &params->items[sorted[k]];
    if (sorted[k] < first && compare_bytes(p->name, p->name_length, q->name, q->name_length) == 0)
      first = sorted[k];
  }
  return first;
}

/* Position of the first name that is not below `text`; with `after_prefix`, of the first beyond those it begins. */
static size_t lower_bound(const fz_params *params, const char *text, size_t length, bool after_prefix) {
  size_t low = 0, high = params->n;
  while (low < high) {
    const size_t middle = low + (high - low) / 2;
    const struct fz_param *p = &params->items[params->sorted[middle]];
    const size_t compared = after_prefix && p->name_length > length ? length : p->name_length;
    const int order = compare_bytes(p->name, compared, text, length);
    if (order < 0 || (after_prefix && order == 0))
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

static size_t find(const fz_params *params, const char *name, size_t name_length) {
  const size_t position = lower_bound(params, name, name_length, false);
  if (position == params->n)
    return params->n;
  const size_t index = params->sorted[position];
  const struct fz_param *p = &params->items[index];
  return compare_bytes(p->name, p->name_length, name, name_length) == 0 ? index : params->n;
}

static int compare_aliases(const void *a, const void *b) {
  const struct fz_alias *p = *(const struct fz_alias *const *)a, *q = *(const struct fz_alias *const *)b;
  return compare_bytes(p->name, p->name_length, q->name, q->name_length);
}

/* Whether an alias has the name of a parameter or of another alias: 0; -EEXIST, and whose it is; -ENOMEM. */
static int check_aliases(const fz_params *params, size_t *ret_duplicate) {
  int r = 0;
  const struct fz_alias **sorted = malloc((params->n_aliases + 1) * sizeof(*sorted));
  if (!sorted)
    return -ENOMEM;
  for (size_t i = 0; i < params->n_aliases; i++)
    sorted[i] = &params->aliases[i];
  qsort(sorted, params->n_aliases, sizeof(*sorted), compare_aliases);
  for (size_t i = 0; i < params->n_aliases && r == 0; i++) {
    const bool twice = i > 0 && compare_aliases(&sorted[i - 1], &sorted[i]) == 0;
    if (twice || find(params, sorted[i]->name, sorted[i]->name_length) < params->n) {
      *ret_duplicate = sorted[i]->param;
      r = -EEXIST;
    }
  }
  free(sorted);
  return r;
}

/* With the zero byte behind it, which no string holds: so ("ab", "c") and ("a", "bc") differ. */
static uint64_t hash_text(uint64_t hash, const char *text) {
  return text ? fz_hash_bytes(hash, text, strlen(text) + 1) : fz_hash_bytes(hash, "", 1);
}

/* Byte for byte what PROTOCOL.md says of `layout` and `baseline`. */
static void hash_all(fz_params *params) {
  uint64_t layout = FZ_HASH_START, baseline = FZ_HASH_START;
  for (size_t i = 0; i < params->n; i++) {
    const struct fz_param *p = &params->items[i];
    const unsigned char flag = p->requires_grad;
    layout = fz_hash_number(hash_text(layout, p->name), p->elements);
    baseline = fz_hash_bytes(baseline, &flag, 1);
    baseline = hash_text(hash_text(baseline, p->may_freeze), p->may_train);
  }
  params->layout_hash = layout;
  params->baseline_hash = baseline;
}

int fz_params_seal(fz_params *params, size_t *ret_duplicate) {
  assert(!params->sealed);
  /* One element more than needed: an empty table has arrays too. */
  uint32_t *sorted = malloc((params->n + 1) * sizeof(*sorted));
  uint64_t *baseline = calloc(fz_mask_words(params->n) + 1, sizeof(*baseline));
  if (!sorted || !baseline) {
    free(sorted);
    free(baseline);
    return -ENOMEM;
  }
  for (size_t i = 0; i < params->n; i++) {
    sorted[i] = (uint32_t)i;
    fz_mask_put(baseline, i, params->items[i].requires_grad);
  }
  if (params->n > 1)
    qsort_r(sorted, params->n, sizeof(*sorted), compare_names, params->items);
  const size_t duplicate = find_duplicate(params, sorted);
  if (duplicate < params->n) {
    free(sorted);
    free(baseline);
    if (ret_duplicate)
      *ret_duplicate = duplicate;
    return -EEXIST;
  }
  params->sorted = sorted;
  params->baseline = baseline;
  size_t doubled = 0;
  const int r = check_aliases(params, &doubled);
  if (r < 0) {
    if (r == -EEXIST && ret_duplicate)
      *ret_duplicate = doubled;
    free(sorted);
    free(baseline);
    params->sorted = NULL;
    params->baseline = NULL;
    return r;
  }
  hash_all(params);
  params->sealed = true;
  return 0;
}

size_t fz_params_count(const fz_params *params) { return params->n; }

size_t fz_params_memory(const fz_params *params) {
  return params->n_allocated * sizeof(params->items[0]) + params->n_aliases_allocated * sizeof(params->aliases[0]) +
         params->n_bytes;
}

const struct fz_param *fz_params_get(const fz_params *params, size_t index) {
  assert(index < params->n);
  return &params->items[index];
}

uint64_t fz_params_elements(const fz_params *params) { return params->elements; }

uint64_t fz_params_layout_hash(const fz_params *params) {
  assert(params->sealed);
  return params->layout_hash;
}

uint64_t fz_params_baseline_hash(const fz_params *params) {
  assert(params->sealed);
  return params->baseline_hash;
}

const uint64_t *fz_params_baseline(const fz_params *params) {
  assert(params->sealed);
  return params->baseline;
}

size_t fz_params_find(const fz_params *params, const char *name, size_t name_length) {
  assert(params->sealed);
  return find(params, name, name_length);
}

size_t fz_params_count_aliases(const fz_params *params) { return params->n_aliases; }

const struct fz_alias *fz_params_get_alias(const fz_params *params, size_t index) {
  assert(index < params->n_aliases);
  return &params->aliases[index];
}

size_t fz_params_find_alias(const fz_params *params, const char *name, size_t name_length) {
  for (size_t i = 0; i < params->n_aliases; i++)
    if (compare_bytes(params->aliases[i].name, params->aliases[i].name_length, name, name_length) == 0)
      return params->aliases[i].param;
  return params->n;
}

void fz_params_prefix_range(const fz_params *params, const char *prefix, size_t length, size_t *ret_first,
                            size_t *ret_end) {
  assert(params->sealed);
  *ret_first = lower_bound(params, prefix, length, false);
  *ret_end = lower_bound(params, prefix, length, true);
}

size_t fz_params_sorted(const fz_params *params, size_t position) {
  assert(params->sealed && position < params->n);
  return params->sorted[position];
}
