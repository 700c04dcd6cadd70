# gloo.py - forks the ranks of a run, which train with torch.distributed; each notes what it has after every step.
"""
The importing process has torch loaded and no threads of it started, so a fork is a rank at a hundredth of the price of
a new interpreter. A rank's function gets a Rank, and ends by returning. What it notes is read here while it runs.
"""

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback

import torch
import torch._dynamo  # noqa: F401 - DDP does so in each rank, which takes seconds
import torch.distributed as dist

import fz


def hash_of(model):
    """Of all parameters, to the last bit."""
    data = hashlib.sha256()
    for parameter in model.parameters():
        data.update(parameter.detach().numpy().tobytes())
    return data.hexdigest()


class Rank:
    """In the forked process: which one it is, and where it writes what it notes."""

    def __init__(self, scene, group, rank, world):
        self.scene, self.group, self.rank, self.world = scene, group, rank, world
        self._out = open(scene.path(f"{group.name}.{rank}.out"), "a", encoding="utf-8")  # noqa: SIM115

    def init(self, timeout=60):
        """Joins the process group of all ranks."""
        from datetime import timedelta

        dist.init_process_group(
            "gloo",
            init_method=f"file://{self.scene.path(self.group.name + '.store')}",
            rank=self.rank,
            world_size=self.world,
            timeout=timedelta(seconds=fz.seconds(timeout)),
        )

    def note(self, **values):
        self._out.write(json.dumps(values) + "\n")
        self._out.flush()

    def note_step(self, step, model, **more):
        """The flags and a hash of all parameters, as they are after a step."""
        frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
        self.note(step=step, frozen=frozen, hash=hash_of(model), **more)

    def notes_of(self, rank):
        """How much another rank has noted."""
        with open(self.scene.path(f"{self.group.name}.{rank}.out"), encoding="utf-8") as out:
            return out.read().count("\n")

    def last_step(self):
        """
        Whether the test wants the ranks to end, after the same step on each: asked of rank 0 by all at every step. A
        moment's sleep lets freezerd and freezerctl have the processor, too.
        """
        time.sleep(0.001)
        word = torch.tensor([float(self.rank == 0 and os.path.exists(self.group.stop_file))])
        dist.broadcast(word, 0)
        return bool(word.item())


class _Forked(fz.Process):
    """A rank as the scene knows processes."""

    def __init__(self, scene, name, pid):
        self.scene, self.name, self.pid = scene, name, pid
        self.out_path, self.err_path = scene.path(name + ".out"), scene.path(name + ".err")
        self.popen = _Popen(pid)
        scene.processes.append(self)


class _Popen:
    """What fz.Process needs of subprocess.Popen."""

    def __init__(self, pid):
        self.pid, self.status = pid, None

    def poll(self):
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
        return self.status

    def wait(self, timeout):
        deadline = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("a rank", timeout)
            time.sleep(fz.POLL)
        return self.status

    def send_signal(self, number):
        os.kill(self.pid, number)


class Ranks:
    """All ranks of a run. `function(rank, **options)` is called in each; `environment(rank)` gives what differs."""

    def __init__(self, scene, world, function, name="ddp", environment=None, **options):
        self.scene, self.world, self.name = scene, world, name
        self.stop_file = scene.path(name + ".stop")
        self.ranks = []
        for rank in range(world):
            for kind in ("out", "err"):  # there is something to read from the first moment
                with open(scene.path(f"{name}.{rank}.{kind}"), "a", encoding="utf-8"):
                    pass
            sys.stdout.flush()
            pid = os.fork()
            if pid == 0:
                self._child(rank, function, environment, options)
            self.ranks.append(_Forked(scene, f"{name}.{rank}", pid))

    def _child(self, rank, function, environment, options):
        status = 1
        try:
            fz._die_with_parent()
            signal.alarm(0)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            err = os.open(self.scene.path(f"{self.name}.{rank}.err"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            os.dup2(err, 1)
            os.dup2(err, 2)
            for key in [k for k in os.environ if k.startswith("FREEZER_") and k != "FREEZER_LIBRARY"]:
                del os.environ[key]
            os.environ.update(FREEZER_SOCKET=self.scene.socket, LOCAL_RANK=str(rank), LOCAL_WORLD_SIZE=str(self.world))
            os.environ.update(RANK=str(rank), WORLD_SIZE=str(self.world))
            os.environ.update(environment(rank) if environment else {})
            function(Rank(self.scene, self, rank, self.world), **options)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            with contextlib.suppress(Exception):
                if status == 0 and dist.is_initialized():
                    dist.destroy_process_group()
            os._exit(status)

    def notes(self, rank):
        """All that a rank has noted so far."""
        with open(self.ranks[rank].out_path, encoding="utf-8") as out:
            text = out.read()
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]

    def wait_noted(self, condition, what, limit=60):
        """Waits until each rank's newest note fulfils a condition."""

        def all_have():
            for rank in self.ranks:
                fz.check(rank.popen.poll() in (None, 0), f"{rank.name} ended", rank.errors()[-3000:])
            return all((notes := self.notes(r)) and condition(notes[-1]) for r in range(self.world))

        fz.wait_until(all_have, what, limit)

    def wait_step(self, step):
        self.wait_noted(lambda note: note.get("step", -1) >= step, f"step {step}")

    def stop(self):
        """Ends all of them after one more step; each must end well."""
        with open(self.stop_file, "w", encoding="utf-8"):
            pass
        return self.join()

    def join(self):
        """Waits for the end, and gives the notes of all ranks by step: {step: [note of rank 0, of rank 1, ...]}."""
        for rank in self.ranks:
            fz.equal(rank.wait(60), 0, f"exit status of {rank.name}: {rank.errors()[-3000:]}")
        steps = {}
        for rank in range(self.world):
            for note in self.notes(rank):
                if "step" in note:
                    steps.setdefault(note["step"], []).append(note)
        return steps


def check_equal(steps, world):
    """At every step that all have taken: the same flags and, to the bit, the same parameters on every rank."""
    for step, notes in sorted(steps.items()):
        fz.equal(len(notes), world, f"ranks that took step {step}")
        for rank, note in enumerate(notes):
            fz.equal(note["frozen"], notes[0]["frozen"], f"what rank {rank} has frozen at step {step}")
            fz.equal(note["hash"], notes[0]["hash"], f"parameters of rank {rank} after step {step}")


def restart(scene):
    """Another freezerd; returns when a rank has come back to it."""
    scene.daemon()
    fz.wait_until(lambda: scene.ctl("status", "--run", "ddp").status == 0, "a rank that comes back")


def change(scene, *words):
    """A change that must be applied on all ranks; the step from which on it is in force."""
    result = scene.ctl(*words, "--yes", "--json")
    fz.equal(result.status, 0, f"{words}: {result!r}")
    fz.check(result.data["applied"], "the change was applied", result.data)
    return result.data["step"]
