/* systemd.c - what freezerd says to a service manager; no library is needed for it. */
#include "config.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "daemon/systemd.h"

int fz_systemd_notify(const char *state) {
  const char *path = getenv("NOTIFY_SOCKET");
  struct sockaddr_un address = { .sun_family = AF_UNIX };

  if (!path || !*path)
    return 0;
  const size_t length = strlen(path);
  if (length >= sizeof(address.sun_path) || (path[0] != '/' && path[0] != '@'))
    return -EINVAL;
  memcpy(address.sun_path, path, length);
  if (path[0] == '@')
    address.sun_path[0] = '\0';
  const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0)
    return -errno;
  const socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length);
  const ssize_t sent = sendto(fd, state, strlen(state), MSG_NOSIGNAL, (const struct sockaddr *)&address, size);
  const int r = sent < 0 ? -errno : 0;
  close(fd);
  return r;
}

static uint64_t number_of(const char *name) {
  const char *text = getenv(name);
  char *end;

  if (!text || *text < '0' || *text > '9')
    return 0;
  const unsigned long long value = strtoull(text, &end, 10);
  return *end ? 0 : value;
}

uint64_t fz_systemd_watchdog_ms(void) {
  const uint64_t pid = number_of("WATCHDOG_PID");

  if (pid != 0 && pid != (uint64_t)getpid())
    return 0;
  return number_of("WATCHDOG_USEC") / 2000;
}
