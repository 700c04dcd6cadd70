/* output.h - the JSON objects that freezerctl prints: a schema first, raw numbers, one line each. */
#ifndef FZ_CTL_OUTPUT_H
#define FZ_CTL_OUTPUT_H

#include "client/ctl/ctl.h"
#include "protocol/writer.h"

/**
 * Begins {"schema":"freezer.NAME/1" in an empty writer and leaves the object open. Blanks in a name, as in
 * "rules check", become hyphens. Lifts the writer's limit: what is printed may be longer than a line of the wire.
 */
void fz_output_begin(fz_json_writer *writer, const char *name);

/** The same for the command that runs. */
void fz_output_begin_command(fz_json_writer *writer, const fz_ctl *ctl);

/** Ends the object, prints it to stdout, frees the writer. @return 0 or -ENOMEM */
int fz_output_end(fz_json_writer *writer);

#endif
