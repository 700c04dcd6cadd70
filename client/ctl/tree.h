/* tree.h - the modules of a run, from the names of its parameters, with what is frozen in each. */
#ifndef FZ_CTL_TREE_H
#define FZ_CTL_TREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Levels are the components of a dotted name, but a number belongs to the name in front of it: model.layers.3.mlp.weight
 * has the levels model, layers.3, mlp, weight. So the blocks of a network stand beside its other modules.
 */

/** A parameter as `list` gets it. Texts are borrowed and must outlive the tree. */
struct fz_tree_param {
  const char *name;
  uint64_t elements;
  bool frozen;
  bool pending;
  bool matched;   /* by the filters of the command */
  uint64_t since; /* step; FZ_TIME_NEVER: from the start */
  const char *why;
};

/** A module, or a parameter. Siblings in the trainer's order. */
struct fz_tree_node {
  struct fz_tree_node *first_child, *last_child, *next;
  const char *name;    /* of a parameter in it: the full name is its first full_length bytes */
  size_t label_offset; /* where the label begins in it */
  size_t full_length;
  uint64_t elements;
  size_t params, frozen, pending, matched;
  bool same; /* since and why hold for all of it */
  uint64_t since;
  const char *why;
};

enum fz_tree_state { FZ_TREE_FROZEN, FZ_TREE_TRAINING, FZ_TREE_PARTIAL };

typedef struct fz_tree fz_tree;

/** @param depth  how many levels; what lies deeper is counted in its module. -ENOMEM. */
int fz_tree_new(fz_tree **ret_tree, size_t depth);
/** Takes NULL; returns NULL. */
fz_tree *fz_tree_free(fz_tree *tree);

/** Adds a parameter. -ENOMEM. */
int fz_tree_add(fz_tree *tree, const struct fz_tree_param *param);

/** The first node of the first level, NULL when there is none. */
const struct fz_tree_node *fz_tree_first(const fz_tree *tree);

enum fz_tree_state fz_tree_state(const struct fz_tree_node *node);

/**
 * How many siblings from `node` on can stand in one row: numbered in sequence, without children, and alike in everything
 * that is shown. At least 1.
 */
size_t fz_tree_run(const struct fz_tree_node *node);

/** The label of `count` siblings, "layers.0..2", or with `full` the pattern for them, "model.layers.{0..2}". Allocated. */
char *fz_tree_label(const struct fz_tree_node *node, size_t count, bool full);

#endif
