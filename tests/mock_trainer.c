/* mock_trainer.c - a trainer that trains nothing: it asks freezer.h at each batch, as a real one would, and prints. */
#include "config.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "client/freezer.h"
#include "tests/fail_calls.h"

enum { EXIT_USAGE = 2, METRICS_MAX = 64 };

/* Full lines only, so that a kill leaves none torn; no longer than this may one wait to be written. */
enum { OUT_SIZE = 64 * 1024, OUT_WAIT_NS = 2000000 };

struct metric {
  char *name;
  double *values;
  size_t n_values;
};

struct trainer {
  freezer_options_t options;
  const char *params_file, *rules_file;
  uint64_t first_step, end_step;
  bool has_steps;
  uint64_t began_at;             /* first step, or that of the rewind */
  uint64_t rewind_at, rewind_to; /* rewind_at is the end when there is none */
  unsigned long step_us, begin_delay_ms;
  uint64_t batches_per_step, epoch_every;
  struct metric metrics[METRICS_MAX];
  size_t n_metrics;
  bool jitter, print, validate, longest;
  uint64_t random;
  int64_t longest_ns, longest_wait_ns; /* freezer_batch_begin(): of all calls, and of those that gave up the CPU */

  freezer_param_t *params;
  size_t n_params;
  char *job, *rules;
  freezer_t *freezer;

  char *out;
  size_t out_size, out_length;
  int64_t out_since_ns;
};

static volatile sig_atomic_t ended, opened, continued;

static void on_end(int number) {
  (void)number;
  /* Within freezer_open() there is nothing to say goodbye to yet. */
  if (!opened)
    _exit(EXIT_SUCCESS);
  ended = 1;
}

static const char usage[] =
  "usage: mock_trainer --run NAME --params FILE --steps A:B [OPTION]...\n"
  "Steps from A to B - 1 like a trainer, asks freezerd's plan at each batch, and trains nothing.\n"
  "\n"
  "  --run NAME              name of the run\n"
  "  --params FILE           one parameter per line: NAME [ELEMENTS [0|1]]; the last is its baseline flag\n"
  "                          (1 element and 1 unless given)\n"
  "  --steps A:B             first step, and the step to end before\n"
  "  --rank R, --world W     which of how many ranks this process is (0 of 1)\n"
  "  --step-us N             microseconds that a step takes (1000)\n"
  "  --batches-per-step N    batches within a step (1)\n"
  "  --epoch-every N         steps of an epoch (none: epoch 0 throughout)\n"
  "  --validate              a validation batch at the end of each epoch: at the next step, but still in that epoch\n"
  "  --metric NAME=V,V,...   reports a value after each step; the last one again and again. May be repeated\n"
  "  --attach-timeout-ms N   how long to wait for the first plan (see freezer.h)\n"
  "  --begin-delay-ms N      waits between attaching and the first batch\n"
  "  --jitter                steps take 0 to 2 times --step-us, at random\n"
  "  --seed S                of --jitter\n"
  "  --print                 a line for each batch: {\"rank\":0,\"step\":12,\"epoch\":0,\"gen\":3,\"mask\":\"0110\"}\n"
  "  --longest               says on stderr when a freezer_batch_begin() took longer than each before it, and beyond 1 ms:\n"
  "                          \"step 12: batch start took 1250 us\", with \"waited\" for \"took\" if it gave up the CPU itself;\n"
  "                          one in which it was stopped does not count\n"
  "  --launch JOB[:ATTEMPT]  launch id (from the scheduler unless given; else, if world > 1, the run's name, so that\n"
  "                          ranks may be started from different shells)\n"
  "  --rules FILE            rules that the trainer brings, as JSON\n"
  "  --rewind AT:TO          goes back to step TO, once, when it comes to step AT\n"
  "  --socket PATH           of freezerd\n"
  "  --help\n"
  "\n"
  "Messages go to stderr. SIGTERM and SIGINT end it in good order.\n"
  "Exit status: 0 done, also without freezerd; 1 failed; 2 usage.\n";

static _Noreturn void fail(const char *what, const char *why) {
  fprintf(stderr, "mock_trainer: %s%s%s\n", what, why ? ": " : "", why ? why : "");
  exit(EXIT_FAILURE);
}

static _Noreturn void fail_usage(const char *option, const char *value) {
  fprintf(stderr, "mock_trainer: %s '%s' is wrong\nTry 'mock_trainer --help'.\n", option, value);
  exit(EXIT_USAGE);
}

static void *need(void *memory) {
  if (!memory)
    fail("out of memory", NULL);
  return memory;
}

static void on_log(void *user, int level, const char *message) {
  static const char *const words[] = { "error: ", "warning: ", "" };
  const struct trainer *trainer = user;
  fprintf(stderr, "mock_trainer: rank %u: %s%s\n", (unsigned)trainer->options.rank, words[level], message);
}

/* ------------------------------------------------------------------------------------------------------- arguments */

static bool parse_number(const char *text, char end, uint64_t *ret_number, const char **ret_rest) {
  char *rest;
  if (*text < '0' || *text > '9')
    return false;
  errno = 0;
  *ret_number = strtoull(text, &rest, 10);
  if (errno != 0 || *rest != end)
    return false;
  if (ret_rest)
    *ret_rest = rest + 1;
  return true;
}

static uint64_t number(const char *option, const char *text, uint64_t max) {
  uint64_t value;
  if (!parse_number(text, '\0', &value, NULL) || value > max)
    fail_usage(option, text);
  return value;
}

static void pair(const char *option, const char *text, uint64_t *ret_first, uint64_t *ret_second) {
  const char *rest;
  if (!parse_number(text, ':', ret_first, &rest) || !parse_number(rest, '\0', ret_second, NULL))
    fail_usage(option, text);
}

static void add_metric(struct trainer *trainer, const char *text) {
  const char *equals = strchr(text, '=');
  if (!equals || equals == text || trainer->n_metrics == METRICS_MAX)
    fail_usage("--metric", text);
  struct metric *metric = &trainer->metrics[trainer->n_metrics++];
  metric->name = need(strndup(text, (size_t)(equals - text)));
  for (const char *at = equals; *at; metric->n_values++) {
    char *end;
    metric->values = need(realloc(metric->values, (metric->n_values + 1) * sizeof(*metric->values)));
    metric->values[metric->n_values] = strtod(at + 1, &end);
    if (end == at + 1 || (*end != ',' && *end != '\0'))
      fail_usage("--metric", text);
    at = end;
  }
}

static void take_launch(struct trainer *trainer, const char *text) {
  const char *colon = strrchr(text, ':');
  uint64_t attempt;
  trainer->job = need(strdup(text));
  if (colon && parse_number(colon + 1, '\0', &attempt, NULL)) {
    trainer->job[colon - text] = '\0';
    trainer->options.attempt = attempt;
  }
  trainer->options.job = trainer->job;
}

enum trainer_option {
  RUN = 1,
  RANK,
  WORLD,
  PARAMS,
  STEPS,
  STEP_US,
  BATCHES,
  EPOCH_EVERY,
  VALIDATE,
  METRIC,
  ATTACH_TIMEOUT,
  BEGIN_DELAY,
  JITTER,
  SEED,
  PRINT,
  LONGEST,
  LAUNCH,
  RULES,
  REWIND,
  SOCKET,
  HELP
};

static const struct option options[] = {
  { "run", required_argument, NULL, RUN },
  { "rank", required_argument, NULL, RANK },
  { "world", required_argument, NULL, WORLD },
  { "params", required_argument, NULL, PARAMS },
  { "steps", required_argument, NULL, STEPS },
  { "step-us", required_argument, NULL, STEP_US },
  { "batches-per-step", required_argument, NULL, BATCHES },
  { "epoch-every", required_argument, NULL, EPOCH_EVERY },
  { "validate", no_argument, NULL, VALIDATE },
  { "metric", required_argument, NULL, METRIC },
  { "attach-timeout-ms", required_argument, NULL, ATTACH_TIMEOUT },
  { "begin-delay-ms", required_argument, NULL, BEGIN_DELAY },
  { "jitter", no_argument, NULL, JITTER },
  { "seed", required_argument, NULL, SEED },
  { "print", no_argument, NULL, PRINT },
  { "longest", no_argument, NULL, LONGEST },
  { "launch", required_argument, NULL, LAUNCH },
  { "rules", required_argument, NULL, RULES },
  { "rewind", required_argument, NULL, REWIND },
  { "socket", required_argument, NULL, SOCKET },
  { "help", no_argument, NULL, HELP },
  { NULL, 0, NULL, 0 },
};
static void take_option(struct trainer *trainer, enum trainer_option option, const char *name, const char *value) {
  freezer_options_t *to = &trainer->options;
  switch (option) {
  case RUN:
    to->run = value;
    break;
  case RANK:
    to->rank = (uint32_t)number(name, value, UINT32_MAX);
    break;
  case WORLD:
    to->world = (uint32_t)number(name, value, UINT32_MAX);
    break;
  case PARAMS:
    trainer->params_file = value;
    break;
  case STEPS:
    pair(name, value, &trainer->first_step, &trainer->end_step);
    if (trainer->first_step > trainer->end_step)
      fail_usage(name, value);
    trainer->has_steps = true;
    break;
  case STEP_US:
    trainer->step_us = number(name, value, 1000000000);
    break;
  case BATCHES:
    trainer->batches_per_step = number(name, value, 1000000);
    break;
  case EPOCH_EVERY:
    trainer->epoch_every = number(name, value, UINT64_MAX);
    break;
  case VALIDATE:
    trainer->validate = true;
    break;
  case METRIC:
    add_metric(trainer, value);
    break;
  case ATTACH_TIMEOUT:
    to->attach_timeout_ms = (int)number(name, value, INT32_MAX);
    break;
  case BEGIN_DELAY:
    trainer->begin_delay_ms = number(name, value, 1000000000);
    break;
  case JITTER:
    trainer->jitter = true;
    break;
  case SEED:
    trainer->random = number(name, value, UINT64_MAX);
    break;
  case PRINT:
    trainer->print = true;
    break;
  case LONGEST:
    trainer->longest = true;
    break;
  case LAUNCH:
    take_launch(trainer, value);
    break;
  case RULES:
    trainer->rules_file = value;
    break;
  case REWIND:
    pair(name, value, &trainer->rewind_at, &trainer->rewind_to);
    break;
  case SOCKET:
    to->socket = value;
    break;
  case HELP:
    fputs(usage, stdout);
    exit(EXIT_SUCCESS);
  }
}

static void take_arguments(struct trainer *trainer, int argc, char **argv) {
  int found, index = 0;
  while ((found = getopt_long(argc, argv, "", options, &index)) != -1) {
    if (found == '?') {
      fputs("Try 'mock_trainer --help'.\n", stderr);
      exit(EXIT_USAGE);
    }
    char name[32];
    (void)snprintf(name, sizeof(name), "--%s", options[index].name);
    take_option(trainer, (enum trainer_option)found, name, optarg);
  }
  if (optind < argc)
    fail_usage("argument", argv[optind]);
  if (!trainer->options.run || !trainer->params_file || !trainer->has_steps) {
    fputs("mock_trainer: --run, --params and --steps are needed\nTry 'mock_trainer --help'.\n", stderr);
    exit(EXIT_USAGE);
  }
  /* Ranks that were started by hand have no scheduler, and perhaps no parent, in common to name their launch. */
  const bool scheduled = getenv("SLURM_JOB_ID") || getenv("TORCHELASTIC_RUN_ID") || getenv("PMIX_NAMESPACE");
  if (!trainer->options.job && !scheduled && trainer->options.world > 1)
    trainer->options.job = trainer->options.run;
  if (trainer->batches_per_step == 0)
    trainer->batches_per_step = 1;
  if (trainer->rewind_at == 0)
    trainer->rewind_at = UINT64_MAX;
}

/* ----------------------------------------------------------------------------------------------------------- files */

static FILE *open_file(const char *path) {
  FILE *file = fopen(path, "re");
  if (!file)
    fail(path, strerror(errno));
  return file;
}

/* NAME [ELEMENTS [0|1]] */
static void read_param(freezer_param_t *param, char *line) {
  static const char blanks[] = " \t\r\n";
  char *rest, *name = strtok_r(line, blanks, &rest), *elements = strtok_r(NULL, blanks, &rest);
  const char *flag = strtok_r(NULL, blanks, &rest), *more = strtok_r(NULL, blanks, &rest);
  *param = (freezer_param_t){ .name = need(strdup(name)), .elements = 1, .requires_grad = true };
  if (elements && !parse_number(elements, '\0', &param->elements, NULL))
    fail("no element count", elements);
  if (more)
    fail("more than three words on a line", more);
  if (flag && strcmp(flag, "0") != 0 && strcmp(flag, "1") != 0)
    fail("no baseline flag, which is 0 or 1", flag);
  param->requires_grad = !flag || *flag == '1';
}

static void read_params(struct trainer *trainer) {
  FILE *file = open_file(trainer->params_file);
  char *line = NULL;
  size_t size = 0, n_allocated = 0;
  while (getline(&line, &size, file) > 0) {
    if (line[strspn(line, " \t\r\n")] == '\0')
      continue;
    if (trainer->n_params == n_allocated) {
      n_allocated = n_allocated ? n_allocated * 2 : 64;
      trainer->params = need(realloc(trainer->params, n_allocated * sizeof(*trainer->params)));
    }
    read_param(&trainer->params[trainer->n_params++], line);
  }
  free(line);
  fclose(file);
}

/* As one line: outside of strings white space is all the same, and within them JSON has none but the blank. */
static void read_rules(struct trainer *trainer) {
  if (!trainer->rules_file)
    return;
  FILE *file = open_file(trainer->rules_file);
  char *text = NULL;
  size_t size = 0;
  if (getdelim(&text, &size, '\0', file) < 0)
    fail("cannot read", trainer->rules_file);
  fclose(file);
  for (char *c = text; *c; c++)
    if (*c == '\n' || *c == '\r' || *c == '\t')
      *c = ' ';
  trainer->rules = text;
  trainer->options.rules = text;
}

/* -------------------------------------------------------------------------------------------------------- training */

static int64_t now_ns(void) {
  struct timespec now;
  (void)clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void pause_us(uint64_t us) {
  const struct timespec time = { .tv_sec = (time_t)(us / 1000000), .tv_nsec = (long)(us % 1000000) * 1000 };
  if (us > 0)
    (void)nanosleep(&time, NULL); /* a signal ends it, as it should */
}

static uint64_t random_next(uint64_t *state) {
  *state += UINT64_C(0x9e3779b97f4a7c15);
  uint64_t z = *state;
  z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
  z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
  return z ^ (z >> 31);
}

static void flush(struct trainer *trainer) {
  size_t done = 0;
  while (done < trainer->out_length) {
    const ssize_t n = write(STDOUT_FILENO, trainer->out + done, trainer->out_length - done);
    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0)
      fail("cannot write", strerror(errno));
    done += (size_t)n;
  }
  trainer->out_length = 0;
}

static void print_batch(struct trainer *trainer, uint64_t step, uint64_t epoch) {
  const size_t most = 160 + trainer->n_params;
  if (trainer->out_size - trainer->out_length < most)
    flush(trainer);
  char *line = trainer->out + trainer->out_length;
  int n = sprintf(line, "{\"rank\":%u,\"step\":%llu,\"epoch\":%llu,\"gen\":%llu,\"mask\":\"",
                  (unsigned)trainer->options.rank, (unsigned long long)step, (unsigned long long)epoch,
                  (unsigned long long)freezer_generation(trainer->freezer));
  for (size_t i = 0; i < trainer->n_params; i++)
    line[n++] = freezer_requires_grad(trainer->freezer, i) ? '1' : '0';
  memcpy(line + n, "\"}\n", 3);
  const int64_t now = now_ns();
  if (trainer->out_length == 0)
    trainer->out_since_ns = now;
  trainer->out_length += (size_t)n + 3;
  if (trainer->step_us > 0 || now - trainer->out_since_ns > OUT_WAIT_NS)
    flush(trainer);
}

static long times_waited(void) {
  struct rusage used = { 0 };
  (void)getrusage(RUSAGE_SELF, &used);
  return used.ru_nvcsw;
}

static void tell_longest(const struct trainer *trainer, uint64_t step, const char *verb, int64_t took_ns,
                         int64_t *longest_ns) {
  if (took_ns <= *longest_ns)
    return;
  *longest_ns = took_ns;
  if (took_ns > 1000000)
    fprintf(stderr, "mock_trainer: rank %u: step %llu: batch start %s %lld us\n", (unsigned)trainer->options.rank,
            (unsigned long long)step, verb, (long long)(took_ns / 1000));
}

/* Another process may take the CPU away from a call, however short that is, or stop it; one that waits gives it up. */
static int begin_timed(struct trainer *trainer, uint64_t step, uint64_t epoch) {
  continued = 0;
  const long waited = times_waited();
  const int64_t began = now_ns();
  const int r = freezer_batch_begin(trainer->freezer, step, epoch);
  const int64_t took = now_ns() - began;
  if (continued)
    return r;
  if (times_waited() != waited)
    tell_longest(trainer, step, "waited", took, &trainer->longest_wait_ns);
  tell_longest(trainer, step, "took", took, &trainer->longest_ns);
  return r;
}

/* One batch: asks, takes the flags, prints them, and takes its time. */
static void run_batch(struct trainer *trainer, uint64_t step, uint64_t epoch) {
  const int r =
    trainer->longest ? begin_timed(trainer, step, epoch) : freezer_batch_begin(trainer->freezer, step, epoch);
  if (r < 0)
    fprintf(stderr, "mock_trainer: rank %u: step %llu: %s\n", (unsigned)trainer->options.rank, (unsigned long long)step,
            freezer_strerror(r));
  size_t index;
  bool requires_grad;
  while (freezer_next_change(trainer->freezer, &index, &requires_grad) == 1)
    ;
  if (trainer->print)
    print_batch(trainer, step, epoch);
  const uint64_t us = trainer->step_us / trainer->batches_per_step;
  pause_us(trainer->jitter && us > 0 ? random_next(&trainer->random) % (2 * us + 1) : us);
}

static void train_step(struct trainer *trainer, uint64_t step) {
  const uint64_t epoch = trainer->epoch_every ? step / trainer->epoch_every : 0;
  if (trainer->validate && trainer->epoch_every && step % trainer->epoch_every == 0 && step > trainer->began_at)
    run_batch(trainer, step, epoch - 1);
  for (uint64_t batch = 0; batch < trainer->batches_per_step && !ended; batch++)
    run_batch(trainer, step, epoch);
  for (size_t i = 0; i < trainer->n_metrics; i++) {
    const struct metric *metric = &trainer->metrics[i];
    const uint64_t at = step - trainer->first_step;
    (void)freezer_metric(trainer->freezer, metric->name,
                         metric->values[at < metric->n_values ? at : metric->n_values - 1]);
  }
}

static void train(struct trainer *trainer) {
  trainer->began_at = trainer->first_step;
  for (uint64_t step = trainer->first_step; step < trainer->end_step && !ended; step++) {
    if (step == trainer->rewind_at) {
      trainer->rewind_at = UINT64_MAX;
      step = trainer->began_at = trainer->rewind_to;
      const int r = freezer_rewind(trainer->freezer, step, trainer->epoch_every ? step / trainer->epoch_every : 0);
      if (r < 0)
        fail("cannot rewind", freezer_strerror(r));
    }
    train_step(trainer, step);
  }
}

static void on_continue(int number) {
  (void)number;
  continued = 1;
}

static void watch_signals(const struct trainer *trainer) {
  const struct sigaction end = { .sa_handler = on_end }, go_on = { .sa_handler = on_continue, .sa_flags = SA_RESTART };
  (void)sigaction(SIGTERM, &end, NULL);
  (void)sigaction(SIGINT, &end, NULL);
  if (trainer->longest)
    (void)sigaction(SIGCONT, &go_on, NULL);
}

static void release(struct trainer *trainer) {
  for (size_t i = 0; i < trainer->n_params; i++)
    free((void *)(uintptr_t)trainer->params[i].name);
  for (size_t i = 0; i < trainer->n_metrics; i++) {
    free(trainer->metrics[i].name);
    free(trainer->metrics[i].values);
  }
  free(trainer->params);
  free(trainer->out);
  free(trainer->job);
  free(trainer->rules);
}

int main(int argc, char **argv) {
  struct trainer trainer = { .options = FREEZER_OPTIONS_INIT, .step_us = 1000, .batches_per_step = 1 };
  take_arguments(&trainer, argc, argv);
  read_params(&trainer);
  read_rules(&trainer);
  trainer.out_size = OUT_SIZE + trainer.n_params;
  trainer.out = need(malloc(trainer.out_size));
  trainer.options.framework = "mock";
  trainer.options.step = trainer.first_step;
  trainer.options.epoch = trainer.epoch_every ? trainer.first_step / trainer.epoch_every : 0;
  trainer.options.log = on_log;
  trainer.options.log_user = &trainer;
  (void)prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL); /* or a step of 200 us takes 250 */
  watch_signals(&trainer);
  if (fz_fail_begin)
    fz_fail_begin(); /* what is tested is the library, not what this program reads before */

  const int r = freezer_open(&trainer.freezer, &trainer.options, trainer.params, trainer.n_params);
  if (r < 0)
    fail("cannot open", freezer_strerror(r));
  opened = 1;
  pause_us(trainer.begin_delay_ms * 1000);
  train(&trainer);
  flush(&trainer);
  freezer_close(trainer.freezer);
  release(&trainer);
  return EXIT_SUCCESS;
}
