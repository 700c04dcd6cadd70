/* json.c - the one decoder for JSON from outside: parsing, structure and unchecked reads. Alone in knowing cJSON. */
#include "config.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/json.h"
#include "protocol/json_locale.h"
#include "protocol/json_scan.h"

/*
 * An fz_json is a cJSON of another name. cJSON's `valueint` is clamped to an int, so nobody can want it; in our trees it
 * holds whether the number was written as a whole number from 0 to FZ_INT_MAX.
 */
static const cJSON *tree(const fz_json *value) { return (const cJSON *)(const void *)value; }
static const fz_json *opaque(const cJSON *item) { return (const fz_json *)(const void *)item; }

/* Going over a new tree in the order of the text. */
struct walk {
  const char *text;
  size_t length;
  size_t at; /* behind the last number, when there are odd ones */
  bool odd_numbers;
  char *why;
  size_t why_size;
};

static int compare_keys(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static int fail_key(const struct walk *walk, const char *key) {
  if (walk->why != NULL)
    (void)snprintf(walk->why, walk->why_size, "key '%.64s' stands twice in one object", key);
  return FZ_JSON_BROKEN;
}

/* Few keys are compared in pairs; many are sorted, since the peer chooses how many there are. */
static int check_keys(const struct walk *walk, const cJSON *object) {
  enum { FEW = 16 };
  const char *few[FEW];
  size_t count = 0;
  for (const cJSON *item = object->child; item != NULL; item = item->next) {
    if (count < FEW) {
      for (size_t i = 0; i < count; i++)
        if (strcmp(few[i], item->string) == 0)
          return fail_key(walk, item->string);
      few[count] = item->string;
    }
    count++;
  }
  if (count <= FEW)
    return 0;
  const char **keys = malloc(count * sizeof(*keys));
  if (keys == NULL)
    return -ENOMEM;
  size_t n = 0;
  for (const cJSON *item = object->child; item != NULL; item = item->next)
    keys[n++] = item->string;
  qsort(keys, count, sizeof(*keys), compare_keys);
  int r = 0;
  for (size_t i = 1; i < count && r == 0; i++)
    if (strcmp(keys[i - 1], keys[i]) == 0)
      r = fail_key(walk, keys[i]);
  free(keys);
  return r;
}

static void note_integer(struct walk *walk, cJSON *item) {
  if (!walk->odd_numbers) {
    item->valueint = item->valuedouble >= 0;
    return;
  }
  const char *number;
  const size_t length = fz_json_scan_number(walk->text, walk->length, &walk->at, &number);
  item->valueint = fz_json_number_is_integer(number, length);
}

/* As deep as the text is nested: FZ_JSON_DEPTH_MAX. */
static int walk_tree(struct walk *walk, cJSON *item) {
  if (cJSON_IsNumber(item))
    note_integer(walk, item);
  int r = cJSON_IsObject(item) ? check_keys(walk, item) : 0;
  if (!cJSON_IsObject(item) && !cJSON_IsArray(item))
    return r;
  for (cJSON *child = item->child; child != NULL && r == 0; child = child->next)
    r = walk_tree(walk, child);
  return r;
}

int fz_json_parse(fz_json **ret_root, const char *text, size_t length, char *why, size_t why_size) {
  struct fz_json_scan scan;
  if (!fz_json_scan(text, length, &scan, why, why_size))
    return FZ_JSON_BROKEN;
  struct walk walk = { .text = text + scan.first,
                       .length = scan.end - scan.first,
                       .odd_numbers = scan.odd_numbers,
                       .why = why,
                       .why_size = why_size };
  const struct fz_json_locale locale = fz_json_locale_enter();
  cJSON *root = cJSON_ParseWithLength(walk.text, walk.length);
  fz_json_locale_leave(locale);
  if (root == NULL)
    return -ENOMEM;
  const int r = walk_tree(&walk, root);
  if (r != 0) {
    cJSON_Delete(root);
    return r;
  }
  *ret_root = (fz_json *)(void *)root;
  return 0;
}

fz_json *fz_json_free(fz_json *root) {
  cJSON_Delete((cJSON *)(void *)root);
  return NULL;
}

enum fz_json_type fz_json_get_type(const fz_json *value) {
  const cJSON *item = tree(value);
  if (cJSON_IsBool(item))
    return FZ_JSON_BOOL;
  if (cJSON_IsNumber(item))
    return FZ_JSON_NUMBER;
  if (cJSON_IsString(item))
    return FZ_JSON_STRING;
  if (cJSON_IsArray(item))
    return FZ_JSON_ARRAY;
  return cJSON_IsObject(item) ? FZ_JSON_OBJECT : FZ_JSON_NULL;
}

const fz_json *fz_json_member(const fz_json *value, const char *key) {
  return cJSON_IsObject(tree(value)) ? opaque(cJSON_GetObjectItemCaseSensitive(tree(value), key)) : NULL;
}

const fz_json *fz_json_first(const fz_json *value) { return value == NULL ? NULL : opaque(tree(value)->child); }

const fz_json *fz_json_next(const fz_json *value) { return value == NULL ? NULL : opaque(tree(value)->next); }

const char *fz_json_key(const fz_json *value) { return value == NULL ? NULL : tree(value)->string; }

size_t fz_json_count(const fz_json *value) {
  size_t count = 0;
  for (const fz_json *item = fz_json_first(value); item != NULL; item = fz_json_next(item))
    count++;
  return count;
}

const char *fz_json_string(const fz_json *value) {
  return cJSON_IsString(tree(value)) ? tree(value)->valuestring : NULL;
}

bool fz_json_is_true(const fz_json *value) { return cJSON_IsTrue(tree(value)); }

double fz_json_number(const fz_json *value) {
  const cJSON *item = tree(value);
  return cJSON_IsNumber(item) && isfinite(item->valuedouble) ? item->valuedouble : (double)NAN;
}

bool fz_json_integer(const fz_json *value, uint64_t *ret_integer) {
  const cJSON *item = tree(value);
  if (!cJSON_IsNumber(item) || item->valueint == 0)
    return false;
  *ret_integer = (uint64_t)item->valuedouble;
  return true;
}
