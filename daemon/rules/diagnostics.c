/* diagnostics.c - what is wrong with rules or patterns, and where. */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/rules/diagnostics.h"

static void item_deinit(struct fz_diagnostic *item) {
  free(item->message);
  free(item->hint);
  free(item->pointer);
}

void fz_diagnostics_deinit(fz_diagnostics *diagnostics) {
  for (size_t i = 0; i < diagnostics->n; i++)
    item_deinit(&diagnostics->items[i]);
  free(diagnostics->items);
  *diagnostics = (fz_diagnostics)FZ_DIAGNOSTICS_NULL;
}

int fz_diagnostics_add(fz_diagnostics *diagnostics, const struct fz_diagnostic *diagnostic) {
  if (!diagnostics)
    return 0;
  if (diagnostic->severity == FZ_ERROR)
    diagnostics->errors++;
  if (diagnostics->n == FZ_DIAGNOSTICS_MAX) {
    diagnostics->dropped++;
    return 0;
  }
  if (!diagnostics->items) {
    diagnostics->items = (struct fz_diagnostic *)calloc(FZ_DIAGNOSTICS_MAX, sizeof(*diagnostics->items));
    if (!diagnostics->items)
      return -ENOMEM;
  }
  struct fz_diagnostic item = *diagnostic;
  item.message = strdup(diagnostic->message);
  item.hint = diagnostic->hint ? strdup(diagnostic->hint) : NULL;
  item.pointer = strdup(diagnostic->pointer ? diagnostic->pointer : "");
  if (!item.message || !item.pointer || (diagnostic->hint && !item.hint)) {
    item_deinit(&item);
    return -ENOMEM;
  }
  diagnostics->items[diagnostics->n++] = item;
  return 0;
}

const struct fz_diagnostic *fz_diagnostics_first_error(const fz_diagnostics *diagnostics) {
  for (size_t i = 0; i < diagnostics->n; i++)
    if (diagnostics->items[i].severity == FZ_ERROR)
      return &diagnostics->items[i];
  return NULL;
}
