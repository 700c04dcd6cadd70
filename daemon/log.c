/* log.c - what freezerd says to its operator, on stderr: levels, forms, one line per entry. */
#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/clock.h"
#include "daemon/log.h"

#define MESSAGE_SIZE 2048U
/* Every byte of a message may become six ("\u001b"), and the other fields take some. */
#define LINE_SIZE (6 * MESSAGE_SIZE + 2048U)

static const char *const level_names[] = {
  [FZ_LOG_ERROR] = "error", [FZ_LOG_WARNING] = "warning", [FZ_LOG_NOTICE] = "notice",
  [FZ_LOG_INFO] = "info",   [FZ_LOG_DEBUG] = "debug",
};
static const char *const format_names[] = {
  [FZ_LOG_AUTO] = "auto",
  [FZ_LOG_HUMAN] = "human",
  [FZ_LOG_JOURNAL] = "journal",
  [FZ_LOG_JSON] = "json",
};
/* syslog's numbers. */
static const int priorities[] = {
  [FZ_LOG_ERROR] = 3, [FZ_LOG_WARNING] = 4, [FZ_LOG_NOTICE] = 5, [FZ_LOG_INFO] = 6, [FZ_LOG_DEBUG] = 7,
};

/** Whether `fd` is the stream that systemd connected to the journal: $JOURNAL_STREAM is "device:inode" of it. */
static bool is_journal(int fd) {
  const char *text = getenv("JOURNAL_STREAM");
  uintmax_t device, inode;
  struct stat st;

  return text && sscanf(text, "%ju:%ju", &device, &inode) == 2 && fstat(fd, &st) == 0 &&
         (uintmax_t)st.st_dev == device && (uintmax_t)st.st_ino == inode;
}

void fz_log_init(fz_log *log, int fd, enum fz_log_level level, enum fz_log_format format) {
  if (format == FZ_LOG_AUTO)
    format = is_journal(fd) ? FZ_LOG_JOURNAL : FZ_LOG_HUMAN;
  *log = (fz_log){ .fd = fd, .level = level, .format = format, .terminal = isatty(fd) == 1 };
}

/** A line under construction; what does not fit is cut, the newline always fits. */
struct line {
  char text[LINE_SIZE];
  size_t length;
};

static void put(struct line *line, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void put(struct line *line, const char *format, ...) {
  const size_t room = sizeof(line->text) - 1 - line->length;
  va_list arguments;

  va_start(arguments, format);
  const int n = vsnprintf(line->text + line->length, room, format, arguments);
  va_end(arguments);
  if (n > 0)
    line->length += (size_t)n < room ? (size_t)n : room - 1;
}

/** Text from peers must neither end the line nor reach a terminal as an escape. */
static void put_clean(struct line *line, const char *text, bool json) {
  for (; *text; text++) {
    const unsigned char byte = (unsigned char)*text;
    if (json && (byte == '"' || byte == '\\'))
      put(line, "\\%c", byte);
    else if (byte < 0x20 || byte == 0x7f)
      put(line, json ? "\\u%04x" : "?", byte);
    else
      put(line, "%c", byte);
  }
}

static void put_member(struct line *line, const char *key, const char *value) {
  put(line, ",\"%s\":\"", key);
  put_clean(line, value, true);
  put(line, "\"");
}

static void put_json(struct line *line, enum fz_log_level level, const struct fz_log_about *about, const char *message,
                     const char *now) {
  put(line, "{\"ts\":\"%s\",\"level\":\"%s\"", now, level_names[level]);
  put_member(line, "event", about->event);
  put_member(line, "msg", message);
  if (about->run)
    put_member(line, "run", about->run);
  if (about->gen)
    put(line, ",\"gen\":%" PRIu64, about->gen);
  if (about->peer)
    put(line, ",\"uid\":%lu,\"pid\":%ld", (unsigned long)about->peer->uid, (long)about->peer->pid);
  put(line, "}");
}

static void put_text(struct line *line, const fz_log *log, enum fz_log_level level, const struct fz_log_about *about,
                     const char *message, const char *now) {
  if (log->format == FZ_LOG_JOURNAL)
    put(line, "<%d>", priorities[level]);
  else if (!log->terminal)
    put(line, "%s %s ", now, level_names[level]);
  else if (level <= FZ_LOG_WARNING)
    put(line, "%s: ", level_names[level]);
  put_clean(line, about->run ? about->run : about->event, false);
  put(line, ": ");
  put_clean(line, message, false);
}

void fz_log_write(const fz_log *log, enum fz_log_level level, const struct fz_log_about *about, const char *format,
                  ...) {
  char message[MESSAGE_SIZE], now[FZ_UTC_SIZE];
  struct line line = { .length = 0 };
  va_list arguments;

  if (level > log->level)
    return;
  va_start(arguments, format);
  vsnprintf(message, sizeof(message), format, arguments);
  va_end(arguments);
  fz_clock_format(fz_clock_utc_ms(), now);
  if (log->format == FZ_LOG_JSON)
    put_json(&line, level, about, message, now);
  else
    put_text(&line, log, level, about, message, now);
  line.text[line.length++] = '\n';
  /* One write per line, so that lines of several writers do not mix. Whoever closed the log has given it up. */
  if (write(log->fd, line.text, line.length) < 0)
    return;
}

static int find(const char *const *names, size_t n, const char *text) {
  for (size_t i = 0; i < n; i++)
    if (strcmp(names[i], text) == 0)
      return (int)i;
  return -EINVAL;
}

int fz_log_parse_level(const char *text, enum fz_log_level *ret_level) {
  const int i = find(level_names, sizeof(level_names) / sizeof(*level_names), text);

  if (i < 0)
    return i;
  *ret_level = (enum fz_log_level)i;
  return 0;
}

int fz_log_parse_format(const char *text, enum fz_log_format *ret_format) {
  const int i = find(format_names, sizeof(format_names) / sizeof(*format_names), text);

  if (i < 0)
    return i;
  *ret_format = (enum fz_log_format)i;
  return 0;
}
