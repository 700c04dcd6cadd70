/* options.c - every option that some command takes, in one table, and what was given of them. */
#include "config.h"

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/ctl/options.h"
#include "protocol/limits.h"
#include "protocol/suggest.h"

/* What getopt_long() returns for option `id`: above all letters. */
#define FIRST_VALUE 256
#define SECONDS_MAX 1e9

_Static_assert(FZ_OPT_N <= 64, "options are bits of one word");

static const struct fz_option_info table[FZ_OPT_N] = {
#define X(id, name, letter, kind, argument, help) { name, letter, FZ_ARG_##kind, argument, help },
  FZ_OPTIONS(X)
#undef X
};

const struct fz_option_info *fz_option_info(enum fz_option id) { return &table[id]; }

int fz_parse_number(const char *text, uint64_t max, uint64_t *ret_number) {
  uint64_t number = 0;
  bool digit = false;
  for (; *text; text++) {
    if (digit && (*text == ',' || *text == '_') && isdigit((unsigned char)text[1]))
      continue;
    if (!isdigit((unsigned char)*text))
      return -EINVAL;
    digit = true;
    const uint64_t value = (uint64_t)(*text - '0');
    if (value > max || number > (max - value) / 10)
      return -EINVAL;
    number = number * 10 + value;
  }
  if (!digit)
    return -EINVAL;
  *ret_number = number;
  return 0;
}

static int parse_seconds(const char *text, uint64_t *ret_ms) {
  char *end;
  if (!isdigit((unsigned char)*text) && *text != '.')
    return -EINVAL;
  const double seconds = strtod(text, &end);
  if (end == text || *end || !isfinite(seconds) || seconds > SECONDS_MAX)
    return -EINVAL;
  *ret_ms = (uint64_t)(seconds * 1e3 + 0.5);
  return 0;
}

/* Reads the argument of option `id`. 0 or -EINVAL with `error` filled. */
static int take(fz_options *options, enum fz_option id, const char *text, struct fz_usage_error *error) {
  const struct fz_option_info *info = &table[id];
  uint64_t max = 0;
  int r = 0;

  switch (info->kind) {
  case FZ_ARG_NONE:
  case FZ_ARG_TEXT:
    break;
  case FZ_ARG_COUNT:
    max = FZ_INT_MAX;
    break;
  case FZ_ARG_STEP:
    max = FZ_STEP_MAX;
    break;
  case FZ_ARG_EPOCH:
    max = FZ_EPOCH_MAX;
    break;
  case FZ_ARG_SECONDS:
    r = parse_seconds(text, &options->number[id]);
    break;
  }
  if (max > 0)
    r = fz_parse_number(text, max, &options->number[id]);
  if (r == 0 && info->kind == FZ_ARG_COUNT && options->number[id] == 0)
    r = -EINVAL;
  if (r < 0) {
    snprintf(error->message, sizeof(error->message), "--%s: '%.80s' is not a %s", info->name, text,
             info->kind == FZ_ARG_SECONDS ? "number of seconds" : "whole number in range");
    return r;
  }
  options->given |= UINT64_C(1) << id;
  options->text[id] = text;
  return 0;
}

/* The known options in the form that getopt_long() wants; `letters` starts with what the caller put there. */
static void getopt_tables(uint64_t known, struct option *longs, char *letters) {
  size_t n = 0, at = strlen(letters);
  for (unsigned id = 0; id < FZ_OPT_N; id++) {
    if (!((known >> id) & 1))
      continue;
    const int has_arg = table[id].kind == FZ_ARG_NONE ? no_argument : required_argument;
    longs[n++] = (struct option){ table[id].name, has_arg, NULL, FIRST_VALUE + (int)id };
    if (table[id].letter) {
      letters[at++] = table[id].letter;
      if (has_arg == required_argument)
        letters[at++] = ':';
    }
  }
  longs[n] = (struct option){ NULL, 0, NULL, 0 };
  letters[at] = '\0';
}

static int option_of(uint64_t known, int value) {
  if (value >= FIRST_VALUE)
    return value - FIRST_VALUE;
  for (int id = 0; id < FZ_OPT_N; id++)
    if (((known >> id) & 1) && table[id].letter == value)
      return id;
  return -1;
}

/* An unknown or ambiguous long option as it was typed: "--name" or "--name=value". */
static void long_error(uint64_t known, const char *typed, struct fz_usage_error *error) {
  const char *names[FZ_OPT_N];
  char word[64];
  size_t n = 0, starts = 0;
  const size_t length = strcspn(typed + 2, "=");

  snprintf(word, sizeof(word), "%.*s", (int)(length < 60 ? length : 60), typed + 2);
  for (unsigned id = 0; id < FZ_OPT_N; id++)
    if ((known >> id) & 1) {
      names[n++] = table[id].name;
      if (strncmp(table[id].name, word, strlen(word)) == 0)
        starts++;
    }
  snprintf(error->message, sizeof(error->message), "%s option '--%s'", starts > 1 ? "ambiguous" : "unknown", word);
  const char *near = fz_suggest(word, names, n);
  if (near)
    snprintf(error->hint, sizeof(error->hint), "did you mean '--%s'?", near);
}

static void option_error(uint64_t known, int result, char **argv, struct fz_usage_error *error) {
  const int id = optopt ? option_of(known, optopt) : -1;
  if (result == ':' && id >= 0)
    snprintf(error->message, sizeof(error->message), "--%s needs an argument, %s", table[id].name, table[id].argument);
  else if (id >= 0)
    snprintf(error->message, sizeof(error->message), "--%s takes no argument", table[id].name);
  else if (optopt)
    snprintf(error->message, sizeof(error->message), "unknown option '-%c'", optopt);
  else
    long_error(known, argv[optind - 1], error);
}

int fz_options_parse(fz_options *options, int argc, char **argv, uint64_t known, bool first_only, int *ret_at,
                     struct fz_usage_error *error) {
  struct option longs[FZ_OPT_N + 1];
  char letters[2 * FZ_OPT_N + 3];
  int value;

  strcpy(letters, first_only ? "+:" : ":");
  getopt_tables(known, longs, letters);
  error->message[0] = error->hint[0] = '\0';
  opterr = 0;
  optind = 0; /* glibc: start afresh */
  while ((value = getopt_long(argc, argv, letters, longs, NULL)) != -1) {
    if (value == '?' || value == ':') {
      option_error(known, value, argv, error);
      return -EINVAL;
    }
    const int r = take(options, (enum fz_option)option_of(known, value), optarg, error);
    if (r < 0)
      return r;
  }
  *ret_at = optind;
  return 0;
}
