/* holds.c - the segments that a rank holds: whose plan is in force, and whose will be. */
#include "config.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/handle.h"

/* A line that freezerd gave to another process meanwhile, taking this one for gone, is that one's. */
static bool is_own(const freezer_t *f, const fz_segment *segment) {
  return fz_rank_is_own(segment, f->identity.rank, f->identity.pid);
}

static fz_segment *let_go(const freezer_t *f, fz_segment *segment) {
  if (segment && is_own(f, segment))
    fz_rank_leave(segment, f->identity.rank);
  return fz_segment_free(segment);
}

static uint64_t newest_gen(const fz_segment *segment) {
  uint64_t started, gen;
  fz_gate_read(segment, &started, &gen);
  return gen;
}

/* Lets go of the first `count` of the later ones. */
static void let_go_first(freezer_t *f, size_t count) {
  for (size_t i = 0; i < count; i++)
    f->later[i] = let_go(f, f->later[i]);
  memmove(f->later, f->later + count, (f->n_later - count) * sizeof(f->later[0]));
  f->n_later -= count;
}

/* Lets go of those that will never have a plan: freezerd goes on with another one. */
static void let_go_without_plan(freezer_t *f, const fz_segment *but) {
  size_t n_kept = 0;
  for (size_t i = 0; i < f->n_later; i++) {
    if (f->later[i] == but || newest_gen(f->later[i]) > 0)
      f->later[n_kept++] = f->later[i];
    else
      (void)let_go(f, f->later[i]);
  }
  f->n_later = n_kept;
}

void fz_holds_drop(freezer_t *f) {
  let_go_first(f, f->n_later);
  f->current = let_go(f, f->current);
  f->stale = let_go(f, f->stale);
}

/* What this rank did not get is said once: it may come again at each step. */
static int told(freezer_t *f, int outcome, uint64_t newest) {
  if (outcome == FZ_CHOOSE_LOST && !f->lost_told) {
    f->lost_told = true;
    fz_log(
      f, FREEZER_LOG_WARNING,
      "freezerd took this rank for gone and reused the plan that it needs: the flags stay as they are until a newer "
      "plan holds");
  }
  if (outcome == -EBADMSG && !f->damage_told) {
    f->damage_told = true;
    fz_log(f, FREEZER_LOG_ERROR, "plan %llu in shared memory is damaged: the flags stay as they are",
           (unsigned long long)newest);
  }
  return outcome < 0 ? outcome : 0;
}

/* Copies the newest plan of `segment` for `step` that is newer than `held`, if there is one. 1: copied. */
__attribute__((noinline, cold)) static int choose(freezer_t *f, fz_segment *segment, uint64_t step, uint64_t newest,
                                                  uint64_t held) {
  const int r = fz_segment_choose(segment, step, newest, held, &f->spare);
  if (r != 0)
    return told(f, r, newest);
  f->lost_told = f->damage_told = false;
  /* Another's line tells what that one holds: slots that it still needs would be written again. */
  if (is_own(f, segment))
    fz_rank_hold(segment, f->identity.rank, f->spare.gen);
  return 1;
}

/* Raises the gate of `segment` and takes what is newer there. All of an idle step but a few compares: no more calls. */
static int begin_step(freezer_t *f, fz_segment *segment, uint64_t step, uint64_t held) {
  const uint64_t newest = fz_gate_raise(segment, step);
  fz_rank_note(segment, f->identity.rank, f->step, f->epoch);
  return newest <= held ? 0 : choose(f, segment, step, newest, held);
}

int fz_holds_begin_step(freezer_t *f, uint64_t step, uint64_t held) {
  int failed = 0;
  for (size_t i = f->n_later; i-- > 0;) {
    const int r = begin_step(f, f->later[i], step, 0);
    if (r == 1) {
      (void)let_go(f, f->current);
      f->current = f->later[i];
      f->later[i] = NULL;
      let_go_first(f, i + 1);
      return 1;
    }
    failed = r < 0 ? r : failed;
  }
  const int r = f->current ? begin_step(f, f->current, step, held) : 0;
  return r ? r : failed;
}

/* The newest gen that was taken from `current`: it may be on its way to the other machines still. */
static uint64_t held_of_current(const freezer_t *f) {
  return fz_is_collective(f) ? f->collective.last_gen : f->plan.gen;
}

fz_segment *fz_holds_newest(const freezer_t *f, uint64_t *ret_gen) {
  *ret_gen = f->n_later == 0 && f->current ? held_of_current(f) : 0;
  return f->n_later > 0 ? f->later[f->n_later - 1] : f->current ? f->current : f->stale;
}

bool fz_holds_has_plan(const freezer_t *f) {
  const fz_segment *segment = f->n_later > 0 ? f->later[f->n_later - 1] : f->current;
  return segment && newest_gen(segment) > 0;
}

static bool is_same_file(const fz_segment *segment, const struct stat *st) {
  struct stat own;
  return segment && fstat(fz_segment_fd(segment), &own) == 0 && own.st_dev == st->st_dev && own.st_ino == st->st_ino;
}

static void take_lock(freezer_t *f, fz_segment *segment) {
  const int r = fz_rank_lock(segment, f->identity.rank);
  if (r < 0)
    fz_log(f, FREEZER_LOG_WARNING, "cannot mark rank %u as living: %s", (unsigned)f->identity.rank,
           freezer_strerror(r));
}

/*
 * freezerd goes on with a segment that is held. Its new process may have cleared this rank's line, or entered it anew as
 * that of a rank that holds nothing, while the lock was gone: a line that stayed so would keep slots from being reused,
 * and with them every further plan, for ever.
 */
static int keep(freezer_t *f, fz_segment *segment, int fd) {
  (void)close(fd); /* which drops the lock that this process had on the file */
  take_lock(f, segment);
  if (fz_rank_read(segment, f->identity.rank).pid == 0)
    fz_rank_enter(segment, f->identity.rank, f->identity.pid);
  if (segment == f->current && is_own(f, segment))
    fz_rank_hold(segment, f->identity.rank, held_of_current(f));
  let_go_without_plan(f, segment);
  return 1;
}

static int check_segment(const freezer_t *f, const fz_segment *segment, uint64_t incarnation) {
  const fz_segment_info *info = fz_segment_get_info(segment);
  if (info->incarnation != incarnation || f->identity.rank >= info->world ||
      fz_segment_n_params(segment) != f->n_params ||
      fz_segment_layout_hash(segment) != fz_params_layout_hash(f->params))
    return -EBADMSG;
  return 0;
}

/* The arrays of both plans, once: every segment for these parameters has slots of one size. */
static int reserve_plans(freezer_t *f, const fz_segment *segment) {
  int r = f->plan.rows ? 0 : fz_plan_reserve(&f->plan, segment);
  if (r == 0 && !f->spare.rows)
    r = fz_plan_reserve(&f->spare, segment);
  return r;
}

static fz_segment *find_held(const freezer_t *f, int fd) {
  struct stat st;
  if (fstat(fd, &st) < 0)
    return NULL;
  for (size_t i = 0; i < f->n_later; i++)
    if (is_same_file(f->later[i], &st))
      return f->later[i];
  return is_same_file(f->current, &st) ? f->current : is_same_file(f->stale, &st) ? f->stale : NULL;
}

int fz_holds_welcome(freezer_t *f, int fd, uint64_t incarnation) {
  fz_segment *segment = find_held(f, fd);
  if (segment)
    return keep(f, segment, fd);
  int r = fz_segment_map_of(&segment, fd, false, f->link.peer_uid);
  if (r < 0) {
    (void)close(fd);
    return r;
  }
  r = check_segment(f, segment, incarnation);
  if (r == 0)
    r = reserve_plans(f, segment);
  if (r == 0) {
    let_go_without_plan(f, NULL);
    r = f->n_later < FZ_LATER_MAX ? 0 : -EBUSY;
  }
  if (r < 0) {
    fz_segment_free(segment);
    return r;
  }
  f->stale = let_go(f, f->stale);
  f->later[f->n_later++] = segment;
  fz_rank_enter(segment, f->identity.rank, f->identity.pid);
  take_lock(f, segment);
  /* Before ready is sent, so that no plan is for a step that this rank has begun, or handed out, without it. */
  if (f->begun)
    (void)fz_gate_raise(segment, f->step + (fz_is_collective(f) && f->step < FZ_STEP_MAX));
  return 0;
}

bool fz_holds_rewind(freezer_t *f) {
  fz_segment *newest = NULL;
  if (f->n_later > 0) {
    newest = f->later[--f->n_later];
  } else if (f->current) {
    newest = f->current;
    f->current = NULL;
  }
  if (newest) {
    fz_segment *stale = newest;
    fz_holds_drop(f);
    f->stale = stale;
  }
  fz_flags_forget_plan(f);
  return f->stale != NULL;
}
