/* gate.pml - the gate and the plan slots of one segment: freezerd, which may crash, and ranks, which come, stop and die.
 *
 * Steps have the names that they have in protocol/gate.c, daemon/ and client/; README.md says what is modelled and what
 * is not. Memory order is not: each line here is one indivisible operation, in program order.
 *
 * Sizes, all by -D:
 *   RANKS SLOTS   2 or 3 ranks, a ring of 3 (the real one has 4; two of them are all that a change may fill)
 *   STEPS         how far ranks go of their own accord; beyond that only as long as something waits for it
 *   GENS EXTENDS  how many plans are wanted, and which one of them is an extension (0: none)
 *   MARGIN        how far beyond the steps begun a plan may be aimed
 *   CRASHES DEATHS STOPS TAKEN   how many times freezerd is killed; ranks die and come back; ranks stop for ever; ranks
 *                                that live lose their place to another process
 * Broken on purpose, all by -D: see README.md.
 */
#ifndef RANKS
#define RANKS 2
#endif
#ifndef SLOTS
#define SLOTS 3
#endif
#ifndef STEPS
#define STEPS 3
#endif
#ifndef GENS
#define GENS 3
#endif
#ifndef EXTENDS
#define EXTENDS 0
#endif
#ifndef MARGIN
#define MARGIN 1
#endif
#ifndef CRASHES
#define CRASHES 0
#endif
#ifndef DEATHS
#define DEATHS 0
#endif
#ifndef STOPS
#define STOPS 0
#endif
#ifndef TAKEN
#define TAKEN 0
#endif

#define LAST (STEPS + GENS * (MARGIN + 1) + 2) /* more steps than anything can need */

/* ------------------------------------------------------------------------------------------------ the segment */

byte started, gate_gen; /* the gate word: changed only as one */

byte slot_gen[SLOTS];
byte slot_from[SLOTS]; /* active_from */
byte slot_mask[SLOTS]; /* all the rest of a plan; that of gen g is g */

bool line_pid[RANKS]; /* the line is in use */
byte line_gen[RANKS];
bool lock[RANKS]; /* fz_rank_lock(): gone with the process, and when it closes a descriptor of the segment */

/* ------------------------------------------------------------------------------------------------ the connections */

#define NONE     0
#define HELLO    1 /* the rank has said hello, with resume if it holds the segment */
#define WELCOME  2 /* freezerd has answered */
#define READY    3 /* the rank has said ready */
#define ATTACHED 4
#define REFUSED  5 /* late: it tries again after a step */
#define GONE     6 /* the process has ended, freezerd has not seen it yet */

byte connection[RANKS];

/* -------------------------------------------------------------------------------------------------- what is checked */

byte held[RANKS];        /* gen of the plan that the rank has in force */
bool mapped[RANKS];      /* it has the segment */
bool back[RANKS];        /* a process that came after one that died */
bool excused[RANKS];     /* its plan has left the ring: it keeps what it has, as it was told */
bool joined[RANKS];      /* it said ready once */
bool taken[RANKS];       /* freezerd gave its line and its place to another process, its heir */
byte heir_held[RANKS];   /* gen of the plan that this one has in force */
bool stopped[RANKS];
byte reached[RANKS];     /* the next step that it will begin */
byte chosen[LAST + 1];   /* 1 + gen that the first rank at this step used; 0: nobody yet */
byte published[GENS + 1]; /* 1 + active_from of each plan that came into the gate; 0: it did not yet */

#define NEEDS(rank, gen) \
  ((mapped[rank] && !taken[rank] && held[rank] < (gen)) || (taken[rank] && heir_held[rank] < (gen)))

#if RANKS == 2
#define ALL(what) (what(0) && what(1))
#define ANY(what) (what(0) || what(1))
#define EACH(do_with, state) :: do_with(0, state) :: do_with(1, state)
#else
#define ALL(what) (what(0) && what(1) && what(2))
#define ANY(what) (what(0) || what(1) || what(2))
#define EACH(do_with, state) :: do_with(0, state) :: do_with(1, state) :: do_with(2, state)
#endif

#define PICK(rank, state) connection[rank] == state -> r = rank
#define SAID_HELLO(rank)  (connection[rank] == HELLO)
#define SAID_READY(rank)  (connection[rank] == READY)
#define HUNG_UP(rank)     (connection[rank] == GONE)
#define IS_STOPPED(rank)  (stopped[rank])

#define LEAVES_FREE_1(rank) !(line_pid[rank] && line_gen[rank] <= plan_gen + 1 - SLOTS)
#define LEAVES_FREE_2(rank) !(line_pid[rank] && line_gen[rank] <= plan_gen + 2 - SLOTS)
#define NEXT_FREE           (plan_gen + 1 <= SLOTS || ALL(LEAVES_FREE_1))
#define NEXT_BUT_ONE_FREE   (plan_gen + 2 <= SLOTS || ALL(LEAVES_FREE_2))

#ifdef PLAN_BEFORE_ALL
#define HAS_JOINED(rank) true
#else
#define HAS_JOINED(rank) (connection[rank] == ATTACHED || taken[rank])
#endif

/* --------------------------------------------------------------------------------------------------------- freezerd */

bool adopted;            /* this freezerd has the segment */
byte plan_gen, plan_from; /* its run->plan */

byte crashes = CRASHES, deaths = DEATHS, stops = STOPS, taking = TAKEN; /* what may still happen */

chan kill_freezerd = [0] of { bit };
chan kill_rank[RANKS] = [0] of { bit };
chan stop_rank[RANKS] = [0] of { bit };

#define COMPLETE ALL(HAS_JOINED)
#define WANTED   (adopted && plan_gen < GENS && COMPLETE)
#ifdef REUSE_EARLY
#define MAY_PUBLISH WANTED
#else
#define MAY_PUBLISH (WANTED && NEXT_FREE && (plan_gen + 1 == EXTENDS || NEXT_BUT_ONE_FREE))
#endif

inline fz_rank_enter(id) {
  line_gen[id] = 0;
  line_pid[id] = true
}

inline fz_rank_leave(id) {
  line_pid[id] = false
}

/* The newest plan that is in the gate. */
inline take_plan() {
  atomic {
    plan_gen = gate_gen;
    if
    :: plan_gen > 0 ->
      assert(slot_gen[plan_gen % SLOTS] == plan_gen); /* whoever comes next can read what is published */
      plan_from = slot_from[plan_gen % SLOTS]
    :: else -> plan_from = 0
    fi
  }
}

/* Lines of those that live no more. Whether one lives is asked first, its line is given up after. */
inline take_ranks() {
  do
  :: atomic { i < RANKS && line_pid[i] && !lock[i] -> skip };
    atomic { fz_rank_leave(i); i++ }
  :: atomic { i < RANKS && !(line_pid[i] && !lock[i]) -> i++ }
  :: atomic { i == RANKS -> i = 0; break }
  od
}

inline adopt() {
  take_plan();
  take_ranks();
  adopted = true
}

inline reserve(id) {
  if
  :: !line_pid[id] -> fz_rank_enter(id)
  :: else
  fi
}

inline on_hello(id) {
  if
  :: !adopted -> adopt()
  :: else
  fi;
  reserve(id);
  atomic {
    if
    :: connection[id] == HELLO -> connection[id] = WELCOME
    :: else /* it has died meanwhile */
    fi;
    id = 0
  }
}

/* Whether the plan that a rank at step reached[id] needs has left the ring. Nothing is published meanwhile. */
inline is_late(id, ret_late) {
  d_step {
    g = plan_gen;
    ret_late = false;
    if
    :: line_gen[id] > 0 -> g = 0
    :: else
    fi;
    do
    :: g == 0 -> break
    :: g > 0 && slot_gen[g % SLOTS] != g -> ret_late = true; break
    :: g > 0 && slot_gen[g % SLOTS] == g && slot_from[g % SLOTS] <= reached[id] -> break
    :: else -> g--
    od;
    g = 0
  }
}

inline on_ready(id) {
  atomic {
    is_late(id, late);
    if
    :: connection[id] == READY && !late -> connection[id] = ATTACHED
    :: connection[id] == READY && late -> connection[id] = REFUSED
    :: else
    fi;
    late = false;
    id = 0
  }
}

inline fz_run_release(id) {
  atomic {
    if
    :: !lock[id] -> fz_rank_leave(id)
    :: else
    fi;
    connection[id] = NONE;
    id = 0
  }
}

#define MAY_BE_TAKEN(rank) (taking > 0 && connection[rank] == ATTACHED)

/* The place of a rank that lives goes to another process, which holds nothing yet. */
inline take_place() {
  atomic {
    MAY_BE_TAKEN(0) || MAY_BE_TAKEN(1) ->
    if
    :: MAY_BE_TAKEN(0) -> r = 0
    :: MAY_BE_TAKEN(1) -> r = 1
    fi;
    fz_rank_enter(r); taken[r] = true; connection[r] = REFUSED; taking--; r = 0
  }
}

#define NEEDS_OLD(rank) NEEDS(rank, slot_gen[g % SLOTS])

/* The check is in front of the first store: a slot that some rank may still choose is never written. */
inline write_slot(gen, from) {
  atomic {
    assert(slot_gen[gen % SLOTS] == 0 || slot_gen[gen % SLOTS] == gen || !ANY(NEEDS_OLD));
    slot_gen[gen % SLOTS] = 0
  };
  slot_from[gen % SLOTS] = from;
  slot_mask[gen % SLOTS] = gen;
  slot_gen[gen % SLOTS] = gen
}

inline swap_in(gen, from) {
  gate_gen = gen;
  assert(published[gen] == 0);
  published[gen] = from + 1
}

inline fz_segment_slot_free(gen, ret_free) {
#ifdef REUSE_EARLY
  ret_free = true
#else
  do
  :: atomic { i < RANKS && gen > SLOTS && line_pid[i] && line_gen[i] <= gen - SLOTS -> i = 0; ret_free = false; break }
  :: atomic { i < RANKS && gen > SLOTS && !(line_pid[i] && line_gen[i] <= gen - SLOTS) -> i++ }
  :: atomic { i == RANKS || gen <= SLOTS -> i = 0; ret_free = true; break }
  od
#endif
}

inline fz_segment_publish(gen, from) {
  if
  :: started > from /* FZ_PUBLISH_LATE */
  :: else ->
    fz_segment_slot_free(gen, is_free);
    if
    :: !is_free /* FZ_PUBLISH_FULL */
    :: else ->
#ifdef GATE_BEFORE_SLOT
      atomic { started <= from -> swap_in(gen, from) };
      write_slot(gen, from);
      plan_gen = gen; plan_from = from
#else
      write_slot(gen, from);
#ifdef BLIND_PUBLISH
      atomic { swap_in(gen, from); plan_gen = gen; plan_from = from }
#else
      if
      :: atomic { started <= from -> swap_in(gen, from) };
        atomic { plan_gen = gen; plan_from = from } /* commit() */
      :: atomic { started > from -> slot_gen[gen % SLOTS] = 0 } /* FZ_PUBLISH_LATE */
      fi
#endif
#endif
    fi
  fi
}

/* One attempt() of fz_publisher_run(): aimed at what the gate says, and the margin. */
inline attempt() {
  atomic {
    MAY_PUBLISH -> g = plan_gen + 1;
    a = started;
    if
    :: MARGIN > 0 -> a = a + MARGIN
    :: true
    fi;
    if
    :: a < plan_from -> a = plan_from
    :: else
    fi
  };
  fz_segment_publish(g, a);
  atomic { g = 0; a = 0; is_free = false }
}

active proctype freezerd() {
  byte g, a, r, i;
  bool late, is_free;
life:
  {
end_waits:
    do
    :: atomic { ANY(SAID_HELLO) -> if EACH(PICK, HELLO) fi }; on_hello(r)
    :: atomic { ANY(SAID_READY) -> if EACH(PICK, READY) fi }; on_ready(r)
    :: atomic { ANY(HUNG_UP) -> if EACH(PICK, GONE) fi }; fz_run_release(r)
#if TAKEN
    :: take_place()
#endif
    :: attempt()
    od
  } unless {
    atomic {
      kill_freezerd?1;
      crashes--;
      /* All that it knew is gone, and every connection with it. */
      g = 0; a = 0; i = 0; late = false; is_free = false;
      adopted = false; plan_gen = 0; plan_from = 0;
      r = 0;
      do
      :: r < RANKS ->
        if
        :: !taken[r] -> connection[r] = NONE
        :: else
        fi;
        r++
      :: else -> break
      od;
      r = 0
    };
    goto life
  }
}

/* ----------------------------------------------------------------------------------------------------------- a rank */

#define TAKES 0
#define HELD  1 /* FZ_CHOOSE_HELD */
#define LOST  2 /* FZ_CHOOSE_LOST */

inline fz_gate_raise(step, ret_newest) {
  atomic {
    if
    :: started < step + 1 -> started = step + 1
    :: else
    fi;
    ret_newest = gate_gen
  }
}

inline fz_segment_read_plan(gen) {
  if
  :: slot_gen[gen % SLOTS] != gen -> outcome = LOST
  :: else ->
    from = slot_from[gen % SLOTS];
    mask = slot_mask[gen % SLOTS];
    outcome = TAKES;
#ifndef NO_SECOND_LOOK
    if
    :: slot_gen[gen % SLOTS] != gen -> outcome = LOST
    :: else
    fi
#endif
  fi
}

inline fz_segment_choose(step) {
  outcome = HELD;
  do
  :: newest <= held[id] -> break
  :: else ->
    if
    :: slot_gen[newest % SLOTS] != newest -> outcome = LOST; break
    :: else
    fi;
    from = slot_from[newest % SLOTS];
#ifndef NO_SECOND_LOOK
    if
    :: slot_gen[newest % SLOTS] != newest -> outcome = LOST; break
    :: else
    fi;
#endif
    if
    :: from <= step -> fz_segment_read_plan(newest); break
    :: else -> newest--
    fi
  od
}

#define fz_rank_is_own(rank) (!taken[rank])

inline fz_rank_hold(gen) {
  line_gen[id] = gen
}

/* The look whose line it is, and the store: one step here. */
inline hold(gen) {
#ifdef HOLD_ANOTHERS_LINE
  fz_rank_hold(gen)
#else
  atomic {
    if
    :: fz_rank_is_own(id) -> fz_rank_hold(gen)
    :: else
    fi
  }
#endif
}

/* After fz_gate_raise(), which has set newest. */
inline begin_step(step) {
  fz_segment_choose(step);
  if
  :: atomic {
      outcome == TAKES ->
      assert(published[newest] == from + 1 && mask == newest); /* only what was published, and whole */
      held[id] = newest;
      excused[id] = taken[id]
    };
    hold(newest)
  :: atomic {
      outcome == LOST ->
      assert(back[id] || taken[id]); /* never of a rank that freezerd counts on */
      excused[id] = true
    }
  :: outcome == HELD
  fi
}

/* Beyond STEPS a rank goes on as long as that brings something about. One that comes back trains no step without plan. */
#define HAS_REASON (reached[id] < LAST && ((mapped[id] && gate_gen > held[id]) || connection[id] == REFUSED))
#define BEGINS     ((reached[id] < STEPS || HAS_REASON) && (!back[id] || mapped[id]))

inline end_of_batch() {
  atomic {
    newest = 0; from = 0; mask = 0; outcome = 0;
    if
    :: excused[id] || taken[id]
    :: else ->
      if
      :: chosen[reached[id]] == 0 -> chosen[reached[id]] = held[id] + 1
      :: else -> assert(chosen[reached[id]] == held[id] + 1) /* ranks never differ at a step */
      fi
    fi;
    begun = true;
    reached[id]++;
    if
    :: connection[id] == REFUSED && !taken[id] -> connection[id] = NONE
    :: else
    fi
  }
}

/* freezerd goes on with the segment that is held. */
inline keep() {
  lock[id] = false; /* close() of the descriptor that came */
  lock[id] = true;
#ifdef KEEP_WITHOUT_HOLD
  if
  :: !line_pid[id] -> fz_rank_enter(id); fz_rank_hold(held[id])
  :: else
  fi
#else
  if
  :: !line_pid[id] -> fz_rank_enter(id)
  :: else
  fi;
  hold(held[id])
#endif
}

inline fz_holds_welcome() {
  if
  :: mapped[id] -> keep()
  :: else ->
    atomic { mapped[id] = true; line_gen[id] = 0 };
    line_pid[id] = true; /* both: fz_rank_enter() */
    lock[id] = true; /* fz_rank_lock() */
#ifndef READY_BEFORE_RAISE
    if
    :: begun -> fz_gate_raise(reached[id] - 1, newest); newest = 0
    :: else
    fi
#endif
  fi
}

inline on_welcome() {
  fz_holds_welcome();
  atomic {
    if
    :: connection[id] == WELCOME -> connection[id] = READY
    :: else /* freezerd died */
    fi;
    joined[id] = true
  }
#ifdef READY_BEFORE_RAISE
  ;
  if
  :: begun -> fz_gate_raise(reached[id] - 1, newest); newest = 0
  :: else
  fi
#endif
}

proctype rank(byte id) {
  byte newest, from, mask, outcome;
  bool begun;
life:
  {
end_waits:
    do
    /* freezer_batch_begin() */
    :: atomic { BEGINS && !mapped[id] -> end_of_batch() }
#ifdef GEN_BEFORE_RAISE
    :: atomic { BEGINS && mapped[id] -> newest = gate_gen };
      fz_gate_raise(reached[id], from); from = 0;
#else
    :: atomic { BEGINS && mapped[id] -> fz_gate_raise(reached[id], newest) };
#endif
      begin_step(reached[id]);
      end_of_batch()
    :: atomic { connection[id] == NONE -> connection[id] = HELLO }
    :: connection[id] == WELCOME -> on_welcome()
    od
  } unless {
    if
    :: atomic {
        kill_rank[id]?1;
        deaths--;
        newest = 0; from = 0; mask = 0; outcome = 0;
        lock[id] = false; mapped[id] = false; held[id] = 0; excused[id] = false;
        if
        :: connection[id] != NONE -> connection[id] = GONE
        :: else
        fi;
        back[id] = true;
        /* It comes back at its checkpoint: where it was, or one step before. */
        if
        :: begun -> reached[id]--
        :: true
        fi;
        begun = false
      };
      goto life
    :: atomic { stop_rank[id]?1; stops--; stopped[id] = true };
end_stopped:
      false
    fi
  }
}

/* --------------------------------------------------------------------------------------------------------- trouble */

#define MAY_DIE(rank)     (deaths > 0 && joined[rank])
#define IS_DONE(rank)     (held[rank] == GENS && connection[rank] == ATTACHED)
#define HAS_GONE_ON(rank) (stopped[rank] || reached[rank] >= STEPS)

#if TAKEN
/* The process that has the place of a rank that was taken: all of it that matters is which slots it still needs. */
#define FOLLOWS(rank)                                      \
  taken[rank] && gate_gen > heir_held[rank] ->             \
    assert(slot_gen[gate_gen % SLOTS] == gate_gen);        \
    heir_held[rank] = gate_gen; line_gen[rank] = gate_gen

proctype heir() {
end_waits:
  do
  :: atomic { FOLLOWS(0) }
  :: atomic { FOLLOWS(1) }
  od
}
#endif

proctype trouble() {
  byte t;
  do
#if CRASHES
  :: kill_freezerd!(crashes > 0)
#endif
#if DEATHS
  :: kill_rank[0]!MAY_DIE(0)
  :: kill_rank[1]!MAY_DIE(1)
#endif
#if STOPS
  :: stop_rank[0]!(stops > 0)
  :: stop_rank[1]!(stops > 0)
#endif
  /* When nothing moves any more: whoever was not stopped has gone on, and every plan that was wanted is in force. */
  :: timeout ->
    assert(ALL(HAS_GONE_ON));
#if !TAKEN
    assert(ANY(IS_STOPPED) || (gate_gen == GENS && ALL(IS_DONE)));
#endif
    break
  od
}

init {
  atomic {
    byte n = 0;
    do
    :: n < RANKS -> run rank(n); n++
    :: else -> break
    od;
#if TAKEN
    run heir();
#endif
    run trouble()
  }
}
