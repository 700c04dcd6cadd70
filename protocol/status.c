/* status.c - error codes on the wire, and the exit status that freezerctl makes of each. */
#include "config.h"

#include <stddef.h>
#include <string.h>

#include "protocol/status.h"

static const struct {
  const char *name;
  int exit_status;
} codes[] = {
#define X(c, wire, status) [FZ_CODE_##c] = { wire, status },
  FZ_CODES(X)
#undef X
};

const char *fz_code_name(enum fz_code code) { return codes[code].name; }

int fz_code_exit_status(enum fz_code code) { return codes[code].exit_status; }

enum fz_code fz_code_parse(const char *name) {
  for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++)
    if (strcmp(codes[i].name, name) == 0)
      return (enum fz_code)i;
  return FZ_CODE_INTERNAL;
}
