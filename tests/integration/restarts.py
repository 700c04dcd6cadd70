# restarts.py - freezerd is killed and started again while ranks rewind, while names are gone, before anybody has come back.
import glob
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
             t.trainer(SMALL, (0, FOREVER), rank=1, rewind="4000:200", **options)]
    control = daemon.connect()
    control.wait_attached()
    fz.wait_until(lambda: (run_of(control)["incarnation"], run_of(control)["ranks"]) == (2, 1), "the first has rewound")
    daemon.kill()
    control = t.daemon().connect()
    check(ranks[1].step() < 3500, "the second rank is too far to prove anything", ranks[1].step())
    fz.wait_until(lambda: (run_of(control) or {}).get("live"), "they have come back")
    control.wait_attached()
    check(len([b for b in ranks[1].batches() if b[0] == 200]) == 2, "attached before it had gone back")
    answer = control.change("freeze", "a")
    equal((answer["applied"], answer["ranks"]), (True, 2), "a change of both")
    for rank in ranks:
        equal(rank.wait_step(answer["step"])[3], "001", f"mask of {rank.name}")


# --- a segment whose name is gone ---


def nameless(t, daemon_ends=fz.Daemon.kill):
    """A rank that lives in a segment without a name, when freezerd has been started again; and that freezerd's control."""
    daemon = t.daemon()
    rank = Rank(t, world=2)
    name = rank.attach(step=10)["segment"]
    rank.lock()
    other = Rank(t, rank=1, world=2)
    other.attach(step=10)
    control = daemon.connect()
    control.require("freeze", patterns=["a"])
    for one in (rank, other):
        applied(one, 2, 11)
    settle(control)
    if daemon_ends == fz.Daemon.terminate:
        equal(daemon.terminate(), 0, "exit status")
    else:
        daemon.kill()
    os.unlink("/dev/shm" + name)
    return rank, t.daemon().connect()


def is_held(rank):
    """Whether freezerd said that the rank has to wait, instead of an answer."""
    message = rank.expect("notice", "need", "welcome", "error")
    return message["type"] == "notice" and message["code"] == "held"


def resume_held(t, daemon_ends):
    rank, control = nameless(t, daemon_ends)
    new = [Rank(t, rank=1, world=2, pid=7777), Rank(t, job="stranger")]
    check(all([is_held(one) for one in new]), "answered before the segment was there", [one.said for one in new])
    equal(control.require("runs")["runs"], [], "runs")
    back = Rank(t, world=2, resumes=True)
    back.send("resume", fds=[rank.fds[0]], incarnation=1, gen=2, step=20, epoch=0)
    equal(back.enter()["incarnation"], 1, "the incarnation of the rank that lives")
    back.ready(step=20)
    equal((new[0].enter()["run"], new[0].welcome["incarnation"]), ("run", 1), "the place of the new process")
    new[0].ready(step=20)
    equal(new[1].enter()["run"], "run-2", "the place of another job")
    run = run_of(control)
    equal((run["gen"], run["ranks"]), (2, 2), "gen and ranks")


@fz.test("killed, and the segment has no name any more: hellos wait for the resume, and join what it brings")
def held_after_kill(t):
    resume_held(t, fz.Daemon.kill)


@fz.test("the same after SIGTERM while ranks live")
def held_after_end(t):
    resume_held(t, fz.Daemon.terminate)


@fz.test("a rank that waits hangs up; when nobody brings the segment, who waits goes on without it")
def held_in_vain(t):
    rank, control = nameless(t)
    gone, left = Rank(t, rank=1, world=2, pid=7777), Rank(t, world=2, pid=7778)
    check(is_held(gone) and is_held(left), "not held")
    gone.close()
    equal(left.enter()["incarnation"], 2, "incarnation")
    left.ready()
    back = Rank(t, rank=1, world=2, pid=1000, resumes=True)
    back.send("resume", fds=[rank.fds[0]], incarnation=1, gen=2, step=20, epoch=0)
    equal(back.enter()["incarnation"], 2, "where one that comes too late is led")
    back.ready(step=20)
    for one in (left, back):
        applied(one, 1, 21)
    settle(control)
    frozen = {p["name"] for p in control.require("list", why="override", run="run")["params"] if p["state"] == "frozen"}
    equal(frozen, {"a.w", "a.b"}, "what was frozen before")


@fz.test("a rank with a segment that a rewind has ended waits for one that is in the newer one, whose name is gone")
def held_rewound(t):
    ranks = half_rewound(t)
    os.unlink("/dev/shm" + ranks[0].welcome["segment"].rpartition(".")[0] + ".2")
    control = t.daemon().connect()
    late = Rank(t, rank=1, world=2, resumes=True)
    late.send("resume", fds=[ranks[1].fds[-1]], incarnation=1, gen=2, step=120, epoch=0)
    check(is_held(late), "not held", late.said)
    resume(t, ranks[0], 2, 40)
    equal(late.enter()["incarnation"], 1, "the incarnation that it goes on with")
    late.send("rewind", step=40, epoch=0)
    equal(late.expect("welcome")["incarnation"], 2, "where its rewind leads")
    late.ready(step=40)
    equal(run_of(control)["gen"], 1, "gen")


@fz.test("nobody is held whose run has ended, however it ended: the first batch of the next job has its rules")
def not_held(t):
    def start_again(how):
        rules = t.write("rules.yaml", "version: 1\nrules:\n  - freeze: [b]\n")
        daemon = t.daemon("--rules", rules)
        rank = t.trainer(SMALL, (0, FOREVER), step_us=500)
        rank.wait_gen(1)
        check("held" not in daemon.errors() and "lived" not in daemon.errors(), f"held after {how}", daemon.errors())
        equal(rank.batches()[0][2:], (1, "110"), f"gen and mask of the first batch after {how}")
        return daemon, rank

    daemon, rank = start_again("nothing")
    daemon.kill()
    rank.kill()
    daemon, rank = start_again("both were killed")
    equal(daemon.terminate(), 0, "exit status")
    rank.kill()
    daemon, rank = start_again("freezerd ended, and the trainer was killed")
    equal(rank.terminate(), 0, "exit status")
    daemon.connect().require("wait", **{"for": "detached"}, wait_ms=int(fz.seconds(10) * 1000))
    daemon.kill()
    daemon, rank = start_again("the trainer ended, and freezerd was killed")
    daemon.kill()
    rank.kill()
    living = next(os.path.join(d, "living") for d, _, names in os.walk(t.state_dir) if "living" in names)
    with open(living, encoding="ascii") as file:
        boot, _, incarnation = file.read().partition(" ")
    for text in ("other-boot " + incarnation, boot, "", "\0\0\0\n", boot + " many\n"):
        for path in glob.glob("/dev/shm/freezer.*." + os.path.basename(os.path.dirname(living)) + ".*"):
            os.unlink(path)
        with open(living, "w", encoding="ascii") as file:
            file.write(text)
        daemon, rank = start_again(f"living said {text!r}")
        daemon.kill()
        rank.kill()


@fz.test("freezerd started again shows a run whose ranks are not back, takes a change, and sees all of them die")
def shown_at_once(t):
    daemon = t.daemon()
    ranks = t.trainers(SMALL, (0, FOREVER), world=2, step_us=500)
    for rank in ranks:
        rank.wait_gen(1)
    daemon.connect().require("freeze", patterns=["b"])
    for rank in ranks:
        rank.wait_gen(2)
        rank.stop()
    daemon.kill()
    control = t.daemon().connect()
    run = run_of(control)
    equal((run["name"], run["gen"], run["ranks"], run["world"]), ("run", 2, 0, 2), "the run at once")
    answer = control.require("freeze", patterns=["a.bias"], wait_ms=0)
    equal((answer["applied"], [r["reason"] for r in answer["missing"]]), (False, 2 * ["not connected"]), "what came of it")
    for rank in ranks:
        rank.cont()
    for rank in ranks:
        equal(rank.wait_gen(3)[3], "100", "its mask")
        rank.stop()
    daemon = t.processes[-1]
    daemon.kill()
    control = t.daemon().connect()
    equal(run_of(control)["live"], True, "the run before its ranks die")
    for rank in ranks:
        rank.kill()
    fz.wait_until(lambda: not run_of(control)["live"], "the end of a run that nobody came back to is seen")


@fz.test("segments of the dead are removed at the start, one without a plan a while after; those of the living never")
def cleaned(t):
    daemon = t.daemon()
    ranks = [t.trainer(SMALL, (0, FOREVER), run=run, step_us=500) for run in ("dead", "stopped", "alive")]
    paths = []
    for rank in ranks:
        rank.wait_gen(1)
        paths += fz.mapped_segments(rank.pid)
    equal(len(paths), 3, "segments")
    daemon.kill()
    ranks[0].kill()
    ranks[1].stop()
    t.daemon()
    check(not os.path.exists(paths[0]), "the segment of the dead one is left")
    check(os.path.exists(paths[1]) and os.path.exists(paths[2]), "the segment of one that lives is gone", paths)


@fz.test("a segment without a plan, in which nobody lives yet, is removed a while after the start, or at its end")
def cleaned_later(t):
    daemon = t.daemon()
    path = "/dev/shm" + Rank(t, world=2).attach()["segment"]
    daemon.kill()
    daemon = t.daemon()
    check(os.path.exists(path), "it was removed at once")
    fz.wait_until(lambda: not os.path.exists(path), "it is removed")
    path = "/dev/shm" + Rank(t, world=2, pid=7777).attach()["segment"]
    daemon.kill()
    equal(t.daemon().terminate(), 0, "exit status")
    check(not os.path.exists(path), "it is left at the end")


if __name__ == "__main__":
    fz.main()
