/* segment.c - a segment's life: create, validate, map, unmap; and the parameter table in it. The words are gate.c's. */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "protocol/hash.h"
#include "protocol/mask.h"
#include "protocol/segment.h"
#include "protocol/segment_layout.h"

_Static_assert(sizeof(((struct fz_layout_header *)0)->run) >= sizeof(((fz_segment_info *)0)->run), "fits");
_Static_assert(sizeof(((struct fz_layout_header *)0)->run_key) >= sizeof(((fz_segment_info *)0)->run_key), "fits");
_Static_assert(sizeof(((struct fz_layout_header *)0)->job) >= sizeof(((fz_segment_info *)0)->job), "fits");
_Static_assert(sizeof(((struct fz_layout_header *)0)->boot_id) >= sizeof(((fz_segment_info *)0)->boot_id), "fits");

/* ------------------------------------------------------------------------------------------------- names and keys */

int fz_segment_name(char *buffer, size_t size, uid_t uid, const char *run_key, uint64_t incarnation) {
  const int n =
    snprintf(buffer, size, "/freezer.%lu.%s.%llu", (unsigned long)uid, run_key, (unsigned long long)incarnation);
  return n < 0 || (size_t)n >= size ? -ENAMETOOLONG : 0;
}

void fz_run_key(const char *scope, const char *run, char ret_key[FZ_RUN_KEY_LENGTH + 1]) {
  uint64_t hash = fz_hash_bytes(FZ_HASH_START, scope, strlen(scope) + 1);
  hash = fz_hash_bytes(hash, run, strlen(run) + 1);
  (void)snprintf(ret_key, FZ_RUN_KEY_LENGTH + 1, "%016llx", (unsigned long long)hash);
}

void fz_boot_id(char ret_id[FZ_BOOT_ID_MAX + 1]) {
  ret_id[0] = '\0';
  const int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
  if (fd < 0)
    return;
  const ssize_t n = read(fd, ret_id, FZ_BOOT_ID_MAX);
  (void)close(fd);
  ret_id[n > 0 ? n : 0] = '\0';
  ret_id[strcspn(ret_id, "\n")] = '\0';
}

/* --------------------------------------------------------------------------------------------------------- layout */

static uint64_t round_up(uint64_t value, uint64_t unit) { return (value + unit - 1) / unit * unit; }

size_t fz_segment_masks_for(size_t n_params) {
  const size_t mask_bytes = fz_mask_words(n_params) * sizeof(uint64_t);
  const size_t n = mask_bytes ? FZ_PLAN_MASK_BYTES / mask_bytes : FZ_PLAN_MASKS_MAX;
  return n < FZ_PLAN_MASKS_MIN ? FZ_PLAN_MASKS_MIN : n > FZ_PLAN_MASKS_MAX ? FZ_PLAN_MASKS_MAX : n;
}

/*
 * Fills in every size and offset from page_size, n_params, params_size and world, which the caller has checked against
 * their limits: so no sum can overflow.
 */
static void lay_out(struct fz_layout_header *header) {
  const uint64_t page = header->page_size;
  header->header_size = sizeof(*header);
  header->n_slots = FZ_PLAN_SLOTS;
  header->max_rows = FZ_PLAN_ROWS;
  header->max_masks = (uint32_t)fz_segment_masks_for(header->n_params);
  header->params_offset = sizeof(*header);
  header->gate_offset = round_up(header->params_offset + header->params_size, page);
  header->gate_size = round_up(sizeof(struct fz_layout_gate) + header->world * sizeof(struct fz_layout_rank), page);
  const uint64_t words =
    FZ_SLOT_ROWS + header->max_rows * FZ_ROW_WORDS + header->max_masks * fz_mask_words(header->n_params);
  header->slots_offset = header->gate_offset + header->gate_size;
  header->slot_size = round_up(words * sizeof(uint64_t), FZ_LAYOUT_LINE);
  header->total_size = round_up(header->slots_offset + header->n_slots * header->slot_size, page);
}

static uint64_t checksum(const struct fz_layout_header *header) {
  struct fz_layout_header copy = *header;
  memset(copy.magic, 0, sizeof(copy.magic));
  copy.checksum = 0;
  return fz_hash_bytes(FZ_HASH_START, &copy, sizeof(copy));
}

/* Copies a text of the header out, if it ends within its field and its limit. */
static int take_text(char *to, size_t to_size, const char *from) {
  const size_t length = strnlen(from, to_size);
  if (length == to_size)
    return -EBADMSG;
  memcpy(to, from, length + 1);
  return 0;
}

static int take_info(fz_segment_info *info, const struct fz_layout_header *header) {
  *info = (fz_segment_info){
    .attempt = header->attempt,
    .incarnation = header->incarnation,
    .daemon_pid = header->daemon_pid,
    .world = header->world,
  };
  if (take_text(info->run, sizeof(info->run), header->run) < 0 ||
      take_text(info->run_key, sizeof(info->run_key), header->run_key) < 0 ||
      take_text(info->job, sizeof(info->job), header->job) < 0 ||
      take_text(info->boot_id, sizeof(info->boot_id), header->boot_id) < 0)
    return -EBADMSG;
  return 0;
}

static int put_text(char *to, size_t to_size, const char *from, size_t from_size) {
  const size_t length = strnlen(from, from_size);
  if (length >= from_size || length >= to_size)
    return -EINVAL;
  memcpy(to, from, length);
  return 0;
}

static int put_info(struct fz_layout_header *header, const fz_segment_info *info) {
  header->attempt = info->attempt;
  header->incarnation = info->incarnation;
  header->daemon_pid = info->daemon_pid;
  header->world = info->world;
  int r = put_text(header->run, sizeof(header->run), info->run, sizeof(info->run));
  if (r == 0)
    r = put_text(header->run_key, sizeof(header->run_key), info->run_key, sizeof(info->run_key));
  if (r == 0)
    r = put_text(header->job, sizeof(header->job), info->job, sizeof(info->job));
  if (r == 0)
    r = put_text(header->boot_id, sizeof(header->boot_id), info->boot_id, sizeof(info->boot_id));
  return r;
}

/* Whether the header is one that lay_out() and put_info() make, for a file of `size` bytes. 0, -EPROTO, -EBADMSG. */
static int validate(const struct fz_layout_header *header, uint64_t size) {
  if (memcmp(header->magic, FZ_LAYOUT_MAGIC, sizeof(header->magic)) != 0)
    return -EBADMSG;
  if (header->version != FZ_LAYOUT_VERSION)
    return -EPROTO;
  if (header->checksum != checksum(header))
    return -EBADMSG;
  if (header->page_size != (uint64_t)sysconf(_SC_PAGESIZE) || header->n_params > FZ_PARAMS_MAX || header->world == 0 ||
      header->world > FZ_WORLD_MAX || header->params_size > size || header->params_size % 8)
    return -EBADMSG;
  struct fz_layout_header expected = *header;
  lay_out(&expected);
  if (memcmp(&expected, header, sizeof(expected)) != 0 || header->total_size != size)
    return -EBADMSG;
  return 0;
}

/* ------------------------------------------------------------------------------------- the parameter table inside */

static size_t code_length(const char *code) { return code ? strlen(code) : 0; }

/* How many aliases from `first` on are those of parameter `param`. */
static size_t count_aliases(const fz_params *params, size_t first, size_t param) {
  size_t n = 0;
  while (first + n < fz_params_count_aliases(params) && fz_params_get_alias(params, first + n)->param == param)
    n++;
  return n;
}

/* Bytes of an entry whose aliases are `n_aliases` from `alias` on. */
static uint64_t param_size(const fz_params *params, const struct fz_param *param, size_t alias, size_t n_aliases) {
  uint64_t size = sizeof(struct fz_layout_param) + param->name_length + code_length(param->may_freeze) +
                  code_length(param->may_train);
  for (size_t i = alias; i < alias + n_aliases; i++)
    size += sizeof(uint16_t) + fz_params_get_alias(params, i)->name_length;
  return round_up(size, 8);
}

static uint64_t params_size(const fz_params *params) {
  uint64_t size = 0;
  size_t alias = 0;
  for (size_t i = 0; i < fz_params_count(params); i++) {
    const size_t n_aliases = count_aliases(params, alias, i);
    size += param_size(params, fz_params_get(params, i), alias, n_aliases);
    alias += n_aliases;
  }
  return size;
}

static unsigned char *put_bytes(unsigned char *to, const char *from, size_t length) {
  if (length > 0)
    memcpy(to, from, length);
  return to + length;
}

static unsigned char *put_alias(unsigned char *to, const struct fz_alias *alias) {
  const uint16_t length = (uint16_t)alias->name_length;
  memcpy(to, &length, sizeof(length));
  return put_bytes(to + sizeof(length), alias->name, length);
}

static void put_params(unsigned char *to, const fz_params *params) {
  size_t alias = 0;
  for (size_t i = 0; i < fz_params_count(params); i++) {
    const struct fz_param *param = fz_params_get(params, i);
    const size_t n_aliases = count_aliases(params, alias, i);
    const struct fz_layout_param entry = {
      .elements = param->elements,
      .name_length = (uint32_t)param->name_length,
      .requires_grad = param->requires_grad,
      .may_freeze_length = (uint8_t)code_length(param->may_freeze),
      .may_train_length = (uint8_t)code_length(param->may_train),
      .n_aliases = (uint8_t)n_aliases,
    };
    memcpy(to, &entry, sizeof(entry));
    unsigned char *text = put_bytes(to + sizeof(entry), param->name, param->name_length);
    text = put_bytes(text, param->may_freeze, entry.may_freeze_length);
    text = put_bytes(text, param->may_train, entry.may_train_length);
    for (size_t k = 0; k < n_aliases; k++)
      text = put_alias(text, fz_params_get_alias(params, alias + k));
    to += param_size(params, param, alias, n_aliases);
    alias += n_aliases;
  }
}

/* The code of `length` bytes at `from` into `buffer`; NULL for none. */
static const char *take_code(char buffer[FZ_CODE_MAX + 1], const unsigned char *from, size_t length) {
  if (length == 0)
    return NULL;
  memcpy(buffer, from, length);
  buffer[length] = '\0';
  return buffer;
}

/* Adds `count` aliases at `from` and says how many bytes they take, of `left`. */
static int take_aliases(fz_params *params, size_t count, const unsigned char *from, uint64_t left, uint64_t *ret_size) {
  uint64_t size = 0;
  for (size_t i = 0; i < count; i++) {
    uint16_t length;
    if (left - size < sizeof(length))
      return -EBADMSG;
    memcpy(&length, from + size, sizeof(length));
    size += sizeof(length);
    if (left - size < length)
      return -EBADMSG;
    const int r = fz_params_add_alias(params, (const char *)from + size, length);
    if (r < 0)
      return r == -ENOMEM ? r : -EBADMSG;
    size += length;
  }
  *ret_size = size;
  return 0;
}

/* Adds the entry at `from` to the table and says how many bytes it takes, of `left`. */
static int take_param(fz_params *params, const unsigned char *from, uint64_t left, uint64_t *ret_size) {
  struct fz_layout_param entry;
  if (left < sizeof(entry))
    return -EBADMSG;
  memcpy(&entry, from, sizeof(entry));
  if (entry.name_length > FZ_PARAM_NAME_MAX || entry.may_freeze_length > FZ_CODE_MAX ||
      entry.may_train_length > FZ_CODE_MAX || entry.requires_grad > 1)
    return -EBADMSG;
  uint64_t size = sizeof(entry) + entry.name_length + entry.may_freeze_length + entry.may_train_length;
  if (size > left)
    return -EBADMSG;
  char may_freeze[FZ_CODE_MAX + 1], may_train[FZ_CODE_MAX + 1];
  const unsigned char *name = from + sizeof(entry), *codes = name + entry.name_length;
  int r = fz_params_add(params, (const char *)name, entry.name_length, entry.elements, entry.requires_grad,
                        take_code(may_freeze, codes, entry.may_freeze_length),
                        take_code(may_train, codes + entry.may_freeze_length, entry.may_train_length));
  if (r < 0)
    return r == -ENOMEM ? r : -EBADMSG;
  uint64_t aliases;
  r = take_aliases(params, entry.n_aliases, from + size, left - size, &aliases);
  if (r < 0)
    return r;
  size = round_up(size + aliases, 8);
  if (size > left)
    return -EBADMSG;
  *ret_size = size;
  return 0;
}

static int take_params(fz_params *params, const fz_segment *segment) {
  const struct fz_layout_header *header = &segment->header;
  const unsigned char *from = segment->base + header->params_offset;
  uint64_t left = header->params_size;
  for (uint64_t i = 0; i < header->n_params; i++) {
    uint64_t size;
    const int r = take_param(params, from, left, &size);
    if (r < 0)
      return r;
    from += size;
    left -= size;
  }
  const int r = left ? -EBADMSG : fz_params_seal(params, NULL);
  if (r < 0)
    return r == -ENOMEM ? r : -EBADMSG;
  if (fz_params_layout_hash(params) != header->layout_hash || fz_params_baseline_hash(params) != header->baseline_hash)
    return -EBADMSG;
  return 0;
}

int fz_segment_params(const fz_segment *segment, fz_params **ret_params) {
  fz_params *params = NULL;
  int r = fz_params_new(&params);
  if (r == 0)
    r = take_params(params, segment);
  if (r < 0) {
    fz_params_unref(params);
    return r;
  }
  *ret_params = params;
  return 0;
}

/* ------------------------------------------------------------------------------------------------ create, map, free */

enum how { MAP_FOR_WRITING, MAP_FOR_RANK, MAP_FOR_READING };

fz_segment *fz_segment_free(fz_segment *segment) {
  if (!segment)
    return NULL;
  if (segment->gate_map)
    (void)munmap(segment->gate_map, segment->header.gate_size);
  if (segment->base)
    (void)munmap(segment->base, segment->header.total_size);
  if (segment->fd >= 0)
    (void)close(segment->fd);
  free(segment);
  return NULL;
}

/* Maps what `header` describes. The descriptor becomes the segment's in the last line, so that a failure leaves it. */
static int map(fz_segment **ret_segment, int fd, const struct fz_layout_header *header, enum how how) {
  fz_segment *segment = calloc(1, sizeof(*segment));
  if (!segment)
    return -ENOMEM;
  segment->fd = -1;
  segment->header = *header;
  segment->for_writing = how == MAP_FOR_WRITING;
  segment->gate_for_writing = how != MAP_FOR_READING;
  int r = take_info(&segment->info, header);
  if (r < 0)
    goto fail;

  const int protection = how == MAP_FOR_WRITING ? PROT_READ | PROT_WRITE : PROT_READ;
  void *base = mmap(NULL, header->total_size, protection, MAP_SHARED, fd, 0);
  if (base == MAP_FAILED) {
    r = -errno;
    goto fail;
  }
  segment->base = base;
  segment->gate = (struct fz_layout_gate *)(void *)(segment->base + header->gate_offset);
  if (how == MAP_FOR_RANK) {
    void *gate = mmap(NULL, header->gate_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)header->gate_offset);
    if (gate == MAP_FAILED) {
      r = -errno;
      goto fail;
    }
    segment->gate_map = gate;
    segment->gate = gate;
  }
  segment->fd = fd;
  *ret_segment = segment;
  return 0;

fail:
  fz_segment_free(segment);
  return r;
}

/* Fills a new file with the segment: everything else, then the magic, so that nobody takes a half one for whole. */
static int fill(fz_segment **ret_segment, int fd, struct fz_layout_header *header, const fz_params *params) {
  if (fchmod(fd, S_IRUSR | S_IWUSR) < 0) /* whatever the umask took away */
    return -errno;
  int r;
  do
    r = posix_fallocate(fd, 0, (off_t)header->total_size);
  while (r == EINTR);
  if (r != 0)
    return -r;
  r = map(ret_segment, fd, header, MAP_FOR_WRITING);
  if (r < 0)
    return r;
  fz_segment *segment = *ret_segment;
  put_params(segment->base + header->params_offset, params);
  uint64_t magic;
  memcpy(&magic, header->magic, sizeof(magic));
  memcpy(segment->base + sizeof(magic), (const unsigned char *)header + sizeof(magic), sizeof(*header) - sizeof(magic));
  atomic_store_explicit((_Atomic uint64_t *)(void *)segment->base, magic, memory_order_release);
  return 0;
}

int fz_segment_create(fz_segment **ret_segment, const char *name, const fz_segment_info *info,
                      const fz_params *params) {
  struct fz_layout_header header = {
    .magic = FZ_LAYOUT_MAGIC,
    .version = FZ_LAYOUT_VERSION,
    .page_size = (uint64_t)sysconf(_SC_PAGESIZE),
    .n_params = fz_params_count(params),
    .params_size = params_size(params),
    .layout_hash = fz_params_layout_hash(params),
    .baseline_hash = fz_params_baseline_hash(params),
  };
  if (info->world == 0 || info->world > FZ_WORLD_MAX)
    return -EINVAL;
  int r = put_info(&header, info);
  if (r < 0)
    return r;
  lay_out(&header);
  header.checksum = checksum(&header);

  const int fd = shm_open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, S_IRUSR | S_IWUSR);
  if (fd < 0)
    return -errno;
  r = fill(ret_segment, fd, &header, params);
  if (r < 0) {
    /* A failed posix_fallocate leaves the file grown and the space taken. */
    (void)shm_unlink(name);
    (void)close(fd);
  }
  return r;
}

static int read_header(int fd, struct fz_layout_header *header, uid_t owner) {
  struct stat st;
  if (fstat(fd, &st) < 0)
    return -errno;
  if (!S_ISREG(st.st_mode))
    return -EBADMSG;
  if (st.st_uid != owner || (st.st_mode & 07777) != (S_IRUSR | S_IWUSR))
    return -EPERM;
  if (st.st_size < (off_t)sizeof(*header))
    return -EBADMSG;
  const ssize_t n = pread(fd, header, sizeof(*header), 0);
  if (n < 0)
    return -errno;
  if ((size_t)n != sizeof(*header))
    return -EBADMSG;
  return validate(header, (uint64_t)st.st_size);
}

int fz_segment_map_of(fz_segment **ret_segment, int fd, bool writer, uid_t owner) {
  struct fz_layout_header header;
  const int r = read_header(fd, &header, owner);
  if (r < 0)
    return r;
  return map(ret_segment, fd, &header, writer ? MAP_FOR_WRITING : MAP_FOR_RANK);
}

int fz_segment_map(fz_segment **ret_segment, int fd, bool writer) {
  return fz_segment_map_of(ret_segment, fd, writer, geteuid());
}

static int open_named(fz_segment **ret_segment, const char *name, enum how how) {
  const int fd = shm_open(name, (how == MAP_FOR_READING ? O_RDONLY : O_RDWR) | O_CLOEXEC, 0);
  if (fd < 0)
    return -errno;
  struct fz_layout_header header;
  int r = read_header(fd, &header, geteuid());
  if (r == 0)
    r = map(ret_segment, fd, &header, how);
  if (r < 0)
    (void)close(fd);
  return r;
}

int fz_segment_open(fz_segment **ret_segment, const char *name, bool writer) {
  return open_named(ret_segment, name, writer ? MAP_FOR_WRITING : MAP_FOR_RANK);
}

int fz_segment_peek(fz_segment **ret_segment, const char *name) {
  return open_named(ret_segment, name, MAP_FOR_READING);
}

int fz_segment_unlink(const char *name) { return shm_unlink(name) < 0 ? -errno : 0; }

/* -------------------------------------------------------------------------------------------------------- what it is */

int fz_segment_fd(const fz_segment *segment) { return segment->fd; }

const fz_segment_info *fz_segment_get_info(const fz_segment *segment) { return &segment->info; }

size_t fz_segment_n_params(const fz_segment *segment) { return segment->header.n_params; }

uint64_t fz_segment_layout_hash(const fz_segment *segment) { return segment->header.layout_hash; }

uint64_t fz_segment_size(const fz_segment *segment) { return segment->header.total_size; }

size_t fz_segment_max_rows(const fz_segment *segment) { return segment->header.max_rows; }

size_t fz_segment_max_masks(const fz_segment *segment) { return segment->header.max_masks; }
