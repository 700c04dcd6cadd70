/* state.c - what of a run outlives freezerd: its rules, overrides, pins and incarnation, in the state directory. */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/pending.h"
#include "daemon/rules/ruleset.h"
#include "daemon/run.h"
#include "daemon/run_carry.h"
#include "daemon/run_rules.h"
#include "daemon/state.h"
#include "daemon/text.h"
#include "protocol/hash.h"
#include "protocol/mask.h"

#define STATE_VERSION 1U

static const char *const origin_names[] = {
  [FZ_RULES_NONE] = "none",
  [FZ_RULES_DEFAULT] = "default",
  [FZ_RULES_TRAINER] = "trainer",
  [FZ_RULES_CONTROL] = "control",
  NULL,
};
static const char *const action_names[] = { [FZ_FREEZE] = "freeze", [FZ_TRAIN] = "train", NULL };
static const char *const value_names[] = {
  [FZ_PIN_AS_IS] = "as is",
  [FZ_PIN_FROZEN] = "frozen",
  [FZ_PIN_TRAINING] = "training",
  NULL,
};

/* ------------------------------------------------------------------------------------------------------------ writing */

static void write_strings(fz_json_writer *writer, const char *key, const char *const *strings, size_t n) {
  fz_write_begin_array(writer, key);
  for (size_t i = 0; i < n; i++)
    fz_write_string(writer, NULL, strings[i]);
  fz_write_end_array(writer);
}

static void write_who(fz_json_writer *writer, const struct fz_who *who, const char *reason, uint64_t time_ms) {
  fz_write_integer(writer, "uid", who->uid);
  fz_write_string(writer, "user", who->user);
  fz_write_string(writer, "host", who->host);
  fz_write_string(writer, "reason", reason);
  fz_write_integer(writer, "time_ms", time_ms);
}

static void write_override(fz_json_writer *writer, const struct fz_override *override) {
  fz_write_begin_object(writer, NULL);
  fz_write_string(writer, "action", action_names[override->action]);
  write_strings(writer, "patterns", override->patterns, override->n_patterns);
  write_strings(writer, "dropped", override->dropped, override->n_dropped);
  fz_write_integer(writer, "from_step", override->window.from_step);
  fz_write_integer(writer, "from_epoch", override->window.from_epoch);
  fz_write_time(writer, "until_step", override->window.until_step);
  fz_write_time(writer, "until_epoch", override->window.until_epoch);
  write_who(writer, &override->who, override->reason, override->time_ms);
  fz_write_end_object(writer);
}

/** A pin of what was as it was holds frozen and training parameters: it is written as the two pins that it is. */
static void write_pin(fz_json_writer *writer, const fz_params *params, const struct fz_pin *pin,
                      enum fz_pin_value value) {
  const size_t n = fz_params_count(params);

  fz_write_begin_object(writer, NULL);
  fz_write_string(writer, "value", value_names[value]);
  if (pin->value == FZ_PIN_AS_IS) {
    fz_write_begin_array(writer, "patterns");
    for (size_t i = fz_mask_next(pin->mask, n, 0); i < n; i = fz_mask_next(pin->mask, n, i + 1)) {
      char *name = fz_mask_get(pin->values, i) == (value == FZ_PIN_TRAINING)
                     ? fz_text_format("name:%s", fz_params_get(params, i)->name)
                     : NULL;
      if (name)
        fz_write_string(writer, NULL, name);
      free(name);
    }
    fz_write_end_array(writer);
    write_strings(writer, "dropped", NULL, 0);
  } else {
    write_strings(writer, "patterns", pin->patterns, pin->n_patterns);
    write_strings(writer, "dropped", pin->dropped, pin->n_dropped);
  }
  write_who(writer, &pin->who, pin->reason, pin->time_ms);
  fz_write_end_object(writer);
}

static void write_pins(fz_json_writer *writer, const fz_layers *layers) {
  const fz_params *params = fz_layers_params(layers);

  fz_write_begin_array(writer, "pins");
  for (size_t i = 0; i < fz_layers_n_pins(layers); i++) {
    const struct fz_pin *pin = fz_layers_pin(layers, i);
    if (pin->value != FZ_PIN_TRAINING)
      write_pin(writer, params, pin, FZ_PIN_FROZEN);
    if (pin->value != FZ_PIN_FROZEN)
      write_pin(writer, params, pin, FZ_PIN_TRAINING);
  }
  fz_write_end_array(writer);
}

/** What a lighter ruleset has gone through, to be gone through again. */
static void write_anchors(fz_json_writer *writer, const fz_run *run, bool fresh) {
  fz_write_bool(writer, "anchors_lost", run->anchors_lost && !fresh);
  fz_write_begin_array(writer, "anchors");
  for (size_t i = 0; !fresh && i < run->n_anchors; i++) {
    fz_write_begin_array(writer, NULL);
    fz_write_bool(writer, NULL, run->anchors[i].rewind);
    fz_write_integer(writer, NULL, run->anchors[i].step);
    fz_write_integer(writer, NULL, run->anchors[i].epoch);
    fz_write_end_array(writer);
  }
  fz_write_end_array(writer);
}

/** The gen that carries all this: the newest, or the next if something is queued or about to be. */
static uint64_t carrying_gen(const fz_run *run, const fz_layers *layers) {
  if (layers != run->layers)
    return run->plan.gen + 1;
  for (const fz_pending *pending = run->pendings; pending; pending = pending->next)
    if (pending->gen == 0)
      return run->plan.gen + 1;
  return run->plan.gen;
}

static void write_state(fz_json_writer *writer, const fz_run *run, const fz_layers *layers,
                        const struct fz_state_rules *origin, bool fresh) {
  fz_rules *rules = fz_layers_rules(layers);

  fz_write_begin_object(writer, NULL);
  fz_write_integer(writer, "version", STATE_VERSION);
  fz_write_string(writer, "run", run->name);
  fz_write_string(writer, "job", run->job);
  fz_write_integer(writer, "attempt", run->attempt);
  fz_write_integer(writer, "incarnation", run->incarnation);
  fz_write_integer(writer, "gen", carrying_gen(run, layers));
  fz_write_string(writer, "rules_origin", origin_names[origin->origin]);
  fz_write_string(writer, "rules_source", origin->source);
  fz_write_string(writer, "rules_by", origin->by);
  if (rules) {
    const char *text = fz_ruleset_canonical(fz_rules_ruleset(rules));
    fz_write_raw(writer, "rules", text, strlen(text));
  } else {
    fz_write_null(writer, "rules");
  }
  fz_write_begin_array(writer, "overrides");
  for (size_t i = 0; i < fz_layers_n_overrides(layers); i++)
    write_override(writer, fz_layers_override(layers, i));
  fz_write_end_array(writer);
  write_pins(writer, layers);
  write_anchors(writer, run, fresh);
  fz_write_end_object(writer);
}

/* ------------------------------------------------------------------------------------------------------------ on disk */

/** The folder of a run, opened; made if need be. */
static int open_folder(const fz_run *run, bool make) {
  const int top = open(run->core->state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  int fd, r = 0;

  if (top < 0)
    return -errno;
  if (make && mkdirat(top, run->key, 0700) == 0)
    r = fsync(top);
  else if (make && errno != EEXIST)
    r = -1;
  fd = r < 0 ? -1 : openat(top, run->key, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
  r = fd < 0 ? -errno : fd;
  close(top);
  return r;
}

static int write_all(int fd, const char *text, size_t length) {
  while (length) {
    const ssize_t n = write(fd, text, length);
    if (n < 0 && errno == EINTR)
      continue;
    if (n <= 0)
      return n < 0 ? -errno : -EIO;
    text += n;
    length -= (size_t)n;
  }
  return 0;
}

static int replace_file(int folder, const char *text, size_t length) {
  int r, fd;

  /* What a freezerd that was killed left there, or anything else, is not written through. */
  (void)unlinkat(folder, "state.json.new", 0);
  fd = openat(folder, "state.json.new", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd < 0)
    return -errno;
  r = write_all(fd, text, length);
  if (r == 0 && fsync(fd) < 0)
    r = -errno;
  if (close(fd) < 0 && r == 0)
    r = -errno;
  if (r == 0 && renameat(folder, "state.json.new", folder, "state.json") < 0)
    r = -errno;
  if (r < 0) {
    (void)unlinkat(folder, "state.json.new", 0);
    return r;
  }
  return fsync(folder) < 0 ? -errno : 0;
}

int fz_state_save(fz_run *run, const fz_layers *layers, const struct fz_state_rules *rules) {
  const struct fz_state_rules own = { run->rules_origin, run->rules_source, run->rules_by };
  fz_json_writer writer = FZ_JSON_WRITER_NULL;
  const char *text;
  size_t length;

  if (!run->core->state_dir)
    return 0;
  write_state(&writer, run, layers, rules ? rules : &own, rules != NULL);
  int r = fz_writer_line(&writer, &text, &length);
  const uint64_t hash = r == 0 ? fz_hash_bytes(FZ_HASH_START, text, length) : 0;
  if (r == 0 && hash != run->saved_hash) {
    const int folder = open_folder(run, true);
    r = folder < 0 ? folder : replace_file(folder, text, length);
    if (folder >= 0)
      close(folder);
    run->saved_hash = r == 0 ? hash : 0;
  }
  fz_writer_deinit(&writer);
  return r;
}

/* ------------------------------------------------------------------------------------------------------------- reading */

/** The file's text without its newline; allocated. */
static int read_file(const fz_run *run, char **ret_text, size_t *ret_length) {
  const int folder = open_folder(run, false);
  int fd;

  if (folder < 0)
    return folder;
  fd = openat(folder, "state.json", O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOFOLLOW);
  const int error = errno;
  close(folder);
  if (fd < 0)
    return -error;
  char *text = malloc(FZ_LINE_MAX + 2);
  size_t length = 0;
  ssize_t n = text ? 1 : -1;
  while (n > 0 && length <= FZ_LINE_MAX) {
    n = read(fd, text + length, FZ_LINE_MAX + 1 - length);
    if (n > 0)
      length += (size_t)n;
  }
  close(fd);
  if (n < 0 || length == 0 || text[length - 1] != '\n') {
    free(text);
    return n < 0 ? -EIO : -EBADMSG;
  }
  *ret_text = text;
  *ret_length = length - 1;
  return 0;
}

/** Reads the run's file into run->saved. */
static void load(fz_run *run) {
  char *text = NULL, why[FZ_FIELD_MESSAGE_SIZE] = "";
  fz_json *root = NULL;
  size_t length = 0;
  int r;

  if (!run->core->state_dir)
    return;
  r = read_file(run, &text, &length);
  if (r == 0)
    r = fz_json_parse(&root, text, length, why, sizeof(why));
  free(text);
  if (r == 0) {
    uint64_t version = 0;
    const char *name = fz_json_string(fz_json_member(root, "run"));
    if (!fz_json_integer(fz_json_member(root, "version"), &version) || version != STATE_VERSION || !name ||
        strcmp(name, run->name) != 0)
      r = -EPROTO;
  }
  if (r == 0) {
    uint64_t incarnation = 0;
    run->saved = root;
    if (fz_json_integer(fz_json_member(root, "incarnation"), &incarnation))
      run->incarnation = incarnation;
    return;
  }
  fz_json_free(root);
  if (r != -ENOENT)
    fz_run_warn(run, "the saved state in %s/%s cannot be read (%s): the run begins without it", run->core->state_dir,
                run->key, r > 0 ? why : strerror(-r));
}

bool fz_state_knows(const fz_run *run, uint64_t incarnation, uint64_t *ret_gen) {
  uint64_t saved = 0;

  return run->saved && fz_json_integer(fz_json_member(run->saved, "incarnation"), &saved) && saved == incarnation &&
         fz_json_integer(fz_json_member(run->saved, "gen"), ret_gen) &&
         !fz_json_is_true(fz_json_member(run->saved, "anchors_lost"));
}

/* ----------------------------------------------------------------------------------------------------------- restoring */

/** The strings of an array; the array is allocated, the strings are borrowed. */
static int read_strings(const fz_json *array, size_t max_length, const char ***ret_strings, size_t *ret_n,
                        fz_field_error *error) {
  size_t n = 0;
  const char **strings = calloc(fz_json_count(array) + 1, sizeof(*strings));

  if (!strings)
    return -ENOMEM;
  for (const fz_json *item = fz_json_first(array); item; item = fz_json_next(item))
    strings[n++] = fz_json_as_string(item, 0, max_length, error);
  *ret_strings = strings;
  *ret_n = n;
  return 0;
}

/** What an override or a pin has in common, as it was saved. */
struct decision {
  const char **patterns, **dropped;
  size_t n_patterns, n_dropped;
  struct fz_who who;
  const char *reason;
  uint64_t time_ms;
};

static int read_decision(const fz_json *item, struct decision *decision, fz_field_error *error) {
  int r = read_strings(fz_json_get_array(item, "patterns", 0, FZ_PARAMS_MAX, error), FZ_PATTERN_MAX + 8,
                       &decision->patterns, &decision->n_patterns, error);

  if (r == 0)
    r = read_strings(fz_json_get_array(item, "dropped", 0, FZ_PARAMS_MAX, error), FZ_PATTERN_MAX + 8,
                     &decision->dropped, &decision->n_dropped, error);
  decision->who.uid = fz_json_get_integer(item, "uid", 0, FZ_INT_MAX, error);
  decision->who.user = fz_json_get_text(item, "user", FZ_LINE_MAX, error);
  (void)fz_json_find_text(item, "host", FZ_LINE_MAX, &decision->who.host, error);
  (void)fz_json_find_text(item, "reason", FZ_LINE_MAX, &decision->reason, error);
  decision->time_ms = fz_json_get_integer(item, "time_ms", 0, FZ_INT_MAX, error);
  return r;
}

static int restore_override(fz_run *run, fz_layers *layers, const fz_json *item, const struct decision *decision,
                            fz_field_error *error) {
  struct fz_window window = FZ_WINDOW_ALWAYS;
  const size_t action = fz_json_get_word(item, "action", action_names, error);

  window.from_step = fz_json_get_integer(item, "from_step", 0, FZ_STEP_MAX + 1, error);
  window.from_epoch = fz_json_get_integer(item, "from_epoch", 0, FZ_EPOCH_MAX, error);
  (void)fz_json_find_integer(item, "until_step", 0, FZ_INT_MAX, &window.until_step, error);
  (void)fz_json_find_integer(item, "until_epoch", 0, FZ_INT_MAX, &window.until_epoch, error);
  if (fz_field_error_is_set(error))
    return 0;
  const struct fz_override override = {
    .action = (enum fz_action)action,
    .patterns = decision->patterns,
    .n_patterns = decision->n_patterns,
    .dropped = decision->dropped,
    .n_dropped = decision->n_dropped,
    .window = window,
    .time_ms = decision->time_ms,
    .who = decision->who,
    .reason = decision->reason,
  };
  return fz_run_carry_override(run, &override, layers);
}

static int restore_pin(fz_run *run, fz_layers *layers, const fz_json *item, const struct decision *decision,
                       fz_field_error *error) {
  const size_t value = fz_json_get_word(item, "value", value_names, error);

  if (fz_field_error_is_set(error) || decision->n_patterns == 0)
    return 0;
  const struct fz_pin pin = {
    .value = (enum fz_pin_value)value,
    .patterns = decision->patterns,
    .n_patterns = decision->n_patterns,
    .dropped = decision->dropped,
    .n_dropped = decision->n_dropped,
    .time_ms = decision->time_ms,
    .who = decision->who,
    .reason = decision->reason,
  };
  return fz_run_carry_pin(run, &pin, layers);
}

typedef int restore_one(fz_run *run, fz_layers *layers, const fz_json *item, const struct decision *decision,
                        fz_field_error *error);

static int restore_decisions(fz_run *run, fz_layers *layers, const fz_json *array, restore_one *restore,
                             fz_field_error *error) {
  int r = 0;

  for (const fz_json *item = fz_json_first(array); r == 0 && item; item = fz_json_next(item)) {
    struct decision decision = { 0 };
    r = read_decision(item, &decision, error);
    if (r == 0 && !fz_field_error_is_set(error))
      r = restore(run, layers, item, &decision, error);
    free(decision.patterns);
    free(decision.dropped);
  }
  return r;
}

/** The default rules may be other ones by now; in the middle of a run the old ones go on. */
static int restore_rules(fz_run *run, fz_layers *layers, fz_field_error *error) {
  const size_t origin = fz_json_get_word(run->saved, "rules_origin", origin_names, error);
  const fz_json *document = NULL;
  const char *source = NULL, *by = NULL;
  int r = 0;

  if (fz_field_error_is_set(error) || (origin == FZ_RULES_DEFAULT && !run->adopted))
    return 0;
  (void)fz_json_find_text(run->saved, "rules_source", FZ_LINE_MAX, &source, error);
  (void)fz_json_find_text(run->saved, "rules_by", FZ_LINE_MAX, &by, error);
  (void)fz_json_find_object(run->saved, "rules", &document, error);
  if (document)
    r = fz_run_restore_rules(run, layers, document);
  if (r == 0)
    fz_run_name_rules(run, (enum fz_rules_origin)origin, source, by);
  return r < 0 ? r : 0;
}

/** A lighter ruleset goes once more through what it has gone through. */
static int restore_anchors(fz_run *run, fz_layers *layers, fz_field_error *error) {
  int r = 0;

  for (const fz_json *item = fz_json_first(fz_json_get_array(run->saved, "anchors", 0, FZ_ANCHORS_MAX, error));
       r == 0 && item; item = fz_json_next(item)) {
    const fz_json *rewind = fz_json_first(item), *step = fz_json_next(rewind), *epoch = fz_json_next(step);
    struct fz_anchor anchor = { .rewind = fz_json_is_true(rewind) };
    anchor.step = fz_json_as_integer(step, 0, FZ_STEP_MAX, error);
    anchor.epoch = fz_json_as_integer(epoch, 0, FZ_EPOCH_MAX, error);
    if (fz_field_error_is_set(error))
      break;
    r = anchor.rewind ? fz_layers_rewind(layers, anchor.step, anchor.epoch)
                      : fz_layers_anchor(layers, anchor.step, anchor.epoch);
    fz_run_note_anchor(run, layers, anchor.rewind, anchor.step, anchor.epoch);
  }
  return r;
}

int fz_state_restore(fz_run *run, fz_layers *layers) {
  fz_field_error error;
  int r;

  load(run);
  if (!run->saved)
    return 0;
  fz_field_error_init(&error, run->saved);
  r = restore_rules(run, layers, &error);
  if (r == 0)
    r = restore_decisions(run, layers, fz_json_get_array(run->saved, "overrides", 0, FZ_OVERRIDES_MAX, &error),
                          restore_override, &error);
  if (r == 0)
    r = restore_decisions(run, layers, fz_json_get_array(run->saved, "pins", 0, 2 * FZ_PINS_MAX, &error), restore_pin,
                          &error);
  if (r == 0 && run->adopted)
    r = restore_anchors(run, layers, &error);
  if (fz_field_error_is_set(&error))
    fz_run_warn(run, "the saved state in %s/%s is damaged (%s): what follows it there was not restored",
                run->core->state_dir, run->key, error.message);
  return r;
}
