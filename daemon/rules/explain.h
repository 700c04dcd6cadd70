/* explain.h - why a parameter is frozen or trains, in sentences, and what changes next. */
#ifndef FZ_EXPLAIN_H
#define FZ_EXPLAIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/rules/layers.h"

/** One layer's say. */
struct fz_explain_line {
  enum fz_layer layer;
  char *text;       /* "freeze model.layers.3, ana (uid 1000) on gpu07, \"plateau\""; "none selects it" */
  bool decides;     /* exactly one line does */
  uint64_t time_ms; /* of an override or user pin, else 0: the caller formats it */
};

/** What has a say on one parameter, from baseline to pin. Init with FZ_EXPLANATION_NULL. */
typedef struct fz_explanation {
  size_t param;
  bool trains;
  struct fz_cause cause;
  struct fz_explain_line *lines; /* at least one per layer, in layer order; several rules or overrides: oldest first */
  size_t n_lines;
  uint64_t next_step, next_epoch; /* this parameter's next flip: at whichever comes first; FZ_TIME_NEVER: none known */
  char *next;                     /* "step 9,000: rule positions ends, it trains"; "nothing scheduled" */
  char *to_change;      /* a freezerctl command, "freezerctl auto model.layers.3"; NULL: nothing helps from here */
  char *to_change_text; /* "it would train"; or, if to_change is NULL, what to change in the script or the rules */
} fz_explanation;

#define FZ_EXPLANATION_NULL \
  { .lines = NULL }

void fz_explanation_deinit(fz_explanation *explanation);

/**
 * Explains parameter `index` at (step, epoch).
 * @return 0 or -ENOMEM; `explanation` is untouched on failure
 */
int fz_explain(const fz_layers *layers, size_t index, uint64_t step, uint64_t epoch, fz_explanation *explanation);

/**
 * A cause in a few words for tables: "baseline", "rule positions, until step 9,000", "override ana: plateau",
 * "pin" (rules), "pin ana", "pin trainer: NOT_CONTROLLABLE".
 * @return an allocated string, NULL when out of memory
 */
char *fz_cause_text(const fz_layers *layers, const struct fz_cause *cause, size_t param);

/**
 * What turned parameter `index` between two times of one plan: "rule positions ends", "the override of ana begins".
 * @return an allocated string, NULL when out of memory
 */
char *fz_explain_turn(const fz_layers *layers, size_t index, uint64_t old_step, uint64_t old_epoch, uint64_t step,
                      uint64_t epoch);

/** The next flip of any parameter after (step, epoch), as the layers know it (no horizon). */
struct fz_upcoming {
  uint64_t step;  /* at this step, if it is reached before `epoch`; FZ_TIME_NEVER: no flip by steps */
  uint64_t epoch; /* at this epoch, if it is reached before `step` */
  char *text;     /* of the one that names a step if there is one: "rule positions ends, model.embed_positions trains";
                     NULL: nothing is scheduled. Allocated */
};
/** 0 or -ENOMEM. */
int fz_layers_upcoming(const fz_layers *layers, uint64_t step, uint64_t epoch, struct fz_upcoming *ret_upcoming);

/**
 * The shortest common description of a set of parameters, "model.layers.0..2, model.norm": modules instead of their
 * parameters where the whole module is in the set, runs of numbered modules folded, in the trainer's order.
 * @param max  at most this many items, the rest as "and 12 more"
 * @return an allocated string, NULL when out of memory
 */
char *fz_mask_describe(const fz_params *params, const uint64_t *mask, size_t max);

/** The same as a list of names, at most `max`, to be freed with fz_names_free(). 0 or -ENOMEM. */
int fz_mask_names(const fz_params *params, const uint64_t *mask, size_t max, char ***ret_names, size_t *ret_n,
                  size_t *ret_more);
void fz_names_free(char **names, size_t n);

#endif
