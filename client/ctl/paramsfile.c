/* paramsfile.c - reads a file of parameters: one a line, NAME [ELEMENTS [0|1]]. */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/ctl/errors.h"
#include "client/ctl/human.h"
#include "client/ctl/options.h"
#include "client/ctl/paramsfile.h"
#include "protocol/limits.h"

#define BLANKS " \t\r\n"

/* What reading needs to keep. */
struct reader {
  const fz_ctl *ctl;
  const char *path;
  fz_params *params;
  size_t line;     /* of the file, from 1 */
  size_t *line_of; /* per parameter */
  size_t capacity;
};

static int line_failure(const struct reader *reader, const char *text) {
  return fz_fail(reader->ctl, "usage", "each line is NAME [ELEMENTS [0|1]]", "%s:%zu: %s", reader->path, reader->line,
                 text);
}

static int remember_line(struct reader *reader) {
  const size_t n = fz_params_count(reader->params);
  if (n == reader->capacity) {
    const size_t capacity = reader->capacity ? 2 * reader->capacity : 256;
    size_t *lines = reallocarray(reader->line_of, capacity, sizeof(*lines));
    if (!lines)
      return -ENOMEM;
    reader->line_of = lines;
    reader->capacity = capacity;
  }
  reader->line_of[n] = reader->line;
  return 0;
}

static int add_error(const struct reader *reader, int r, const char *name) {
  char text[256];
  if (r == -ENOMEM)
    return fz_fail_memory(reader->ctl);
  if (r == -E2BIG)
    return line_failure(reader, "more parameters than Freezer takes");
  snprintf(text, sizeof(text), "'%.80s' is no name for a parameter", name);
  return line_failure(reader, text);
}

/* Takes one line, which may be empty. 0 or the exit status. */
static int take_line(struct reader *reader, char *line) {
  char *rest, text[160];
  const char *name = strtok_r(line, BLANKS, &rest);
  const char *elements = name ? strtok_r(NULL, BLANKS, &rest) : NULL;
  const char *flag = elements ? strtok_r(NULL, BLANKS, &rest) : NULL;
  uint64_t count = 1, trains = 1;

  if (!name)
    return 0;
  if (elements && fz_parse_number(elements, FZ_INT_MAX, &count) < 0) {
    snprintf(text, sizeof(text), "'%.80s' is no number of elements", elements);
    return line_failure(reader, text);
  }
  if (flag && fz_parse_number(flag, 1, &trains) < 0) {
    snprintf(text, sizeof(text), "the flag '%.80s' is neither 0 nor 1", flag);
    return line_failure(reader, text);
  }
  if (flag && strtok_r(NULL, BLANKS, &rest))
    return line_failure(reader, "more than three words");
  int r = remember_line(reader);
  if (r == 0)
    r = fz_params_add(reader->params, name, strlen(name), count, trains == 1, NULL, NULL);
  return r < 0 ? add_error(reader, r, name) : 0;
}

static int seal(struct reader *reader) {
  size_t duplicate;
  char text[256];
  const int r = fz_params_seal(reader->params, &duplicate);
  if (r == -EEXIST) {
    reader->line = reader->line_of[duplicate];
    snprintf(text, sizeof(text), "'%.160s' stands there twice", fz_params_get(reader->params, duplicate)->name);
    return line_failure(reader, text);
  }
  return r < 0 ? fz_fail_memory(reader->ctl) : 0;
}

static int read_lines(struct reader *reader, FILE *file) {
  char *line = NULL;
  size_t size = 0;
  ssize_t length;
  int status = 0;

  while (status == 0 && (length = getline(&line, &size, file)) >= 0) {
    reader->line++;
    status = strlen(line) == (size_t)length ? take_line(reader, line) : line_failure(reader, "a NUL byte");
  }
  if (status == 0 && ferror(file))
    status = fz_fail(reader->ctl, "no_file", NULL, "cannot read '%s': %s", reader->path, strerror(errno));
  free(line);
  return status;
}

int fz_params_read(const fz_ctl *ctl, const char *path, fz_params **ret_params) {
  struct reader reader = { .ctl = ctl, .path = path };
  const bool is_stdin = strcmp(path, "-") == 0;
  FILE *file = is_stdin ? stdin : fopen(path, "re");

  if (!file)
    return fz_fail(ctl, "no_file", NULL, "cannot open '%s': %s", path, strerror(errno));
  int status = fz_params_new(&reader.params) < 0 ? fz_fail_memory(ctl) : 0;
  if (status == 0)
    status = read_lines(&reader, file);
  if (status == 0)
    status = seal(&reader);
  if (!is_stdin)
    fclose(file);
  free(reader.line_of);
  if (status)
    fz_params_unref(reader.params);
  else
    *ret_params = reader.params;
  return status;
}
