/* fake_daemon.h - freezerd as libfreezer sees it, one message at a time, within the test's own process. */
#ifndef FZ_TESTS_FAKE_DAEMON_H
#define FZ_TESTS_FAKE_DAEMON_H

#include <stdbool.h>
#include <stdint.h>

#include "client/freezer.h"
#include "protocol/lines.h"
#include "protocol/message.h"
#include "protocol/params.h"
#include "protocol/segment.h"

/*
 * It does nothing by itself: a test says what comes next, and calls the library in between, which with an attach timeout
 * of 0 never waits. Every function fails the test when something is not as expected.
 */
struct fake_daemon {
  char path[108];
  int listener, connection;
  fz_line_reader reader;
  fz_json *root;      /* of the message read last */
  fz_message message; /* borrowed from root */
  fz_params *params;  /* what params messages brought */
  fz_segment *segment;
  uint64_t incarnation; /* of the next segment */
  char segment_name[FZ_SEGMENT_NAME_MAX + 1];
};

/** Listens at a new path below fz_test_root(). */
void fake_init(struct fake_daemon *fake);
/** Closes everything and removes the segment's name. */
void fake_deinit(struct fake_daemon *fake);

/** Stops listening, drops the connection: killed. The segment stays. */
void fake_kill(struct fake_daemon *fake);
/** Listens again at the same path. */
void fake_listen(struct fake_daemon *fake);

/** Takes the connection that is waiting; false when none is. */
bool fake_accept(struct fake_daemon *fake);
/** Reads one more message, which is borrowed until the next; NULL when none is there. */
const fz_message *fake_read(struct fake_daemon *fake);
/** Lets `f` begin batches at (step, epoch) until a message comes, and requires its type. */
const fz_message *fake_expect(struct fake_daemon *fake, freezer_t *f, uint64_t step, uint64_t epoch,
                              enum fz_message_type type);
/** Sends a message, with a descriptor unless it is -1. */
void fake_send(struct fake_daemon *fake, const fz_message *message, int pass_fd);

/** Makes a segment for fake->params, of a new incarnation. */
void fake_segment(struct fake_daemon *fake, const char *run, const char *job, uint32_t world);
/** Sends welcome with the segment. */
void fake_welcome(struct fake_daemon *fake, const char *run);
/**
 * From hello to ready, asking for the parameters, while `f` begins batches at (step, epoch). Makes a segment for `world`
 * ranks. The messages are checked.
 */
void fake_attach(struct fake_daemon *fake, freezer_t *f, uint32_t world, uint64_t step, uint64_t epoch);
void fake_subscribe(struct fake_daemon *fake, const struct fz_subscribe *wanted);

/** A row of fake_publish(). */
struct fake_row {
  uint64_t step, epoch;
  const char *mask; /* "0110" */
  uint32_t edge;
};
/** Publishes the next gen with these rows; its number. */
uint64_t fake_publish(struct fake_daemon *fake, uint64_t active_from, const struct fake_row *rows, size_t n_rows,
                      uint64_t wake_step);

/** The flags of `f` as text; static storage. */
const char *fake_flags(const freezer_t *f, size_t count);
/** Takes what is to be written, as text: the parameter's index and its flag, "1+ 3-"; static storage. */
const char *fake_changes(freezer_t *f);

#endif
