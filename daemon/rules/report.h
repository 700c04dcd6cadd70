/* report.h - what can be said of loaded rules: where each stands, which never have or never will have any effect. */
#ifndef FZ_REPORT_H
#define FZ_REPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/rules/layers.h"

struct fz_rule_report {
  size_t matches;      /* parameters it selects, exceptions taken away */
  size_t deciding;     /* of those, how many it decides at (step, epoch) */
  enum fz_phase phase; /* at (step, epoch) */
  bool dead;           /* it can have no effect from (step, epoch) on: over, or nothing selected */
  char *shadowed;      /* "by rule late", "by pins", "by an override of ana": all that it selects is decided above it
                          whenever it is active from now on; NULL: not so */
};

/** One per rule of the layers' ruleset. Free with fz_rule_reports_free(). 0 or -ENOMEM. */
int fz_rules_report(const fz_layers *layers, uint64_t step, uint64_t epoch, struct fz_rule_report **ret_reports,
                    size_t *ret_n);
void fz_rule_reports_free(struct fz_rule_report *reports, size_t n);

/** "[0, 9,000)", "[1,200, -)", "[epoch 2, step 5,000)", "always"; allocated, NULL when out of memory. */
char *fz_window_text(const struct fz_window *window);

#endif
