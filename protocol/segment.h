/* segment.h - the shared-memory segment of a run: header, parameter table, gate, plan ring, and their memory order. */
#ifndef FZ_SEGMENT_H
#define FZ_SEGMENT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "protocol/limits.h"
#include "protocol/params.h"
#include "protocol/plan.h"

/*
 * MODEL
 *
 * One segment is one incarnation of a run. freezerd creates it; each rank maps it read-only, and its gate pages alone
 * read-write. It is never truncated or resized while anybody may have it mapped.
 *
 *   header      immutable: magic, layout version, sizes, offsets, counts, hashes, run, launch, daemon, boot id
 *   parameters  immutable: the parameter table, so that a segment explains itself without a daemon
 *   gate        written by ranks: the gate word, and one line per rank (pid, gen held, step, epoch)
 *   plan slots  written by freezerd: a ring; gen g lives in slot g % FZ_PLAN_SLOTS
 *
 * THE GATE
 *
 * The gate word packs (started: 40 bits, gen: 24 bits). started = step + 1 of the highest step that any rank has
 * started; gen = the newest published plan, 0 before the first.
 *
 *   rank, first batch of step s     fz_gate_raise(s):   raise started to at least s + 1 and take gen, in one operation
 *   freezerd, publishing plan g     fz_gate_publish(g): write the slot whole with active_from = a >= started, then swap
 *                                   gen g - 1 -> g while started <= a; if started is beyond a, the caller plans again
 *                                   with a later a
 *   rank, choosing                  fz_segment_choose(s): the newest g <= gen with active_from <= s, walking back, at
 *                                   most to the one it holds
 *
 * Let t be the moment at which the first rank raises the gate to s. What is published after t has active_from > s, what
 * was published before has active_from <= s or a fixed later one, and every rank that starts s looks after t. So all
 * choose from the same set, and the newest of it is one plan: ranks never differ at a step. active_from never decreases
 * from gen to gen.
 *
 * MEMORY ORDER (all of it; nothing outside gate.c touches these words)
 *
 *   gate word     raise: acquire load when it is high enough already, else compare-and-swap acq_rel. publish:
 *                 compare-and-swap acq_rel. So what freezerd wrote into a slot before its swap is visible to whoever
 *                 sees that gen, and a raise that freezerd did not see comes after its swap.
 *   slot gen      freezerd stores 0 before it rewrites a slot and the gen (release) after; a rank loads it (acquire)
 *                 before and again after copying. It only changes under a reader's hands if freezerd took that rank
 *                 for dead; the reader then keeps what it holds.
 *   slot content  words, each stored with release, so that no new word is seen before the 0 in front of it, and loaded
 *                 with acquire, so that the second look at the slot gen comes after. (Fences with relaxed words would
 *                 say the same, but ThreadSanitizer does not know fences.)
 *   rewound       relaxed: only freezerds read it, and each after the one before it has ended.
 *   rank line     the rank stores gen held with release after it copied the plan, freezerd loads it with acquire
 *                 before it reuses a slot. step and epoch are relaxed: information only. pid != 0 marks the line in
 *                 use: stored with release after the rest; freezerd clears it when the rank is gone.
 *
 * A slot is written again only when every rank in use holds a newer gen (fz_segment_slot_free()); the last free slot
 * is kept for extensions of the plan.
 *
 * Everything read from a segment that was mapped is input from outside: validated on mapping, and again on copying.
 */
typedef struct fz_segment fz_segment;

#define FZ_SEGMENT_NAME_MAX 255U
#define FZ_RUN_KEY_LENGTH 16U /* hex digits */
#define FZ_BOOT_ID_MAX 40U

/** What the header says, besides layout. Strings are copied into and out of the segment. */
typedef struct fz_segment_info {
  char run[FZ_RUN_NAME_MAX + 1];
  char run_key[FZ_RUN_KEY_LENGTH + 1]; /* hash of (state directory or socket, run name) */
  char job[FZ_JOB_NAME_MAX + 1];
  uint64_t attempt;
  char boot_id[FZ_BOOT_ID_MAX + 1];
  uint64_t incarnation;
  uint64_t daemon_pid;
  uint32_t world;
} fz_segment_info;

/** One rank's line as read. */
struct fz_rank_line {
  uint64_t pid;         /* 0: not in use */
  uint64_t gen;         /* newest gen it holds */
  uint64_t step, epoch; /* of its last batch; FZ_TIME_NEVER before the first */
};

/** "/freezer.<uid>.<run key>.<incarnation>" into `buffer`. @return 0 or -ENAMETOOLONG */
int fz_segment_name(char *buffer, size_t size, uid_t uid, const char *run_key, uint64_t incarnation);

/** 16 hex digits for (scope, run); scope is the real path of the state directory, without one that of the socket. */
void fz_run_key(const char *scope, const char *run, char ret_key[FZ_RUN_KEY_LENGTH + 1]);

/** The boot id of this machine, "" when it cannot be read. */
void fz_boot_id(char ret_id[FZ_BOOT_ID_MAX + 1]);

/**
 * Creates a segment exclusively, 0600, filled before use (never sparse), and maps it for writing.
 * @return 0; -EEXIST the name is taken; -ENOSPC shared memory is full (nothing is left behind); other negative errno
 */
int fz_segment_create(fz_segment **ret_segment, const char *name, const fz_segment_info *info, const fz_params *params);

/**
 * Maps and validates a segment from a descriptor, which the segment owns on success and the caller on failure.
 * @param writer  true: everything for writing (freezerd adopts); false: read-only, the gate for writing (a rank)
 * @return 0; -EBADMSG not a segment, or damaged; -EPROTO another layout version; -EPERM owner or mode; negative errno
 */
int fz_segment_map(fz_segment **ret_segment, int fd, bool writer);

/**
 * fz_segment_map() of a segment that belongs to `owner`: one that the socket's peer sent, whose user is known from
 * there and may be another one (root's trainer, or a freezerd that serves a group).
 */
int fz_segment_map_of(fz_segment **ret_segment, int fd, bool writer, uid_t owner);

/** fz_segment_map() of a named segment. As there, and -ENOENT. */
int fz_segment_open(fz_segment **ret_segment, const char *name, bool writer);

/** Maps a segment read-only, gate included, for showing its last known state. */
int fz_segment_peek(fz_segment **ret_segment, const char *name);

/** Unmaps and closes; the name stays. Takes NULL, returns NULL. */
fz_segment *fz_segment_free(fz_segment *segment);

/** Removes the name. */
int fz_segment_unlink(const char *name);

int fz_segment_fd(const fz_segment *segment);                          /* borrowed */
const fz_segment_info *fz_segment_get_info(const fz_segment *segment); /* borrowed */
size_t fz_segment_n_params(const fz_segment *segment);
uint64_t fz_segment_layout_hash(const fz_segment *segment);
uint64_t fz_segment_size(const fz_segment *segment);
/** How many rows and masks a slot holds. */
size_t fz_segment_max_rows(const fz_segment *segment);
size_t fz_segment_max_masks(const fz_segment *segment);
/** How many masks a slot of a segment for `n_params` parameters holds (what the planner may use). */
size_t fz_segment_masks_for(size_t n_params);
/** Rebuilds the parameter table from the segment. New reference. -EBADMSG, -ENOMEM. */
int fz_segment_params(const fz_segment *segment, fz_params **ret_params);

/* --- a rank --- */

/** Takes the line of `rank` (< world): pid, no gen, no step. */
void fz_rank_enter(fz_segment *segment, uint32_t rank, uint64_t pid);
/** Gives it back. */
void fz_rank_leave(fz_segment *segment, uint32_t rank);
/** Notes the batch it is at. */
void fz_rank_note(fz_segment *segment, uint32_t rank, uint64_t step, uint64_t epoch);
/**
 * Whether the line is that of this process still, which says that it is `pid`: freezerd may have taken it for dead, and
 * given its line to another one. A system call.
 */
bool fz_rank_is_own(const fz_segment *segment, uint32_t rank, uint64_t pid);
/** Publishes that it holds `gen` and needs no older one. */
void fz_rank_hold(fz_segment *segment, uint32_t rank, uint64_t gen);

/**
 * Marks this process as the living holder of `rank`, for as long as it lives: a record lock on one byte of the
 * segment's file. It ends with the process, is not inherited by a forked child, and works between pid namespaces; it is
 * also lost when the process closes any other descriptor of the file, and is then to be taken again.
 * @return 0; -EAGAIN another process has it; other negative errno
 */
int fz_rank_lock(fz_segment *segment, uint32_t rank);

/** Raises started to at least step + 1 and returns the newest gen, from the same operation. step <= FZ_STEP_MAX. */
uint64_t fz_gate_raise(fz_segment *segment, uint64_t step);

enum { FZ_CHOOSE_HELD = 1, FZ_CHOOSE_LOST = 2 };

/**
 * Copies the newest plan with gen <= newest and active_from <= step into `plan`, walking back from `newest`, at most to
 * `held` (0: none). Reuses the arrays of `plan`, which must have been made by fz_plan_reserve().
 * @return 0 plan holds another gen than held; FZ_CHOOSE_HELD none newer than held applies; FZ_CHOOSE_LOST a slot that
 *         was needed was overwritten (this rank was taken for dead): keep what is held; -EBADMSG the slot is damaged.
 *         Unless 0, what `plan` says is undefined (its arrays stay): hand in a spare, not the one in force.
 */
int fz_segment_choose(const fz_segment *segment, uint64_t step, uint64_t newest, uint64_t held, fz_plan *plan);

/** Gives `plan` arrays that hold any slot of the segment. -ENOMEM. */
int fz_plan_reserve(fz_plan *plan, const fz_segment *segment);
/** The same, for any slot of any segment for `n_params` parameters. */
int fz_plan_reserve_for(fz_plan *plan, size_t n_params);

/* --- freezerd --- */

/** The gate word as it is. */
void fz_gate_read(const fz_segment *segment, uint64_t *ret_started, uint64_t *ret_gen);
/**
 * Notes in a segment that a rank's rewind has ended its incarnation: the others follow when they rewind themselves, and
 * until then they are not to be given another one. 0 as the segment is made.
 */
void fz_gate_set_rewound(fz_segment *segment, bool rewound);
bool fz_gate_is_rewound(const fz_segment *segment);
struct fz_rank_line fz_rank_read(const fz_segment *segment, uint32_t rank);
/** Whether another living process holds `rank` by fz_rank_lock(). */
bool fz_rank_is_locked(const fz_segment *segment, uint32_t rank);
/** Its process, with the number that it has for us; 0: it does not live, or in a namespace whose processes we cannot see. */
pid_t fz_rank_holder(const fz_segment *segment, uint32_t rank);
/** Whether the slot of `gen` may be written: every line in use holds a gen newer than the one that is in it. */
bool fz_segment_slot_free(const fz_segment *segment, uint64_t gen);

enum { FZ_PUBLISH_LATE = 1, FZ_PUBLISH_FULL = 2 };

/**
 * Writes plan->gen (= newest gen + 1) into its slot and swaps it into the gate word.
 * @return 0 published; FZ_PUBLISH_LATE ranks have started beyond plan->active_from: plan again with a later one;
 *         FZ_PUBLISH_FULL the slot is still held by a rank; -E2BIG more rows or masks than a slot holds;
 *         -EOVERFLOW gens are used up (a new incarnation is needed); -EINVAL not the next gen, or active_from decreases
 */
int fz_segment_publish(fz_segment *segment, const fz_plan *plan);

/** Copies the plan of `gen` if its slot still holds it. 0; FZ_CHOOSE_LOST; -EBADMSG. Arrays as fz_segment_choose(). */
int fz_segment_read_plan(const fz_segment *segment, uint64_t gen, fz_plan *plan);

#endif
