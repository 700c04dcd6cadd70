/* options.h - freezerd's command line and environment. */
#ifndef FZ_OPTIONS_H
#define FZ_OPTIONS_H

#include <stdbool.h>
#include <stdio.h>

#include "daemon/log.h"
#include "protocol/sockpath.h"

/** Strings are borrowed from argv or the environment. */
typedef struct fz_options {
  const char *socket;    /* NULL: $FREEZER_SOCKET or the usual places */
  const char *socket_ro; /* a second socket, on which nothing can be changed; NULL: none */
  gid_t group;           /* whose members are served besides; FZ_NO_GROUP */
  const char *state_dir; /* NULL: the usual place */
  bool no_state;         /* --state-dir none */
  const char *rules;     /* a rules file, or NULL */
  enum fz_log_level log_level;
  enum fz_log_format log_format;
  int ready_fd; /* -1: none */
} fz_options;

/* Exit codes of freezerd; the same numbers mean the same in freezerctl. */
enum { FZ_EXIT_OK = 0, FZ_EXIT_FAILED = 1, FZ_EXIT_USAGE = 2, FZ_EXIT_PERMISSION = 5, FZ_EXIT_RULES = 7 };

enum {
  FZ_OPTIONS_HELP = 1, /* --help or --version was answered on `out` */
  FZ_OPTIONS_BAD = 2   /* said on `err` */
};

/**
 * Reads the command line, then the environment (FREEZER_STATE_DIR, FREEZER_LOG) for what it leaves open.
 * @return 0; FZ_OPTIONS_HELP; FZ_OPTIONS_BAD. `ret_options` is set on 0 only.
 */
int fz_options_parse(int argc, char **argv, FILE *out, FILE *err, fz_options *ret_options);

#endif
