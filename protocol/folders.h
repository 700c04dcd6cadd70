/* folders.h - whether others could put something else in the place of what is in a folder. */
#ifndef FZ_FOLDERS_H
#define FZ_FOLDERS_H

#include <stdbool.h>
#include <stddef.h>

/**
 * Whether only this user and root decide what is in a folder: it and all folders above it, links resolved, belong to one
 * of the two, and none may be written by others unless it is sticky, as /tmp is.
 *
 * @param      shared  the folder itself is shared on purpose: others may write it, whatever its owner
 * @param[out] reason  a sentence when it is not so, with the folder, its owner and mode
 * @return 0; -EPERM others could; -ENOENT, -ENOTDIR and other negative errno of looking
 */
int fz_folder_check(const char *path, bool shared, char *reason, size_t reason_size);

/** The same for the folder that `path` is, or is to be, in. */
int fz_folder_check_of(const char *path, bool shared, char *reason, size_t reason_size);

#endif
