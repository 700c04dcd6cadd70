/* ruleset_parse.c - the one validator of rules documents. */
#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/rules/ruleset_internal.h"
#include "daemon/rules/strbuf.h"
#include "protocol/json.h"
#include "protocol/suggest.h"
#include "protocol/text.h"

#define POINTER_SIZE 512
#define TIME_MAX FZ_EPOCH_MAX /* of steps too: a limit one beyond the last step is still one */

/* Both errors of lighter's constructor, as it words them. */
#define LIGHTER_NO_SELECTOR "At least one of `names` or `name_starts_with` must be specified."
#define LIGHTER_TWO_LIMITS "Only one of `until_step` or `until_epoch` can be specified."

static const char *const document_keys[] = { "version", "profile", "pin", "rules" };
static const char *const rule_keys[] = { "name",         "freeze",
                                         "train",        "except",
                                         "from",         "until",
                                         "names",        "name_starts_with",
                                         "except_names", "except_name_starts_with",
                                         "until_step",   "until_epoch" };
static const char *const time_keys[] = { "step", "epoch" };
static const char *const profiles[] = { "owned", "lighter" };

#define COUNT(array) (sizeof(array) / sizeof(*(array)))

static void free_string(char **text) { free(*text); }

/* A document being read. `r` is the first failure that is not the document's. */
struct parser {
  fz_ruleset *ruleset;
  const fz_json *root;
  fz_diagnostics *diagnostics;
  size_t errors;
  size_t n_patterns;
  int r;
};

/* One rule being read. */
struct rule_parser {
  struct parser *parser;
  const fz_json *object;
  size_t index;
  struct fz_rule_source *source;
  bool freezes, trains, excepts; /* a selector of that kind was given, if only an empty list */
  const fz_json *until[2];       /* where its step and its epoch limit were given */
};

static void report(struct parser *parser, enum fz_severity severity, const fz_json *value, bool at_key,
                   const char *hint, const char *format, ...) __attribute__((format(printf, 6, 7)));

static void report(struct parser *parser, enum fz_severity severity, const fz_json *value, bool at_key,
                   const char *hint, const char *format, ...) {
  char pointer[POINTER_SIZE], message[FZ_PATTERN_MAX];
  va_list arguments;
  va_start(arguments, format);
  (void)vsnprintf(message, sizeof(message), format, arguments);
  va_end(arguments);
  fz_json_pointer(parser->root, value, pointer, sizeof(pointer));
  const struct fz_diagnostic diagnostic = { .severity = severity,
                                            .problem = FZ_PROBLEM_DOCUMENT,
                                            .message = message,
                                            .hint = (char *)(uintptr_t)hint,
                                            .pointer = pointer,
                                            .at_key = at_key,
                                            .offset = SIZE_MAX };
  parser->errors += severity == FZ_ERROR;
  const int r = fz_diagnostics_add(parser->diagnostics, &diagnostic);
  if (r && !parser->r)
    parser->r = r;
}

#define complain(parser, value, hint, ...) report(parser, FZ_ERROR, value, false, hint, __VA_ARGS__)
#define complain_key(parser, value, hint, ...) report(parser, FZ_ERROR, value, true, hint, __VA_ARGS__)
#define warn(parser, value, hint, ...) report(parser, FZ_WARNING, value, false, hint, __VA_ARGS__)

static const char *type_name(const fz_json *value) {
  switch (fz_json_get_type(value)) {
  case FZ_JSON_NULL:
    return "nothing";
  case FZ_JSON_BOOL:
    return "a boolean";
  case FZ_JSON_NUMBER:
    return "a number";
  case FZ_JSON_STRING:
    return "a string";
  case FZ_JSON_ARRAY:
    return "a list";
  case FZ_JSON_OBJECT:
    return "a mapping";
  }
  return "";
}

static bool is_null(const fz_json *value) { return fz_json_get_type(value) == FZ_JSON_NULL; }

/* Every key of an object must be one of these. */
static void check_keys(struct parser *parser, const fz_json *object, const char *const *keys, size_t n) {
  for (const fz_json *member = fz_json_first(object); member; member = fz_json_next(member)) {
    const char *key = fz_json_key(member);
    bool known = false;
    for (size_t i = 0; i < n && !known; i++)
      known = strcmp(key, keys[i]) == 0;
    if (known)
      continue;
    const char *near = fz_suggest(key, keys, n);
    __attribute__((cleanup(free_string))) char *hint = near ? fz_format("did you mean '%s'?", near) : NULL;
    complain_key(parser, member, hint, "unknown key '%.200s'", key);
  }
}

static bool grow_selectors(struct fz_selectors *selectors) {
  if (selectors->n < selectors->capacity)
    return true;
  const size_t capacity = selectors->capacity ? selectors->capacity * 2 : 4;
  void *items = realloc(selectors->items, capacity * sizeof(*selectors->items));
  if (items)
    selectors->items = (fz_selector **)items;
  void *pointers = realloc(selectors->pointers, capacity * sizeof(*selectors->pointers));
  if (pointers)
    selectors->pointers = (char **)pointers;
  if (!items || !pointers)
    return false;
  selectors->capacity = capacity;
  return true;
}

/* Adds one pattern, with `prefix` ("name:", "prefix:" or "") before it. */
static void add_pattern(struct parser *parser, const fz_json *value, const char *prefix,
                        struct fz_selectors *selectors) {
  char pointer[POINTER_SIZE];
  const char *text = fz_json_string(value);
  fz_selector *selector = NULL;

  if (!text) {
    complain(parser, value, fz_json_get_type(value) == FZ_JSON_NUMBER ? "write it in quotes" : NULL,
             "a pattern is a string, not %s", type_name(value));
    return;
  }
  if (prefix[0] && text[0] == '\0' && parser->ruleset->profile == FZ_PROFILE_OWNED) {
    complain(parser, value, "for everything, write freeze: \"**\"", "an empty string is no name");
    return;
  }
  if (!prefix[0] && text[0] == '!') {
    complain(parser, value, "put it under 'except', without the '!'", "'%.200s': '!' is for commands", text);
    return;
  }
  if (++parser->n_patterns > FZ_PATTERNS_MAX) {
    if (parser->n_patterns == FZ_PATTERNS_MAX + 1)
      complain(parser, value, NULL, "more than %u patterns", FZ_PATTERNS_MAX);
    return;
  }
  fz_json_pointer(parser->root, value, pointer, sizeof(pointer));
  __attribute__((cleanup(free_string))) char *pattern = fz_format("%s%s", prefix, text);
  if (!pattern || !grow_selectors(selectors)) {
    parser->r = -ENOMEM;
    return;
  }
  const int r = fz_selector_new(&selector, pattern, strlen(pattern), pointer, parser->diagnostics);
  if (r == FZ_SELECTOR_BAD)
    parser->errors++;
  else if (r)
    parser->r = r;
  if (r)
    return;
  selectors->pointers[selectors->n] = strdup(pointer);
  if (!selectors->pointers[selectors->n]) {
    fz_selector_free(selector);
    parser->r = -ENOMEM;
    return;
  }
  selectors->items[selectors->n++] = selector;
}

/* Adds a string, or the strings of a list. @return whether the key was given and not null */
static bool add_patterns(struct parser *parser, const fz_json *object, const char *key, const char *prefix,
                         struct fz_selectors *selectors) {
  const fz_json *value = fz_json_member(object, key);
  if (!value || is_null(value))
    return false;
  if (fz_json_get_type(value) == FZ_JSON_STRING)
    add_pattern(parser, value, prefix, selectors);
  else if (fz_json_get_type(value) == FZ_JSON_ARRAY)
    for (const fz_json *item = fz_json_first(value); item; item = fz_json_next(item))
      add_pattern(parser, item, prefix, selectors);
  else
    complain(parser, value, NULL, "'%s' is a pattern or a list of patterns, not %s", key, type_name(value));
  return true;
}

static bool is_whole(double number) {
  /* Beyond 2^53 every double is. */
  return number < -(double)FZ_INT_MAX || number > (double)FZ_INT_MAX || number == (double)(int64_t)number;
}

/*
 * Reads a limit. lighter takes any integer: one below 1 never acts, and one that is never reached is as good as none.
 */
static void parse_time(struct parser *parser, const fz_json *value, const char *what, uint64_t *ret_time) {
  const bool lighter = parser->ruleset->profile == FZ_PROFILE_LIGHTER;
  const double number = fz_json_number(value);
  uint64_t integer;
  if (fz_json_get_type(value) != FZ_JSON_NUMBER)
    complain(parser, value, fz_json_get_type(value) == FZ_JSON_STRING ? "write the number without quotes" : NULL,
             "%s is an integer, not %s", what, type_name(value));
  else if (fz_json_integer(value, &integer) && integer <= TIME_MAX)
    *ret_time = integer;
  else if (lighter && number < 0 && is_whole(number))
    *ret_time = 0;
  else if (lighter && number > (double)TIME_MAX && is_whole(number))
    *ret_time = FZ_TIME_NEVER;
  else if (!lighter && number < 0)
    complain(parser, value, NULL, "%s must not be negative", what);
  else if (number > (double)TIME_MAX)
    complain(parser, value, "leave it out for no limit", "%s is at most %" PRIu64, what, TIME_MAX);
  else
    complain(parser, value, NULL, "%s is an integer", what);
}

/* Reads {step: N, epoch: M}; where[] tells which was given. */
static void parse_times(struct parser *parser, const fz_json *object, const char *key, uint64_t *step, uint64_t *epoch,
                        const fz_json *where[2]) {
  const fz_json *value = fz_json_member(object, key);
  uint64_t *const times[] = { step, epoch };
  bool given = false;
  if (!value || is_null(value))
    return;
  if (fz_json_get_type(value) != FZ_JSON_OBJECT) {
    complain(parser, value, "write {step: N} or {epoch: N}", "'%s' says of what, not just %s", key, type_name(value));
    return;
  }
  check_keys(parser, value, time_keys, COUNT(time_keys));
  for (size_t i = 0; i < COUNT(time_keys); i++) {
    const fz_json *member = fz_json_member(value, time_keys[i]);
    if (!member || is_null(member))
      continue;
    where[i] = member;
    given = true;
    parse_time(parser, member, i == 0 ? "a step" : "an epoch", times[i]);
  }
  if (!given && !fz_json_first(value))
    complain(parser, value, "write {step: N} or {epoch: N}", "'%s' is empty", key);
}

/* until_step and until_epoch, as lighter has them, in either profile. */
static void parse_limit(struct rule_parser *rule, size_t i, const char *key, uint64_t *until) {
  const fz_json *value = fz_json_member(rule->object, key);
  if (!value || is_null(value))
    return;
  if (rule->until[i]) {
    complain_key(rule->parser, value, "leave one of them out", "'%s' and 'until' both give a limit in %ss", key,
                 time_keys[i]);
    return;
  }
  rule->until[i] = value;
  char what[32];
  (void)snprintf(what, sizeof(what), "'%s'", key);
  parse_time(rule->parser, value, what, until);
}

static void check_window(struct rule_parser *rule, const fz_json *const from[2]) {
  struct parser *parser = rule->parser;
  const struct fz_window *window = &rule->source->rule.window;
  const uint64_t begins[] = { window->from_step, window->from_epoch };
  const uint64_t ends[] = { window->until_step, window->until_epoch };
  for (size_t i = 0; i < 2; i++) {
    if (!rule->until[i] || begins[i] < ends[i])
      continue;
    if (from[i])
      warn(parser, rule->until[i], NULL,
           "the rule never acts: it ends at %s %" PRIu64 ", but begins at %s %" PRIu64 " only", time_keys[i], ends[i],
           time_keys[i], begins[i]);
    else
      warn(parser, rule->until[i], NULL, "the rule never acts: it ends at %s 0", time_keys[i]);
  }
}

static void parse_window(struct rule_parser *rule) {
  struct parser *parser = rule->parser;
  struct fz_window *window = &rule->source->rule.window;
  const bool lighter = parser->ruleset->profile == FZ_PROFILE_LIGHTER;
  const fz_json *from[2] = { NULL, NULL };
  const size_t before = parser->errors;

  if (lighter) {
    const fz_json *value = fz_json_member(rule->object, "from");
    if (value && !is_null(value))
      complain_key(parser, value, "write 'profile: owned' for windows that begin later",
                   "profile lighter has no 'from'");
  } else
    parse_times(parser, rule->object, "from", &window->from_step, &window->from_epoch, from);
  parse_times(parser, rule->object, "until", &window->until_step, &window->until_epoch, rule->until);
  parse_limit(rule, 0, "until_step", &window->until_step);
  parse_limit(rule, 1, "until_epoch", &window->until_epoch);
  if (lighter && rule->until[0] && rule->until[1] && parser->errors == before)
    complain_key(parser, rule->until[1], NULL, LIGHTER_TWO_LIMITS);
  else if (!lighter && parser->errors == before)
    check_window(rule, from);
}

static void parse_selectors(struct rule_parser *rule) {
  struct parser *parser = rule->parser;
  const fz_json *object = rule->object;
  struct fz_selectors *selectors = &rule->source->selectors;
  struct fz_selectors *excepts = &rule->source->excepts;

  rule->freezes = add_patterns(parser, object, "freeze", "", selectors);
  rule->freezes |= add_patterns(parser, object, "names", "name:", selectors);
  rule->freezes |= add_patterns(parser, object, "name_starts_with", "prefix:", selectors);
  const fz_json *train = fz_json_member(object, "train");
  if (train && !is_null(train) && parser->ruleset->profile == FZ_PROFILE_LIGHTER)
    complain_key(parser, train, "write 'profile: owned' for rules that train", "profile lighter has no 'train'");
  else
    rule->trains = add_patterns(parser, object, "train", "", selectors);
  rule->excepts = add_patterns(parser, object, "except", "", excepts);
  rule->excepts |= add_patterns(parser, object, "except_names", "name:", excepts);
  rule->excepts |= add_patterns(parser, object, "except_name_starts_with", "prefix:", excepts);
  rule->source->rule.action = rule->trains ? FZ_TRAIN : FZ_FREEZE;
}

/* What a rule must have. @return false when the rule is not worth looking at further */
static bool check_selectors(struct rule_parser *rule, size_t errors_before) {
  struct parser *parser = rule->parser;
  const bool lighter = parser->ruleset->profile == FZ_PROFILE_LIGHTER;
  if (parser->errors > errors_before)
    return true;
  if (rule->freezes && rule->trains)
    complain_key(parser, fz_json_member(rule->object, "train"), "make two rules of it",
                 "a rule freezes or trains, not both");
  else if (!rule->freezes && !rule->trains && lighter) {
    complain(parser, rule->object, NULL, LIGHTER_NO_SELECTOR);
    return false;
  } else if (!rule->freezes && !rule->trains)
    complain(parser, rule->object, "add freeze: [PATTERN, …] or train: [PATTERN, …]", "the rule selects nothing");
  else if (!lighter && rule->source->selectors.n == 0)
    complain(parser, rule->object, NULL, "the rule selects nothing: its list is empty");
  return true;
}

static void parse_name(struct rule_parser *rule) {
  struct parser *parser = rule->parser;
  const fz_json *value = fz_json_member(rule->object, "name");
  if (value && !is_null(value)) {
    const char *name = fz_json_string(value);
    if (!name)
      complain(parser, value, NULL, "'name' is a string, not %s", type_name(value));
    else if (!name[0] || strlen(name) > FZ_RULE_NAME_MAX || !fz_text_is_clean(name, strlen(name)))
      complain(parser, value, NULL, "a rule's name is 1 to %u bytes without control characters", FZ_RULE_NAME_MAX);
    else if (!(rule->source->name = strdup(name)))
      parser->r = -ENOMEM;
    for (size_t i = 0; rule->source->name && i < rule->index; i++)
      if (parser->ruleset->rules[i].name && strcmp(parser->ruleset->rules[i].name, rule->source->name) == 0) {
        complain(parser, value, NULL, "another rule is named '%s'", rule->source->name);
        break;
      }
  }
  rule->source->shown = rule->source->name ? strdup(rule->source->name) : fz_format("rule %zu", rule->index + 1);
  if (!rule->source->shown)
    parser->r = -ENOMEM;
}

static void parse_rule(struct parser *parser, const fz_json *object, size_t index) {
  struct rule_parser rule = {
    .parser = parser, .object = object, .index = index, .source = &parser->ruleset->rules[index]
  };
  struct fz_rule_source *source = rule.source;
  source->rule.window = (struct fz_window)FZ_WINDOW_ALWAYS;
  if (fz_json_get_type(object) != FZ_JSON_OBJECT) {
    complain(parser, object, NULL, "a rule is a mapping, not %s", type_name(object));
    return;
  }
  const size_t errors = parser->errors;
  check_keys(parser, object, rule_keys, COUNT(rule_keys));
  parse_name(&rule);
  parse_selectors(&rule);
  if (check_selectors(&rule, errors))
    parse_window(&rule);
  source->rule.name = source->shown;
  source->rule.named = source->name != NULL;
  source->rule.selectors = source->selectors.items;
  source->rule.n_selectors = source->selectors.n;
  source->rule.excepts = source->excepts.items;
  source->rule.n_excepts = source->excepts.n;
}

static void parse_rules(struct parser *parser) {
  const fz_json *rules = fz_json_member(parser->root, "rules");
  if (!rules || is_null(rules))
    return;
  if (fz_json_get_type(rules) != FZ_JSON_ARRAY) {
    complain(parser, rules, NULL, "'rules' is a list of rules, not %s", type_name(rules));
    return;
  }
  const size_t n = fz_json_count(rules);
  if (n > FZ_RULES_MAX) {
    complain(parser, rules, NULL, "%zu rules are more than %u", n, FZ_RULES_MAX);
    return;
  }
  parser->ruleset->rules = (struct fz_rule_source *)calloc(n ? n : 1, sizeof(struct fz_rule_source));
  if (!parser->ruleset->rules) {
    parser->r = -ENOMEM;
    return;
  }
  for (const fz_json *object = fz_json_first(rules); object; object = fz_json_next(object)) {
    parser->ruleset->n_rules++;
    parse_rule(parser, object, parser->ruleset->n_rules - 1);
  }
}

static void parse_head(struct parser *parser) {
  const fz_json *version = fz_json_member(parser->root, "version");
  const fz_json *profile = fz_json_member(parser->root, "profile");
  uint64_t number;
  if (version && (!fz_json_integer(version, &number) || number != 1))
    complain(parser, version, "write 'version: 1'", "not a version of the rules that is known here");
  if (!profile || is_null(profile))
    return;
  const char *name = fz_json_string(profile);
  if (name && strcmp(name, profiles[FZ_PROFILE_LIGHTER]) == 0)
    parser->ruleset->profile = FZ_PROFILE_LIGHTER;
  else if (!name || strcmp(name, profiles[FZ_PROFILE_OWNED]) != 0) {
    const char *near = name ? fz_suggest(name, profiles, COUNT(profiles)) : NULL;
    __attribute__((cleanup(free_string))) char *hint = near ? fz_format("did you mean '%s'?", near) : NULL;
    complain(parser, profile, hint, "'profile' is 'owned' or 'lighter'");
  }
}

static int bad_text(fz_diagnostics *diagnostics, enum fz_problem problem, const char *message) {
  const struct fz_diagnostic diagnostic = {
    .severity = FZ_ERROR, .problem = problem, .message = (char *)(uintptr_t)message, .offset = SIZE_MAX
  };
  const int r = fz_diagnostics_add(diagnostics, &diagnostic);
  return r ? r : FZ_RULESET_INVALID;
}

static int parse_document(struct parser *parser) {
  check_keys(parser, parser->root, document_keys, COUNT(document_keys));
  parse_head(parser);
  (void)add_patterns(parser, parser->root, "pin", "", &parser->ruleset->pins);
  parse_rules(parser);
  if (parser->r)
    return parser->r;
  return parser->errors > 0 ? FZ_RULESET_INVALID : fz_ruleset_write(parser->ruleset);
}

int fz_ruleset_parse_all(fz_ruleset **ret_ruleset, const char *text, size_t length, fz_diagnostics *diagnostics) {
  __attribute__((cleanup(fz_json_freep))) fz_json *root = NULL;
  char why[FZ_FIELD_MESSAGE_SIZE];
  if (length > FZ_RULES_TEXT_MAX)
    return bad_text(diagnostics, FZ_PROBLEM_LIMIT, "the rules are too long");
  int r = fz_json_parse(&root, text, length, why, sizeof(why));
  if (r == FZ_JSON_BROKEN)
    return bad_text(diagnostics, FZ_PROBLEM_SYNTAX, why);
  if (r)
    return r;
  fz_ruleset *ruleset = (fz_ruleset *)calloc(1, sizeof(*ruleset));
  if (!ruleset)
    return -ENOMEM;
  ruleset->references = 1;
  struct parser parser = { .ruleset = ruleset, .root = root, .diagnostics = diagnostics };
  r = parse_document(&parser);
  if (r == -E2BIG)
    r = bad_text(diagnostics, FZ_PROBLEM_LIMIT, "the rules are too long");
  if (r < 0)
    fz_ruleset_unref(ruleset);
  else
    *ret_ruleset = ruleset;
  return r;
}

int fz_ruleset_parse(fz_ruleset **ret_ruleset, const char *text, size_t length, fz_diagnostics *diagnostics) {
  fz_ruleset *ruleset = NULL;
  const int r = fz_ruleset_parse_all(&ruleset, text, length, diagnostics);
  if (r)
    fz_ruleset_unref(ruleset);
  else
    *ret_ruleset = ruleset;
  return r;
}
