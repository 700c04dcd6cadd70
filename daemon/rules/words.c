/* words.c - windows, people and pattern lists in words. */
#include "config.h"

#include <inttypes.h>
#include <string.h>

#include "daemon/rules/words.h"

#define PATTERNS_SHOWN 3

void fz_words_time(fz_strbuf *buffer, uint64_t step, uint64_t epoch, uint64_t none, const char *between) {
  if (step != none) {
    fz_strbuf_addf(buffer, "step ");
    fz_strbuf_add_number(buffer, step);
  }
  if (step != none && epoch != none)
    fz_strbuf_addf(buffer, " %s ", between);
  if (epoch != none) {
    fz_strbuf_addf(buffer, "epoch ");
    fz_strbuf_add_number(buffer, epoch);
  }
}

void fz_words_until(fz_strbuf *buffer, const struct fz_window *window) {
  if (window->until_step == FZ_TIME_NEVER && window->until_epoch == FZ_TIME_NEVER)
    return;
  fz_strbuf_addf(buffer, ", until ");
  fz_words_time(buffer, window->until_step, window->until_epoch, FZ_TIME_NEVER, "or");
}

void fz_words_window(fz_strbuf *buffer, const struct fz_window *window, uint64_t step, uint64_t epoch) {
  if (window->from_step > 0 || window->from_epoch > 0) {
    fz_strbuf_addf(buffer, ", from ");
    fz_words_time(buffer, window->from_step, window->from_epoch, 0, "and");
  }
  fz_words_until(buffer, window);
  switch (fz_window_phase(window, step, epoch)) {
  case FZ_PHASE_WAITS:
    fz_strbuf_addf(buffer, " (waits)");
    break;
  case FZ_PHASE_OVER:
    fz_strbuf_addf(buffer, " (over)");
    break;
  case FZ_PHASE_ACTIVE:
    break;
  }
}

void fz_words_patterns(fz_strbuf *buffer, const char *const *patterns, size_t n) {
  for (size_t i = 0; i < n && i < PATTERNS_SHOWN; i++)
    fz_strbuf_addf(buffer, "%s%s", i ? ", " : "", patterns[i]);
  if (n > PATTERNS_SHOWN)
    fz_strbuf_addf(buffer, " and %zu more", n - PATTERNS_SHOWN);
}

void fz_words_who(fz_strbuf *buffer, const struct fz_who *who) {
  if (who->user[0])
    fz_strbuf_addf(buffer, "%s (uid %" PRIu64 ")", who->user, who->uid);
  else
    fz_strbuf_addf(buffer, "uid %" PRIu64, who->uid);
  if (who->host && who->host[0])
    fz_strbuf_addf(buffer, " on %s", who->host);
}

void fz_words_rule(fz_strbuf *buffer, const struct fz_rule *rule) {
  fz_strbuf_addf(buffer, "%s%s", rule->named ? "rule " : "", rule->name);
}

void fz_words_shell(fz_strbuf *buffer, const char *word) {
  static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_./:,+-@%";
  if (word[0] && word[strspn(word, plain)] == '\0') {
    fz_strbuf_addf(buffer, "%s", word);
    return;
  }
  fz_strbuf_addf(buffer, "'");
  for (; *word; word++)
    if (*word == '\'')
      fz_strbuf_addf(buffer, "'\\''");
    else
      fz_strbuf_add(buffer, word, 1);
  fz_strbuf_addf(buffer, "'");
}
