/* ctl.h - what every command of freezerctl gets, and the dispatcher. */
#ifndef FZ_CTL_CTL_H
#define FZ_CTL_CTL_H

#include <stdbool.h>
#include <stddef.h>

#include "client/ctl/options.h"
#include "client/ctl/style.h"

struct fz_verb;

/** One call of freezerctl: what was asked for, and how to show it. Lives as long as main(). */
typedef struct fz_ctl {
  const struct fz_verb *verb; /* NULL until it is known */
  fz_options options;
  fz_style style;
  char **operands; /* borrowed from argv */
  size_t n_operands;
} fz_ctl;

/** Whether stdout gets JSON. */
static inline bool fz_wants_json(const fz_ctl *ctl) { return fz_given(&ctl->options, FZ_OPT_JSON); }

/** Runs the command in argv. @return the exit status */
int fz_ctl_main(int argc, char **argv);

#endif
