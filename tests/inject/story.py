# story.py - what happens to one run from its freezerd's start to its end, told once for each call that fails.
"""
Two ranks attach; rules are loaded, parameters are frozen, pinned and let go; freezerd ends, by kill -9 or by SIGTERM, and
the next one takes over; there is one more change, and everything ends. In one process one call fails. What must hold:

- Nobody crashes, and freezerd ends only if it fails in its very start, which it then says.
- What was answered is true: a confirmed change is in effect at the step that was said, and survives; a refused one never
  shows, not after the restart either; if the connection was lost before there was an answer, either may be.
- Ranks agree at every step. They go on to the end, and no batch waits for long.
- One failure is over soon: everybody is attached again, and changes work.
- Nothing is left: no segment, no socket, no memory that a flawless story would not leave, too.
"""

import errno
import json
import os
import signal
import socket
import struct
import subprocess
import time

import fz
from fz import check, equal
from rank import fnv

LIBRARY = os.path.abspath(os.path.join(os.environ.get("top_builddir", "."), "tests", ".libs", "libfzfail.so"))
FOREVER = 10**9
BEGIN_LIMIT_MS = 200 # as in chaos.py
PARAMS = [("brought", 64, 1), ("rule", 64, 1), ("frozen", 64, 1), ("timed", 64, 1), ("pinned", 64, 1), ("shaken", 64, 1), ("late", 64, 1), ("undone", 64, 1),
          ("base", 64, 0), ("rest", 640, 1)]
NAMES = [name for name, _, _ in PARAMS]
BASELINE = {name: str(flag) for name, _, flag in PARAMS}
OWN_RULES = {"version": 1, "rules": [{"name": "its own", "freeze": ["brought"]}]} # the trainer's
RULES = {"version": 1, "rules": [{"name": "all along", "freeze": ["re:^rule$"], "until": {"step": FOREVER}}]}
STARTING = "starting" # a freezerd that only starts and ends, with a rules file
FIRST, SECOND = "freezerd", "successor"
RANK = "rank"
HEAD, KIND = struct.Struct("QQq4072s"), struct.Struct("16sQ")


class Fault:
    """Which call of which process fails, and how; None as kind: nothing fails, everything is counted."""

    def __init__(self, victim, kind=None, at=1, error="ENOMEM", times=1):
        self.victim, self.kind, self.at, self.error, self.times = victim, kind, at, error, times

    def __str__(self):
        return f"{self.victim} {self.kind} {self.at} {self.error}" + (f" x{self.times}" if self.times > 1 else "")

    def environment(self, report):
        number = 0 if self.error == "half" else getattr(errno, self.error)
        return {"LD_PRELOAD": LIBRARY, "FZ_FAIL_KIND": self.kind or "", "FZ_FAIL_AT": str(self.at),
                "FZ_FAIL_TIMES": str(self.times), "FZ_FAIL_ERRNO": str(number), "FZ_FAIL_REPORT": report,
                "FZ_FAIL_FROM": "begin" if self.victim == RANK else "main", "MALLOC_PERTURB_": "165"}


class Report:
    """What libfzfail.so wrote of its process."""

    def __init__(self, path):
        with open(path, "rb") as file:
            data = file.read()
        n, self.failed, live, trace = HEAD.unpack_from(data)
        self.live = live if live > -(1 << 63) else None
        self.trace = trace.rstrip(b"\0").decode()
        kinds = [KIND.unpack_from(data, HEAD.size + i * KIND.size) for i in range(n)]
        self.calls = {name.rstrip(b"\0").decode(): calls for name, calls in kinds}

    def is_within(self, library):
        """Whether it was that library which made the call, or had the C library make it."""
        modules = [os.path.basename(frame) for frame in self.trace.split() if not os.path.basename(frame).startswith("libc.")]
        return len(modules) > 1 and modules[1].startswith(library) # the first is libfzfail.so itself

    def where(self):
        """The trace as functions and lines, where they are known."""
        lines = []
        for frame in self.trace.split():
            path, _, offset = frame.rpartition("+")
            done = subprocess.run(["addr2line", "-Cfsie", path, offset], capture_output=True, text=True, check=False)
            lines.append("  " + " ".join(done.stdout.split()) if done.returncode == 0 and "??" not in done.stdout else
                         "  " + os.path.basename(path))
        return "\n".join(lines)


# --- what a change came to ---

CONFIRMED, ACCEPTED, REFUSED, NOTHING, LOST = "confirmed", "accepted", "refused", "nothing", "lost"


class Change:
    """A change that was asked for: what it does to one parameter, and what came of it."""

    def __init__(self, text, name, flag, outcome, step=None):
        self.text, self.name, self.flag, self.outcome, self.step = text, name, flag, outcome, step

    def __str__(self):
        return f"{self.text}: {self.outcome}" + (f" at step {self.step}" if self.step is not None else "")


def flips(seen, name):
    """[(step, flag)] of one parameter over all batches, from its flag at the first."""
    place, found = NAMES.index(name), []
    for (step, _), (_, mask) in sorted(seen.items()):
        if not found or found[-1][1] != mask[place]:
            found.append((step, mask[place]))
    return found


def explains(changes, found):
    """Whether these flips are what the changes did, in their order: none is missing, none is too many."""
    if not changes:
        return not found
    change, rest = changes[0], changes[1:]
    if change.outcome not in (CONFIRMED, ACCEPTED) and explains(rest, found):
        return True
    return (change.outcome not in (REFUSED, NOTHING) and bool(found) and found[0][1] == change.flag and
            change.step in (None, found[0][0]) and explains(rest, found[1:]))


def check_flips(seen, name, changes):
    """Each flip of a parameter is one of its changes, in their order, and each change that was answered is there."""
    found = flips(seen, name)
    told = [*map(str, changes), f"{name} was {found}"]
    begins_flipped = bool(found) and found[0][1] != BASELINE[name] # by the first plan
    check(explains(changes, found if begins_flipped else found[1:]), "what was answered is not what happened", *told)


class Control(fz.Control):
    """A connection on which one request is asked at a time: an error without an id, as when memory is short, is of that."""

    def read_line(self):
        line = super().read_line()
        if line and line.get("ok") is False and line.get("id") is None:
            line["id"] = self.last_id
        return line


class Client:
    """A control client that comes back when it is hung up on."""

    def __init__(self, story):
        self.story = story
        self.control = None

    def connect(self):
        if not self.control:
            self.control = Control(self.story.t.socket, limit=30)
        return self.control

    def ask(self, op, **fields):
        """(outcome of the request, its answer or None)"""
        number = None
        try:
            control = self.connect()
            number = control.send(op, run="run", **fields)
            answer = control.answer(number)
            if answer["ok"]:
                return CONFIRMED, answer
            return REFUSED, answer
        except (OSError, KeyError, fz.Failure, json.JSONDecodeError) as error:
            parts = self.control.parts.get(number, {}) if self.control else {}
            self.close()
            self.story.check_alive(f"{op} was not answered ({error!r})")
            check("not answer in time" not in str(error), f"{op} was not answered in time")
            return (ACCEPTED if parts.get("accepted") else LOST), None

    def close(self):
        if self.control:
            self.control.close()
        self.control = None


class Story:
    def __init__(self, scene, fault):
        self.t = scene
        self.fault = fault
        self.report_path = scene.path("report")
        self.own_rules = scene.write("own.json", json.dumps(OWN_RULES))
        self.daemon = None
        self.ranks = []
        self.changes = []
        self.never_started = False # by the victim
        self.client = Client(self)
        self.watcher = None
        key = fnv(os.path.realpath(scene.state_dir).encode() + b"\0run\0")
        self.prefix = f"freezer.{os.getuid()}.{key}."

    def segments(self):
        return [name for name in os.listdir("/dev/shm") if name.startswith(self.prefix)]

    def environment(self, victim):
        return self.fault.environment(self.report_path) if self.fault.victim == victim else None

    def report(self):
        return Report(self.report_path)

    def check_alive(self, why):
        if self.daemon.alive():
            return
        check(False, f"freezerd ended with status {self.daemon.popen.poll()}: {why}", self.daemon.errors()[-2000:])

    # --- processes ---

    def start(self, victim, *options):
        """Starts freezerd. One that fails in its start must say so; then it is started again."""
        try:
            self.daemon = self.t.daemon(*options, env=self.environment(victim))
            return
        except fz.Failure:
            failed = self.t.processes[-1]
        status = failed.wait()
        # libfyaml does not look at what asprintf() returns. Nothing is served yet, and there is no other way to read YAML.
        if status != -signal.SIGSEGV or not self.report().is_within("libfyaml"):
            check(status in (1, 5, 7), f"freezerd ended its start with status {status}", failed.errors()[-2000:])
            check(failed.errors().strip(), "freezerd did not start, and did not say why")
        self.never_started = True
        self.daemon = self.t.daemon(*options)

    def end_daemon(self):
        """SIGTERM. It leaves behind no more memory than it would if nothing had failed, and no socket."""
        equal(self.daemon.terminate(), 0, "exit status of freezerd")
        if os.path.exists(self.t.socket) and self.fault.kind != "unlink":
            # one that cannot be looked at may be another's by now
            closing = self.fault.kind == "stat" and "fz_listener_close" in self.report().where()
            check(closing, "the socket was left")

    def start_rank(self, rank, victim):
        return self.t.trainer(PARAMS, (0, FOREVER), rank=rank, world=2, step_us=1000, longest=True, launch="job:0",
                              rules=self.own_rules, env=self.environment(victim))

    def replace_rank(self):
        """The rank whose freezer_open() had no memory, and said so, may end; another one comes in its place."""
        failed = self.ranks[0]
        if failed.alive() or self.fault.kind != "malloc":
            return
        equal(failed.popen.returncode, 1, f"exit status of {failed.name}\n  {failed.errors()}\n ")
        check("cannot open: " in failed.errors(), f"{failed.name} ended", failed.errors())
        equal(failed.batches(), [], "batches of a rank that could not open")
        self.ranks[0] = self.start_rank(0, None)

    def even_out(self):
        """Real ranks wait for each other; here the one ahead is stopped, or every change would wait for the other."""
        ahead, behind = sorted(self.ranks, key=lambda rank: -rank.step())
        if ahead.step() > behind.step() + 100:
            ahead.stop()
            fz.wait_until(lambda: behind.step() >= ahead.step() - 50 or not behind.alive(), "the ranks at one step")
            ahead.cont()

    def attach(self):
        """Waits until both ranks have a freezerd again, or for the first time."""
        deadline = time.monotonic() + fz.seconds(20)
        while True:
            outcome, answer = self.client.ask("wait", **{"for": "attached"}, wait_ms=500)
            if outcome == CONFIRMED and answer["met"]:
                for rank in self.ranks:
                    rank.wait_gen(1)
                self.even_out()
                return
            self.replace_rank()
            for rank in self.ranks:
                check(rank.alive(), f"{rank.name} ended with status {rank.popen.poll()}", rank.errors())
            check(time.monotonic() < deadline, "the ranks do not attach", *[rank.errors() for rank in self.ranks])
            time.sleep(0.01)

    # --- what is asked of freezerd ---

    def change(self, op, name, flag, **fields):
        outcome, answer = self.client.ask(op, wait_ms=int(fz.seconds(20) * 1000), yes=True, **fields)
        step = None
        if outcome == CONFIRMED:
            check(answer["applied"] and answer.get("waited_ms", 0) < fz.seconds(10) * 1000,
                  f"{op} was not applied in time", answer)
            step = answer["step"]
            if answer["nothing"]:
                outcome = NOTHING
        if outcome == REFUSED:
            check(self.fault.kind, f"{op} was refused", answer)
        self.changes.append(Change(f"{op} {name}", name, flag, outcome, step))
        return answer if outcome == CONFIRMED else None

    def change_at_last(self, *words, **fields):
        """What failed is over by now, or is so soon: a change is made again until it is confirmed."""
        for _ in range(2 + self.fault.times): # a call more than failed, and the connection that was hung up on is made anew
            self.change(*words, **fields)
            if self.changes[-1].outcome in (CONFIRMED, NOTHING):
                return
        check(False, "it does not work any more", *map(str, self.changes))

    def possible(self, name):
        """The flags that a parameter may have now."""
        flags = {BASELINE[name]}
        for change in self.changes:
            if change.name == name and change.outcome in (CONFIRMED, ACCEPTED):
                flags = {change.flag}
            elif change.name == name and change.outcome == LOST:
                flags.add(change.flag)
        return flags

    def look(self):
        """Asks for what can be asked; what is answered must be whole, and true."""
        outcome, answer = self.client.ask("list")
        if outcome == CONFIRMED:
            equal([entry["name"] for entry in answer["params"]], NAMES, "names of list")
            for entry in answer["params"]:
                flag = "1" if entry["state"] == "training" else "0"
                check(flag in self.possible(entry["name"]) or entry["pending"], "list says", entry, *map(str, self.changes))
        outcome, answer = self.client.ask("is_frozen", patterns=["base"])
        if outcome == CONFIRMED:
            equal((answer["matched"], answer["all"]), (1, True), "is_frozen base")
        outcome, answer = self.client.ask("explain", param="base")
        outcome, answer = self.client.ask("history", limit=2)
        last = self.changes[-1]
        if outcome == CONFIRMED and last.outcome == CONFIRMED:
            # the sentence may do without the name when memory is short
            told = [pattern for entry in answer["history"] if entry["state"] == "applied" for pattern in entry["patterns"]]
            check(any(last.name in text for text in told), "the last change is not in the history", answer, str(last))
        outcome, answer = self.client.ask("status")
        if outcome == CONFIRMED:
            equal((answer["status"]["name"], answer["status"]["n_params"]), ("run", len(PARAMS)), "status")
        outcome, answer = self.client.ask("rules_show")
        outcome, answer = self.client.ask("freeze", patterns=["nothing"], yes=True)
        check(outcome in (REFUSED, LOST), "a pattern that matches nothing", answer)
        check(outcome == LOST or self.fault.kind or answer["error"]["code"] == "no_match", "another error", answer)

    def watch(self):
        try:
            self.watcher = fz.Control(self.t.socket, limit=5)
            self.watcher.ask("watch")
        except (OSError, KeyError, fz.Failure, json.JSONDecodeError):
            self.watcher = None

    def unwatch(self):
        """Whatever was told to the watching client, it was in whole lines."""
        while self.watcher:
            try:
                line = self.watcher.read_line()
            except (fz.Failure, socket.error):
                line = None
            if not line:
                self.watcher.close()
                self.watcher = None

    # --- the story ---

    def tell(self):
        if self.fault.victim == STARTING:
            self.tell_start()
        else:
            self.tell_all()
        self.t.end()
        self.check_end()

    def tell_start(self):
        rules = self.t.write("rules.yaml", "version: 1\nrules:\n  - name: one\n    freeze: [\"a.**\", 're:^b']\n"
                                           "    until: {step: 1000}\n  - freeze: [c]\n    from: {epoch: 2}\n")
        self.start(STARTING, "--rules", rules)
        self.client.ask("ping")
        self.client.close()
        self.end_daemon()

    def tell_all(self):
        self.start(FIRST)
        self.ranks = [self.start_rank(rank, RANK if rank == 0 else None) for rank in range(2)]
        self.attach()
        self.changes.append(Change("its own rules", "brought", "0", ACCEPTED))
        self.watch()
        self.change("rules_load", "rule", "0", rules=RULES, source="rules.yaml", reason="a reason")
        self.changes.append(Change("rules_load", "brought", "1", self.changes[-1].outcome, self.changes[-1].step))
        self.change("freeze", "frozen", "0", patterns=["frozen"])
        self.change("freeze", "timed", "0", patterns=["timed"], **{"for": FOREVER})
        self.change("pin", "pinned", "0", patterns=["pinned"], value="frozen")
        self.change("freeze", "shaken", "0", patterns=["name:shaken"])
        self.change("auto", "shaken", "1", patterns=["shaken"])
        self.look()
        if self.fault.at % 2:
            self.daemon.kill()
        else:
            equal(self.daemon.terminate(), 0, "exit status of freezerd")
        self.unwatch()
        self.client.close()
        self.start(SECOND)
        self.attach()
        self.look()
        self.change("auto", "frozen", "1", patterns=["frozen"])
        self.change("unfreeze", "base", "1", patterns=["base"], include_baseline=True, force=True)
        before = self.change("freeze", "late", "0", patterns=["late"])
        if before and self.change("freeze", "undone", "0", patterns=["undone"]):
            self.change("revert", "undone", "1", gen=before["gen"])
        if self.fault.kind:
            self.change_at_last("freeze", "rest", "0", patterns=["rest"])
        self.client.close()
        self.end_ranks()
        self.end_daemon()

    def end_ranks(self):
        last = [rank.step() for rank in self.ranks]
        for rank, step in zip(self.ranks, last):
            rank.wait_step(step + 2)
        for rank in self.ranks:
            rank.signal(signal.SIGTERM)
        for rank in self.ranks:
            equal(rank.wait(), 0, f"exit status of {rank.name}\n  {rank.errors()}\n ")

    def check_end(self):
        seen = fz.by_batch(self.ranks)
        for name in NAMES:
            check_flips(seen, name, [change for change in self.changes if change.name == name])
        for rank in self.ranks:
            for line in rank.errors().splitlines():
                if "batch start waited" in line:
                    check(int(line.split()[-2]) < BEGIN_LIMIT_MS * 1000 * fz.SLOW, "a batch start waited", line)
        equal(self.segments(), [], "segments that were left")
