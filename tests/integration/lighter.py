# lighter.py - profile lighter: the known cases, live through freezerd --rules and a trainer, and offline by simulate.
import json

import fz
from fz import check, equal
from oracle import Lighter

L = [("l1.w", 1, 1), ("l1.b", 1, 1), ("l2.w", 1, 1), ("l2.b", 1, 1), ("l10.w", 1, 1)]


def flags(**initial):
    return [(name, 1, flag) for name, flag in initial.items()]


# (id, parameters, block, trace of batches as steps, masks). T13's trace is of epochs: there an epoch is one step.
CASES = [
    ("T01", L, {"names": ["l1.w"]}, [0, 1], "01111 01111"),
    ("T02", L, {"name_starts_with": ["l1"]}, [0], "00110"),
    ("T03", L, {"name_starts_with": "l1."}, [0], "00111"),
    ("T04", L, {"names": "l2.b", "name_starts_with": ["l1."]}, [0], "00101"),
    ("T05", L, {"name_starts_with": ["l"], "except_names": ["l2.b"], "except_name_starts_with": ["l1."]}, [0], "11010"),
    ("T06", L, {"name_starts_with": [""], "until_step": 2}, [0, 1, 2, 3], "00000 00000 11111 11111"),
    ("T07", L, {"names": [], "until_step": 2}, [0, 2], "11111 11111"),
    ("T08", flags(a=0, b=0), {"names": []}, [0], "11"),
    ("T09", flags(a=1, b=0), {"names": ["a"], "until_step": 0}, [0, 5], "10 10"),
    ("T10", flags(a=1, b=0), {"names": ["a"], "until_step": 1}, [0, 1], "01 11"),
    ("T11", flags(a=0), {"names": ["a"], "until_step": 3}, [7], "0"),
    ("T12", flags(a=1), {"names": ["a"], "until_step": 3}, [2, 2, 2, 3, 3], "0 0 0 1 1"),
    ("T13", flags(a=1), {"names": ["a"], "until_epoch": 2}, [0, 1, 2, 3], "0 0 1 1"),
]

# What lighter's documentation calls progressive unfreezing, and what its code makes of it: two blocks, in both orders.
BACKBONE = flags(**{"backbone.stem": 1, "backbone.layer1": 1, "backbone.layer2": 1, "head": 1})
EARLY = {"name_starts_with": ["backbone"], "until_epoch": 5}
LATE = {"name_starts_with": ["backbone.layer1", "backbone.layer2"], "until_epoch": 10}


def document(*blocks):
    return json.dumps({"version": 1, "profile": "lighter", "rules": list(blocks)})


def by_evaluator(params, blocks, trace):
    lighter = Lighter(params, blocks)
    return [lighter.batch(step, epoch) for step, epoch in trace]


def simulate(t, params, rules, steps, *options):
    """{step: mask} by freezerctl simulate."""
    data = t.ctl_json("simulate", t.write("rules.json", rules), "--params", t.params_file(params), "--steps", "{}:{}".format(*steps),
                      "--every-step", *options)
    return {row["step"]: row["mask"] for row in data["masks"]}


def live(t, params, rules, steps, **options):
    """All batches of a trainer that starts at steps[0] under freezerd --rules."""
    t.daemon("--rules", t.write("rules.json", rules))
    rank = t.trainer(params, steps, step_us=0, **options)
    equal(rank.wait(), 0, f"exit status of the trainer\n{rank.errors()}")
    check(rank.batches()[0][2] > 0, "the first batch was before the first plan", rank.batches()[0])
    return rank.batches()


def epoch_options(case):
    return {"epoch_every": 1} if case == "T13" else {}


@fz.test("the evaluator of these tests gives the masks of T01 to T13")
def evaluator(t):
    for case, params, block, trace, want in CASES:
        epoch = (lambda n: n) if case == "T13" else (lambda n: 0)
        got = by_evaluator(params, [block], [(n, epoch(n)) for n in trace])
        equal(" ".join(got), want, case)


@fz.test("simulate gives the masks of T01 to T13")
def simulated(t):
    for case, params, block, trace, want in CASES:
        options = ("--epoch-every", "1") if case == "T13" else ()
        masks = simulate(t, params, document(block), (trace[0], trace[-1] + 1), *options)
        equal(" ".join(masks[n] for n in trace), want, case)


def live_case(case, params, block, trace, want):
    def run(t):
        options = {"batches_per_step": 3} if case == "T12" else epoch_options(case)
        batches = live(t, params, document(block), (trace[0], trace[-1] + 1), **options)
        by_step = {}
        for step, _, _, mask in batches:
            by_step.setdefault(step, set()).add(mask)
        for step, mask in zip(trace, want.split()):
            equal(by_step[step], {mask}, f"masks at step {step}")

    fz.test(f"{case} live: {json.dumps(block)}")(run)


for each in CASES:
    live_case(*each)


@fz.test("two blocks, in both orders, 12 epochs: live, simulate and the evaluator agree")
def progressive(t):
    for blocks in ((EARLY, LATE), (LATE, EARLY)):
        want = by_evaluator(BACKBONE, blocks, [(n, n // 3) for n in range(36)])
        masks = simulate(t, BACKBONE, document(*blocks), (0, 36), "--epoch-every", "3")
        equal([masks[n] for n in range(36)], want, f"simulate of {blocks}")
    daemon = t.daemon("--rules", t.write("live.json", document(EARLY, LATE)))
    rank = t.trainer(BACKBONE, (0, 36), step_us=0, epoch_every=3)
    equal(rank.wait(), 0, "exit status")
    want = by_evaluator(BACKBONE, (EARLY, LATE), [(n, n // 3) for n in range(36)])
    seen = {}
    for step, epoch, _, mask in rank.batches():
        if epoch == step // 3:
            seen.setdefault(step, mask)
    equal([seen[n] for n in range(36)], want, "live")
    check(daemon.alive(), "freezerd died")


@fz.test("the same block in lighter's own words, as YAML, pasted as it is")
def pasted(t):
    rules = """version: 1
profile: lighter
rules:
  - name_starts_with: ["l1."]
    except_names: ["l1.b"]
    until_step: 3
"""
    block = {"name_starts_with": ["l1."], "except_names": ["l1.b"], "until_step": 3}
    masks = simulate(t, L, rules, (0, 6))
    equal([masks[n] for n in range(6)], by_evaluator(L, [block], [(n, 0) for n in range(6)]), "simulate")


if __name__ == "__main__":
    fz.main()
