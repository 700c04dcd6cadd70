# containers.py - trainers with a /dev/shm, process numbers or a user of their own: the segment's descriptor is what counts.
"""
Each trainer runs in namespaces of its own, as in a container that shares nothing with freezerd but the socket's folder.
"""
import contextlib
import os
import signal
import stat
import subprocess

import fz
from fz import check, equal

FOREVER = 10**9
GROUP, OTHER_UID = 54321, 54322
PARAMS = [("a.weight", 10, 1), ("a.bias", 1, 1), ("b.weight", 10, 1), ("b.bias", 1, 0)]

SHM = 'unshare -m sh -c \'mount -t tmpfs none /dev/shm && exec "$0" "$@"\''
PIDS = "unshare -p -f --kill-child"
USER = f"setpriv --reuid {OTHER_UID} --regid {GROUP} --clear-groups"
PLACES = {"another /dev/shm": SHM, "other process numbers": PIDS, "another uid": USER,
          "all three": f"{PIDS} {SHM} {USER}"}


def need(how):
    """Skips where such a place cannot be made."""
    if os.geteuid() != 0:
        raise fz.Skip("only root can make namespaces and become somebody else")
    tried = subprocess.run(["sh", "-c", how + " true"], capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        raise fz.Skip(f"no such namespaces here: {tried.stderr.strip()}")
    folder = os.path.dirname(os.path.realpath(fz.MOCK_TRAINER))
    while folder != "/":
        if not os.stat(folder).st_mode & stat.S_IXOTH:
            raise fz.Skip(f"others cannot enter {folder}, and so not run the trainer")
        folder = os.path.dirname(folder)


def within(t, how, **options):
    """A trainer in such a place."""
    os.chmod(t.root, 0o755)
    script = t.write(t.unique("within"), f'#!/bin/sh\nexec {how} {os.path.realpath(fz.MOCK_TRAINER)} "$@"\n')
    os.chmod(script, 0o755)
    real, fz.MOCK_TRAINER = fz.MOCK_TRAINER, script
    try:
        trainer = t.trainer(PARAMS, (0, FOREVER), step_us=300, **options)
    finally:
        fz.MOCK_TRAINER = real
    return trainer


def inner(trainer):
    """The number, for us, of the process that trains: the trainer's own or that of its last descendant."""
    pid = trainer.pid
    while True:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as children:
            found = children.read().split()
        if not found:
            return pid
        pid = int(found[0])


def end(trainer):
    """SIGTERM to what trains; what started it ends with its status."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(inner(trainer), signal.SIGTERM)
    return trainer.wait()


def segment(t, control):
    """Path of the run's segment in our /dev/shm, where freezerd made it."""
    incarnation = control.require("status")["status"]["incarnation"]
    daemon = next(p for p in reversed(t.processes) if isinstance(p, fz.Daemon) and p.alive())
    found = [p for p in fz.mapped_segments(daemon.pid) if p.endswith(f".{incarnation}")]
    equal(len(found), 1, "segments of the run")
    t.segments.update(found)
    return found[0]


def live(control, rank):
    """Freezes and unfreezes under the trainer's hands."""
    for op, flags in (("freeze", "001"), ("unfreeze", "111"), ("freeze", "001")):
        answer = control.change(op, "a")
        check(answer["applied"] or answer["nothing"], f"{op} was not applied", answer)
        rank.wait_for(lambda s, e, g, m, want=flags: m[:3] == want, f"{op} in the trainer's mask")


def attach_and_restart(t, how):
    need(how)
    options = ("--socket-group", str(GROUP))
    daemon = t.daemon(*options)
    rank = within(t, how)
    control = daemon.connect()
    control.wait_attached()
    live(control, rank)
    for unlinked in (False, True):
        before = control.require("status")["status"]
        path = segment(t, control)
        daemon.kill()
        if unlinked:
            os.unlink(path)  # as logind does when a user has logged out
        step = rank.step()
        rank.wait_step(step + 200)
        daemon = t.daemon(*options)
        control = daemon.connect()
        control.wait_attached()
        after = control.require("status")["status"]
        equal(after["incarnation"], before["incarnation"], f"incarnation after a restart, name removed: {unlinked}")
        check(after["gen"] >= before["gen"], "gens go back", before["gen"], after["gen"])
        equal([f["name"] for f in after["frozen"]], [f["name"] for f in before["frozen"]], "what is frozen")
        masks = {m for s, _, _, m in rank.batches() if s > step}
        equal({m[:3] for m in masks}, {"001"}, "masks during the restart")
        live(control, rank)
    equal(end(rank), 0, "exit status of the trainer")


def register(title, how):
    @fz.test(f"{title}: attaches, freezes live; freezerd killed: carried on by its descriptor, also without a name")
    def container(t):
        attach_and_restart(t, how)

    container.__name__ = title.replace(" ", "_").replace("/", "")


for _title, _how in PLACES.items():
    register(_title, _how)


@fz.test("who lives is told by the lock: pid 1 of a container that has ended is not our pid 1, and its segment goes")
def not_by_pid(t):
    need(PIDS)
    daemon = t.daemon()
    rank = within(t, PIDS)
    control = daemon.connect()
    control.wait_attached()
    equal(control.require("status")["status"]["rank_list"][0]["pid"], 1, "the pid that it says")
    path = segment(t, control)
    inside = inner(rank)
    os.kill(inside, signal.SIGSTOP)
    fz.wait_until(lambda: fz.process_state(inside) in "Tt", "stopped")
    daemon.kill()
    daemon = t.daemon()
    check(os.path.exists(path), "the segment of a rank that is stopped, but lives, was removed")
    os.kill(inside, signal.SIGCONT)
    daemon.connect().wait_attached()
    daemon.kill()
    os.kill(inside, signal.SIGKILL)
    rank.wait()
    daemon = t.daemon()
    check(not os.path.exists(path), "the segment of a rank that is gone was kept, because some pid 1 lives")
    equal(daemon.connect().require("runs")["runs"], [], "runs")


@fz.test("two containers, one job, one rank, both pid 1, freezerd restarted: the one that lives there keeps its place")
def twins(t):
    need(PIDS)
    job = {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0"}
    daemon = t.daemon()
    first = within(t, PIDS, env=job)
    control = daemon.connect()
    control.wait_attached("run")
    inside = inner(first)
    os.kill(inside, signal.SIGSTOP)
    fz.wait_until(lambda: fz.process_state(inside) in "Tt", "stopped")
    daemon.kill()
    control = t.daemon().connect()
    second = within(t, PIDS, env=job)
    control.wait_attached("run-2")
    os.kill(inside, signal.SIGCONT)
    control.wait_attached("run")
    answer = control.change("freeze", "a", run="run")
    first.wait_for(lambda s, e, g, m: m[:3] == "001", "the change")
    check(answer["applied"], "not applied", answer)
    check(all(m[:3] == "111" for _, _, _, m in second.batches()), "the other container got it", answer)
    equal((end(first), end(second)), (0, 0), "exit statuses")


if __name__ == "__main__":
    fz.main()
