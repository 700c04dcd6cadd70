/* hold.c - freezerd has just started: whoever comes to a run that lived waits until its segment has been handed back. */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/attach.h"
#include "daemon/clock.h"
#include "daemon/hold.h"
#include "daemon/run.h"
#include "daemon/trainer.h"

#define FILE_NAME "living"
/* "BOOT-ID INCARNATION\n" */
#define FILE_MAX (FZ_BOOT_ID_MAX + 24U)

/* ------------------------------------------------------------------------------------------------------ who lived */

/** The file of a run, opened as openat() does. */
static int open_file(const fz_core *core, const char *key, int flags) {
  char path[FZ_RUN_KEY_LENGTH + sizeof("/" FILE_NAME)];
  const int top = core->state_dir ? open(core->state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;

  if (top < 0)
    return -1;
  snprintf(path, sizeof(path), "%s/" FILE_NAME, key);
  const int fd = openat(top, path, flags | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
  close(top);
  return fd;
}

static void remove_file(const fz_core *core, const char *key) {
  char path[FZ_RUN_KEY_LENGTH + sizeof("/" FILE_NAME)];
  const int top = core->state_dir ? open(core->state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;

  if (top < 0)
    return;
  snprintf(path, sizeof(path), "%s/" FILE_NAME, key);
  (void)unlinkat(top, path, 0); /* often there is none */
  close(top);
}

void fz_hold_note(const fz_run *run) {
  char text[FILE_MAX + 1];

  remove_file(run->core, run->key);
  const int fd = open_file(run->core, run->key, O_WRONLY | O_CREAT | O_EXCL);
  if (fd < 0)
    return;
  const int length = snprintf(text, sizeof(text), "%s %" PRIu64 "\n", run->core->boot_id, run->incarnation);
  const bool whole = write(fd, text, (size_t)length) == length;
  close(fd);
  if (!whole)
    remove_file(run->core, run->key);
}

/** The incarnation in which ranks of a run lived, in this boot, when a freezerd last wrote; 0: none did. */
static uint64_t read_living(const fz_core *core, const char *key) {
  char text[FILE_MAX + 1] = "", boot_id[FZ_BOOT_ID_MAX + 1] = "";
  uint64_t incarnation = 0;
  const int fd = open_file(core, key, O_RDONLY);

  if (fd < 0)
    return 0;
  const ssize_t n = read(fd, text, FILE_MAX);
  close(fd);
  if (n <= 0 || text[n - 1] != '\n' || sscanf(text, "%40s %" SCNu64, boot_id, &incarnation) != 2 ||
      strcmp(boot_id, core->boot_id) != 0)
    return 0;
  return incarnation;
}
_Static_assert(FZ_BOOT_ID_MAX == 40, "as in the format of sscanf()");

void fz_hold_forget(const fz_core *core, const char *key, uint64_t incarnation) {
  if (read_living(core, key) == incarnation)
    remove_file(core, key);
}

/** Whether there is a segment of this name, whoever lives in it. */
static bool has_name(const fz_core *core, const char *key, uint64_t incarnation) {
  char name[FZ_SEGMENT_NAME_MAX + 1];
  fz_segment *segment = NULL;

  if (fz_segment_name(name, sizeof(name), core->uid, key, incarnation) < 0)
    return false;
  const int r = fz_segment_peek(&segment, name);
  fz_segment_free(segment);
  return r != -ENOENT;
}

static bool must_wait(const fz_trainer *trainer, const char *run) {
  const fz_core *core = trainer->core;
  char key[FZ_RUN_KEY_LENGTH + 1];

  if (fz_clock_ms() - core->started_ms >= FZ_HOLD_MS)
    return false;
  if (trainer->handed && fz_gate_is_rewound(trainer->handed))
    return true;
  fz_run_key(core->scope, run, key);
  const uint64_t living = read_living(core, key);
  if (living == 0 || (trainer->handed && fz_segment_get_info(trainer->handed)->incarnation >= living))
    return false;
  return !has_name(core, key, living);
}

/* -------------------------------------------------------------------------------------------------------- who waits */

/** Those who wait for one run. */
struct fz_hold {
  fz_hold *next;
  fz_core *core;
  char run[FZ_RUN_NAME_MAX + 1];
  fz_timer timer;
  fz_trainer *trainers; /* by hold_next, the first to come first */
};

static fz_hold *find(const fz_core *core, const char *run) {
  fz_hold *hold = core->holds;

  while (hold && strcmp(hold->run, run) != 0)
    hold = hold->next;
  return hold;
}

/** Places those who waited. */
static void end(fz_hold *hold) {
  fz_hold **link = &hold->core->holds;

  while (*link != hold)
    link = &(*link)->next;
  *link = hold->next;
  fz_timer_stop(&hold->core->timers, &hold->timer);
  while (hold->trainers) {
    fz_trainer *trainer = hold->trainers;
    fz_hold_leave(trainer);
    fz_attach_arrive(trainer, hold->run, false);
  }
  free(hold);
}

static void on_timer(fz_timer *timer) {
  /* Valid because only holds have this callback, with their member `timer`. */
  fz_hold *hold = (fz_hold *)(void *)((char *)timer - offsetof(fz_hold, timer));

  if (hold->trainers)
    fz_log_write(&hold->core->log, FZ_LOG_NOTICE, FZ_LOG_ABOUT(.event = "run", .run = hold->run),
                 "no rank has handed its newest segment back: those who wait go on without it");
  end(hold);
}

static const char why[] =
  "ranks of this run lived when the last freezerd ended, and their segment has no name any more: "
  "others wait for one of them to hand it back";

static fz_hold *begin(fz_core *core, const char *run) {
  fz_hold *hold = calloc(1, sizeof(*hold));
  const uint64_t age = fz_clock_ms() - core->started_ms;

  if (!hold)
    return NULL;
  hold->core = core;
  hold->timer.fire = on_timer;
  hold->next = core->holds;
  snprintf(hold->run, sizeof(hold->run), "%s", run);
  core->holds = hold;
  const uint64_t left = age < FZ_HOLD_MS ? FZ_HOLD_MS - age : 0;
  fz_timer_start(&core->timers, &hold->timer, left < FZ_HOLD_HELLO_MS ? left : FZ_HOLD_HELLO_MS);
  fz_log_write(&core->log, FZ_LOG_NOTICE, FZ_LOG_ABOUT(.event = "run", .run = run), "%s, at most %" PRIu64 " ms", why,
               hold->timer.due - fz_clock_ms());
  return hold;
}

bool fz_hold_trainer(fz_trainer *trainer, const char *run) {
  if (!must_wait(trainer, run))
    return false;
  fz_hold *hold = find(trainer->core, run);
  if (!hold)
    hold = begin(trainer->core, run);
  if (!hold)
    return false;
  fz_trainer **link = &hold->trainers;
  while (*link)
    link = &(*link)->hold_next;
  *link = trainer;
  trainer->hold_next = NULL;
  trainer->hold = hold;
  trainer->state = FZ_TRAINER_HELD;
  fz_trainer_notice(trainer, FZ_LEVEL_INFO, "held", why);
  return true;
}

void fz_hold_release(fz_core *core, const char *run) {
  fz_hold *hold = find(core, run);

  if (hold)
    end(hold);
}

void fz_hold_leave(fz_trainer *trainer) {
  if (!trainer->hold)
    return;
  fz_trainer **link = &trainer->hold->trainers;
  while (*link != trainer)
    link = &(*link)->hold_next;
  *link = trainer->hold_next;
  trainer->hold_next = NULL;
  trainer->hold = NULL;
}

void fz_hold_drop_all(fz_core *core) {
  while (core->holds) {
    fz_hold *hold = core->holds;
    core->holds = hold->next;
    fz_timer_stop(&core->timers, &hold->timer);
    free(hold);
  }
}
