/* output.c - the JSON objects that freezerctl prints: a schema first, raw numbers, one line each. */
#include "config.h"

#include <stdint.h>
#include <stdio.h>

#include "client/ctl/output.h"
#include "client/ctl/verbs.h"

void fz_output_begin(fz_json_writer *writer, const char *name) {
  char schema[64];
  snprintf(schema, sizeof(schema), "freezer.%s/1", name);
  for (char *c = schema; *c; c++)
    if (*c == ' ')
      *c = '-';
  writer->max = SIZE_MAX / 4;
  fz_write_begin_object(writer, NULL);
  fz_write_string(writer, "schema", schema);
}

void fz_output_begin_command(fz_json_writer *writer, const fz_ctl *ctl) { fz_output_begin(writer, ctl->verb->name); }

int fz_output_end(fz_json_writer *writer) {
  const char *line;
  size_t length;

  fz_write_end_object(writer);
  const int r = fz_writer_line(writer, &line, &length);
  if (r == 0)
    fwrite(line, 1, length, stdout);
  fz_writer_deinit(writer);
  return r;
}
