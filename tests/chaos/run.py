# run.py - one run under chaos: its ranks, which are killed, stopped and started again, and the changes that are made of it.
import os
import random
import threading
import time

import fz
from timeline import ACCEPTED, CONFIRMED, LOST, Change, Reader, explain, merge

WORLD = 4
FOREVER = 10**9
STEP_US = 2000
LAG_MAX = 300     # steps
ANSWER_LIMIT = 12 # seconds until an answer counts as lost
EPOCH_STEPS = 400
PARAMS = ([("positions", 512, 0), ("embed.weight", 4096, 1)] +
          [(f"layers.{i}.{part}", 1024, 1) for i in range(6) for part in ("attn.weight", "attn.bias", "mlp.weight")] +
          [("norm.weight", 64, 1), ("head.weight", 4096, 1)])
LOST_MAX = 6  # answers, until everything is reset: each doubles what is possible
NOTHING, REFUSED = "nothing", "refused"
BASELINE = "".join(str(flag) for _, _, flag in PARAMS)
TARGETS = ["embed", "layers.0", "layers.{1..2}", "layers.*.attn.bias", "layers.3.mlp", "re:^layers\\.[45]\\.", "norm",
           "prefix:layers.1", "name:layers.5.mlp.weight", "layers.**.weight"]
NO_ANSWER = (OSError, fz.Failure, ValueError, KeyError) # KeyError: turned away in a line that answers no request
RESET_EVERY = 25 # changes; so that no bit depends on a lost answer for long


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def memory_kib(pid):
    """Resident memory that is not a file's."""
    with open(f"/proc/{pid}/status", encoding="utf-8") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon"))


class Run(threading.Thread):
    """Makes changes and troubles of one run until told to stop; then sees to a confirmed end, and ends its ranks."""

    def __init__(self, scene, name, seed, only_changes=False):
        super().__init__(name=name)
        self.scene = scene
        self.rng = random.Random(f"{seed} {name}")
        self.only_changes = only_changes
        self.stopping = threading.Event()
        self.attempt = 0
        self.ranks = []
        self.readers = []
        self.changes = []
        self.reset_at = RESET_EVERY
        self.lost = 0
        self.counts = {}
        self.refusals = {}
        self.control = None
        self.failure = None
        self.most_fds = 0
        self.most_kib = 0

    def count(self, what):
        self.counts[what] = self.counts.get(what, 0) + 1

    # --- ranks ---

    def start_rank(self, rank, step):
        trainer = self.scene.trainer(PARAMS, (step, FOREVER), rank=rank, world=WORLD, run=self.name, step_us=STEP_US,
                                     jitter=True, seed=self.rng.randrange(1 << 30), epoch_every=EPOCH_STEPS,
                                     launch=f"{self.name}:{self.attempt}", attach_timeout_ms=1000, longest=True)
        trainer.reader = Reader(trainer.out_path, trainer.name, self.attempt, step)
        self.readers.append(trainer.reader)
        return trainer

    def launch(self, step):
        self.ranks = [self.start_rank(rank, step) for rank in range(WORLD)]

    def step(self):
        """The newest step that any rank of this launch is known to have begun."""
        return max(reader.step() for reader in self.readers if reader.attempt == self.attempt)

    def note_costs(self, trainer):
        self.most_fds = max(self.most_fds, descriptors(trainer.pid))
        self.most_kib = max(self.most_kib, memory_kib(trainer.pid))

    def end_rank(self, trainer, kill):
        self.note_costs(trainer)
        if kill:
            trainer.kill()
        else:
            fz.equal(trainer.terminate(), 0, f"exit status of {trainer.name}")

    def check_ranks(self):
        for trainer in self.ranks:
            fz.check(trainer.alive(), f"{trainer.name} ended by itself", trainer.popen.poll(), trainer.errors()[-2000:])

    def replace_rank(self):
        """One rank is killed and comes back alone, somewhat ahead, so that it does not come too late for its plan."""
        self.replace(self.rng.randrange(WORLD))

    def replace(self, rank):
        self.end_rank(self.ranks[rank], kill=True)
        self.ranks[rank] = self.start_rank(rank, self.step() + self.rng.randrange(50))
        self.count("ranks replaced")

    def replace_laggards(self):
        """Real ranks wait for each other at each step; these do not, and one that was stopped would never catch up."""
        first = self.step()
        for rank, trainer in enumerate(self.ranks):
            if trainer.reader.step() < first - LAG_MAX:
                self.replace(rank)

    def relaunch(self):
        for trainer in self.ranks:
            self.end_rank(trainer, kill=self.rng.random() < 0.5)
        last = self.step()
        self.attempt += 1
        self.launch(last + 1 + self.rng.randrange(50))
        self.count("launches")

    def stop_rank(self):
        trainer = self.rng.choice(self.ranks)
        trainer.stop()
        self.count("ranks stopped")
        for _ in range(self.rng.randrange(1, 4)):
            self.make_change(wait_ms=200)
        time.sleep(self.rng.uniform(0, 0.5))
        trainer.cont()

    # --- changes ---

    def random_rules(self):
        now, rules = self.step(), []
        for _ in range(self.rng.randrange(1, 4)):
            rule = {self.rng.choice(["freeze", "freeze", "train"]): [self.rng.choice(TARGETS)]}
            if self.rng.random() < 0.5:
                rule["from"] = {"step": now + self.rng.randrange(600)}
            if self.rng.random() < 0.5:
                rule["until"] = self.rng.choice([{"step": now + self.rng.randrange(700, 1500)},
                                                 {"epoch": now // EPOCH_STEPS + self.rng.randrange(3, 6)}])
            rules.append(rule)
        document = {"version": 1, "rules": rules}
        if self.rng.random() < 0.2:
            document["pin"] = [self.rng.choice(TARGETS)]
        return document

    def random_change(self):
        """(operation, fields) of a change that can be explained without knowing when exactly it came into effect."""
        op = self.rng.choice(["freeze"] * 5 + ["unfreeze"] * 4 + ["auto"] * 2 + ["pin", "unpin", "unpin"] +
                             ["rules_load", "rules_unload"])
        if op == "rules_load":
            return op, {"rules": self.random_rules()}
        if op == "rules_unload":
            return op, {}
        fields = {"patterns": [self.rng.choice(TARGETS)]}
        if op in ("freeze", "unfreeze") and self.rng.random() < 0.3:
            fields["until_step"] = self.step() + self.rng.randrange(300, 1500)
        if op == "pin":
            fields["value"] = self.rng.choice(["frozen", "training"])
        return op, fields

    def connect(self):
        if not self.control:
            self.control = fz.Control(self.scene.socket, limit=ANSWER_LIMIT)
        return self.control

    def disconnect(self):
        if self.control:
            self.control.close()
        self.control = None

    def settle(self):
        """Returns when freezerd has read all that was sent to it before, or is another one."""
        self.disconnect()
        while True:
            try:
                control = fz.Control(self.scene.socket, limit=2)
                for _ in range(3):
                    control.require("ping")
                control.socket.settimeout(fz.seconds(ANSWER_LIMIT))
                self.control = control
                return
            except NO_ANSWER:
                time.sleep(0.02)

    def make_change(self, wait_ms=1500, vanish=False):
        op, fields = self.random_change()
        return self.change(op, fields, wait_ms, vanish)

    def change(self, op, fields, wait_ms=1500, vanish=False):
        """Makes a change and notes what became of it; returns what is known of it, or NOTHING or REFUSED."""
        after = (self.attempt, self.step())
        try:
            control = self.connect()
        except OSError:
            self.disconnect()
            time.sleep(0.02)
            return REFUSED
        answer, number = None, control.last_id + 1
        try:
            control.send(op, run=self.name, yes=True, wait_ms=wait_ms, **fields)
            if not vanish:
                answer = control.answer(number)
        except NO_ANSWER:
            pass
        accepted = control.parts.get(number, {}).get("accepted", False)
        state, place = self.judge(answer, accepted)
        if answer is None:
            self.settle()
        if state in (NOTHING, REFUSED):
            return state
        self.lost += state == LOST
        self.count(state)
        value = {"frozen": False, "training": True}.get(fields.get("value"))
        self.changes.append(Change(state, op, fields.get("patterns", ()), value=value, rules=fields.get("rules"),
                                   until_step=fields.get("until_step"), after=after, place=place))
        return state

    def judge(self, answer, accepted):
        """(state, place) of a change by its answer; NOTHING or REFUSED if it changes nothing."""
        if answer is None:
            return (ACCEPTED if accepted else LOST), None
        if not answer["ok"]:
            if answer.get("accepted"):
                return ACCEPTED, None
            code = answer["error"]["code"]
            self.refusals[code] = self.refusals.get(code, 0) + 1
            return (NOTHING if code == "no_rules" else REFUSED), None
        if answer["nothing"]:
            self.count("nothing to do")
            return NOTHING, None
        if answer["applied"]:
            return CONFIRMED, (self.attempt, answer["step"])
        return ACCEPTED, None

    def reset(self):
        """Back to the baseline, for certain: from here on no answer that was lost matters."""
        self.lost = 0
        for op, fields in (("auto", {"patterns": ["**"]}), ("unpin", {"patterns": ["**"]}), ("rules_unload", {})):
            for _ in range(50):
                if self.change(op, fields) in (CONFIRMED, ACCEPTED, NOTHING):
                    break
                time.sleep(0.02)

    # --- its life ---

    def act(self):
        dice = self.rng.random()
        if not self.only_changes and dice < 0.04:
            self.replace_rank()
        elif not self.only_changes and dice < 0.08:
            self.stop_rank()
        elif not self.only_changes and dice < 0.095:
            self.relaunch()
        elif dice < 0.14 and self.is_attached(wait_ms=1):
            self.make_change(vanish=True)
            self.count("clients vanished")
        else:
            self.make_change()
        self.replace_laggards()
        if len(self.changes) >= self.reset_at or self.lost >= LOST_MAX:
            self.reset()
            self.reset_at = len(self.changes) + RESET_EVERY
        time.sleep(self.rng.uniform(0, 0.06))

    def confirmed_end(self):
        """All ranks attached, a change confirmed that has everything before it in force, and steps after it."""
        self.replace_laggards()
        fz.wait_until(self.is_attached, f"{self.name}: all ranks attached", 30)
        self.settle()
        for target, _ in zip(TARGETS * 3, range(20)):
            if self.change("freeze", {"patterns": [target]}, wait_ms=10000) == CONFIRMED:
                break
        else:
            raise fz.Failure(f"{self.name}: no change was confirmed at the end")
        last = self.changes[-1].place[1]
        for trainer in self.ranks:
            fz.wait_until(lambda t=trainer: t.reader.step() > last + 10, f"{trainer.name} beyond step {last}")

    def is_attached(self, wait_ms=1000):
        try:
            answer = self.connect().ask("wait", **{"for": "attached"}, run=self.name, wait_ms=wait_ms)
            return answer["ok"] and answer["met"]
        except NO_ANSWER:
            self.disconnect()
            return False

    def run(self):
        try:
            self.launch(0)
            while not self.stopping.is_set():
                self.check_ranks()
                self.act()
            self.confirmed_end()
            self.check_ranks()
        except Exception as failure:  # told at the end, beside those of the other runs
            self.failure = failure
        finally:
            self.disconnect()
            for trainer in self.ranks:
                trainer.cont()
                self.end_rank(trainer, kill=not trainer.alive())
            for reader in self.readers:
                reader.close()

    # --- what it shows ---

    def explain(self):
        """Raises Disagreement, or returns (steps compared, batches without a plan, possible histories)."""
        launches = {attempt: merge([r for r in self.readers if r.attempt == attempt], BASELINE)
                    for attempt in range(self.attempt + 1)}
        histories = explain(PARAMS, self.changes, launches, EPOCH_STEPS)
        steps = sum(last - first + 1 for pieces, _ in launches.values() for first, last, _ in pieces)
        bare = sum(last - first + 1 for r in self.readers for first, last, gen, _ in r.spans if gen == 0)
        return steps, bare, histories
