/* state_folder.h - a state directory of its own for the fuzz targets of what is in one. */
#ifndef FZ_TESTS_FUZZ_STATE_FOLDER_H
#define FZ_TESTS_FUZZ_STATE_FOLDER_H

#include <stddef.h>
#include <stdint.h>

#include "daemon/run.h"

/** A new run whose folder has one file, `name`, with these bytes. It logs nothing. The caller frees it. */
fz_run *fuzz_run_with(const char *name, const uint8_t *data, size_t size);

/** Reads what is kept of the run, as a freezerd does that starts, and checks that it can be planned and saved. */
void fuzz_restore(fz_run *run);

/** Path of a file in the run's folder. */
void fuzz_state_path(const fz_run *run, const char *name, char path[256]);

#endif
