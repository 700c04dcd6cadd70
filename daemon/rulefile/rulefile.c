/* rulefile.c - reads a rules file and places what is wrong with it. */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/rulefile/canonical.h"
#include "daemon/rulefile/rulefile.h"
#include "daemon/rulefile/yaml.h"
#include "daemon/rules/strbuf.h"
#include "protocol/utf8.h"

/* A source line is shown up to this many bytes; of a longer one, what stands round the error. */
#define SHOWN_MAX 160U

struct fz_rulefile {
  char *name;
  char *text; /* without a byte order mark */
  size_t length;
  fz_yaml yaml;
  char *json;
  fz_ruleset *ruleset;
  struct fz_rulefile_message *messages;
  size_t n_messages, capacity, n_errors;
};

static void free_string(char **text) { free(*text); }

static void message_deinit(struct fz_rulefile_message *message) {
  free(message->text);
  free(message->message);
  free(message->hint);
}

/* The line round byte `at`. */
static void find_line(const fz_rulefile *file, size_t at, size_t *ret_start, size_t *ret_end) {
  size_t start = at, end = at;
  while (start > 0 && file->text[start - 1] != '\n')
    start--;
  while (end < file->length && file->text[end] != '\n')
    end++;
  if (end > start && file->text[end - 1] == '\r')
    end--;
  *ret_start = start;
  *ret_end = end;
}

static size_t characters(const char *text, size_t length) {
  size_t n = 0;
  for (size_t i = 0; i < length; n++) {
    const size_t step = fz_utf8_step(text + i, length - i, NULL);
    i += step ? step : 1;
  }
  return n;
}

/* Bytes as they can be shown: what is no text, and what would move the cursor, as a question mark. */
static void add_shown(fz_strbuf *buffer, const char *text, size_t length) {
  for (size_t i = 0; i < length;) {
    uint32_t code = 0;
    const size_t step = fz_utf8_step(text + i, length - i, &code);
    const bool shown = step && (code == '\t' || (code >= 0x20 && code < 0x7f) || code >= 0xa0);
    fz_strbuf_add(buffer, shown ? text + i : "?", shown ? step : 1);
    i += step ? step : 1;
  }
}

/* Under the text, spaces of the same width: tabs stay tabs. */
static void add_blank(fz_strbuf *buffer, const char *text, size_t length) {
  for (size_t i = 0; i < length;) {
    const size_t step = fz_utf8_step(text + i, length - i, NULL);
    fz_strbuf_add(buffer, text[i] == '\t' ? "\t" : " ", 1);
    i += step ? step : 1;
  }
}

/* The source line and, under it, a caret with a tail as long as what is meant. */
static void add_source(const fz_rulefile *file, size_t at, size_t end, fz_strbuf *buffer) {
  size_t first, last;
  find_line(file, at, &first, &last);
  if (at > last)
    at = last;
  const bool cut_front = last - first > SHOWN_MAX && at - first > SHOWN_MAX / 2;
  if (cut_front)
    for (first = at - SHOWN_MAX / 2; first < at && ((unsigned char)file->text[first] & 0xc0) == 0x80;)
      first++;
  const bool cut_back = last - first > SHOWN_MAX;
  if (cut_back)
    for (last = first + SHOWN_MAX; last > at && ((unsigned char)file->text[last] & 0xc0) == 0x80;)
      last--;
  if (end > last)
    end = last;
  fz_strbuf_addf(buffer, "\n%s", cut_front ? "..." : "");
  add_shown(buffer, file->text + first, last - first);
  fz_strbuf_addf(buffer, "%s\n%s", cut_back ? "..." : "", cut_front ? "   " : "");
  add_blank(buffer, file->text + first, at - first);
  fz_strbuf_add(buffer, "^", 1);
  for (size_t n = end > at ? characters(file->text + at, end - at) : 0; n > 1; n--)
    fz_strbuf_add(buffer, "~", 1);
}

static char *format_message(const fz_rulefile *file, const struct fz_rulefile_message *message, size_t at, size_t end) {
  fz_strbuf buffer = FZ_STRBUF_NULL;
  fz_strbuf_addf(&buffer, "%s:", file->name);
  if (message->line > 0)
    fz_strbuf_addf(&buffer, "%u:%u:", message->line, message->column);
  fz_strbuf_addf(&buffer, " %s: ", message->severity == FZ_ERROR ? "error" : "warning");
  add_shown(&buffer, message->message, strlen(message->message));
  if (message->hint) {
    fz_strbuf_add(&buffer, "; ", 2);
    add_shown(&buffer, message->hint, strlen(message->hint));
  }
  if (message->line > 0)
    add_source(file, at, end, &buffer);
  return fz_strbuf_take(&buffer);
}

static bool is_before(const struct fz_rulefile_message *a, const struct fz_rulefile_message *b) {
  return a->line != b->line ? a->line < b->line : a->column < b->column;
}

static bool is_known(const fz_rulefile *file, const struct fz_rulefile_message *message) {
  for (size_t i = 0; i < file->n_messages; i++)
    if (strcmp(file->messages[i].text, message->text) == 0)
      return true;
  return false;
}

static int insert(fz_rulefile *file, const struct fz_rulefile_message *message) {
  if (file->n_messages == file->capacity) {
    const size_t capacity = file->capacity ? file->capacity * 2 : 8;
    void *messages = realloc(file->messages, capacity * sizeof(*file->messages));
    if (!messages)
      return -ENOMEM;
    file->messages = (struct fz_rulefile_message *)messages;
    file->capacity = capacity;
  }
  size_t i = file->n_messages++;
  for (; i > 0 && is_before(message, &file->messages[i - 1]); i--)
    file->messages[i] = file->messages[i - 1];
  file->messages[i] = *message;
  file->n_errors += message->severity == FZ_ERROR;
  return 0;
}

/* Adds a message about the bytes from `at` to `end`, or about the whole file if `at` is SIZE_MAX. */
static int add_message(fz_rulefile *file, enum fz_severity severity, const char *text, const char *hint, size_t at,
                       size_t end) {
  struct fz_rulefile_message message = { .severity = severity,
                                         .message = strdup(text),
                                         .hint = hint ? strdup(hint) : NULL };
  if (at != SIZE_MAX) {
    size_t first, last;
    find_line(file, at, &first, &last);
    message.line = 1;
    for (size_t i = 0; i < first; i++)
      message.line += file->text[i] == '\n';
    message.column = 1 + (unsigned)characters(file->text + first, at - first);
  }
  int r = -ENOMEM;
  if (message.message && (message.hint || !hint)) {
    message.text = format_message(file, &message, at, end);
    const bool known = message.text && is_known(file, &message);
    if (message.text)
      r = known ? 0 : insert(file, &message);
    if (known)
      message_deinit(&message);
  }
  if (r)
    message_deinit(&message);
  return r;
}

/* Which bytes of the file a diagnostic means. */
static void place(const fz_rulefile *file, const struct fz_diagnostic *diagnostic, size_t *ret_at, size_t *ret_end) {
  const struct fz_yaml_node *node = fz_yaml_find(&file->yaml, diagnostic->pointer, diagnostic->at_key);
  *ret_at = *ret_end = SIZE_MAX;
  if (!node || diagnostic->problem == FZ_PROBLEM_SYNTAX)
    return;
  *ret_at = node->start;
  *ret_end = node->end;
  const struct fz_yaml_node *text = node->kind == FZ_YAML_ALIAS ? NULL : node;
  if (!text || text->kind != FZ_YAML_SCALAR || diagnostic->offset == SIZE_MAX)
    return;
  /* Bytes of the string are bytes of the file as long as nothing in it is escaped or folded. */
  const size_t quote = text->plain ? 0 : 1;
  if (text->end - text->start == text->length + 2 * quote && diagnostic->offset <= text->length) {
    *ret_at = text->start + quote + diagnostic->offset;
    *ret_end = *ret_at + diagnostic->length;
  }
}

int fz_rulefile_place(fz_rulefile *file, const fz_diagnostics *diagnostics) {
  int r = 0;
  for (size_t i = 0; !r && i < diagnostics->n; i++) {
    const struct fz_diagnostic *diagnostic = &diagnostics->items[i];
    size_t at, end;
    place(file, diagnostic, &at, &end);
    r = add_message(file, diagnostic->severity, diagnostic->message, diagnostic->hint, at, end);
  }
  if (!r && diagnostics->dropped > 0) {
    __attribute__((cleanup(free_string))) char *text = fz_format("and %zu more", diagnostics->dropped);
    r = text ? add_message(file, diagnostics->errors > 0 ? FZ_ERROR : FZ_WARNING, text, NULL, SIZE_MAX, SIZE_MAX)
             : -ENOMEM;
  }
  return r;
}

static int add_yaml_error(fz_rulefile *file, struct fz_yaml_error *error) {
  const int r = add_message(file, FZ_ERROR, error->message, error->hint, error->start, error->end);
  free(error->message);
  return r;
}

static int validate(fz_rulefile *file, size_t length) {
  fz_diagnostics diagnostics = FZ_DIAGNOSTICS_NULL;
  int r = fz_ruleset_parse(&file->ruleset, file->json, length, &diagnostics);
  if (r >= 0)
    r = fz_rulefile_place(file, &diagnostics);
  fz_diagnostics_deinit(&diagnostics);
  return r;
}

static int read_document(fz_rulefile *file) {
  struct fz_yaml_error error = { .message = NULL };
  size_t length = 0;
  int r = fz_yaml_parse(&file->yaml, file->text, file->length, &error);
  if (!r && !file->yaml.root)
    return add_message(file, FZ_ERROR, "the file is empty", NULL, SIZE_MAX, SIZE_MAX);
  if (!r && file->yaml.root->kind != FZ_YAML_MAPPING)
    return add_message(file, FZ_ERROR, "a rules file is a mapping", "begin with 'version: 1'", file->yaml.root->start,
                       file->yaml.root->end);
  if (!r)
    r = fz_yaml_to_json(&file->yaml, &file->json, &length, &error);
  if (r == FZ_YAML_BROKEN)
    return add_yaml_error(file, &error);
  return r ? r : validate(file, length);
}

int fz_rulefile_parse(fz_rulefile **ret_file, const char *name, const char *text, size_t length) {
  static const char mark[] = "\xef\xbb\xbf";
  if (length > FZ_RULEFILE_MAX)
    return -E2BIG;
  if (length >= 3 && memcmp(text, mark, 3) == 0) {
    text += 3;
    length -= 3;
  }
  fz_rulefile *file = (fz_rulefile *)calloc(1, sizeof(*file));
  if (!file)
    return -ENOMEM;
  file->name = strdup(name);
  file->text = (char *)malloc(length + 1);
  file->length = length;
  int r = -ENOMEM;
  if (file->name && file->text) {
    memcpy(file->text, text, length);
    file->text[length] = '\0';
    r = read_document(file);
  }
  if (r)
    fz_rulefile_free(file);
  else
    *ret_file = file;
  return r;
}

/* Reads until the end, or to one byte more than is allowed. */
static int read_all(int fd, char *buffer, size_t size, size_t *ret_length) {
  size_t length = 0;
  while (length < size) {
    const ssize_t n = read(fd, buffer + length, size - length);
    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0)
      return -errno;
    if (n == 0)
      break;
    length += (size_t)n;
  }
  *ret_length = length;
  return length == size ? -E2BIG : 0;
}

int fz_rulefile_read(fz_rulefile **ret_file, const char *path) {
  const bool is_stdin = strcmp(path, "-") == 0;
  __attribute__((cleanup(free_string))) char *buffer = (char *)malloc(FZ_RULEFILE_MAX + 1);
  size_t length = 0;
  if (!buffer)
    return -ENOMEM;
  const int fd = is_stdin ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0)
    return -errno;
  const int r = read_all(fd, buffer, FZ_RULEFILE_MAX + 1, &length);
  if (!is_stdin)
    (void)close(fd);
  return r ? r : fz_rulefile_parse(ret_file, is_stdin ? "<stdin>" : path, buffer, length);
}

fz_rulefile *fz_rulefile_free(fz_rulefile *file) {
  if (!file)
    return NULL;
  for (size_t i = 0; i < file->n_messages; i++)
    message_deinit(&file->messages[i]);
  free(file->messages);
  fz_yaml_deinit(&file->yaml);
  fz_ruleset_unref(file->ruleset);
  free(file->json);
  free(file->name);
  free(file->text);
  free(file);
  return NULL;
}

fz_ruleset *fz_rulefile_ruleset(const fz_rulefile *file) { return file->ruleset; }

const char *fz_rulefile_json(const fz_rulefile *file) { return file->json; }

size_t fz_rulefile_n_messages(const fz_rulefile *file) { return file->n_messages; }

size_t fz_rulefile_n_errors(const fz_rulefile *file) { return file->n_errors; }

const struct fz_rulefile_message *fz_rulefile_message(const fz_rulefile *file, size_t index) {
  return &file->messages[index];
}
