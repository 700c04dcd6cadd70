/* child.h - the processes of `freezerctl run`: a daemon beside a command, and what becomes of both. */
#ifndef FZ_CTL_CHILD_H
#define FZ_CTL_CHILD_H

#include <stdbool.h>
#include <sys/types.h>

/**
 * Starts a program with the signal mask that the caller had before it blocked anything.
 * @param argv     argv[0] is looked up in PATH unless it has a slash
 * @param group    true: in a process group of its own, so that Ctrl-C at the terminal does not reach it, and ended by the
 *                 kernel when this process dies
 * @return 0 and its pid; the negative errno of the exec or fork that failed
 */
int fz_child_start(char *const *argv, bool group, pid_t *ret_pid);

/** Blocks what fz_child_wait() listens for; call it before the first child. */
void fz_child_block_signals(void);

/**
 * Waits until `pid` has ended, and passes on to it the signals that were sent to this process alone: those that a
 * terminal sends reach the child by themselves. Other children that end meanwhile are reaped.
 * @return its wait status
 */
int fz_child_wait(pid_t pid);

/** Ends a child: SIGTERM, and SIGKILL after some seconds. */
void fz_child_stop(pid_t pid);

#endif
