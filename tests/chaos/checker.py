# checker.py - what chaos.py compares with is itself compared: it accepts what may be and finds what may not.
import os
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "integration"))
import fz  # noqa: E402
from timeline import ACCEPTED, CONFIRMED, LOST, Change, Disagreement, Reader, explain, merge  # noqa: E402

PARAMS = [("a", 1, 1), ("b.x", 1, 1), ("b.y", 1, 1)]
EPOCH_STEPS = 10


def seen(t, name, *spans):
    """A rank that printed these spans: (first, last, gen, mask)."""
    text = "".join(f'{{"rank":0,"step":{step},"epoch":{step // EPOCH_STEPS},"gen":{gen},"mask":"{mask}"}}\n'
                   for first, last, gen, mask in spans for step in range(first, last + 1))
    reader = Reader(t.write(name, text), name, 0, spans[0][0])
    reader.close()
    return reader


def histories(changes, *readers):
    return explain(PARAMS, changes, {0: merge(readers, "111")}, EPOCH_STEPS)


def refused(words, changes, *readers):
    try:
        histories(changes, *readers)
    except Disagreement as found:
        fz.check(words in str(found), "found for another reason", str(found))
        return
    raise fz.Failure(f"not found: {words}")


def freeze(state, pattern, place=None, **fields):
    return Change(state, "freeze", [pattern], after=(0, 3), place=place, **fields)


@fz.test("what may be: confirmed, accepted and lost changes, ended ones, rules, ranks of which one has no plan yet")
def accepted(t):
    rank = seen(t, "one", (0, 9, 1, "111"), (10, 14, 2, "011"), (15, 19, 3, "001"), (20, 30, 3, "011"))
    late = seen(t, "late", (7, 12, 0, "111"), (13, 14, 2, "011"), (15, 17, 3, "001"))
    ends = Change(ACCEPTED, "freeze", ["b.x"], until_step=20, after=(0, 11))
    fz.equal(histories([freeze(CONFIRMED, "a", (0, 10)), ends], rank, late), 1, "histories")
    lost = Change(LOST, "freeze", ["b.x"], until_step=20, after=(0, 11))
    fz.equal(histories([freeze(LOST, "a"), freeze(LOST, "b.y"), lost], rank), 1, "histories of lost answers")
    rules = {"version": 1, "rules": [{"freeze": ["a"]}, {"freeze": ["b.x"], "from": {"step": 15}, "until": {"epoch": 2}}]}
    fz.equal(histories([Change(CONFIRMED, "rules_load", rules=rules, place=(0, 10))], rank), 1, "histories with rules")


@fz.test("what may not be: each is found")
def found(t):
    rank = seen(t, "one", (0, 9, 1, "111"), (10, 20, 2, "011"), (21, 30, 3, "011"))
    differs = seen(t, "other", (5, 10, 1, "111"))
    refused("two masks at step 10", [freeze(CONFIRMED, "a", (0, 10))], rank, differs)
    refused("before its first plan", [], seen(t, "bare", (0, 5, 0, "101")))
    refused("no history explains", [freeze(CONFIRMED, "a", (0, 11))], rank)
    refused("no history explains", [freeze(CONFIRMED, "a", (0, 10)), freeze(CONFIRMED, "b", (0, 21))], rank)
    refused("no history explains", [], rank)
    refused("never in effect", [freeze(CONFIRMED, "a", (0, 10)), freeze(ACCEPTED, "a"), freeze(ACCEPTED, "b")], rank)
    half = seen(t, "half", (0, 9, 1, "111"), (10, 20, 2, "101"))
    refused("no history explains", [freeze(LOST, "b")], half)
    refused("no history explains", [freeze(LOST, "b.x")], seen(t, "undone", *half.spans, (21, 25, 3, "111")))
    refused("cannot have come into effect", [freeze(CONFIRMED, "a", (0, 21)), freeze(CONFIRMED, "a", (0, 10))],
            seen(t, "order", (0, 30, 1, "111"), (31, 31, 2, "111")))


@fz.test("a rank that leaves out a step is found")
def gap(t):
    try:
        seen(t, "gap", (0, 5, 1, "111"), (7, 9, 1, "111"))
    except Disagreement:
        return
    raise fz.Failure("not found")


if __name__ == "__main__":
    fz.main()
