#!/usr/bin/env python3
# chaos.py - runs of the mock trainer under live changes while everything around them is made to fail; nothing may be lost.
"""
usage: chaos.py [MINUTES=M | SECONDS=S | KILLS=N] [SEED=N] [RUNS=N]

For so long, or until freezerd was killed that often, each run makes changes while freezerd is killed, stopped and started
again, its state directory and /dev/shm fill up, its descriptors run out, and clients misbehave; with KILLS, freezerd is
killed and nothing else is done. Then everything that ranks did is compared with everything that was answered: see
timeline.py. Prints TAP, with the seed, and the figures at the end. Without words: 20 seconds with seed 1, as in
`make check`; `SEED=` chooses one. How processes are scheduled is no part of the seed: the same seed makes the same troubles, roughly.

As root it mounts a /dev/shm and a state directory of its own, small ones, in a mount namespace of its own; otherwise
these two are not made full.
"""

import ctypes
import os
import random
import resource
import socket
import subprocess
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "integration"))
import fz  # noqa: E402
from run import PARAMS, Run, descriptors, memory_kib  # noqa: E402
from timeline import Disagreement  # noqa: E402

CLONE_NEWNS = 0x20000
SHM = "/dev/shm"
SHM_SIZE, STATE_SIZE = "8m", "64m"  # the histories of two runs are at most 32 MiB and a little
BEGIN_LIMIT_MS = 200 # that freezer_batch_begin() may wait; it ought to be nothing, but the machine is shared
MEMORY_LIMIT_KIB = 16 * 1024
RANK_FDS_MAX = 16


def own_mounts():
    """A mount namespace with a /dev/shm of its own. Returns why not, or None."""
    if os.geteuid() != 0:
        return "only root may mount file systems"
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNS) != 0:
        return "no mount namespace: " + os.strerror(ctypes.get_errno())
    for argv in (["mount", "--make-rprivate", "/"],
                 ["mount", "-t", "tmpfs", "-o", f"size={SHM_SIZE},mode=1777", "chaos", SHM]):
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            return done.stderr.strip()
    return None


def fill(folder):
    """Takes all space of a small file system. Returns the file that does."""
    path = os.path.join(folder, "fill")
    fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    size = 1 << 16
    while size:
        try:
            os.write(fd, b"x" * size)
        except OSError:
            size //= 2
    os.close(fd)
    return path


class Chaos:
    def __init__(self, scene, seed, n_runs, mounted, only_kills):
        self.scene = scene
        self.rng = random.Random(seed)
        self.mounted = mounted
        self.only_kills = only_kills
        self.counts = {}
        self.idle = []
        self.most_kib = 0
        if mounted:
            os.mkdir(scene.state_dir, 0o700)
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={STATE_SIZE},mode=0700", "chaos", scene.state_dir],
                           check=True)
        self.daemon = scene.daemon()
        self.fds = descriptors(self.daemon.pid)
        self.runs = [Run(scene, f"run{i}", seed, only_kills) for i in range(n_runs)]
        scene.params_file(PARAMS)  # before there are threads that would all make it
        for run in self.runs:
            run.start()

    def count(self, what):
        self.counts[what] = self.counts.get(what, 0) + 1

    def pause(self, low, high):
        time.sleep(self.rng.uniform(low, high))

    # --- troubles ---

    def kill(self):
        self.most_kib = max(self.most_kib, memory_kib(self.daemon.pid))
        self.daemon.kill()
        self.count("kill -9")
        if self.rng.random() < 0.3:
            self.pause(0, 0.5)
        self.daemon = self.scene.daemon()

    def stop(self):
        self.daemon.stop()
        self.pause(0.1, 1.5)
        self.daemon.cont()
        self.count("stopped")

    def restart(self):
        fz.equal(self.daemon.terminate(), 0, "exit status of freezerd after SIGTERM")
        self.pause(0, 0.3)
        self.daemon = self.scene.daemon()
        self.count("restarted")

    def fill_disk(self):
        path = fill(self.scene.state_dir)
        self.pause(0.2, 1)
        if self.rng.random() < 0.3:
            self.kill()
            self.pause(0.2, 1)
        os.unlink(path)
        self.count("disk full")

    def fill_shm(self):
        path = fill(SHM)
        self.pause(0.2, 1)
        if self.rng.random() < 0.3:
            self.kill()
            self.pause(0.2, 1)
        os.unlink(path)
        self.count("/dev/shm full")

    def no_descriptors(self):
        soft, hard = resource.prlimit(self.daemon.pid, resource.RLIMIT_NOFILE)
        most = descriptors(self.daemon.pid) + self.rng.randrange(3)
        resource.prlimit(self.daemon.pid, resource.RLIMIT_NOFILE, (most, hard))
        crowd = [self.connect() for _ in range(4)]
        self.pause(0.2, 1)
        for client in crowd:
            client.close()
        if self.daemon.alive():
            resource.prlimit(self.daemon.pid, resource.RLIMIT_NOFILE, (soft, hard))
        self.count("out of descriptors")

    def connect(self):
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        client.settimeout(2)
        try:
            client.connect(self.scene.socket)
        except OSError:
            pass
        return client

    def rude_client(self):
        words = [b'{"id":1,"op":"freeze","run":"run0","patt', b"\xff\x00garbage\n" * 20, b"x" * (1 << 20),
                 b'{"id":1,"protocol":1,"op":"watch"}\n', b'{"type":"hello","protocol":1,"run":"ghost"}\n',
                 b'{"id":1,"protocol":1,"op":"list","run":"run0","patterns":["**"]}\n' * 50]
        client = self.connect()
        try:
            client.sendall(self.rng.choice(words))
        except OSError:
            pass
        self.idle.append(client)
        if len(self.idle) > 4:
            self.idle.pop(0).close()
        self.count("rude clients")

    def trouble(self):
        fz.check(self.daemon.alive(), "freezerd died", self.daemon.popen.poll(), self.daemon.errors()[-3000:])
        if self.only_kills:
            self.pause(0, 0.8)
            self.kill()
            return
        self.pause(0.1, 1.2)
        choices = [self.kill] * 4 + [self.stop] * 2 + [self.restart] + [self.no_descriptors] * 2 + [self.rude_client] * 4
        if self.mounted:
            choices += [self.fill_disk, self.fill_shm]
        self.rng.choice(choices)()

    # --- the end ---

    def finish(self):
        """Everything recovers; then the runs end, each with a confirmed change."""
        for client in self.idle:
            client.close()
        for run in self.runs:
            run.stopping.set()
        for run in self.runs:
            run.join()

    def check_leaks(self):
        kib = memory_kib(self.daemon.pid)
        self.most_kib = max(self.most_kib, kib)
        limit = MEMORY_LIMIT_KIB if not fz.is_sanitized() else float("inf")  # whose allocator keeps what was freed
        fz.check(self.most_kib < limit, "freezerd needs too much memory", self.most_kib)
        fz.wait_until(lambda: descriptors(self.daemon.pid) <= self.fds,
                      f"freezerd with the {self.fds} descriptors that it began with", 5)
        for run in self.runs:
            fz.check(run.most_fds <= RANK_FDS_MAX, f"a rank of {run.name} has too many descriptors", run.most_fds)
            fz.check(run.most_kib < limit, f"a rank of {run.name} needs too much memory", run.most_kib)
        fz.equal(self.daemon.terminate(), 0, "exit status of freezerd after SIGTERM")
        left = sorted(os.path.basename(path) for path in self.scene.segments if os.path.exists(path))
        if self.mounted:
            left = sorted(name for name in os.listdir(SHM) if name.startswith("freezer."))
        fz.check(not left, "segments were left", left)

    def longest(self):
        """(longest, longest in which it waited) of all freezer_batch_begin(), in ms, beyond 1."""
        found = {"took": 0, "waited": 0}
        for process in self.scene.processes:
            if isinstance(process, fz.Trainer):
                for line in process.errors().splitlines():
                    words = line.split()
                    if "batch start" in line:
                        found[words[-3]] = max(found[words[-3]], int(words[-2]) / 1000)
        return found["took"], found["waited"]


def words_of(counts):
    return ", ".join(f"{n} {what}" for what, n in sorted(counts.items())) or "none"


def chaos(scene, seed, seconds, kills, n_runs, why_unmounted):
    fz.note(f"SEED={seed}, {n_runs} runs of 4 ranks, " + (f"{kills} kills" if kills else f"{seconds:.0f} s"))
    if why_unmounted:
        fz.note(f"the disk and {SHM} are not filled: {why_unmounted}")
    began = told = time.monotonic()
    it = Chaos(scene, seed, n_runs, not why_unmounted, bool(kills))
    while it.counts.get("kill -9", 0) < kills if kills else time.monotonic() - began < seconds:
        it.trouble()
        if any(run.failure for run in it.runs):
            break
        if time.monotonic() - told > 15:
            told = time.monotonic()
            fz.note(f"{told - began:.0f} s: {words_of(it.counts)}; changes " +
                    ", ".join(str(len(run.changes)) for run in it.runs))
    it.finish()
    fz.note(f"{time.monotonic() - began:.0f} s; freezerd: {words_of(it.counts)}")
    failures = []
    for run in it.runs:
        fz.note(f"{run.name}: {words_of(run.counts)}; refused: {words_of(run.refusals)}")
        if run.failure:
            failures.append(f"{run.name}: {run.failure!r}")
        try:
            steps, bare, histories = run.explain()
            fz.note(f"{run.name}: {steps} steps explained, 0 disagreements, 0 lost; {bare} batches before a first plan; "
                    f"{histories} possible histories at the end")
        except Disagreement as found:
            failures.append(f"{run.name}: {found}")
    longest, waited = it.longest()
    fz.note(f"longest batch start {longest:.1f} ms, longest that gave up the CPU {waited:.1f} ms")
    fz.note(f"most memory: freezerd {it.most_kib} KiB, ranks {max(run.most_kib for run in it.runs)} KiB; "
            f"most descriptors of a rank {max(run.most_fds for run in it.runs)}")
    fz.check(not failures, "\n".join(failures))
    fz.check(waited < BEGIN_LIMIT_MS * fz.SLOW, "a batch start waited", waited)
    it.check_leaks()
    fz.note("0 leaks")


def main():
    given = os.environ.get("CHAOS", "").split() + sys.argv[1:]
    options = dict(word.split("=", 1) for word in given if "=" in word and (word[-1] != "=" or word == "SEED="))
    seed = int(options.get("SEED", 1) or random.SystemRandom().randrange(1 << 32))
    seconds = float(options["MINUTES"]) * 60 if "MINUTES" in options else float(options.get("SECONDS", 20))
    kills = int(options.get("KILLS", 0))
    why = own_mounts()

    @fz.test(f"{kills} kills of freezerd under changes: nothing is lost" if kills else
             "whatever fails: ranks agree, every change is explained, nothing is lost, waited for or leaked",
             limit=int(seconds + 120 + 3 * kills))
    def _(scene):
        chaos(scene, seed, seconds, kills, int(options.get("RUNS", 2)), why)

    del sys.argv[1:]
    fz.main()


if __name__ == "__main__":
    main()
