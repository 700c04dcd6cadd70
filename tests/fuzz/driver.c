/* driver.c - runs a fuzz target without libFuzzer: over its corpus, printing TAP, or over the files given. */
#include "config.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/fuzz/fuzz.h"

/* A corpus is small: one that takes longer has found something that does not end. */
#define LIMIT_SECONDS 120U

static size_t n_inputs;

static void fail(const char *path) {
  printf("Bail out! %s: %s\n", path, strerror(errno));
  exit(EXIT_FAILURE);
}

/* The copy is as large as the input, so that a sanitizer sees reads beyond it. */
static void run_file(const char *path, size_t size) {
  uint8_t *data = malloc(size ? size : 1);
  FILE *file = fopen(path, "re");

  if (!data || !file || fread(data, 1, size, file) != size)
    fail(path);
  fclose(file);
  printf("# %s\n", path); /* the last one in the log is the one that broke it */
  fflush(stdout);
  (void)LLVMFuzzerTestOneInput(data, size);
  free(data);
  n_inputs++;
}

static int no_hidden(const struct dirent *entry) { return entry->d_name[0] != '.'; }

static void run(const char *path) {
  struct stat st;
  struct dirent **entries;
  if (stat(path, &st) < 0)
    fail(path);
  if (!S_ISDIR(st.st_mode)) {
    run_file(path, (size_t)st.st_size);
    return;
  }
  const int n = scandir(path, &entries, no_hidden, alphasort);
  if (n < 0)
    fail(path);
  for (int i = 0; i < n; i++) {
    char *inside;
    if (asprintf(&inside, "%s/%s", path, entries[i]->d_name) < 0)
      fail(path);
    run(inside);
    free(inside);
    free(entries[i]);
  }
  free(entries);
}

int main(int argc, char **argv) {
  const char *top = getenv("top_srcdir");
  char corpus[4096];

  (void)alarm(LIMIT_SECONDS);
  for (int i = 1; i < argc; i++)
    run(argv[i]);
  if (argc > 1)
    return EXIT_SUCCESS;
  puts("1..1");
  (void)snprintf(corpus, sizeof(corpus), "%s/tests/fuzz/corpus/%s", top ? top : ".", fuzz_name);
  (void)LLVMFuzzerTestOneInput((const uint8_t *)"", 0);
  run(corpus);
  printf("%s 1 - fuzz %s: %zu inputs\n", n_inputs ? "ok" : "not ok", fuzz_name, n_inputs);
  return EXIT_SUCCESS;
}
