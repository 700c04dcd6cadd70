/* systemd.h - what freezerd says to a service manager; no library is needed for it. */
#ifndef FZ_SYSTEMD_H
#define FZ_SYSTEMD_H

#include <stdint.h>

/** Sends one state line ("READY=1") to $NOTIFY_SOCKET, if that is set. 0, or a negative errno. */
int fz_systemd_notify(const char *state);
/** How often to send WATCHDOG=1, in milliseconds; 0: never. */
uint64_t fz_systemd_watchdog_ms(void);

#endif
