/* state.c - what of a run outlives freezerd: its rules, overrides, pins and incarnation, in the state directory. */
#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/pending.h"
#include "daemon/rules/ruleset.h"
#include "daemon/run.h"
#include "daemon/run_carry.h"
#include "daemon/run_rules.h"
#include "daemon/state.h"
#include "daemon/store.h"
#include "daemon/text.h"
#include "protocol/hash.h"
#include "protocol/mask.h"

#define STATE_VERSION 1U
#define SERIAL_MAX (UINT64_C(1) << 52)
/* How long state.json may lag behind the history. */
#define CHECKPOINT_MS 1000

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

/** All fields but `serial`. */
static void write_state(fz_json_writer *writer, const fz_run *run, const fz_layers *layers,
                        const struct fz_state_rules *origin, bool fresh) {
  fz_rules *rules = fz_layers_rules(layers);

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
}

/* ------------------------------------------------------------------------------------------------------------ on disk */

/** The text of the state, without `serial`; allocated. */
static int render(const fz_run *run, const fz_layers *layers, const struct fz_state_rules *rules, char **ret_text,
                  size_t *ret_length) {
  const struct fz_state_rules own = { run->rules_origin, run->rules_source, run->rules_by };
  fz_json_writer writer = FZ_JSON_WRITER_NULL;

  fz_write_begin_object(&writer, NULL);
  write_state(&writer, run, layers, rules ? rules : &own, rules != NULL);
  fz_write_end_object(&writer);
  const int r = fz_writer_copy(&writer, ret_text, ret_length);
  fz_writer_deinit(&writer);
  return r;
}

void fz_state_line_deinit(struct fz_state_line *line) {
  fz_writer_deinit(&line->writer);
  *line = (struct fz_state_line)FZ_STATE_LINE_NULL;
}

/** The line around the text of a state. */
static int wrap(struct fz_state_line *line, const fz_run *run, const struct fz_record *about, uint64_t serial,
                const char *state, size_t length) {
  fz_json_writer *writer = &line->writer;

  fz_write_begin_object(writer, NULL);
  fz_record_write(writer, run, about);
  fz_write_integer(writer, "serial", serial);
  fz_write_raw(writer, "state", state, length);
  fz_write_end_object(writer);
  return fz_writer_line(writer, &line->text, &line->length);
}

int fz_state_line_make(struct fz_state_line *line, const fz_run *run, const fz_layers *layers,
                       const struct fz_state_rules *rules, const struct fz_record *about, uint64_t serial) {
  char *state = NULL;
  size_t length = 0;
  int r = render(run, layers, rules, &state, &length);

  if (r < 0)
    return r;
  line->hash = fz_hash_bytes(FZ_HASH_START, state, length);
  r = wrap(line, run, about, serial, state, length);
  free(state);
  return r;
}

void fz_state_kept(fz_run *run, uint64_t n, uint64_t hash) {
  run->serial += n;
  run->saved_hash = hash;
  if (run->core->state_dir && !run->checkpoint.due)
    fz_timer_start(&run->core->timers, &run->checkpoint, CHECKPOINT_MS);
}

int fz_state_save(fz_run *run, const struct fz_record *about) {
  const struct fz_record plain = { .event = "state", .gen = carrying_gen(run, run->layers) };
  struct fz_state_line line = FZ_STATE_LINE_NULL;
  char *state = NULL;
  size_t length = 0;
  int r = render(run, run->layers, NULL, &state, &length);

  if (r < 0)
    return r;
  const uint64_t hash = fz_hash_bytes(FZ_HASH_START, state, length);
  if (about || hash != run->saved_hash) {
    r = wrap(&line, run, about ? about : &plain, run->serial + 1, state, length);
    if (r == 0)
      r = fz_history_add(run, line.text, line.length, true);
    if (r == 0)
      fz_state_kept(run, 1, hash);
    else
      run->saved_hash = 0;
  }
  fz_state_line_deinit(&line);
  free(state);
  return r;
}

void fz_state_checkpoint(fz_run *run) {
  fz_json_writer writer = FZ_JSON_WRITER_NULL;
  const struct fz_state_rules own = { run->rules_origin, run->rules_source, run->rules_by };
  const char *text;
  size_t length;

  fz_timer_stop(&run->core->timers, &run->checkpoint);
  if (!run->core->state_dir || !run->layers || run->checkpointed == run->serial)
    return;
  fz_write_begin_object(&writer, NULL);
  write_state(&writer, run, run->layers, &own, false);
  fz_write_integer(&writer, "serial", run->serial);
  fz_write_end_object(&writer);
  int r = fz_writer_line(&writer, &text, &length);
  const int folder = r == 0 ? fz_store_open(run, true) : r;
  r = folder < 0 ? folder : fz_store_replace(folder, "state.json", text, length);
  if (folder >= 0)
    close(folder);
  fz_writer_deinit(&writer);
  if (r == 0)
    run->checkpointed = run->serial;
  else
    fz_run_warn(run, "state.json cannot be written, the history alone holds the run's state: %s", strerror(-r));
}

/* ------------------------------------------------------------------------------------------------------------- reading */

/** What was read: state.json, or a line of the history with the state in it. */
static const fz_json *saved_state(const fz_run *run) {
  const fz_json *state = fz_json_member(run->saved, "state");

  return state ? state : run->saved;
}

/** Whether it is a state of this run that we understand. */
static bool is_ours(const fz_run *run, const fz_json *state) {
  const char *name = fz_json_string(fz_json_member(state, "run"));
  uint64_t version = 0;

  return fz_json_integer(fz_json_member(state, "version"), &version) && version == STATE_VERSION && name &&
         strcmp(name, run->name) == 0;
}

/** 0 as well if nobody can have counted so far: behind such a number the next ones would not be read exactly. */
static uint64_t serial_of(const fz_json *root) {
  uint64_t serial = 0;

  return fz_json_integer(fz_json_member(root, "serial"), &serial) && serial <= SERIAL_MAX ? serial : 0;
}

/** The run's state.json. -ENOENT: there is none. */
static int load_file(const fz_run *run, fz_json **ret_root, char *why, size_t size) {
  fz_json *root = NULL;
  char *text = NULL;
  size_t length = 0;
  const int folder = fz_store_open(run, false);

  if (folder < 0)
    return folder;
  int r = fz_store_read(folder, "state.json", FZ_LINE_MAX + 1, &text, &length);
  close(folder);
  if (r == 0)
    r = length && text[length - 1] == '\n' ? fz_json_parse(&root, text, length - 1, why, size) : -EBADMSG;
  free(text);
  if (r == 0 && !is_ours(run, root)) {
    fz_json_free(root);
    return -EPROTO;
  }
  *ret_root = root;
  return r;
}

/** The newest line of the history that holds a state. -ENOENT: there is none. */
static int load_line(const fz_run *run, fz_json **ret_line) {
  struct fz_history_cursor cursor = { 0 };
  char *text = NULL;
  fz_json *line = NULL;
  int r = fz_history_read(run, &text, &cursor.length);

  cursor.text = text;
  while (r == 0 && (line = fz_history_older(&cursor)) && !is_ours(run, fz_json_member(line, "state")))
    fz_json_free(line);
  free(text);
  if (r == 0)
    r = cursor.error;
  if (r == 0)
    *ret_line = line;
  return r == 0 && !line ? -ENOENT : r;
}

/** Whether what is wrong is the file itself: it will be no better the next time. */
static bool is_damage(int outcome) {
  return outcome > 0 || outcome == -EBADMSG || outcome == -EPROTO || outcome == -EFBIG || outcome == -EINVAL ||
         outcome == -ELOOP || outcome == -EPERM;
}

/**
 * Reads what was kept of the run into run->saved: the newer of state.json and the end of the history. A run that lost what
 * was confirmed because there was no memory, or no descriptor, for a moment would not get it back: then it is an error.
 */
static int load(fz_run *run) {
  char why[FZ_FIELD_MESSAGE_SIZE] = "";
  fz_json *file = NULL, *line = NULL;
  uint64_t incarnation = 0;

  if (!run->core->state_dir)
    return 0;
  int r = fz_history_mend(run);
  if (r == 0)
    r = load_line(run, &line);
  if (r != 0 && r != -ENOENT && !is_damage(r))
    return r;
  if (r != 0 && r != -ENOENT)
    fz_run_warn(run, "the history in %s/%s cannot be read: %s", run->core->state_dir, run->key, strerror(-r));
  r = load_file(run, &file, why, sizeof(why));
  if (r != 0 && r != -ENOENT && !is_damage(r)) {
    fz_json_free(line);
    return r;
  }
  if (r != 0 && r != -ENOENT)
    fz_run_warn(run, "the saved state in %s/%s cannot be read (%s): the run begins %s", run->core->state_dir, run->key,
                r > 0 ? why : strerror(-r), line ? "with what its history says" : "without it");
  run->serial = serial_of(file) > serial_of(line) ? serial_of(file) : serial_of(line);
  run->saved = line && (!file || serial_of(line) > serial_of(file)) ? line : file;
  fz_json_free(run->saved == line ? file : line);
  if (fz_json_integer(fz_json_member(saved_state(run), "incarnation"), &incarnation))
    run->incarnation = incarnation;
  return 0;
}

bool fz_state_knows(const fz_run *run, uint64_t incarnation, uint64_t *ret_gen) {
  const fz_json *state = saved_state(run);
  uint64_t saved = 0;

  return state && fz_json_integer(fz_json_member(state, "incarnation"), &saved) && saved == incarnation &&
         fz_json_integer(fz_json_member(state, "gen"), ret_gen) &&
         !fz_json_is_true(fz_json_member(state, "anchors_lost"));
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
static int restore_rules(fz_run *run, fz_layers *layers, const fz_json *state, fz_field_error *error) {
  const size_t origin = fz_json_get_word(state, "rules_origin", origin_names, error);
  const fz_json *document = NULL;
  const char *source = NULL, *by = NULL;
  int r = 0;

  if (fz_field_error_is_set(error) || (origin == FZ_RULES_DEFAULT && !run->adopted))
    return 0;
  (void)fz_json_find_text(state, "rules_source", FZ_LINE_MAX, &source, error);
  (void)fz_json_find_text(state, "rules_by", FZ_LINE_MAX, &by, error);
  (void)fz_json_find_object(state, "rules", &document, error);
  if (document)
    r = fz_run_restore_rules(run, layers, document);
  if (r == 0)
    fz_run_name_rules(run, (enum fz_rules_origin)origin, source, by);
  return r < 0 ? r : 0;
}

/** A lighter ruleset goes once more through what it has gone through. */
static int restore_anchors(fz_run *run, fz_layers *layers, const fz_json *state, fz_field_error *error) {
  int r = 0;

  for (const fz_json *item = fz_json_first(fz_json_get_array(state, "anchors", 0, FZ_ANCHORS_MAX, error));
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

static int restore_overrides_and_pins(fz_run *run, fz_layers *layers, const fz_json *state, fz_field_error *error) {
  int r = restore_decisions(run, layers, fz_json_get_array(state, "overrides", 0, FZ_OVERRIDES_MAX, error),
                            restore_override, error);

  if (r == 0)
    r = restore_decisions(run, layers, fz_json_get_array(state, "pins", 0, 2 * FZ_PINS_MAX, error), restore_pin, error);
  return r;
}

int fz_state_restore(fz_run *run, fz_layers *layers) {
  fz_field_error error;
  int r = load(run);
  const fz_json *state = r == 0 ? saved_state(run) : NULL;

  if (!state)
    return r;
  fz_field_error_init(&error, state);
  r = restore_rules(run, layers, state, &error);
  if (r == 0)
    r = restore_overrides_and_pins(run, layers, state, &error);
  if (r == 0 && run->adopted)
    r = restore_anchors(run, layers, state, &error);
  if (fz_field_error_is_set(&error))
    fz_run_warn(run, "the saved state in %s/%s is damaged (%s): what follows it there was not restored",
                run->core->state_dir, run->key, error.message);
  if (r < 0) {
    /* It will be tried again, from the beginning. */
    run->saved = fz_json_free(run->saved);
    fz_run_forget_anchors(run);
  }
  return r;
}

int fz_state_decisions(fz_run *run, const fz_json *state, fz_layers *layers, struct fz_state_rules *ret_rules) {
  struct fz_state_rules rules = { .origin = FZ_RULES_NONE };
  const fz_json *document = NULL;
  fz_field_error error;
  int r = 0;

  fz_field_error_init(&error, state);
  rules.origin = (enum fz_rules_origin)fz_json_get_word(state, "rules_origin", origin_names, &error);
  (void)fz_json_find_text(state, "rules_source", FZ_LINE_MAX, &rules.source, &error);
  (void)fz_json_find_text(state, "rules_by", FZ_LINE_MAX, &rules.by, &error);
  if (fz_json_find_object(state, "rules", &document, &error))
    r = fz_run_restore_rules(run, layers, document);
  if (r == 0)
    r = restore_overrides_and_pins(run, layers, state, &error);
  if (r == 0 && fz_field_error_is_set(&error))
    r = -EBADMSG;
  if (r == 0)
    *ret_rules = rules;
  return r;
}
