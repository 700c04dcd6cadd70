/* answer.c - what freezerd answered: one line, or parts and a last line, read as one object. */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "client/ctl/answer.h"
#include "client/ctl/errors.h"
#include "client/ctl/output.h"

void fz_answer_deinit(fz_answer *answer) {
  for (size_t i = 0; i < answer->n_parts; i++)
    fz_json_free(answer->parts[i]);
  free(answer->parts);
  fz_json_free(answer->root);
  *answer = (fz_answer)FZ_ANSWER_NULL;
}

int fz_answer_add_part(fz_answer *answer, fz_json *part) {
  fz_json **parts = reallocarray(answer->parts, answer->n_parts + 1, sizeof(fz_json *));
  if (!parts)
    return -ENOMEM;
  answer->parts = parts;
  answer->parts[answer->n_parts++] = part;
  return 0;
}

const char *fz_answer_code(const fz_answer *answer) {
  if (fz_true_of(answer->root, "ok"))
    return NULL;
  const char *code = fz_text_of(fz_json_member(answer->root, "error"), "code");
  return code ? code : "internal";
}

int fz_answer_fail(const fz_ctl *ctl, const fz_answer *answer) {
  const fz_json *error = fz_json_member(answer->root, "error");
  const char *message = fz_text_of(error, "message");
  return fz_fail(ctl, fz_answer_code(answer), fz_text_of(error, "hint"), "%s",
                 message ? message : "freezerd refused without a reason");
}

const fz_json *fz_answer_next(const fz_answer *answer, const char *key, struct fz_answer_cursor *cursor) {
  if (cursor->item)
    cursor->item = fz_json_next(cursor->item);
  while (!cursor->item && cursor->line <= answer->n_parts) {
    const fz_json *line = cursor->line < answer->n_parts ? answer->parts[cursor->line] : answer->root;
    const fz_json *array = fz_json_member(line, key);
    cursor->line++;
    if (fz_json_get_type(array) == FZ_JSON_ARRAY)
      cursor->item = fz_json_first(array);
  }
  return cursor->item;
}

static void write_array(fz_json_writer *writer, const fz_answer *answer, const char *key) {
  struct fz_answer_cursor cursor = { 0 };
  const fz_json *item;
  fz_write_begin_array(writer, key);
  while ((item = fz_answer_next(answer, key, &cursor)))
    fz_write_json(writer, NULL, item);
  fz_write_end_array(writer);
}

/* Whether an earlier part has this array, so that it was written with that. */
static bool written_before(const fz_answer *answer, size_t part, const char *key) {
  for (size_t i = 0; i < part; i++)
    if (fz_json_member(answer->parts[i], key))
      return true;
  return false;
}

void fz_answer_write(fz_json_writer *writer, const fz_answer *answer) {
  for (const fz_json *field = fz_json_first(answer->root); field; field = fz_json_next(field)) {
    const char *key = fz_json_key(field);
    if (strcmp(key, "id") == 0 || strcmp(key, "ok") == 0)
      continue;
    if (fz_json_get_type(field) == FZ_JSON_ARRAY)
      write_array(writer, answer, key);
    else
      fz_write_json(writer, key, field);
  }
  for (size_t i = 0; i < answer->n_parts; i++)
    for (const fz_json *field = fz_json_first(answer->parts[i]); field; field = fz_json_next(field)) {
      const char *key = fz_json_key(field);
      if (fz_json_get_type(field) == FZ_JSON_ARRAY && !fz_json_member(answer->root, key) &&
          !written_before(answer, i, key))
        write_array(writer, answer, key);
    }
}

int fz_answer_print_json(const fz_ctl *ctl, const fz_answer *answer) {
  fz_json_writer writer = FZ_JSON_WRITER_NULL;
  fz_output_begin_command(&writer, ctl);
  fz_answer_write(&writer, answer);
  return fz_output_end(&writer) < 0 ? fz_fail_memory(ctl) : FZ_EXIT_DONE;
}

const char *fz_text_of(const fz_json *object, const char *key) { return fz_json_string(fz_json_member(object, key)); }

bool fz_has_int(const fz_json *object, const char *key, uint64_t *ret_value) {
  return fz_json_integer(fz_json_member(object, key), ret_value);
}

uint64_t fz_int_of(const fz_json *object, const char *key) {
  uint64_t value = 0;
  return fz_has_int(object, key, &value) ? value : 0;
}

bool fz_true_of(const fz_json *object, const char *key) { return fz_json_is_true(fz_json_member(object, key)); }
