/* style.c - what the output looks like: colours, width, and which signs the locale has. */
#include "config.h"

#include <langinfo.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "client/ctl/style.h"

#define WIDTH_DEFAULT 80
#define WIDTH_MIN 20
#define WIDTH_MAX 10000

/* Whether a variable is set to something; "0" counts as nothing. */
static bool is_on(const char *name) {
  const char *value = getenv(name);
  return value && *value && strcmp(value, "0") != 0;
}

static size_t width_of(const char *text) {
  const long width = text ? strtol(text, NULL, 10) : 0;
  return width >= WIDTH_MIN && width <= WIDTH_MAX ? (size_t)width : 0;
}

static size_t terminal_width(void) {
  struct winsize size;
  size_t width = width_of(getenv("FREEZER_FORCE_TTY"));
  if (width == 0)
    width = width_of(getenv("COLUMNS"));
  if (width == 0 && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col >= WIDTH_MIN)
    width = size.ws_col;
  return width ? width : WIDTH_DEFAULT;
}

/* https://no-color.org and https://bixense.com/clicolors: an option beats NO_COLOR, which beats CLICOLOR. */
static bool wants_color(const char *when, bool terminal) {
  const char *no_color = getenv("NO_COLOR"), *term = getenv("TERM"), *cli = getenv("CLICOLOR");
  if (when && strcmp(when, "auto") != 0)
    return strcmp(when, "always") == 0;
  if (no_color && *no_color)
    return false;
  if (is_on("CLICOLOR_FORCE"))
    return true;
  if (cli && strcmp(cli, "0") == 0)
    return false;
  return terminal && term && strcmp(term, "dumb") != 0;
}

void fz_style_init(fz_style *style, const char *when, bool no_input) {
  const bool real_terminal = isatty(STDOUT_FILENO);
  style->terminal = real_terminal || is_on("FREEZER_FORCE_TTY");
  style->width = terminal_width();
  style->color = wants_color(when, style->terminal);
  style->color_err = wants_color(when, isatty(STDERR_FILENO));
  style->unicode = strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
  style->interactive = isatty(STDIN_FILENO) && isatty(STDERR_FILENO) && !no_input && !is_on("FREEZER_NO_INPUT");
}

const char *fz_paint_sequence(enum fz_paint paint) {
  switch (paint) {
  case FZ_PAINT_NONE:
    return NULL;
  case FZ_PAINT_FROZEN:
    return "\033[36m";
  case FZ_PAINT_PENDING:
    return "\033[33m";
  case FZ_PAINT_ERROR:
    return "\033[31m";
  case FZ_PAINT_DIM:
    return "\033[2m";
  }
  return NULL;
}

const char *fz_paint_on(const fz_style *style, enum fz_paint paint) {
  const char *sequence = style->color ? fz_paint_sequence(paint) : NULL;
  return sequence ? sequence : "";
}

const char *fz_paint_off(const fz_style *style, enum fz_paint paint) {
  return style->color && paint != FZ_PAINT_NONE ? "\033[0m" : "";
}
