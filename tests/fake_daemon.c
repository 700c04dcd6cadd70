/* fake_daemon.c - freezerd as libfreezer sees it, one message at a time, within the test's own process. */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "protocol/mask.h"
#include "protocol/writer.h"
#include "tests/fake_daemon.h"
#include "tests/runner.h"

void fake_listen(struct fake_daemon *fake) {
  struct sockaddr_un address = { .sun_family = AF_UNIX };
  memcpy(address.sun_path, fake->path, strlen(fake->path) + 1);
  (void)unlink(fake->path);
  fake->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  ck_assert_int_ge(fake->listener, 0);
  ck_assert_int_eq(bind(fake->listener, (struct sockaddr *)&address, sizeof(address)), 0);
  ck_assert_int_eq(listen(fake->listener, 8), 0);
}

void fake_init(struct fake_daemon *fake) {
  static unsigned count;
  *fake = (struct fake_daemon){ .listener = -1, .connection = -1, .reader = FZ_LINE_READER_NULL };
  (void)snprintf(fake->path, sizeof(fake->path), "%s/s%ld.%u", fz_test_root(), (long)getpid(), count++);
  fake_listen(fake);
}

static void close_fd(int *fd) {
  if (*fd >= 0)
    (void)close(*fd);
  *fd = -1;
}

void fake_kill(struct fake_daemon *fake) {
  close_fd(&fake->listener);
  close_fd(&fake->connection);
  fz_line_reader_deinit(&fake->reader);
}

void fake_deinit(struct fake_daemon *fake) {
  fake_kill(fake);
  fake->root = fz_json_free(fake->root);
  fake->params = fz_params_unref(fake->params);
  fake->segment = fz_segment_free(fake->segment);
  if (fake->segment_name[0])
    (void)fz_segment_unlink(fake->segment_name);
}

bool fake_accept(struct fake_daemon *fake) {
  const int fd = accept4(fake->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (fd < 0)
    return false;
  close_fd(&fake->connection);
  fz_line_reader_deinit(&fake->reader);
  fake->connection = fd;
  return true;
}

const fz_message *fake_read(struct fake_daemon *fake) {
  char *line, why[200] = "";
  size_t length;
  if (fake->connection < 0 && !fake_accept(fake))
    return NULL;
  if (fz_line_reader_next(&fake->reader, &line, &length) != 0) {
    (void)fz_line_reader_receive(&fake->reader, fake->connection);
    if (fz_line_reader_next(&fake->reader, &line, &length) != 0)
      return NULL;
  }
  fz_field_error error;
  fake->root = fz_json_free(fake->root);
  ck_assert_msg(fz_json_parse(&fake->root, line, length, why, sizeof(why)) == 0, "%s in: %s", why, line);
  ck_assert_msg(fz_message_decode(&fake->message, fake->root, &error) == 0, "%s in: %s", error.message, line);
  return &fake->message;
}

const fz_message *fake_expect(struct fake_daemon *fake, freezer_t *f, uint64_t step, uint64_t epoch,
                              enum fz_message_type type) {
  const fz_message *message = fake_read(fake);
  for (int i = 0; !message && i < 20000 * fz_test_slowdown(); i++) {
    if (f)
      ck_assert_int_ge(freezer_batch_begin(f, step, epoch), 0);
    usleep(200);
    message = fake_read(fake);
  }
  ck_assert_msg(message != NULL, "no message came, %s was expected", fz_message_name(type));
  ck_assert_str_eq(fz_message_name(message->type), fz_message_name(type));
  return message;
}

void fake_send(struct fake_daemon *fake, const fz_message *message, int pass_fd) {
  fz_json_writer writer = FZ_JSON_WRITER_NULL;
  const char *line;
  size_t length, sent;
  fz_message_encode(&writer, message);
  ck_assert_int_eq(fz_writer_line(&writer, &line, &length), 0);
  ck_assert_int_eq(fz_send(fake->connection, line, length, pass_fd, &sent), 0);
  ck_assert_uint_eq(sent, length);
  fz_writer_deinit(&writer);
}

void fake_segment(struct fake_daemon *fake, const char *run, const char *job, uint32_t world) {
  fz_segment_info info = { .incarnation = ++fake->incarnation, .daemon_pid = (uint64_t)getpid(), .world = world };
  (void)snprintf(info.run, sizeof(info.run), "%s", run);
  (void)snprintf(info.job, sizeof(info.job), "%s", job);
  fz_run_key(fake->path, run, info.run_key);
  fz_boot_id(info.boot_id);
  if (fake->segment_name[0])
    (void)fz_segment_unlink(fake->segment_name);
  fake->segment = fz_segment_free(fake->segment);
  ck_assert_int_eq(
    fz_segment_name(fake->segment_name, sizeof(fake->segment_name), geteuid(), info.run_key, info.incarnation), 0);
  ck_assert_int_eq(fz_segment_create(&fake->segment, fake->segment_name, &info, fake->params), 0);
}

void fake_welcome(struct fake_daemon *fake, const char *run) {
  const fz_message message = {
    .type = FZ_MESSAGE_WELCOME,
    .welcome = { .protocol = FZ_PROTOCOL_VERSION,
                 .server = "freezerd fake",
                 .run = run,
                 .incarnation = fake->incarnation,
                 .segment = fake->segment_name,
                 .size = fz_segment_size(fake->segment) },
  };
  fake_send(fake, &message, fz_segment_fd(fake->segment));
}

static void take_chunk(struct fake_daemon *fake, const struct fz_params_chunk *chunk) {
  const fz_json *cursor = NULL;
  struct fz_params_entry entry;
  ck_assert_uint_eq(chunk->first, fz_params_count(fake->params));
  while (fz_params_chunk_next(chunk, &cursor, &entry))
    ck_assert_int_eq(fz_params_add(fake->params, entry.name, strlen(entry.name), entry.elements, entry.requires_grad,
                                   entry.may_freeze, entry.may_train),
                     0);
}

void fake_attach(struct fake_daemon *fake, freezer_t *f, uint32_t world, uint64_t step, uint64_t epoch) {
  char run[FZ_RUN_NAME_MAX + 1], job[FZ_JOB_NAME_MAX + 1];
  const struct fz_hello hello = fake_expect(fake, f, step, epoch, FZ_MESSAGE_HELLO)->hello;
  (void)snprintf(run, sizeof(run), "%s", hello.run);
  (void)snprintf(job, sizeof(job), "%s", hello.job);
  const fz_message need = { .type = FZ_MESSAGE_NEED, .need = { .what = "params" } };
  fake_send(fake, &need, -1);

  fake->params = fz_params_unref(fake->params);
  ck_assert_int_eq(fz_params_new(&fake->params), 0);
  do
    take_chunk(fake, &fake_expect(fake, f, step, epoch, FZ_MESSAGE_PARAMS)->params);
  while (fz_params_count(fake->params) < hello.n_params);
  ck_assert_int_eq(fz_params_seal(fake->params, NULL), 0);
  ck_assert_uint_eq(fz_params_layout_hash(fake->params), hello.layout);
  ck_assert_uint_eq(fz_params_baseline_hash(fake->params), hello.baseline);

  fake_segment(fake, run, job, world);
  fake_welcome(fake, run);
  (void)fake_expect(fake, f, step, epoch, FZ_MESSAGE_READY);
}

void fake_subscribe(struct fake_daemon *fake, const struct fz_subscribe *wanted) {
  const fz_message message = { .type = FZ_MESSAGE_SUBSCRIBE, .subscribe = *wanted };
  fake_send(fake, &message, -1);
}

uint64_t fake_publish(struct fake_daemon *fake, uint64_t active_from, const struct fake_row *rows, size_t n_rows,
                      uint64_t wake_step) {
  fz_plan plan = FZ_PLAN_NULL;
  uint64_t started;
  ck_assert_int_eq(fz_plan_reserve(&plan, fake->segment), 0);
  fz_gate_read(fake->segment, &started, &plan.gen);
  plan.gen++;
  plan.active_from = active_from;
  plan.wake_step = wake_step;
  plan.n_params = fz_segment_n_params(fake->segment);
  plan.n_rows = plan.n_masks = n_rows;
  for (size_t i = 0; i < n_rows; i++) {
    plan.rows[i] = (struct fz_plan_row){
      .from_step = rows[i].step, .from_epoch = rows[i].epoch, .mask = (uint32_t)i, .edge = rows[i].edge
    };
    ck_assert_uint_eq(strlen(rows[i].mask), plan.n_params);
    for (size_t p = 0; p < plan.n_params; p++)
      fz_mask_put(plan.masks + i * fz_mask_words(plan.n_params), p, rows[i].mask[p] == '1');
  }
  ck_assert_int_eq(fz_segment_publish(fake->segment, &plan), 0);
  const uint64_t gen = plan.gen;
  fz_plan_deinit(&plan);
  return gen;
}

const char *fake_flags(const freezer_t *f, size_t count) {
  static char text[256];
  ck_assert_uint_lt(count, sizeof(text));
  for (size_t i = 0; i < count; i++)
    text[i] = freezer_requires_grad(f, i) ? '1' : '0';
  text[count] = '\0';
  return text;
}

const char *fake_changes(freezer_t *f) {
  static char text[1024];
  size_t index, length = 0;
  bool requires_grad;
  text[0] = '\0';
  while (length + 32 < sizeof(text) && freezer_next_change(f, &index, &requires_grad) == 1)
    length += (size_t)snprintf(text + length, sizeof(text) - length, "%s%zu%c", length ? " " : "", index,
                               requires_grad ? '+' : '-');
  return text;
}
