# simulate.py - random rules, offline: freezerctl simulate against the evaluators of oracle.py, bit for bit.
import json
import os
import random

import fz
from fz import check
from oracle import Lighter, Owned, select

SEED = int(os.environ.get("FZ_TEST_SEED", "20260"))
ROUNDS = int(os.environ.get("FZ_TEST_ROUNDS", "150"))
STEPS = (0, 60)
MODULES = ["model", "model.embed", "model.layers.0", "model.layers.1", "model.layers.10", "model.norm", "head"]


def random_params(rng):
    """Names with shared prefixes and components, and always a trainable "keep", so that no mask is empty."""
    names = {f"{rng.choice(MODULES)}.{rng.choice(['weight', 'bias', 'w.a', 'w.b', 'q'])}"
             for _ in range(rng.randint(1, 14))}
    names = sorted(names)
    rng.shuffle(names)
    return [(name, rng.choice([0, 1, 77]), rng.choice([1, 1, 1, 0])) for name in names] + [("keep", 10, 1)]


def random_pattern(rng, names):
    """A pattern that selects at least one name."""
    while True:
        name = rng.choice(names)
        parts = name.split(".")
        at = rng.randrange(len(parts))
        pattern = rng.choice([
            name, ".".join(parts[:rng.randint(1, len(parts))]), "name:" + name, "prefix:" + name[:rng.randint(1, 9)],
            ".".join(parts[:at] + ["*"] + parts[at + 1:]), ".".join(parts[:at] + ["**"]),
            ".".join(["**"] + parts[at:]), ".".join(parts[:at] + ["**"] + parts[at + 1:]),
            "model.layers.{0..2}", "model.layers.{1,10}.**", "model.layers.?.*", "model.layers.[01].**",
            "model.l*.1*.**", "re:layers\\.1\\b", "re:^model\\.(embed|norm)\\.", "re:bias$", "**"])
        if select([pattern], names):
            return pattern


def random_window(rng):
    """(from, until) as objects of a rules document; either may be empty."""
    def point():
        kinds = rng.choice([(), ("step",), ("epoch",), ("step", "epoch")])
        return {kind: rng.randint(0, 12 if kind == "epoch" else 62) for kind in kinds}

    start, end = point(), point()
    for kind in start.keys() & end.keys():
        low, high = sorted((start[kind], end[kind]))
        start[kind], end[kind] = low, high if high > low else low + 1
    return start, end


def random_owned(rng, names):
    rules = []
    for _ in range(rng.randint(1, 6)):
        start, end = random_window(rng)
        rule = {rng.choice(["freeze", "freeze", "train"]): [random_pattern(rng, names)
                                                            for _ in range(rng.randint(1, 3))]}
        if rng.random() < 0.3:
            rule["except"] = [random_pattern(rng, names)]
        if start:
            rule["from"] = start
        if end and end != {"step": 0} and end != {"epoch": 0}:
            rule["until"] = end
        rules.append(rule)
    pins = ["keep"] + [random_pattern(rng, names) for _ in range(rng.randint(0, 1))]
    return {"version": 1, "pin": pins, "rules": rules}


def random_lighter(rng, names):
    blocks = []
    for _ in range(rng.randint(0, 5)):
        def some(maker):
            return [maker() for _ in range(rng.randint(0, 3))]

        def exact():
            return rng.choice(names + ["no.such"])

        def prefix():
            return rng.choice(names)[:rng.randint(0, 10)]

        block = {rng.choice(["names", "name_starts_with"]): None}
        for key in list(block) + rng.sample(["names", "name_starts_with"], rng.randint(0, 1)):
            block[key] = some(exact if key == "names" else prefix)
        if rng.random() < 0.4:
            block["except_names"] = some(exact)
        if rng.random() < 0.3:
            block["except_name_starts_with"] = some(prefix)
        limit = rng.choice([None, "until_step", "until_epoch"])
        if limit:
            block[limit] = rng.randint(0, 12 if limit == "until_epoch" else 62)
        blocks.append(block)
    return {"version": 1, "profile": "lighter", "rules": blocks}


def simulate(t, params, document, steps, epoch_every):
    rules = t.write("rules.json", json.dumps(document))
    return t.ctl_json("simulate", rules, "--params", t.params_file(params), "--steps", "{}:{}".format(*steps), "--every-step",
                      "--epoch-every", str(epoch_every))


def compare(t, number, params, document, steps, epoch_every, want):
    data = simulate(t, params, document, steps, epoch_every)
    fz.equal(data["params"], [name for name, _, _ in params], "params")
    got = [(row["step"], row["epoch"], row["mask"]) for row in data["masks"]]
    expected = [(step, step // epoch_every, mask) for step, mask in want]
    for g, w in zip(got, expected):
        check(g == w, f"round {number}: simulate {g}, evaluator {w}", "epoch every %d" % epoch_every,
              json.dumps(document), params)
    fz.equal(len(got), len(expected), f"number of rows in round {number}")


def rounds(t, one):
    for number in range(ROUNDS):
        one(t, number, random.Random(f"{SEED}.{number}"))


def owned_round(t, number, rng):
    params = random_params(rng)
    document = random_owned(rng, [name for name, _, _ in params])
    epoch_every = rng.choice([1, 5, 7, 100])
    oracle = Owned(params, document)
    want = [(step, oracle.mask(step, step // epoch_every)) for step in range(*STEPS)]
    compare(t, number, params, document, STEPS, epoch_every, want)


def lighter_round(t, number, rng):
    params = random_params(rng)
    document = random_lighter(rng, [name for name, _, _ in params])
    epoch_every = rng.choice([1, 5, 7, 100])
    steps = (rng.choice([0, 0, 0, 3, 20]), 60)
    lighter = Lighter(params, document["rules"])
    want = [(step, lighter.batch(step, step // epoch_every)) for step in range(*steps)]
    compare(t, number, params, document, steps, epoch_every, want)


@fz.test(f"{ROUNDS} random rules documents of profile owned, windows of steps and epochs mixed")
def owned(t):
    rounds(t, owned_round)


@fz.test(f"{ROUNDS} random lists of lighter callbacks")
def lighter(t):
    rounds(t, lighter_round)


@fz.test("steps beyond 10^11; without --every-step there is one row per change")
def rows(t):
    params = [("a", 1, 1), ("b", 1, 0), ("keep", 1, 1)]
    document = {"version": 1, "rules": [{"freeze": ["a"], "from": {"step": 10**11}, "until": {"step": 10**11 + 5}},
                                        {"train": ["b"], "from": {"epoch": 3}}]}
    rules = t.write("rules.json", json.dumps(document))
    first, last = 10**11 - 2, 10**11 + 10
    data = t.ctl_json("simulate", rules, "--params", t.params_file(params), "--steps", f"{first}:{last}")
    rows_want = [(first, 0, "101"), (10**11, 0, "001"), (10**11 + 5, 0, "101")]
    got = [(row["step"], row["epoch"], row["mask"]) for row in data["masks"]]
    fz.equal(got, rows_want, "rows")
    oracle = Owned(params, document)
    check(all(oracle.mask(step, epoch) == mask for step, epoch, mask in got), "the evaluator disagrees", got)


if __name__ == "__main__":
    fz.main()
