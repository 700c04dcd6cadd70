# timeline.py - what the ranks of a run did, put together, and whether the changes that were made of it explain it.
"""
A place is (attempt, step): a launch that is started again has the next attempt, and goes on at no earlier step.

Of a change one of these is known:
  CONFIRMED  every rank has applied it, and from which step on it is in effect
  ACCEPTED   it is durable: it comes into effect at some place, in its turn
  LOST       its answer was lost: it comes into effect in its turn as if accepted, or never

explain() goes along the timeline with all the histories that are possible so far, each the layers that result. At a
place where a new plan began, changes may come into effect in their order; what then stands must be the mask that the
ranks had until the next such place, or the history is struck out. When none is left, the ranks did something that the
changes do not explain.
"""

import bisect
import os

import oracle

CONFIRMED, ACCEPTED, LOST = "confirmed", "accepted", "lost"
NEVER = oracle.NEVER
HISTORIES_MAX = 5000


class Disagreement(Exception):
    """Its text says what was found where."""


# --- reading ---


class Reader:
    """What a rank printed, as spans of steps with one plan and one mask: [first, last, gen, mask]."""

    def __init__(self, path, name, attempt, first):
        self.file = open(path, "rb")
        self.name = name
        self.attempt = attempt
        self.first = first
        self.spans = []
        self._tail = b""
        self._rest = b""

    def close(self):
        self.poll()
        self.file.close()

    def step(self):
        """The newest step; before the first, the one before it."""
        self.poll()
        return self.spans[-1][1] if self.spans else self.first - 1

    def poll(self):
        data = self._rest + self.file.read() if not self.file.closed else b""
        whole, _, self._rest = data.rpartition(b"\n")
        for line in whole.splitlines():
            head, _, tail = line.partition(b',"gen":')
            step = int(head[head.index(b'"step":') + 7:head.index(b',"epoch"')])
            if self.spans and step != self.spans[-1][1] + 1:
                raise Disagreement(f"{self.name} went from step {self.spans[-1][1]} to {step}")
            if tail == self._tail:
                self.spans[-1][1] = step
                continue
            gen, _, mask = tail.partition(b',"mask":"')
            self.spans.append([step, step, int(gen), mask.rstrip(b'"}').decode()])
            self._tail = tail


# --- putting together ---


def merge(readers, baseline):
    """
    ([(first, last, mask)], {steps at which a plan began}) of the ranks of one launch, in order. No two ranks may differ
    at a step. What a process did before its first plan is the baseline, and no part of it: it knew of no other.
    """
    ends, plans = set(), set()
    for reader in readers:
        for first, last, gen, mask in reader.spans:
            if gen == 0:
                if mask != baseline:
                    raise Disagreement(f"{reader.name} had {mask} at step {first}, before its first plan")
                continue
            ends.update((first, last + 1))
        with_plan = [span for span in reader.spans if span[2] > 0]
        plans.update(span[0] for before, span in zip([None] + with_plan, with_plan)
                     if before is None or before[2] != span[2])
    pieces, ends = [], sorted(ends)
    masks = [None] * len(ends)
    for reader in readers:
        for first, last, gen, mask in reader.spans:
            if gen == 0:
                continue
            for i in range(bisect.bisect_left(ends, first), bisect.bisect_left(ends, last + 1)):
                if masks[i] is None:
                    masks[i] = (mask, reader.name, gen)
                elif masks[i][0] != mask:
                    raise Disagreement(f"two masks at step {ends[i]} of attempt {reader.attempt}:\n"
                                       f"  {masks[i][1]}, gen {masks[i][2]}: {masks[i][0]}\n"
                                       f"  {reader.name}, gen {gen}: {mask}")
    for i, found in enumerate(masks[:-1]):
        if found:
            pieces.append((ends[i], ends[i + 1] - 1, found[0]))
    return pieces, plans


# --- explaining ---


class Change:
    """A change that was not refused. `after`: no step up to this place can know of it; `place`: of a confirmed one."""

    def __init__(self, state, action, patterns=(), value=None, until_step=None, rules=None, after=(0, -1), place=None):
        self.state = state
        self.action = action
        self.patterns = list(patterns)
        self.value = value
        self.until_step = until_step
        self.rules = rules
        self.after = after
        self.place = place

    def __str__(self):
        words = [self.state, self.action, *self.patterns]
        if self.place:
            words.append(f"at {self.place}")
        return " ".join(words + [f"{key}={value}" for key, value in (("until", self.until_step), ("value", self.value),
                                                                      ("rules", self.rules)) if value is not None])


class Layers:
    """Rules, overrides and pins that result from changes; compared by what they are."""

    def __init__(self, params, rules=None, standing=None):
        self.params = params
        self.rules = rules
        self.standing = standing or tuple(((), None) for _ in params)
        self._oracle = None
        self._masks = {}

    def key(self):
        return repr(self.rules), self.standing

    def _owned(self, rules):
        owned = oracle.Owned(self.params, rules)
        for i, (overrides, pin) in enumerate(self.standing):
            owned.changes += [(0, "unfreeze" if trains else "freeze", {i}, None, ends) for trains, ends in overrides]
            if pin is not None:
                owned.changes.append((0, "pin", {i}, pin, (NEVER, NEVER)))
        return owned

    def then(self, change, step):
        """The layers after one more change, less the overrides that can never show again."""
        if change.action.startswith("rules_"):
            return Layers(self.params, change.rules, self.standing)
        owned = self._owned(None)
        owned.change(0, change.action, change.patterns, value=change.value, until_step=change.until_step)
        standing = []
        for i in range(len(self.params)):
            overrides, pin = owned.standing(i, step)
            kept = []
            for override in overrides:
                if override[1] == (NEVER, NEVER):
                    kept = []
                if step < override[1][0]:
                    kept.append(override)
            standing.append((tuple(kept), pin))
        return Layers(self.params, self.rules, tuple(standing))

    def disagrees(self, first, last, mask, epoch_steps):
        """The first step of these at which the mask ought to be another one, or None."""
        self._oracle = self._oracle or self._owned(self.rules)
        steps, epochs = self._oracle.boundaries()
        turns = {s for s in steps if first < s <= last}
        turns |= {e * epoch_steps for e in epochs if e != NEVER and first < e * epoch_steps <= last}
        for step in sorted(turns | {first}):
            if self.mask(step, epoch_steps) != mask:
                return step
        return None

    def mask(self, step, epoch_steps):
        self._oracle = self._oracle or self._owned(self.rules)
        steps, epochs = self._oracle.boundaries()
        epoch = step // epoch_steps
        place = (sum(b <= step for b in steps), sum(b <= epoch for b in epochs))
        if place not in self._masks:
            self._masks[place] = self._oracle.mask(step, epoch)
        return self._masks[place]


def _advance(histories, changes, place, may_begin):
    """Lets changes come into effect at a place. A history: (how many of the changes are decided, layers)."""
    done, known = [], set()
    left = list(histories)
    while left:
        n, layers = left.pop()
        if (n, layers.key()) in known:
            continue
        known.add((n, layers.key()))
        change = changes[n] if n < len(changes) else None
        if change is None or change.place is None or change.place > place:
            done.append((n, layers))
        if change is None:
            continue
        if change.state == LOST:
            left.append((n + 1, layers))
        if change.place == place or (change.place is None and may_begin and change.after < place):
            left.append((n + 1, layers.then(change, place[1])))
    return done


def explain(params, changes, launches, epoch_steps):
    """
    Whether `changes`, in order, explain `launches`: {attempt: (pieces, plans) of merge()}. Raises Disagreement, or returns
    how many histories are possible at the end.
    """
    baseline = Layers(params)
    histories = [(0, baseline)]
    confirmed = {change.place for change in changes if change.place}
    for attempt in sorted(launches):
        pieces, plans = launches[attempt]
        starts = [piece[0] for piece in pieces]
        places = sorted(plans | set(starts) | {step for a, step in confirmed if a == attempt})
        for i, step in enumerate(places):
            place = (attempt, step)
            before = histories
            histories = _advance(histories, changes, place, step in plans or place in confirmed)
            if not histories:
                n = min(n for n, _ in before)
                raise Disagreement(f"at {place}: {changes[n]} cannot have come into effect there, "
                                   f"next are: {'; '.join(map(str, changes[n + 1:n + 4]))}")
            at = bisect.bisect_right(starts, step) - 1
            if at < 0 or pieces[at][1] < step:
                continue
            last = min(pieces[at][1], places[i + 1] - 1 if i + 1 < len(places) else pieces[at][1])
            fitting = [h for h in histories if h[1].disagrees(step, last, pieces[at][2], epoch_steps) is None]
            if not fitting:
                raise Disagreement(describe(place, last, pieces[at][2], histories, changes, epoch_steps))
            histories = fitting
            if len(histories) > HISTORIES_MAX:
                raise Disagreement(f"at {place}: too many histories are possible to tell anything")
    whole = [h for h in histories if all(change.state == LOST for change in changes[h[0]:])]
    if not whole:
        n = max(n for n, _ in histories)
        raise Disagreement(f"never in effect: {changes[n]}")
    return len(whole)


def describe(place, last, mask, histories, changes, epoch_steps):
    lines = [f"no history explains the mask at {place} to step {last}", f"  seen {mask}"]
    for n, layers in histories[:4]:
        step = layers.disagrees(place[1], last, mask, epoch_steps)
        lines.append(f"  want {layers.mask(step, epoch_steps)} at step {step} after change {n}")
        lines += [f"       {'next ' if i == n else '     '}{i}: {changes[i]}" for i in
                  range(max(0, n - (30 if len(lines) < 4 else 3)), min(len(changes), n + 2))]
    return "\n".join(lines)
