/* layers.h - everything that has a say on the mask of a run: baseline, rules, overrides, pins. */
#ifndef FZ_LAYERS_H
#define FZ_LAYERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/rules/ruleset.h"
#include "protocol/control.h"
#include "protocol/params.h"

/*
 * MODEL
 *
 *   baseline    the flags that the trainer had at its first attach
 *   rules       owned: each active rule in order sets what it selects, the last one wins.
 *               lighter: the mask that lighter's callbacks would have left (below)
 *   overrides   live freeze and unfreeze, each with a window; the newest active one wins
 *   pins        nothing may change these: by the trainer (a refusal code: stays at the baseline), by the rules document
 *               (at the baseline), by a user (at the flag it was pinned at). In this order, the first that applies
 *
 * In profile owned the mask is a pure function of all that and (step, epoch).
 *
 * In profile lighter the rules layer has a state, because lighter's callbacks are edges: one bit each, the mask that
 * they last wrote, and the number of transitions (`edge`). The state is a base (what was before) and an anchor: the
 * (step, epoch) of the first batch at which the callbacks run on it. From base and anchor, everything later is a pure
 * function of (step, epoch) again. As long as no anchor is set, a plan or an evaluation anchors at its own starting
 * point, so that a publication that is tried again with a later active_from plans again by itself; fz_layers_anchor()
 * fixes it once that is known (after publishing).
 *
 *   load in a living launch      fz_layers_set_rules(…), plan, publish, fz_layers_anchor(active_from, epoch)
 *   rewind in one process        fz_layers_rewind(last batch), plan at the new point, publish, fz_layers_anchor(…)
 *   new launch                   fz_layers_restart(…), plan, publish, fz_layers_anchor(…)
 *   extension, override, pin     plan, publish; anchoring again does nothing
 *
 * Layers are cheap to clone (references; a few pointers per override), so a change is tried on a clone, judged by
 * planning it, and either kept or dropped: a dry run is the same path.
 */
typedef struct fz_layers fz_layers;

/** Who did something; plain text for people, borrowed on the way in, owned by the layers on the way out. */
struct fz_who {
  uint64_t uid;
  const char *user;    /* never NULL on the way out */
  const char *host;    /* may be NULL */
  const char *command; /* may be NULL */
};

/** A live freeze or unfreeze. Borrowed from the layers, valid until they change. */
struct fz_override {
  uint64_t id; /* of these layers and their clones, never used twice */
  enum fz_action action;
  const char *const *patterns; /* as given */
  size_t n_patterns;
  const char *const *dropped; /* patterns that a later `auto` took out of it */
  size_t n_dropped;
  const uint64_t *mask; /* what it still holds */
  size_t matches;       /* bits in mask */
  struct fz_window window;
  uint64_t gen;     /* of the plan that carried it first; 0 while it is not published */
  uint64_t time_ms; /* wall clock, as given */
  struct fz_who who;
  const char *reason; /* may be NULL */
};

/** A pin by a user (its value: control.h). Borrowed from the layers, valid until they change. */
struct fz_pin {
  uint64_t id;
  enum fz_pin_value value; /* as asked for */
  const char *const *patterns;
  size_t n_patterns;
  const char *const *dropped; /* patterns that a later `unpin` took out of it */
  size_t n_dropped;
  const uint64_t *mask;   /* what it still holds */
  const uint64_t *values; /* the flag of each of them */
  size_t matches;
  uint64_t gen;
  uint64_t time_ms;
  struct fz_who who;
  const char *reason; /* may be NULL */
};

/** What decides a parameter's flag. */
enum fz_layer { FZ_LAYER_BASELINE, FZ_LAYER_RULE, FZ_LAYER_OVERRIDE, FZ_LAYER_PIN };
enum fz_pin_by { FZ_PIN_BY_TRAINER, FZ_PIN_BY_RULES, FZ_PIN_BY_USER };
struct fz_cause {
  enum fz_layer layer;
  uint32_t index;        /* of the rule, override or user pin */
  enum fz_pin_by pin_by; /* if layer is FZ_LAYER_PIN */
};

/* --- life --- */

/** Layers over a sealed table (takes a reference of its own): no rules, overrides or pins. -ENOMEM. */
int fz_layers_new(fz_layers **ret_layers, fz_params *params);
/** A copy that shares what is immutable. -ENOMEM. */
int fz_layers_clone(const fz_layers *layers, fz_layers **ret_clone);
/** Takes NULL; returns NULL. */
fz_layers *fz_layers_free(fz_layers *layers);

/** Borrowed. */
fz_params *fz_layers_params(const fz_layers *layers);
/** The bound rules, NULL when there are none. Borrowed. */
fz_rules *fz_layers_rules(const fz_layers *layers);
size_t fz_layers_n_overrides(const fz_layers *layers);
/** Oldest first. Borrowed. */
const struct fz_override *fz_layers_override(const fz_layers *layers, size_t index);
size_t fz_layers_n_pins(const fz_layers *layers);
/** Oldest first. Borrowed. */
const struct fz_pin *fz_layers_pin(const fz_layers *layers, size_t index);

/* --- changes --- */

/** What a change met. Counts are of parameters. */
enum fz_change {
  FZ_CHANGE_NOTHING = 1, /* nothing to do: it is so already; nothing was recorded */
  FZ_CHANGE_PINNED,      /* every parameter it would change is pinned at the other flag; see `pinned_by` */
  FZ_CHANGE_BASELINE,    /* it would thaw what the trainer froze itself, and include_baseline was not given */
  FZ_CHANGE_NO_SUCH,     /* auto, unpin: no override or user pin holds any of these; nothing was recorded */
  FZ_CHANGE_FULL         /* too many overrides or pins */
};

struct fz_change_counts {
  size_t matched;            /* selected by the patterns */
  size_t pinned;             /* of those, held at the other flag by a pin: this change has no effect on them */
  struct fz_cause pinned_by; /* of the first of them */
  size_t pinned_first;       /* index of the first of them */
  size_t baseline;           /* of those, frozen by the trainer itself, which this change would thaw */
  uint64_t baseline_elements;
  size_t dropped; /* overrides or pins that went or shrank (auto, unpin, rules) */
};

struct fz_override_request {
  enum fz_action action;
  const char *const *patterns; /* borrowed */
  size_t n_patterns;
  const char *const *dropped; /* patterns that were taken out of it already; borrowed. NULL for a new one */
  size_t n_dropped;
  const uint64_t *mask; /* what is left of what they select, by fz_patterns_match(); borrowed */
  struct fz_window window;
  bool include_baseline;
  bool restored; /* it was in force once: what may refuse a new one, or make it needless, is not looked at */
  uint64_t time_ms;
  struct fz_who who;
  const char *reason; /* may be NULL */
};

/**
 * Adds an override on top. (step, epoch) is now: it decides which thaws of the baseline are new.
 * Nothing to do: an override with the same action, selection and window is the newest that holds these parameters.
 * @param[out] ret_counts  set on 0 and on positive outcomes; may be NULL
 * @return 0 recorded (counts.pinned may still be > 0); FZ_CHANGE_NOTHING, _PINNED, _BASELINE, _FULL; -ENOMEM
 */
int fz_layers_add_override(fz_layers *layers, const struct fz_override_request *request, uint64_t step, uint64_t epoch,
                           struct fz_change_counts *ret_counts);

/**
 * `auto`: takes what the patterns select out of every override; overrides left with nothing go.
 * @return 0; FZ_CHANGE_NO_SUCH; FZ_CHANGE_FULL one override has been cut up too often; -ENOMEM
 */
int fz_layers_drop_overrides(fz_layers *layers, const char *const *patterns, size_t n_patterns, const uint64_t *mask,
                             struct fz_change_counts *ret_counts);

struct fz_pin_request {
  enum fz_pin_value value; /* as is: each parameter at its flag at (step, epoch) */
  const char *const *patterns;
  size_t n_patterns;
  const char *const *dropped; /* as of an override */
  size_t n_dropped;
  const uint64_t *mask;
  bool include_baseline;
  bool restored; /* as of an override */
  uint64_t time_ms;
  struct fz_who who;
  const char *reason;
};

/**
 * Pins. What is pinned already at the same flag stays under its old pin; at another flag it is counted as pinned, and
 * the pin is refused if that leaves nothing. What only rules pin is pinned by this one once the rules go.
 * @return 0; FZ_CHANGE_NOTHING all of them are pinned so already; _PINNED, _BASELINE, _FULL; -ENOMEM
 */
int fz_layers_add_pin(fz_layers *layers, const struct fz_pin_request *request, uint64_t step, uint64_t epoch,
                      struct fz_change_counts *ret_counts);

/**
 * `unpin`: takes what the patterns select out of every user pin.
 * @return 0; FZ_CHANGE_NO_SUCH (counts.pinned: how many the rules or the trainer pin); FZ_CHANGE_FULL; -ENOMEM
 */
int fz_layers_drop_pins(fz_layers *layers, const char *const *patterns, size_t n_patterns, const uint64_t *mask,
                        struct fz_change_counts *ret_counts);

/**
 * Replaces the rules (takes a reference of its own; NULL: none). Over the same table as the layers.
 * (step, epoch) is now: where an edge-triggered ruleset that is replaced has come to.
 * A lighter ruleset starts on the baseline, with no bit set and no anchor.
 * @return 0; FZ_CHANGE_NOTHING the same document is loaded already, and goes on with its state; -ENOMEM
 */
int fz_layers_set_rules(fz_layers *layers, fz_rules *rules, uint64_t step, uint64_t epoch);

/**
 * Makes the rules, overrides and pins those of other layers over the same table. Rules that are the same go on with
 * their state; others begin as with fz_layers_set_rules().
 * @return 0; FZ_CHANGE_NOTHING they are the same already; -ENOMEM (nothing changed)
 */
int fz_layers_adopt(fz_layers *layers, const fz_layers *from, uint64_t step, uint64_t epoch);

/** Notes that everything not yet published (gen 0) is carried by plan `gen`. */
void fz_layers_published(fz_layers *layers, uint64_t gen);

/**
 * Drops overrides whose window is over at (step, epoch), the lowest of any rank.
 * @return how many went
 */
size_t fz_layers_expire(fz_layers *layers, uint64_t step, uint64_t epoch);

/* --- the lighter state --- */

/** Fixes the anchor if there is none yet. Does nothing in profile owned. -ENOMEM. */
int fz_layers_anchor(fz_layers *layers, uint64_t step, uint64_t epoch);

/**
 * The trainer goes back, or a new incarnation begins, in the same processes: what the callbacks have come to at the
 * last batch, (step, epoch), becomes the base, without an anchor. -ENOMEM.
 */
int fz_layers_rewind(fz_layers *layers, uint64_t step, uint64_t epoch);

/** New processes: base = the baseline, no bit set, no anchor, edge 0. -ENOMEM. */
int fz_layers_restart(fz_layers *layers);

/* --- evaluation --- */

/**
 * The mask at (step, epoch).
 * @param[out] mask      fz_mask_words(count) words
 * @param[out] ret_edge  transitions so far (profile lighter); may be NULL
 * @return 0 or -ENOMEM (profile lighter without an anchor only)
 */
int fz_layers_eval(const fz_layers *layers, uint64_t step, uint64_t epoch, uint64_t *mask, uint32_t *ret_edge);

/**
 * What decides each parameter at (step, epoch), in the trainer's order.
 * @param[out] causes  count entries
 * @return 0 or -ENOMEM
 */
int fz_layers_causes(const fz_layers *layers, uint64_t step, uint64_t epoch, struct fz_cause *causes);

/** As fz_layers_causes(), for one parameter. 0 or -ENOMEM. */
int fz_layers_cause(const fz_layers *layers, uint64_t step, uint64_t epoch, size_t index, struct fz_cause *ret_cause);

#endif
