/* cmd_completion.c - completion: what may come next on a command line, and the few lines that tell a shell to ask. */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/ctl/errors.h"
#include "client/ctl/request.h"
#include "client/ctl/verbs.h"

/* Names come from freezerd while somebody holds the tab key down: what takes longer is not worth it. */
#define PATIENCE_MS 150

/*
 * Each shell hands over the words up to the one with the cursor and gets a candidate per line, behind a tab what it means.
 * Names of parameters come from outside, so no shell may evaluate them: bash's `compgen -W` would.
 */
static const struct {
  const char *shell, *script;
} scripts[] = {
  { "bash", "_freezerctl() {\n"
            "  local word\n"
            "  COMPREPLY=()\n"
            "  while IFS=$'\\t' read -r word _; do\n"
            "    COMPREPLY+=(\"$(printf %q \"$word\")\")\n"
            "  done < <(freezerctl completion words -- \"${COMP_WORDS[@]:1:COMP_CWORD}\" 2>/dev/null)\n"
            "}\n"
            "complete -o default -F _freezerctl freezerctl\n" },
  { "zsh", "_freezerctl() {\n"
           "  local -a lines\n"
           "  local tab=$'\\t'\n"
           "  lines=(\"${(@f)$(freezerctl completion words -- \"${(@)words[2,CURRENT]}\" 2>/dev/null)}\")\n"
           "  lines=(\"${(@)lines:#}\")\n"
           "  if (( $#lines )); then compadd -- \"${(@)lines%%${tab}*}\"; else _files; fi\n"
           "}\n"
           "compdef _freezerctl freezerctl\n" },
  { "fish", "complete -c freezerctl -f -a "
            "'(freezerctl completion words -- (commandline -opc)[2..-1] (commandline -ct) 2>/dev/null)'\n"
            "complete -c freezerctl -n '__fish_seen_subcommand_from check load simulate run' -F\n" },
};

/* --- candidates --- */

/* Prints a candidate if it goes on from what was typed. */
static void offer(const char *typed, const char *word, const char *meaning) {
  if (strncmp(word, typed, strlen(typed)) == 0)
    printf("%s%s%s\n", word, meaning ? "\t" : "", meaning ? meaning : "");
}

static void offer_words(const char *typed, const char *const *words) {
  for (; *words; words++)
    offer(typed, *words, NULL);
}

/* First words of commands, or behind the first word of a family its second ones. */
static void offer_verbs(const char *typed, const char *family) {
  const size_t length = family ? strlen(family) : 0;
  char word[32] = "";

  for (size_t i = 0; i < fz_verbs_count; i++) {
    const struct fz_verb *verb = &fz_verbs[i];
    const size_t first = strcspn(verb->name, " ");
    if (family) {
      if (first == length && verb->name[first] && strncmp(verb->name, family, length) == 0)
        offer(typed, verb->name + first + 1, verb->summary);
    } else if (strncmp(word, verb->name, first) != 0 || word[first] != '\0') {
      snprintf(word, sizeof(word), "%.*s", (int)first, verb->name);
      offer(typed, word, verb->name[first] ? "rules files and the run's rules" : verb->summary);
    }
  }
}

static void offer_options(const char *typed, uint64_t options) {
  char word[64];
  for (unsigned id = 0; id < FZ_OPT_N; id++)
    if ((options >> id) & 1) {
      const struct fz_option_info *info = fz_option_info((enum fz_option)id);
      snprintf(word, sizeof(word), "--%s", info->name);
      offer(typed, word, info->help);
    }
}

static void offer_runs(const fz_ctl *ctl, const char *typed) {
  __attribute__((cleanup(fz_conn_freep))) fz_conn *conn = NULL;
  fz_answer answer = FZ_ANSWER_NULL;
  struct fz_answer_cursor cursor = { 0 };
  const fz_json *run;

  if (fz_conn_try(ctl, &conn) != 0)
    return;
  fz_conn_begin_run(conn, FZ_OP_RUNS, NULL);
  if (fz_conn_call(conn, &answer) == 0)
    while ((run = fz_answer_next(&answer, "runs", &cursor)))
      offer(typed, fz_text_of(run, "name") ? fz_text_of(run, "name") : "", NULL);
  fz_answer_deinit(&answer);
}

/* --- names of parameters --- */

/* Prints the names of one level, each once, with modules for what lies below it; returns how many, and the last of them. */
static size_t offer_level(const fz_answer *answer, size_t typed, char *last, size_t size, bool *ret_module) {
  struct fz_answer_cursor cursor = { 0 };
  const fz_json *param;
  size_t n = 0;

  last[0] = '\0';
  while ((param = fz_answer_next(answer, "params", &cursor))) {
    const char *name = fz_text_of(param, "name");
    if (!name || strlen(name) < typed)
      continue;
    const size_t length = typed + strcspn(name + typed, ".");
    /* Neighbours of one module come together. */
    if (length >= size || (strlen(last) == length && strncmp(last, name, length) == 0))
      continue;
    snprintf(last, size, "%.*s", (int)length, name);
    *ret_module = name[length] == '.';
    puts(last);
    n++;
  }
  return n;
}

/* One level at a time: whoever has "model.la" wants to see model.layers, and not each of its hundred thousand parameters. */
static void offer_params(const fz_ctl *ctl, const char *run, const char *typed) {
  __attribute__((cleanup(fz_conn_freep))) fz_conn *conn = NULL;
  fz_answer answer = FZ_ANSWER_NULL;
  char pattern[FZ_PATTERN_MAX + 1], last[FZ_PATTERN_MAX + 1];
  bool module = false;

  if (strlen(typed) + sizeof("prefix:") > sizeof(pattern) || fz_conn_try(ctl, &conn) != 0)
    return;
  snprintf(pattern, sizeof(pattern), "prefix:%s", typed);
  fz_json_writer *request = fz_conn_begin_run(conn, FZ_OP_LIST, run);
  if (*typed) {
    fz_write_begin_array(request, "patterns");
    fz_write_string(request, NULL, pattern);
    fz_write_end_array(request);
  }
  if (fz_conn_call(conn, &answer) == 0 && offer_level(&answer, strlen(typed), last, sizeof(last), &module) == 1 &&
      module)
    (void)offer_level(&answer, strlen(last) + 1, last, sizeof(last), &module);
  fz_answer_deinit(&answer);
}

/* --- the command line --- */

/* What is known of a command line before its last word. */
struct line {
  const struct fz_verb *verb;
  const char *first;        /* the first word of a command that is not complete, or NULL */
  const char *run, *socket; /* of -r and -S */
  int value_of;             /* the option whose argument comes next, or -1 */
};

/* The option that a word is; -1: none, or one with its argument in it. */
static int option_of(const char *word, uint64_t known) {
  for (int id = 0; id < FZ_OPT_N; id++) {
    const struct fz_option_info *info = fz_option_info((enum fz_option)id);
    if (!((known >> id) & 1))
      continue;
    if (strncmp(word, "--", 2) == 0 && strcmp(word + 2, info->name) == 0)
      return id;
    if (info->letter && word[0] == '-' && word[1] == info->letter && word[2] == '\0')
      return id;
  }
  return -1;
}

static void take_word(struct line *line, char *word) {
  const uint64_t known = FZ_OPTS_GLOBAL | (line->verb ? line->verb->options : 0);
  int words;

  if (line->value_of >= 0) {
    if (line->value_of == FZ_OPT_RUN)
      line->run = word;
    if (line->value_of == FZ_OPT_SOCKET)
      line->socket = word;
    line->value_of = -1;
  } else if (*word == '-') {
    const int id = option_of(word, known);
    if (id >= 0 && fz_option_info((enum fz_option)id)->kind != FZ_ARG_NONE)
      line->value_of = id;
  } else if (!line->verb) {
    char *name[2] = { (char *)(uintptr_t)line->first, word };
    line->verb = line->first ? fz_verb_find(2, name, &words) : fz_verb_find(1, name + 1, &words);
    line->first = line->verb ? NULL : word;
  }
}

static void offer_value(const fz_ctl *ctl, enum fz_option option, const char *typed) {
  static const char *const states[] = { "frozen", "training", "partial", "pending", NULL };
  static const char *const layers[] = { "rule", "override", "baseline", "pin", NULL };
  static const char *const colors[] = { "always", "never", "auto", NULL };
  static const char *const conditions[] = { "attached", "applied",  "frozen=", "training=", "step=",
                                            "idle",     "detached", "in-sync", NULL };
  if (option == FZ_OPT_STATE)
    offer_words(typed, states);
  else if (option == FZ_OPT_WHY)
    offer_words(typed, layers);
  else if (option == FZ_OPT_COLOR)
    offer_words(typed, colors);
  else if (option == FZ_OPT_CONDITION)
    offer_words(typed, conditions);
  else if (option == FZ_OPT_RUN || option == FZ_OPT_AGAINST)
    offer_runs(ctl, typed);
}

static void offer_operand(const fz_ctl *ctl, const struct line *line, const char *typed) {
  static const char *const topics[] = { "exit-codes", "environment", "patterns", "output", "options", NULL };
  static const char *const shells[] = { "bash", "zsh", "fish", NULL };

  if (line->verb->run == fz_cmd_help) {
    offer_verbs(typed, NULL);
    offer_words(typed, topics);
  } else if (line->verb->run == fz_cmd_completion) {
    offer_words(typed, shells);
  } else if (strstr(line->verb->operands, "PATTERN") || strcmp(line->verb->operands, "PARAM") == 0) {
    offer_params(ctl, line->run ? line->run : fz_run_wanted(ctl), typed);
  }
}

static void complete(fz_ctl *ctl, char **words, size_t n) {
  struct line line = { .value_of = -1 };
  const char *typed = n > 0 ? words[n - 1] : "";

  for (size_t i = 0; i + 1 < n; i++)
    take_word(&line, words[i]);
  if (line.socket)
    ctl->options.text[FZ_OPT_SOCKET] = line.socket;
  if (line.value_of >= 0)
    offer_value(ctl, (enum fz_option)line.value_of, typed);
  else if (*typed == '-')
    offer_options(typed, FZ_OPTS_GLOBAL | (line.verb ? line.verb->options : 0));
  else if (line.verb)
    offer_operand(ctl, &line, typed);
  else
    offer_verbs(typed, line.first);
}

int fz_cmd_completion(fz_ctl *ctl) {
  const char *what = ctl->operands[0];

  if (strcmp(what, "words") == 0) {
    ctl->options.given |= FZ_OPT_BIT(TIMEOUT);
    ctl->options.number[FZ_OPT_TIMEOUT] = PATIENCE_MS;
    complete(ctl, ctl->operands + 1, ctl->n_operands - 1);
    return FZ_EXIT_DONE;
  }
  for (size_t i = 0; i < sizeof(scripts) / sizeof(scripts[0]); i++)
    if (strcmp(scripts[i].shell, what) == 0) {
      fputs(scripts[i].script, stdout);
      return FZ_EXIT_DONE;
    }
  return fz_fail(ctl, "usage", "bash, zsh or fish", "no completion for '%s'", what);
}
