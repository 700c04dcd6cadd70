/* open.c - a handle's life: options, environment, freezer_open, freezer_rewind, freezer_close. */
#include "config.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/handle.h"
#include "protocol/mask.h"
#include "protocol/text.h"

enum { ATTACH_TIMEOUT_MS = 5000 };

void fz_log(const freezer_t *f, enum freezer_log_level level, const char *format, ...) {
  if (!f->log)
    return;
  char message[1024];
  va_list arguments;
  va_start(arguments, format);
  (void)vsnprintf(message, sizeof(message), format, arguments);
  va_end(arguments);
  f->log(f->log_user, (int)level, message);
}

static bool is_set(const char *variable) {
  const char *value = getenv(variable);
  return value && *value && strcmp(value, "0") != 0;
}

static int attach_timeout(const freezer_t *f, int given) {
  if (given >= 0)
    return given;
  const char *text = getenv("FREEZER_ATTACH_TIMEOUT");
  if (!text || !*text)
    return ATTACH_TIMEOUT_MS;
  char *end;
  errno = 0;
  const long value = strtol(text, &end, 10);
  if (*end != '\0' || errno != 0 || value < 0 || value > INT32_MAX) {
    fz_log(f, FREEZER_LOG_WARNING, "FREEZER_ATTACH_TIMEOUT='%s' is no number of milliseconds: %d is taken", text,
           ATTACH_TIMEOUT_MS);
    return ATTACH_TIMEOUT_MS;
  }
  return (int)value;
}

/* The options as this version knows them, whatever version the caller was compiled with. */
static int take_options(freezer_options_t *to, const freezer_options_t *from) {
  const freezer_options_t defaults = FREEZER_OPTIONS_INIT;
  *to = defaults;
  if (!from)
    return 0;
  if (from->size < sizeof(*to) || from->param_size < sizeof(freezer_param_t) ||
      from->param_size % _Alignof(freezer_param_t))
    return -EINVAL;
  memcpy(to, from, sizeof(*to));
  if (to->world == 0)
    to->world = 1;
  if (to->step > FZ_STEP_MAX || to->epoch > FZ_EPOCH_MAX || to->world > FZ_WORLD_MAX || to->rank >= to->world ||
      to->attempt > FZ_INT_MAX || to->attach_timeout_ms < -1)
    return -EINVAL;
  return 0;
}

static int take_identity(freezer_t *f, const freezer_options_t *options) {
  struct fz_identity *identity = &f->identity;
  const char *framework = options->framework ? options->framework : "c";
  const size_t length = strnlen(framework, sizeof(identity->framework));
  if (length == sizeof(identity->framework) || !fz_text_is_clean(framework, length))
    return -EINVAL;
  memcpy(identity->framework, framework, length + 1);
  identity->rank = options->rank;
  identity->world = options->world;
  identity->pid = (uint64_t)getpid();
  const int r = fz_identity_run(identity, options->run, options->program);
  return r < 0 ? r : fz_identity_launch(identity, options->job, options->attempt);
}

static int take_params(freezer_t *f, const freezer_param_t *first, size_t stride, size_t count) {
  int r = fz_params_new(&f->params);
  for (size_t i = 0; i < count && r == 0; i++) {
    const freezer_param_t *param = (const freezer_param_t *)(const void *)((const char *)first + i * stride);
    r = !param->name ? -EINVAL
                     : fz_params_add(f->params, param->name, strlen(param->name), param->elements, param->requires_grad,
                                     param->may_freeze, param->may_train);
    for (size_t k = 0; k < param->n_aliases && r == 0; k++)
      r = fz_params_add_alias(f->params, param->aliases[k], strlen(param->aliases[k]));
    if (r == -EINVAL)
      fz_log(f, FREEZER_LOG_ERROR, "parameter %zu: bad name, alias, element count or refusal code", i);
  }
  size_t duplicate;
  if (r == 0)
    r = fz_params_seal(f->params, &duplicate);
  if (r == -EEXIST) {
    fz_log(f, FREEZER_LOG_ERROR, "parameter %zu has the name of an earlier one: '%s'", duplicate,
           fz_params_get(f->params, duplicate)->name);
    r = -EINVAL;
  }
  return r;
}

static int take_rules(freezer_t *f, const char *rules) {
  if (!rules)
    return 0;
  char why[200];
  const size_t length = strnlen(rules, FZ_RULES_TEXT_MAX + 1);
  if (length > FZ_RULES_TEXT_MAX) {
    fz_log(f, FREEZER_LOG_ERROR, "the rules are longer than %u bytes", FZ_RULES_TEXT_MAX);
    return -EINVAL;
  }
  const int r = fz_json_parse(&f->rules, rules, length, why, sizeof(why));
  if (r > 0)
    fz_log(f, FREEZER_LOG_ERROR, "the rules are not JSON: %s", why);
  return r > 0 ? -EINVAL : r;
}

static int make_flags(freezer_t *f) {
  f->n_params = fz_params_count(f->params);
  f->n_words = fz_mask_words(f->n_params);
  f->flags = calloc(f->n_words + 1, sizeof(*f->flags));
  f->unwritten = calloc(f->n_words + 1, sizeof(*f->unwritten));
  if (!f->flags || !f->unwritten)
    return -ENOMEM;
  fz_flags_reset(f);
  return 0;
}

static void release(freezer_t *f) {
  fz_line_reader_deinit(&f->link.reader);
  fz_output_deinit(&f->link.output);
  fz_writer_deinit(&f->link.writer);
  fz_plan_deinit(&f->plan);
  fz_plan_deinit(&f->spare);
  fz_collective_deinit(f);
  fz_json_free(f->rules);
  fz_params_unref(f->params);
  free(f->flags);
  free(f->unwritten);
  free(f);
}

static int set_up(freezer_t *f, const freezer_options_t *options, const freezer_param_t *params, size_t count) {
  int r = fz_fork_watch();
  if (r == 0)
    r = take_identity(f, options);
  if (r == 0)
    r = take_params(f, params, options->param_size, count);
  if (r == 0)
    r = take_rules(f, options->rules);
  if (r == 0)
    r = make_flags(f);
  if (r == 0)
    r = fz_collective_init(f, options);
  if (r < 0)
    return r;
  f->fork_count = fz_fork_count;
  f->require = is_set("FREEZER_REQUIRE");
  f->attach_timeout_ms = attach_timeout(f, options->attach_timeout_ms);
  f->step = options->step;
  f->epoch = options->epoch;
  const bool follows = fz_is_collective(f) && !f->collective.root;
  f->link.state = follows || is_set("FREEZER_DISABLE") ? FZ_LINK_OFF : FZ_LINK_DOWN;
  f->batches_left = f->batches_per_tick = 1;
  fz_socket_search_init(&f->link.places, options->socket);
  return 0;
}

/* Attaches as far as the timeout allows; says what the caller must know. */
static int attach_alone(freezer_t *f) {
  if (f->link.state == FZ_LINK_OFF)
    return 0;
  const int r = fz_link_wait(f);
  if (r == 0 || r == -EPROTOTYPE)
    return r; /* the latter is a mistake in what is trained, and no matter of whether Freezer is there */
  if (r == -ENOTCONN)
    fz_log(f, f->require ? FREEZER_LOG_ERROR : FREEZER_LOG_INFO, "no freezerd: the flags stay as they are");
  else if (r == -ETIMEDOUT && f->attach_timeout_ms > 0)
    fz_log(f, FREEZER_LOG_WARNING, "no plan after %d ms: training begins with the flags as they are",
           f->attach_timeout_ms);
  /* With a timeout of 0 that the plan is not there yet is what was asked for. */
  return f->require && (r != -ETIMEDOUT || f->attach_timeout_ms > 0) ? r : 0;
}

/* With several machines, every process comes to the broadcast, whatever became of attaching. */
static int attach(freezer_t *f) {
  const int alone = attach_alone(f);
  const int together = fz_is_collective(f) ? fz_collective_begin(f) : 0;
  return alone < 0 ? alone : together;
}

int freezer_open(freezer_t **out, const freezer_options_t *options, const freezer_param_t *params, size_t count) {
  freezer_options_t taken;
  if (!out || (!params && count > 0))
    return -EINVAL;
  int r = take_options(&taken, options);
  if (r < 0)
    return r;
  freezer_t *f = calloc(1, sizeof(*f));
  if (!f)
    return -ENOMEM;
  f->log = taken.log;
  f->log_user = taken.log_user;
  fz_link_init(f);
  r = set_up(f, &taken, params, count);
  if (r == 0)
    r = attach(f);
  if (r < 0) {
    fz_holds_drop(f);
    fz_link_close(f);
    release(f);
    return r;
  }
  *out = f;
  return 0;
}

int freezer_rewind(freezer_t *f, uint64_t step, uint64_t epoch) {
  if (!f || step > FZ_STEP_MAX || epoch > FZ_EPOCH_MAX)
    return -EINVAL;
  if (fz_is_inert(f))
    return 0;
  f->step = step;
  f->epoch = epoch;
  f->begun = false;
  const bool held = fz_holds_rewind(f);
  fz_link_rewind(f, held);
  fz_events_set_thresholds(f);
  return attach(f);
}

int freezer_info(const freezer_t *f, freezer_info_t *info) {
  if (!f || !info || info->size < sizeof(*info))
    return -EINVAL;
  const struct fz_link *link = &f->link;
  info->attached = link->state == FZ_LINK_READY;
  info->run = link->name_given[0] ? link->name_given : f->identity.run;
  info->socket = link->fd >= 0 ? link->path : NULL;
  info->incarnation = f->plan.gen > 0 && f->current ? fz_segment_get_info(f->current)->incarnation : 0;
  info->step = f->step;
  info->epoch = f->epoch;
  return 0;
}

void freezer_close(freezer_t *f) {
  if (!f)
    return;
  /* A forked child shares descriptors and maps with the rank itself: it gives back its memory, no more. */
  if (!fz_is_inert(f)) {
    fz_holds_drop(f); /* before bye: after it, the line may be another process's */
    fz_link_close(f);
  }
  release(f);
}
