/* cmd_list.c - list: parameters, or with --depth a tree of modules. */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/ctl/errors.h"
#include "client/ctl/human.h"
#include "client/ctl/request.h"
#include "client/ctl/table.h"
#include "client/ctl/tree.h"
#include "client/ctl/verbs.h"
#include "protocol/suggest.h"

enum { COLUMN_NAME, COLUMN_STATE, COLUMN_ELEMENTS, COLUMN_SINCE, COLUMN_WHY, COLUMN_PARAMS, COLUMN_PENDING };

static const struct fz_column columns[] = {
  { "NAME", "parameter, or module with --depth", FZ_COLUMN_MIDDLE | FZ_COLUMN_TREE },
  { "STATE", "frozen, training; partial: a module of which a part is frozen", 0 },
  { "ELEMENTS", "numbers in it", FZ_COLUMN_RIGHT },
  { "SINCE", "step at which it came to be so", FZ_COLUMN_RIGHT },
  { "WHY", "what decides it", FZ_COLUMN_END },
  { "PARAMS", "parameters in it", FZ_COLUMN_RIGHT | FZ_COLUMN_EXTRA },
  { "PENDING", "yes: a change that not every rank has applied", FZ_COLUMN_EXTRA },
};

/* What the command line asks to see. */
struct filter {
  const char *state, *why; /* NULL: all */
  bool partial;
  bool tree;
  size_t depth;
};

/* --- options --- */

/* 0 or the exit status. */
static int check_word(const fz_ctl *ctl, enum fz_option option, const char *const *words, size_t n) {
  const char *given = ctl->options.text[option];
  char hint[160] = "", *at = hint;
  if (!given)
    return 0;
  for (size_t i = 0; i < n; i++) {
    if (strcmp(words[i], given) == 0)
      return 0;
    at += snprintf(at, sizeof(hint) - (size_t)(at - hint), "%s%s", i ? ", " : "", words[i]);
  }
  const char *near = fz_suggest(given, words, n);
  if (near)
    snprintf(hint, sizeof(hint), "did you mean '%s'?", near);
  return fz_fail(ctl, "usage", hint, "--%s: unknown value '%s'", fz_option_info(option)->name, given);
}

static int read_filter(const fz_ctl *ctl, struct filter *filter) {
  static const char *const states[] = { "frozen", "training", "partial", "pending" };
  static const char *const layers[] = { "rule", "override", "baseline", "pin" };
  int status = check_word(ctl, FZ_OPT_STATE, states, 4);

  if (status == 0)
    status = check_word(ctl, FZ_OPT_WHY, layers, 4);
  if (status)
    return status;
  filter->state = ctl->options.text[FZ_OPT_STATE];
  filter->why = ctl->options.text[FZ_OPT_WHY];
  filter->partial = filter->state && strcmp(filter->state, "partial") == 0;
  filter->tree = (fz_given(&ctl->options, FZ_OPT_DEPTH) || filter->partial) && !fz_wants_json(ctl);
  filter->depth = fz_given(&ctl->options, FZ_OPT_DEPTH) ? (size_t)ctl->options.number[FZ_OPT_DEPTH] : SIZE_MAX;
  if (filter->partial && fz_wants_json(ctl))
    return fz_fail(ctl, "usage", "--json lists parameters: frozen, training or pending",
                   "--state partial shows modules, which --json does not have");
  return 0;
}

/* A tree counts whole modules, so it needs the parameters that the filters leave out as well. */
static int ask(const fz_ctl *ctl, const struct filter *filter, fz_answer *answer) {
  __attribute__((cleanup(fz_conn_freep))) fz_conn *conn = NULL;
  int status = fz_conn_open(ctl, &conn);

  if (status)
    return status;
  fz_json_writer *request = fz_conn_begin(conn, FZ_OP_LIST);
  fz_conn_write_patterns(request, ctl);
  if (filter->state && !filter->tree)
    fz_write_string(request, "state", filter->state);
  if (filter->why && !filter->tree)
    fz_write_string(request, "why", filter->why);
  status = fz_conn_call(conn, answer);
  if (status == 0 && fz_answer_code(answer))
    status = fz_answer_fail(ctl, answer);
  return status;
}

/* --- rows --- */

/* What a row shows, of a parameter or of a module. */
struct entry {
  const char *label, *raw_name;
  enum fz_tree_state state;
  uint64_t elements, params, since;
  const char *why;
  bool pending, has_cause;
};

static void set_state(fz_table *table, long row, const struct entry *entry) {
  static const char *const names[] = { "frozen", "training", "partial" };
  char text[40];
  enum fz_paint paint = entry->state == FZ_TREE_FROZEN ? FZ_PAINT_FROZEN : FZ_PAINT_NONE;

  if (entry->pending)
    paint = FZ_PAINT_PENDING;
  snprintf(text, sizeof(text), "%s%s", names[entry->state], entry->pending ? ", pending" : "");
  fz_table_set(table, row, COLUMN_STATE, text, names[entry->state], paint);
}

static long add_entry(fz_table *table, long parent, const struct entry *entry) {
  const long row = fz_table_add(table, parent);
  char raw[24];

  fz_table_set(table, row, COLUMN_NAME, entry->label, entry->raw_name, FZ_PAINT_NONE);
  set_state(table, row, entry);
  snprintf(raw, sizeof(raw), "%llu", (unsigned long long)entry->elements);
  fz_table_set(table, row, COLUMN_ELEMENTS, fz_count(entry->elements).text, raw, FZ_PAINT_NONE);
  if (entry->has_cause && entry->since == FZ_TIME_NEVER) {
    fz_table_set(table, row, COLUMN_SINCE, "start", NULL, FZ_PAINT_NONE);
  } else if (entry->has_cause) {
    snprintf(raw, sizeof(raw), "%llu", (unsigned long long)entry->since);
    fz_table_set(table, row, COLUMN_SINCE, fz_number(entry->since).text, raw, FZ_PAINT_NONE);
  }
  fz_table_set(table, row, COLUMN_WHY, entry->has_cause ? entry->why : "", NULL, FZ_PAINT_NONE);
  snprintf(raw, sizeof(raw), "%llu", (unsigned long long)entry->params);
  fz_table_set(table, row, COLUMN_PARAMS, fz_number(entry->params).text, raw, FZ_PAINT_NONE);
  fz_table_set(table, row, COLUMN_PENDING, entry->pending ? "yes" : "no", NULL, FZ_PAINT_NONE);
  return row;
}

static struct fz_tree_param read_param(const fz_json *item, const struct filter *filter) {
  struct fz_tree_param param = { .since = FZ_TIME_NEVER };
  const char *state = fz_text_of(item, "state"), *layer = fz_text_of(item, "layer");

  param.name = fz_text_of(item, "name") ? fz_text_of(item, "name") : "";
  param.why = fz_text_of(item, "why") ? fz_text_of(item, "why") : "";
  param.elements = fz_int_of(item, "elements");
  param.frozen = state && strcmp(state, "frozen") == 0;
  param.pending = fz_true_of(item, "pending");
  (void)fz_has_int(item, "since_step", &param.since);
  /* A parameter that trains since nobody froze it needs no reason. */
  if (!param.frozen && layer && strcmp(layer, "baseline") == 0)
    param.why = "";
  param.matched = (!filter->why || (layer && strcmp(layer, filter->why) == 0)) &&
                  (!filter->state || filter->partial || (state && strcmp(state, filter->state) == 0) ||
                   (param.pending && strcmp(filter->state, "pending") == 0));
  return param;
}

static void add_flat(fz_table *table, const fz_answer *answer, const struct filter *filter) {
  struct fz_answer_cursor cursor = { 0 };
  const fz_json *item;
  while ((item = fz_answer_next(answer, "params", &cursor))) {
    const struct fz_tree_param param = read_param(item, filter);
    const struct entry entry = { .label = param.name,
                                 .state = param.frozen ? FZ_TREE_FROZEN : FZ_TREE_TRAINING,
                                 .elements = param.elements,
                                 .params = 1,
                                 .since = param.since,
                                 .why = param.why,
                                 .pending = param.pending,
                                 .has_cause = true };
    add_entry(table, -1, &entry);
  }
}

static bool is_shown(const struct fz_tree_node *node, const struct filter *filter) {
  return node->matched > 0 && (!filter->partial || fz_tree_state(node) == FZ_TREE_PARTIAL);
}

/* Adds `count` siblings as one row. -1 when out of memory. */
static long add_node(fz_table *table, long parent, const struct fz_tree_node *node, size_t count) {
  char *label = fz_tree_label(node, count, false), *raw = fz_tree_label(node, count, true);
  struct entry entry = { .label = label,
                         .raw_name = raw,
                         .state = fz_tree_state(node),
                         .since = node->since,
                         .why = node->why,
                         .pending = node->pending > 0,
                         .has_cause = node->same };
  for (const struct fz_tree_node *n = node; count > 0; n = n->next, count--) {
    entry.elements += n->elements;
    entry.params += n->params;
  }
  const long row = label && raw ? add_entry(table, parent, &entry) : -1;
  free(label);
  free(raw);
  return row;
}

static int add_nodes(fz_table *table, long parent, const struct fz_tree_node *node, const struct filter *filter) {
  int r = 0;
  while (node && r == 0) {
    const size_t count = fz_tree_run(node);
    if (is_shown(node, filter)) {
      const long row = add_node(table, parent, node, count);
      r = row < 0 ? -ENOMEM : add_nodes(table, row, node->first_child, filter);
    }
    for (size_t i = 0; i < count; i++)
      node = node->next;
  }
  return r;
}

static int add_tree(fz_table *table, const fz_answer *answer, const struct filter *filter) {
  struct fz_answer_cursor cursor = { 0 };
  const fz_json *item;
  fz_tree *tree = NULL;
  int r = fz_tree_new(&tree, filter->depth);

  while (r == 0 && (item = fz_answer_next(answer, "params", &cursor))) {
    const struct fz_tree_param param = read_param(item, filter);
    r = fz_tree_add(tree, &param);
  }
  if (r == 0)
    r = add_nodes(table, -1, fz_tree_first(tree), filter);
  fz_tree_free(tree);
  return r;
}

static int print_list(const fz_ctl *ctl, const struct filter *filter, const fz_answer *answer) {
  fz_table *table;
  int status, r = 0;

  if (!fz_table_new(ctl, columns, sizeof(columns) / sizeof(columns[0]), &table, &status))
    return status;
  if (filter->tree)
    r = add_tree(table, answer, filter);
  else
    add_flat(table, answer, filter);
  if (r == 0)
    r = fz_table_print(table);
  fz_table_free(table);
  return r < 0 ? fz_fail_memory(ctl) : FZ_EXIT_DONE;
}

int fz_cmd_list(fz_ctl *ctl) {
  fz_answer answer = FZ_ANSWER_NULL;
  struct filter filter;
  int status = read_filter(ctl, &filter);

  if (status || !fz_table_check(ctl, columns, sizeof(columns) / sizeof(columns[0]), &status))
    return status;
  status = ask(ctl, &filter, &answer);
  if (status == 0)
    status = fz_wants_json(ctl) ? fz_answer_print_json(ctl, &answer) : print_list(ctl, &filter, &answer);
  fz_answer_deinit(&answer);
  return status;
}
