/* startup.h - what freezerd does between its command line and its loop, and after it. */
#ifndef FZ_STARTUP_H
#define FZ_STARTUP_H

#include "daemon/options.h"

/** Runs freezerd until it is told to stop. @return an exit code of options.h; what went wrong was logged */
int fz_daemon_run(const fz_options *options);

#endif
