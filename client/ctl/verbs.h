/* verbs.h - the one table of commands: help, parsing, did-you-mean and the documentation come from it. */
#ifndef FZ_CTL_VERBS_H
#define FZ_CTL_VERBS_H

#include <stddef.h>
#include <stdint.h>

#include "client/ctl/ctl.h"

/** No limit on operands. */
#define FZ_OPERANDS_ANY SIZE_MAX

struct fz_verb {
  const char *name;     /* one word, or two: "rules check" */
  const char *alias;    /* NULL: none */
  const char *operands; /* for the synopsis, "" for none */
  const char *summary;  /* one line */
  size_t min, max;      /* operands */
  uint64_t options;     /* besides the global ones */
  uint64_t required;    /* of those */
  const char *examples[2];
  const char *notes; /* further lines for its help, NULL: none */
  int (*run)(fz_ctl *ctl);
};

extern const struct fz_verb fz_verbs[];
extern const size_t fz_verbs_count;

/**
 * Finds the command that argv[0], with two words argv[0] and argv[1], names.
 * @param[out] ret_words  how many of argv the name took
 * @return NULL if there is none
 */
const struct fz_verb *fz_verb_find(int argc, char *const *argv, int *ret_words);

/** The name of the command that is nearest to what was typed, or NULL. Two-word families count by their first word. */
const char *fz_verb_suggest(const char *word);

/** Whether `word` is the first word of two-word commands. */
int fz_verb_is_family(const char *word);

/* The commands; each returns the exit status. */
int fz_cmd_status(fz_ctl *ctl);
int fz_cmd_runs(fz_ctl *ctl);
int fz_cmd_list(fz_ctl *ctl);
int fz_cmd_explain(fz_ctl *ctl);
int fz_cmd_history(fz_ctl *ctl);
int fz_cmd_revert(fz_ctl *ctl);
int fz_cmd_is_frozen(fz_ctl *ctl);
int fz_cmd_freeze(fz_ctl *ctl);
int fz_cmd_unfreeze(fz_ctl *ctl);
int fz_cmd_auto(fz_ctl *ctl);
int fz_cmd_pin(fz_ctl *ctl);
int fz_cmd_unpin(fz_ctl *ctl);
int fz_cmd_rules_check(fz_ctl *ctl);
int fz_cmd_rules_load(fz_ctl *ctl);
int fz_cmd_rules_show(fz_ctl *ctl);
int fz_cmd_rules_unload(fz_ctl *ctl);
int fz_cmd_simulate(fz_ctl *ctl);
int fz_cmd_watch(fz_ctl *ctl);
int fz_cmd_wait(fz_ctl *ctl);
int fz_cmd_run(fz_ctl *ctl);
int fz_cmd_ping(fz_ctl *ctl);
int fz_cmd_version(fz_ctl *ctl);
int fz_cmd_help(fz_ctl *ctl);
int fz_cmd_completion(fz_ctl *ctl);

#endif
