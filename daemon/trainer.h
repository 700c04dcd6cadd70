/* trainer.h - a rank's side of the conversation: what it may say when, and what it is told. */
#ifndef FZ_TRAINER_H
#define FZ_TRAINER_H

#include <stdbool.h>
#include <stdint.h>

#include "daemon/connection.h"
#include "daemon/core.h"
#include "daemon/timers.h"
#include "protocol/message.h"
#include "protocol/params.h"

/*
 * STATES
 *
 *   NEW        hello expected
 *   RESUMING   hello said that resume follows
 *   HELD       it waits for another one to bring back the run's segment: hold.h
 *   LISTING    it was asked for its parameters
 *   WELCOMED   it has the segment; ready expected
 *   ATTACHED   it trains, and tells what it was asked to
 *   ENDED      refused or retired: what it still says is passed over
 *
 * `run` is set from hello on: its place among the run's ranks is taken before anything is waited for, so that nobody
 * else gets it meanwhile.
 */
enum fz_trainer_state {
  FZ_TRAINER_NEW,
  FZ_TRAINER_RESUMING,
  FZ_TRAINER_HELD,
  FZ_TRAINER_LISTING,
  FZ_TRAINER_WELCOMED,
  FZ_TRAINER_ATTACHED,
  FZ_TRAINER_ENDED
};

struct fz_trainer {
  fz_core *core;
  fz_connection *connection;
  enum fz_trainer_state state;
  fz_run *run;
  uint64_t incarnation; /* that it was welcomed to */
  bool said_bye;
  uint64_t held_incarnation, held_gen; /* what it had when it came back; 0: nothing */
  fz_segment *handed; /* that segment, until it is welcomed to another; NULL: none, or the run has taken it */
  fz_hold *hold;      /* in which it waits, or NULL */
  fz_trainer *hold_next;

  /* from hello */
  char name[FZ_RUN_NAME_MAX + 1];
  char framework[FZ_FRAMEWORK_MAX + 1];
  char job[FZ_JOB_NAME_MAX + 1];
  uint64_t attempt, pid, n_params, layout, baseline;
  uint32_t rank, world;
  char *rules; /* JSON text, or NULL */

  fz_params *listed;   /* its parameter table, as far as it has come */
  size_t listed_bytes; /* its memory, as counted in the core's */
  fz_timer stalled;    /* runs while more of it must come */
};

/** -ENOMEM. */
int fz_trainer_new(fz_trainer **ret_trainer, fz_core *core, fz_connection *connection);
/** Gives up its place in its run. Takes NULL, returns NULL. */
fz_trainer *fz_trainer_free(fz_trainer *trainer);
/** It was asked for its parameters, or has sent some: the next ones must come within FZ_LISTING_STALL_MS. */
void fz_trainer_expect_params(fz_trainer *trainer);
/** Frees the parameter table that it has sent, and gives its memory back to the others. */
void fz_trainer_drop_listed(fz_trainer *trainer);

/** Handles one message. */
void fz_trainer_line(fz_trainer *trainer, const fz_json *root);

/** Sends a message, with a descriptor unless `fd` is -1. As fz_connection_send(). */
int fz_trainer_send(fz_trainer *trainer, const fz_message *message, int fd);
/** Reserves its line in the segment of its run's incarnation and sends that; `ready` is expected next. */
void fz_trainer_welcome(fz_trainer *trainer);
/** Sends back the segment that it handed back, in which it goes on until it rewinds. */
void fz_trainer_welcome_back(fz_trainer *trainer);
void fz_trainer_notice(fz_trainer *trainer, enum fz_level level, const char *code, const char *message);
/** Another attempt of its job has begun: it is told so and forgets the run. */
void fz_trainer_retire(fz_trainer *trainer, uint64_t attempt);
/** Closes its connection so that it comes again. */
void fz_trainer_reconnect(fz_trainer *trainer);
/** Tells it which events it is to send. */
void fz_trainer_subscribe(fz_trainer *trainer);

/** Answers with an error. `close`: and ends the connection; the trainer tries again later. */
void fz_trainer_refuse(fz_trainer *trainer, bool close, enum fz_code code, const char *format, ...)
  __attribute__((format(printf, 4, 5)));

#endif
