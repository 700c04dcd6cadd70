/* client_scene.c - a libfreezer beside a freezerd that says one thing at a time: what the tests of both share. */
#include "config.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/client_scene.h"

struct fake_daemon fake;
freezer_t *f;
char said[SAID_SIZE];

const freezer_param_t params[COUNT] = {
  { .name = "embed", .elements = 100, .requires_grad = true },
  { .name = "layers.0", .elements = 10, .requires_grad = true },
  { .name = "layers.1", .elements = 10, .requires_grad = false },
  { .name = "steps", .elements = 1, .requires_grad = false, .may_train = "NOT_FLOATING" },
};

const struct fake_row future[FUTURE_ROWS] = {
  { 0, 0, "1100", 0 }, { 0, 3, "0100", 0 }, { 20, 0, "1110", 0 }, { 20, 3, "0110", 0 }
};

static void on_log(void *user, int level, const char *message) {
  (void)user;
  (void)level;
  const size_t length = strlen(said);
  (void)snprintf(said + length, sizeof(said) - length, "%s\n", message);
}

freezer_options_t options(void) {
  freezer_options_t with = FREEZER_OPTIONS_INIT;
  with.socket = fake.path;
  with.run = "run";
  with.job = "job";
  with.attach_timeout_ms = 0;
  with.log = on_log;
  return with;
}

void setup(void) {
  static const char *const variables[] = { "FREEZER_DISABLE", "FREEZER_REQUIRE", "FREEZER_ATTACH_TIMEOUT",
                                           "FREEZER_RUN", "FREEZER_SOCKET" };
  for (size_t i = 0; i < sizeof(variables) / sizeof(variables[0]); i++)
    (void)unsetenv(variables[i]);
  said[0] = '\0';
  fake_init(&fake);
}

void teardown(void) {
  freezer_close(f);
  f = NULL;
  fake_deinit(&fake);
}

void open_at(uint64_t step, uint64_t epoch) {
  freezer_options_t with = options();
  with.step = step;
  with.epoch = epoch;
  ck_assert_int_eq(freezer_open(&f, &with, params, COUNT), 0);
}
