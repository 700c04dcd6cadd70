#!/usr/bin/env python3
"""layers.py - who may include whom: the folders' rules, checked on every source file; and each rule checked itself.

Prints TAP. With a folder as argument, checks the tree there instead of $top_srcdir.
"""

import functools
import os
import re
import sys
from collections import namedtuple

# Files that may include uv.h: the daemon's server, its connections, and what libuv allocates with. All other code is told
# what happened.
UV_FILES = {"daemon/connection.c", "daemon/loop_memory.c", "daemon/server.c"}

# What a folder may include, the longest path that fits counts: headers of ours by their folder (or exact path), and
# libraries other than libc by the header's name. `pure` code computes: it reads no clock and does no I/O. `guest`
# code runs inside somebody else's process: it starts no threads, installs no handlers, never exits and never prints.
Folder = namedtuple("Folder", "ours libraries pure guest", defaults=(False, False))
FOLDERS = {
    "protocol": Folder({"protocol"}, {"cJSON.h"}, guest=True),
    "daemon": Folder({"protocol", "daemon", "daemon/rules", "daemon/rulefile"}, {"uv.h"}),
    "daemon/rules": Folder({"protocol", "daemon/rules"}, {"pcre2.h"}, pure=True),
    "daemon/rulefile": Folder({"protocol", "daemon/rules", "daemon/rulefile"}, {"libfyaml.h"}),
    "client": Folder({"protocol", "client"}, set(), guest=True),
    "client/ctl": Folder(
        {"protocol", "client", "client/ctl", "daemon/rules", "daemon/rulefile"}, {"libsmartcols.h"}
    ),
    "client/examples": Folder({"client/freezer.h", "client/examples"}, {"mpi.h"}),
}

LIBC = set(
    """assert ctype dirent dlfcn endian errno fcntl fenv float fnmatch ftw getopt glob grp inttypes iso646 langinfo
    libgen limits link locale malloc math mntent netdb poll pthread pwd sched search semaphore setjmp signal spawn
    stdalign stdarg stdatomic stdbool stddef stdint stdio stdlib stdnoreturn string strings syslog termios threads time
    uchar unistd utime wait wchar wctype wordexp""".split()
)
LIBC_FOLDERS = ("arpa/", "linux/", "net/", "netinet/", "sys/")

PURE_HEADERS = {"fcntl.h", "poll.h", "pthread.h", "signal.h", "syslog.h", "threads.h", "time.h", "unistd.h"}
PURE_CALLS = set(
    """printf vprintf fprintf vfprintf dprintf puts fputs putchar perror fopen fdopen freopen fclose fread
    fwrite fgets getline open openat creat read write close mmap shm_open socket connect send recv time clock
    clock_gettime gettimeofday getenv secure_getenv rand random srand getrandom sleep usleep nanosleep getpid syslog
    exit _exit system fork""".split()
)
GUEST_HEADERS = {"pthread.h", "threads.h", "syslog.h"}
GUEST_CALLS = set(
    """exit _exit quick_exit abort atexit printf vprintf puts putchar perror signal sigaction sigprocmask
    pthread_create thrd_create fork vfork system popen setenv unsetenv putenv setlocale chdir umask""".split()
)

# Called by daemons only: it binds with a umask, and takes the variables of socket activation out of the environment.
NEVER_GUESTS = {"protocol/listener.c"}
# pthread_atfork() tells a forked child that it is one; it is declared beside what starts threads.
GUEST_INCLUDES = {("client/fork.c", "pthread.h")}

INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"]+)[>"]', re.M)
CALL = re.compile(r"(?<![\w.])(?<!->)(\w+)\s*\(")
NOISE = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)


def read_tree(root):
    """The C sources below root, by their path from there."""
    sources = {}
    for top in ("protocol", "daemon", "client", "tests"):
        for folder, _, names in os.walk(os.path.join(root, top)):
            for name in names:
                if name.endswith((".c", ".h", ".cc", ".hh")):
                    path = os.path.join(folder, name)
                    with open(path, encoding="utf-8") as file:
                        sources[os.path.relpath(path, root)] = file.read()
    return sources


def folder_of(path):
    """The row of FOLDERS for a file, None for tests."""
    folder = os.path.dirname(path)
    while folder and folder not in FOLDERS:
        folder = os.path.dirname(folder)
    return FOLDERS.get(folder)


def is_libc(header):
    return header.startswith(LIBC_FOLDERS) or header.removesuffix(".h") in LIBC


@functools.lru_cache(maxsize=None)
def included(text):
    """The includes of a source text as (quote, header)."""
    return INCLUDE.findall(text)


@functools.lru_cache(maxsize=None)
def calls(text):
    """All names that a source text calls: no members, nothing in comments or strings."""
    return frozenset(CALL.findall(NOISE.sub(" ", text)))


class Tree:
    """Includes of all sources, and one method per rule that yields its violations."""

    def __init__(self, sources):
        self.sources = sources
        self.includes = {path: included(text) for path, text in sources.items()}

    def each_include(self):
        """(file, its folder's row, quote, header) of the product's sources."""
        for path, includes in self.includes.items():
            folder = folder_of(path)
            if folder:
                for quote, header in includes:
                    yield path, folder, quote, header

    def our_headers_by_path_from_the_top(self):
        for path, includes in self.includes.items():
            for quote, header in includes:
                if quote == '"' and header != "config.h" and header not in self.sources:
                    yield f'{path} includes "{header}", which is no path from the top folder'

    def folders_include_only_their_layers(self):
        for path, folder, quote, header in self.each_include():
            if header == "freezer.h":
                header = "client/freezer.h"
            elif quote == "<" or header == "config.h" or header.startswith("tests/"):
                continue
            if header not in folder.ours and os.path.dirname(header) not in folder.ours:
                yield f"{path} includes {header}; it may include {', '.join(sorted(folder.ours))}"

    def folders_use_only_their_libraries(self):
        for path, folder, quote, header in self.each_include():
            name = os.path.basename(header)
            if quote == "<" and header != "freezer.h" and not is_libc(header) and name not in folder.libraries:
                yield f"{path} includes <{header}>; beside libc it may use {', '.join(sorted(folder.libraries)) or 'nothing'}"

    def uv_only_in_listed_files(self):
        users = {path for path, _, _, header in self.each_include() if header == "uv.h"}
        for path in sorted(users - UV_FILES):
            yield f"{path} includes uv.h and is not in UV_FILES"
        for path in sorted(UV_FILES - users):
            yield f"UV_FILES lists {path}, which does not include uv.h"

    def product_includes_no_tests(self):
        for path, _, _, header in self.each_include():
            if header.startswith("tests/") or header == "check.h":
                yield f"{path} includes {header}"

    def public_header_stands_alone(self):
        for quote, header in self.includes.get("client/freezer.h", []):
            if quote == '"' or not is_libc(header):
                yield f"client/freezer.h includes {header}"

    def config_h_first_in_sources(self):
        for path, includes in self.includes.items():
            if path.endswith(".c") and not path.startswith("client/examples/") and includes[:1] != [('"', "config.h")]:
                yield f"{path} does not start with config.h"

    def config_h_in_no_header(self):
        for path, includes in self.includes.items():
            if path.endswith((".h", ".hh")) and ('"', "config.h") in includes:
                yield f"{path} includes config.h: what it declares would depend on it"

    def rules_are_pure(self):
        for path, folder, _, header in self.each_include():
            if folder.pure and (header in PURE_HEADERS or (header.startswith("sys/") and header != "sys/types.h")):
                yield f"{path} includes {header}"
        for path, text in self.sources.items():
            if folder_of(path) and folder_of(path).pure:
                for name in sorted(PURE_CALLS & calls(text)):
                    yield f"{path} calls {name}()"

    def library_is_a_quiet_guest(self):
        for path, folder, _, header in self.each_include():
            if folder.guest and header in GUEST_HEADERS and (path, header) not in GUEST_INCLUDES:
                yield f"{path} includes {header}"
        for path, text in self.sources.items():
            if folder_of(path) and folder_of(path).guest and path not in NEVER_GUESTS:
                for name in sorted(GUEST_CALLS & calls(text)):
                    yield f"{path} calls {name}()"


RULES = [name for name in vars(Tree) if not name.startswith(("_", "each_"))]

# For each rule, files that break it. Put into the tree one at a time, each must be noticed by its rule.
BREAKS = [
    ("our_headers_by_path_from_the_top", "protocol/zz.c", '#include "config.h"\n#include "limits.h"\n'),
    ("our_headers_by_path_from_the_top", "tests/zz.c", '#include "config.h"\n#include "runner.h"\n'),
    ("folders_include_only_their_layers", "protocol/zz.h", '#include "daemon/zz.h"\n'),
    ("folders_include_only_their_layers", "protocol/zz.h", "#include <freezer.h>\n"),
    ("folders_include_only_their_layers", "daemon/zz.h", '#include "client/freezer.h"\n'),
    ("folders_include_only_their_layers", "daemon/rules/zz.h", '#include "daemon/zz.h"\n'),
    ("folders_include_only_their_layers", "daemon/rulefile/zz.h", '  #  include "daemon/zz.h"\n'),
    ("folders_include_only_their_layers", "client/zz.h", '#include "daemon/rules/zz.h"\n'),
    ("folders_include_only_their_layers", "client/zz.h", '#include "client/ctl/zz.h"\n'),
    ("folders_include_only_their_layers", "client/ctl/zz.h", '#include "daemon/zz.h"\n'),
    ("folders_include_only_their_layers", "client/examples/zz.h", '#include "protocol/limits.h"\n'),
    ("folders_use_only_their_libraries", "protocol/zz.h", "#include <pcre2.h>\n"),
    ("folders_use_only_their_libraries", "daemon/rules/zz.h", "#include <cJSON.h>\n"),
    ("folders_use_only_their_libraries", "client/zz.h", "#include <cjson/cJSON.h>\n"),
    ("folders_use_only_their_libraries", "client/ctl/zz.h", "#include <uv.h>\n"),
    ("uv_only_in_listed_files", "daemon/zz.c", '#include "config.h"\n#include <uv.h>\n'),
    ("product_includes_no_tests", "daemon/zz.h", '#include "tests/runner.h"\n'),
    ("public_header_stands_alone", "client/freezer.h", '#include "protocol/limits.h"\n'),
    ("public_header_stands_alone", "client/freezer.h", "#include <cJSON.h>\n"),
    ("config_h_first_in_sources", "daemon/zz.c", '#include <stdio.h>\n#include "config.h"\n'),
    ("config_h_first_in_sources", "tests/zz.c", "int zz;\n"),
    ("config_h_in_no_header", "protocol/zz.h", '#include "config.h"\n'),
    ("rules_are_pure", "daemon/rules/zz.h", "#include <sys/stat.h>\n"),
    ("rules_are_pure", "daemon/rules/zz.c", '#include "config.h"\nvoid zz(void) { fprintf (stderr, "x"); }\n'),
    ("rules_are_pure", "daemon/rules/zz.c", '#include "config.h"\nlong zz(void) { return time(0); }\n'),
    ("library_is_a_quiet_guest", "client/zz.h", "#include <pthread.h>\n"),
    ("library_is_a_quiet_guest", "client/zz.c", '#include "config.h"\nvoid zz(void) { exit(1); }\n'),
    ("library_is_a_quiet_guest", "protocol/zz.c", '#include "config.h"\nvoid zz(void) { puts("x"); }\n'),
]

# Allowed, and close to what is not: no rule may object.
PASSES = [
    ("daemon/rules/zz.c", '#include "config.h"\n// open(x)\n/* time(0) */\nint zz(struct zz *z) { return z->open(z, "close()"); }\n'),
    ("daemon/rules/zz.c", '#include "config.h"\n\n#include <pcre2.h>\n#include <stdio.h>\n\n#include "protocol/limits.h"\n'),
    ("client/ctl/zz.c", '#include "config.h"\n\n#include <libsmartcols.h>\n\n#include "protocol/limits.h"\n'),
    ("client/examples/zz.c", "#include <freezer.h>\n#include <stdio.h>\n"),
]


def violations(sources, rule):
    return list(getattr(Tree(sources), rule)())


def main():
    root = sys.argv[1] if len(sys.argv) > 1 else os.environ["top_srcdir"]
    sources = read_tree(root)
    failed = 0
    count = 0

    def report(good, title, details=()):
        nonlocal failed, count
        count += 1
        failed += not good
        print(f"{'ok' if good else 'not ok'} {count} - {title}")
        for line in details:
            print(f"# {line}")

    print(f"1..{len(RULES) + len(BREAKS) + len(PASSES)}")
    for rule in RULES:
        found = violations(sources, rule)
        report(not found, rule.replace("_", " "), found)
    for rule, path, text in BREAKS:
        new = set(violations({**sources, path: text}, rule)) - set(violations(sources, rule))
        report(new, f"notices {path}: {text.splitlines()[-1].strip(' #')}")
    for path, text in PASSES:
        broken = [line for rule in RULES for line in violations({**sources, path: text}, rule) if path in line]
        report(not broken, f"allows {path}: {text.splitlines()[-1].strip(' #')}", broken)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
