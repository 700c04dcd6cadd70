/* collective.c - several machines: the root's plans reach the other processes by a broadcast that they have anyway. */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "client/handle.h"
#include "protocol/mask.h"

/*
 * At the start of step s the root raises its gate to s + 1: so the plan of step s + 1 is settled, and is handed out
 * while there is a step's time left. It comes into force when step s + 1 begins, in every process, since each takes
 * what came with the last broadcast before it asks for the next. Where training begins there is no step before: there
 * the plan of the first step itself is handed out, from within freezer_open() or freezer_rewind().
 *
 * Each time a header is broadcast, and behind it the plan, when it is a new one. All words are of the machine: processes
 * that train one model together are of one kind.
 *
 * With a broadcast that only begins, the header that begins at step s ends, and the plan behind it is broadcast, at the
 * start of step s + 1, before the plan of that step is taken: so nobody ever waits for a process that comes a little
 * later to a step.
 */
enum header_word { HEADER_MAGIC, HEADER_LAYOUT, HEADER_SIZE /* of the plan in words; 0: no new one */, HEADER_WORDS };
_Static_assert(sizeof(((struct fz_collective *)NULL)->header) == HEADER_WORDS * sizeof(uint64_t), "room for a header");
enum plan_word {
  PLAN_GEN,
  PLAN_ACTIVE_FROM,
  PLAN_WAKE_STEP,
  PLAN_WAKE_EPOCH,
  PLAN_HORIZON_STEP,
  PLAN_HORIZON_EPOCH,
  PLAN_N_ROWS,
  PLAN_N_MASKS,
  PLAN_ROWS
};
enum row_word { ROW_STEP, ROW_EPOCH, ROW_MASK_EDGE, ROW_WORDS };

#define MAGIC UINT64_C(0x01006e616c70667a) /* "zfplan", version 1 */

/* More than any plan of limits.h takes: a header that says more is none of ours. */
#define SIZE_MAX_WORDS (UINT64_C(16) * 1024 * 1024)

int fz_collective_init(freezer_t *f, const freezer_options_t *options) {
  struct fz_collective *collective = &f->collective;
  if (!options->broadcast)
    return 0;
  if (options->broadcast_root && options->world != 1)
    return -EINVAL;
  collective->broadcast = options->broadcast;
  collective->wait = options->broadcast_wait;
  collective->user = options->broadcast_user;
  collective->root = options->broadcast_root;
  collective->n_words = PLAN_ROWS + FZ_PLAN_ROWS * ROW_WORDS + fz_segment_masks_for(f->n_params) * f->n_words;
  collective->words = calloc(collective->n_words, sizeof(*collective->words));
  if (!collective->words)
    return -ENOMEM;
  int r = fz_plan_reserve_for(&f->plan, f->n_params);
  if (r == 0)
    r = fz_plan_reserve_for(&f->spare, f->n_params);
  if (r == 0)
    r = fz_plan_reserve_for(&collective->ahead, f->n_params);
  return r;
}

void fz_collective_deinit(freezer_t *f) {
  free(f->collective.words);
  fz_plan_deinit(&f->collective.ahead);
}

/* -------------------------------------------------------------------------------------------------- plan and words */

static size_t put_plan(uint64_t *words, const fz_plan *plan) {
  words[PLAN_GEN] = plan->gen;
  words[PLAN_ACTIVE_FROM] = plan->active_from;
  words[PLAN_WAKE_STEP] = plan->wake_step;
  words[PLAN_WAKE_EPOCH] = plan->wake_epoch;
  words[PLAN_HORIZON_STEP] = plan->horizon_step;
  words[PLAN_HORIZON_EPOCH] = plan->horizon_epoch;
  words[PLAN_N_ROWS] = plan->n_rows;
  words[PLAN_N_MASKS] = plan->n_masks;
  uint64_t *at = words + PLAN_ROWS;
  for (size_t i = 0; i < plan->n_rows; i++, at += ROW_WORDS) {
    at[ROW_STEP] = plan->rows[i].from_step;
    at[ROW_EPOCH] = plan->rows[i].from_epoch;
    at[ROW_MASK_EDGE] = (uint64_t)plan->rows[i].edge << 32 | plan->rows[i].mask;
  }
  const size_t n_mask_words = plan->n_masks * fz_mask_words(plan->n_params);
  if (n_mask_words > 0)
    memcpy(at, plan->masks, n_mask_words * sizeof(*at));
  return (size_t)(at - words) + n_mask_words;
}

/* The other way round, with everything checked: it comes from another process. */
static int take_plan(const freezer_t *f, const uint64_t *words, size_t size, fz_plan *plan) {
  if (size < PLAN_ROWS)
    return -EBADMSG;
  const uint64_t n_rows = words[PLAN_N_ROWS], n_masks = words[PLAN_N_MASKS];
  if (n_rows > FZ_PLAN_ROWS || n_masks > fz_segment_masks_for(f->n_params) ||
      size != PLAN_ROWS + n_rows * ROW_WORDS + n_masks * f->n_words)
    return -EBADMSG;
  plan->gen = words[PLAN_GEN];
  plan->active_from = words[PLAN_ACTIVE_FROM];
  plan->wake_step = words[PLAN_WAKE_STEP];
  plan->wake_epoch = words[PLAN_WAKE_EPOCH];
  plan->horizon_step = words[PLAN_HORIZON_STEP];
  plan->horizon_epoch = words[PLAN_HORIZON_EPOCH];
  plan->n_params = f->n_params;
  plan->n_rows = n_rows;
  plan->n_masks = n_masks;
  const uint64_t *at = words + PLAN_ROWS;
  for (size_t i = 0; i < n_rows; i++, at += ROW_WORDS)
    plan->rows[i] = (struct fz_plan_row){ .from_step = at[ROW_STEP],
                                          .from_epoch = at[ROW_EPOCH],
                                          .mask = (uint32_t)at[ROW_MASK_EDGE],
                                          .edge = (uint32_t)(at[ROW_MASK_EDGE] >> 32) };
  if (plan->gen == 0 || plan->gen > FZ_GEN_MAX || !fz_plan_rows_are_sound(plan->rows, n_rows, n_masks))
    return -EBADMSG;
  if (n_masks * f->n_words > 0)
    memcpy(plan->masks, at, n_masks * f->n_words * sizeof(*at));
  fz_plan_clear_padding(plan);
  return 0;
}

/* -------------------------------------------------------------------------------------------------------- exchange */

static int begin_broadcast(const freezer_t *f, uint64_t *words, size_t n_words) {
  const int r = f->collective.broadcast(f->collective.user, words, n_words * sizeof(*words));
  return r > 0 ? -EIO : r;
}

static int end_broadcast(const freezer_t *f) {
  const int r = f->collective.wait ? f->collective.wait(f->collective.user) : 0;
  return r > 0 ? -EIO : r;
}

static int broadcast(const freezer_t *f, uint64_t *words, size_t n_words) {
  const int r = begin_broadcast(f, words, n_words);
  return r < 0 ? r : end_broadcast(f);
}

static void swap_with_ahead(freezer_t *f, fz_plan *plan) {
  const fz_plan other = *plan;
  *plan = f->collective.ahead;
  f->collective.ahead = other;
}

/* The header for the plan of `step`, if it is another than before. One whose broadcast failed is handed out once more. */
static int fill_header(freezer_t *f, uint64_t step) {
  struct fz_collective *collective = &f->collective;
  const int found = fz_holds_begin_step(f, step, collective->last_gen);
  if (found == 1) {
    collective->last_gen = f->spare.gen;
    swap_with_ahead(f, &f->spare);
    collective->unsent = true;
  }
  collective->header[HEADER_MAGIC] = MAGIC;
  collective->header[HEADER_LAYOUT] = fz_params_layout_hash(f->params);
  collective->header[HEADER_SIZE] = collective->unsent ? put_plan(collective->words, &collective->ahead) : 0;
  return found < 0 ? found : 0;
}

/* Behind the header. */
static int hand_out(freezer_t *f) {
  struct fz_collective *collective = &f->collective;
  if (collective->header[HEADER_SIZE] == 0)
    return 0;
  const int r = broadcast(f, collective->words, collective->header[HEADER_SIZE]);
  if (r == 0) {
    collective->unsent = false;
    collective->has_ahead = true;
  }
  return r;
}

/* A plan that does not fit into what its own layout can need is received all the same: the root waits for that. */
static int receive_other(freezer_t *f, size_t size) {
  uint64_t *words = calloc(size, sizeof(*words));
  if (!words)
    return -ENOMEM;
  const int r = broadcast(f, words, size);
  free(words);
  return r < 0 ? r : -EPROTO;
}

static int receive(freezer_t *f) {
  struct fz_collective *collective = &f->collective;
  const uint64_t *header = collective->header, size = header[HEADER_SIZE];
  if (header[HEADER_MAGIC] != MAGIC || size > SIZE_MAX_WORDS)
    return -EPROTO;
  if (size > collective->n_words)
    return receive_other(f, size);
  int r = 0;
  if (size > 0)
    r = broadcast(f, collective->words, size);
  if (r < 0)
    return r;
  if (header[HEADER_LAYOUT] != fz_params_layout_hash(f->params))
    return -EPROTO;
  if (size > 0) {
    r = take_plan(f, collective->words, size, &collective->ahead);
    collective->has_ahead = r == 0;
  }
  return r;
}

/* The plan of `step` begins to be handed out, or received. */
static int begin_exchange(freezer_t *f, uint64_t step) {
  struct fz_collective *collective = &f->collective;
  memset(collective->header, 0, sizeof(collective->header));
  const int found = collective->root ? fill_header(f, step) : 0;
  const int r = begin_broadcast(f, collective->header, HEADER_WORDS);
  collective->under_way = r == 0;
  return r < 0 ? r : found;
}

static int end_exchange(freezer_t *f) {
  struct fz_collective *collective = &f->collective;
  if (!collective->under_way)
    return 0;
  collective->under_way = false;
  const int r = end_broadcast(f);
  if (r < 0)
    return r;
  return collective->root ? hand_out(f) : receive(f);
}

static int exchange(freezer_t *f, uint64_t step) {
  const int begun = begin_exchange(f, step), ended = end_exchange(f);
  return ended < 0 ? ended : begun;
}

int fz_collective_begin_step(freezer_t *f) {
  struct fz_collective *collective = &f->collective;
  const int before = end_exchange(f);
  int taken = 0;
  if (collective->has_ahead) {
    swap_with_ahead(f, &f->spare);
    fz_flags_take_spare(f);
    collective->has_ahead = false;
    taken = 1;
  }
  const uint64_t next = f->step < FZ_STEP_MAX ? f->step + 1 : f->step;
  const int r = collective->wait ? begin_exchange(f, next) : exchange(f, next);
  return taken ? taken : before < 0 ? before : r;
}

int fz_collective_begin(freezer_t *f) {
  struct fz_collective *collective = &f->collective;
  (void)end_exchange(f); /* of the step before training went back: all come to it, and nobody wants it */
  collective->has_ahead = collective->unsent = false;
  collective->last_gen = 0;
  return exchange(f, f->step);
}
