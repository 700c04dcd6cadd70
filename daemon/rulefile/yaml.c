/* yaml.c - YAML text as a tree, built from libfyaml's events. */
#include "config.h"

#include <errno.h>
#include <libfyaml.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/rulefile/yaml.h"
#include "daemon/rules/strbuf.h"
#include "protocol/limits.h"
#include "protocol/utf8.h"

enum { ROOM_FOR_LIBFYAML = 256 * 1024 };

struct anchor {
  char *name;
  struct fz_yaml_node *node;
};

struct builder {
  fz_yaml *yaml;
  const char *text;
  size_t length;
  struct fz_yaml_node *open[FZ_JSON_DEPTH_MAX + 1]; /* collections that are not closed yet, outermost first */
  struct fz_yaml_node *key[FZ_JSON_DEPTH_MAX + 1];  /* of each of them: a key that waits for its value */
  size_t depth;
  unsigned documents;
  struct anchor *anchors;
  size_t n_anchors;
  struct fz_yaml_error *error;
};

static void parser_destroy(struct fy_parser **parser) { fy_parser_destroy(*parser); }
static void diag_destroy(struct fy_diag **diag) { fy_diag_destroy(*diag); }

static int fail(struct builder *builder, size_t start, size_t end, const char *hint, char *message) {
  if (!message)
    return -ENOMEM;
  *builder->error = (struct fz_yaml_error){ .message = message, .hint = hint, .start = start, .end = end };
  return FZ_YAML_BROKEN;
}

static struct fz_yaml_node *new_node(struct builder *builder, enum fz_yaml_kind kind) {
  struct fz_yaml_node *node = (struct fz_yaml_node *)calloc(1, sizeof(*node));
  if (!node)
    return NULL;
  node->kind = kind;
  node->start = node->end = builder->length;
  node->made_before = builder->yaml->made;
  builder->yaml->made = node;
  builder->yaml->n_nodes++;
  return node;
}

/* Where a token stands, its quotes included. A value that is left out has no token: it stands where its key ends. */
static void place(struct builder *builder, struct fz_yaml_node *node, struct fy_token *token) {
  const struct fy_mark *start = token ? fy_token_start_mark(token) : NULL;
  const struct fy_mark *end = token ? fy_token_end_mark(token) : NULL;
  if (!start || !end) {
    const struct fz_yaml_node *key = builder->depth ? builder->key[builder->depth - 1] : NULL;
    if (key)
      node->start = node->end = key->end;
    return;
  }
  node->start = start->input_pos < builder->length ? start->input_pos : builder->length;
  node->end = end->input_pos < builder->length ? end->input_pos : builder->length;
  const char quote = node->start > 0 ? builder->text[node->start - 1] : '\0';
  if (node->kind == FZ_YAML_SCALAR && !node->plain && (quote == '"' || quote == '\'')) {
    node->start--;
    if (node->end < builder->length)
      node->end++;
  } else if (node->kind == FZ_YAML_ALIAS && quote == '*')
    node->start--;
}

static int keep_text(struct fz_yaml_node *node, struct fy_token *token) {
  const char *text = "";
  if (token && !(text = fy_token_get_text(token, &node->length)))
    return -ENOMEM;
  node->text = (char *)malloc(node->length + 1);
  if (!node->text)
    return -ENOMEM;
  memcpy(node->text, text, node->length);
  node->text[node->length] = '\0';
  return 0;
}

static int keep_anchor(struct builder *builder, struct fy_token *token, struct fz_yaml_node *node) {
  size_t length = 0;
  const char *name = token ? fy_token_get_text(token, &length) : NULL;
  if (!name)
    return 0;
  if (builder->n_anchors == FZ_YAML_ANCHORS_MAX)
    return fail(builder, node->start, node->start, NULL, fz_format("more than %u anchors", FZ_YAML_ANCHORS_MAX));
  if (!builder->anchors)
    builder->anchors = (struct anchor *)calloc(FZ_YAML_ANCHORS_MAX, sizeof(*builder->anchors));
  char *copy = builder->anchors ? strndup(name, length) : NULL;
  if (!copy)
    return -ENOMEM;
  builder->anchors[builder->n_anchors++] = (struct anchor){ .name = copy, .node = node };
  return 0;
}

static bool is_key(const struct builder *builder) {
  return builder->depth > 0 && builder->open[builder->depth - 1]->kind == FZ_YAML_MAPPING &&
         !builder->key[builder->depth - 1];
}

static int attach_key(struct builder *builder, struct fz_yaml_node *node) {
  struct fz_yaml_node *mapping = builder->open[builder->depth - 1];
  if (node->kind != FZ_YAML_SCALAR)
    return fail(builder, node->start, node->end, NULL, fz_format("a key is a plain word"));
  for (const struct fz_yaml_node *value = mapping->first; value; value = value->next)
    if (value->key->length == node->length && memcmp(value->key->text, node->text, node->length) == 0)
      return fail(builder, node->start, node->end, NULL, fz_format("the key '%s' stands here twice", node->text));
  builder->key[builder->depth - 1] = node;
  return 0;
}

static int attach(struct builder *builder, struct fz_yaml_node *node) {
  if (builder->depth == 0) {
    builder->yaml->root = node;
    return 0;
  }
  struct fz_yaml_node *parent = builder->open[builder->depth - 1];
  if (is_key(builder))
    return attach_key(builder, node);
  node->key = builder->key[builder->depth - 1];
  builder->key[builder->depth - 1] = NULL;
  if (parent->last)
    parent->last->next = node;
  else
    parent->first = node;
  parent->last = node;
  return 0;
}

static int add_node(struct builder *builder, enum fz_yaml_kind kind, struct fy_token *token, struct fy_token *anchor,
                    struct fy_token *tag) {
  if (builder->yaml->n_nodes == FZ_YAML_NODES_MAX)
    return fail(builder, builder->length, builder->length, NULL, fz_format("this is too much for a rules file"));
  struct fz_yaml_node *node = new_node(builder, kind);
  if (!node)
    return -ENOMEM;
  node->plain = kind == FZ_YAML_SCALAR && (!token || fy_token_scalar_style(token) == FYSS_PLAIN);
  place(builder, node, token);
  int r = 0;
  if (kind == FZ_YAML_SCALAR || kind == FZ_YAML_ALIAS)
    r = keep_text(node, token);
  if (!r && tag)
    r = fail(builder, node->start, node->end, "quote a text that begins with '!'",
             fz_format("a tag has no meaning in rules"));
  if (!r && kind == FZ_YAML_ALIAS)
    for (size_t i = builder->n_anchors; i-- > 0 && !node->target;)
      if (strcmp(builder->anchors[i].name, node->text) == 0)
        node->target = builder->anchors[i].node;
  if (!r)
    r = keep_anchor(builder, anchor, node);
  if (!r)
    r = attach(builder, node);
  if (r || kind == FZ_YAML_SCALAR || kind == FZ_YAML_ALIAS)
    return r;
  if (builder->depth > FZ_JSON_DEPTH_MAX)
    return fail(builder, node->start, node->end, NULL, fz_format("nested too deep"));
  builder->open[builder->depth] = node;
  builder->key[builder->depth++] = NULL;
  return 0;
}

static int end_collection(struct builder *builder, struct fy_token *token) {
  struct fz_yaml_node *node = builder->open[--builder->depth];
  const struct fy_mark *end = token ? fy_token_end_mark(token) : NULL;
  /* A block ends where the next thing begins, which says nothing; a bracket says where it stands. */
  if (end && node->start < builder->length && strchr("[{", builder->text[node->start]) && end->input_pos > node->start)
    node->end = end->input_pos < builder->length ? end->input_pos : builder->length;
  return 0;
}

static int take_event(struct builder *builder, struct fy_event *event) {
  switch (event->type) {
  case FYET_DOCUMENT_START:
    if (builder->documents++ > 0) {
      const struct fy_mark *mark =
        event->document_start.document_start ? fy_token_start_mark(event->document_start.document_start) : NULL;
      const size_t at = mark && mark->input_pos < builder->length ? mark->input_pos : builder->length;
      return fail(builder, at, at, NULL, fz_format("a rules file holds one document"));
    }
    return 0;
  case FYET_SCALAR:
    return add_node(builder, FZ_YAML_SCALAR, event->scalar.value, event->scalar.anchor, event->scalar.tag);
  case FYET_ALIAS:
    return add_node(builder, FZ_YAML_ALIAS, event->alias.anchor, NULL, NULL);
  case FYET_SEQUENCE_START:
    return add_node(builder, FZ_YAML_SEQUENCE, event->sequence_start.sequence_start, event->sequence_start.anchor,
                    event->sequence_start.tag);
  case FYET_MAPPING_START:
    return add_node(builder, FZ_YAML_MAPPING, event->mapping_start.mapping_start, event->mapping_start.anchor,
                    event->mapping_start.tag);
  case FYET_SEQUENCE_END:
    return end_collection(builder, event->sequence_end.sequence_end);
  case FYET_MAPPING_END:
    return end_collection(builder, event->mapping_end.mapping_end);
  case FYET_NONE:
  case FYET_STREAM_START:
  case FYET_STREAM_END:
  case FYET_DOCUMENT_END:
    return 0;
  }
  return 0;
}

/* The byte at a line and column, both from 1; columns count characters. */
static size_t offset_of(const char *text, size_t length, int line, int column) {
  size_t i = 0;
  for (; line > 1 && i < length; line--) {
    const char *end = (const char *)memchr(text + i, '\n', length - i);
    i = end ? (size_t)(end - text) + 1 : length;
  }
  for (; column > 1 && i < length && text[i] != '\n'; column--)
    i += fz_utf8_step(text + i, length - i, NULL);
  return i;
}

/* What libfyaml says of a text that is not YAML. */
static int fail_syntax(struct builder *builder, struct fy_diag *diag) {
  void *iterator = NULL;
  const struct fy_diag_error *error = fy_diag_errors_iterate(diag, &iterator);
  if (!error)
    return fail(builder, 0, 0, NULL, fz_format("not YAML"));
  const size_t at = offset_of(builder->text, builder->length, error->line, error->column);
  return fail(builder, at, at, NULL, fz_format("%s", error->msg));
}

static int read_events(struct builder *builder, struct fy_parser *parser) {
  struct fy_event *event;
  int r = 0;
  while (!r && (event = fy_parser_parse(parser))) {
    r = take_event(builder, event);
    fy_parser_event_free(parser, event);
  }
  return r;
}

/*
 * libfyaml crashes where it has no memory for the name that it gives to a text. A freezerd that reads its rules again
 * serves runs: it finds out before that there is none.
 */
static int check_memory(void) {
  void *volatile room = malloc(ROOM_FOR_LIBFYAML); /* or the compiler takes it for granted */
  const int r = room ? 0 : -ENOMEM;
  free(room);
  return r;
}

static int parse(struct builder *builder) {
  struct fy_diag_cfg diag_config;
  fy_diag_cfg_default(&diag_config);
  diag_config.fp = NULL;
  diag_config.colorize = false;
  __attribute__((cleanup(diag_destroy))) struct fy_diag *diag = fy_diag_create(&diag_config);
  if (!diag)
    return -ENOMEM;
  fy_diag_set_collect_errors(diag, true);
  const struct fy_parse_cfg config = { .flags = FYPCF_QUIET | FYPCF_COLLECT_DIAG | FYPCF_DEFAULT_VERSION_1_2,
                                       .diag = diag };
  __attribute__((cleanup(parser_destroy))) struct fy_parser *parser = fy_parser_create(&config);
  if (!parser || fy_parser_set_string(parser, builder->text, builder->length))
    return -ENOMEM;
  const int r = read_events(builder, parser);
  return !r && fy_parser_get_stream_error(parser) ? fail_syntax(builder, diag) : r;
}

/* libfyaml takes a NUL for the end of the text, so it, and all else that has no place in text, is looked for before. */
static int check_bytes(struct builder *builder) {
  for (size_t i = 0; i < builder->length;) {
    uint32_t code = 0;
    const size_t step = fz_utf8_step(builder->text + i, builder->length - i, &code);
    if (step == 0)
      return fail(builder, i, i, NULL, fz_format("the file is not UTF-8"));
    if ((code < 0x20 && code != '\n' && code != '\t' && code != '\r') || code == 0x7f)
      return fail(builder, i, i, NULL, fz_format("the file holds control characters"));
    i += step;
  }
  return 0;
}

int fz_yaml_parse(fz_yaml *yaml, const char *text, size_t length, struct fz_yaml_error *ret_error) {
  struct builder builder = { .yaml = yaml, .text = text, .length = length, .error = ret_error };
  int r = check_bytes(&builder);
  if (!r && length > 0)
    r = check_memory();
  if (!r && length > 0)
    r = parse(&builder);
  for (size_t i = 0; i < builder.n_anchors; i++)
    free(builder.anchors[i].name);
  free(builder.anchors);
  return r;
}

void fz_yaml_deinit(fz_yaml *yaml) {
  for (struct fz_yaml_node *node = yaml->made, *before; node; node = before) {
    before = node->made_before;
    free(node->text);
    free(node);
  }
  *yaml = (fz_yaml)FZ_YAML_NULL;
}
