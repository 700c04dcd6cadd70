/* state_folder.c - a state directory of its own for the fuzz targets of what is in one. */
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
#include "daemon/state.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/state_folder.h"

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

void fuzz_state_path(const fz_run *run, const char *name, char path[256]) {
  (void)snprintf(path, 256, "%s/%s/%s", folder, run->key, name);
}

fz_run *fuzz_run_with(const char *name, const uint8_t *data, size_t size) {
  static const char *const others[] = { "history.ndjson", "history.ndjson.1", "state.json" };
  char path[256];
  fz_run *run = NULL;

  set_up();
  FUZZ_CHECK(fz_run_new(&run, &core, RUN, RUN) == 0);
  fuzz_state_path(run, "", path);
  (void)mkdir(path, 0700);
  for (size_t i = 0; i < sizeof(others) / sizeof(*others); i++) {
    fuzz_state_path(run, others[i], path);
    (void)unlink(path);
  }
  fuzz_state_path(run, name, path);
  const int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  FUZZ_CHECK(fd >= 0 && write(fd, data, size) == (ssize_t)size && close(fd) == 0);
  return run;
}

void fuzz_restore(fz_run *run) {
  fz_layers *layers = NULL;
  fz_plan plan = FZ_PLAN_NULL;
  uint64_t gen;

  FUZZ_CHECK(fz_layers_new(&layers, fuzz_params()) == 0);
  FUZZ_CHECK(fz_state_restore(run, layers) == 0);
  FUZZ_CHECK(fz_layers_n_overrides(layers) <= FZ_OVERRIDES_MAX && fz_layers_n_pins(layers) <= FZ_PINS_MAX);
  FUZZ_CHECK(fz_layers_plan(layers, 3, 0, 32, 32, &plan) == 0);
  fz_plan_deinit(&plan);
  (void)fz_state_knows(run, 1, &gen);
  run->layers = layers;
  FUZZ_CHECK(fz_state_save(run, NULL) == 0);
}
