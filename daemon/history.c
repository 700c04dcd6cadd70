/* history.c - what happened to a run, line by line: the record that a change must be in before it is published. */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/history.h"
#include "daemon/run.h"
#include "daemon/store.h"

#define NAME "history.ndjson"
#define OLD_NAME "history.ndjson.1"
/* The longest file that is read: a line may be added to one that is just not full. */
#define READ_MAX (FZ_HISTORY_FILE + FZ_LINE_MAX + 2U)

void fz_history_deinit(struct fz_history *history) {
  free(history->memory);
  *history = (struct fz_history){ 0 };
}

/* -------------------------------------------------------------------------------------------------------------- adding */

/** Makes room by letting the older half go, at the end of a line. */
static void forget_half(struct fz_history *history) {
  const char *middle = history->memory + history->length / 2;
  const char *newline = memchr(middle, '\n', history->length - history->length / 2);
  const size_t gone = newline ? (size_t)(newline + 1 - history->memory) : history->length;

  memmove(history->memory, history->memory + gone, history->length - gone);
  history->length -= gone;
}

static int add_to_memory(struct fz_history *history, const char *line, size_t length) {
  while (history->length && history->length + length > FZ_HISTORY_MEMORY)
    forget_half(history);
  if (history->length + length > history->size) {
    const size_t size = 2 * (history->length + length);
    char *memory = realloc(history->memory, size);
    if (!memory)
      return -ENOMEM;
    history->memory = memory;
    history->size = size;
  }
  memcpy(history->memory + history->length, line, length);
  history->length += length;
  return 0;
}

int fz_history_add(fz_run *run, const char *line, size_t length, bool sync) {
  off_t size = 0;

  if (!run->core->state_dir)
    return add_to_memory(&run->history, line, length);
  const int folder = fz_store_open(run, true);
  if (folder < 0)
    return folder;
  const int r = fz_store_append(folder, NAME, line, length, sync, &size);
  /* The next line begins a new file. Where that fails, this one goes on growing. */
  if (r == 0 && size > (off_t)FZ_HISTORY_FILE && renameat(folder, NAME, folder, OLD_NAME) == 0)
    (void)fsync(folder);
  close(folder);
  return r;
}

/* ------------------------------------------------------------------------------------------------------------- reading */

static int read_files(int folder, char **ret_text, size_t *ret_length) {
  char *old = NULL, *text = NULL;
  size_t old_length = 0, length = 0;
  int r = fz_store_read(folder, OLD_NAME, READ_MAX, &old, &old_length);

  if (r == 0 || r == -ENOENT)
    r = fz_store_read(folder, NAME, READ_MAX, &text, &length);
  if (r == -ENOENT)
    r = 0;
  if (r == 0 && old_length) {
    char *both = realloc(old, old_length + length + 1);
    r = both ? 0 : -ENOMEM;
    if (both) {
      if (length)
        memcpy(both + old_length, text, length);
      free(text);
      text = both;
      length += old_length;
      old = NULL;
    }
  }
  free(old);
  if (r < 0) {
    free(text);
    return r;
  }
  *ret_text = text;
  *ret_length = length;
  return 0;
}

int fz_history_read(const fz_run *run, char **ret_text, size_t *ret_length) {
  *ret_text = NULL;
  *ret_length = 0;
  if (!run->core->state_dir) {
    char *text = malloc(run->history.length + 1);
    if (!text)
      return -ENOMEM;
    if (run->history.length)
      memcpy(text, run->history.memory, run->history.length);
    *ret_text = text;
    *ret_length = run->history.length;
    return 0;
  }
  const int folder = fz_store_open(run, false);
  if (folder < 0)
    return folder == -ENOENT ? 0 : folder;
  const int r = read_files(folder, ret_text, ret_length);
  close(folder);
  return r;
}

fz_json *fz_history_older(struct fz_history_cursor *cursor) {
  while (cursor->length) {
    const size_t end = cursor->text[cursor->length - 1] == '\n' ? cursor->length - 1 : cursor->length;
    const char *newline = memrchr(cursor->text, '\n', end);
    const size_t begin = newline ? (size_t)(newline + 1 - cursor->text) : 0;
    fz_json *line = NULL;
    cursor->length = begin;
    const int r = end > begin ? fz_json_parse(&line, cursor->text + begin, end - begin, NULL, 0) : FZ_JSON_BROKEN;
    if (r == 0)
      return line;
    if (r < 0) {
      cursor->error = r;
      return NULL;
    }
  }
  return NULL;
}

/* ------------------------------------------------------------------------------------------------------------- mending */

/** How much of a text is left without a last line that has no newline or is no JSON. */
static size_t sound_length(const char *text, size_t length) {
  struct fz_history_cursor cursor = { .text = text, .length = length };
  const char *last = length ? memrchr(text, '\n', length) : NULL;

  /* What follows the last newline was never written to its end, whatever it looks like. */
  cursor.length = last ? (size_t)(last + 1 - text) : 0;
  while (cursor.length) {
    const size_t end = cursor.length;
    const char *newline = memrchr(text, '\n', end - 1);
    const size_t begin = newline ? (size_t)(newline + 1 - text) : 0;
    fz_json *line = NULL;
    const int r = fz_json_parse(&line, text + begin, end - 1 - begin, NULL, 0);
    fz_json_free(line);
    if (r != FZ_JSON_BROKEN)
      return end;
    cursor.length = begin;
  }
  return 0;
}

int fz_history_mend(fz_run *run) {
  size_t length = 0, sound;
  char *text = NULL;

  if (!run->core->state_dir)
    return 0;
  const int folder = fz_store_open(run, false);
  if (folder < 0)
    return folder == -ENOENT ? 0 : folder;
  int r = fz_store_read(folder, NAME, READ_MAX, &text, &length);
  sound = r == 0 ? sound_length(text, length) : 0;
  if (r == 0 && sound < length) {
    r = fz_store_cut(folder, NAME, sound);
    if (r == 0)
      fz_log_write(&run->core->log, FZ_LOG_WARNING, FZ_LOG_ABOUT(.event = "history", .run = run->name),
                   "the end of %s/%s/" NAME " was half-written: %zu bytes were cut off", run->core->state_dir, run->key,
                   length - sound);
  }
  free(text);
  close(folder);
  return r == -ENOENT ? 0 : r;
}
