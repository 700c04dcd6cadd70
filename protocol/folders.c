/* folders.c - whether others could put something else in the place of what is in a folder. */
#include "config.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "protocol/folders.h"

#define UNMAPPED_UID 65534U /* what the kernel shows for an owner that a user namespace has no number for */

/* In a user namespace the host's root, who owns /, may have no number: who an unmapped owner is cannot be told. */
static bool has_all_uids(void) {
  FILE *map = fopen("/proc/self/uid_map", "re");
  unsigned long inside = 0, outside = 0, count = 0;
  const int n = map ? fscanf(map, "%lu %lu %lu", &inside, &outside, &count) : 0;
  if (map)
    (void)fclose(map);
  return n != 3 || count >= UINT_MAX;
}

static bool is_trusted(uid_t owner) {
  return owner == 0 || owner == geteuid() || (owner == UNMAPPED_UID && !has_all_uids());
}

static int check_one(const char *folder, bool shared, char *reason, size_t reason_size) {
  struct stat found;
  if (stat(folder, &found) != 0) {
    const int r = -errno;
    (void)snprintf(reason, reason_size, "%s: %s", folder, strerror(-r));
    return r;
  }
  if (!S_ISDIR(found.st_mode)) {
    (void)snprintf(reason, reason_size, "%s is no directory", folder);
    return -ENOTDIR;
  }
  if (shared)
    return 0;
  const bool writable = (found.st_mode & (S_IWGRP | S_IWOTH)) != 0 && (found.st_mode & S_ISVTX) == 0;
  if (is_trusted(found.st_uid) && !writable)
    return 0;
  (void)snprintf(
    reason, reason_size,
    "%s belongs to uid %lu and gid %lu with mode %04o: others than uid %lu and root could replace what is in "
    "it",
    folder, (unsigned long)found.st_uid, (unsigned long)found.st_gid, (unsigned)(found.st_mode & 07777),
    (unsigned long)geteuid());
  return -EPERM;
}

int fz_folder_check(const char *path, bool shared, char *reason, size_t reason_size) {
  char *real = realpath(path, NULL);
  if (!real) {
    const int r = -errno;
    (void)snprintf(reason, reason_size, "%s: %s", path, strerror(-r));
    return r;
  }
  int r = check_one(real, shared, reason, reason_size);
  while (r == 0 && real[1] != '\0') {
    char *slash = strrchr(real, '/');
    slash[slash == real ? 1 : 0] = '\0';
    r = check_one(real, false, reason, reason_size);
  }
  free(real);
  return r;
}

int fz_folder_check_of(const char *path, bool shared, char *reason, size_t reason_size) {
  char *folder = strdup(path);
  if (!folder)
    return -ENOMEM;
  char *slash = strrchr(folder, '/');
  if (slash)
    slash[slash == folder ? 1 : 0] = '\0';
  const int r = fz_folder_check(slash ? folder : ".", shared, reason, reason_size);
  free(folder);
  return r;
}
