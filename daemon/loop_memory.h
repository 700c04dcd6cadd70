/* loop_memory.h - what libuv allocates with: it ends the process when it cannot enlarge its table of descriptors. */
#ifndef FZ_DAEMON_LOOP_MEMORY_H
#define FZ_DAEMON_LOOP_MEMORY_H

/**
 * Has libuv allocate so that this table always finds room. Before any other call of libuv; again is no harm.
 * @return 0; negative errno
 */
int fz_loop_memory_init(void);

#endif
