/* ruleset.c - a rules document: its life, its parts, its canonical text. */
#include "config.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/rules/ruleset_internal.h"
#include "protocol/writer.h"

const char *fz_profile_name(enum fz_profile profile) { return profile == FZ_PROFILE_LIGHTER ? "lighter" : "owned"; }

const char *fz_action_name(enum fz_action action) { return action == FZ_TRAIN ? "train" : "freeze"; }

enum fz_phase fz_window_phase(const struct fz_window *window, uint64_t step, uint64_t epoch) {
  if (step >= window->until_step || epoch >= window->until_epoch)
    return FZ_PHASE_OVER;
  return fz_window_active(window, step, epoch) ? FZ_PHASE_ACTIVE : FZ_PHASE_WAITS;
}

static void selectors_deinit(struct fz_selectors *selectors) {
  for (size_t i = 0; i < selectors->n; i++) {
    fz_selector_free(selectors->items[i]);
    free(selectors->pointers[i]);
  }
  free(selectors->items);
  free(selectors->pointers);
}

fz_ruleset *fz_ruleset_ref(fz_ruleset *ruleset) {
  ruleset->references++;
  return ruleset;
}

fz_ruleset *fz_ruleset_unref(fz_ruleset *ruleset) {
  if (!ruleset || --ruleset->references > 0)
    return NULL;
  for (size_t i = 0; i < ruleset->n_rules; i++) {
    selectors_deinit(&ruleset->rules[i].selectors);
    selectors_deinit(&ruleset->rules[i].excepts);
    free(ruleset->rules[i].name);
    free(ruleset->rules[i].shown);
  }
  free(ruleset->rules);
  selectors_deinit(&ruleset->pins);
  free(ruleset->canonical);
  free(ruleset);
  return NULL;
}

enum fz_profile fz_ruleset_profile(const fz_ruleset *ruleset) { return ruleset->profile; }

size_t fz_ruleset_count(const fz_ruleset *ruleset) { return ruleset->n_rules; }

const struct fz_rule *fz_ruleset_get(const fz_ruleset *ruleset, size_t index) {
  assert(index < ruleset->n_rules);
  return &ruleset->rules[index].rule;
}

size_t fz_ruleset_n_pins(const fz_ruleset *ruleset) { return ruleset->pins.n; }

const char *fz_ruleset_pin(const fz_ruleset *ruleset, size_t index) {
  assert(index < ruleset->pins.n);
  return fz_selector_text(ruleset->pins.items[index]);
}

const char *fz_ruleset_canonical(const fz_ruleset *ruleset) { return ruleset->canonical; }

bool fz_ruleset_equal(const fz_ruleset *a, const fz_ruleset *b) {
  if (!a || !b)
    return a == b;
  return strcmp(a->canonical, b->canonical) == 0;
}

static void write_selectors(fz_json_writer *writer, const char *key, const struct fz_selectors *selectors) {
  fz_write_begin_array(writer, key);
  for (size_t i = 0; i < selectors->n; i++)
    fz_write_string(writer, NULL, fz_selector_text(selectors->items[i]));
  fz_write_end_array(writer);
}

static void write_times(fz_json_writer *writer, const char *key, uint64_t step, uint64_t epoch, uint64_t none) {
  if (step == none && epoch == none)
    return;
  fz_write_begin_object(writer, key);
  if (step != none)
    fz_write_integer(writer, "step", step);
  if (epoch != none)
    fz_write_integer(writer, "epoch", epoch);
  fz_write_end_object(writer);
}

int fz_ruleset_write(fz_ruleset *ruleset) {
  __attribute__((cleanup(fz_writer_deinit))) fz_json_writer writer = FZ_JSON_WRITER_NULL;
  fz_write_begin_object(&writer, NULL);
  fz_write_integer(&writer, "version", 1);
  fz_write_string(&writer, "profile", fz_profile_name(ruleset->profile));
  if (ruleset->pins.n > 0)
    write_selectors(&writer, "pin", &ruleset->pins);
  fz_write_begin_array(&writer, "rules");
  for (size_t i = 0; i < ruleset->n_rules; i++) {
    const struct fz_rule_source *source = &ruleset->rules[i];
    const struct fz_window *window = &source->rule.window;
    fz_write_begin_object(&writer, NULL);
    if (source->name)
      fz_write_string(&writer, "name", source->name);
    write_selectors(&writer, fz_action_name(source->rule.action), &source->selectors);
    if (source->excepts.n > 0)
      write_selectors(&writer, "except", &source->excepts);
    write_times(&writer, "from", window->from_step, window->from_epoch, 0);
    write_times(&writer, "until", window->until_step, window->until_epoch, FZ_TIME_NEVER);
    fz_write_end_object(&writer);
  }
  fz_write_end_array(&writer);
  fz_write_end_object(&writer);
  return fz_writer_copy(&writer, &ruleset->canonical, NULL);
}
