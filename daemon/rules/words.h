/* words.h - windows, people and pattern lists in words; shared by explain*.c and report.c. */
#ifndef FZ_WORDS_H
#define FZ_WORDS_H

#include <stdbool.h>
#include <stddef.h>

#include "daemon/rules/layers_internal.h"
#include "daemon/rules/strbuf.h"

/** "step 9,000", "epoch 5", "step 9,000 or epoch 5"; `none` is the value that stands for neither. */
void fz_words_time(fz_strbuf *buffer, uint64_t step, uint64_t epoch, uint64_t none, const char *between);
/** ", until step 9,000" or nothing. */
void fz_words_until(fz_strbuf *buffer, const struct fz_window *window);
/** ", from step 10, until epoch 5", and " (over)" or " (waits)" unless it is active at (step, epoch). */
void fz_words_window(fz_strbuf *buffer, const struct fz_window *window, uint64_t step, uint64_t epoch);
/** "model.layers.3, head and 4 more". */
void fz_words_patterns(fz_strbuf *buffer, const char *const *patterns, size_t n);
/** "ana (uid 1000) on gpu07". */
void fz_words_who(fz_strbuf *buffer, const struct fz_who *who);
/** "rule positions"; a rule without a name is "rule 3". */
void fz_words_rule(fz_strbuf *buffer, const struct fz_rule *rule);
/** A word as a shell takes it, quoted where that is needed. */
void fz_words_shell(fz_strbuf *buffer, const char *word);

#endif
