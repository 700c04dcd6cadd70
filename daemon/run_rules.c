/* run_rules.c - which rules a run has: its trainer's, freezerd's default, or loaded ones. */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/record.h"
#include "daemon/rules/planner.h"
#include "daemon/run.h"
#include "daemon/run_rules.h"
#include "daemon/text.h"
#include "daemon/trainer.h"

void fz_run_name_rules(fz_run *run, enum fz_rules_origin origin, const char *source, const char *by) {
  char *new_source = source ? strdup(source) : NULL, *new_by = by ? strdup(by) : NULL;

  free(run->rules_source);
  free(run->rules_by);
  run->rules_source = new_source;
  run->rules_by = new_by;
  run->rules_origin = origin;
}

/** The rules cannot apply: said everywhere. */
static void say_without(fz_run *run, const char *whose, const fz_diagnostics *diagnostics) {
  const struct fz_diagnostic *first = fz_diagnostics_first_error(diagnostics);
  const bool placed = first && *first->pointer;
  char *text = fz_text_format("%s were not taken: %s%s%s%s%s%s", whose, first ? first->message : "out of memory",
                              placed ? " (at " : "", placed ? first->pointer : "", placed ? ")" : "",
                              first && first->hint ? "; " : "", first && first->hint ? first->hint : "");

  if (!text)
    return;
  fz_run_warn(run, "%s", text);
  fz_run_notice(run, FZ_LEVEL_ERROR, "rules_invalid", text);
  fz_record_add(run, &(const struct fz_record){ .event = "refused", .gen = run->plan.gen, .text = text });
  free(text);
}

/** Sets a ruleset on the run's layers, which have no plan of this launch yet. */
static int set_rules(fz_run *run, fz_ruleset *ruleset, const char *whose, fz_diagnostics *diagnostics) {
  fz_rules *rules = NULL;
  fz_layers *layers = NULL, *in_force = NULL;
  uint64_t step, epoch;
  int r = fz_ruleset_bind(ruleset, run->params, run->name, false, &rules, diagnostics);

  if (r != 0) {
    if (r != -ENOMEM)
      say_without(run, whose, diagnostics);
    return r < 0 ? r : -EINVAL;
  }
  fz_run_now(run, &step, &epoch);
  r = fz_layers_clone(run->layers, &layers);
  if (r == 0)
    r = fz_layers_clone(run->in_force, &in_force);
  if (r == 0)
    r = fz_layers_set_rules(layers, rules, step, epoch);
  if (r >= 0)
    r = fz_layers_set_rules(in_force, rules, step, epoch);
  fz_rules_unref(rules);
  if (r < 0) {
    fz_layers_free(layers);
    fz_layers_free(in_force);
    return r;
  }
  fz_layers_free(run->layers);
  fz_layers_free(run->in_force);
  run->layers = layers;
  run->in_force = in_force;
  for (size_t i = 0; i < diagnostics->n; i++)
    if (diagnostics->items[i].severity == FZ_WARNING)
      fz_run_warn(run, "%s: %s", whose, diagnostics->items[i].message);
  run->rules_unproven = true;
  fz_run_forget_anchors(run);
  return 0;
}

static bool has_equal_rules(const fz_run *run, const fz_ruleset *ruleset) {
  fz_rules *rules = run->layers ? fz_layers_rules(run->layers) : NULL;

  return rules && fz_ruleset_equal(fz_rules_ruleset(rules), ruleset);
}

/** 0; negative errno: they could not be taken, which was said unless it is -ENOMEM. */
static int take_trainer_rules(fz_run *run, fz_trainer *trainer, fz_ruleset *ruleset, fz_diagnostics *diagnostics) {
  if (has_equal_rules(run, ruleset)) {
    if (run->rules_origin == FZ_RULES_DEFAULT)
      fz_run_name_rules(run, FZ_RULES_TRAINER, "the trainer", NULL);
    return 0;
  }
  if (run->rules_origin == FZ_RULES_CONTROL) {
    fz_trainer_notice(trainer, FZ_LEVEL_WARNING, "rules_kept",
                      "this run goes on with what freezerctl made of its rules; the trainer's own are not loaded");
    return 0;
  }
  /* Within a launch the first rank's rules count. After an adoption nobody knows what they were: take what comes. */
  if (!run->adopted && (run->plan.gen > 0 || fz_run_attached(run) > 0 || run->rules_unproven)) {
    fz_run_warn(run, "a rank brings other rules than the run has; they were not taken");
    fz_trainer_notice(trainer, FZ_LEVEL_ERROR, "rules_invalid",
                      "the rules differ from those that the run has already; they were not taken");
    return 0;
  }
  const int r = set_rules(run, ruleset, "the trainer's rules", diagnostics);
  if (r == 0)
    fz_run_name_rules(run, FZ_RULES_TRAINER, "the trainer", NULL);
  return r;
}

/** The file may have been read again since the run's last launch. */
static bool takes_default(const fz_run *run) {
  if (!run->core->default_rules)
    return false;
  if (run->rules_origin == FZ_RULES_DEFAULT)
    return run->new_processes && !has_equal_rules(run, run->core->default_rules);
  return run->rules_origin == FZ_RULES_NONE && !fz_layers_rules(run->layers);
}

/** Rules of a file that says something else now. */
static int drop_rules(fz_run *run) {
  uint64_t step, epoch;

  fz_run_now(run, &step, &epoch);
  const int r = fz_layers_set_rules(run->layers, NULL, step, epoch);
  return r < 0 ? r : fz_layers_set_rules(run->in_force, NULL, step, epoch);
}

int fz_run_attach_rules(fz_run *run, fz_trainer *trainer, const char *text) {
  fz_diagnostics diagnostics = FZ_DIAGNOSTICS_NULL;
  fz_ruleset *ruleset = NULL;
  int r = 0;

  if (text) {
    r = fz_ruleset_parse(&ruleset, text, strlen(text), &diagnostics);
    if (r == 0)
      r = take_trainer_rules(run, trainer, ruleset, &diagnostics);
    else if (r != -ENOMEM)
      say_without(run, "the trainer's rules", &diagnostics);
  } else if (takes_default(run)) {
    /* Named before they are tried: a second rank shall not say it all again. */
    fz_run_name_rules(run, FZ_RULES_DEFAULT, run->core->default_source, NULL);
    r = fz_layers_rules(run->layers) ? drop_rules(run) : 0;
    if (r >= 0)
      r = set_rules(run, run->core->default_rules, "the default rules", &diagnostics);
    if (r == -ENOMEM)
      fz_run_name_rules(run, FZ_RULES_NONE, NULL, NULL);
  }
  fz_ruleset_unref(ruleset);
  fz_diagnostics_deinit(&diagnostics);
  return r == -ENOMEM ? r : 0;
}

int fz_run_carry_rules(fz_run *run, fz_layers *layers) {
  fz_rules *old = fz_layers_rules(run->layers), *rules = NULL;
  fz_diagnostics diagnostics = FZ_DIAGNOSTICS_NULL;
  int r;

  if (!old)
    return 0;
  r = fz_ruleset_bind(fz_rules_ruleset(old), fz_layers_params(layers), run->name, false, &rules, &diagnostics);
  if (r > 0) {
    say_without(run, "the run's rules", &diagnostics);
    fz_run_name_rules(run, FZ_RULES_NONE, NULL, NULL);
    r = 0;
  } else if (r == 0) {
    r = fz_layers_set_rules(layers, rules, 0, 0);
    fz_rules_unref(rules);
    run->rules_unproven = true;
  }
  fz_diagnostics_deinit(&diagnostics);
  return r > 0 ? 0 : r;
}

int fz_run_restore_rules(fz_run *run, fz_layers *layers, const fz_json *document) {
  fz_diagnostics diagnostics = FZ_DIAGNOSTICS_NULL;
  fz_ruleset *ruleset = NULL;
  fz_rules *rules = NULL;
  char *text = NULL;
  size_t length = 0;
  int r = fz_json_to_text(document, FZ_RULES_TEXT_MAX, &text, &length);

  if (r == 0)
    r = fz_ruleset_parse(&ruleset, text, length, &diagnostics);
  if (r == 0)
    r = fz_ruleset_bind(ruleset, fz_layers_params(layers), run->name, true, &rules, &diagnostics);
  if (r == 0)
    r = fz_layers_set_rules(layers, rules, 0, 0);
  if (r > 0)
    say_without(run, "the saved rules", &diagnostics);
  free(text);
  fz_rules_unref(rules);
  fz_ruleset_unref(ruleset);
  fz_diagnostics_deinit(&diagnostics);
  return r == -ENOMEM ? r : 0;
}

bool fz_run_prove_rules(fz_run *run, const fz_plan *plan) {
  fz_rules *rules = fz_layers_rules(run->layers);
  const size_t row = fz_plan_first_empty(plan);
  uint64_t step, epoch;

  run->rules_unproven = false;
  if (!rules || row == plan->n_rows)
    return false;
  if (fz_ruleset_profile(fz_rules_ruleset(rules)) == FZ_PROFILE_LIGHTER) {
    fz_run_warn(run, "the rules freeze everything from step %llu on", (unsigned long long)plan->rows[row].from_step);
    return false;
  }
  fz_run_now(run, &step, &epoch);
  if (fz_layers_set_rules(run->layers, NULL, step, epoch) < 0 ||
      fz_layers_set_rules(run->in_force, NULL, step, epoch) < 0)
    return false;
  fz_run_warn(run, "the rules would freeze everything from step %llu on; the run goes on without them",
              (unsigned long long)plan->rows[row].from_step);
  fz_run_notice(run, FZ_LEVEL_ERROR, "rules_invalid",
                "the rules would freeze everything; the run goes on without them");
  return true;
}
