/* adopt.c - segments of a freezerd before us, in which ranks live: carried on, so that they see one gate throughout. */
#include "config.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/adopt.h"
#include "daemon/flips.h"
#include "daemon/hold.h"
#include "daemon/publisher.h"
#include "daemon/record.h"
#include "daemon/run.h"
#include "daemon/state.h"

/* Where the C library keeps shm_open()'s objects. */
#define SHM_FOLDER "/dev/shm"

/** Whether it was made by a freezerd with our state directory (or socket). */
static bool is_own_key(const fz_core *core, const fz_segment *segment) {
  const fz_segment_info *info = fz_segment_get_info(segment);
  char key[FZ_RUN_KEY_LENGTH + 1];

  fz_run_key(core->scope, info->run, key);
  return strcmp(key, info->run_key) == 0;
}

/** And in this boot. Where one of the two could not tell which boot it was, the key has to do. */
static bool is_ours(const fz_core *core, const fz_segment *segment) {
  const char *boot_id = fz_segment_get_info(segment)->boot_id;

  return is_own_key(core, segment) && (!*boot_id || !*core->boot_id || strcmp(core->boot_id, boot_id) == 0);
}

static bool is_alive(const fz_segment *segment) {
  for (uint32_t i = 0; i < fz_segment_get_info(segment)->world; i++)
    if (fz_rank_is_locked(segment, i))
      return true;
  return false;
}

/** Takes the newest plan out of the ring. One that was never published leaves the run at the baseline. */
static int take_plan(fz_run *run) {
  uint64_t started, gen;
  fz_plan plan = FZ_PLAN_NULL;

  fz_gate_read(run->segment, &started, &gen);
  if (gen == 0)
    return 0;
  int r = fz_plan_reserve(&plan, run->segment);
  if (r == 0)
    r = fz_segment_read_plan(run->segment, gen, &plan);
  if (r != 0) {
    fz_plan_deinit(&plan);
    return r < 0 ? r : -EBADMSG;
  }
  fz_plan_deinit(&run->plan);
  run->plan = plan;
  run->planned = true;
  return 0;
}

/** Ranks that live hold their line; what they hold they said to the freezerd before us. */
static void take_ranks(fz_run *run) {
  for (uint32_t i = 0; i < run->world; i++) {
    const struct fz_rank_line line = fz_rank_read(run->segment, i);
    if (line.pid == 0)
      continue;
    if (!fz_rank_is_locked(run->segment, i)) {
      fz_rank_leave(run->segment, i);
      continue;
    }
    run->ranks[i].pid = line.pid;
    run->ranks[i].gen = line.gen <= run->plan.gen ? line.gen : 0;
  }
}

/** Whether what is known of the run explains its plan; what was saved and not yet published goes into the next one. */
static void take_decisions(fz_run *run) {
  uint64_t gen = 0;

  run->adopted = run->planned;
  if (!run->adopted || !fz_state_knows(run, run->incarnation, &gen))
    return;
  run->adopted = false;
  run->extend = gen > run->plan.gen;
  fz_layers_published(run->layers, run->plan.gen);
  fz_layers_published(run->in_force, run->plan.gen);
}

/** Gives a new run what the segment and the state directory know. The segment is consumed on success. */
static int fill(fz_run *run, fz_segment *segment, const char *name) {
  const fz_segment_info *info = fz_segment_get_info(segment);
  fz_params *params = NULL;
  int r = fz_segment_params(segment, &params);

  if (r == 0)
    r = fz_run_launch(run, info->job, info->attempt, info->world);
  if (r == 0) {
    run->adopted = true; /* as long as what was saved is restored: it is the same launch */
    r = fz_run_set_params(run, params);
    run->adopted = false;
  }
  fz_params_unref(params);
  if (r < 0)
    return r;
  run->segment = segment;
  run->incarnation = info->incarnation;
  run->new_processes = false;
  snprintf(run->segment_name, sizeof(run->segment_name), "%s", name);
  r = take_plan(run);
  if (r < 0)
    run->segment = NULL;
  return r;
}

/** Makes the run of a segment. The segment is consumed on success. */
static int adopt(fz_core *core, fz_segment *segment, const char *name) {
  const fz_segment_info *info = fz_segment_get_info(segment);
  fz_run *run = NULL;
  int r = fz_core_add(core, info->run, info->run, &run);

  if (r < 0)
    return r;
  r = fill(run, segment, name);
  if (r < 0) {
    fz_core_remove(core, run);
    return r;
  }
  fz_gate_set_rewound(segment, false); /* there is no newer one that its ranks could go over to */
  take_ranks(run);
  take_decisions(run);
  fz_flips_carry_on(run);
  fz_hold_note(run);
  run->saved = fz_json_free(run->saved);
  fz_run_check_life(run);
  fz_record_add(run, &(const struct fz_record){
                       .event = "restarted", .gen = run->plan.gen, .text = "a new freezerd carries the run on" });
  fz_log_write(&core->log, FZ_LOG_NOTICE, FZ_LOG_ABOUT(.event = "run", .run = run->name, .gen = run->plan.gen),
               "found alive: incarnation %" PRIu64 ", gen %" PRIu64 ", goes on", run->incarnation, run->plan.gen);
  if (run->adopted)
    fz_run_warn(run, "freezerd was restarted: the masks of before stay in force until the next change; earlier "
                     "overrides, pins and loaded rules are not known any more");
  return 0;
}

bool fz_adopt_is_passing(int error) {
  return error == -ENOMEM || error == -EMFILE || error == -ENFILE || error == -EIO || error == -EINTR ||
         error == -EAGAIN || error == -ENOSPC;
}

/** The next segment in SHM_FOLDER whose name begins so, as shm_open() takes it. */
static bool next_name(DIR *folder, const char *prefix, char name[FZ_SEGMENT_NAME_MAX + 1]) {
  for (const struct dirent *entry; (entry = readdir(folder));) {
    if (strncmp(entry->d_name, prefix, strlen(prefix)) != 0 || strlen(entry->d_name) >= FZ_SEGMENT_NAME_MAX)
      continue;
    snprintf(name, FZ_SEGMENT_NAME_MAX + 1, "/%s", entry->d_name);
    return true;
  }
  return false;
}

/** The highest incarnation of this run in shared memory in which somebody lives. One that may be it must be seen. */
static int find_segment(fz_core *core, const char *run, fz_segment **ret_segment, char *ret_name, size_t size) {
  char key[FZ_RUN_KEY_LENGTH + 1], prefix[64], found[FZ_SEGMENT_NAME_MAX + 1];
  fz_segment *best = NULL;
  DIR *folder = opendir(SHM_FOLDER);
  int failed = 0;

  if (!folder)
    return -errno;
  fz_run_key(core->scope, run, key);
  snprintf(prefix, sizeof(prefix), "freezer.%lu.%s.", (unsigned long)core->uid, key);
  while (next_name(folder, prefix, found)) {
    fz_segment *segment = NULL;
    const int r = fz_segment_open(&segment, found, true);
    if (r == 0 && is_ours(core, segment) && is_alive(segment) &&
        (!best || fz_segment_get_info(segment)->incarnation > fz_segment_get_info(best)->incarnation)) {
      fz_segment_free(best);
      best = segment;
      snprintf(ret_name, size, "%s", found);
      continue;
    }
    if (r < 0 && fz_adopt_is_passing(r))
      failed = r;
    fz_segment_free(segment);
  }
  closedir(folder);
  if (failed < 0) {
    fz_segment_free(best);
    return failed;
  }
  *ret_segment = best;
  return best ? 0 : -ENOENT;
}

/** Whether it is that of a run that we have: its ranks need not have mapped it yet. */
static bool is_in_use(const fz_core *core, const fz_segment *segment) {
  const fz_segment_info *info = fz_segment_get_info(segment);
  const fz_run *run = fz_core_find(core, info->run);

  return run && run->segment && run->incarnation == info->incarnation;
}

/** A segment without a plan may have been handed out a moment ago: then its first rank has not locked its line yet. */
static bool is_fresh(const fz_segment *segment) {
  uint64_t started, gen;

  fz_gate_read(segment, &started, &gen);
  return gen == 0;
}

static void clean(fz_core *core, bool fresh) {
  char prefix[48], name[FZ_SEGMENT_NAME_MAX + 1];
  DIR *folder = opendir(SHM_FOLDER);

  if (!folder)
    return;
  snprintf(prefix, sizeof(prefix), "freezer.%lu.", (unsigned long)core->uid);
  while (next_name(folder, prefix, name)) {
    fz_segment *segment = NULL;
    if (fz_segment_open(&segment, name, false) == 0 && is_own_key(core, segment) && !is_alive(segment) &&
        !is_in_use(core, segment) && (fresh || !is_fresh(segment))) {
      const fz_segment_info *info = fz_segment_get_info(segment);
      fz_log_write(&core->log, FZ_LOG_INFO, FZ_LOG_ABOUT(.event = "shm"), "removed %s: nobody lives in it", name);
      fz_hold_forget(core, info->run_key, info->incarnation);
      (void)fz_segment_unlink(name);
    }
    fz_segment_free(segment);
  }
  closedir(folder);
}

void fz_adopt_clean(fz_core *core) { clean(core, true); }

static void on_clean(fz_timer *timer) {
  /* Valid because only the core has this timer, as its member `clean`. */
  fz_adopt_clean((fz_core *)(void *)((char *)timer - offsetof(fz_core, clean)));
}

/** So that people find their runs before the ranks have come back, which may take as long as a step. */
static void take_living(fz_core *core) {
  char prefix[48], name[FZ_SEGMENT_NAME_MAX + 1], run[FZ_RUN_NAME_MAX + 1];
  DIR *folder = opendir(SHM_FOLDER);

  if (!folder)
    return; /* each is looked for again when a rank comes */
  snprintf(prefix, sizeof(prefix), "freezer.%lu.", (unsigned long)core->uid);
  while (next_name(folder, prefix, name)) {
    fz_segment *segment = NULL;
    if (fz_segment_open(&segment, name, false) < 0)
      continue;
    const bool living = is_ours(core, segment) && is_alive(segment);
    snprintf(run, sizeof(run), "%s", fz_segment_get_info(segment)->run);
    fz_segment_free(segment);
    if (living && !fz_core_find(core, run) && fz_adopt_by_name(core, run) == 0)
      fz_publisher_look_again(fz_core_find(core, run));
  }
  closedir(folder);
}

void fz_adopt_begin(fz_core *core) {
  clean(core, false);
  take_living(core);
  core->clean.fire = on_clean;
  fz_timer_start(&core->timers, &core->clean, FZ_HOLD_MS);
}

int fz_adopt_by_name(fz_core *core, const char *name) {
  char segment_name[FZ_SEGMENT_NAME_MAX + 1];
  fz_segment *segment = NULL;
  int r = find_segment(core, name, &segment, segment_name, sizeof(segment_name));

  if (r < 0)
    return r;
  r = adopt(core, segment, segment_name);
  if (r < 0) {
    fz_log_write(&core->log, FZ_LOG_WARNING, FZ_LOG_ABOUT(.event = "shm", .run = name),
                 "the segment %s cannot be carried on: %s", segment_name, strerror(-r));
    fz_segment_free(segment);
  }
  return r;
}

int fz_adopt_take(fz_trainer *trainer, int fd) {
  fz_core *core = trainer->core;
  const uid_t owner = fz_connection_peer(trainer->connection)->uid;
  fz_segment *segment = NULL;
  int r = fz_segment_map_of(&segment, fd, true, core->uid);

  /* Not what another member of the group made: its maker can cut it short under us at any time. Root could anyway. */
  if (r == -EPERM && owner == 0)
    r = fz_segment_map_of(&segment, fd, true, owner);
  if (r < 0) {
    close(fd);
    return r;
  }
  if (!is_ours(core, segment)) {
    fz_segment_free(segment);
    return -EPERM;
  }
  trainer->handed = segment;
  return 0;
}

int fz_adopt_handed(fz_trainer *trainer) {
  fz_core *core = trainer->core;
  const fz_segment_info *info = fz_segment_get_info(trainer->handed);
  char name[FZ_SEGMENT_NAME_MAX + 1];
  int r = fz_segment_name(name, sizeof(name), core->uid, info->run_key, info->incarnation);

  if (r == 0)
    r = adopt(core, trainer->handed, name);
  if (r == 0)
    trainer->handed = NULL;
  return r;
}
