#!/bin/sh
# bootstrap.sh - from a fresh clone to a configured tree: installs what is missing, runs autoreconf and configure.
# Arguments go to configure. Run it again at any time: it does only what is needed.
set -eu
cd "$(dirname "$0")"

packages='build-essential autoconf automake libtool pkg-config python3
libuv1-dev libcjson-dev libpcre2-dev libsmartcols-dev libfyaml-dev check'

usage() {
  cat <<END
usage: ./bootstrap.sh [--with-python] [OPTION of configure]...
Installs the Debian packages that are missing, makes ./configure and runs it here with the options given,
for example --enable-werror or --enable-sanitizers=thread. Then: make, make check, make demo.
--with-python also makes python-env/, a virtual environment with torch, lightning, transformers and accelerate from the
Python package index, in which make check then runs the tests of pyfreezer.
For all options of configure: ./configure --help
END
}

missing_packages() {
  for package in $packages; do
    status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) || status=
    [ "$status" = installed ] || printf '%s ' "$package"
  done
}

as_root() {
  if [ "$(id -u)" -eq 0 ]; then
    env DEBIAN_FRONTEND=noninteractive "$@"
  elif command -v sudo >/dev/null; then
    sudo env DEBIAN_FRONTEND=noninteractive "$@"
  else
    echo "bootstrap.sh: not root and no sudo; as root, run: $*" >&2
    exit 1
  fi
}

# A new machine has no package lists yet, an old one has stale ones: in both cases fetch them and try again.
install_packages() {
  if apt-cache show "$@" >/dev/null 2>&1 && as_root apt-get install -y --no-install-recommends "$@"; then
    return
  fi
  as_root apt-get update
  as_root apt-get install -y --no-install-recommends "$@"
}

# True if nothing that configure and Makefile.in are made from is newer than they are.
generated_is_current() {
  [ -f configure ] && [ -f Makefile.in ] && [ -f build-aux/ltmain.sh ] || return 1
  [ -z "$(find configure.ac Makefile.am m4/freezer.m4 -newer configure)" ] || return 1
  [ -z "$(find Makefile.am protocol daemon client tests \( -name '*.inc' -o -name Makefile.am \) -newer Makefile.in)" ]
}

# True if this tree was configured with just these options, and no variable asks for another compiler.
configured_is_current() {
  [ -f config.status ] && [ -f Makefile ] && [ -z "$(find configure -newer config.status)" ] || return 1
  [ -z "${CC-}${CFLAGS-}${CPPFLAGS-}${LDFLAGS-}${LIBS-}${PKG_CONFIG_PATH-}" ] || return 1
  wanted=$(printf '<%s>' "$@")
  eval "set -- $(./config.status --config)"
  [ "$(printf '<%s>' "$@")" = "$wanted" ]
}

with_python=
for option; do
  shift
  case $option in
  -h | --help)
    usage
    exit 0
    ;;
  --with-python) with_python=yes ;;
  *) set -- "$@" "$option" ;;
  esac
done

# Debian's Python has venv in a package of its own.
if [ -n "$with_python" ] && ! python3 -c 'import ensurepip' 2>/dev/null; then
  packages="$packages python3-venv"
fi

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
  echo "bootstrap.sh: this is not a Debian system, so nothing is installed. Freezer needs these, by their Debian names:" >&2
  echo "$packages" | sed 's/^/  /' >&2
  echo "With them in place: autoreconf -fi && ./configure && make" >&2
  exit 1
fi

missing=$(missing_packages)
if [ -n "$missing" ]; then
  echo "bootstrap.sh: installing Debian packages: $missing"
  install_packages $missing
fi

if ! generated_is_current; then
  echo "bootstrap.sh: making ./configure"
  autoreconf -fi
fi

if [ -n "$missing" ] || ! configured_is_current "$@"; then
  ./configure "$@"
else
  echo "bootstrap.sh: already configured"
fi

if [ -n "$with_python" ]; then
  make python-env
fi
