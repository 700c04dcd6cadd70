/* fuzz_segment.c - a segment that somebody has written into: mapped, read, and chosen from.
 *
 * The input: one byte of bits (below), one that picks a sound segment to begin with, then patches to it: the part
 * (0 header, 1 parameters, 2 gate, from 3 slots), two bytes of offset in it, one of length, and so many bytes. */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "protocol/hash.h"
#include "protocol/mask.h"
#include "protocol/segment.h"
#include "protocol/segment_layout.h"
#include "tests/fuzz/fuzz.h"

const char fuzz_name[] = "segment";

enum {
  BIT_SUM = 1,    /* the header's checksum is made right again */
  BIT_WRITER = 2, /* mapped as freezerd does, and published into */
  BIT_RAW = 4,    /* no segment to begin with: the rest of the input is the file */
  BIT_SHORT = 8,  /* the last page of the file is missing */
};

#define BASES 4U
#define PLANS 10U /* more than the ring has slots */

/* Sound segments, made once. */
static struct {
  unsigned char *bytes;
  size_t size;
} bases[BASES];

/* --- sound segments --- */

static fz_params *make_params(size_t n) {
  fz_params *params = NULL;
  char name[32];
  FUZZ_CHECK(fz_params_new(&params) == 0);
  for (size_t i = 0; i < n; i++) {
    (void)snprintf(name, sizeof(name), "layer.%zu", i);
    FUZZ_CHECK(fz_params_add(params, name, strlen(name), i, i % 3 > 0, i % 5 ? NULL : "ZERO", i % 7 ? NULL : "ONE") ==
               0);
  }
  FUZZ_CHECK(fz_params_seal(params, NULL) == 0);
  return params;
}

static void publish(fz_segment *segment, uint64_t gen) {
  uint64_t masks[2 * 2] = { 0 };
  struct fz_plan_row rows[3] = { { .mask = 0 }, { .from_epoch = 2, .mask = 1 }, { .from_step = 9, .edge = 1 } };
  const size_t n = fz_segment_n_params(segment);
  fz_plan plan = FZ_PLAN_NULL;
  plan.gen = gen;
  plan.active_from = 3 * gen;
  plan.n_params = n;
  plan.n_rows = 3;
  plan.n_masks = 2;
  plan.rows = rows;
  plan.masks = masks;
  fz_mask_fill(masks + fz_mask_words(n), n, true);
  FUZZ_CHECK(fz_segment_publish(segment, &plan) == 0);
}

static void make_base(unsigned index) {
  static const size_t counts[BASES] = { 70, 0, 3, 64 };
  static const uint32_t worlds[BASES] = { 2, 1, 40, 3 };
  const fz_segment_info info = { .run = "run",
                                 .run_key = "0123456789abcdef",
                                 .job = "job",
                                 .boot_id = "boot",
                                 .incarnation = 3,
                                 .daemon_pid = 77,
                                 .world = worlds[index] };
  fz_params *params = make_params(counts[index]);
  fz_segment *segment = NULL;
  char name[64];

  (void)snprintf(name, sizeof(name), "/freezer-fuzz.%ld.%u", (long)getpid(), index);
  FUZZ_CHECK(fz_segment_create(&segment, name, &info, params) == 0);
  FUZZ_CHECK(fz_segment_unlink(name) == 0);
  for (uint64_t gen = 1; gen <= PLANS; gen++)
    publish(segment, gen);
  bases[index].size = fz_segment_size(segment);
  bases[index].bytes = malloc(bases[index].size);
  FUZZ_CHECK(bases[index].bytes != NULL);
  memcpy(bases[index].bytes, segment->base, bases[index].size);
  fz_segment_free(segment);
  fz_params_unref(params);
}

/* --- damage --- */

static void patch(unsigned char *bytes, size_t size, const uint8_t *data, size_t left) {
  struct fz_layout_header header;
  memcpy(&header, bytes, sizeof(header));
  while (left > 4) {
    size_t length = data[3] < left - 4 ? data[3] : left - 4;
    size_t start = 0, part = sizeof(header);
    if (data[0] == 1) {
      start = header.params_offset;
      part = header.params_size;
    } else if (data[0] == 2) {
      start = header.gate_offset;
      part = header.gate_size;
    } else if (data[0] > 2) {
      start = header.slots_offset + (data[0] - 3) % header.n_slots * header.slot_size;
      part = header.slot_size;
    }
    start += part ? ((size_t)data[1] << 8 | data[2]) % part : 0;
    if (start + length <= size)
      memcpy(bytes + start, data + 4, length);
    data += 4 + length;
    left -= 4 + length;
  }
}

static void mend_checksum(unsigned char *bytes, size_t size) {
  struct fz_layout_header header;
  if (size < sizeof(header))
    return;
  memcpy(&header, bytes, sizeof(header));
  memset(header.magic, 0, sizeof(header.magic));
  header.checksum = 0;
  header.checksum = fz_hash_bytes(FZ_HASH_START, &header, sizeof(header));
  memcpy(bytes + offsetof(struct fz_layout_header, checksum), &header.checksum, sizeof(header.checksum));
}

/* The file that the input describes. */
static int make_file(const uint8_t *data, size_t size) {
  const unsigned base = data[1] % BASES;
  const bool raw = data[0] & BIT_RAW;
  if (!bases[base].bytes)
    make_base(base);
  const size_t length = raw ? size - 2 : bases[base].size;
  unsigned char *bytes = malloc(length ? length : 1);
  FUZZ_CHECK(bytes != NULL);
  memcpy(bytes, raw ? data + 2 : bases[base].bytes, length);
  if (!raw)
    patch(bytes, length, data + 2, size - 2);
  if (data[0] & BIT_SUM)
    mend_checksum(bytes, length);
  const int fd = fuzz_file(bytes, data[0] & BIT_SHORT && length > 4096 ? length - 4096 : length);
  free(bytes);
  FUZZ_CHECK(fchmod(fd, 0600) == 0);
  return fd;
}

/* --- reading it --- */

static void check_plan(const fz_segment *segment, const fz_plan *plan) {
  const size_t n = fz_segment_n_params(segment);
  FUZZ_CHECK(plan->n_params == n && fz_plan_rows_are_sound(plan->rows, plan->n_rows, plan->n_masks));
  FUZZ_CHECK(plan->n_rows <= fz_segment_max_rows(segment) && plan->n_masks <= fz_segment_max_masks(segment));
  for (size_t i = 0; i < plan->n_rows; i++) {
    FUZZ_CHECK(fz_plan_row_at(plan->rows, plan->n_rows, plan->rows[i].from_step, plan->rows[i].from_epoch) <
               plan->n_rows);
    const uint64_t *mask = fz_plan_mask(plan, i);
    FUZZ_CHECK(fz_mask_count(mask, n) <= n && fz_mask_next(mask, n, 0) <= n);
    FUZZ_CHECK(n % 64 == 0 || mask[n / 64] >> (n % 64) == 0);
  }
}

static void check_table(const fz_segment *segment) {
  fz_params *params = NULL;
  const int r = fz_segment_params(segment, &params);
  FUZZ_CHECK(r == 0 || r == -EBADMSG);
  if (r == 0)
    FUZZ_CHECK(fz_params_count(params) == fz_segment_n_params(segment) &&
               fz_params_layout_hash(params) == fz_segment_layout_hash(segment));
  fz_params_unref(params);
}

static void check_plans(const fz_segment *segment) {
  static const uint64_t steps[] = { 0, 5, 30, 1000, FZ_STEP_MAX };
  uint64_t started, newest;
  fz_plan plan = FZ_PLAN_NULL;

  FUZZ_CHECK(fz_plan_reserve(&plan, segment) == 0);
  fz_gate_read(segment, &started, &newest);
  FUZZ_CHECK(newest <= FZ_GEN_MAX);
  for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
    const int r = fz_segment_choose(segment, steps[i], newest, i % 2 ? 0 : 4, &plan);
    FUZZ_CHECK(r == 0 || r == FZ_CHOOSE_HELD || r == FZ_CHOOSE_LOST || r == -EBADMSG);
    if (r == 0)
      check_plan(segment, &plan);
  }
  for (uint64_t gen = newest > FZ_PLAN_SLOTS ? newest - FZ_PLAN_SLOTS : 0; gen <= newest; gen++)
    if (fz_segment_read_plan(segment, gen, &plan) == 0)
      check_plan(segment, &plan);
  fz_plan_deinit(&plan);
}

static void use(fz_segment *segment, bool writer) {
  const fz_segment_info *info = fz_segment_get_info(segment);
  uint64_t started, newest;

  FUZZ_CHECK(info->world >= 1 && info->world <= FZ_WORLD_MAX && strlen(info->run) <= FZ_RUN_NAME_MAX);
  for (uint32_t rank = 0; rank < info->world; rank++)
    (void)fz_rank_read(segment, rank);
  check_table(segment);
  check_plans(segment);
  fz_rank_enter(segment, info->world - 1, 1);
  (void)fz_gate_raise(segment, 40);
  fz_rank_hold(segment, info->world - 1, 1);
  fz_gate_read(segment, &started, &newest);
  FUZZ_CHECK(started >= 41);
  if (writer) {
    uint64_t masks[1024] = { 0 };
    struct fz_plan_row row = { .mask = 0 };
    fz_plan plan = FZ_PLAN_NULL;
    plan.gen = newest + 1;
    plan.active_from = FZ_STEP_MAX;
    plan.n_params = fz_segment_n_params(segment);
    plan.n_rows = plan.n_masks = 1;
    plan.rows = &row;
    plan.masks = masks;
    if (fz_mask_words(plan.n_params) <= sizeof(masks) / sizeof(masks[0]))
      (void)fz_segment_publish(segment, &plan);
    check_plans(segment);
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  fz_segment *segment = NULL;

  if (size < 2)
    return 0;
  const bool writer = data[0] & BIT_WRITER;
  const int fd = make_file(data, size);
  const int r = fz_segment_map(&segment, fd, writer);
  FUZZ_CHECK(r == 0 || r == -EBADMSG || r == -EPROTO);
  if (r < 0) {
    FUZZ_CHECK(segment == NULL);
    (void)close(fd);
    return 0;
  }
  use(segment, writer);
  fz_segment_free(segment);
  return 0;
}
