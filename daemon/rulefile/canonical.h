/* canonical.h - a YAML tree as the JSON text that the rules' validator reads, and the way back from its pointers. */
#ifndef FZ_CANONICAL_H
#define FZ_CANONICAL_H

#include <stdbool.h>
#include <stddef.h>

#include "daemon/rulefile/yaml.h"

/**
 * Writes the tree as JSON, aliases replaced by what they stand for.
 * @return 0, with an allocated text; FZ_YAML_BROKEN, with the error; -ENOMEM
 */
int fz_yaml_to_json(const fz_yaml *yaml, char **ret_json, size_t *ret_length, struct fz_yaml_error *ret_error);

/**
 * The node that a JSON pointer into that text names; the nearest one above it that there is.
 * @param at_key  the key of that member
 */
const struct fz_yaml_node *fz_yaml_find(const fz_yaml *yaml, const char *pointer, bool at_key);

#endif
