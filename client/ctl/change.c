/* change.c - asks for a change and reports what became of it: the same for every command that changes something. */
#include "config.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/ctl/change.h"
#include "client/ctl/errors.h"
#include "client/ctl/human.h"
#include "client/ctl/request.h"

/* So many ranks are named one by one. */
#define RANKS_NAMED 16U

/* --- sending --- */

static void write_common(fz_json_writer *request, const fz_ctl *ctl, bool yes) {
  static const struct {
    enum fz_option option;
    const char *key;
  } flags[] = { { FZ_OPT_DRY_RUN, "dry_run" },
                { FZ_OPT_FORCE, "force" },
                { FZ_OPT_INCLUDE_BASELINE, "include_baseline" } };

  for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++)
    if (fz_given(&ctl->options, flags[i].option))
      fz_write_bool(request, flags[i].key, true);
  if (yes)
    fz_write_bool(request, "yes", true);
  if (fz_given(&ctl->options, FZ_OPT_REASON))
    fz_write_string(request, "reason", ctl->options.text[FZ_OPT_REASON]);
}

static uint64_t wait_ms(const fz_ctl *ctl) {
  uint64_t ms = FZ_CHANGE_WAIT_MS;
  if (fz_given(&ctl->options, FZ_OPT_NO_WAIT) || fz_given(&ctl->options, FZ_OPT_DRY_RUN))
    return 0;
  if (fz_given(&ctl->options, FZ_OPT_TIMEOUT))
    ms = ctl->options.number[FZ_OPT_TIMEOUT];
  return ms < FZ_WAIT_MS_MAX ? ms : FZ_WAIT_MS_MAX;
}

/* Asks whether to go on; Ctrl-C and the end of input mean no. */
static bool ask(const fz_answer *answer) {
  const char *message = fz_text_of(fz_json_member(answer->root, "error"), "message");
  char reply[16] = "";
  sigset_t interrupt;

  if (message && strncmp(message, "refused: ", 9) == 0)
    message += 9;
  fz_warn("%s", message ? message : "this is a large change");
  fputs("Go on? [y/N] ", stderr);
  fflush(stderr);
  sigemptyset(&interrupt);
  sigaddset(&interrupt, SIGINT);
  sigprocmask(SIG_UNBLOCK, &interrupt, NULL);
  const bool got = fgets(reply, sizeof(reply), stdin) != NULL;
  sigprocmask(SIG_BLOCK, &interrupt, NULL);
  if (!got)
    fputc('\n', stderr);
  return got && (reply[0] == 'y' || reply[0] == 'Y');
}

int fz_change_send(const fz_ctl *ctl, enum fz_op op, fz_change_fill fill, void *user, fz_answer *answer) {
  __attribute__((cleanup(fz_conn_freep))) fz_conn *conn = NULL;
  bool yes = fz_given(&ctl->options, FZ_OPT_YES);
  int status = fz_conn_open(ctl, &conn);

  while (status == 0) {
    fz_json_writer *request = fz_conn_begin(conn, op);
    fill(request, ctl, user);
    write_common(request, ctl, yes);
    fz_conn_set_wait(conn, wait_ms(ctl));
    status = fz_conn_call(conn, answer);
    if (status)
      break;
    const char *code = fz_answer_code(answer);
    if (yes || !code || strcmp(code, "needs_yes") != 0 || !ctl->style.interactive || fz_wants_json(ctl))
      break;
    if (!ask(answer)) {
      fz_warn("nothing was changed");
      return FZ_EXIT_REFUSED;
    }
    fz_answer_deinit(answer);
    yes = true;
  }
  return status;
}

/* --- reporting --- */

/* What the change does to bits, from the trainable elements before and after. */
static const char *direction(const fz_json *root, bool would) {
  const uint64_t before = fz_int_of(root, "trainable_before"), after = fz_int_of(root, "trainable_after");
  const uint64_t changed = fz_int_of(root, "changed_elements");
  if (before > after && before - after == changed)
    return would ? "freeze" : "froze";
  if (after > before && after - before == changed)
    return would ? "unfreeze" : "unfroze";
  return would ? "change" : "changed";
}

static void write_counts(FILE *out, const char *verb, uint64_t params, uint64_t elements) {
  fprintf(out, "%s %s (%s)", verb, fz_plural(params, "parameter").text, fz_count(elements).text);
}

static void write_until(FILE *out, const fz_json *root) {
  uint64_t end;
  const bool step = fz_has_int(root, "until_step", &end);
  if (step)
    fprintf(out, " until step %s", fz_number(end).text);
  if (fz_has_int(root, "until_epoch", &end))
    fprintf(out, "%s epoch %s", step ? " or" : " until", fz_number(end).text);
}

/* What the command did besides flipping bits; false when there is nothing to say. */
static bool write_action(FILE *out, const fz_ctl *ctl, enum fz_op op, const fz_json *root, bool would) {
  const uint64_t matched = fz_int_of(root, "matched"), elements = fz_int_of(root, "matched_elements");

  switch (op) {
  case FZ_OP_AUTO:
    if (would)
      fprintf(out, "drop %s", fz_plural(fz_int_of(root, "dropped"), "override").text);
    else
      fprintf(out, "%s dropped", fz_plural(fz_int_of(root, "dropped"), "override").text);
    return true;
  case FZ_OP_PIN:
    write_counts(out, would ? "pin" : "pinned", matched, elements);
    if (fz_given(&ctl->options, FZ_OPT_FROZEN))
      fputs(", frozen", out);
    else if (fz_given(&ctl->options, FZ_OPT_TRAINING))
      fputs(", training", out);
    return true;
  case FZ_OP_UNPIN:
    write_counts(out, would ? "unpin" : "unpinned", matched, elements);
    return true;
  case FZ_OP_RULES_LOAD:
    fprintf(out, "%s%s", would ? "load " : "", fz_plural(fz_int_of(root, "rules"), "rule").text);
    return true;
  case FZ_OP_RULES_UNLOAD:
    fputs(would ? "unload the rules" : "rules unloaded", out);
    return true;
  case FZ_OP_REVERT:
    if (fz_int_of(root, "changed") > 0)
      return false;
    fprintf(out, "%sto the decisions of gen %s; no bit changes now", would ? "go back " : "back ",
            fz_number(fz_int_of(root, "to_gen")).text);
    return true;
  default:
    return false;
  }
}

static const char *first_note(const fz_json *root) {
  return fz_json_string(fz_json_first(fz_json_member(root, "notes")));
}

/* "froze 12 parameters (7.1M) until step 4,640"; false when no bit changes now and there is nothing else to say. */
static bool write_flips(FILE *out, enum fz_op op, const fz_json *root, bool would, bool first) {
  const uint64_t changed = fz_int_of(root, "changed");
  const bool is_override = op == FZ_OP_FREEZE || op == FZ_OP_UNFREEZE;

  if (changed > 0) {
    fputs(first ? "" : "; ", out);
    write_counts(out, direction(root, would), changed, fz_int_of(root, "changed_elements"));
    write_until(out, root);
    return true;
  }
  if (!is_override)
    return false;
  if (first_note(root)) {
    fputs(first_note(root), out);
    write_until(out, root);
  } else {
    fprintf(out, "no bit of %s changes now", fz_plural(fz_int_of(root, "matched"), "parameter").text);
  }
  return true;
}

static void write_where(FILE *out, const fz_ctl *ctl, const fz_json *root) {
  uint64_t gen, step, next;
  const uint64_t ranks = fz_int_of(root, "ranks"), world = fz_int_of(root, "world");
  const uint64_t waited = fz_int_of(root, "waited_ms");
  const bool has_gen = fz_has_int(root, "gen", &gen), has_step = fz_has_int(root, "step", &step);

  if (fz_has_int(root, "superseded_by", &next)) {
    fprintf(out, "; superseded by gen %s before it was published", fz_number(next).text);
    return;
  }
  if (!has_gen) {
    fprintf(out, "; queued%s", ranks < world ? " until all ranks are attached" : "");
    return;
  }
  fprintf(out, "; gen %s", fz_number(gen).text);
  if (!fz_true_of(root, "applied")) {
    fprintf(out, fz_given(&ctl->options, FZ_OPT_NO_WAIT) ? ", not waited for" : " pending at %s/%s ranks",
            fz_number(world - (ranks < world ? ranks : world)).text, fz_number(world).text);
    return;
  }
  if (fz_int_of(root, "changed") > 0 && has_step)
    fprintf(out, " applied by %llu/%llu ranks at step %s", (unsigned long long)ranks, (unsigned long long)world,
            fz_number(step).text);
  if (waited >= 1000)
    fprintf(out, " (%s)", fz_duration((double)waited).text);
}

static void write_next(FILE *out, const fz_json *root) {
  const fz_json *next = fz_json_member(root, "next");
  uint64_t when;
  if (fz_has_int(next, "step", &when))
    fprintf(out, "; next change at step %s", fz_number(when).text);
  else if (fz_has_int(next, "epoch", &when))
    fprintf(out, "; next change at epoch %s", fz_number(when).text);
}

static void write_nothing(FILE *out, enum fz_op op, const fz_json *root) {
  const struct fz_short matched = fz_plural(fz_int_of(root, "matched"), "parameter");
  const char *are = fz_int_of(root, "matched") == 1 ? "is" : "are";
  fputs("nothing to do, ", out);
  switch (op) {
  case FZ_OP_FREEZE:
    fprintf(out, "%s %s frozen already", matched.text, are);
    break;
  case FZ_OP_UNFREEZE:
    fprintf(out, "%s %s training already", matched.text, are);
    break;
  case FZ_OP_AUTO:
    fprintf(out, "no override holds %s", matched.text);
    break;
  case FZ_OP_PIN:
    fprintf(out, "%s %s pinned so already", matched.text, are);
    break;
  case FZ_OP_UNPIN:
    fprintf(out, "%s %s not pinned", matched.text, are);
    break;
  case FZ_OP_RULES_LOAD:
    fputs("these rules are loaded already", out);
    break;
  case FZ_OP_REVERT:
    fputs("rules, overrides and pins are those already", out);
    break;
  default:
    fputs("no rules are loaded", out);
    break;
  }
}

static void write_dry_run(FILE *out, const fz_ctl *ctl, enum fz_op op, const fz_json *root) {
  const uint64_t changed = fz_int_of(root, "changed"), after = fz_int_of(root, "trainable_after");
  const bool is_override = op == FZ_OP_FREEZE || op == FZ_OP_UNFREEZE;

  fputs("would ", out);
  if (write_action(out, ctl, op, root, true) && changed > 0)
    fputs("; ", out);
  if (changed > 0) {
    fprintf(out, "%s %s of %s (%s)", direction(root, true), fz_number(changed).text,
            fz_plural(fz_int_of(root, "n_params"), "parameter").text,
            fz_count(fz_int_of(root, "changed_elements")).text);
    write_until(out, root);
    fprintf(out, "; trainable %s -> %s (%s)", fz_count(fz_int_of(root, "trainable_before")).text, fz_count(after).text,
            fz_percent(after, fz_int_of(root, "elements")).text);
  } else if (is_override) {
    fprintf(out, "change no bit of %s now", fz_plural(fz_int_of(root, "matched"), "parameter").text);
    if (first_note(root))
      fprintf(out, ": %s", first_note(root));
  }
  fputs("; nothing changed", out);
}

static void write_sentence(FILE *out, const fz_ctl *ctl, enum fz_op op, const fz_json *root) {
  const char *run = fz_text_of(root, "run");
  if (fz_true_of(root, "dry_run")) {
    if (fz_true_of(root, "nothing"))
      write_nothing(out, op, root);
    else
      write_dry_run(out, ctl, op, root);
    return;
  }
  fprintf(out, "%s: ", run ? run : "?");
  if (fz_true_of(root, "nothing")) {
    write_nothing(out, op, root);
    return;
  }
  const bool said = write_action(out, ctl, op, root, false);
  write_flips(out, op, root, false, !said);
  write_where(out, ctl, root);
  if (op == FZ_OP_RULES_LOAD || op == FZ_OP_RULES_UNLOAD)
    write_next(out, root);
}

static void say_list(const fz_json *root, const char *key, bool skip_first) {
  const fz_json *item = fz_json_first(fz_json_member(root, key));
  if (skip_first && item)
    item = fz_json_next(item);
  for (; item; item = fz_json_next(item))
    if (fz_json_string(item))
      fz_warn("%s%s", strcmp(key, "warnings") == 0 ? "warning: " : "note: ", fz_json_string(item));
}

/* Not in force on every rank, though that was waited for: who is missing, and why. */
static int report_missing(const fz_ctl *ctl, const fz_json *root) {
  const fz_json *missing = fz_json_member(root, "missing");
  uint64_t gen = 0, next;
  size_t n = 0, size;
  char *text = NULL, hint[80];
  const bool has_gen = fz_has_int(root, "gen", &gen);
  FILE *out = open_memstream(&text, &size);

  if (!out)
    return fz_fail_memory(ctl);
  if (fz_has_int(root, "superseded_by", &next))
    fprintf(out, "never in force: gen %s replaced it first", fz_number(next).text);
  else if (has_gen)
    fprintf(out, "gen %s is not confirmed by every rank; it stays pending", fz_number(gen).text);
  else
    fprintf(out, "the change is queued, not yet in any plan; it stays pending");
  for (const fz_json *item = fz_json_first(missing); item; item = fz_json_next(item), n++) {
    const char *reason = fz_text_of(item, "reason");
    if (n < RANKS_NAMED)
      fprintf(out, "\n  rank %llu  %s", (unsigned long long)fz_int_of(item, "rank"),
              reason ? reason : "has not applied it");
  }
  if (n > RANKS_NAMED)
    fprintf(out, "\n  and %zu more", n - RANKS_NAMED);
  if (fclose(out) == 0)
    fz_warn("%s", text);
  free(text);
  if (!fz_has_int(root, "superseded_by", &next)) {
    if (has_gen)
      snprintf(hint, sizeof(hint), "freezerctl wait --for applied=%llu", (unsigned long long)gen);
    else
      snprintf(hint, sizeof(hint), "freezerctl wait --for idle");
    fz_hint(hint);
  }
  return FZ_EXIT_UNCONFIRMED;
}

int fz_change_report(const fz_ctl *ctl, enum fz_op op, const fz_answer *answer) {
  const fz_json *root = answer->root;
  const bool recorded = !fz_true_of(root, "dry_run") && !fz_true_of(root, "nothing");
  const bool quiet = fz_given(&ctl->options, FZ_OPT_QUIET);
  const bool override_only = (op == FZ_OP_FREEZE || op == FZ_OP_UNFREEZE) && fz_int_of(root, "changed") == 0;

  if (fz_wants_json(ctl)) {
    const int status = fz_answer_print_json(ctl, answer);
    if (status)
      return status;
  } else if (!quiet) {
    char *text = NULL, *safe;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    if (!out)
      return fz_fail_memory(ctl);
    write_sentence(out, ctl, op, root);
    safe = fclose(out) == 0 ? fz_escape(text) : NULL;
    free(text);
    if (!safe)
      return fz_fail_memory(ctl);
    puts(safe);
    free(safe);
    fflush(stdout);
  }
  if (!fz_wants_json(ctl) && !quiet) {
    say_list(root, "notes", override_only && !fz_true_of(root, "nothing"));
    say_list(root, "warnings", false);
    if (recorded && fz_text_of(root, "undo"))
      fprintf(stderr, "undo: %s\n", fz_text_of(root, "undo"));
  }
  if (recorded && !fz_true_of(root, "applied") && !fz_given(&ctl->options, FZ_OPT_NO_WAIT))
    return report_missing(ctl, root);
  return FZ_EXIT_DONE;
}

static void fill_patterns(fz_json_writer *request, const fz_ctl *ctl, void *user) {
  const fz_change_fill *fill = user;
  fz_conn_write_patterns(request, ctl);
  if (*fill)
    (*fill)(request, ctl, NULL);
}

int fz_change_run(const fz_ctl *ctl, enum fz_op op, fz_change_fill fill) {
  fz_answer answer = FZ_ANSWER_NULL;
  int status = fz_change_send(ctl, op, fill_patterns, &fill, &answer);
  if (status == 0)
    status = fz_answer_code(&answer) ? fz_answer_fail(ctl, &answer) : fz_change_report(ctl, op, &answer);
  fz_answer_deinit(&answer);
  return status;
}
