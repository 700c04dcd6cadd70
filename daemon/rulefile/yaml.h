/* yaml.h - YAML (and so JSON) text as a tree in which every node knows where it stands. */
#ifndef FZ_YAML_H
#define FZ_YAML_H

#include <stdbool.h>
#include <stddef.h>

/** More than any rules file needs, so that a file cannot make us allocate without end. */
#define FZ_YAML_NODES_MAX 100000U
#define FZ_YAML_ANCHORS_MAX 1000U

enum fz_yaml_kind { FZ_YAML_SCALAR, FZ_YAML_SEQUENCE, FZ_YAML_MAPPING, FZ_YAML_ALIAS };

/** Owned by its tree. */
struct fz_yaml_node {
  enum fz_yaml_kind kind;
  size_t start, end; /* bytes in the text: quotes and brackets included; of a block, only where it begins */
  char *text;        /* of a scalar, NUL-terminated; of an alias, the anchor's name */
  size_t length;
  bool plain;                        /* a scalar without quotes */
  struct fz_yaml_node *key;          /* of a value in a mapping */
  struct fz_yaml_node *first, *last; /* of a sequence or mapping: its values */
  struct fz_yaml_node *next;
  struct fz_yaml_node *target; /* of an alias; NULL: no such anchor before it */
  struct fz_yaml_node *made_before;
};

/** A parsed text. Init with FZ_YAML_NULL. */
typedef struct fz_yaml {
  struct fz_yaml_node *root; /* NULL: the text holds no document */
  struct fz_yaml_node *made; /* all nodes, newest first */
  size_t n_nodes;
} fz_yaml;

#define FZ_YAML_NULL \
  { .root = NULL }

/** What is wrong with a text. The message is allocated. */
struct fz_yaml_error {
  char *message;
  const char *hint; /* static, or NULL */
  size_t start, end;
};

enum { FZ_YAML_BROKEN = 1 };

/**
 * Parses a text of one document.
 * @return 0; FZ_YAML_BROKEN, with the first error; -ENOMEM
 */
int fz_yaml_parse(fz_yaml *yaml, const char *text, size_t length, struct fz_yaml_error *ret_error);

void fz_yaml_deinit(fz_yaml *yaml);

#endif
