/* selector_internal.h - a compiled selector from inside: for selector.c and selector_hint.c only. */
#ifndef FZ_SELECTOR_INTERNAL_H
#define FZ_SELECTOR_INTERNAL_H

#define PCRE2_CODE_UNIT_WIDTH 8

#include <pcre2.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/rules/selector.h"

enum fz_selector_kind { FZ_SELECTOR_DOTTED, FZ_SELECTOR_NAME, FZ_SELECTOR_PREFIX, FZ_SELECTOR_REGEX };

/* One pattern that is left when the braces are expanded. */
struct fz_selector_item {
  pcre2_code *code; /* NULL: looked up in the table of names */
  char *text;       /* NUL-terminated; a bare name has a dot behind it, for the lookup of its module */
  size_t length;    /* without that dot */
  size_t literal;   /* so many bytes at the front stand for themselves: every match begins with them */
};

struct fz_selector {
  enum fz_selector_kind kind;
  char *text; /* as written */
  size_t length;
  size_t body; /* where the pattern begins behind "re:", "prefix:", "name:" */
  struct fz_selector_item *items;
  size_t n_items, capacity;
};

/** Whether the first `length` bytes of a dotted pattern hold none of * ? [ ] { } and no backslash. */
bool fz_selector_is_bare(const char *text, size_t length);

#endif
