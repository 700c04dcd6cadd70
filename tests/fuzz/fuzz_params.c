/* fuzz_params.c - a table of parameters in chunks, as freezerd gathers it; sealed, searched, and sent again. */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/json.h"
#include "protocol/message.h"
#include "protocol/params.h"
#include "protocol/writer.h"
#include "tests/fuzz/fuzz.h"

const char fuzz_name[] = "params";

static int add_chunk(fz_params *params, const struct fz_params_chunk *chunk) {
  const fz_json *cursor = NULL;
  struct fz_params_entry entry;
  int r = chunk->first == fz_params_count(params) ? 0 : -EINVAL;

  while (r == 0 && fz_params_chunk_next(chunk, &cursor, &entry)) {
    r = fz_params_add(params, entry.name, strlen(entry.name), entry.elements, entry.requires_grad, entry.may_freeze,
                      entry.may_train);
    for (const fz_json *alias = fz_json_first(entry.aliases); alias && r == 0; alias = fz_json_next(alias))
      r = fz_params_add_alias(params, fz_json_string(alias), strlen(fz_json_string(alias)));
  }
  return r;
}

/* Adds what a line says; false when it is no chunk or not the next one. */
static bool take(void *context, char *line, size_t length) {
  fz_params *params = context;
  fz_json *root = NULL;
  fz_message message;
  fz_field_error error;
  bool good = fz_json_parse(&root, line, length, NULL, 0) == 0 && fz_message_decode(&message, root, &error) == 0 &&
              message.type == FZ_MESSAGE_PARAMS;

  if (good) {
    const int r = add_chunk(params, &message.params);
    FUZZ_CHECK(r == 0 || r == -EINVAL);
    good = r == 0;
  }
  fz_json_free(root);
  return good;
}

/* Every name is found, by itself and by each of its beginnings. */
static void check_index(const fz_params *params) {
  const size_t n = fz_params_count(params);

  for (size_t i = 0; i < n; i++) {
    const struct fz_param *param = fz_params_get(params, i);
    size_t first, end;
    bool found = false;
    FUZZ_CHECK(fz_params_find(params, param->name, param->name_length) == i);
    fz_params_prefix_range(params, param->name, param->name_length / 2, &first, &end);
    FUZZ_CHECK(first < end && end <= n);
    for (size_t position = first; position < end; position++) {
      const struct fz_param *other = fz_params_get(params, fz_params_sorted(params, position));
      FUZZ_CHECK(memcmp(other->name, param->name, param->name_length / 2) == 0);
      found = found || other == param;
    }
    FUZZ_CHECK(found);
  }
}

/* In lines of at most 400 bytes beyond the longest name, what arrives has the same hashes. */
static void check_sent(const fz_params *params) {
  fz_json_writer writer = FZ_JSON_WRITER_NULL;
  fz_params *again = NULL;
  size_t next = 0, longest = 0;

  for (size_t i = 0; i < fz_params_count(params); i++)
    if (fz_params_get(params, i)->name_length > longest)
      longest = fz_params_get(params, i)->name_length;
  writer.max = 400 + 2 * longest;
  FUZZ_CHECK(fz_params_new(&again) == 0);
  do {
    const char *text;
    size_t length;
    const size_t before = next;
    fz_writer_reset(&writer);
    next = fz_params_encode(&writer, params, next);
    FUZZ_CHECK(next > before || next == fz_params_count(params));
    FUZZ_CHECK(fz_writer_line(&writer, &text, &length) == 0 && length > 0);
    char *line = strndup(text, length - 1);
    FUZZ_CHECK(line && take(again, line, length - 1));
    free(line);
  } while (next < fz_params_count(params));
  fz_writer_deinit(&writer);
  FUZZ_CHECK(fz_params_seal(again, NULL) == 0);
  FUZZ_CHECK(fz_params_count(again) == fz_params_count(params));
  FUZZ_CHECK(fz_params_layout_hash(again) == fz_params_layout_hash(params));
  FUZZ_CHECK(fz_params_baseline_hash(again) == fz_params_baseline_hash(params));
  fz_params_unref(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  fz_params *params = NULL;
  size_t duplicate = SIZE_MAX;

  FUZZ_CHECK(fz_params_new(&params) == 0);
  fuzz_lines(data, size, take, params);
  const int r = fz_params_seal(params, &duplicate);
  FUZZ_CHECK(r == 0 || (r == -EEXIST && duplicate < fz_params_count(params)));
  if (r == 0) {
    check_index(params);
    check_sent(params);
  }
  fz_params_unref(params);
  return 0;
}
