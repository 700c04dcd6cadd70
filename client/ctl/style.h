/* style.h - what the output looks like: colours, width, and which signs the locale has. */
#ifndef FZ_CTL_STYLE_H
#define FZ_CTL_STYLE_H

#include <stdbool.h>
#include <stddef.h>

enum fz_paint { FZ_PAINT_NONE, FZ_PAINT_FROZEN, FZ_PAINT_PENDING, FZ_PAINT_ERROR, FZ_PAINT_DIM };

/** Decided once, from the options and the environment. */
typedef struct fz_style {
  bool color;       /* escape sequences on stdout */
  bool color_err;   /* and on stderr */
  bool terminal;    /* stdout is a terminal, or $FREEZER_FORCE_TTY says so */
  bool interactive; /* somebody can be asked: stdin and stderr are terminals, and neither --no-input nor its variable */
  bool unicode;     /* the locale is UTF-8 */
  size_t width;     /* columns of the terminal */
} fz_style;

/**
 * @param when      --color: "always", "never", "auto"; NULL: auto
 * @param no_input  --no-input was given
 */
void fz_style_init(fz_style *style, const char *when, bool no_input);

/** The escape sequence that starts a paint, "" without colours. */
const char *fz_paint_on(const fz_style *style, enum fz_paint paint);
/** The one that ends it. */
const char *fz_paint_off(const fz_style *style, enum fz_paint paint);
/** The bare sequence, whether colours are on or not; NULL for FZ_PAINT_NONE. */
const char *fz_paint_sequence(enum fz_paint paint);

#endif
