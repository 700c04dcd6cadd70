/* freezer.h - the trainer's side of Freezer: ask at each batch which parameters require a gradient. */
#ifndef FREEZER_H
#define FREEZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Words
 *   parameter    a named tensor; its index is its position in the array given to freezer_open().
 *   requires_grad  one bit per parameter: true, the optimizer updates it; false, it is frozen.
 *   baseline     the flags that the trainer had when it attached.
 *   step         optimizer steps completed when the batch starts, 0 to 2^40 - 2. Several batches share a step
 *                under gradient accumulation; a step that is skipped (NaN, overflow) does not count.
 *   epoch        epochs completed when the batch starts, 0 to 2^40 - 1.
 *   rank, world  this process among those that attach to the freezerd of this machine, and their number.
 *   generation   number of the plan in force; 0: none yet, the baseline holds.
 *
 * The loop
 *   freezer_open(&f, &options, params, count);
 *   for each batch:
 *     if (first micro-batch of an accumulation window && freezer_batch_begin(f, step, epoch) == 1)
 *       while (freezer_next_change(f, &index, &requires_grad) == 1)
 *         set the flag of parameter `index`, and when it is now false drop its gradient;
 *     forward, backward (may stop below freezer_first_trainable(f)), optimizer step of what requires grad
 *   freezer_close(f);
 *
 * Several machines
 *   One process of all, the root, attaches to the freezerd of its machine, as rank 0 of 1; it and all others are given
 *   `broadcast`, with which they train anyway (torch.distributed, MPI). freezer_open(), freezer_rewind() and the first
 *   freezer_batch_begin() of each step are then collective: every process calls them, at the same steps. The plan that
 *   the root hands out in freezer_open() holds from the first batch, one that it hands out at a step from the next step
 *   on; each process reads it at its own (step, epoch). What is handed out is a few bytes while nothing changes.
 *
 * What it costs and what it can never do
 *   After freezer_open() (and freezer_rewind()) nothing blocks, nothing starts a thread, installs a signal handler,
 *   exits or prints; where nothing changed nothing is allocated. Without a daemon every call works and the baseline,
 *   or the last plan, holds. All functions take one handle from one thread at a time. A forked child's copy of the
 *   handle is inert: it answers with the last flags and neither sends nor reads anything.
 *
 * Errors are negative errno values; freezer_strerror() makes a sentence of them. None of them is fatal to training:
 * the flags stay as they are.
 */

#define FREEZER_API __attribute__((visibility("default")))

/** An attached (or still attaching) rank. Owned by the caller from freezer_open() to freezer_close(). */
typedef struct freezer freezer_t;

/** One parameter, as the trainer registers it. The library copies what it needs during freezer_open(). */
typedef struct freezer_param {
  const char *name;       /**< UTF-8, unique in the run, 1 to 4096 bytes, no control characters; borrowed */
  uint64_t elements;      /**< number of scalars, 0 to 2^53 */
  bool requires_grad;     /**< the baseline flag */
  const char *may_freeze; /**< NULL: may be frozen; else the refusal code, for example "NOT_CONTROLLABLE"; borrowed */
  const char *may_train;  /**< NULL: may be trained; else the refusal code; borrowed */
  const char *const *aliases; /**< further names of a parameter that is tied, under which it is found too; borrowed */
  size_t n_aliases;           /**< at most 255; 4096 over all parameters */
} freezer_param_t;

/** How loud a line given to freezer_log_fn is. */
enum freezer_log_level { FREEZER_LOG_ERROR = 0, FREEZER_LOG_WARNING = 1, FREEZER_LOG_INFO = 2 };

/**
 * Receives the library's few messages (attached, daemon gone, run renamed, rules refused), one line each, without a
 * newline. Called from within the library's functions, in the caller's thread. `message` is borrowed for the call.
 */
typedef void (*freezer_log_fn)(void *user, int level, const char *message);

/**
 * Hands `size` bytes at `data` from the root to all other processes, which receive them at their `data`. Called in every
 * process in the same order with the same sizes; may wait for the others.
 * @return 0, or a negative errno value: what was to be handed out is handed out again at the next step
 */
typedef int (*freezer_broadcast_fn)(void *user, void *data, size_t size);

/**
 * Waits until the broadcast that was begun last is over, for a `broadcast` that only begins one (MPI_Ibcast). The few
 * bytes of each step are then under way while the step is, and cost none of its time: they are waited for at the next
 * one. `data` is untouched in between. What is still under way at freezer_close() is the caller's to end.
 * @return as freezer_broadcast_fn; a broadcast that did not begin is not waited for
 */
typedef int (*freezer_broadcast_wait_fn)(void *user);

/**
 * Options of freezer_open(). Starts with its own size, so that it can grow: initialise with FREEZER_OPTIONS_INIT and
 * set what differs. Strings are borrowed for the call to freezer_open() only.
 */
typedef struct freezer_options {
  size_t size;           /**< sizeof(freezer_options_t) */
  size_t param_size;     /**< sizeof(freezer_param_t) */
  const char *socket;    /**< path; NULL: $FREEZER_SOCKET, else the usual places (see PROTOCOL.md) */
  const char *run;       /**< run name; NULL: $FREEZER_RUN, else one from the scheduler or the program's name */
  const char *framework; /**< what trains, for people: "charlm", "pytorch"; NULL: "c" */
  const char *job;       /**< launch id: the job; NULL: from the scheduler, else from the parent process or this one */
  uint64_t attempt;      /**< launch id: which start of that job, for example its restart count */
  uint32_t rank;         /**< this process, 0 to world - 1 */
  uint32_t world;        /**< how many processes attach on this machine; 0 counts as 1 */
  uint64_t step;         /**< step of the first batch */
  uint64_t epoch;        /**< epoch of the first batch */
  const char *rules;     /**< rules the trainer brings: canonical JSON text, or NULL */
  int attach_timeout_ms; /**< how long to wait for a daemon that is there and for the other ranks to give the first
                              plan; -1: $FREEZER_ATTACH_TIMEOUT, else 5000; 0: attach from within
                              freezer_batch_begin(). A daemon that is not there is never waited for. */
  freezer_log_fn log;    /**< NULL: silent */
  void *log_user;        /**< given back to log */
  freezer_broadcast_fn broadcast; /**< several machines (see above); NULL: one */
  void *broadcast_user;           /**< given back to broadcast */
  bool broadcast_root;            /**< with broadcast: this is the process that attaches */
  const char *program;            /**< what a run without a name is called after, where the scheduler has none: a
                                       script, say, that an interpreter runs; NULL: this program */
  freezer_broadcast_wait_fn broadcast_wait; /**< with broadcast, given broadcast_user: see there; NULL: a broadcast is
                                                 over when it returns. In all processes, or in none */
} freezer_options_t;

/* In the order of the members, since C++ before 2020 knows no names here. */
#define FREEZER_OPTIONS_INIT \
  { \
    sizeof(freezer_options_t), sizeof(freezer_param_t), NULL, NULL, NULL, NULL, 0, 0, 1, 0, 0, NULL, -1, NULL, NULL, \
      NULL, NULL, false, NULL, NULL \
  }

/**
 * Registers the parameters and attaches to freezerd if there is one.
 * Waits at most the attach timeout for the first plan; what is missing then goes on from within freezer_batch_begin().
 * @param[out] out     the handle, set on success only
 * @param options      NULL: all defaults
 * @param params       `count` parameters; may be NULL when count is 0
 * @return 0 (also without a daemon); -EINVAL bad options, step or epoch out of range, or a bad or doubled name;
 *         -ENOMEM; -E2BIG too many parameters or bytes; -EPROTOTYPE another rank has other parameters, or another
 *         baseline: all that wait for the first plan get it, and the log has the difference; and only with
 *         FREEZER_REQUIRE=1: -ENOTCONN no daemon, -ECONNREFUSED the daemon refused this rank, -ETIMEDOUT no first plan
 *         in time
 */
FREEZER_API int freezer_open(freezer_t **out, const freezer_options_t *options, const freezer_param_t *params,
                             size_t count);

/**
 * Tells that a batch begins, before its forward pass; call it at the start of an accumulation window, and before
 * validation batches if they are to see the flags of their (step, epoch). The first call at a step fixes the plan for
 * the step; within it the flags follow (step, epoch).
 * @return 1 there are parameters to write: fetch them with freezer_next_change(); 0 nothing to write;
 *         -EINVAL step or epoch out of range or lower than before (use freezer_rewind()); other negative errno: the
 *         flags stay as they are and training goes on
 */
FREEZER_API int freezer_batch_begin(freezer_t *f, uint64_t step, uint64_t epoch);

/**
 * As freezer_batch_begin() at the step after the last, in the same epoch: for what is told only that an optimizer step
 * is over, and counts nothing itself.
 */
FREEZER_API int freezer_batch_next(freezer_t *f);

/** The flag of parameter `index` as of the last freezer_batch_begin(); true for an index out of range. */
FREEZER_API bool freezer_requires_grad(const freezer_t *f, size_t index);

/**
 * Yields, in index order, the parameters whose flag is to be written since freezer_batch_begin() last returned 1.
 * In profile lighter, entering a transition yields every parameter.
 * @return 1 index and requires_grad are set; 0 no more (both untouched)
 */
FREEZER_API int freezer_next_change(freezer_t *f, size_t *index, bool *requires_grad);

/**
 * As freezer_next_change(), many at a time, for callers to whom a call is dear.
 * @param[out] indices        room for `count`
 * @param[out] requires_grad  room for `count`
 * @return how many there were, fewer than `count` when no more are left
 */
FREEZER_API size_t freezer_next_changes(freezer_t *f, size_t *indices, bool *requires_grad, size_t count);

/** Index of the first parameter that requires grad, or the count when none does: backward may stop below it. */
FREEZER_API size_t freezer_first_trainable(const freezer_t *f);

/** Where a rank is and to whom it is attached, as of the last call. Starts with its own size, so that it can grow. */
typedef struct freezer_info {
  size_t size;          /**< sizeof(freezer_info_t), set by the caller */
  bool attached;        /**< freezerd is connected and knows this rank */
  const char *run;      /**< name that freezerd gave the run; before that, the one it asks for. Until the next call */
  const char *socket;   /**< path of freezerd's socket, NULL when not connected. Until the next call */
  uint64_t incarnation; /**< of the plan in force, 0 before the first */
  uint64_t step, epoch; /**< of the last batch, or of the first that is to come */
} freezer_info_t;

/** Fills in `info`. 0; -EINVAL a size that is none. */
FREEZER_API int freezer_info(const freezer_t *f, freezer_info_t *info);

/** Number of the plan in force, 0 before the first. */
FREEZER_API uint64_t freezer_generation(const freezer_t *f);

/**
 * Reports a metric of the current step. A value that is not finite is "no value". Only the newest value of a name is
 * kept, and it is sent only if the daemon asked for it.
 * @param name  UTF-8, 1 to 128 bytes, no control characters; borrowed
 * @return 0; -EINVAL bad name; -ENOSPC too many different names
 */
FREEZER_API int freezer_metric(freezer_t *f, const char *name, double value);

/**
 * The step went back or jumped (a checkpoint was restored, a second fit begins): continues at (step, epoch), in a new
 * incarnation planned from there. Until its first plan the flags stay as they are. Waits like freezer_open().
 * @return 0; -EINVAL step or epoch out of range; other negative errno as freezer_open()
 */
FREEZER_API int freezer_rewind(freezer_t *f, uint64_t step, uint64_t epoch);

/** Says goodbye to the daemon and frees the handle; NULL is allowed. Never blocks. */
FREEZER_API void freezer_close(freezer_t *f);

/** A sentence for 0 or a negative errno value returned by this library. Static storage. */
FREEZER_API const char *freezer_strerror(int code);

#ifdef __cplusplus
}
#endif
#endif
