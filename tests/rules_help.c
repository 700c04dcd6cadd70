/* rules_help.c - what the tests of the rules engine share. */
#include "config.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/rules/selector.h"
#include "protocol/mask.h"
#include "tests/rules_help.h"

fz_params *help_params(const char *text) {
  fz_params *params;
  ck_assert_int_eq(fz_params_new(&params), 0);
  while (*text) {
    const char *equals = strchr(text, '=');
    ck_assert_ptr_nonnull(equals);
    const bool on = equals[1] == '1';
    const char *end = equals + 2;
    char code[33] = "";
    if (*end == '!') {
      const size_t length = strcspn(end + 1, " ");
      ck_assert_uint_lt(length, sizeof(code));
      memcpy(code, end + 1, length);
      end += 1 + length;
    }
    ck_assert_int_eq(fz_params_add(params, text, (size_t)(equals - text), 10, on, code[0] && on ? code : NULL,
                                   code[0] && !on ? code : NULL),
                     0);
    text = end + strspn(end, " ");
  }
  ck_assert_int_eq(fz_params_seal(params, NULL), 0);
  return params;
}

fz_ruleset *help_ruleset(const char *text) {
  fz_diagnostics diagnostics = FZ_DIAGNOSTICS_NULL;
  fz_ruleset *ruleset = NULL;
  char *json = strdup(text);
  ck_assert_ptr_nonnull(json);
  for (char *c = json; *c; c++)
    if (*c == '\'')
      *c = '"';
  const int r = fz_ruleset_parse(&ruleset, json, strlen(json), &diagnostics);
  const struct fz_diagnostic *error = fz_diagnostics_first_error(&diagnostics);
  ck_assert_msg(r == 0, "%s: %d %s at %s", text, r, error ? error->message : "", error ? error->pointer : "");
  fz_diagnostics_deinit(&diagnostics);
  free(json);
  return ruleset;
}

fz_rules *help_rules(fz_params *params, const char *text) {
  fz_ruleset *ruleset = help_ruleset(text);
  fz_rules *rules = NULL;
  ck_assert_int_eq(fz_ruleset_bind(ruleset, params, NULL, true, &rules, NULL), 0);
  fz_ruleset_unref(ruleset);
  return rules;
}

const char *help_mask(const uint64_t *mask, size_t n) {
  static char buffers[4][256];
  static unsigned next;
  char *text = buffers[next++ % 4];
  ck_assert_uint_lt(n, sizeof(buffers[0]));
  for (size_t i = 0; i < n; i++)
    text[i] = fz_mask_get(mask, i) ? '1' : '0';
  text[n] = '\0';
  return text;
}

uint64_t *help_select(const fz_params *params, const char *pattern) {
  fz_selector *selector = NULL;
  uint64_t *mask = (uint64_t *)calloc(fz_mask_words(fz_params_count(params)) + 1, sizeof(uint64_t));
  ck_assert_ptr_nonnull(mask);
  ck_assert_msg(fz_selector_new(&selector, pattern, strlen(pattern), NULL, NULL) == 0, "'%s'", pattern);
  ck_assert_int_eq(fz_selector_match(selector, params, mask, NULL), 0);
  fz_selector_free(selector);
  return mask;
}

int help_override(fz_layers *layers, enum fz_action action, const char *pattern, struct fz_window window) {
  uint64_t *mask = help_select(fz_layers_params(layers), pattern);
  const struct fz_override_request request = { .action = action,
                                               .patterns = &pattern,
                                               .n_patterns = 1,
                                               .mask = mask,
                                               .window = window,
                                               .include_baseline = true,
                                               .who = { .user = "ana" } };
  const int r = fz_layers_add_override(layers, &request, 0, 0, NULL);
  free(mask);
  return r;
}

uint64_t help_next(struct help_random *random) {
  /* splitmix64 */
  uint64_t z = random->state += UINT64_C(0x9e3779b97f4a7c15);
  z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
  z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
  return z ^ (z >> 31);
}
