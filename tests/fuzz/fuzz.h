/* fuzz.h - what every fuzz target is: a name, an entry for one input, and how it says that something is broken. */
#ifndef FZ_TESTS_FUZZ_FUZZ_H
#define FZ_TESTS_FUZZ_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/rules/layers.h"
#include "protocol/params.h"

/** The target's name: its corpus is tests/fuzz/corpus/NAME. */
extern const char fuzz_name[];

/** Takes one input, any bytes; returns 0, or does not return. libFuzzer fixes its name. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/** Aborts, with the place, unless the condition holds; in every build. */
#define FUZZ_CHECK(condition) ((condition) ? (void)0 : fuzz_broken(__FILE__, __LINE__, #condition))
_Noreturn void fuzz_broken(const char *file, int line, const char *what);

/** stderr goes nowhere: for code that says on it what is wrong with its input. Reports of the sanitizers still come. */
void fuzz_quiet(void);

/** A descriptor of an anonymous file with these bytes, at its beginning. */
int fuzz_file(const void *data, size_t size);

/* --- lines --- */

/** Takes one line; false ends the stream. */
typedef bool fuzz_line(void *context, char *line, size_t length);

/**
 * Reads the input as a stream. Its first byte is the limit of a line (below 16: FZ_LINE_MAX, else so many times 16
 * bytes), the next four are the sizes of the chunks that come in turn (0: 4096 bytes). Checks that the lines given out
 * are those that are in it.
 */
void fuzz_lines(const uint8_t *data, size_t size, fuzz_line *take, void *context);

/* --- rules --- */

/** A sealed table of 70 parameters, like those of a small language model; made once, borrowed. */
fz_params *fuzz_params(void);

/** Where and how rules are planned. */
struct fuzz_point {
  uint64_t step, epoch;
  size_t max_rows, max_masks;
  unsigned decisions; /* bits: which overrides and pins lie above the rules */
};

/** From four characters: '0' to '7' for step and epoch, '0' to '3' for the budget, '0' to '?' for the decisions. */
struct fuzz_point fuzz_point_from(const uint8_t text[4]);

/** Makes layers of rules that are bound to fuzz_params(), and a plan of them, and checks the plan. */
void fuzz_check_rules(fz_rules *rules, const struct fuzz_point *point);

#endif
