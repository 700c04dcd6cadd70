/* control_rules.c - operations on rules that change nothing: check and show. */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/control.h"
#include "daemon/rules/report.h"
#include "daemon/run.h"
#include "protocol/mask.h"

/* -------------------------------------------------------------------------------------------------------------- check */

/** How many parameters each selector of a rule selects. */
static int write_matches(fz_ruleset *ruleset, const fz_params *params, fz_json_writer *writer) {
  const size_t words = fz_mask_words(fz_params_count(params));
  uint64_t *mask = calloc(words + 1, sizeof(*mask));
  int r = mask ? 0 : -ENOMEM;

  fz_write_begin_array(writer, "matches");
  for (size_t i = 0; i < fz_ruleset_count(ruleset); i++) {
    const struct fz_rule *rule = fz_ruleset_get(ruleset, i);
    fz_write_begin_array(writer, NULL);
    for (size_t s = 0; r == 0 && s < rule->n_selectors; s++) {
      size_t matched = 0;
      r = fz_selector_match(rule->selectors[s], params, mask, &matched);
      fz_write_integer(writer, NULL, matched);
    }
    fz_write_end_array(writer);
  }
  fz_write_end_array(writer);
  free(mask);
  return r;
}

static void answer_check(fz_client *client, const fz_request *request, const fz_run *run, fz_ruleset *ruleset,
                         const fz_diagnostics *diagnostics) {
  fz_json_writer *writer = &client->core->writer;

  fz_answer_begin(writer, request->id);
  fz_write_string(writer, "run", run->name);
  const int r = write_matches(ruleset, run->params, writer);
  fz_write_begin_array(writer, "warnings");
  for (size_t i = 0; i < diagnostics->n; i++)
    fz_write_string(writer, NULL, diagnostics->items[i].message);
  fz_write_end_array(writer);
  fz_write_end_object(writer);
  if (r == 0) {
    fz_client_send(client);
    return;
  }
  fz_writer_reset(writer);
  fz_client_error(client, request->id, r == -E2BIG ? FZ_CODE_BAD_PATTERN : FZ_CODE_NO_MEMORY, NULL, "%s",
                  r == -E2BIG ? "a regular expression takes too long" : "out of memory");
}

void fz_op_rules_check(fz_client *client, const fz_request *request) {
  const fz_run *run = fz_control_run(client, request);
  fz_diagnostics diagnostics = FZ_DIAGNOSTICS_NULL;
  fz_rules *rules = NULL;
  char *text = NULL;
  size_t length = 0;

  if (!run)
    return;
  int r = fz_json_to_text(request->rules, FZ_RULES_TEXT_MAX, &text, &length);
  if (r == 0)
    r = fz_ruleset_check(text, length, run->params, run->name, request->allow_missing, &rules, &diagnostics);
  if (r == 0)
    answer_check(client, request, run, fz_rules_ruleset(rules), &diagnostics);
  else if (r > 0)
    fz_control_rules_invalid(client, request->id, &diagnostics);
  else
    fz_client_error(client, request->id, r == -E2BIG ? FZ_CODE_TOO_MANY : FZ_CODE_NO_MEMORY, NULL, "%s",
                    r == -E2BIG ? "the rules are too long" : "out of memory");
  free(text);
  fz_rules_unref(rules);
  fz_diagnostics_deinit(&diagnostics);
}

/* --------------------------------------------------------------------------------------------------------------- show */

static const char *const phase_names[] = {
  [FZ_PHASE_WAITS] = "waits",
  [FZ_PHASE_ACTIVE] = "active",
  [FZ_PHASE_OVER] = "over",
};

static void write_rule(const struct fz_rule *rule, const struct fz_rule_report *report, fz_json_writer *writer) {
  fz_write_begin_object(writer, NULL);
  fz_write_string(writer, "name", rule->name);
  fz_write_string(writer, "action", fz_action_name(rule->action));
  fz_write_begin_array(writer, "selectors");
  for (size_t i = 0; i < rule->n_selectors; i++)
    fz_write_string(writer, NULL, fz_selector_text(rule->selectors[i]));
  fz_write_end_array(writer);
  fz_write_integer(writer, "matches", report->matches);
  fz_write_integer(writer, "from_step", rule->window.from_step);
  fz_write_integer(writer, "from_epoch", rule->window.from_epoch);
  fz_write_time(writer, "until_step", rule->window.until_step);
  fz_write_time(writer, "until_epoch", rule->window.until_epoch);
  fz_write_string(writer, "now", phase_names[report->phase]);
  fz_write_string(writer, "shadowed", report->shadowed);
  fz_write_end_object(writer);
}

static void answer_show(fz_client *client, const fz_request *request, const fz_run *run, fz_ruleset *ruleset,
                        const struct fz_rule_report *reports) {
  fz_json_writer *writer = &client->core->writer;

  fz_answer_begin(writer, request->id);
  fz_write_string(writer, "run", run->name);
  fz_write_string(writer, "source", run->rules_source);
  fz_write_string(writer, "by", run->rules_by);
  fz_write_string(writer, "profile", fz_profile_name(fz_ruleset_profile(ruleset)));
  fz_write_begin_array(writer, "rules");
  for (size_t i = 0; i < fz_ruleset_count(ruleset); i++)
    write_rule(fz_ruleset_get(ruleset, i), &reports[i], writer);
  fz_write_end_array(writer);
  fz_write_begin_array(writer, "pins");
  for (size_t i = 0; i < fz_ruleset_n_pins(ruleset); i++)
    fz_write_string(writer, NULL, fz_ruleset_pin(ruleset, i));
  fz_write_end_array(writer);
  const char *canonical = fz_ruleset_canonical(ruleset);
  fz_write_raw(writer, "document", canonical, strlen(canonical));
  fz_write_begin_object(writer, "horizon");
  fz_write_time(writer, "step", run->plan.horizon_step);
  fz_write_time(writer, "epoch", run->plan.horizon_epoch);
  fz_write_bool(writer, "beyond", run->plan.horizon_step != FZ_TIME_NEVER || run->plan.horizon_epoch != FZ_TIME_NEVER);
  fz_write_end_object(writer);
  fz_write_end_object(writer);
  fz_client_send(client);
}

void fz_op_rules_show(fz_client *client, const fz_request *request) {
  const fz_run *run = fz_control_run(client, request);
  struct fz_rule_report *reports = NULL;
  uint64_t step, epoch;
  size_t n = 0;

  if (!run)
    return;
  fz_rules *rules = fz_layers_rules(run->layers);
  if (!rules) {
    fz_client_error(client, request->id, FZ_CODE_NO_RULES, "'freezerctl rules load FILE' loads some",
                    "run %s has no rules", run->name);
    return;
  }
  fz_run_now(run, &step, &epoch);
  if (fz_rules_report(run->layers, step, epoch, &reports, &n) < 0) {
    fz_client_error(client, request->id, FZ_CODE_NO_MEMORY, NULL, "out of memory");
    return;
  }
  answer_show(client, request, run, fz_rules_ruleset(rules), reports);
  fz_rule_reports_free(reports, n);
}
