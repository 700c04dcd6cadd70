/* check_segment.c - making, finding and judging segments: damage at every field, full memory, foreign files. */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "protocol/hash.h"
#include "protocol/mask.h"
#include "protocol/segment.h"
#include "protocol/segment_layout.h"
#include "tests/runner.h"

enum { COUNT = 100 };

static char name[FZ_SEGMENT_NAME_MAX + 1];
static fz_params *params;
static fz_segment *segment;

static const fz_segment_info info = {
  .run = "a run",
  .run_key = "0123456789abcdef",
  .job = "slurm-1.0",
  .attempt = 3,
  .boot_id = "12345678-1234-1234-1234-123456789abc",
  .incarnation = 7,
  .daemon_pid = 4711,
  .world = 5,
};

static fz_params *make_params(size_t count) {
  fz_params *made = NULL;
  ck_assert_int_eq(fz_params_new(&made), 0);
  for (size_t i = 0; i < count; i++) {
    char text[64];
    const int n = snprintf(text, sizeof(text), "layers.%zu.weight%.*s", i, (int)(i % 9), "abcdefghi");
    ck_assert_int_eq(fz_params_add(made, text, (size_t)n, i * 1000, i % 3 == 0, i % 7 == 0 ? "ZERO" : NULL,
                                   i % 5 == 0 ? "NOT_CONTROLLABLE" : NULL),
                     0);
    if (i == 35) {
      ck_assert_int_eq(fz_params_add_alias(made, "tied", 4), 0);
      ck_assert_int_eq(fz_params_add_alias(made, "tied too", 8), 0);
    }
  }
  ck_assert_int_eq(fz_params_seal(made, NULL), 0);
  return made;
}

static void setup(void) {
  (void)snprintf(name, sizeof(name), "/freezer-check-segment.%ld", (long)getpid());
  (void)fz_segment_unlink(name); /* of one that was killed, long ago */
  params = make_params(COUNT);
  ck_assert_int_eq(fz_segment_create(&segment, name, &info, params), 0);
}

static void teardown(void) {
  segment = fz_segment_free(segment);
  params = fz_params_unref(params);
  (void)fz_segment_unlink(name);
}

START_TEST(names_and_keys)
{
  char text[64], key[FZ_RUN_KEY_LENGTH + 1], other[FZ_RUN_KEY_LENGTH + 1], boot_id[FZ_BOOT_ID_MAX + 1];
  ck_assert_int_eq(fz_segment_name(text, sizeof(text), 1000, "0123456789abcdef", 12), 0);
  ck_assert_str_eq(text, "/freezer.1000.0123456789abcdef.12");
  ck_assert_int_eq(fz_segment_name(text, 10, 1000, "0123456789abcdef", 12), -ENAMETOOLONG);
  fz_run_key("/a", "b", key);
  fz_run_key("/ab", "", other);
  ck_assert_uint_eq(strlen(key), FZ_RUN_KEY_LENGTH);
  ck_assert_str_ne(key, other);
  fz_boot_id(boot_id);
  ck_assert_uint_eq(strlen(boot_id), 36);
}
END_TEST

START_TEST(what_was_put_in_comes_out)
{
  fz_segment *other = NULL;
  fz_params *read = NULL;
  ck_assert_int_eq(fz_segment_create(&other, name, &info, params), -EEXIST);
  ck_assert_int_eq(fz_segment_open(&other, name, false), 0);
  const fz_segment_info *found = fz_segment_get_info(other);
  ck_assert_str_eq(found->run, info.run);
  ck_assert_str_eq(found->run_key, info.run_key);
  ck_assert_str_eq(found->job, info.job);
  ck_assert_str_eq(found->boot_id, info.boot_id);
  ck_assert_uint_eq(found->attempt, 3);
  ck_assert_uint_eq(found->incarnation, 7);
  ck_assert_uint_eq(found->daemon_pid, 4711);
  ck_assert_uint_eq(found->world, 5);
  ck_assert_uint_eq(fz_segment_n_params(other), COUNT);
  ck_assert_uint_eq(fz_segment_layout_hash(other), fz_params_layout_hash(params));
  ck_assert_int_eq(fz_segment_params(other, &read), 0);
  ck_assert_uint_eq(fz_params_baseline_hash(read), fz_params_baseline_hash(params));
  ck_assert_str_eq(fz_params_get(read, 35)->may_freeze, "ZERO");
  ck_assert_str_eq(fz_params_get(read, 35)->may_train, "NOT_CONTROLLABLE");
  ck_assert_uint_eq(fz_params_count_aliases(read), 2);
  ck_assert_uint_eq(fz_params_find_alias(read, "tied", 4), 35);
  ck_assert_uint_eq(fz_params_find_alias(read, "tied too", 8), 35);
  fz_params_unref(read);
  fz_segment_free(other);
}
END_TEST

START_TEST(layout_of_the_file)
{
  struct stat st;
  const long page = sysconf(_SC_PAGESIZE);
  ck_assert_int_eq(fstat(fz_segment_fd(segment), &st), 0);
  ck_assert_uint_eq(st.st_mode & 07777, 0600);
  ck_assert_uint_eq((uint64_t)st.st_size, fz_segment_size(segment));
  ck_assert_int_ge(st.st_blocks * 512, st.st_size); /* nothing sparse: no SIGBUS later */
  ck_assert_uint_eq(segment->header.gate_offset % (uint64_t)page, 0);
  ck_assert_uint_eq(segment->header.gate_size % (uint64_t)page, 0);
  ck_assert_uint_eq((uintptr_t)&segment->gate->ranks[1] - (uintptr_t)&segment->gate->ranks[0], 128);
  ck_assert_int_eq(fcntl(fz_segment_fd(segment), F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
}
END_TEST

/* A rank may write to the gate and to nothing else. */
START_TEST(ranks_write_to_the_gate_alone)
{
  fz_segment *rank = NULL;
  ck_assert_int_eq(fz_segment_open(&rank, name, false), 0);
  fz_rank_enter(rank, 4, 99);
  ck_assert_uint_eq(fz_rank_read(segment, 4).pid, 99);
  ck_assert_uint_eq(fz_gate_raise(rank, 41), 0);
  uint64_t started, gen;
  fz_gate_read(segment, &started, &gen);
  ck_assert_uint_eq(started, 42);
  const uint64_t places[] = { 0, rank->header.params_offset, rank->header.gate_offset, rank->header.slots_offset };
  for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
    const pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
      (void)signal(SIGSEGV, SIG_DFL);
      *(volatile unsigned char *)(rank->base + places[i]) = 1;
      _exit(0);
    }
    int status;
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
  }
  fz_segment_free(rank);
}
END_TEST

START_TEST(peeking_writes_nothing)
{
  fz_segment *seen = NULL;
  uint64_t started, gen;
  ck_assert_int_eq(fz_segment_peek(&seen, name), 0);
  fz_gate_read(seen, &started, &gen);
  ck_assert_uint_eq(gen, 0);
  ck_assert_uint_eq(fz_rank_read(seen, 0).pid, 0);
  fz_segment_free(seen);
  ck_assert_int_eq(fz_segment_peek(&seen, "/freezer-check-none"), -ENOENT);
}
END_TEST

static int open_result(void) {
  fz_segment *opened = NULL;
  const int r = fz_segment_open(&opened, name, false);
  fz_segment_free(opened);
  return r;
}

static void write_header(const struct fz_layout_header *header, bool with_checksum) {
  struct fz_layout_header copy = *header;
  if (with_checksum) {
    memset(copy.magic, 0, sizeof(copy.magic));
    copy.checksum = 0;
    copy.checksum = fz_hash_bytes(FZ_HASH_START, &copy, sizeof(copy));
    memcpy(copy.magic, header->magic, sizeof(copy.magic));
  }
  ck_assert_int_eq(pwrite(fz_segment_fd(segment), &copy, sizeof(copy), 0), sizeof(copy));
}

START_TEST(every_byte_of_the_header)
{
  const struct fz_layout_header good = segment->header;
  for (size_t i = 0; i < sizeof(good); i++) {
    struct fz_layout_header damaged = good;
    ((unsigned char *)&damaged)[i] ^= 0x41;
    write_header(&damaged, false);
    const bool version =
      i >= offsetof(struct fz_layout_header, version) && i < offsetof(struct fz_layout_header, header_size);
    ck_assert_msg(open_result() == (version ? -EPROTO : -EBADMSG), "byte %zu", i);
  }
  write_header(&good, false);
  ck_assert_int_eq(open_result(), 0);
}
END_TEST

/* A header whose checksum is right and whose sums are not: each number, at each of these values. */
static const struct {
  const char *field;
  size_t offset, size;
} numbers[] = {
#define NUMBER(member) \
  { #member, offsetof(struct fz_layout_header, member), sizeof(segment->header.member) }
  NUMBER(header_size), NUMBER(total_size), NUMBER(page_size),    NUMBER(params_offset), NUMBER(params_size),
  NUMBER(gate_offset), NUMBER(gate_size),  NUMBER(slots_offset), NUMBER(slot_size),     NUMBER(n_slots),
  NUMBER(max_rows),    NUMBER(max_masks),  NUMBER(world),        NUMBER(n_params),
#undef NUMBER
};

START_TEST(every_number_of_the_header)
{
  static const uint64_t values[] = { 0,
                                     1,
                                     2,
                                     7,
                                     4095,
                                     4097,
                                     UINT32_MAX,
                                     UINT64_MAX,
                                     UINT64_MAX / 2,
                                     UINT64_MAX - 4095,
                                     UINT64_MAX / 8,
                                     UINT64_C(1) << 32,
                                     UINT64_C(1) << 63 };
  const struct fz_layout_header good = segment->header;
  for (size_t v = 0; v < sizeof(values) / sizeof(values[0]); v++) {
    struct fz_layout_header damaged = good;
    memcpy((unsigned char *)&damaged + numbers[_i].offset, &values[v], numbers[_i].size);
    if (memcmp(&damaged, &good, sizeof(good)) == 0)
      continue;
    write_header(&damaged, true);
    /* Another number of ranks whose lines fit the same pages, and parameters whose masks take the same words, are
       headers in their own right: then the parameter table must say so. */
    const int r = open_result();
    ck_assert_msg(r == -EBADMSG || (r == 0 && (strcmp(numbers[_i].field, "world") == 0)), "%s = %llu: %d",
                  numbers[_i].field, (unsigned long long)values[v], r);
  }
}
END_TEST

START_TEST(texts_without_an_end)
{
  const struct fz_layout_header good = segment->header;
  for (int i = 0; i < 4; i++) {
    struct fz_layout_header damaged = good;
    char *texts[] = { damaged.run, damaged.run_key, damaged.job, damaged.boot_id };
    const size_t sizes[] = { sizeof(damaged.run), sizeof(damaged.run_key), sizeof(damaged.job),
                             sizeof(damaged.boot_id) };
    memset(texts[i], 'x', sizes[i]);
    write_header(&damaged, true);
    ck_assert_int_eq(open_result(), -EBADMSG);
  }
}
END_TEST

START_TEST(every_byte_of_the_parameters)
{
  unsigned char *table = segment->base + segment->header.params_offset;
  fz_params *read = NULL;
  unsigned n_padding = 0;
  for (uint64_t i = 0; i < segment->header.params_size; i++) {
    table[i] ^= 0x41;
    const int r = fz_segment_params(segment, &read);
    if (r == 0) { /* bytes that mean nothing: between two entries */
      ck_assert_uint_eq(fz_params_layout_hash(read), fz_params_layout_hash(params));
      read = fz_params_unref(read);
      n_padding++;
    } else {
      ck_assert_int_eq(r, -EBADMSG);
    }
    table[i] ^= 0x41;
  }
  ck_assert_uint_le(n_padding, COUNT * 8);
  ck_assert_int_eq(fz_segment_params(segment, &read), 0);
  fz_params_unref(read);
}
END_TEST

START_TEST(foreign_files)
{
  fz_segment *opened = NULL;
  const int fd = fz_segment_fd(segment);
  ck_assert_int_eq(fchmod(fd, 0644), 0);
  ck_assert_int_eq(open_result(), -EPERM);
  ck_assert_int_eq(fchmod(fd, 0600), 0);
  const int copy = dup(fd);
  ck_assert_int_eq(fz_segment_map_of(&opened, copy, false, geteuid() + 1), -EPERM);
  ck_assert_int_eq(fz_segment_map_of(&opened, copy, false, geteuid()), 0);
  opened = fz_segment_free(opened);

  int other = open("/dev/null", O_RDWR | O_CLOEXEC);
  ck_assert_int_eq(fz_segment_map(&opened, other, false), -EBADMSG);
  ck_assert_int_eq(close(other), 0); /* still ours */
  other = memfd_create("x", MFD_CLOEXEC);
  ck_assert_int_eq(fchmod(other, 0600), 0);
  ck_assert_int_eq(fz_segment_map(&opened, other, false), -EBADMSG);
  ck_assert_int_eq(ftruncate(other, 1 << 20), 0);
  ck_assert_int_eq(fz_segment_map(&opened, other, false), -EBADMSG);
  ck_assert_int_eq(close(other), 0);
  ck_assert_ptr_null(opened);
}
END_TEST

START_TEST(another_size)
{
  const off_t size = (off_t)fz_segment_size(segment);
  ck_assert_int_eq(ftruncate(fz_segment_fd(segment), size + 4096), 0);
  ck_assert_int_eq(open_result(), -EBADMSG);
  ck_assert_int_eq(ftruncate(fz_segment_fd(segment), size), 0);
  ck_assert_int_eq(open_result(), 0);
  /* Not mapped by anybody from here on: now it may shrink. */
  const int fd = dup(fz_segment_fd(segment));
  segment = fz_segment_free(segment);
  for (off_t smaller = 0; smaller < size; smaller += 1000) {
    ck_assert_int_eq(ftruncate(fd, size - 1 - smaller), 0);
    ck_assert_int_eq(open_result(), -EBADMSG);
  }
  (void)close(fd);
}
END_TEST

/* A slot as it comes from a freezerd gone mad. */
START_TEST(damaged_slots)
{
  fz_plan plan = FZ_PLAN_NULL, out = FZ_PLAN_NULL;
  ck_assert_int_eq(fz_plan_reserve(&plan, segment), 0);
  ck_assert_int_eq(fz_plan_reserve(&out, segment), 0);
  plan.gen = 1;
  plan.n_params = COUNT;
  plan.n_rows = plan.n_masks = 2;
  plan.rows[1] = (struct fz_plan_row){ .from_step = 5, .mask = 1 };
  memset(plan.masks, 0xff, 4 * sizeof(*plan.masks)); /* with the padding set, which must not come out */
  ck_assert_int_eq(fz_segment_publish(segment, &plan), 0);
  ck_assert_int_eq(fz_segment_choose(segment, 0, 1, 0, &out), 0);
  ck_assert_uint_eq(fz_mask_count(fz_plan_mask(&out, 1), COUNT), COUNT);
  ck_assert_uint_eq(out.masks[1], (UINT64_C(1) << (COUNT % 64)) - 1);

  _Atomic uint64_t *slot = fz_layout_slot(segment, 1);
  static const struct {
    size_t word;
    uint64_t value;
  } damage[] = {
    { FZ_SLOT_N_ROWS, 0 },
    { FZ_SLOT_N_ROWS, FZ_PLAN_ROWS + 1 },
    { FZ_SLOT_N_ROWS, UINT64_MAX },
    { FZ_SLOT_N_MASKS, 0 },
    { FZ_SLOT_N_MASKS, UINT64_MAX },
    { FZ_SLOT_N_MASKS, 1 }, /* the second row uses the second mask */
    { FZ_SLOT_ROWS + FZ_ROW_STEP, 1 },
    { FZ_SLOT_ROWS + FZ_ROW_EPOCH, 1 },
    { FZ_SLOT_ROWS + FZ_ROW_MASK_EDGE, UINT32_MAX },
    { FZ_SLOT_ROWS + FZ_ROW_WORDS + FZ_ROW_STEP, 0 },
    { FZ_SLOT_ROWS + FZ_ROW_WORDS + FZ_ROW_MASK_EDGE, 2 },
  };
  for (size_t i = 0; i < sizeof(damage) / sizeof(damage[0]); i++) {
    const uint64_t good = atomic_load(&slot[damage[i].word]);
    atomic_store(&slot[damage[i].word], damage[i].value);
    ck_assert_msg(fz_segment_choose(segment, 0, 1, 0, &out) == -EBADMSG, "damage %zu", i);
    atomic_store(&slot[damage[i].word], good);
  }
  atomic_store(&slot[FZ_SLOT_GEN], 9);
  ck_assert_int_eq(fz_segment_choose(segment, 0, 1, 0, &out), FZ_CHOOSE_LOST);
  fz_plan_deinit(&plan);
  fz_plan_deinit(&out);
}
END_TEST

START_TEST(plans_that_do_not_fit)
{
  fz_plan plan = FZ_PLAN_NULL;
  ck_assert_int_eq(fz_plan_reserve(&plan, segment), 0);
  plan.gen = 1;
  plan.n_params = COUNT;
  plan.n_rows = plan.n_masks = 1;
#define REFUSED(member, value, result) \
  do { \
    const fz_plan good = plan; \
    plan.member = (value); \
    ck_assert_int_eq(fz_segment_publish(segment, &plan), result); \
    plan = good; \
  } while (0)
  REFUSED(n_rows, FZ_PLAN_ROWS + 1, -E2BIG);
  REFUSED(n_masks, fz_segment_max_masks(segment) + 1, -E2BIG);
  REFUSED(n_rows, 0, -EINVAL);
  REFUSED(n_masks, 0, -EINVAL);
  REFUSED(n_params, COUNT + 1, -EINVAL);
  REFUSED(gen, 0, -EINVAL);
  REFUSED(gen, 2, -EINVAL);
#undef REFUSED
  plan.rows[0].mask = 1;
  ck_assert_int_eq(fz_segment_publish(segment, &plan), -EINVAL);
  plan.rows[0] = (struct fz_plan_row){ .from_step = 1 };
  ck_assert_int_eq(fz_segment_publish(segment, &plan), -EINVAL);
  plan.rows[0].from_step = 0;
  ck_assert_int_eq(fz_segment_publish(segment, &plan), 0);
  /* Gens are used up. */
  atomic_store(&segment->gate->word, FZ_GEN_MAX);
  plan.gen = FZ_GEN_MAX + 1;
  ck_assert_int_eq(fz_segment_publish(segment, &plan), -EOVERFLOW);
  /* Steps are not: the last one raises the gate to the end of its half. */
  ck_assert_uint_eq(fz_gate_raise(segment, FZ_STEP_MAX), FZ_GEN_MAX);
  const uint64_t word = atomic_load(&segment->gate->word);
  ck_assert_uint_eq(word, UINT64_MAX);
  fz_plan_deinit(&plan);
}
END_TEST

START_TEST(sizes_stay_small)
{
  ck_assert_uint_eq(fz_segment_masks_for(0), FZ_PLAN_MASKS_MAX);
  ck_assert_uint_eq(fz_segment_masks_for(148), FZ_PLAN_MASKS_MAX);
  ck_assert_uint_eq(fz_segment_masks_for(FZ_PARAMS_MAX), FZ_PLAN_MASKS_MIN);
  ck_assert_uint_ge(fz_segment_masks_for(1000000), FZ_PLAN_MASKS_MIN);
  ck_assert_uint_lt(fz_segment_size(segment), 256 * 1024);
}
END_TEST

START_TEST(no_parameters)
{
  fz_segment *empty = NULL;
  fz_params *none = make_params(0), *read = NULL;
  (void)fz_segment_unlink(name);
  ck_assert_int_eq(fz_segment_create(&empty, name, &info, none), 0);
  ck_assert_int_eq(open_result(), 0);
  ck_assert_int_eq(fz_segment_params(empty, &read), 0);
  ck_assert_uint_eq(fz_params_count(read), 0);
  fz_params_unref(none);
  fz_params_unref(read);
  fz_segment_free(empty);
}
END_TEST

START_TEST(bad_infos)
{
  fz_segment *made = NULL;
  fz_segment_info bad = info;
  (void)fz_segment_unlink(name);
  bad.world = 0;
  ck_assert_int_eq(fz_segment_create(&made, name, &bad, params), -EINVAL);
  bad.world = FZ_WORLD_MAX + 1;
  ck_assert_int_eq(fz_segment_create(&made, name, &bad, params), -EINVAL);
  bad = info;
  memset(bad.run, 'x', sizeof(bad.run));
  ck_assert_int_eq(fz_segment_create(&made, name, &bad, params), -EINVAL);
  ck_assert_int_eq(fz_segment_unlink(name), -ENOENT); /* nothing was left */
}
END_TEST

/* A limit on files stands for a full disk where no file system may be mounted. */
START_TEST(no_room)
{
  const struct rlimit little = { .rlim_cur = 8192, .rlim_max = 8192 };
  fz_segment *made = NULL;
  (void)fz_segment_unlink(name);
  (void)signal(SIGXFSZ, SIG_IGN);
  ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &little), 0);
  ck_assert_int_eq(fz_segment_create(&made, name, &info, params), -EFBIG);
  ck_assert_ptr_null(made);
  ck_assert_int_eq(fz_segment_unlink(name), -ENOENT);
}
END_TEST

static void write_file(const char *path, const char *text) {
  const int fd = open(path, O_WRONLY | O_CLOEXEC);
  if (fd >= 0) {
    (void)!write(fd, text, strlen(text));
    (void)close(fd);
  }
}

/* A mount namespace of our own, as root or with a user namespace around it. */
static bool enter_namespace(void) {
  char map[64];
  if (unshare(CLONE_NEWNS) == 0)
    return true;
  (void)snprintf(map, sizeof(map), "%u %u 1", (unsigned)geteuid(), (unsigned)geteuid());
  if (unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0)
    return false;
  write_file("/proc/self/uid_map", map);
  return true;
}

START_TEST(full_shared_memory)
{
  fz_segment *made = NULL;
  (void)fz_segment_unlink(name);
  if (!enter_namespace() || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
      mount("none", "/dev/shm", "tmpfs", 0, "size=64k") < 0)
    return; /* not allowed here: no_room stands for it */
  ck_assert_int_eq(fz_segment_create(&made, "/full", &info, params), -ENOSPC);
  ck_assert_ptr_null(made);
  ck_assert_int_eq(access("/dev/shm/full", F_OK), -1);
}
END_TEST

Suite *fz_suite(void) {
  Suite *suite = suite_create("segment");
  TCase *tcase = tcase_create("segment");
  tcase_set_timeout(tcase, 10);
  tcase_add_checked_fixture(tcase, setup, teardown);
  tcase_add_test(tcase, names_and_keys);
  tcase_add_test(tcase, what_was_put_in_comes_out);
  tcase_add_test(tcase, layout_of_the_file);
  tcase_add_test(tcase, ranks_write_to_the_gate_alone);
  tcase_add_test(tcase, peeking_writes_nothing);
  tcase_add_test(tcase, every_byte_of_the_header);
  tcase_add_loop_test(tcase, every_number_of_the_header, 0, sizeof(numbers) / sizeof(numbers[0]));
  tcase_add_test(tcase, texts_without_an_end);
  tcase_add_test(tcase, every_byte_of_the_parameters);
  tcase_add_test(tcase, foreign_files);
  tcase_add_test(tcase, another_size);
  tcase_add_test(tcase, damaged_slots);
  tcase_add_test(tcase, plans_that_do_not_fit);
  tcase_add_test(tcase, sizes_stay_small);
  tcase_add_test(tcase, no_parameters);
  tcase_add_test(tcase, bad_infos);
  tcase_add_test(tcase, no_room);
  tcase_add_test(tcase, full_shared_memory);
  suite_add_tcase(suite, tcase);
  return suite;
}
