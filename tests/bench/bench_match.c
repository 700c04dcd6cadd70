/* bench_match.c - resolves the selectors of a file against the names of another; run.py compares with Python. */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/rules/selector.h"
#include "protocol/limits.h"
#include "protocol/mask.h"
#include "protocol/params.h"
#include "tests/bench/bench.h"

enum { TIMES = 9 };

static fz_params *read_names(const char *path) {
  fz_params *params;
  char line[FZ_PARAM_NAME_MAX + 2];
  FILE *file = fopen(path, "r");
  bench_require(!file, path);
  bench_require(fz_params_new(&params) < 0, "parameters");
  while (fgets(line, sizeof(line), file))
    bench_require(fz_params_add(params, line, strcspn(line, "\n"), 1, true, NULL, NULL) < 0, "a name");
  fclose(file);
  bench_require(fz_params_seal(params, NULL) != 0, "names");
  return params;
}

static char **read_lines(const char *path, size_t *ret_n) {
  char **lines = NULL, *line = NULL;
  size_t n = 0, size = 0;
  ssize_t length;
  FILE *file = fopen(path, "r");
  bench_require(!file, path);
  while ((length = getline(&line, &size, file)) > 0) {
    lines = realloc(lines, (n + 1) * sizeof(*lines));
    bench_require(!lines, "realloc");
    lines[n++] = strndup(line, (size_t)length - 1);
  }
  free(line);
  fclose(file);
  *ret_n = n;
  return lines;
}

int main(int argc, char **argv) {
  errno = 0;
  bench_require(argc != 3, "usage: bench_match NAMES SELECTORS");
  fz_params *params = read_names(argv[1]);
  const size_t words = fz_mask_words(fz_params_count(params));
  size_t n;
  char **patterns = read_lines(argv[2], &n);
  uint64_t *mask = calloc(words + 1, sizeof(*mask));
  bench_require(!mask, "calloc");

  double ns[TIMES];
  for (int i = 0; i < TIMES; i++) {
    fz_diagnostics diagnostics = FZ_DIAGNOSTICS_NULL;
    const uint64_t begin = bench_now();
    const int r = fz_patterns_match(params, (const char *const *)patterns, n, mask, &diagnostics);
    ns[i] = (double)(bench_now() - begin);
    bench_require(r != 0, "match");
    fz_diagnostics_deinit(&diagnostics);
  }
  printf("{\"ns\":%.0f,\"selected\":%zu}\n", bench_median(ns, TIMES), fz_mask_count(mask, fz_params_count(params)));
  for (size_t i = 0; i < n; i++)
    free(patterns[i]);
  free(patterns);
  free(mask);
  fz_params_unref(params);
  return 0;
}
