/* options.c - charlm's command line: one table that is parsed by and that the help is made of. */
#include "config.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/examples/options.h"
#include "client/examples/training.h"

enum kind { FLAG, TEXT, COUNT, RATE };

struct row {
  const char *name;
  const char *argument; /* NULL: none */
  const char *help;
  enum kind kind;
  size_t offset;             /* in struct options: a bool, const char *, uint64_t or double */
  uint64_t minimum, maximum; /* of a COUNT */
};

#define AT(member) offsetof(struct options, member)

static const struct row rows[] = {
  { "text", "FILE", "what to learn from (default: two books of the Bible)", TEXT, AT(text), 0, 0 },
  { "layers", "N", "blocks (4)", COUNT, AT(layers), 1, 64 },
  { "width", "N", "numbers per position (64)", COUNT, AT(width), 1, 2048 },
  { "heads", "N", "attention heads (4)", COUNT, AT(heads), 1, 2048 },
  { "context", "N", "characters seen at once (64)", COUNT, AT(context), 1, 4096 },
  { "batch", "N", "sequences per step and rank (2)", COUNT, AT(batch), 1, 4096 },
  { "steps", "N", "end before step N; 0: go on until told to stop (2000)", COUNT, AT(steps), 0, STEP_LIMIT - 1 },
  { "epoch-steps", "N", "steps that make an epoch (once through the text)", COUNT, AT(epoch_steps), 1, STEP_LIMIT },
  { "seed", "N", "decides the first weights and all batches (1)", COUNT, AT(seed), 0, INT64_MAX },
  { "lr", "X", "learning rate (0.002)", RATE, AT(learning_rate), 0, 0 },
  { "weight-decay", "X", "weight decay (0.01)", RATE, AT(weight_decay), 0, 0 },
  { "ranks", "N", "processes that train together (1)", COUNT, AT(ranks), 1, 64 },
  { "run", "NAME", "name of the run for Freezer ($FREEZER_RUN, else charlm)", TEXT, AT(run), 0, 0 },
  { "checkpoint", "FILE", "save the run here at the end", TEXT, AT(checkpoint), 0, 0 },
  { "checkpoint-every", "N", "and each N steps", COUNT, AT(checkpoint_every), 1, STEP_LIMIT },
  { "resume", "FILE", "go on from a checkpoint, with its sizes and settings", TEXT, AT(resume), 0, 0 },
  { "log-every", "N", "a line each N steps, with their mean loss and time (100)", COUNT, AT(log_every), 1, STEP_LIMIT },
  { "json-log", NULL, "one JSON object per line instead", FLAG, AT(json_log), 0, 0 },
  { "dump-hash", NULL, "with the hash of each tensor: in each JSON step, else at the end", FLAG, AT(dump_hash), 0, 0 },
  { "step-delay-us", "N", "rest after each step", COUNT, AT(step_delay_us), 0, 60000000 },
  { "help", NULL, "this", FLAG, AT(help), 0, 0 },
};
enum { ROWS = sizeof rows / sizeof *rows };

static int parse_count(uint64_t *ret, const struct row *row, const char *text, struct problem *problem) {
  char *end;
  errno = 0;
  const uint64_t value = strtoull(text, &end, 10);
  if (strspn(text, "0123456789") == 0 || *end != '\0' || errno != 0 || value < row->minimum || value > row->maximum) {
    return problem_set(problem, -EINVAL, "--%s '%s' is not a whole number from %" PRIu64 " to %" PRIu64, row->name,
                       text, row->minimum, row->maximum);
  }
  *ret = value;
  return 0;
}

static int parse_rate(double *ret, const struct row *row, const char *text, struct problem *problem) {
  char *end;
  const double value = strtod(text, &end);
  if (end == text || *end != '\0' || !(value >= 0 && value <= 1)) {
    return problem_set(problem, -EINVAL, "--%s '%s' is not a number from 0 to 1", row->name, text);
  }
  *ret = value;
  return 0;
}

static int parse_value(struct options *options, const struct row *row, const char *text, struct problem *problem) {
  void *value = (char *)options + row->offset;
  switch (row->kind) {
  case FLAG:
    *(bool *)value = true;
    return 0;
  case TEXT:
    if (*text == '\0') {
      return problem_set(problem, -EINVAL, "--%s needs a %s that is not empty", row->name, row->argument);
    }
    *(const char **)value = text;
    return 0;
  case COUNT:
    return parse_count(value, row, text, problem);
  case RATE:
    return parse_rate(value, row, text, problem);
  }
  return -EINVAL;
}

static int check_together(const struct options *options, struct problem *problem) {
  if (options->checkpoint_every != NOT_GIVEN && options->checkpoint == NULL) {
    return problem_set(problem, -EINVAL, "--checkpoint-every needs --checkpoint FILE, the file to save to");
  }
  return 0;
}

static void give_nothing(struct options *options) {
  for (int i = 0; i < ROWS; i++) {
    void *value = (char *)options + rows[i].offset;
    if (rows[i].kind == COUNT) {
      *(uint64_t *)value = NOT_GIVEN;
    } else if (rows[i].kind == RATE) {
      *(double *)value = NAN;
    }
  }
}

int options_parse(struct options *ret, int argc, char **argv, struct problem *problem) {
  struct option long_options[ROWS + 1] = { { 0 } };
  for (int i = 0; i < ROWS; i++) {
    const int takes = rows[i].argument == NULL ? no_argument : required_argument;
    long_options[i] = (struct option){ rows[i].name, takes, NULL, i + 1 };
  }
  struct options options = { 0 };
  give_nothing(&options);
  opterr = 0;
  optind = 0;
  int found;
  while ((found = getopt_long(argc, argv, "+:", long_options, NULL)) != -1) {
    if (found == '?' || found == ':') {
      return problem_set(problem, -EINVAL, "%s '%s'", found == '?' ? "unknown option" : "an argument is missing for",
                         argv[optind - 1]);
    }
    const int result = parse_value(&options, &rows[found - 1], optarg, problem);
    if (result < 0) {
      return result;
    }
  }
  if (optind < argc) {
    return problem_set(problem, -EINVAL, "'%s' is no option; a text is named by --text FILE", argv[optind]);
  }
  const int result = check_together(&options, problem);
  if (result == 0) {
    *ret = options;
  }
  return result;
}

void options_help(void) {
  puts("charlm --steps 5000\n"
       "charlm --ranks 2 --checkpoint run.ckpt\n"
       "\n"
       "Trains a small language model on the characters of a text. Where freezerd runs, the model's tensors can be\n"
       "frozen and unfrozen meanwhile, for example: freezerctl freeze 'embed' 'blocks.{0,1}'\n");
  for (int i = 0; i < ROWS; i++) {
    char left[40];
    snprintf(left, sizeof left, "--%s%s%s", rows[i].name, rows[i].argument == NULL ? "" : " ",
             rows[i].argument == NULL ? "" : rows[i].argument);
    printf("  %-22s %s\n", left, rows[i].help);
  }
}
