/* default_rules.h - the rules file of --rules: read at the start, and again on SIGHUP. */
#ifndef FZ_DEFAULT_RULES_H
#define FZ_DEFAULT_RULES_H

#include "daemon/core.h"

/**
 * Reads a rules file into core->default_rules. What is wrong with it goes to stderr as it is: it has several lines, and a
 * caret. Runs take the rules when their first rank of a launch comes; those that train go on with what they have.
 * @return 0; -EINVAL the file has errors, which were said; other negative errno, said in the log: what was read before
 *         stays
 */
int fz_default_rules_read(fz_core *core, const char *path);

/** Reads the file again; without one it only says so. What came of it is in the log. */
void fz_default_rules_reload(fz_core *core);

#endif
