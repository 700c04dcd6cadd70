/* runner.c - main of every unit test program: runs its suite and prints TAP. */
#include "config.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/runner.h"

static char root[] = "/tmp/fzXXXXXX";

const char *fz_test_root(void) { return root; }

int fz_test_slowdown(void) {
  const char *text = getenv("FZ_TEST_SLOW");
  int factor = text ? atoi(text) : 1;

  return factor > 1 ? factor : 1;
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw) {
  (void)st;
  (void)type;
  (void)ftw;
  return remove(path);
}

int main(void) {
  SRunner *runner;
  int failed;

  if (!mkdtemp(root)) {
    printf("Bail out! cannot make a folder below /tmp\n");
    return EXIT_FAILURE;
  }
  runner = srunner_create(fz_suite());
  srunner_run_all(runner, CK_ENV);
  failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  if (nftw(root, remove_entry, 16, FTW_DEPTH | FTW_PHYS) < 0)
    fprintf(stderr, "cannot remove %s\n", root);
  return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
