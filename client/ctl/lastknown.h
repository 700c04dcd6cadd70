/* lastknown.h - what the segments in shared memory say of runs when there is no freezerd to ask. */
#ifndef FZ_CTL_LASTKNOWN_H
#define FZ_CTL_LASTKNOWN_H

#include "client/ctl/ctl.h"

/**
 * Prints a few lines on each segment of this user in which a rank lives (with -v on all that can be read); nothing when
 * there are none.
 * @param run  only those whose run has this name; NULL: all
 */
void fz_last_known_print(const fz_ctl *ctl, const char *run);

#endif
