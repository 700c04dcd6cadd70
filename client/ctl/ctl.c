/* ctl.c - the dispatcher: finds the command, parses its options, calls it. */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/ctl/ctl.h"
#include "client/ctl/errors.h"
#include "client/ctl/help.h"
#include "client/ctl/verbs.h"

/* In a command line that cannot be parsed, what was parsed may have ended before --json. */
static void look_for_json(fz_ctl *ctl, int argc, char *const *argv) {
  for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
    if (strcmp(argv[i], "--json") == 0)
      ctl->options.given |= FZ_OPT_BIT(JSON);
}

static int usage_failure(fz_ctl *ctl, int argc, char *const *argv, const struct fz_usage_error *error) {
  char hint[sizeof(error->hint)];
  look_for_json(ctl, argc, argv);
  snprintf(hint, sizeof(hint), "%s", error->hint);
  if (hint[0] == '\0')
    snprintf(hint, sizeof(hint), "'freezerctl help%s%s' lists the options", ctl->verb ? " " : "",
             ctl->verb ? ctl->verb->name : "");
  return fz_fail(ctl, "usage", hint, "%s", error->message);
}

static int unknown_command(fz_ctl *ctl, int argc, char **argv) {
  char hint[128] = "'freezerctl help' lists the commands";
  look_for_json(ctl, argc, argv);
  if (fz_verb_is_family(argv[0]))
    return fz_help_family_failure(ctl, argv[0], argc > 1 ? argv[1] : NULL);
  const char *near = fz_verb_suggest(argv[0]);
  if (near)
    snprintf(hint, sizeof(hint), "did you mean '%s'?", near);
  return fz_fail(ctl, "usage", hint, "unknown command '%s'", argv[0]);
}

/* An option of a command that stands before its name is a frequent slip and deserves a hint of its own. */
static void hint_at_order(struct fz_usage_error *error) {
  char name[64];
  if (sscanf(error->message, "unknown option '--%60[^']", name) != 1)
    return;
  for (unsigned id = 0; id < FZ_OPT_N; id++)
    if (strcmp(fz_option_info((enum fz_option)id)->name, name) == 0)
      snprintf(error->hint, sizeof(error->hint), "options of a command come after its name");
}

/* Checks that make no difference between commands. 0 or the exit status. */
static int check_common(const fz_ctl *ctl) {
  const struct fz_verb *verb = ctl->verb;
  const char *when = ctl->options.text[FZ_OPT_COLOR];

  if (when && strcmp(when, "always") != 0 && strcmp(when, "never") != 0 && strcmp(when, "auto") != 0)
    return fz_fail(ctl, "usage", "always, never or auto", "--color: unknown value '%s'", when);
  if (fz_wants_json(ctl) && fz_given(&ctl->options, FZ_OPT_PLAIN))
    return fz_fail(ctl, "usage", NULL, "--json and --plain exclude each other");
  for (unsigned id = 0; id < FZ_OPT_N; id++)
    if (((verb->required >> id) & 1) && !fz_given(&ctl->options, (enum fz_option)id)) {
      const struct fz_option_info *info = fz_option_info((enum fz_option)id);
      return fz_fail(ctl, "usage", verb->examples[0], "%s needs --%s %s", verb->name, info->name, info->argument);
    }
  if (ctl->n_operands < verb->min)
    return fz_fail(ctl, "usage", verb->examples[0], "%s needs %s", verb->name, verb->operands);
  if (ctl->n_operands > verb->max)
    return fz_fail(ctl, "usage", verb->examples[0], "%s takes no '%s'", verb->name, ctl->operands[verb->max]);
  return 0;
}

/* Parses what follows the command's name in argv (argv[0] is the last word of it) and runs it. */
static int run_verb(fz_ctl *ctl, int argc, char **argv) {
  struct fz_usage_error error;
  int at;

  /* `run` hands everything from its first operand on to the command. */
  const bool first_only = ctl->verb->run == fz_cmd_run;
  if (fz_options_parse(&ctl->options, argc, argv, FZ_OPTS_GLOBAL | ctl->verb->options, first_only, &at, &error) < 0)
    return usage_failure(ctl, argc, argv, &error);
  ctl->operands = argv + at;
  ctl->n_operands = (size_t)(argc - at);
  fz_style_init(&ctl->style, ctl->options.text[FZ_OPT_COLOR], fz_given(&ctl->options, FZ_OPT_NO_INPUT));
  if (fz_given(&ctl->options, FZ_OPT_HELP))
    return fz_help_verb(ctl, ctl->verb);
  if (fz_given(&ctl->options, FZ_OPT_VERSION))
    return fz_cmd_version(ctl);
  const int status = check_common(ctl);
  return status ? status : ctl->verb->run(ctl);
}

int fz_ctl_main(int argc, char **argv) {
  static char status_name[] = "status", version_name[] = "version", help_name[] = "help";
  fz_ctl ctl = { .verb = NULL };
  struct fz_usage_error error;
  char *implied[2] = { status_name, NULL };
  int at, words, status;

  if (fz_options_parse(&ctl.options, argc, argv, FZ_OPTS_GLOBAL, true, &at, &error) < 0) {
    hint_at_order(&error);
    return usage_failure(&ctl, argc, argv, &error);
  }
  argc -= at;
  argv += at;
  if (argc == 0) {
    if (fz_given(&ctl.options, FZ_OPT_HELP))
      implied[0] = help_name;
    else if (fz_given(&ctl.options, FZ_OPT_VERSION))
      implied[0] = version_name;
    argv = implied;
    argc = 1;
    ctl.options.given &= ~(FZ_OPT_BIT(HELP) | FZ_OPT_BIT(VERSION));
  }
  ctl.verb = fz_verb_find(argc, argv, &words);
  if (!ctl.verb)
    return unknown_command(&ctl, argc, argv);
  status = run_verb(&ctl, argc - words + 1, argv + words - 1);
  if (fflush(stdout) != 0 || ferror(stdout)) {
    if (errno != EPIPE)
      fz_warn("cannot write to standard output: %s", strerror(errno));
    return status ? status : FZ_EXIT_FAILED;
  }
  return status;
}
