/* fuzz_paramsfile.c - the file of parameters that `freezerctl simulate --params` reads. */
#include "config.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "client/ctl/errors.h"
#include "client/ctl/paramsfile.h"
#include "protocol/limits.h"
#include "tests/fuzz/fuzz.h"

const char fuzz_name[] = "paramsfile";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const fz_ctl ctl = { .operands = NULL };
  fz_params *params = NULL;
  char path[64];

  fuzz_quiet();
  const int fd = fuzz_file(data, size);
  (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
  const int status = fz_params_read(&ctl, path, &params);
  (void)close(fd);
  FUZZ_CHECK((status == 0) == (params != NULL));
  FUZZ_CHECK(status == 0 || status == FZ_EXIT_USAGE);
  for (size_t i = 0; params && i < fz_params_count(params); i++) {
    const struct fz_param *param = fz_params_get(params, i);
    FUZZ_CHECK(param->name_length >= 1 && param->name_length <= FZ_PARAM_NAME_MAX && param->elements <= FZ_INT_MAX);
    FUZZ_CHECK(fz_params_find(params, param->name, param->name_length) == i);
  }
  fz_params_unref(params);
  return 0;
}
