/* options.h - every option that some command takes, in one table, and what was given of them. */
#ifndef FZ_CTL_OPTIONS_H
#define FZ_CTL_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

/* What an option's argument is. */
enum fz_argument {
  FZ_ARG_NONE,
  FZ_ARG_TEXT,
  FZ_ARG_COUNT,   /* 1 to 2^53 */
  FZ_ARG_STEP,    /* 0 to FZ_STEP_MAX; "9,000" and "9_000" are read too */
  FZ_ARG_EPOCH,   /* 0 to FZ_EPOCH_MAX */
  FZ_ARG_SECONDS, /* 0 to 10^9, with decimals; kept as milliseconds */
};

/* X(id, long name, short name or 0, kind of argument, name of the argument, help) */
#define FZ_OPTIONS(X) \
  X(SOCKET, "socket", 'S', TEXT, "PATH", "the daemon's socket, the only one tried") \
  X(RUN, "run", 'r', TEXT, "NAME", "the run: name, job id or a unique start of either") \
  X(JSON, "json", 0, NONE, NULL, "one JSON object, raw numbers") \
  X(PLAIN, "plain", 0, NONE, NULL, "tab-separated, no header, raw numbers") \
  X(COLUMNS, "columns", 'o', TEXT, "LIST", "columns, separated by commas; 'help' lists them") \
  X(QUIET, "quiet", 'q', NONE, NULL, "names only, or nothing but the exit status") \
  X(VERBOSE, "verbose", 'v', NONE, NULL, "say more") \
  X(WIDE, "wide", 0, NONE, NULL, "never shorten a column") \
  X(COLOR, "color", 0, TEXT, "WHEN", "always, never or auto") \
  X(NO_INPUT, "no-input", 0, NONE, NULL, "never ask") \
  X(TIMEOUT, "timeout", 0, SECONDS, "S", "how long to wait") \
  X(HELP, "help", 'h', NONE, NULL, "help for the command") \
  X(VERSION, "version", 'V', NONE, NULL, "versions of the programs") \
  X(FOR, "for", 0, COUNT, "N", "end it after N steps") \
  X(UNTIL_STEP, "until-step", 0, STEP, "N", "end it when step N begins") \
  X(UNTIL_EPOCH, "until-epoch", 0, EPOCH, "N", "end it when epoch N begins") \
  X(AT_STEP, "at-step", 0, STEP, "N", "let it begin with step N") \
  X(REASON, "reason", 0, TEXT, "TEXT", "why, for explain and the log") \
  X(DRY_RUN, "dry-run", 'n', NONE, NULL, "say what would change, change nothing") \
  X(YES, "yes", 'y', NONE, NULL, "do not ask before a large change") \
  X(NO_WAIT, "no-wait", 0, NONE, NULL, "do not wait for the ranks to apply it") \
  X(FORCE, "force", 0, NONE, NULL, "override the guard that refused") \
  X(INCLUDE_BASELINE, "include-baseline", 0, NONE, NULL, "with --force: thaw what the script froze itself") \
  X(FROZEN, "frozen", 0, NONE, NULL, "pin them frozen") \
  X(TRAINING, "training", 0, NONE, NULL, "pin them training") \
  X(DEPTH, "depth", 0, COUNT, "N", "a tree of modules, N levels deep") \
  X(STATE, "state", 0, TEXT, "STATE", "only those: frozen, training, partial, pending") \
  X(WHY, "why", 0, TEXT, "LAYER", "only those decided by: rule, override, baseline, pin") \
  X(AGAINST, "against", 0, TEXT, "RUN", "check that each pattern matches something in RUN") \
  X(PARAMS, "params", 0, TEXT, "FILE", "parameters, one a line: NAME [ELEMENTS [0|1]]") \
  X(ALLOW_MISSING, "allow-missing", 0, NONE, NULL, "a pattern that matches nothing is only a warning") \
  X(STEPS, "steps", 0, TEXT, "A:B", "from step A to before step B") \
  X(EPOCH_EVERY, "epoch-every", 0, COUNT, "N", "an epoch ends every N steps") \
  X(EVERY_STEP, "every-step", 0, NONE, NULL, "one entry per step, not per change") \
  X(CONDITION, "for", 0, TEXT, "CONDITION", "what to wait for") \
  X(LIMIT, "limit", 0, COUNT, "N", "the newest N only") \
  X(RULES, "rules", 0, TEXT, "FILE", "rules for every run that brings none")

enum fz_option {
#define X(id, name, letter, kind, argument, help) FZ_OPT_##id,
  FZ_OPTIONS(X)
#undef X
    FZ_OPT_N
};

/** A set of options. */
#define FZ_OPT_BIT(id) (UINT64_C(1) << FZ_OPT_##id)

/** Those that every command takes, before its name too. */
#define FZ_OPTS_GLOBAL \
  (FZ_OPT_BIT(SOCKET) | FZ_OPT_BIT(RUN) | FZ_OPT_BIT(JSON) | FZ_OPT_BIT(PLAIN) | FZ_OPT_BIT(COLUMNS) | \
   FZ_OPT_BIT(QUIET) | FZ_OPT_BIT(VERBOSE) | FZ_OPT_BIT(WIDE) | FZ_OPT_BIT(COLOR) | FZ_OPT_BIT(NO_INPUT) | \
   FZ_OPT_BIT(TIMEOUT) | FZ_OPT_BIT(HELP) | FZ_OPT_BIT(VERSION))

/** A row of the table. */
struct fz_option_info {
  const char *name;
  char letter; /* 0: none */
  enum fz_argument kind;
  const char *argument; /* its name in help, NULL without one */
  const char *help;
};
const struct fz_option_info *fz_option_info(enum fz_option id);

/** What was given. Texts are borrowed from argv. */
typedef struct fz_options {
  uint64_t given;
  const char *text[FZ_OPT_N];
  uint64_t number[FZ_OPT_N]; /* of counts, steps and epochs; milliseconds of times */
} fz_options;

static inline bool fz_given(const fz_options *options, enum fz_option id) { return (options->given >> id) & 1; }

/** A mistake on the command line, as a sentence and a hint. */
struct fz_usage_error {
  char message[512];
  char hint[512]; /* "": none */
};

/**
 * Parses options from argv[1] on (argv[0] is skipped) and adds them to `options`; options and operands may be mixed.
 * @param known        which options to take
 * @param first_only   stop at the first operand: what follows belongs to a command
 * @param[out] ret_at  index of the first operand; with mixed order argv is permuted so that operands come last
 * @return 0, or -EINVAL with `error` filled
 */
int fz_options_parse(fz_options *options, int argc, char **argv, uint64_t known, bool first_only, int *ret_at,
                     struct fz_usage_error *error);

/** A whole number up to `max` from text; "9,000" and "9_000" are read too. 0 or -EINVAL. */
int fz_parse_number(const char *text, uint64_t max, uint64_t *ret_number);

#endif
