/* rulefile.h - reads a rules file, YAML or JSON, and places what is wrong with it at file:line:column. */
#ifndef FZ_RULEFILE_H
#define FZ_RULEFILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/rules/diagnostics.h"
#include "daemon/rules/ruleset.h"

/** A rules file larger than this is refused. */
#define FZ_RULEFILE_MAX (1024U * 1024U)

/** One error or warning, placed. Lines and columns count from 1, columns in characters; 0: the file as a whole. */
struct fz_rulefile_message {
  enum fz_severity severity;
  char *text; /* the whole message as people see it, several lines without the last newline:
                 slips.yaml:8:14: error: 'model.layer.{0..2}' matches nothing in gpt2-ft; did you mean '…'?
                     freeze: ["model.layer.{0..2}"]
                              ^~~~~~~~~~~~~~~~~~~~ */
  unsigned line, column;
  char *message; /* without place and source line */
  char *hint;    /* may be NULL */
};

/** A file that was read. Free with fz_rulefile_free(). */
typedef struct fz_rulefile fz_rulefile;

/**
 * Reads and validates a file ("-": standard input). Errors in the file are collected, in the order of their lines.
 * @return 0 the file was read, it may have errors: see fz_rulefile_ruleset(); negative errno: it could not be read
 *         (-E2BIG: larger than FZ_RULEFILE_MAX)
 */
int fz_rulefile_read(fz_rulefile **ret_file, const char *path);

/** The same for text in memory; `name` stands for the path in messages. */
int fz_rulefile_parse(fz_rulefile **ret_file, const char *name, const char *text, size_t length);

/** Takes NULL; returns NULL. */
fz_rulefile *fz_rulefile_free(fz_rulefile *file);

/** The document, NULL if the file has errors. Borrowed. */
fz_ruleset *fz_rulefile_ruleset(const fz_rulefile *file);

/**
 * What the file says, as JSON, valid rules or not; NULL if it is not even YAML. Borrowed. JSON pointers of diagnostics
 * are pointers into this text: what is to be placed later must have been found in it, not in the canonical form.
 */
const char *fz_rulefile_json(const fz_rulefile *file);

/** Adds diagnostics that came later and elsewhere, such as those of fz_ruleset_bind() or the daemon's details; what was
 said already is not said again. -ENOMEM. */
int fz_rulefile_place(fz_rulefile *file, const fz_diagnostics *diagnostics);

size_t fz_rulefile_n_messages(const fz_rulefile *file);
size_t fz_rulefile_n_errors(const fz_rulefile *file);
/** In the order of their lines. Borrowed. */
const struct fz_rulefile_message *fz_rulefile_message(const fz_rulefile *file, size_t index);

#endif
