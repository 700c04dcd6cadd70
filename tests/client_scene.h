/* client_scene.h - a libfreezer beside a freezerd that says one thing at a time: what the tests of both share. */
#ifndef FZ_TESTS_CLIENT_SCENE_H
#define FZ_TESTS_CLIENT_SCENE_H

#include <stdint.h>

#include "client/freezer.h"
#include "tests/fake_daemon.h"

enum { COUNT = 4, FUTURE_ROWS = 4, SAID_SIZE = 4096 };

extern struct fake_daemon fake;
extern freezer_t *f;         /* what a test opens; teardown() closes it */
extern char said[SAID_SIZE]; /* what the library logged */
extern const freezer_param_t params[COUNT];
extern const struct fake_row future[FUTURE_ROWS]; /* a plan of several rows */

/** Checked fixture: nothing of the user's own Freezer in the environment, and a fake freezerd. */
void setup(void);
void teardown(void);

/** Options that attach to the fake freezerd from within freezer_batch_begin(), and log into `said`. */
freezer_options_t options(void);
/** Opens `f` with these options, its first batch at (step, epoch). */
void open_at(uint64_t step, uint64_t epoch);

#endif
