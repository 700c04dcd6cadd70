/* layers_internal.h - layers from inside: for layers*.c, planner.c, explain.c and report.c. */
#ifndef FZ_LAYERS_INTERNAL_H
#define FZ_LAYERS_INTERNAL_H

#include "daemon/rules/layers.h"
#include "daemon/rules/lighter.h"

/*
 * An override or a user pin. Its public half is what others see, and borrows from the rest. Shared by clones and, but
 * for `gen`, never changed: cutting something out of it makes a new one.
 */
struct fz_decision {
  size_t references;
  char **patterns;
  size_t n_patterns;
  char **dropped;
  size_t n_dropped;
  uint64_t *mask;
  uint64_t *values; /* of a pin, else NULL */
  char *user, *host, *command, *reason;
  struct fz_override override; /* unless it is a pin */
  struct fz_pin pin;
};

/** What a decision is made of; all borrowed. */
struct fz_decision_parts {
  const char *const *patterns;
  size_t n_patterns;
  const char *const *dropped; /* two lists, one after the other */
  size_t n_dropped;
  const char *const *dropped_more;
  size_t n_dropped_more;
  const uint64_t *mask;
  const uint64_t *values; /* NULL: an override */
  size_t n_params;
  struct fz_who who;
  const char *reason;
};

/** A list of decisions, oldest first; each layers has its own list of shared items. */
struct fz_decisions {
  struct fz_decision **items;
  size_t n, capacity;
};

/** Shared by all clones: which parameters the trainer pins. */
struct fz_trainer_pins {
  size_t references;
  uint64_t mask[];
};

struct fz_layers {
  fz_params *params;
  size_t n, words;
  struct fz_trainer_pins *trainer;
  fz_rules *rules; /* NULL: none */
  struct fz_decisions overrides, pins;
  uint64_t next_id;
  uint32_t edge;                     /* without lighter rules */
  struct fz_lighter_state *base;     /* with lighter rules: the state before the anchor */
  struct fz_lighter_state *anchored; /* the state at the anchor, NULL: not anchored */
};

/** Whether the rules layer has a state. */
bool fz_layers_is_lighter(const fz_layers *layers);

/** The state at the anchor; without one, what a first batch at (step, epoch) makes. New reference, or NULL. -ENOMEM. */
int fz_layers_state(const fz_layers *layers, uint64_t step, uint64_t epoch, struct fz_lighter_state **ret_state);

/** fz_layers_eval() with that state. */
void fz_layers_eval_with(const fz_layers *layers, const struct fz_lighter_state *state, uint64_t step, uint64_t epoch,
                         uint64_t *mask, uint32_t *ret_edge);

/** The number of transitions at (step, epoch), with that state. */
uint32_t fz_layers_edge(const fz_layers *layers, const struct fz_lighter_state *state, uint64_t step, uint64_t epoch);

/** The flag of one parameter and what decides it, with that state. */
bool fz_layers_flag(const fz_layers *layers, const struct fz_lighter_state *state, uint64_t step, uint64_t epoch,
                    size_t index, struct fz_cause *ret_cause);

/** What the rules layer says of all parameters, before overrides and pins. */
void fz_layers_eval_rules(const fz_layers *layers, const struct fz_lighter_state *state, uint64_t step, uint64_t epoch,
                          uint64_t *mask);

/** Sets the flags that pins hold. */
void fz_layers_apply_pins(const fz_layers *layers, uint64_t *mask);

/** The pin that holds parameter `index`. @return whether there is one */
bool fz_layers_pin_of(const fz_layers *layers, size_t index, struct fz_cause *ret_cause);

/** Which pins hold what: ORs all pinned parameters into `mask`. */
void fz_layers_pinned(const fz_layers *layers, uint64_t *mask);

/** A zeroed mask for these layers' parameters, to be freed with free(). NULL when out of memory. */
uint64_t *fz_layers_new_mask(const fz_layers *layers);

/** A decision of these parts; the public half has everything but id, window, action, value, gen and time. -ENOMEM. */
int fz_decision_new(const struct fz_decision_parts *parts, struct fz_decision **ret_decision);
struct fz_decision *fz_decision_unref(struct fz_decision *decision);
void fz_decisions_deinit(struct fz_decisions *decisions);
int fz_decisions_copy(const struct fz_decisions *from, struct fz_decisions *to);
/** Appends; takes over the reference on success. */
int fz_decisions_append(struct fz_decisions *decisions, struct fz_decision *decision);

#endif
