/* verbs.c - the one table of commands: help, parsing, did-you-mean and the documentation come from it. */
#include "config.h"

#include <stdio.h>
#include <string.h>

#include "client/ctl/verbs.h"
#include "protocol/suggest.h"

#define B(id) FZ_OPT_BIT(id)
#define CHANGES (B(REASON) | B(DRY_RUN) | B(YES) | B(NO_WAIT) | B(FORCE))
#define WINDOW (B(FOR) | B(UNTIL_STEP) | B(UNTIL_EPOCH) | B(AT_STEP))

const struct fz_verb fz_verbs[] = {
  { "status",
    NULL,
    "",
    "one screen per run; the default",
    0,
    0,
    0,
    0,
    { "freezerctl", "freezerctl status -r gpt2 --json" },
    NULL,
    fz_cmd_status },
  { "runs",
    "ps",
    "",
    "the runs, one line each",
    0,
    0,
    0,
    0,
    { "freezerctl runs", "freezerctl runs -o run,step,trainable" },
    NULL,
    fz_cmd_runs },
  { "list",
    "ls",
    "[PATTERN]...",
    "parameters: frozen or training, since when, why",
    0,
    FZ_OPERANDS_ANY,
    B(DEPTH) | B(STATE) | B(WHY),
    0,
    { "freezerctl list --depth 2", "freezerctl list --state frozen -q model.layers" },
    "STATE partial is a module of which only a part is frozen; it implies a tree.\n"
    "LAYER baseline is what only the script has decided, frozen or training.",
    fz_cmd_list },
  { "explain",
    NULL,
    "PARAM",
    "every layer that had a say, and what comes next",
    1,
    1,
    0,
    0,
    { "freezerctl explain model.layers.3.mlp.c_fc.weight", "freezerctl explain lm_head.weight --json" },
    NULL,
    fz_cmd_explain },
  { "is-frozen",
    NULL,
    "PATTERN...",
    "0 if all that match are frozen on every rank, else 1",
    1,
    FZ_OPERANDS_ANY,
    0,
    0,
    { "freezerctl is-frozen -q model.layers.0 && echo frozen", "freezerctl is-frozen 'model.layers.{0..3}'" },
    NULL,
    fz_cmd_is_frozen },
  { "history",
    NULL,
    "",
    "what happened to the run, newest first",
    0,
    0,
    B(LIMIT),
    0,
    { "freezerctl history", "freezerctl history --limit 20 --json" },
    "CHANGE counts parameters; a gen is one of the run's incarnation, see freezer(7).",
    fz_cmd_history },
  { "freeze",
    NULL,
    "PATTERN...",
    "freeze parameters while the run goes on",
    1,
    FZ_OPERANDS_ANY,
    CHANGES | WINDOW,
    0,
    { "freezerctl freeze model.layers.4 --reason plateau",
      "freezerctl freeze 'model.layers.{0..3}' --until-step 9000" },
    NULL,
    fz_cmd_freeze },
  { "unfreeze",
    "thaw",
    "PATTERN...",
    "let parameters train",
    1,
    FZ_OPERANDS_ANY,
    CHANGES | WINDOW | B(INCLUDE_BASELINE),
    0,
    { "freezerctl unfreeze model.layers.4", "freezerctl unfreeze model.layers.2 --for 500" },
    NULL,
    fz_cmd_unfreeze },
  { "auto",
    NULL,
    "PATTERN...",
    "drop live changes: rules and script decide again",
    1,
    FZ_OPERANDS_ANY,
    CHANGES | B(INCLUDE_BASELINE),
    0,
    { "freezerctl auto model.layers.4", "freezerctl auto '**'" },
    NULL,
    fz_cmd_auto },
  { "pin",
    NULL,
    "PATTERN...",
    "let nothing change parameters",
    1,
    FZ_OPERANDS_ANY,
    CHANGES | B(FROZEN) | B(TRAINING) | B(INCLUDE_BASELINE),
    0,
    { "freezerctl pin lm_head", "freezerctl pin model.layers.11 --training" },
    "Without --frozen or --training each is pinned as it is now.",
    fz_cmd_pin },
  { "unpin",
    NULL,
    "PATTERN...",
    "take pins back",
    1,
    FZ_OPERANDS_ANY,
    CHANGES | B(INCLUDE_BASELINE),
    0,
    { "freezerctl unpin lm_head", "freezerctl unpin '**' -n" },
    NULL,
    fz_cmd_unpin },
  { "revert",
    NULL,
    "[GEN]",
    "back to the rules, overrides and pins of a gen",
    0,
    1,
    CHANGES | B(INCLUDE_BASELINE),
    0,
    { "freezerctl revert", "freezerctl revert 3 -n" },
    "Without GEN back to before the last change.",
    fz_cmd_revert },
  { "rules check",
    NULL,
    "FILE...",
    "check rules files, offline or against a run",
    1,
    FZ_OPERANDS_ANY,
    B(AGAINST) | B(PARAMS) | B(ALLOW_MISSING),
    0,
    { "freezerctl rules check rules.yaml", "freezerctl rules check rules.yaml --against gpt2" },
    NULL,
    fz_cmd_rules_check },
  { "rules load",
    NULL,
    "FILE",
    "give the run these rules",
    1,
    1,
    CHANGES | B(INCLUDE_BASELINE) | B(ALLOW_MISSING),
    0,
    { "freezerctl rules load rules.yaml", "freezerctl rules load -n rules.yaml" },
    NULL,
    fz_cmd_rules_load },
  { "rules show",
    NULL,
    "",
    "the run's rules and where each stands",
    0,
    0,
    0,
    0,
    { "freezerctl rules show", "freezerctl rules show --json" },
    NULL,
    fz_cmd_rules_show },
  { "rules unload",
    NULL,
    "",
    "take the run's rules away",
    0,
    0,
    CHANGES | B(INCLUDE_BASELINE),
    0,
    { "freezerctl rules unload", "freezerctl rules unload -n" },
    NULL,
    fz_cmd_rules_unload },
  { "simulate",
    NULL,
    "RULES",
    "what rules would do, without a daemon",
    1,
    1,
    B(PARAMS) | B(STEPS) | B(EPOCH_EVERY) | B(EVERY_STEP) | B(ALLOW_MISSING),
    B(PARAMS) | B(STEPS),
    { "freezerctl simulate rules.yaml --params names.txt --steps 0:12000",
      "freezerctl simulate rules.yaml --params names.txt --steps 0:900 --json" },
    "The run begins (or resumes) at step A; the epoch of a step is step / N, and 0\n"
    "without --epoch-every.",
    fz_cmd_simulate },
  { "watch",
    NULL,
    "",
    "events as they happen, until Ctrl-C",
    0,
    0,
    0,
    0,
    { "freezerctl watch", "freezerctl watch --json | jq .event" },
    NULL,
    fz_cmd_watch },
  { "wait",
    NULL,
    "",
    "wait until a condition holds",
    0,
    0,
    B(CONDITION),
    B(CONDITION),
    { "freezerctl wait --for attached --timeout 60", "freezerctl wait -r gpt2 --for step=5000" },
    "CONDITION is attached, applied[=GEN], frozen=PATTERN, training=PATTERN, step=N,\n"
    "idle, detached or in-sync. Without --timeout there is no limit; when it runs out\n"
    "the exit status is 124.",
    fz_cmd_wait },
  { "run",
    NULL,
    "[--] CMD [ARG]...",
    "run a command with a freezerd of its own",
    1,
    FZ_OPERANDS_ANY,
    B(RULES),
    0,
    { "freezerctl run -- python train.py", "freezerctl run --rules rules.yaml -- ./train --steps 9000" },
    "The exit status is the command's; 128 + N if signal N ended it.",
    fz_cmd_run },
  { "ping",
    NULL,
    "",
    "does the daemon answer?",
    0,
    0,
    0,
    0,
    { "freezerctl ping", "freezerctl ping -q && echo up" },
    NULL,
    fz_cmd_ping },
  { "version",
    NULL,
    "",
    "versions of freezerctl, library and daemon",
    0,
    0,
    0,
    0,
    { "freezerctl version", "freezerctl version --json" },
    NULL,
    fz_cmd_version },
  { "completion",
    NULL,
    "bash|zsh|fish",
    "lines that teach a shell to complete freezerctl",
    1,
    FZ_OPERANDS_ANY,
    0,
    0,
    { "freezerctl completion bash >>~/.bashrc", "freezerctl completion fish | source" },
    NULL,
    fz_cmd_completion },
  { "help",
    NULL,
    "[COMMAND|TOPIC]",
    "topics: exit-codes environment patterns output options",
    0,
    2,
    0,
    0,
    { "freezerctl help freeze", "freezerctl help patterns" },
    NULL,
    fz_cmd_help },
};

const size_t fz_verbs_count = sizeof(fz_verbs) / sizeof(fz_verbs[0]);

/* How many words of argv a name is, 0 if it is another command. */
static int words_matched(const char *name, int argc, char *const *argv) {
  const char *space = strchr(name, ' ');
  if (!space)
    return strcmp(name, argv[0]) == 0 ? 1 : 0;
  const size_t first = (size_t)(space - name);
  if (argc < 2 || strlen(argv[0]) != first || strncmp(name, argv[0], first) != 0 || strcmp(space + 1, argv[1]) != 0)
    return 0;
  return 2;
}

const struct fz_verb *fz_verb_find(int argc, char *const *argv, int *ret_words) {
  for (size_t i = 0; argc > 0 && i < fz_verbs_count; i++) {
    int words = words_matched(fz_verbs[i].name, argc, argv);
    if (words == 0 && fz_verbs[i].alias)
      words = words_matched(fz_verbs[i].alias, argc, argv);
    if (words > 0) {
      *ret_words = words;
      return &fz_verbs[i];
    }
  }
  return NULL;
}

/* Somebody who types the beginning of a name means that name, however near another one is. */
static const char *suggest_beginning(const char *word) {
  const char *found = NULL;
  for (size_t i = 0; strlen(word) >= 2 && i < fz_verbs_count; i++)
    if (strncmp(fz_verbs[i].name, word, strlen(word)) == 0) {
      if (found)
        return NULL;
      found = fz_verbs[i].name;
    }
  return found;
}

const char *fz_verb_suggest(const char *word) {
  struct fz_suggestion suggestion = FZ_SUGGESTION(word, strlen(word));
  static char family[16];
  const char *beginning = suggest_beginning(word);

  if (beginning)
    return beginning;
  for (size_t i = 0; i < fz_verbs_count; i++) {
    const char *name = fz_verbs[i].name;
    fz_suggestion_offer(&suggestion, name, strcspn(name, " "), false);
    if (fz_verbs[i].alias)
      fz_suggestion_offer(&suggestion, fz_verbs[i].alias, strlen(fz_verbs[i].alias), false);
  }
  if (!suggestion.best)
    return NULL;
  snprintf(family, sizeof(family), "%.*s", (int)suggestion.best_length, suggestion.best);
  return family;
}

int fz_verb_is_family(const char *word) {
  const size_t length = strlen(word);
  for (size_t i = 0; i < fz_verbs_count; i++)
    if (strncmp(fz_verbs[i].name, word, length) == 0 && fz_verbs[i].name[length] == ' ')
      return 1;
  return 0;
}
