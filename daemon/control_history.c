/* control_history.c - the operation history: what happened to a run, newest first. */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/control.h"
#include "daemon/history.h"
#include "daemon/pending.h"
#include "daemon/run.h"

/* Bytes of one part, and of all of them: what a client that reads slowly may have queued bounds the answer. */
#define PART_BYTES (64U * 1024U)
#define ANSWER_BYTES (4U * 1024U * 1024U)
/* Patterns of a change that are named. */
#define PATTERNS_SHOWN 8

/** What became of a change: it is told in later lines, which are gone through first. */
struct fate {
  uint64_t change, gen, step;
  bool superseded;
};

struct telling {
  fz_client *client;
  const fz_run *run;
  uint64_t id;
  struct fate *fates;
  size_t n_fates, size;
  size_t n_sent, n_bytes; /* entries, and bytes of earlier parts */
  uint64_t limit;
};

static uint64_t integer_of(const fz_json *line, const char *key, uint64_t missing) {
  uint64_t value;

  return fz_json_integer(fz_json_member(line, key), &value) ? value : missing;
}

static const char *text_of(const fz_json *line, const char *key) { return fz_json_string(fz_json_member(line, key)); }

/* --------------------------------------------------------------------------------------------------------------- fates */

static int note_fate(struct telling *telling, const fz_json *line, bool superseded) {
  if (telling->n_fates == telling->size) {
    const size_t size = telling->size ? 2 * telling->size : 64;
    struct fate *fates = realloc(telling->fates, size * sizeof(*fates));
    if (!fates)
      return -ENOMEM;
    telling->fates = fates;
    telling->size = size;
  }
  telling->fates[telling->n_fates++] = (struct fate){
    .change = integer_of(line, "change", 0),
    .gen = integer_of(line, "gen", 0),
    .step = integer_of(line, "step", FZ_TIME_NEVER),
    .superseded = superseded,
  };
  return 0;
}

/** The fate of a change, taken out of the list: it is asked for once. */
static bool take_fate(struct telling *telling, uint64_t change, struct fate *ret_fate) {
  for (size_t i = telling->n_fates; i-- > 0;)
    if (telling->fates[i].change == change) {
      *ret_fate = telling->fates[i];
      telling->fates[i] = telling->fates[--telling->n_fates];
      return true;
    }
  return false;
}

/**
 * Whether a change of which no line says what became of it is on its way still. If not, that line could not be written,
 * or freezerd was killed before it: the plan that holds has the change, at a step that is not known any more.
 */
static bool is_pending(const fz_run *run, const fz_json *line) {
  const uint64_t serial = integer_of(line, "serial", 0), incarnation = integer_of(line, "incarnation", 0);

  for (const fz_pending *pending = run->pendings; pending; pending = pending->next)
    if (pending->serial == serial)
      return true;
  return incarnation < run->incarnation ? run->plan.gen == 0 : integer_of(line, "gen", 0) > fz_run_gen_held(run);
}

/* -------------------------------------------------------------------------------------------------------------- writing */

static void write_patterns(fz_json_writer *writer, const fz_json *patterns) {
  size_t n = 0;

  fz_write_begin_array(writer, "patterns");
  for (const fz_json *item = fz_json_first(patterns); item && n < PATTERNS_SHOWN; item = fz_json_next(item), n++)
    fz_write_string(writer, NULL, fz_json_string(item));
  fz_write_end_array(writer);
}

static void write_by(fz_json_writer *writer, const fz_json *by) {
  const char *user = text_of(by, "user"), *host = text_of(by, "host");

  if (!user) {
    fz_write_null(writer, "by");
    fz_write_null(writer, "uid");
    return;
  }
  char text[600]; /* two names of at most 255 bytes */
  snprintf(text, sizeof(text), "%s%s%s", user, host ? "@" : "", host ? host : "");
  fz_write_string(writer, "by", text);
  fz_write_time(writer, "uid", integer_of(by, "uid", FZ_TIME_NEVER));
}

static void write_entry(struct telling *telling, fz_json_writer *writer, const fz_json *line) {
  const char *event = text_of(line, "event"), *action = text_of(line, "action");
  const bool is_change = strcmp(event, "change") == 0;
  struct fate fate = {
    .gen = integer_of(line, "gen", 0),
    .step = is_change ? FZ_TIME_NEVER : integer_of(line, "step", FZ_TIME_NEVER),
  };
  const bool over =
    !is_change || take_fate(telling, integer_of(line, "serial", 0), &fate) || !is_pending(telling->run, line);

  fz_write_begin_object(writer, NULL);
  fz_write_string(writer, "time", text_of(line, "time"));
  fz_write_integer(writer, "incarnation", integer_of(line, "incarnation", 0));
  fz_write_integer(writer, "gen", fate.gen);
  fz_write_time(writer, "step", fate.superseded ? FZ_TIME_NEVER : fate.step);
  fz_write_string(writer, "action", is_change && action ? action : event);
  fz_write_string(writer, "state", !over ? "pending" : fate.superseded ? "superseded" : "applied");
  fz_write_string(writer, "text", text_of(line, "text"));
  write_patterns(writer, fz_json_member(line, "patterns"));
  write_by(writer, fz_json_member(line, "by"));
  fz_write_string(writer, "reason", text_of(line, "reason"));
  fz_write_integer(writer, "froze", integer_of(line, "froze", 0));
  fz_write_integer(writer, "unfroze", integer_of(line, "unfroze", 0));
  fz_write_integer(writer, "changed_elements", integer_of(line, "elements", 0));
  fz_write_time(writer, "trainable", integer_of(line, "trainable", FZ_TIME_NEVER));
  fz_write_integer(writer, "elements", integer_of(line, "total", 0));
  fz_write_end_object(writer);
  telling->n_sent++;
}

static void begin_part(struct telling *telling) {
  fz_json_writer *writer = &telling->client->core->writer;

  fz_answer_part_begin(writer, telling->id);
  fz_write_begin_array(writer, "history");
}

static void end_part(struct telling *telling) {
  fz_json_writer *writer = &telling->client->core->writer;

  fz_write_end_array(writer);
  fz_write_end_object(writer);
  telling->n_bytes += fz_writer_length(writer);
  fz_client_send(telling->client);
}

/** Whether a line is one for people; what it says of an older one is noted. Negative errno. */
static int look(struct telling *telling, const fz_json *line) {
  const char *event = text_of(line, "event");

  if (!event || !text_of(line, "time") || strcmp(event, "state") == 0 || strcmp(event, "incarnation") == 0)
    return 0;
  const bool superseded = strcmp(event, "superseded") == 0;
  if (superseded || strcmp(event, "applied") == 0)
    return note_fate(telling, line, superseded);
  return 1;
}

/** Sends all parts. @param[out] ret_more  older lines were left out */
static int tell(struct telling *telling, struct fz_history_cursor *cursor, bool *ret_more) {
  fz_json_writer *writer = &telling->client->core->writer;
  fz_json *line;
  int r = 0;

  begin_part(telling);
  while (r >= 0 && (line = fz_history_older(cursor))) {
    r = look(telling, line);
    *ret_more = r > 0 && (telling->n_sent >= telling->limit || telling->n_bytes >= ANSWER_BYTES);
    if (r > 0 && !*ret_more)
      write_entry(telling, writer, line);
    fz_json_free(line);
    if (*ret_more)
      break;
    if (fz_writer_length(writer) >= PART_BYTES) {
      end_part(telling);
      begin_part(telling);
    }
  }
  end_part(telling);
  return r < 0 ? r : cursor->error;
}

void fz_op_history(fz_client *client, const fz_request *request) {
  const fz_run *run = fz_control_run(client, request);
  struct telling telling = { .client = client, .run = run, .id = request->id, .limit = request->limit };
  struct fz_history_cursor cursor = { 0 };
  char *text = NULL;
  bool more = false;

  if (!run)
    return;
  int r = fz_history_read(run, &text, &cursor.length);
  cursor.text = text;
  if (r == 0)
    r = tell(&telling, &cursor, &more);
  free(text);
  free(telling.fates);
  if (r < 0) {
    fz_client_error(client, request->id, r == -ENOMEM ? FZ_CODE_NO_MEMORY : FZ_CODE_INTERNAL, NULL,
                    "the history of run %s cannot be read: %s", run->name, strerror(-r));
    return;
  }
  fz_json_writer *writer = &client->core->writer;
  fz_answer_begin(writer, request->id);
  fz_write_string(writer, "run", run->name);
  fz_write_integer(writer, "incarnation", run->incarnation);
  fz_write_bool(writer, "more", more);
  fz_write_bool(writer, "kept", run->core->state_dir != NULL);
  fz_write_end_object(writer);
  fz_client_send(client);
}
