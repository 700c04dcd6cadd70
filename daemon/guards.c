/* guards.c - changes that are refused, or want to be meant: the sentences for each, in one place. */
#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/guards.h"
#include "daemon/rules/explain.h"
#include "daemon/run.h"
#include "daemon/text.h"
#include "protocol/mask.h"

/* What pyfreezer says of a parameter, and what helps against it; PROTOCOL.md leaves the words to the trainer. */
static const struct {
  const char *code, *hint;
} trainer_hints[] = {
  { "NO_OPTIMIZER", "it is in no optimizer: build that within 'with pyfreezer.thawed(model):', so that it gets all" },
  { "LEFT_ALONE", "the script froze it, and Freezer was to leave that alone: name it in FreezerCallback(also=[...])" },
  { "DDP_NOT_COVERED", "wrap the model with find_unused_parameters=True, or give attach() a function as 'rewrap'" },
  { "NOT_FLOATING_POINT", "it is not of floating point and has no gradient: it can never train" },
  { "NOT_LEAF", "it is computed from other parameters: freeze or unfreeze those" },
  { "INFERENCE", "it was made under torch.inference_mode(): make it outside" },
};

static const char *trainer_hint(const char *code) {
  for (size_t i = 0; i < sizeof(trainer_hints) / sizeof(trainer_hints[0]); i++)
    if (strcmp(trainer_hints[i].code, code) == 0)
      return trainer_hints[i].hint;
  return "change it in the training script; no flag helps here";
}

static void refuse_pinned(fz_client *client, const fz_request *request, const fz_run *run,
                          const struct fz_change_counts *counts) {
  const struct fz_cause *cause = &counts->pinned_by;
  const struct fz_param *param = fz_params_get(run->params, counts->pinned_first);
  const char *const code = param->may_freeze ? param->may_freeze : param->may_train ? param->may_train : "no";
  char *hint = NULL;
  const size_t n = counts->pinned;

  switch (cause->pin_by) {
  case FZ_PIN_BY_TRAINER:
    fz_client_error(client, request->id, FZ_CODE_REFUSED_TRAINER, trainer_hint(code),
                    "refused: %zu parameter%s cannot change, the trainer says %s of '%.300s'", n, fz_text_plural(n),
                    code, param->name);
    return;
  case FZ_PIN_BY_RULES:
    fz_client_error(client, request->id, FZ_CODE_REFUSED_PINNED, "take them out of the rules' 'pin' and load the rules",
                    "refused: %zu parameter%s pinned by the rules, '%.300s' for one", n, n == 1 ? " is" : "s are",
                    param->name);
    return;
  case FZ_PIN_BY_USER:
    break;
  }
  const struct fz_pin *pin = fz_layers_pin(run->layers, cause->index);
  hint = fz_text_command("freezerctl unpin", (char *const *)(void *)pin->patterns, pin->n_patterns);
  fz_client_error(client, request->id, FZ_CODE_REFUSED_PINNED, hint, "refused: %zu parameter%s pinned by %s", n,
                  n == 1 ? " is" : "s are", pin->who.user);
  free(hint);
}

/*
 * What it would cost. A guess, of 32 bits for the gradient and for each of Adam's two moments, and left out where it is no
 * argument.
 */
static void refuse_baseline(fz_client *client, const fz_request *request, const fz_run *run,
                            const struct fz_change_counts *counts) {
  const double bytes = 12.0 * (double)counts->baseline_elements;
  const size_t n = counts->baseline;
  char cost[128] = "";

  if (bytes >= 1e6)
    snprintf(cost, sizeof(cost), "\n  thawing %s adds about %.*f %s of gradients and AdamW state on each rank",
             n == 1 ? "it" : "them", bytes >= 1e9, bytes / (bytes >= 1e9 ? 1e9 : 1e6), bytes >= 1e9 ? "GB" : "MB");
  fz_client_error(client, request->id, FZ_CODE_REFUSED_BASELINE,
                  "'freezerctl auto \"**\"' drops Freezer's own changes; else add --force --include-baseline",
                  "refused: %zu of %zu parameters %s frozen by the script, not by Freezer (LoRA?)%s", n,
                  fz_params_count(run->params), n == 1 ? "was" : "were", cost);
}

void fz_guard_refused(fz_client *client, const fz_request *request, const fz_run *run, enum fz_change what,
                      const struct fz_change_counts *counts) {
  switch (what) {
  case FZ_CHANGE_PINNED:
    refuse_pinned(client, request, run, counts);
    return;
  case FZ_CHANGE_BASELINE:
    refuse_baseline(client, request, run, counts);
    return;
  case FZ_CHANGE_FULL:
    fz_client_error(client, request->id, FZ_CODE_TOO_MANY, "'freezerctl auto' and 'unpin' make room",
                    "run %s has too many overrides or pins", run->name);
    return;
  case FZ_CHANGE_NOTHING:
  case FZ_CHANGE_NO_SUCH:
    break;
  }
}

bool fz_guard_no_such(fz_client *client, const fz_request *request, const fz_run *run,
                      const struct fz_change_counts *counts) {
  if (request->op != FZ_OP_UNPIN || counts->pinned == 0)
    return false;
  refuse_pinned(client, request, run, counts);
  return true;
}

/** The first row of the plan in which nothing trains although something does without the change; n_rows: none. */
static int first_emptied(const fz_run *run, const fz_layers *layers, const fz_plan *plan, size_t *ret_row) {
  const size_t n = fz_params_count(run->params);
  uint64_t *before = calloc(fz_mask_words(n) + 1, sizeof(*before));
  int r = before ? 0 : -ENOMEM;
  size_t row = n ? 0 : plan->n_rows;

  for (; r == 0 && row < plan->n_rows; row++) {
    if (fz_mask_count(fz_plan_mask(plan, row), n) > 0)
      continue;
    r = fz_layers_eval(layers, plan->rows[row].from_step, plan->rows[row].from_epoch, before, NULL);
    if (r == 0 && fz_mask_count(before, n) > 0)
      break;
  }
  free(before);
  *ret_row = row;
  return r;
}

static bool is_lighter(const fz_layers *layers) {
  fz_rules *rules = fz_layers_rules(layers);

  return rules && fz_ruleset_profile(fz_rules_ruleset(rules)) == FZ_PROFILE_LIGHTER;
}

static int judge_empty(fz_client *client, const fz_request *request, const fz_run *run, const fz_layers *before,
                       const fz_layers *layers, const fz_plan *plan, struct fz_outcome *outcome) {
  char number[FZ_COUNT_SIZE], when[80];
  size_t row;

  if (first_emptied(run, before, plan, &row) < 0) {
    fz_client_error(client, request->id, FZ_CODE_NO_MEMORY, NULL, "out of memory");
    return -ENOMEM;
  }
  if (row == plan->n_rows)
    return 0;
  const struct fz_plan_row *at = &plan->rows[row];
  if (at->from_epoch > 0)
    snprintf(when, sizeof(when), "from epoch %s on", fz_text_number(at->from_epoch, number));
  else if (at->from_step > plan->active_from)
    snprintf(when, sizeof(when), "from step %s on", fz_text_number(at->from_step, number));
  else
    snprintf(when, sizeof(when), "now");
  const bool loads = request->op == FZ_OP_RULES_LOAD && is_lighter(layers);
  if (request->force || loads) {
    fz_outcome_warn(outcome, "nothing trains %s: the loss cannot fall any more", when);
    return 0;
  }
  fz_client_error(client, request->id, FZ_CODE_REFUSED_EMPTY, "--force does it all the same",
                  "refused: every parameter of run %s would be frozen %s, nothing would train", run->name, when);
  return -EPERM;
}

int fz_guard_revert(fz_client *client, const fz_request *request, const fz_pending *pending,
                    struct fz_outcome *outcome) {
  if (request->op != FZ_OP_REVERT || pending->undone < 2 || request->yes || request->force)
    return 0;
  if (request->dry_run) {
    fz_outcome_warn(outcome, "it takes back %zu changes: it will need --yes", pending->undone);
    return 0;
  }
  fz_client_error(client, request->id, FZ_CODE_NEEDS_YES, "add --yes if that is meant",
                  "refused: it takes back %zu changes", pending->undone);
  return -EPERM;
}

int fz_guard_judge(fz_client *client, const fz_request *request, const fz_run *run, const fz_layers *before,
                   const fz_layers *layers, const fz_plan *plan, struct fz_outcome *outcome) {
  char froze[FZ_COUNT_SIZE], trains[FZ_COUNT_SIZE];
  const int r = judge_empty(client, request, run, before, layers, plan, outcome);

  if (r < 0)
    return r;
  const struct fz_mask_delta *delta = &outcome->delta;
  /* Twice a sum of 64 bits might not fit. */
  if (delta->froze_elements == 0 || delta->froze_elements < outcome->trainable_before - delta->froze_elements ||
      request->yes || request->force)
    return 0;
  fz_text_elements(delta->froze_elements, froze);
  fz_text_elements(outcome->trainable_before, trains);
  if (request->dry_run) {
    fz_outcome_warn(outcome, "it freezes %s of the %s elements that train: it will need --yes", froze, trains);
    return 0;
  }
  fz_client_error(client, request->id, FZ_CODE_NEEDS_YES, "add --yes if that is meant",
                  "refused: it freezes %s of the %s elements that train", froze, trains);
  return -EPERM;
}
