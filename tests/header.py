#!/usr/bin/env python3
"""header.py - freezer.h compiles alone, without a warning, as C and as C++ of several years, and is usable from C++.

Prints TAP. Compilers that are not installed are skipped.
"""

import os
import shutil
import subprocess

INCLUDE = os.path.join(os.environ.get("top_srcdir", "."), "client")
FLAGS = ["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only", "-I", INCLUDE]

C_PROGRAM = """
#include <freezer.h>
#include <freezer.h>
int main(void) {
  freezer_options_t options = FREEZER_OPTIONS_INIT;
  freezer_t *f = 0;
  options.run = "run";
  return freezer_open(&f, &options, 0, 0);
}
"""

CXX_PROGRAM = """
#include <freezer.h>
#include <vector>
static void on_log(void *, int, const char *) {}
int main() {
  freezer_options_t options = FREEZER_OPTIONS_INIT;
  options.log = on_log;
  std::vector<freezer_param_t> params(1, freezer_param_t());
  params[0].name = "a";
  freezer_t *f = nullptr;
  if (freezer_open(&f, &options, params.data(), params.size()) < 0)
    return 1;
  size_t index;
  bool requires_grad;
  if (freezer_batch_begin(f, 0, 0) == 1)
    while (freezer_next_change(f, &index, &requires_grad) == 1) {
    }
  freezer_close(f);
}
"""

CASES = [(compiler, "c", standard, C_PROGRAM) for compiler in ("gcc", "clang") for standard in ("c99", "c11", "gnu17")]
CASES += [
    (compiler, "c++", standard, CXX_PROGRAM) for compiler in ("g++", "clang++") for standard in ("c++11", "c++17", "c++20")
]


def main():
    print(f"1..{len(CASES)}")
    for number, (compiler, language, standard, program) in enumerate(CASES, 1):
        name = f"{number} - freezer.h, {compiler} -std={standard}"
        if not shutil.which(compiler):
            print(f"ok {name} # SKIP not installed")
            continue
        command = [compiler, *FLAGS, f"-std={standard}", "-x", language, "-"]
        done = subprocess.run(command, input=program, text=True, capture_output=True, check=False)
        print(("ok " if done.returncode == 0 else "not ok ") + name)
        for line in done.stderr.splitlines():
            print("#", line)


if __name__ == "__main__":
    main()
