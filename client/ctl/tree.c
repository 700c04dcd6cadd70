/* tree.c - the modules of a run, from the names of its parameters, with what is frozen in each. */
#include "config.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/ctl/tree.h"

struct fz_tree {
  struct fz_tree_node root;
  size_t depth;
};

int fz_tree_new(fz_tree **ret_tree, size_t depth) {
  fz_tree *tree = calloc(1, sizeof(*tree));
  if (!tree)
    return -ENOMEM;
  tree->depth = depth;
  *ret_tree = tree;
  return 0;
}

/* Depth first without recursion: names from outside may have thousands of levels. */
static void free_nodes(struct fz_tree_node *node) {
  while (node) {
    struct fz_tree_node *next = node->next;
    if (node->first_child) {
      node->last_child->next = next;
      next = node->first_child;
    }
    free(node);
    node = next;
  }
}

fz_tree *fz_tree_free(fz_tree *tree) {
  if (!tree)
    return NULL;
  free_nodes(tree->root.first_child);
  free(tree);
  return NULL;
}

/* Bytes of the component at `text`, and whether it is a number. */
static size_t component(const char *text, bool *ret_number) {
  const size_t length = strcspn(text, ".");
  *ret_number = length > 0 && strspn(text, "0123456789") == length;
  return length;
}

/* Bytes of one level at `text`: a component, and a number behind it. */
static size_t level(const char *text) {
  bool number, next_number;
  const size_t length = component(text, &number);
  if (number || text[length] != '.')
    return length;
  const size_t next = component(text + length + 1, &next_number);
  return next_number ? length + 1 + next : length;
}

static bool is_named(const struct fz_tree_node *node, const char *label, size_t length) {
  return node->full_length - node->label_offset == length &&
         memcmp(node->name + node->label_offset, label, length) == 0;
}

/* The child of that label, made when there is none. The last one is looked at first: modules come in one piece. */
static struct fz_tree_node *child(struct fz_tree_node *parent, const char *name, size_t offset, size_t length) {
  if (parent->last_child && is_named(parent->last_child, name + offset, length))
    return parent->last_child;
  for (struct fz_tree_node *node = parent->first_child; node; node = node->next)
    if (is_named(node, name + offset, length))
      return node;
  struct fz_tree_node *node = calloc(1, sizeof(*node));
  if (!node)
    return NULL;
  node->name = name;
  node->label_offset = offset;
  node->full_length = offset + length;
  if (parent->last_child)
    parent->last_child->next = node;
  else
    parent->first_child = node;
  parent->last_child = node;
  return node;
}

static void count(struct fz_tree_node *node, const struct fz_tree_param *param) {
  if (node->params == 0) {
    node->same = true;
    node->since = param->since;
    node->why = param->why;
  } else if (node->since != param->since || strcmp(node->why, param->why) != 0) {
    node->same = false;
  }
  node->params++;
  node->elements += param->elements;
  node->frozen += param->frozen;
  node->pending += param->pending;
  node->matched += param->matched;
}

int fz_tree_add(fz_tree *tree, const struct fz_tree_param *param) {
  struct fz_tree_node *node = &tree->root;
  size_t offset = 0;

  for (size_t depth = 0; depth < tree->depth; depth++) {
    const size_t length = level(param->name + offset);
    node = child(node, param->name, offset, length);
    if (!node)
      return -ENOMEM;
    count(node, param);
    offset += length;
    if (param->name[offset] == '\0')
      break;
    offset++;
  }
  return 0;
}

const struct fz_tree_node *fz_tree_first(const fz_tree *tree) { return tree->root.first_child; }

enum fz_tree_state fz_tree_state(const struct fz_tree_node *node) {
  if (node->frozen == node->params)
    return FZ_TREE_FROZEN;
  return node->frozen == 0 ? FZ_TREE_TRAINING : FZ_TREE_PARTIAL;
}

/* Where the number at the end of a label begins; false when there is none, or one that is too long to count with. */
static bool number_of(const struct fz_tree_node *node, size_t *ret_offset, unsigned long *ret_number) {
  size_t at = node->full_length;
  while (at > node->label_offset && isdigit((unsigned char)node->name[at - 1]))
    at--;
  const size_t digits = node->full_length - at;
  if (digits == 0 || digits > 9 || (at > node->label_offset && node->name[at - 1] != '.'))
    return false;
  *ret_offset = at;
  *ret_number = strtoul(node->name + at, NULL, 10);
  return true;
}

/* Whether b is the number after a, of the same module and in the same state. */
static bool follows(const struct fz_tree_node *a, const struct fz_tree_node *b) {
  size_t a_at, b_at;
  unsigned long a_number, b_number;
  if (a->first_child || b->first_child || !a->same || !b->same || !number_of(a, &a_at, &a_number) ||
      !number_of(b, &b_at, &b_number))
    return false;
  return b_number == a_number + 1 && a_at == b_at && memcmp(a->name, b->name, a_at) == 0 &&
         fz_tree_state(a) == fz_tree_state(b) && a->pending == 0 && b->pending == 0 && a->since == b->since &&
         (a->matched > 0) == (b->matched > 0) && strcmp(a->why, b->why) == 0;
}

size_t fz_tree_run(const struct fz_tree_node *node) {
  size_t n = 1;
  if (fz_tree_state(node) == FZ_TREE_PARTIAL)
    return 1;
  for (; node->next && follows(node, node->next); node = node->next)
    n++;
  return n;
}

char *fz_tree_label(const struct fz_tree_node *node, size_t count, bool full) {
  const size_t start = full ? 0 : node->label_offset;
  size_t at;
  unsigned long number;
  char *text = NULL;

  if (count == 1 || !number_of(node, &at, &number))
    return strndup(node->name + start, node->full_length - start);
  if (asprintf(&text, full ? "%.*s{%lu..%lu}" : "%.*s%lu..%lu", (int)(at - start), node->name + start, number,
               number + (unsigned long)count - 1) < 0)
    return NULL;
  return text;
}
