/* help.h - help for commands and topics, from the table of commands. */
#ifndef FZ_CTL_HELP_H
#define FZ_CTL_HELP_H

#include "client/ctl/ctl.h"
#include "client/ctl/verbs.h"

/** Prints the help of one command. @return the exit status */
int fz_help_verb(const fz_ctl *ctl, const struct fz_verb *verb);

/** Fails for a family of commands ("rules") without a valid second word, which may be NULL. @return the exit status */
int fz_help_family_failure(const fz_ctl *ctl, const char *family, const char *word);

#endif
