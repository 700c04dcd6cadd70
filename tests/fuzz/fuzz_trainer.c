/* fuzz_trainer.c - messages of trainers and to them: lines in any chunks, decoded, and written as they were read. */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "protocol/control.h"
#include "protocol/json.h"
#include "protocol/message.h"
#include "protocol/writer.h"
#include "tests/fuzz/fuzz.h"

const char fuzz_name[] = "trainer";

/* The message as a line of ours; the caller frees it. */
static char *encode(const fz_message *message, size_t *ret_length) {
  fz_json_writer writer = FZ_JSON_WRITER_NULL;
  char *text = NULL;
  fz_message_encode(&writer, message);
  FUZZ_CHECK(fz_writer_copy(&writer, &text, ret_length) == 0);
  fz_writer_deinit(&writer);
  return text;
}

/* What we write of a message is taken for the same message. */
static void check_again(const fz_message *message) {
  size_t length, length_again;
  char *text = encode(message, &length);
  fz_json *root = NULL;
  fz_message again;
  fz_field_error error;

  FUZZ_CHECK(fz_json_parse(&root, text, length, NULL, 0) == 0);
  FUZZ_CHECK(fz_message_decode(&again, root, &error) == 0);
  FUZZ_CHECK(again.type == message->type);
  char *text_again = encode(&again, &length_again);
  FUZZ_CHECK(length == length_again && memcmp(text, text_again, length) == 0);
  free(text_again);
  free(text);
  fz_json_free(root);
}

static void check_chunk(const struct fz_params_chunk *chunk) {
  const fz_json *cursor = NULL;
  struct fz_params_entry entry;
  uint64_t n = 0;

  while (fz_params_chunk_next(chunk, &cursor, &entry)) {
    FUZZ_CHECK(strlen(entry.name) <= FZ_PARAM_NAME_MAX && entry.elements <= FZ_INT_MAX);
    FUZZ_CHECK(!entry.may_freeze || strlen(entry.may_freeze) <= FZ_CODE_MAX);
    FUZZ_CHECK(!entry.may_train || strlen(entry.may_train) <= FZ_CODE_MAX);
    n++;
  }
  FUZZ_CHECK(n == chunk->count);
}

static bool take(void *context, char *line, size_t length) {
  char why[FZ_FIELD_MESSAGE_SIZE] = "";
  fz_json *root = NULL;
  fz_message message;
  fz_field_error error;

  (void)context;
  if (fz_json_parse(&root, line, length, why, sizeof(why)) != 0) {
    FUZZ_CHECK(why[0] != '\0');
    return false;
  }
  (void)fz_is_request(root);
  const int r = fz_message_decode(&message, root, &error);
  FUZZ_CHECK(r >= 0 && (r == 0) == !fz_field_error_is_set(&error) && (r == 0 || error.message[0]));
  if (r == 0 && message.type == FZ_MESSAGE_PARAMS)
    check_chunk(&message.params);
  else if (r == 0)
    check_again(&message);
  fz_json_free(root);
  return r != FZ_DECODE_VERSION;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  fuzz_lines(data, size, take, NULL);
  return 0;
}
