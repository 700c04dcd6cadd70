/* canonical.c - a YAML tree as JSON. */
#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/rulefile/canonical.h"
#include "daemon/rules/strbuf.h"
#include "protocol/limits.h"
#include "protocol/writer.h"

struct converter {
  fz_json_writer writer;
  struct fz_yaml_error *error;
  const struct fz_yaml_node *key; /* of the value being written, NULL: none */
};

static int fail(struct converter *converter, const struct fz_yaml_node *node, const char *hint, char *message) {
  if (!message)
    return -ENOMEM;
  *converter->error =
    (struct fz_yaml_error){ .message = message, .hint = hint, .start = node->start, .end = node->end };
  return FZ_YAML_BROKEN;
}

static bool is_word(const struct fz_yaml_node *node, const char *const *words) {
  for (; *words; words++)
    if (strcmp(node->text, *words) == 0)
      return true;
  return false;
}

static size_t digits(const char *text) { return strspn(text, "0123456789"); }

/*
 * A number of YAML's core schema in decimal, as JSON writes it: no plus, no zeros before, digits on both sides of a
 * point. @return whether it is one; `ret_json` is NULL when out of memory
 */
static bool as_number(const char *text, char **ret_json) {
  const char *sign = *text == '-' ? "-" : "";
  text += *text == '-' || *text == '+';
  const size_t whole = digits(text);
  const char *rest = text + whole;
  size_t fraction = 0;
  if (*rest == '.') {
    fraction = digits(rest + 1);
    rest += 1 + fraction;
  }
  if (whole + fraction == 0)
    return false;
  const char *exponent = rest;
  if (*rest == 'e' || *rest == 'E') {
    rest += 1 + (rest[1] == '-' || rest[1] == '+');
    if (digits(rest) == 0)
      return false;
    rest += digits(rest);
  }
  if (*rest)
    return false;
  size_t zeros = 0;
  while (zeros + 1 < whole && text[zeros] == '0')
    zeros++;
  *ret_json = fz_format("%s%.*s%s%.*s%s", sign, whole ? (int)(whole - zeros) : 1, whole ? text + zeros : "0",
                        fraction ? "." : "", (int)fraction, fraction ? text + whole + 1 : "", exponent);
  return true;
}

static int write_scalar(struct converter *converter, const char *key, const struct fz_yaml_node *node) {
  static const char *const nulls[] = { "", "~", "null", "Null", "NULL", NULL };
  static const char *const trues[] = { "true", "True", "TRUE", NULL };
  static const char *const falses[] = { "false", "False", "FALSE", NULL };
  char *number = NULL;
  for (size_t i = 0; i < node->length; i++)
    if ((unsigned char)node->text[i] < 0x20)
      return fail(converter, node, NULL, fz_format("a text in rules has one line and no control characters"));
  if (!node->plain)
    fz_write_bytes(&converter->writer, key, node->text, node->length);
  else if (is_word(node, nulls))
    fz_write_null(&converter->writer, key);
  else if (is_word(node, trues) || is_word(node, falses))
    fz_write_bool(&converter->writer, key, is_word(node, trues));
  else if (!as_number(node->text, &number))
    fz_write_bytes(&converter->writer, key, node->text, node->length);
  else if (!number)
    return -ENOMEM;
  else
    fz_write_raw(&converter->writer, key, number, strlen(number));
  free(number);
  return 0;
}

static int write_node(struct converter *converter, const struct fz_yaml_node *key_node, const struct fz_yaml_node *node,
                      unsigned depth) {
  const char *key = key_node ? key_node->text : NULL;
  if (depth > FZ_JSON_DEPTH_MAX)
    return fail(converter, node, NULL, fz_format("nested too deep"));
  /* Aliases can make a small file large: what has been written is the measure. */
  if (fz_writer_length(&converter->writer) > FZ_RULES_TEXT_MAX)
    return fail(converter, node, NULL, fz_format("these are too many rules: more than %u bytes", FZ_RULES_TEXT_MAX));
  int r = 0;
  switch (node->kind) {
  case FZ_YAML_SCALAR:
    return write_scalar(converter, key, node);
  case FZ_YAML_ALIAS:
    if (!node->target)
      return fail(converter, node, "quote a pattern that begins with '*'",
                  fz_format("'*' begins an alias in YAML, and there is no anchor '%s'", node->text));
    return write_node(converter, key_node, node->target, depth + 1);
  case FZ_YAML_SEQUENCE:
    fz_write_begin_array(&converter->writer, key);
    for (const struct fz_yaml_node *item = node->first; !r && item; item = item->next)
      r = write_node(converter, NULL, item, depth + 1);
    fz_write_end_array(&converter->writer);
    return r;
  case FZ_YAML_MAPPING:
    fz_write_begin_object(&converter->writer, key);
    for (const struct fz_yaml_node *value = node->first; !r && value; value = value->next)
      r = memchr(value->key->text, '\0', value->key->length)
            ? fail(converter, value->key, NULL, fz_format("a key holds no control characters"))
            : write_node(converter, value->key, value, depth + 1);
    fz_write_end_object(&converter->writer);
    return r;
  }
  return 0;
}

int fz_yaml_to_json(const fz_yaml *yaml, char **ret_json, size_t *ret_length, struct fz_yaml_error *ret_error) {
  struct converter converter = { .writer = FZ_JSON_WRITER_NULL, .error = ret_error };
  int r = write_node(&converter, NULL, yaml->root, 0);
  if (!r)
    r = fz_writer_copy(&converter.writer, ret_json, ret_length);
  if (r == -E2BIG)
    r = fail(&converter, yaml->root, NULL, fz_format("these are too many rules"));
  fz_writer_deinit(&converter.writer);
  return r;
}

/* Compares a key with one token of a pointer, in which ~1 stands for / and ~0 for ~. */
static bool is_token(const char *key, const char *token, size_t length) {
  size_t i = 0;
  for (; *key && i < length; key++, i++) {
    char c = token[i];
    if (c == '~' && i + 1 < length)
      c = token[++i] == '1' ? '/' : '~';
    if (c != *key)
      return false;
  }
  return !*key && i == length;
}

static const struct fz_yaml_node *resolve(const struct fz_yaml_node *node) {
  while (node && node->kind == FZ_YAML_ALIAS)
    node = node->target;
  return node;
}

static const struct fz_yaml_node *child(const struct fz_yaml_node *node, const char *token, size_t length) {
  const struct fz_yaml_node *value = node->first;
  size_t index = strtoul(token, NULL, 10);
  if (node->kind == FZ_YAML_MAPPING)
    while (value && !is_token(value->key->text, token, length))
      value = value->next;
  else
    while (value && index-- > 0)
      value = value->next;
  return value;
}

const struct fz_yaml_node *fz_yaml_find(const fz_yaml *yaml, const char *pointer, bool at_key) {
  const struct fz_yaml_node *node = yaml->root;
  while (node && *pointer == '/') {
    const size_t length = strcspn(pointer + 1, "/");
    const struct fz_yaml_node *inside = resolve(node);
    const struct fz_yaml_node *next = inside ? child(inside, pointer + 1, length) : NULL;
    if (!next)
      return node;
    node = next;
    pointer += 1 + length;
  }
  return node && at_key && node->key ? node->key : node;
}
