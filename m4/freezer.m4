dnl freezer.m4 - compiler flags, each tried before it is used. None of these macros writes to CFLAGS or LDFLAGS: those
dnl are the user's.

dnl FZ_TRY_CFLAG(VARIABLE, FLAG): appends FLAG to VARIABLE if the compiler takes it without a warning.
AC_DEFUN([FZ_TRY_CFLAG], [
  AC_MSG_CHECKING([whether $CC takes $2])
  fz_saved_cflags=$CFLAGS
  CFLAGS="$CFLAGS -Werror $2"
  AC_COMPILE_IFELSE([AC_LANG_PROGRAM()],
    [AC_MSG_RESULT([yes])
     $1="$$1 $2"],
    [AC_MSG_RESULT([no])])
  CFLAGS=$fz_saved_cflags
])

dnl FZ_TRY_LDFLAG(VARIABLE, FLAG): appends FLAG to VARIABLE if a program links with it.
AC_DEFUN([FZ_TRY_LDFLAG], [
  AC_MSG_CHECKING([whether $CC links with $2])
  fz_saved_ldflags=$LDFLAGS
  LDFLAGS="$LDFLAGS $2"
  AC_LINK_IFELSE([AC_LANG_PROGRAM()],
    [AC_MSG_RESULT([yes])
     $1="$$1 $2"],
    [AC_MSG_RESULT([no])])
  LDFLAGS=$fz_saved_ldflags
])

dnl FZ_WARNINGS(FLAGS): WARN_CFLAGS = those of FLAGS that the compiler knows, and -Werror with --enable-werror.
AC_DEFUN([FZ_WARNINGS], [
  AC_ARG_ENABLE([werror], [AS_HELP_STRING([--enable-werror], [stop at compiler warnings])], [], [enable_werror=no])
  WARN_CFLAGS=
  m4_foreach_w([fz_flag], [$1], [FZ_TRY_CFLAG([WARN_CFLAGS], fz_flag)])
  dnl clang: a loop that sanitizers or -O0 keep from being vectorised is no fault of the source.
  fz_pass_failed=
  FZ_TRY_CFLAG([fz_pass_failed], [-Wpass-failed])
  AS_IF([test -n "$fz_pass_failed"], [WARN_CFLAGS="$WARN_CFLAGS -Wno-pass-failed"])
  AS_IF([test "x$enable_werror" != xno], [WARN_CFLAGS="$WARN_CFLAGS -Werror"])
  AC_SUBST([WARN_CFLAGS])
])

dnl FZ_FUZZER: with --enable-fuzzer, FUZZER_LDFLAGS = what links a program to libFuzzer; all code is built to be fuzzed,
dnl with the sanitizers. Call before FZ_SANITIZERS.
AC_DEFUN([FZ_FUZZER], [
  AC_ARG_ENABLE([fuzzer],
    [AS_HELP_STRING([--enable-fuzzer], [build what "make fuzz" runs: clang, libFuzzer, sanitizers])], [], [enable_fuzzer=no])
  FUZZER_LDFLAGS=
  AS_IF([test "x$enable_fuzzer" != xno], [
    AC_MSG_CHECKING([whether $CC links with -fsanitize=fuzzer])
    fz_saved_ldflags=$LDFLAGS
    LDFLAGS="$LDFLAGS -fsanitize=fuzzer"
    AC_LINK_IFELSE(
      [AC_LANG_SOURCE([int LLVMFuzzerTestOneInput(const unsigned char *data, unsigned long size);
int LLVMFuzzerTestOneInput(const unsigned char *data, unsigned long size) { return data && size ? 0 : 0; }])],
      [AC_MSG_RESULT([yes])],
      [AC_MSG_RESULT([no])
       AC_MSG_ERROR([--enable-fuzzer needs clang and its runtime: CC=clang (Debian: clang, libclang-rt-14-dev)])])
    LDFLAGS=$fz_saved_ldflags
    FUZZER_LDFLAGS=-fsanitize=fuzzer
    AS_IF([test "x${enable_sanitizers-no}" = xno], [enable_sanitizers=yes])
  ])
  AC_SUBST([FUZZER_LDFLAGS])
  AM_CONDITIONAL([FUZZER], [test "x$enable_fuzzer" != xno])
])

dnl FZ_SANITIZERS: SAN_FLAGS for compiling and linking, TEST_SLOWDOWN = by what the tests multiply their time limits.
AC_DEFUN([FZ_SANITIZERS], [
  AC_ARG_ENABLE([sanitizers],
    [AS_HELP_STRING([--enable-sanitizers@<:@=LIST@:>@], [build with sanitizers: address,undefined (default) or thread])],
    [], [enable_sanitizers=no])
  SAN_FLAGS=
  TEST_SLOWDOWN=1
  AS_CASE([$enable_sanitizers],
    [no], [fz_sanitizers=none],
    [yes], [fz_sanitizers=address,undefined],
    [fz_sanitizers=$enable_sanitizers])
  AS_IF([test -n "$FUZZER_LDFLAGS"], [fz_sanitizers=fuzzer-no-link,$fz_sanitizers])
  AS_IF([test "x$fz_sanitizers" != xnone], [
    FZ_TRY_LDFLAG([SAN_FLAGS], [-fsanitize=$fz_sanitizers])
    AS_IF([test -z "$SAN_FLAGS"],
      [AC_MSG_ERROR([$CC cannot link with -fsanitize=$fz_sanitizers: give address, undefined or thread, and install the compiler's runtime (Debian, for clang: libclang-rt-14-dev)])])
    FZ_TRY_CFLAG([SAN_FLAGS], [-fno-sanitize-recover=all])
    FZ_TRY_CFLAG([SAN_FLAGS], [-fno-omit-frame-pointer])
    AS_CASE([$fz_sanitizers], [*thread*], [TEST_SLOWDOWN=10], [TEST_SLOWDOWN=4])
  ])
  AC_SUBST([SAN_FLAGS])
  AC_SUBST([TEST_SLOWDOWN])
])

dnl FZ_HARDENING: HARDEN_CPPFLAGS, HARDEN_CFLAGS, HARDEN_LDFLAGS. _FORTIFY_SOURCE needs an optimiser, hides calls from
dnl the sanitizers, and is left alone where the user or the compiler has set it. Call after FZ_SANITIZERS.
AC_DEFUN([FZ_HARDENING], [
  HARDEN_CPPFLAGS=
  HARDEN_CFLAGS=
  HARDEN_LDFLAGS=
  FZ_TRY_CFLAG([HARDEN_CFLAGS], [-fstack-protector-strong])
  FZ_TRY_LDFLAG([HARDEN_LDFLAGS], [-Wl,-z,relro])
  FZ_TRY_LDFLAG([HARDEN_LDFLAGS], [-Wl,-z,now])
  AC_MSG_CHECKING([whether to define _FORTIFY_SOURCE])
  AS_IF([test -n "$SAN_FLAGS"], [AC_MSG_RESULT([no, sanitizers])],
    [AC_COMPILE_IFELSE([AC_LANG_SOURCE([
#if !defined __OPTIMIZE__ || defined _FORTIFY_SOURCE
#error "not optimising, or already defined"
#endif
int fz_fortify;
])],
      [AC_MSG_RESULT([yes])
       HARDEN_CPPFLAGS=-D_FORTIFY_SOURCE=2],
      [AC_MSG_RESULT([no])])])
  AC_SUBST([HARDEN_CPPFLAGS])
  AC_SUBST([HARDEN_CFLAGS])
  AC_SUBST([HARDEN_LDFLAGS])
])
