/* log.h - what freezerd says to its operator, on stderr: levels, forms, one line per entry. */
#ifndef FZ_LOG_H
#define FZ_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "protocol/sockpath.h"

enum fz_log_level { FZ_LOG_ERROR, FZ_LOG_WARNING, FZ_LOG_NOTICE, FZ_LOG_INFO, FZ_LOG_DEBUG };

/*
 *   human    on a terminal "daemon: message"; else RFC 3339 time and level before it
 *   journal  "<5>daemon: message": the journal takes the level off and adds the time
 *   json     one object a line: ts, level, event, msg, and run, gen, uid, pid where they are known
 *   auto     journal if fd 2 is the journal's, else human
 */
enum fz_log_format { FZ_LOG_AUTO, FZ_LOG_HUMAN, FZ_LOG_JOURNAL, FZ_LOG_JSON };

typedef struct fz_log {
  int fd;
  enum fz_log_level level; /* entries above it are not written */
  enum fz_log_format format;
  bool terminal;
} fz_log;

/** What an entry is about, besides its sentence. */
struct fz_log_about {
  const char
    *event;        /* a short token that people filter by: "daemon", "peer", "run", "rank", "change", "shm", "rules" */
  const char *run; /* NULL: none */
  uint64_t gen;    /* 0: none */
  const struct fz_peer *peer; /* whose doing it is; NULL: nobody's */
};

#define FZ_LOG_ABOUT(...) (&(const struct fz_log_about){ __VA_ARGS__ })

/** Logs to descriptor `fd` (borrowed); resolves FZ_LOG_AUTO. */
void fz_log_init(fz_log *log, int fd, enum fz_log_level level, enum fz_log_format format);

/** Writes one entry; a message longer than about 2 KiB is cut. Never fails: a log that cannot be written is lost. */
void fz_log_write(const fz_log *log, enum fz_log_level level, const struct fz_log_about *about, const char *format, ...)
  __attribute__((format(printf, 4, 5)));

/** "error", "warning", "notice", "info", "debug"; as read from the command line. @return 0 or -EINVAL */
int fz_log_parse_level(const char *text, enum fz_log_level *ret_level);
/** "auto", "human", "journal", "json". @return 0 or -EINVAL */
int fz_log_parse_format(const char *text, enum fz_log_format *ret_format);

#endif
