/* selector.c - patterns over parameter names: compiled once, matched against a parameter table into a mask. */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/rules/braces.h"
#include "daemon/rules/selector_internal.h"
#include "daemon/rules/strbuf.h"
#include "protocol/limits.h"
#include "protocol/mask.h"
#include "protocol/text.h"

/*
 * What one regular expression may cost on one name. A pattern that backtracks without end stops here, in well under a
 * millisecond, and the whole match with it.
 */
#define MATCH_LIMIT 100000U
#define DEPTH_LIMIT 10000U
#define HEAP_LIMIT_KIB 4096U
#define PARENTHESES_MAX 64U
#define JIT_STACK_MIN (32U * 1024U)
#define JIT_STACK_MAX (512U * 1024U)

/* Compiling to machine code costs more than it saves on a pattern with very many expansions. */
#define JIT_ITEMS_MAX 64U

static void match_data_free(pcre2_match_data **data) { pcre2_match_data_free(*data); }
static void match_context_free(pcre2_match_context **context) { pcre2_match_context_free(*context); }
static void jit_stack_free(pcre2_jit_stack **stack) { pcre2_jit_stack_free(*stack); }
static void convert_context_free(pcre2_convert_context **context) { pcre2_convert_context_free(*context); }
static void compile_context_free(pcre2_compile_context **context) { pcre2_compile_context_free(*context); }
static void free_string(char **text) { free(*text); }

/* What is wrong with the pattern that is being compiled. */
struct fault {
  const char *pointer;
  fz_diagnostics *diagnostics;
};

static int bad(const struct fault *fault, const char *message, const char *hint, size_t offset, size_t length) {
  const struct fz_diagnostic diagnostic = { .severity = FZ_ERROR,
                                            .problem = FZ_PROBLEM_PATTERN,
                                            .message = (char *)(uintptr_t)message,
                                            .hint = (char *)(uintptr_t)hint,
                                            .pointer = (char *)(uintptr_t)fault->pointer,
                                            .offset = offset,
                                            .length = length };
  const int r = fz_diagnostics_add(fault->diagnostics, &diagnostic);
  return r ? r : FZ_SELECTOR_BAD;
}

/* A message of PCRE2 about its own error. */
static int bad_regex(const struct fault *fault, int code, size_t offset) {
  char text[160];
  if (pcre2_get_error_message(code, (PCRE2_UCHAR *)text, sizeof(text)) < 0)
    strcpy(text, "not a valid regular expression");
  return bad(fault, text, NULL, offset, 0);
}

bool fz_selector_is_bare(const char *text, size_t length) {
  for (size_t i = 0; i < length; i++)
    if (strchr("*?[]{}\\", text[i]))
      return false;
  return true;
}

/* Adds an item with a copy of the text and room for one dot behind it. */
static int add_item(fz_selector *selector, const char *text, size_t length, struct fz_selector_item **ret_item) {
  if (selector->n_items == selector->capacity) {
    const size_t capacity = selector->capacity ? selector->capacity * 2 : 1;
    void *items = realloc(selector->items, capacity * sizeof(*selector->items));
    if (!items)
      return -ENOMEM;
    selector->items = (struct fz_selector_item *)items;
    selector->capacity = capacity;
  }
  char *copy = (char *)malloc(length + 2);
  if (!copy)
    return -ENOMEM;
  memcpy(copy, text, length);
  memcpy(copy + length, ".", 2);
  *ret_item = &selector->items[selector->n_items++];
  **ret_item = (struct fz_selector_item){ .text = copy, .length = length, .literal = length };
  return 0;
}

static int compile_code(const char *text, size_t length, pcre2_code **ret_code, int *ret_error, size_t *ret_offset) {
  __attribute__((cleanup(compile_context_free))) pcre2_compile_context *context = pcre2_compile_context_create(NULL);
  if (!context)
    return -ENOMEM;
  /* PCRE2 recurses over parentheses while it compiles. */
  (void)pcre2_set_parens_nest_limit(context, PARENTHESES_MAX);
  PCRE2_SIZE offset = 0;
  *ret_code = pcre2_compile((PCRE2_SPTR)text, length, PCRE2_UTF | PCRE2_NEVER_BACKSLASH_C, ret_error, &offset, context);
  *ret_offset = offset < length ? offset : length; /* PCRE2 can say one behind the end, or that it does not know */
  return !*ret_code && *ret_error == PCRE2_ERROR_HEAP_FAILED ? -ENOMEM : 0;
}

/* Where a '**' is glued to text, the pattern with the dots that it lacks; -ENOMEM when that cannot be allocated. */
static int check_stars(const struct fault *fault, const char *text, const uint32_t *origin, size_t base, size_t length,
                       size_t at, size_t run) {
  const bool before = at == 0 || text[at - 1] == '.';
  const bool after = at + run == length || text[at + run] == '.';
  if (run < 2 || (run == 2 && before && after))
    return 0;
  fz_strbuf hint = FZ_STRBUF_NULL;
  fz_strbuf_addf(&hint, "'**' is any number of whole components: '%.*s%s**%s%.*s'", (int)at, text, before ? "" : ".",
                 after ? "" : ".", (int)(length - at - run), text + at + run);
  __attribute__((cleanup(free_string))) char *hint_text = fz_strbuf_take(&hint);
  if (!hint_text)
    return -ENOMEM;
  return bad(fault, "'**' must stand between dots", hint_text, base + origin[at], origin[at + run] - origin[at]);
}

/* Checks what PCRE2's converter would take for something else, and finds the literal bytes at the front. */
static int check_glob(const struct fault *fault, const char *text, const uint32_t *origin, size_t base, size_t length,
                      size_t *ret_literal) {
  size_t literal = length;
  for (size_t i = 0; i < length;) {
    size_t token = fz_glob_token(text + i, length - i);
    if (token == 0 && text[i] == '[')
      return bad(fault, "'[' is not closed", "for a bracket in a name write \\[", base + origin[i], 1);
    if (token == 0)
      return bad(fault, "a backslash at the end takes no character", NULL, base + origin[i], 1);
    if (text[i] == '}' || text[i] == ']')
      return bad(fault, text[i] == '}' ? "'}' without a '{'" : "']' without a '['",
                 "for a bracket in a name write a backslash before it", base + origin[i], 1);
    if (text[i] == '*') {
      while (i + token < length && text[i + token] == '*')
        token++;
      const int r = check_stars(fault, text, origin, base, length, i, token);
      if (r)
        return r;
    }
    if (literal == length && strchr("*?[\\", text[i]))
      literal = i;
    i += token;
  }
  *ret_literal = literal;
  return 0;
}

static int convert_glob(const char *text, size_t length, char **ret_regex, size_t *ret_length, int *ret_error,
                        size_t *ret_offset) {
  __attribute__((cleanup(convert_context_free))) pcre2_convert_context *context = pcre2_convert_context_create(NULL);
  if (!context)
    return -ENOMEM;
  (void)pcre2_set_glob_separator(context, '.');
  (void)pcre2_set_glob_escape(context, '\\');
  PCRE2_UCHAR *regex = NULL;
  PCRE2_SIZE regex_length = 0;
  const int r = pcre2_pattern_convert((PCRE2_SPTR)text, length, PCRE2_CONVERT_GLOB | PCRE2_CONVERT_UTF, &regex,
                                      &regex_length, context);
  if (r == PCRE2_ERROR_NOMEMORY)
    return -ENOMEM;
  *ret_error = r;
  /* On an error the length is where it is. */
  *ret_offset = regex_length;
  if (r == 0) {
    *ret_regex = (char *)regex;
    *ret_length = regex_length;
  }
  return 0;
}

struct compiler {
  fz_selector *selector;
  const struct fault *fault;
};

static int compile_glob(const struct compiler *compiler, const char *text, const uint32_t *origin, size_t length) {
  fz_selector *selector = compiler->selector;
  struct fz_selector_item *item;
  size_t literal = 0, offset = 0, regex_length = 0;
  char *regex = NULL;
  int error = 0;

  int r = check_glob(compiler->fault, text, origin, selector->body, length, &literal);
  if (!r)
    r = convert_glob(text, length, &regex, &regex_length, &error, &offset);
  if (r)
    return r;
  if (error)
    return bad_regex(compiler->fault, error, selector->body + origin[offset < length ? offset : length]);
  r = add_item(selector, text, length, &item);
  if (!r) {
    item->literal = literal;
    r = compile_code(regex, regex_length, &item->code, &error, &offset);
  }
  pcre2_converted_pattern_free((PCRE2_UCHAR *)regex);
  if (!r && !item->code)
    return bad_regex(compiler->fault, error, selector->body);
  return r;
}

/* One expansion of a dotted pattern. */
static int compile_dotted(void *user, const char *text, const uint32_t *origin, size_t length) {
  const struct compiler *compiler = (const struct compiler *)user;
  struct fz_selector_item *item;
  if (length == 0)
    return bad(compiler->fault, "an empty name selects nothing", NULL, SIZE_MAX, 0);
  if (fz_selector_is_bare(text, length))
    return add_item(compiler->selector, text, length, &item);
  return compile_glob(compiler, text, origin, length);
}

static int compile_braces(const struct compiler *compiler) {
  const fz_selector *selector = compiler->selector;
  struct fz_pattern_fault fault = { .message = NULL };
  struct compiler user = *compiler;
  const int r =
    fz_braces_expand(selector->text, selector->length, FZ_SELECTOR_EXPANSIONS_MAX, compile_dotted, &user, &fault);
  if (r == FZ_BRACES_BAD && fault.message)
    return bad(compiler->fault, fault.message, fault.hint, fault.length ? fault.offset : SIZE_MAX, fault.length);
  return r;
}

static int compile_regex(const struct compiler *compiler) {
  fz_selector *selector = compiler->selector;
  const char *body = selector->text + selector->body;
  const size_t length = selector->length - selector->body;
  struct fz_selector_item *item;
  size_t offset = 0;
  int error = 0;
  int r = add_item(selector, body, length, &item);
  if (r)
    return r;
  item->literal = 0;
  r = compile_code(body, length, &item->code, &error, &offset);
  if (!r && !item->code)
    return bad_regex(compiler->fault, error, selector->body + offset);
  return r;
}

static int compile_plain(const struct compiler *compiler) {
  fz_selector *selector = compiler->selector;
  struct fz_selector_item *item;
  return add_item(selector, selector->text + selector->body, selector->length - selector->body, &item);
}

static void find_kind(fz_selector *selector) {
  static const struct {
    const char *prefix;
    enum fz_selector_kind kind;
  } kinds[] = { { "re:", FZ_SELECTOR_REGEX }, { "prefix:", FZ_SELECTOR_PREFIX }, { "name:", FZ_SELECTOR_NAME } };
  for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++)
    if (strncmp(selector->text, kinds[i].prefix, strlen(kinds[i].prefix)) == 0) {
      selector->kind = kinds[i].kind;
      selector->body = strlen(kinds[i].prefix);
    }
}

static int compile(const struct compiler *compiler) {
  fz_selector *selector = compiler->selector;
  if (selector->length > FZ_PATTERN_MAX)
    return bad(compiler->fault, "the pattern is too long", NULL, SIZE_MAX, 0);
  if (!fz_text_is_clean(selector->text, selector->length) || strlen(selector->text) != selector->length)
    return bad(compiler->fault, "a pattern is UTF-8 without control characters", NULL, SIZE_MAX, 0);
  find_kind(selector);
  int r = 0;
  switch (selector->kind) {
  case FZ_SELECTOR_DOTTED:
    r = compile_braces(compiler);
    break;
  case FZ_SELECTOR_REGEX:
    r = compile_regex(compiler);
    break;
  case FZ_SELECTOR_NAME:
  case FZ_SELECTOR_PREFIX:
    r = compile_plain(compiler);
    break;
  }
  /* Without machine code (a hardened system may forbid it) matching interprets. */
  for (size_t i = 0; !r && selector->n_items <= JIT_ITEMS_MAX && i < selector->n_items; i++)
    if (selector->items[i].code)
      (void)pcre2_jit_compile(selector->items[i].code, PCRE2_JIT_COMPLETE);
  return r;
}

int fz_selector_new(fz_selector **ret_selector, const char *text, size_t length, const char *pointer,
                    fz_diagnostics *diagnostics) {
  const struct fault fault = { .pointer = pointer, .diagnostics = diagnostics };
  fz_selector *selector = (fz_selector *)calloc(1, sizeof(*selector));
  if (!selector)
    return -ENOMEM;
  selector->text = strndup(text, length);
  selector->length = length;
  const struct compiler compiler = { .selector = selector, .fault = &fault };
  const int r = selector->text ? compile(&compiler) : -ENOMEM;
  if (r)
    fz_selector_free(selector);
  else
    *ret_selector = selector;
  return r;
}

fz_selector *fz_selector_free(fz_selector *selector) {
  if (!selector)
    return NULL;
  for (size_t i = 0; i < selector->n_items; i++) {
    pcre2_code_free(selector->items[i].code);
    free(selector->items[i].text);
  }
  free(selector->items);
  free(selector->text);
  free(selector);
  return NULL;
}

const char *fz_selector_text(const fz_selector *selector) { return selector->text; }

static void take_range(const fz_params *params, size_t first, size_t end, uint64_t *mask) {
  for (size_t i = first; i < end; i++)
    fz_mask_put(mask, fz_params_sorted(params, i), true);
}

static void match_plain(const fz_selector *selector, const struct fz_selector_item *item, const fz_params *params,
                        uint64_t *mask) {
  size_t first, end;
  if (selector->kind == FZ_SELECTOR_PREFIX) {
    fz_params_prefix_range(params, item->text, item->length, &first, &end);
    take_range(params, first, end, mask);
    return;
  }
  const size_t found = fz_params_find(params, item->text, item->length);
  if (found < fz_params_count(params))
    fz_mask_put(mask, found, true);
  if (selector->kind == FZ_SELECTOR_DOTTED) {
    fz_params_prefix_range(params, item->text, item->length + 1, &first, &end);
    take_range(params, first, end, mask);
  }
}

/* Whether a plain selector selects this name. */
static bool selects_plain(const fz_selector *selector, const struct fz_selector_item *item,
                          const struct fz_alias *alias) {
  if (alias->name_length < item->length || memcmp(alias->name, item->text, item->length) != 0)
    return false;
  if (selector->kind == FZ_SELECTOR_PREFIX || alias->name_length == item->length)
    return true;
  return selector->kind == FZ_SELECTOR_DOTTED && alias->name[item->length] == '.';
}

/* What one expression is matched with. */
struct matcher {
  const struct fz_selector_item *item;
  pcre2_match_context *context;
  pcre2_match_data *data;
};

/* 1: it matches; 0: not; -ENOMEM; -E2BIG the limits. */
static int match_name(const struct matcher *matcher, const char *name, size_t length) {
  const int r =
    pcre2_match(matcher->item->code, (PCRE2_SPTR)name, length, 0, PCRE2_NO_UTF_CHECK, matcher->data, matcher->context);
  return r >= 0 ? 1 : r == PCRE2_ERROR_NOMATCH ? 0 : r == PCRE2_ERROR_NOMEMORY ? -ENOMEM : -E2BIG;
}

static int match_code(const struct fz_selector_item *item, const fz_params *params, bool aliases, uint64_t *mask) {
  __attribute__((cleanup(match_context_free))) pcre2_match_context *context = pcre2_match_context_create(NULL);
  __attribute__((cleanup(match_data_free))) pcre2_match_data *data = pcre2_match_data_create(1, NULL);
  /* NULL where there is no JIT, which is no error. */
  __attribute__((cleanup(jit_stack_free))) pcre2_jit_stack *stack =
    pcre2_jit_stack_create(JIT_STACK_MIN, JIT_STACK_MAX, NULL);
  if (!context || !data)
    return -ENOMEM;
  (void)pcre2_set_match_limit(context, MATCH_LIMIT);
  (void)pcre2_set_depth_limit(context, DEPTH_LIMIT);
  (void)pcre2_set_heap_limit(context, HEAP_LIMIT_KIB);
  if (stack)
    pcre2_jit_stack_assign(context, NULL, stack);

  const struct matcher matcher = { .item = item, .context = context, .data = data };
  size_t first = 0, end = fz_params_count(params);
  if (item->literal > 0)
    fz_params_prefix_range(params, item->text, item->literal, &first, &end);
  for (size_t i = first; i < end; i++) {
    const size_t index = item->literal > 0 ? fz_params_sorted(params, i) : i;
    const struct fz_param *param = fz_params_get(params, index);
    const int r = match_name(&matcher, param->name, param->name_length);
    if (r < 0)
      return r;
    if (r == 1)
      fz_mask_put(mask, index, true);
  }
  for (size_t i = 0; aliases && i < fz_params_count_aliases(params); i++) {
    const struct fz_alias *alias = fz_params_get_alias(params, i);
    const int r = match_name(&matcher, alias->name, alias->name_length);
    if (r < 0)
      return r;
    if (r == 1)
      fz_mask_put(mask, alias->param, true);
  }
  return 0;
}

static void match_plain_aliases(const fz_selector *selector, const struct fz_selector_item *item,
                                const fz_params *params, uint64_t *mask) {
  for (size_t i = 0; i < fz_params_count_aliases(params); i++) {
    const struct fz_alias *alias = fz_params_get_alias(params, i);
    if (selects_plain(selector, item, alias))
      fz_mask_put(mask, alias->param, true);
  }
}

static int match_items(const fz_selector *selector, const fz_params *params, bool aliases, uint64_t *mask) {
  for (size_t i = 0; i < selector->n_items; i++) {
    const struct fz_selector_item *item = &selector->items[i];
    if (item->code) {
      const int r = match_code(item, params, aliases, mask);
      if (r)
        return r;
    } else {
      match_plain(selector, item, params, mask);
      if (aliases)
        match_plain_aliases(selector, item, params, mask);
    }
  }
  return 0;
}

static int match(const fz_selector *selector, const fz_params *params, bool aliases, uint64_t *mask,
                 size_t *ret_matched) {
  if (!ret_matched)
    return match_items(selector, params, aliases, mask);
  /* Counting needs a mask of its own: expansions may overlap, and bits may have been set before. */
  const size_t n = fz_params_count(params);
  const size_t words = fz_mask_words(n);
  uint64_t *own = (uint64_t *)calloc(words ? words : 1, sizeof(uint64_t));
  if (!own)
    return -ENOMEM;
  const int r = match_items(selector, params, aliases, own);
  for (size_t w = 0; w < words; w++)
    mask[w] |= own[w];
  if (!r)
    *ret_matched = fz_mask_count(own, n);
  free(own);
  return r;
}

int fz_selector_match(const fz_selector *selector, const fz_params *params, uint64_t *mask, size_t *ret_matched) {
  return match(selector, params, true, mask, ret_matched);
}

int fz_selector_match_names(const fz_selector *selector, const fz_params *params, uint64_t *mask, size_t *ret_matched) {
  return match(selector, params, false, mask, ret_matched);
}
