/* report.h - what charlm says about its steps, for people or as one JSON object per line. */
#ifndef CHARLM_REPORT_H
#define CHARLM_REPORT_H

#include <stdbool.h>
#include <stdint.h>

#include "client/examples/training.h"

/*
 * The JSON objects, told apart by "event":
 *   start   step, ranks, tensors, elements, vocabulary
 *   change  step (the first one with the new flags), epoch, gen, froze, unfroze (tensors), trainable (elements),
 *           first_trainable
 *   step    step, epoch, loss, ms (means since the last such line), gen, trainable, first_trainable, and with
 *           --dump-hash: hashes, {tensor: 16 hexadecimal digits} after that step
 *   save    step (completed ones), file
 *   end     step (completed ones), reason: "steps" or "signal"
 */

/** How to report, and what has gathered since the last line. */
struct report {
  bool silent; /**< all ranks but the first */
  bool json;
  bool hashes;
  uint64_t every;
  uint64_t gathered; /**< steps since the last line */
  double loss, milliseconds;
};

/** Which flags hold at a step. */
struct report_flags {
  uint64_t step;
  uint64_t epoch;
  uint64_t generation;
  uint64_t first_trainable; /**< tensor */
  uint64_t trainable;       /**< elements */
};

/** The run begins or goes on. */
void report_start(const struct report *report, const struct training *training);

/** Some tensors changed their flag, as of `flags`.step. */
void report_change(const struct report *report, const struct training *training, const struct report_flags *flags,
                   uint64_t froze, uint64_t unfroze);

/** A step was done; prints a line after each `every` of them and after the first. */
void report_step(struct report *report, const struct training *training, const struct report_flags *flags, double loss,
                 double milliseconds);

/** A checkpoint was written. */
void report_save(const struct report *report, const struct training *training, const char *file);

/** The run ends. */
void report_end(const struct report *report, const struct training *training, bool by_signal);

#endif
