/* cmd_change.c - freeze, unfreeze, auto, pin, unpin. */
#include "config.h"

#include "client/ctl/change.h"
#include "client/ctl/errors.h"
#include "client/ctl/verbs.h"

static void fill_window(fz_json_writer *request, const fz_ctl *ctl, void *user) {
  static const struct {
    enum fz_option option;
    const char *key;
  } ends[] = { { FZ_OPT_FOR, "for" },
               { FZ_OPT_AT_STEP, "at_step" },
               { FZ_OPT_UNTIL_STEP, "until_step" },
               { FZ_OPT_UNTIL_EPOCH, "until_epoch" } };
  (void)user;
  for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++)
    if (fz_given(&ctl->options, ends[i].option))
      fz_write_integer(request, ends[i].key, ctl->options.number[ends[i].option]);
}

static int run_override(const fz_ctl *ctl, enum fz_op op) {
  if (fz_given(&ctl->options, FZ_OPT_FOR) && fz_given(&ctl->options, FZ_OPT_UNTIL_STEP))
    return fz_fail(ctl, "usage", NULL, "--for and --until-step both say at which step it ends");
  if (fz_given(&ctl->options, FZ_OPT_AT_STEP) && fz_given(&ctl->options, FZ_OPT_UNTIL_STEP) &&
      ctl->options.number[FZ_OPT_AT_STEP] >= ctl->options.number[FZ_OPT_UNTIL_STEP])
    return fz_fail(ctl, "usage", NULL, "it would end (--until-step) before it begins (--at-step)");
  return fz_change_run(ctl, op, fill_window);
}

int fz_cmd_freeze(fz_ctl *ctl) { return run_override(ctl, FZ_OP_FREEZE); }

int fz_cmd_unfreeze(fz_ctl *ctl) { return run_override(ctl, FZ_OP_UNFREEZE); }

int fz_cmd_auto(fz_ctl *ctl) { return fz_change_run(ctl, FZ_OP_AUTO, NULL); }

static void fill_pin(fz_json_writer *request, const fz_ctl *ctl, void *user) {
  (void)user;
  if (fz_given(&ctl->options, FZ_OPT_FROZEN))
    fz_write_string(request, "value", "frozen");
  else if (fz_given(&ctl->options, FZ_OPT_TRAINING))
    fz_write_string(request, "value", "training");
}

int fz_cmd_pin(fz_ctl *ctl) {
  if (fz_given(&ctl->options, FZ_OPT_FROZEN) && fz_given(&ctl->options, FZ_OPT_TRAINING))
    return fz_fail(ctl, "usage", NULL, "--frozen and --training exclude each other");
  return fz_change_run(ctl, FZ_OP_PIN, fill_pin);
}

int fz_cmd_unpin(fz_ctl *ctl) { return fz_change_run(ctl, FZ_OP_UNPIN, NULL); }
