/* segment_layout.h - the bytes of a segment, layout version 1. Private to segment.c and gate.c (and to what tests them). */
#ifndef FZ_SEGMENT_LAYOUT_H
#define FZ_SEGMENT_LAYOUT_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "protocol/segment.h"

/*
 * header | parameters | gate pages | slot 0 | slot 1 | ... | slot FZ_PLAN_SLOTS - 1
 *
 * The gate begins on a page and fills whole ones, so that ranks can map it alone for writing; the slots begin on the
 * page after it. All sizes and offsets follow from four numbers of the header (page size, parameters, bytes of the
 * parameter table, world): whoever maps a segment computes them again and compares, so no sum of the header's is
 * trusted. A change of anything in this file, or of the ring's limits, is another layout version.
 *
 * Version history: 1, first.
 */
#define FZ_LAYOUT_MAGIC "freezer\n"
#define FZ_LAYOUT_VERSION 1U

_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "the gate needs 64-bit atomics that work across processes");
_Static_assert(sizeof(_Atomic uint64_t) == 8, "an atomic word has no lock beside it");

/* Immutable once `magic` is written, which is last. No padding: two headers are equal if their bytes are. */
struct fz_layout_header {
  char magic[8];
  uint32_t version;
  uint32_t header_size;
  uint64_t checksum; /* of this struct with magic and checksum zero */
  uint64_t total_size;
  uint64_t page_size;
  uint64_t params_offset, params_size;
  uint64_t gate_offset, gate_size;
  uint64_t slots_offset, slot_size;
  uint32_t n_slots, max_rows;
  uint32_t max_masks, world;
  uint64_t n_params;
  uint64_t layout_hash, baseline_hash;
  uint64_t incarnation, attempt, daemon_pid;
  char run[208];
  char run_key[24];
  char job[208];
  char boot_id[48];
};
_Static_assert(sizeof(struct fz_layout_header) == 3 * 8 + 8 * 8 + 2 * 8 + 6 * 8 + 208 + 24 + 208 + 48,
               "no hidden padding");
_Static_assert(sizeof(struct fz_layout_header) % 8 == 0, "what follows stays aligned");

/*
 * Before each name; the name, the two codes (each may be empty), the aliases, each behind its length as two bytes, and
 * zeros up to the next multiple of 8 follow.
 */
struct fz_layout_param {
  uint64_t elements;
  uint32_t name_length;
  uint8_t requires_grad;
  uint8_t may_freeze_length, may_train_length;
  uint8_t n_aliases;
};
_Static_assert(sizeof(struct fz_layout_param) == 16, "no hidden padding");

/* Neighbouring cache lines are fetched in pairs: 128 bytes keep two ranks apart. */
#define FZ_LAYOUT_LINE 128U

struct fz_layout_rank {
  _Alignas(FZ_LAYOUT_LINE) _Atomic uint64_t pid;
  _Atomic uint64_t gen;
  _Atomic uint64_t step, epoch;
};
_Static_assert(sizeof(struct fz_layout_rank) == FZ_LAYOUT_LINE, "a line per rank");

struct fz_layout_gate {
  _Alignas(FZ_LAYOUT_LINE) _Atomic uint64_t word; /* started << FZ_GATE_GEN_BITS | gen */
  _Atomic uint64_t rewound;                       /* 1: fz_gate_set_rewound() */
  struct fz_layout_rank ranks[];
};
_Static_assert(sizeof(struct fz_layout_gate) == FZ_LAYOUT_LINE, "the word has a line of its own");

#define FZ_GATE_GEN_BITS 24U
_Static_assert(FZ_GEN_MAX == (UINT64_C(1) << FZ_GATE_GEN_BITS) - 1, "a gen fits its half of the word");
_Static_assert(FZ_STEP_MAX + 1 < UINT64_C(1) << (64 - FZ_GATE_GEN_BITS), "step + 1 fits the other half");

/* A slot is words throughout: these, then max_rows rows, then max_masks masks. */
enum fz_slot_word {
  FZ_SLOT_GEN,
  FZ_SLOT_ACTIVE_FROM,
  FZ_SLOT_WAKE_STEP,
  FZ_SLOT_WAKE_EPOCH,
  FZ_SLOT_HORIZON_STEP,
  FZ_SLOT_HORIZON_EPOCH,
  FZ_SLOT_N_ROWS,
  FZ_SLOT_N_MASKS,
  FZ_SLOT_ROWS
};
enum fz_row_word { FZ_ROW_STEP, FZ_ROW_EPOCH, FZ_ROW_MASK_EDGE, FZ_ROW_WORDS }; /* mask in the low half, edge above */

struct fz_segment {
  int fd;
  bool for_writing, gate_for_writing;
  unsigned char *base; /* the whole */
  struct fz_layout_gate *gate;
  void *gate_map;                 /* NULL when the gate lies in `base` */
  struct fz_layout_header header; /* a copy that nobody else can change */
  fz_segment_info info;
};

static inline _Atomic uint64_t *fz_layout_slot(const fz_segment *segment, uint64_t gen) {
  const uint64_t index = gen % FZ_PLAN_SLOTS;
  return (_Atomic uint64_t *)(void *)(segment->base + segment->header.slots_offset + index * segment->header.slot_size);
}

#endif
