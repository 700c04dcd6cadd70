/* rulesfile.h - rules files as commands use them: read, checked against parameters, complaints said. */
#ifndef FZ_CTL_RULESFILE_H
#define FZ_CTL_RULESFILE_H

#include "client/ctl/answer.h"
#include "client/ctl/ctl.h"
#include "daemon/rulefile/rulefile.h"

/** Reads a file, right or wrong; what is wrong is in it. 0 or the exit status, with the error said. */
int fz_rules_read(const fz_ctl *ctl, const char *path, fz_rulefile **ret_file);

/** 0, or says all that is wrong with a file and returns the exit status. */
int fz_rules_verdict(const fz_ctl *ctl, const fz_rulefile *file);

/** Adds to a file that is JSON or YAML at all what does not fit these parameters. 0 or the exit status. */
int fz_rules_compare(const fz_ctl *ctl, fz_rulefile *file, fz_params *params, const char *name);

/**
 * Reads a rules file. Its errors are said when it has any, its warnings not yet.
 * @return 0 and a file without errors; else the exit status
 */
int fz_rules_open(const fz_ctl *ctl, const char *path, fz_rulefile **ret_file);

/**
 * Resolves the rules against parameters, whose `name` is for messages; complaints are kept in the file.
 * @return 0 and bound rules, or the exit status
 */
int fz_rules_bind(const fz_ctl *ctl, fz_rulefile *file, fz_params *params, const char *name, fz_rules **ret_rules);

/** Takes the `details` of a rules_invalid answer into the file's messages and says them. @return the exit status */
int fz_rules_fail_answer(const fz_ctl *ctl, fz_rulefile *file, const fz_answer *answer);

/** Says the file's messages, errors and warnings, on stderr. */
void fz_rules_say(const fz_rulefile *file);

static inline void fz_rulefile_freep(fz_rulefile **file) { *file = fz_rulefile_free(*file); }

#endif
