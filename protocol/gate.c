/* gate.c - the gate, the rank lines and the plan ring of a mapped segment. segment.h has the argument for its order. */
#include "config.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#include "protocol/mask.h"
#include "protocol/segment.h"
#include "protocol/segment_layout.h"

/* ------------------------------------------------------------------------------------------------------ rank lines */

static struct fz_layout_rank *line(const fz_segment *segment, uint32_t rank) {
  assert(rank < segment->header.world);
  return &segment->gate->ranks[rank];
}

static struct fz_layout_rank *own_line(const fz_segment *segment, uint32_t rank) {
  assert(segment->gate_for_writing);
  return line(segment, rank);
}

void fz_rank_enter(fz_segment *segment, uint32_t rank, uint64_t pid) {
  struct fz_layout_rank *own = own_line(segment, rank);
  atomic_store_explicit(&own->gen, 0, memory_order_relaxed);
  atomic_store_explicit(&own->step, FZ_TIME_NEVER, memory_order_relaxed);
  atomic_store_explicit(&own->epoch, FZ_TIME_NEVER, memory_order_relaxed);
  atomic_store_explicit(&own->pid, pid, memory_order_release);
}

void fz_rank_leave(fz_segment *segment, uint32_t rank) {
  atomic_store_explicit(&own_line(segment, rank)->pid, 0, memory_order_release);
}

void fz_rank_note(fz_segment *segment, uint32_t rank, uint64_t step, uint64_t epoch) {
  struct fz_layout_rank *own = own_line(segment, rank);
  atomic_store_explicit(&own->step, step, memory_order_relaxed);
  atomic_store_explicit(&own->epoch, epoch, memory_order_relaxed);
}

void fz_rank_hold(fz_segment *segment, uint32_t rank, uint64_t gen) {
  atomic_store_explicit(&own_line(segment, rank)->gen, gen, memory_order_release);
}

struct fz_rank_line fz_rank_read(const fz_segment *segment, uint32_t rank) {
  struct fz_layout_rank *shared = line(segment, rank);
  return (struct fz_rank_line){
    .pid = atomic_load_explicit(&shared->pid, memory_order_acquire),
    .gen = atomic_load_explicit(&shared->gen, memory_order_acquire),
    .step = atomic_load_explicit(&shared->step, memory_order_relaxed),
    .epoch = atomic_load_explicit(&shared->epoch, memory_order_relaxed),
  };
}

static struct flock byte_of(uint32_t rank) {
  return (struct flock){ .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = (off_t)rank, .l_len = 1 };
}

int fz_rank_lock(fz_segment *segment, uint32_t rank) {
  struct flock lock = byte_of(rank);
  if (fcntl(segment->fd, F_SETLK, &lock) == 0)
    return 0;
  return errno == EACCES ? -EAGAIN : -errno;
}

bool fz_rank_is_locked(const fz_segment *segment, uint32_t rank) {
  struct flock lock = byte_of(rank);
  /* Who cannot be told to be dead is taken for alive. */
  return fcntl(segment->fd, F_GETLK, &lock) < 0 || lock.l_type != F_UNLCK;
}

pid_t fz_rank_holder(const fz_segment *segment, uint32_t rank) {
  struct flock lock = byte_of(rank);
  return fcntl(segment->fd, F_GETLK, &lock) == 0 && lock.l_type != F_UNLCK && lock.l_pid > 0 ? lock.l_pid : 0;
}

/* In other namespaces processes have the same numbers; who has the lock is told by the kernel. */
bool fz_rank_is_own(const fz_segment *segment, uint32_t rank, uint64_t pid) {
  return fz_rank_read(segment, rank).pid == pid && !fz_rank_is_locked(segment, rank);
}

/* -------------------------------------------------------------------------------------------------------- the gate */

static uint64_t started_of(uint64_t word) { return word >> FZ_GATE_GEN_BITS; }

static uint64_t gen_of(uint64_t word) { return word & FZ_GEN_MAX; }

uint64_t fz_gate_raise(fz_segment *segment, uint64_t step) {
  assert(segment->gate_for_writing && step <= FZ_STEP_MAX);
  _Atomic uint64_t *gate = &segment->gate->word;
  uint64_t word = atomic_load_explicit(gate, memory_order_acquire);
  while (started_of(word) < step + 1) {
    const uint64_t raised = (step + 1) << FZ_GATE_GEN_BITS | gen_of(word);
    if (atomic_compare_exchange_weak_explicit(gate, &word, raised, memory_order_acq_rel, memory_order_acquire))
      break;
  }
  return gen_of(word);
}

void fz_gate_read(const fz_segment *segment, uint64_t *ret_started, uint64_t *ret_gen) {
  const uint64_t word = atomic_load_explicit(&segment->gate->word, memory_order_acquire);
  *ret_started = started_of(word);
  *ret_gen = gen_of(word);
}

void fz_gate_set_rewound(fz_segment *segment, bool rewound) {
  assert(segment->for_writing);
  atomic_store_explicit(&segment->gate->rewound, rewound, memory_order_relaxed);
}

bool fz_gate_is_rewound(const fz_segment *segment) {
  return atomic_load_explicit(&segment->gate->rewound, memory_order_relaxed) != 0;
}

/* ---------------------------------------------------------------------------------------------------- reading slots */

static uint64_t get(const _Atomic uint64_t *slot, size_t word) {
  return atomic_load_explicit(&slot[word], memory_order_acquire);
}

static void put(_Atomic uint64_t *slot, size_t word, uint64_t value) {
  atomic_store_explicit(&slot[word], value, memory_order_release);
}

static size_t row_word(size_t row) { return FZ_SLOT_ROWS + row * FZ_ROW_WORDS; }

static size_t masks_word(const fz_segment *segment) { return row_word(segment->header.max_rows); }

int fz_plan_reserve_for(fz_plan *plan, size_t n_params) {
  const size_t mask_words = fz_segment_masks_for(n_params) * fz_mask_words(n_params);
  struct fz_plan_row *rows = calloc(FZ_PLAN_ROWS, sizeof(*rows));
  uint64_t *masks = calloc(mask_words ? mask_words : 1, sizeof(*masks));
  if (!rows || !masks) {
    free(rows);
    free(masks);
    return -ENOMEM;
  }
  fz_plan_deinit(plan);
  plan->rows = rows;
  plan->masks = masks;
  return 0;
}

/* Every segment of this layout version has slots of the size that its number of parameters gives. */
int fz_plan_reserve(fz_plan *plan, const fz_segment *segment) {
  return fz_plan_reserve_for(plan, segment->header.n_params);
}

static void take_rows(const _Atomic uint64_t *slot, fz_plan *plan) {
  for (size_t i = 0; i < plan->n_rows; i++) {
    const size_t word = row_word(i);
    const uint64_t mask_edge = get(slot, word + FZ_ROW_MASK_EDGE);
    plan->rows[i] = (struct fz_plan_row){
      .from_step = get(slot, word + FZ_ROW_STEP),
      .from_epoch = get(slot, word + FZ_ROW_EPOCH),
      .mask = (uint32_t)mask_edge,
      .edge = (uint32_t)(mask_edge >> 32),
    };
  }
}

static void take_masks(const fz_segment *segment, const _Atomic uint64_t *slot, fz_plan *plan) {
  const size_t words = plan->n_masks * fz_mask_words(plan->n_params), first = masks_word(segment);
  for (size_t i = 0; i < words; i++)
    plan->masks[i] = get(slot, first + i);
  fz_plan_clear_padding(plan);
}

/* Copies a slot; false when it is none that a planner makes. */
static bool take_content(const fz_segment *segment, const _Atomic uint64_t *slot, fz_plan *plan) {
  plan->active_from = get(slot, FZ_SLOT_ACTIVE_FROM);
  plan->wake_step = get(slot, FZ_SLOT_WAKE_STEP);
  plan->wake_epoch = get(slot, FZ_SLOT_WAKE_EPOCH);
  plan->horizon_step = get(slot, FZ_SLOT_HORIZON_STEP);
  plan->horizon_epoch = get(slot, FZ_SLOT_HORIZON_EPOCH);
  plan->n_params = segment->header.n_params;
  plan->n_rows = get(slot, FZ_SLOT_N_ROWS);
  plan->n_masks = get(slot, FZ_SLOT_N_MASKS);
  if (plan->n_rows > segment->header.max_rows || plan->n_masks > segment->header.max_masks)
    return false;
  take_rows(slot, plan);
  if (!fz_plan_rows_are_sound(plan->rows, plan->n_rows, plan->n_masks))
    return false;
  take_masks(segment, slot, plan);
  return true;
}

int fz_segment_read_plan(const fz_segment *segment, uint64_t gen, fz_plan *plan) {
  const _Atomic uint64_t *slot = fz_layout_slot(segment, gen);
  if (gen == 0 || get(slot, FZ_SLOT_GEN) != gen)
    return FZ_CHOOSE_LOST;
  const bool good = take_content(segment, slot, plan);
  if (get(slot, FZ_SLOT_GEN) != gen)
    return FZ_CHOOSE_LOST;
  plan->gen = gen;
  return good ? 0 : -EBADMSG;
}

int fz_segment_choose(const fz_segment *segment, uint64_t step, uint64_t newest, uint64_t held, fz_plan *plan) {
  for (uint64_t gen = newest; gen > held; gen--) {
    const _Atomic uint64_t *slot = fz_layout_slot(segment, gen);
    if (newest - gen >= FZ_PLAN_SLOTS || get(slot, FZ_SLOT_GEN) != gen)
      return FZ_CHOOSE_LOST;
    const uint64_t active_from = get(slot, FZ_SLOT_ACTIVE_FROM);
    if (get(slot, FZ_SLOT_GEN) != gen)
      return FZ_CHOOSE_LOST;
    if (active_from <= step)
      return fz_segment_read_plan(segment, gen, plan);
  }
  return FZ_CHOOSE_HELD;
}

/* ------------------------------------------------------------------------------------------------------- publishing */

bool fz_segment_slot_free(const fz_segment *segment, uint64_t gen) {
  if (gen <= FZ_PLAN_SLOTS)
    return true;
  for (uint32_t rank = 0; rank < segment->header.world; rank++) {
    const struct fz_rank_line shared = fz_rank_read(segment, rank);
    if (shared.pid != 0 && shared.gen <= gen - FZ_PLAN_SLOTS)
      return false;
  }
  return true;
}

static int check_plan(const fz_segment *segment, const fz_plan *plan, uint64_t newest) {
  if (newest >= FZ_GEN_MAX)
    return -EOVERFLOW;
  if (plan->n_rows > segment->header.max_rows || plan->n_masks > segment->header.max_masks)
    return -E2BIG;
  if (plan->gen != newest + 1 || plan->n_params != segment->header.n_params ||
      !fz_plan_rows_are_sound(plan->rows, plan->n_rows, plan->n_masks))
    return -EINVAL;
  if (newest > 0 && plan->active_from < get(fz_layout_slot(segment, newest), FZ_SLOT_ACTIVE_FROM))
    return -EINVAL;
  return 0;
}

/* The gen goes in last: a slot that a killed freezerd left half written has none. */
static void write_slot(const fz_segment *segment, const fz_plan *plan) {
  _Atomic uint64_t *slot = fz_layout_slot(segment, plan->gen);
  put(slot, FZ_SLOT_GEN, 0);
  put(slot, FZ_SLOT_ACTIVE_FROM, plan->active_from);
  put(slot, FZ_SLOT_WAKE_STEP, plan->wake_step);
  put(slot, FZ_SLOT_WAKE_EPOCH, plan->wake_epoch);
  put(slot, FZ_SLOT_HORIZON_STEP, plan->horizon_step);
  put(slot, FZ_SLOT_HORIZON_EPOCH, plan->horizon_epoch);
  put(slot, FZ_SLOT_N_ROWS, plan->n_rows);
  put(slot, FZ_SLOT_N_MASKS, plan->n_masks);
  for (size_t i = 0; i < plan->n_rows; i++) {
    const struct fz_plan_row *row = &plan->rows[i];
    put(slot, row_word(i) + FZ_ROW_STEP, row->from_step);
    put(slot, row_word(i) + FZ_ROW_EPOCH, row->from_epoch);
    put(slot, row_word(i) + FZ_ROW_MASK_EDGE, (uint64_t)row->edge << 32 | row->mask);
  }
  const size_t words = plan->n_masks * fz_mask_words(plan->n_params), first = masks_word(segment);
  for (size_t i = 0; i < words; i++)
    put(slot, first + i, plan->masks[i]);
  put(slot, FZ_SLOT_GEN, plan->gen);
}

int fz_segment_publish(fz_segment *segment, const fz_plan *plan) {
  assert(segment->for_writing);
  _Atomic uint64_t *gate = &segment->gate->word;
  uint64_t word = atomic_load_explicit(gate, memory_order_acquire);
  const int r = check_plan(segment, plan, gen_of(word));
  if (r < 0)
    return r;
  if (started_of(word) > plan->active_from)
    return FZ_PUBLISH_LATE;
  if (!fz_segment_slot_free(segment, plan->gen))
    return FZ_PUBLISH_FULL;
  write_slot(segment, plan);
  /* Ranks raise the word meanwhile. As long as none has started beyond active_from, that changes nothing: try again. */
  while (started_of(word) <= plan->active_from && gen_of(word) + 1 == plan->gen) {
    const uint64_t published = started_of(word) << FZ_GATE_GEN_BITS | plan->gen;
    if (atomic_compare_exchange_weak_explicit(gate, &word, published, memory_order_acq_rel, memory_order_acquire))
      return 0;
  }
  if (gen_of(word) + 1 != plan->gen) /* another freezerd writes here: its plan stands */
    return -EINVAL;
  put(fz_layout_slot(segment, plan->gen), FZ_SLOT_GEN, 0);
  return FZ_PUBLISH_LATE;
}
