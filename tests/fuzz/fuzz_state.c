/* fuzz_state.c - state.json as another freezerd, or anybody, left it: read for a run, restored, and saved again. */
#include "config.h"

#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/core.h"
#include "daemon/rules/planner.h"
#include "daemon/run.h"
#include "daemon/state.h"
#include "tests/fuzz/fuzz.h"

const char fuzz_name[] = "state";

#define RUN "run"

static fz_core core = FZ_CORE_NULL;
static char folder[64];

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *where) {
  (void)st;
  (void)type;
  (void)where;
  return remove(path);
}

static void clean(void) { (void)nftw(folder, remove_one, 8, FTW_DEPTH | FTW_PHYS); }

static void set_up(void) {
  static bool done;
  if (done)
    return;
  done = true;
  (void)snprintf(folder, sizeof(folder), "%s",
                 access("/dev/shm", W_OK) == 0 ? "/dev/shm/fzfuzz.XXXXXX" : "/tmp/fzfuzz.XXXXXX");
  FUZZ_CHECK(mkdtemp(folder) != NULL);
  (void)atexit(clean);
  const int nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);
  FUZZ_CHECK(nowhere >= 0);
  FUZZ_CHECK(fz_core_init(&core, folder, folder) == 0);
  fz_log_init(&core.log, nowhere, FZ_LOG_ERROR, FZ_LOG_HUMAN);
}

static void write_file(const fz_run *run, const uint8_t *data, size_t size) {
  char path[256];
  (void)snprintf(path, sizeof(path), "%s/%s", folder, run->key);
  (void)mkdir(path, 0700);
  (void)snprintf(path, sizeof(path), "%s/%s/history.ndjson", folder, run->key);
  (void)unlink(path);
  (void)snprintf(path, sizeof(path), "%s/%s/state.json", folder, run->key);
  const int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  FUZZ_CHECK(fd >= 0 && write(fd, data, size) == (ssize_t)size && close(fd) == 0);
}

/* What was restored can be planned, saved, and is the same when it is restored once more. */
static void check_restored(fz_run *run, fz_layers *layers) {
  fz_plan plan = FZ_PLAN_NULL;
  uint64_t gen;

  FUZZ_CHECK(fz_layers_n_overrides(layers) <= FZ_OVERRIDES_MAX && fz_layers_n_pins(layers) <= FZ_PINS_MAX);
  FUZZ_CHECK(fz_layers_plan(layers, 3, 0, 32, 32, &plan) == 0);
  fz_plan_deinit(&plan);
  (void)fz_state_knows(run, 1, &gen);
  run->layers = layers;
  FUZZ_CHECK(fz_state_save(run, NULL) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  fz_run *run = NULL;
  fz_layers *layers = NULL;

  set_up();
  if (size == 0)
    return 0;
  FUZZ_CHECK(fz_run_new(&run, &core, RUN, RUN) == 0);
  run->adopted = data[0] == ' ';
  write_file(run, data, size);
  FUZZ_CHECK(fz_layers_new(&layers, fuzz_params()) == 0);
  FUZZ_CHECK(fz_state_restore(run, layers) == 0);
  check_restored(run, layers);
  fz_run_free(run);
  return 0;
}
