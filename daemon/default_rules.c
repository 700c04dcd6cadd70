/* default_rules.c - the rules file of --rules: read at the start, and again on SIGHUP. */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/default_rules.h"
#include "daemon/rulefile/rulefile.h"

static int take(fz_core *core, fz_rulefile *file, const char *path) {
  fz_ruleset *ruleset = fz_rulefile_ruleset(file);

  for (size_t i = 0; i < fz_rulefile_n_messages(file); i++)
    fprintf(stderr, "%s\n", fz_rulefile_message(file, i)->text);
  if (!ruleset || fz_rulefile_n_errors(file) > 0)
    return -EINVAL;
  char *source = strdup(path);
  if (!source)
    return -ENOMEM;
  fz_ruleset_unref(core->default_rules);
  core->default_rules = fz_ruleset_ref(ruleset);
  free(core->default_source);
  core->default_source = source;
  return 0;
}

int fz_default_rules_read(fz_core *core, const char *path) {
  fz_rulefile *file = NULL;
  int r = fz_rulefile_read(&file, path);

  if (r == 0) {
    r = take(core, file, path);
    fz_rulefile_free(file);
  }
  if (r < 0 && r != -EINVAL)
    fz_log_write(&core->log, FZ_LOG_ERROR, FZ_LOG_ABOUT(.event = "rules"), "%s: %s", path, strerror(-r));
  return r;
}

void fz_default_rules_reload(fz_core *core) {
  if (!core->default_source) {
    fz_log_write(&core->log, FZ_LOG_NOTICE, FZ_LOG_ABOUT(.event = "rules"), "SIGHUP: there is no --rules file to read");
    return;
  }
  char *path = strdup(core->default_source);
  const int r = path ? fz_default_rules_read(core, path) : -ENOMEM;
  if (r == 0)
    fz_log_write(&core->log, FZ_LOG_NOTICE, FZ_LOG_ABOUT(.event = "rules"),
                 "SIGHUP: read %s again, for runs that begin from now on", path);
  else
    fz_log_write(&core->log, FZ_LOG_ERROR, FZ_LOG_ABOUT(.event = "rules"),
                 "SIGHUP: the default rules stay as they were before, %s cannot be taken", path ? path : "the file");
  free(path);
}
