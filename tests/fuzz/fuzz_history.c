/* fuzz_history.c - history.ndjson as a crash, another freezerd or anybody left it: mended, read, gone on with. */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "daemon/history.h"
#include "daemon/state.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/state_folder.h"

const char fuzz_name[] = "history";

static char *read_all(const fz_run *run, size_t *ret_length) {
  char *text = NULL;
  FUZZ_CHECK(fz_history_read(run, &text, ret_length) == 0);
  return text;
}

/* What is left are whole lines of what was there, and the last of them is JSON. */
static void check_mended(fz_run *run, const uint8_t *data, size_t size) {
  struct fz_history_cursor cursor = { 0 };
  size_t length, again;

  FUZZ_CHECK(fz_history_mend(run) == 0);
  char *text = read_all(run, &length);
  FUZZ_CHECK(length <= size && (length == 0 || (memcmp(text, data, length) == 0 && text[length - 1] == '\n')));
  cursor = (struct fz_history_cursor){ .text = text, .length = length };
  fz_json *last = fz_history_older(&cursor);
  FUZZ_CHECK((last != NULL) == (length > 0));
  fz_json_free(last);
  FUZZ_CHECK(fz_history_mend(run) == 0);
  free(text);
  free(read_all(run, &again));
  FUZZ_CHECK(again == length);
}

/* Any state that a line holds is one that a revert could go back to, or is refused. */
static void go_back(fz_run *run) {
  struct fz_history_cursor cursor = { 0 };
  struct fz_state_rules rules;
  fz_json *line;
  char *text = read_all(run, &cursor.length);

  cursor.text = text;
  while ((line = fz_history_older(&cursor))) {
    const fz_json *state = fz_json_member(line, "state");
    fz_layers *layers = NULL;
    FUZZ_CHECK(fz_layers_new(&layers, fuzz_params()) == 0);
    (void)(state && fz_state_decisions(run, state, layers, &rules));
    fz_layers_free(layers);
    fz_json_free(line);
  }
  free(text);
}

/* The line that was just saved is the newest, and counts more than all before it that the run was restored from. */
static void check_saved(const fz_run *run) {
  struct fz_history_cursor cursor = { 0 };
  uint64_t serial = 0;
  char *text = read_all(run, &cursor.length);

  cursor.text = text;
  fz_json *line = fz_history_older(&cursor);
  FUZZ_CHECK(fz_json_integer(fz_json_member(line, "serial"), &serial) && serial == run->serial);
  fz_json_free(line);
  free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  fz_run *run = fuzz_run_with("history.ndjson", data, size);

  run->adopted = size > 0 && data[size - 1] != '\n';
  check_mended(run, data, size);
  fuzz_restore(run);
  check_saved(run);
  go_back(run);
  fz_run_free(run);
  return 0;
}
