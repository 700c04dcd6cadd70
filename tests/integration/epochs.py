# epochs.py - rules over epochs, to the batch: also where one step has batches of two epochs.
import json

import fz
from fz import check
from oracle import Owned

PARAMS = [("a", 100, 1), ("b", 100, 1), ("c", 100, 0), ("d", 100, 1), ("keep", 1, 1)]
RULES = {"version": 1, "rules": [
    {"freeze": ["a"], "until": {"epoch": 2}},
    {"freeze": ["b"], "from": {"epoch": 1}, "until": {"epoch": 3}},
    {"train": ["c"], "from": {"step": 10, "epoch": 2}, "until": {"step": 17, "epoch": 9}},
    {"freeze": ["d"], "from": {"step": 15}, "until": {"epoch": 4}},
]}
EVERY = 5
LAST = 40


def run(t, world, **options):
    """{(step, epoch): mask} of a whole run under the rules."""
    t.daemon("--rules", t.write("rules.json", json.dumps(RULES)))
    ranks = t.trainers(PARAMS, (0, LAST), world, step_us=500, epoch_every=EVERY, **options)
    for rank in ranks:
        fz.equal(rank.wait(), 0, f"exit status of {rank.name}")
        check(rank.batches()[0][2] > 0, "the first batch was before the first plan", rank.batches()[0])
    seen = fz.by_batch(ranks)
    for key, want in Owned(PARAMS, RULES).masks(seen).items():
        check(seen[key][1] == want, f"the mask at step {key[0]}, epoch {key[1]}", f"got  {seen[key][1]}", f"want {want}")
    return seen


@fz.test("rules over epochs, one batch a step")
def plain(t):
    seen = run(t, 2)
    check({step for step, _ in seen} == set(range(LAST)), "steps are missing")


@fz.test("rules over epochs, a validation batch in the old epoch just before the new one begins, at the same step")
def validation(t):
    seen = run(t, 3, batches_per_step=2, validate=True, jitter=True)
    twice = [step for step, epoch in seen if (step, epoch - 1) in seen]
    check(len(twice) >= LAST // EVERY - 1, "few steps have batches of two epochs", sorted(seen))
    check(any(seen[step, step // EVERY][1] != seen[step, step // EVERY - 1][1] for step in twice),
          "no flip lies between the two batches of such a step")


if __name__ == "__main__":
    fz.main()
