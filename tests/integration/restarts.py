# restarts.py - freezerd is killed and started again while ranks rewind, while names are gone, before anybody has come back.
import os

import fz
from fz import check, equal
from rank import PARAMS, Rank, applied, run_of, settle

FOREVER = 10**9
SMALL = [("a.weight", 10, 1), ("a.bias", 1, 1), ("b.weight", 10, 1)]


def inode(fd):
    return os.fstat(fd).st_ino


# --- rewinds ---


def half_rewound(t):
    """Two ranks, of which the first has gone back to step 40 and the second is still at step 120, when freezerd dies."""
    daemon = t.daemon()
    ranks = [Rank(t, rank=i, world=2) for i in range(2)]
    for rank in ranks:
        rank.attach(step=100)
        rank.lock()
    control = daemon.connect()
    control.require("freeze", patterns=["a"], until_step=900)
    for rank in ranks:
        applied(rank, 2, 101)
    ranks[0].send("rewind", step=40, epoch=0)
    equal(ranks[0].expect("welcome")["incarnation"], 2, "incarnation")
    ranks[0].lock()
    ranks[0].ready(step=40)
    daemon.kill()
    return ranks


def resume(t, rank, incarnation, step):
    """The same process on a new connection, holding what it got last."""
    back = Rank(t, rank=rank.rank, world=2, resumes=True)
    back.send("resume", fds=[rank.fds[-1]], incarnation=incarnation, gen=2 if incarnation == 1 else 0, step=step, epoch=0)
    equal(back.enter()["type"], "welcome", "what resume led to")
    back.send("ready", step=step, epoch=0)
    return back


def rewind_between(t, order):
    ranks = half_rewound(t)
    control = t.daemon().connect()
    held = ((2, 40), (1, 120))
    back = [None, None]
    for i in order:
        back[i] = resume(t, ranks[i], *held[i])
        equal((back[i].welcome["incarnation"], inode(back[i].fds[-1])), (held[i][0], inode(ranks[i].fds[-1])),
              f"the segment that rank {i} goes on with")
    back[1].send("step", step=121, epoch=0)
    settle(control)
    run = run_of(control)
    equal((run["incarnation"], run["gen"], run["ranks"]), (2, 0, 1), "the run until the other has gone back, too")
    back[1].send("rewind", step=40, epoch=0)
    welcome = back[1].expect("welcome")
    equal((welcome["incarnation"], inode(back[1].fds[-1])), (2, inode(ranks[0].fds[-1])), "where its rewind leads")
    back[1].ready(step=40)
    run = run_of(control)
    equal((run["incarnation"], run["gen"], run["ranks"], run["step"]), (2, 1, 2, 40), "the run with both")
    for rank in back:
        applied(rank, 1, 40)
    settle(control)
    frozen = {p["name"] for p in control.require("list", why="override", run="run")["params"] if p["state"] == "frozen"}
    equal(frozen, {"a.w", "a.b"}, "what was frozen before")


@fz.test("killed between the rewinds of two ranks: the other goes on until it rewinds, and joins the first")
def killed_between(t):
    rewind_between(t, (0, 1))


@fz.test("the same, when the one that has not gone back yet comes first")
def killed_between_late(t):
    rewind_between(t, (1, 0))


@fz.test("a rank whose connection breaks between the rewinds goes on until it rewinds, and joins the first")
def broken_between(t):
    control = t.daemon().connect()
    ranks = [Rank(t, rank=i, world=2) for i in range(2)]
    for rank in ranks:
        rank.attach(step=100)
        rank.lock()
    ranks[0].send("rewind", step=40, epoch=0)
    ranks[0].expect("welcome")
    ranks[0].ready(step=40)
    ranks[1].close(keep_fds=True)
    back = resume(t, ranks[1], 1, 120)
    equal(back.welcome["incarnation"], 1, "the incarnation that it goes on with")
    equal(run_of(control)["gen"], 0, "a plan before it has rewound")
    back.send("rewind", step=40, epoch=0)
    equal(back.expect("welcome")["incarnation"], 2, "where its rewind leads")
    back.ready(step=40)
    equal(run_of(control)["gen"], 1, "gen")


@fz.test("trainers rewind, freezerd is killed between them: both come to one incarnation, and change together")
def trainers_rewind(t):
    daemon = t.daemon()
    options = dict(world=2, step_us=500, attach_timeout_ms=0)
    ranks = [t.trainer(SMALL, (0, FOREVER), rank=0, rewind="1000:200", **options),
             t.trainer(SMALL, (0, FOREVER), rank=1, rewind="6000:200", **options)]
    control = daemon.connect()
    control.wait_attached()
    fz.wait_until(lambda: (run_of(control)["incarnation"], run_of(control)["ranks"]) == (2, 1), "the first has rewound")
    daemon.kill()
    control = t.daemon().connect()
    check(ranks[1].step() < 5000, "the second rank is too far to prove anything", ranks[1].step())
    fz.wait_until(lambda: (run_of(control) or {}).get("live"), "they have come back")
    control.wait_attached()
    check(len([b for b in ranks[1].batches() if b[0] == 200]) == 2, "attached before it had gone back")
    answer = control.change("freeze", "a")
    equal((answer["applied"], answer["ranks"]), (True, 2), "a change of both")
    for rank in ranks:
        equal(rank.wait_step(answer["step"])[3], "001", f"mask of {rank.name}")


if __name__ == "__main__":
    fz.main()
