/* table.h - tables and trees: aligned for people, tab-separated with --plain, names with -q. */
#ifndef FZ_CTL_TABLE_H
#define FZ_CTL_TABLE_H

#include <stdbool.h>
#include <stddef.h>

#include "client/ctl/ctl.h"

enum fz_column_flags {
  FZ_COLUMN_RIGHT = 1,  /* numbers */
  FZ_COLUMN_MIDDLE = 2, /* on a narrow terminal cut in the middle */
  FZ_COLUMN_END = 4,    /* on a narrow terminal cut at the end */
  FZ_COLUMN_EXTRA = 8,  /* shown only when asked for with -o */
  FZ_COLUMN_TREE = 16   /* carries the branches */
};

struct fz_column {
  const char *name; /* "ELEMENTS" */
  const char *help; /* for -o help */
  unsigned flags;
};

/** Rows that are collected and then printed. The first column is the one that -q prints. */
typedef struct fz_table fz_table;

/**
 * A table with these columns, of which -o selects.
 * @return true; false: *ret_status is the exit status of a failure that has been said, or of `-o help`, which has been
 *         answered
 */
bool fz_table_new(const fz_ctl *ctl, const struct fz_column *columns, size_t n, fz_table **ret_table, int *ret_status);

/**
 * Looks at -o before anything is asked of a daemon: answers `-o help`, says what is wrong with it. As fz_table_new(), but
 * makes no table. Always true with --json, which has no columns.
 */
bool fz_table_check(const fz_ctl *ctl, const struct fz_column *columns, size_t n, int *ret_status);

/** Takes NULL; returns NULL. */
fz_table *fz_table_free(fz_table *table);

/** Adds a row below `parent` (a row's number, or -1) and returns its number; -1 out of memory. */
long fz_table_add(fz_table *table, long parent);

/**
 * Fills a cell.
 * @param human  for people, NULL: empty
 * @param raw    for --plain, NULL: as `human`
 */
void fz_table_set(fz_table *table, long row, size_t column, const char *human, const char *raw, enum fz_paint paint);

/** Prints and reports whether everything fitted into memory; out of memory anywhere before counts. 0 or -ENOMEM. */
int fz_table_print(fz_table *table);

#endif
