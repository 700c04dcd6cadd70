/* switch.pml - ranks that go over from one incarnation to the next: two or three segments, each with its gate.
 *
 * The gate and the ring of one segment are proved in gate.pml; here a segment has the word of its gate and its newest
 * plans, which are read as one. What this model asks is whether all ranks go over from `current` to one of `later` at
 * the same step, whatever freezerd's crashes leave behind. Names as in client/holds.c, daemon/run.c and daemon/adopt.c.
 *
 * Sizes, by -D: STEPS, GENS (plans of each incarnation), CRASHES. Incarnation 1 is the one in which all begin, attached.
 */
#ifndef STEPS
#define STEPS 3
#endif
#ifndef GENS
#define GENS 2
#endif
#ifndef CRASHES
#define CRASHES 0
#endif
#ifndef INCARNATIONS
#define INCARNATIONS 2
#endif

#define RANKS 2
#define LAST  (STEPS + 2 * INCARNATIONS * GENS + 2)
#define SIZE  (INCARNATIONS + 1)

/* The gate of each incarnation, and active_from of its plans. */
byte started[SIZE], gate_gen[SIZE];
typedef plans { byte from[GENS + 1] };
plans slot[SIZE];
bool unlinked[SIZE]; /* its name is gone: only who holds it can hand it back */

typedef segments { bool has[SIZE] };
segments later[RANKS]; /* those whose first plan is not in force yet */
byte current[RANKS];   /* 0: none */
byte held[RANKS];      /* gen in force, of `current` */
byte reached[RANKS];   /* the next step that it begins */
byte chosen[LAST + 1]; /* current and gen that the first rank at this step used */

#define NONE     0
#define HELLO    1
#define WELCOME  2
#define READY    3
#define ATTACHED 4
byte connection[RANKS];
byte offered[RANKS]; /* the incarnation that comes with welcome */

byte crashes = CRASHES;
byte last_made = 1; /* the highest incarnation there ever was */
byte incarnation;   /* that of freezerd's run; 0: it knows of none */
byte plan_gen, plan_from;

chan kill_freezerd = [0] of { bit };

#define HOLDS(rank, n) (current[rank] == n || later[rank].has[n])
#define LIVES(n)       (HOLDS(0, n) || HOLDS(1, n))

/* ------------------------------------------------------------------------------------------------------- freezerd */

inline take_plan(n) {
  incarnation = n;
  plan_gen = gate_gen[n];
  plan_from = slot[n].from[plan_gen]
}

/* The newest segment that the rank holds, handed back with hello: fz_holds_newest(). */
inline find_newest(id) {
  n = INCARNATIONS;
  do
  :: n > 0 && !HOLDS(id, n) -> n--
  :: else -> break
  od
}

/* By name, else by what the rank hands back: fz_adopt_resume(). */
inline adopt(id) {
  n = INCARNATIONS;
  do
  :: n > 0 && !(LIVES(n) && !unlinked[n]) -> n--
  :: else -> break
  od;
  if
  :: n == 0 -> find_newest(id)
  :: else
  fi;
  take_plan(n);
  n = 0
}

inline on_hello(id) {
  atomic {
    if
    :: incarnation == 0 -> adopt(id)
    :: else
    fi;
    offered[id] = incarnation;
    connection[id] = WELCOME;
    id = 0
  }
}

inline on_ready(id) {
  atomic {
    if
    :: offered[id] == incarnation -> connection[id] = ATTACHED
    :: else -> connection[id] = NONE /* freezerd told it to come again */
    fi;
    id = 0
  }
}

/* renew(): the gens are used up. The ranks go on with what they have, and connect again. */
inline fz_run_incarnate() {
  atomic { unlinked[incarnation] = true };
  atomic {
    last_made++;
    incarnation = last_made;
    plan_gen = 0; plan_from = 0
  };
  atomic {
    if :: connection[0] == READY || connection[0] == ATTACHED || connection[0] == WELCOME -> connection[0] = NONE :: else fi;
    if :: connection[1] == READY || connection[1] == ATTACHED || connection[1] == WELCOME -> connection[1] = NONE :: else fi
  }
}

inline fz_segment_publish() {
  atomic {
    started[incarnation] <= a ->
    plan_gen++;
    slot[incarnation].from[plan_gen] = a;
    gate_gen[incarnation] = plan_gen;
    plan_from = a; a = 0
  }
}

#ifdef PLAN_BEFORE_ALL
#define COMPLETE (connection[0] == ATTACHED || connection[1] == ATTACHED)
#else
#define COMPLETE (connection[0] == ATTACHED && connection[1] == ATTACHED)
#endif

active proctype freezerd() {
  byte a, n, r;
life:
  {
end_waits:
    do
    :: atomic { connection[0] == HELLO -> r = 0 }; on_hello(r)
    :: atomic { connection[1] == HELLO -> r = 1 }; on_hello(r)
    :: atomic { connection[0] == READY -> r = 0 }; on_ready(r)
    :: atomic { connection[1] == READY -> r = 1 }; on_ready(r)
    :: atomic {
        incarnation > 0 && COMPLETE && plan_gen < GENS -> a = started[incarnation];
        if
        :: a++
        :: true
        fi;
        if
        :: a < plan_from -> a = plan_from
        :: else
        fi
      };
      if
      :: fz_segment_publish()
      :: atomic { started[incarnation] > a -> a = 0 }
      fi
    :: incarnation > 0 && COMPLETE && plan_gen == GENS && last_made < INCARNATIONS -> fz_run_incarnate()
    od
  } unless {
    atomic {
      kill_freezerd?1;
      crashes--;
      a = 0; n = 0; r = 0;
      incarnation = 0; plan_gen = 0; plan_from = 0;
      connection[0] = NONE; connection[1] = NONE
    };
    goto life
  }
}

/* ---------------------------------------------------------------------------------------------------------- a rank */

inline let_go_without_plan(but) {
  n = 1;
  do
  :: n <= INCARNATIONS ->
    if
#ifdef DROP_PLANNED
    :: n != but -> later[id].has[n] = false
#else
    :: n != but && gate_gen[n] == 0 -> later[id].has[n] = false
#endif
    :: else
    fi;
    n++
  :: else -> break
  od;
  n = 0
}

inline fz_gate_raise(n, step, ret_newest) {
  atomic {
    if
    :: started[n] < step + 1 -> started[n] = step + 1
    :: else
    fi;
    ret_newest = gate_gen[n]
  }
}

inline fz_holds_welcome() {
  if
  :: HOLDS(id, offered[id]) -> atomic { let_go_without_plan(offered[id]) }
  :: else ->
    atomic { let_go_without_plan(0); later[id].has[offered[id]] = true };
#ifndef READY_BEFORE_RAISE
    if
    :: reached[id] > 0 -> fz_gate_raise(offered[id], reached[id] - 1, newest); newest = 0
    :: else
    fi
#endif
  fi
}

/* begin_step() of one segment: the newest plan that holds, newer than `old`. */
inline choose(n, old) {
  do
#ifdef SWITCH_AT_ONCE
  :: newest > old && (old == 0 || slot[n].from[newest] <= reached[id]) -> break
  :: newest > old && !(old == 0 || slot[n].from[newest] <= reached[id]) -> newest--
#else
  :: newest > old && slot[n].from[newest] <= reached[id] -> break
  :: newest > old && slot[n].from[newest] > reached[id] -> newest--
#endif
  :: newest <= old -> newest = 0; break
  od
}

inline fz_holds_begin_step() {
  n = INCARNATIONS;
  do
  :: n > 0 && !later[id].has[n] -> n--
  :: n > 0 && later[id].has[n] ->
    fz_gate_raise(n, reached[id], newest);
    atomic {
      choose(n, 0);
      if
      :: newest > 0 ->
        current[id] = n; held[id] = newest;
        /* older ones are let go */
        do
        :: n > 0 -> later[id].has[n] = false; n--
        :: else -> break
        od;
        newest = 0;
        over = true
      :: else -> n--
      fi
    }
  :: n == 0 -> break
  od;
  if
  :: !over ->
    fz_gate_raise(current[id], reached[id], newest);
    atomic {
      choose(current[id], held[id]);
      if
      :: newest > 0 -> held[id] = newest
      :: else
      fi;
      newest = 0
    }
  :: else
  fi
}

#define AHEAD(n) (later[id].has[n] && gate_gen[n] > 0)
#if INCARNATIONS == 2
#define HAS_REASON (gate_gen[current[id]] > held[id] || AHEAD(2))
#else
#define HAS_REASON (gate_gen[current[id]] > held[id] || AHEAD(2) || AHEAD(3))
#endif

proctype rank(byte id) {
  byte n, newest;
  bool over;
end_waits:
  do
  :: reached[id] < STEPS || (reached[id] < LAST && HAS_REASON) ->
    fz_holds_begin_step();
    atomic {
      over = false; n = 0;
      if
      :: chosen[reached[id]] == 0 -> chosen[reached[id]] = current[id] * (GENS + 1) + held[id]
      :: else -> assert(chosen[reached[id]] == current[id] * (GENS + 1) + held[id])
      fi;
      reached[id]++
    }
  :: atomic { connection[id] == NONE -> connection[id] = HELLO }
  :: connection[id] == WELCOME ->
    fz_holds_welcome();
    atomic {
      if
      :: connection[id] == WELCOME -> connection[id] = READY
      :: else
      fi
    }
#ifdef READY_BEFORE_RAISE
    ;
    if
    :: reached[id] > 0 -> fz_gate_raise(offered[id], reached[id] - 1, newest); newest = 0
    :: else
    fi
#endif
  od
}

proctype trouble() {
  do
#if CRASHES
  :: kill_freezerd!(crashes > 0)
#endif
  :: timeout ->
    /* Both have come to the last plan of the same incarnation, and freezerd knows them there. */
    assert(connection[0] == ATTACHED && connection[1] == ATTACHED && plan_gen == GENS);
    assert(current[0] == incarnation && current[1] == incarnation && held[0] == GENS && held[1] == GENS);
    assert(last_made == INCARNATIONS);
    break
  od
}

init {
  atomic {
    current[0] = 1; current[1] = 1;
    unlinked[0] = true;
    run rank(0); run rank(1); run trouble()
  }
}
