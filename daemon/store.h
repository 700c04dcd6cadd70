/* store.h - a run's folder in the state directory: opening it, replacing a file, adding to one. */
#ifndef FZ_STORE_H
#define FZ_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "daemon/core.h"

/** The folder of a run, opened; with `make`, made if need be. A descriptor or negative errno. */
int fz_store_open(const fz_run *run, bool make);

/** Replaces a file by another text, so that after a crash there is the one or the other. 0 or negative errno. */
int fz_store_replace(int folder, const char *name, const char *text, size_t length);

/**
 * Adds a line to a file with one write; what was there without a newline at its end is cut off before.
 * @param sync      it is on disk when this returns
 * @param[out] ret_size  of the file now
 * @return 0; negative errno: the file is as it was
 */
int fz_store_append(int folder, const char *name, const char *line, size_t length, bool sync, off_t *ret_size);

/**
 * The text of a file, allocated, with a NUL behind it.
 * @return 0; -ENOENT; -EFBIG it is longer than `max`; other negative errno
 */
int fz_store_read(int folder, const char *name, size_t max, char **ret_text, size_t *ret_length);

/** Cuts a file off behind its first `length` bytes, durably. 0 or negative errno. */
int fz_store_cut(int folder, const char *name, size_t length);

#endif
