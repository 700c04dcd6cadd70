/* change.h - asks for a change and reports what became of it: the same for every command that changes something. */
#ifndef FZ_CTL_CHANGE_H
#define FZ_CTL_CHANGE_H

#include "client/ctl/answer.h"
#include "client/ctl/ctl.h"
#include "protocol/control.h"

/** Writes what a request has besides the fields of all changes. */
typedef void (*fz_change_fill)(fz_json_writer *request, const fz_ctl *ctl, void *user);

/**
 * Sends a change, asks on a terminal where freezerd wants to know that a large change is meant, and waits for the ranks.
 * @return 0: look at fz_answer_code(); else the exit status of what has been said
 */
int fz_change_send(const fz_ctl *ctl, enum fz_op op, fz_change_fill fill, void *user, fz_answer *answer);

/** Reports an accepted change: the sentence, the undo line, and the ranks that have not applied it. The exit status. */
int fz_change_report(const fz_ctl *ctl, enum fz_op op, const fz_answer *answer);

/** Both, for commands whose patterns are their operands, refusals said. @return the exit status */
int fz_change_run(const fz_ctl *ctl, enum fz_op op, fz_change_fill fill);

#endif
