/* answer.h - what freezerd answered: one line, or parts and a last line, read as one object. */
#ifndef FZ_CTL_ANSWER_H
#define FZ_CTL_ANSWER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/ctl/ctl.h"
#include "protocol/json.h"
#include "protocol/writer.h"

/** An answer; init with FZ_ANSWER_NULL. Values are borrowed from it. */
typedef struct fz_answer {
  fz_json **parts; /* lines that came before the last, in order */
  size_t n_parts;
  fz_json *root; /* the last line */
  double took_ms;
} fz_answer;

#define FZ_ANSWER_NULL \
  { .parts = NULL }

void fz_answer_deinit(fz_answer *answer);

/** Keeps a part, and owns it from then on; on -ENOMEM it does not. */
int fz_answer_add_part(fz_answer *answer, fz_json *part);

/** The error code, NULL when the request succeeded. */
const char *fz_answer_code(const fz_answer *answer);

/** Says the error that freezerd answered. @return the exit status */
int fz_answer_fail(const fz_ctl *ctl, const fz_answer *answer);

/** Goes through the elements of array `key`, in parts and last line. Start with a zeroed cursor. NULL at the end. */
struct fz_answer_cursor {
  size_t line;
  const fz_json *item;
};
const fz_json *fz_answer_next(const fz_answer *answer, const char *key, struct fz_answer_cursor *cursor);

/** Writes the answer's fields, parts joined, without `id` and `ok`. */
void fz_answer_write(fz_json_writer *writer, const fz_answer *answer);

/** Prints the answer as the JSON object of the command. @return the exit status */
int fz_answer_print_json(const fz_ctl *ctl, const fz_answer *answer);

/* Fields as they are, without complaint: what is missing or of another type is NULL, 0 or false. */
const char *fz_text_of(const fz_json *object, const char *key);
uint64_t fz_int_of(const fz_json *object, const char *key);
bool fz_has_int(const fz_json *object, const char *key, uint64_t *ret_value);
bool fz_true_of(const fz_json *object, const char *key);

#endif
