/* main.c - freezerd: reads the command line, runs, exits. */
#include "config.h"

#include <stdio.h>

#include "daemon/options.h"
#include "daemon/startup.h"

int main(int argc, char **argv) {
  fz_options options;
  const int r = fz_options_parse(argc, argv, stdout, stderr, &options);

  if (r != 0)
    return r == FZ_OPTIONS_HELP ? FZ_EXIT_OK : FZ_EXIT_USAGE;
  return fz_daemon_run(&options);
}
