/* help.c - help for commands and topics, from the table of commands. At most 24 lines each, examples first. */
#include "config.h"

#include <stdio.h>
#include <string.h>

#include "client/ctl/errors.h"
#include "client/ctl/help.h"
#include "client/ctl/output.h"
#include "protocol/suggest.h"

struct topic {
  const char *name, *text;
};

static const struct topic topics[] = {
  { "exit-codes", "  0  done; true; nothing to do\n"
                  "  1  failed; or false (is-frozen)\n"
                  "  2  wrong usage, bad pattern\n"
                  "  3  no freezerd is running\n"
                  "  4  no such run, parameter or rule; a pattern matches nothing\n"
                  "  5  no permission\n"
                  "  6  refused by a guard or a pin: the message names the flag that helps, if any\n"
                  "  7  rules are invalid\n"
                  "  8  not confirmed by every rank in time: the change stays pending\n"
                  "124  timed out: wait, or a daemon that does not answer\n"
                  "130  Ctrl-C: a change that was sent may still be pending\n"
                  "run: the command's own status; 128 + N if signal N ended it; 126 if it cannot be\n"
                  "run, 127 if it is not found\n" },
  { "environment", "FREEZER_SOCKET     the daemon's socket, the only one tried (--socket beats it)\n"
                   "FREEZER_RUN        the run (--run beats it)\n"
                   "FREEZER_NO_INPUT   1: never ask, as --no-input\n"
                   "FREEZER_FORCE_TTY  N: format as for a terminal of N columns\n"
                   "NO_COLOR           not empty: no colours\n"
                   "CLICOLOR           0: no colours\n"
                   "CLICOLOR_FORCE     1: colours into files and pipes too\n"
                   "FREEZERD           the freezerd that 'run' starts; else the one beside\n"
                   "                   freezerctl, else the first in PATH\n"
                   "\n"
                   "Without --socket and FREEZER_SOCKET the first of these that answers is taken:\n"
                   "  $XDG_RUNTIME_DIR/freezer/freezerd.sock\n"
                   "  /tmp/freezer-UID/freezerd.sock\n"
                   "  /run/freezer/freezerd.sock\n" },
  { "patterns", "model.layers.3        this parameter, or all parameters of this module\n"
                "model.layers.{0..11}  a range; {a,b} alternatives\n"
                "model.*.weight        * is one name component, ? a character, [a-c] one of these\n"
                "model.**.bias         ** is any number of components; '**' alone is everything\n"
                "name:TEXT             exactly this name\n"
                "prefix:TEXT           names that start with TEXT, wherever that ends\n"
                "re:REGEX              a Perl-compatible regular expression, searched anywhere\n"
                "!PATTERN              leaves these out\n"
                "\n"
                "Several patterns are taken together. Quote those with * ? [ { or !: the shell\n"
                "has its own use for them.\n" },
  { "output", "stdout has the answer, stderr progress, warnings and hints.\n"
              "On a terminal only NAME (in the middle) and WHY are shortened; never with --wide\n"
              "or in a pipe.\n"
              "--plain    tabs between columns, no header, full numbers\n"
              "-o LIST    columns in this order; -o help lists them\n"
              "-q         names only; for is-frozen, ping and wait nothing at all\n"
              "--json     one object, {\"schema\":\"freezer.COMMAND/1\",...}; watch prints one per\n"
              "           line, errors are freezer.error/1. Numbers are raw, times RFC 3339 in\n"
              "           UTC. Fields may be added, never changed.\n"
              "Colours    cyan frozen, yellow pending, red errors; a word always says the same\n" },
};

static const char *const topic_names[] = { "exit-codes", "environment", "patterns", "output", "options" };
#define TOPICS (sizeof(topics) / sizeof(topics[0]))

static const struct topic *topic_find(const char *name) {
  for (size_t i = 0; i < TOPICS; i++)
    if (strcmp(topics[i].name, name) == 0)
      return &topics[i];
  return NULL;
}

/* "  -n, --dry-run", or "      --for N". */
static void option_label(const struct fz_option_info *info, char *label, size_t size) {
  const char letter[5] = { '-', info->letter, ',', ' ', '\0' };
  snprintf(label, size, "  %s--%s%s%s", info->letter ? letter : "    ", info->name, info->argument ? " " : "",
           info->argument ? info->argument : "");
}

static void print_options(uint64_t options) {
  char label[64];
  for (unsigned id = 0; id < FZ_OPT_N; id++)
    if ((options >> id) & 1) {
      const struct fz_option_info *info = fz_option_info((enum fz_option)id);
      option_label(info, label, sizeof(label));
      printf("%-24s  %s\n", label, info->help);
    }
}

/* {"name":"freeze","alias":null,...}: what the documentation and completions are checked against. */
static void write_verb(fz_json_writer *writer, const struct fz_verb *verb) {
  fz_write_begin_object(writer, NULL);
  fz_write_string(writer, "name", verb->name);
  fz_write_string(writer, "alias", verb->alias);
  fz_write_string(writer, "operands", verb->operands);
  fz_write_string(writer, "summary", verb->summary);
  fz_write_begin_array(writer, "options");
  for (unsigned id = 0; id < FZ_OPT_N; id++)
    if ((verb->options >> id) & 1)
      fz_write_string(writer, NULL, fz_option_info((enum fz_option)id)->name);
  fz_write_end_array(writer);
  fz_write_begin_array(writer, "examples");
  for (size_t i = 0; i < 2; i++)
    fz_write_string(writer, NULL, verb->examples[i]);
  fz_write_end_array(writer);
  fz_write_end_object(writer);
}

/* All commands, or only one. */
static int help_json(const fz_ctl *ctl, const struct fz_verb *only) {
  fz_json_writer writer = FZ_JSON_WRITER_NULL;
  fz_output_begin(&writer, "help");
  fz_write_begin_array(&writer, "commands");
  for (size_t i = 0; i < fz_verbs_count; i++)
    if (!only || only == &fz_verbs[i])
      write_verb(&writer, &fz_verbs[i]);
  fz_write_end_array(&writer);
  fz_write_begin_array(&writer, "global_options");
  for (unsigned id = 0; id < FZ_OPT_N; id++)
    if ((FZ_OPTS_GLOBAL >> id) & 1)
      fz_write_string(&writer, NULL, fz_option_info((enum fz_option)id)->name);
  fz_write_end_array(&writer);
  return fz_output_end(&writer) < 0 ? fz_fail_memory(ctl) : FZ_EXIT_DONE;
}

int fz_help_verb(const fz_ctl *ctl, const struct fz_verb *verb) {
  if (fz_wants_json(ctl))
    return help_json(ctl, verb);
  for (size_t i = 0; i < 2; i++)
    printf("  %s\n", verb->examples[i]);
  printf("\nusage: freezerctl %s", verb->name);
  for (unsigned id = 0; id < FZ_OPT_N; id++)
    if ((verb->required >> id) & 1)
      printf(" --%s %s", fz_option_info((enum fz_option)id)->name, fz_option_info((enum fz_option)id)->argument);
  printf(" [OPTION]...%s%s\n", *verb->operands ? " " : "", verb->operands);
  printf("%s", verb->summary);
  if (verb->alias)
    printf("; short: %s", verb->alias);
  printf("\n%s%s", verb->notes ? verb->notes : "", verb->notes ? "\n" : "");
  if (verb->options)
    printf("\n");
  print_options(verb->options);
  puts("\nGlobal options, before or after the command: 'freezerctl help options'");
  return FZ_EXIT_DONE;
}

static int help_overview(const fz_ctl *ctl) {
  if (fz_wants_json(ctl))
    return help_json(ctl, NULL);
  printf("  freezerctl freeze model.layers.4 --reason plateau\n"
         "  freezerctl list --depth 2\n"
         "usage: freezerctl [OPTION]... [COMMAND] [ARGUMENT]...  (see help options)\n");
  for (size_t i = 0; i < fz_verbs_count; i++) {
    const struct fz_verb *verb = &fz_verbs[i];
    const size_t length = strcspn(verb->name, " ");
    if (verb->name[length] == '\0')
      printf("  %-10s %s\n", verb->name, verb->summary);
    else if (i == 0 || strncmp(fz_verbs[i - 1].name, verb->name, length + 1) != 0)
      printf("  %-10.*s check, load, show, unload: rules files and the run's rules\n", (int)length, verb->name);
  }
  return FZ_EXIT_DONE;
}

int fz_help_family_failure(const fz_ctl *ctl, const char *family, const char *word) {
  const size_t length = strlen(family);
  const char *names[8];
  char list[128] = "", hint[160];
  size_t n = 0, at = 0;

  for (size_t i = 0; i < fz_verbs_count && n < 8; i++)
    if (strncmp(fz_verbs[i].name, family, length) == 0 && fz_verbs[i].name[length] == ' ') {
      names[n++] = fz_verbs[i].name + length + 1;
      at += (size_t)snprintf(list + at, sizeof(list) - at, "%s%s", at ? ", " : "", names[n - 1]);
    }
  const char *near = word ? fz_suggest(word, names, n) : NULL;
  if (near)
    snprintf(hint, sizeof(hint), "did you mean '%s %s'?", family, near);
  else
    snprintf(hint, sizeof(hint), "%s takes one of: %s", family, list);
  if (!word || *word == '-')
    return fz_fail(ctl, "usage", hint, "%s needs a command", family);
  return fz_fail(ctl, "usage", hint, "unknown command '%s %s'", family, word);
}

static int unknown_topic(const fz_ctl *ctl, const char *word) {
  char hint[128] = "'freezerctl help' lists the commands";
  const char *near = fz_verb_suggest(word);
  if (!near)
    near = fz_suggest(word, topic_names, sizeof(topic_names) / sizeof(topic_names[0]));
  if (near)
    snprintf(hint, sizeof(hint), "did you mean 'freezerctl help %s'?", near);
  return fz_fail(ctl, "usage", hint, "no help for '%s'", word);
}

int fz_cmd_help(fz_ctl *ctl) {
  int words;
  if (ctl->n_operands == 0)
    return help_overview(ctl);
  const struct fz_verb *verb = fz_verb_find((int)ctl->n_operands, ctl->operands, &words);
  if (verb && (size_t)words == ctl->n_operands)
    return fz_help_verb(ctl, verb);
  if (fz_verb_is_family(ctl->operands[0]))
    return fz_help_family_failure(ctl, ctl->operands[0], ctl->n_operands > 1 ? ctl->operands[1] : NULL);
  if (ctl->n_operands == 1 && strcmp(ctl->operands[0], "options") == 0) {
    puts("These may stand before or after the command:");
    print_options(FZ_OPTS_GLOBAL);
    return FZ_EXIT_DONE;
  }
  const struct topic *topic = topic_find(ctl->operands[0]);
  if (!topic || ctl->n_operands > 1)
    return unknown_topic(ctl, ctl->operands[verb ? 1 : 0]);
  fputs(topic->text, stdout);
  return FZ_EXIT_DONE;
}
