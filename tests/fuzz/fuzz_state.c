/* fuzz_state.c - state.json as another freezerd, or anybody, left it: read for a run, restored, and saved again. */
#include "config.h"

#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/state_folder.h"

const char fuzz_name[] = "state";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size == 0)
    return 0;
  fz_run *run = fuzz_run_with("state.json", data, size);
  run->adopted = data[0] == ' ';
  fuzz_restore(run);
  fz_run_free(run);
  return 0;
}
