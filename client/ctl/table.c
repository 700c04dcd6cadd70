/* table.c - tables and trees: aligned for people, tab-separated with --plain, names with -q. */
#include "config.h"

#include <ctype.h>
#include <errno.h>
#include <libsmartcols.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/ctl/errors.h"
#include "client/ctl/human.h"
#include "client/ctl/table.h"
#include "protocol/suggest.h"

#define COLUMNS_MAX 16
#define SEPARATOR "  "
#define BRANCH_WIDTH 2
/* A column is not shortened below this. */
#define SHORTEST 12

struct cell {
  char *text; /* NULL: empty, or in a column that is not shown */
  enum fz_paint paint;
};

struct row {
  long parent;
  size_t depth;
  struct cell *cells; /* one per column */
};

struct fz_table {
  const fz_ctl *ctl;
  const struct fz_column *columns;
  size_t n_columns;
  size_t shown[COLUMNS_MAX]; /* indices of columns, in the order of printing */
  size_t n_shown;
  bool printed[COLUMNS_MAX]; /* by column: whether its cells are worth keeping */
  bool raw;                  /* full numbers, for programs */
  struct row *rows;
  size_t n_rows, capacity;
  bool failed; /* out of memory somewhere */
};

static void list_columns(const struct fz_column *columns, size_t n) {
  for (size_t i = 0; i < n; i++)
    printf("%-12s %s%s\n", columns[i].name, columns[i].help,
           columns[i].flags & FZ_COLUMN_EXTRA ? " (only with -o)" : "");
}

static bool same_word(const char *column, const char *word, size_t length) {
  return strlen(column) == length && strncasecmp(column, word, length) == 0;
}

static int unknown_column(const fz_table *table, const char *word, size_t length) {
  const char *names[COLUMNS_MAX];
  char upper[64], hint[96] = "'-o help' lists the columns";
  size_t at = 0;

  /* Names are compared whatever their case, so a slip is sought in theirs. */
  for (; at < length && at < sizeof(upper) - 1; at++)
    upper[at] = (char)toupper((unsigned char)word[at]);
  upper[at] = '\0';
  for (size_t i = 0; i < table->n_columns; i++)
    names[i] = table->columns[i].name;
  const char *near = fz_suggest(upper, names, table->n_columns);
  if (near)
    snprintf(hint, sizeof(hint), "did you mean '%s'?", near);
  return fz_fail(table->ctl, "usage", hint, "unknown column '%.*s'", (int)length, word);
}

/* Reads -o. 0 or the exit status. */
static int select_columns(fz_table *table, const char *list) {
  while (*list) {
    const size_t length = strcspn(list, ",");
    size_t i = 0;
    while (i < table->n_columns && !same_word(table->columns[i].name, list, length))
      i++;
    if (i == table->n_columns)
      return unknown_column(table, list, length);
    if (table->n_shown < COLUMNS_MAX)
      table->shown[table->n_shown++] = i;
    list += length;
    list += *list == ',';
  }
  return 0;
}

/* -q prints the first column whatever -o says. */
static void note_printed(fz_table *table) {
  const bool names_only = fz_given(&table->ctl->options, FZ_OPT_QUIET);
  table->raw = names_only || fz_given(&table->ctl->options, FZ_OPT_PLAIN);
  if (names_only)
    table->printed[0] = true;
  else
    for (size_t i = 0; i < table->n_shown; i++)
      table->printed[table->shown[i]] = true;
}

bool fz_table_new(const fz_ctl *ctl, const struct fz_column *columns, size_t n, fz_table **ret_table, int *ret_status) {
  const char *list = ctl->options.text[FZ_OPT_COLUMNS];
  fz_table *table;

  if (list && strcmp(list, "help") == 0) {
    list_columns(columns, n);
    *ret_status = FZ_EXIT_DONE;
    return false;
  }
  table = calloc(1, sizeof(*table));
  if (!table) {
    *ret_status = fz_fail_memory(ctl);
    return false;
  }
  table->ctl = ctl;
  table->columns = columns;
  table->n_columns = n;
  if (list) {
    *ret_status = select_columns(table, list);
    if (*ret_status) {
      fz_table_free(table);
      return false;
    }
  } else {
    for (size_t i = 0; i < n; i++)
      if (!(columns[i].flags & FZ_COLUMN_EXTRA))
        table->shown[table->n_shown++] = i;
  }
  note_printed(table);
  *ret_table = table;
  return true;
}

bool fz_table_check(const fz_ctl *ctl, const struct fz_column *columns, size_t n, int *ret_status) {
  fz_table *table = NULL;
  const bool good = fz_wants_json(ctl) || fz_table_new(ctl, columns, n, &table, ret_status);
  fz_table_free(table);
  return good;
}

fz_table *fz_table_free(fz_table *table) {
  if (!table)
    return NULL;
  for (size_t r = 0; r < table->n_rows; r++) {
    for (size_t c = 0; c < table->n_columns; c++)
      free(table->rows[r].cells[c].text);
    free(table->rows[r].cells);
  }
  free(table->rows);
  free(table);
  return NULL;
}

long fz_table_add(fz_table *table, long parent) {
  if (table->n_rows == table->capacity) {
    const size_t capacity = table->capacity ? 2 * table->capacity : 32;
    struct row *rows = reallocarray(table->rows, capacity, sizeof(*rows));
    if (!rows) {
      table->failed = true;
      return -1;
    }
    table->rows = rows;
    table->capacity = capacity;
  }
  struct row *row = &table->rows[table->n_rows];
  row->parent = parent;
  row->depth = parent >= 0 ? table->rows[parent].depth + 1 : 0;
  row->cells = calloc(table->n_columns, sizeof(*row->cells));
  if (!row->cells) {
    table->failed = true;
    return -1;
  }
  return (long)table->n_rows++;
}

void fz_table_set(fz_table *table, long row, size_t column, const char *human, const char *raw, enum fz_paint paint) {
  const char *text = table->raw && raw ? raw : human;
  if (row < 0 || !table->printed[column])
    return;
  struct cell *cell = &table->rows[row].cells[column];
  if (text)
    cell->text = table->raw || table->ctl->style.unicode ? fz_escape(text) : fz_escape_to_ascii(text);
  cell->paint = paint;
  if (text && !cell->text)
    table->failed = true;
}

static const char *text_of(const struct cell *cell) { return cell->text ? cell->text : ""; }

static void print_plain(const fz_table *table) {
  for (size_t r = 0; r < table->n_rows; r++)
    for (size_t i = 0; i < table->n_shown; i++)
      printf("%s%c", text_of(&table->rows[r].cells[table->shown[i]]), i + 1 < table->n_shown ? '\t' : '\n');
}

static void print_names(const fz_table *table) {
  for (size_t r = 0; r < table->n_rows; r++)
    printf("%s\n", text_of(&table->rows[r].cells[0]));
}

/* Columns that the branches in front of a cell take. */
static size_t branch_width(const struct fz_column *column, const struct row *row) {
  return column->flags & FZ_COLUMN_TREE ? BRANCH_WIDTH * row->depth : 0;
}

static size_t column_width(const fz_table *table, size_t column) {
  size_t width = fz_width(table->columns[column].name);
  for (size_t r = 0; r < table->n_rows; r++) {
    const size_t w =
      branch_width(&table->columns[column], &table->rows[r]) + fz_width(text_of(&table->rows[r].cells[column]));
    if (w > width)
      width = w;
  }
  return width;
}

/* Shortens the cells of a column to `width`. */
static void shorten_column(fz_table *table, size_t column, size_t width) {
  for (size_t r = 0; r < table->n_rows; r++) {
    struct cell *cell = &table->rows[r].cells[column];
    const size_t branches = branch_width(&table->columns[column], &table->rows[r]);
    const size_t room = width > branches + 3 ? width - branches : 4;
    if (!cell->text || fz_width(cell->text) <= room)
      continue;
    char *text = fz_shorten(cell->text, room, table->columns[column].flags & FZ_COLUMN_MIDDLE);
    if (!text) {
      table->failed = true;
      continue;
    }
    free(cell->text);
    cell->text = text;
  }
}

/* Fits the table into the terminal: first what may be cut at its end, then names. `widths` are those of what is shown. */
static void fit(fz_table *table, size_t *widths) {
  static const unsigned order[] = { FZ_COLUMN_END, FZ_COLUMN_MIDDLE };
  size_t total = 0;

  for (size_t i = 0; i < table->n_shown; i++)
    total += widths[i] + (i ? strlen(SEPARATOR) : 0);
  for (size_t o = 0; o < sizeof(order) / sizeof(order[0]); o++)
    for (size_t i = 0; i < table->n_shown && total > table->ctl->style.width; i++) {
      if (!(table->columns[table->shown[i]].flags & order[o]) || widths[i] <= SHORTEST)
        continue;
      const size_t over = total - table->ctl->style.width;
      const size_t width = widths[i] - SHORTEST > over ? widths[i] - over : SHORTEST;
      shorten_column(table, table->shown[i], width);
      total -= widths[i] - width;
      widths[i] = width;
    }
}

static void print_blanks(size_t n) {
  for (; n > 0; n--)
    putchar(' ');
}

/* Prints one line. Blanks are owed until something follows them, so that none end it. */
static void print_line(const fz_table *table, const struct row *row, const size_t *widths) {
  size_t owed = 0;

  for (size_t i = 0; i < table->n_shown; i++) {
    const struct fz_column *column = &table->columns[table->shown[i]];
    const struct cell *cell = row ? &row->cells[table->shown[i]] : NULL;
    const char *text = cell ? text_of(cell) : column->name;
    const enum fz_paint paint = cell ? cell->paint : FZ_PAINT_NONE;
    const size_t width = fz_width(text), pad = widths[i] > width ? widths[i] - width : 0;
    if (column->flags & FZ_COLUMN_RIGHT)
      owed += pad;
    if (*text) {
      print_blanks(owed);
      owed = 0;
      fputs(fz_paint_on(&table->ctl->style, paint), stdout);
      fputs(text, stdout);
      fputs(fz_paint_off(&table->ctl->style, paint), stdout);
    }
    owed += strlen(SEPARATOR);
    if (!(column->flags & FZ_COLUMN_RIGHT))
      owed += pad;
  }
  putchar('\n');
}

static void print_flat(const fz_table *table, const size_t *widths) {
  print_line(table, NULL, widths);
  for (size_t r = 0; r < table->n_rows; r++)
    print_line(table, &table->rows[r], widths);
}

/* Prints lines without the blanks that smartcols leaves behind an empty last cell. */
static void print_trimmed(const char *text) {
  while (*text) {
    const size_t length = strcspn(text, "\n");
    size_t end = length;
    while (end > 0 && text[end - 1] == ' ')
      end--;
    printf("%.*s\n", (int)end, text);
    text += length;
    text += *text == '\n';
  }
}

static int add_line(const fz_table *table, struct libscols_table *out, size_t r, struct libscols_line **lines) {
  const struct row *row = &table->rows[r];
  lines[r] = scols_table_new_line(out, row->parent >= 0 ? lines[row->parent] : NULL);
  if (!lines[r])
    return -ENOMEM;
  for (size_t i = 0; i < table->n_shown; i++) {
    const struct cell *cell = &row->cells[table->shown[i]];
    const char *sequence = fz_paint_sequence(cell->paint);
    if (scols_line_set_data(lines[r], i, text_of(cell)) != 0)
      return -ENOMEM;
    if (sequence && table->ctl->style.color && scols_cell_set_color(scols_line_get_cell(lines[r], i), sequence) != 0)
      return -ENOMEM;
  }
  return 0;
}

static int fill(const fz_table *table, struct libscols_table *out) {
  struct libscols_line **lines = calloc(table->n_rows + 1, sizeof(struct libscols_line *));
  int r = lines ? 0 : -ENOMEM;

  /* All measuring and escaping has been done: smartcols must not look at the terminal, or it would cut. */
  scols_table_set_termforce(out, SCOLS_TERMFORCE_NEVER);
  scols_table_enable_noencoding(out, 1);
  scols_table_enable_colors(out, table->ctl->style.color);
  scols_table_set_column_separator(out, SEPARATOR);
  for (size_t i = 0; r == 0 && i < table->n_shown; i++) {
    const struct fz_column *column = &table->columns[table->shown[i]];
    const int flags =
      (column->flags & FZ_COLUMN_RIGHT ? SCOLS_FL_RIGHT : 0) | (column->flags & FZ_COLUMN_TREE ? SCOLS_FL_TREE : 0);
    if (!scols_table_new_column(out, column->name, 0, flags))
      r = -ENOMEM;
  }
  for (size_t i = 0; r == 0 && i < table->n_rows; i++)
    r = add_line(table, out, i, lines);
  free(lines);
  return r;
}

static int print_tree(const fz_table *table) {
  char *text = NULL;
  struct libscols_table *out = scols_new_table();
  if (!out)
    return -ENOMEM;
  int r = fill(table, out);
  if (r == 0 && scols_print_table_to_string(out, &text) != 0)
    r = -ENOMEM;
  scols_unref_table(out);
  if (r == 0)
    print_trimmed(text);
  free(text);
  return r;
}

static bool has_branches(const fz_table *table) {
  for (size_t r = 0; r < table->n_rows; r++)
    if (table->rows[r].parent >= 0)
      return true;
  return false;
}

/*
 * Branches are smartcols' work. It measures each cell many times, though, which takes a second for the hundred thousand
 * lines that a list may have; those need no more than blanks between what was measured here.
 */
static int print_aligned(fz_table *table) {
  size_t widths[COLUMNS_MAX];

  if (table->n_rows == 0)
    return 0;
  for (size_t i = 0; i < table->n_shown; i++)
    widths[i] = column_width(table, table->shown[i]);
  if (table->ctl->style.terminal && !fz_given(&table->ctl->options, FZ_OPT_WIDE))
    fit(table, widths);
  if (has_branches(table))
    return print_tree(table);
  print_flat(table, widths);
  return 0;
}

int fz_table_print(fz_table *table) {
  if (table->failed)
    return -ENOMEM;
  if (fz_given(&table->ctl->options, FZ_OPT_QUIET))
    print_names(table);
  else if (fz_given(&table->ctl->options, FZ_OPT_PLAIN))
    print_plain(table);
  else
    return print_aligned(table);
  return 0;
}
