/* fork.c - knows whether this process is the one that opened a handle, without a system call per batch. */
#include "config.h"

#include <errno.h>
#include <pthread.h>

#include "client/handle.h"

unsigned fz_fork_count;

static pthread_once_t once = PTHREAD_ONCE_INIT;
static int watch_error;

static void in_child(void) { fz_fork_count++; }

static void watch(void) { watch_error = pthread_atfork(NULL, NULL, in_child); }

int fz_fork_watch(void) {
  (void)pthread_once(&once, watch);
  return -watch_error;
}
