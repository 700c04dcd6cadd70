# fz.py - what the integration tests share: TAP, a private scene with a daemon and trainers in it, and the wire.
"""
A script registers tests with @fz.test and ends with fz.main(). Each test gets a Scene of its own: a folder below /tmp
with a socket, a state directory and logs. What a test starts in a scene ends with it, and must end well: an exit status
other than 0 after SIGTERM, or a report of a sanitizer, fails the test.

Time limits are generous and only end what hangs; they grow with $FZ_TEST_SLOW. Nothing here depends on being fast.
"""

import atexit
import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback

import schema

FREEZERD = os.environ.get("FREEZERD", "daemon/freezerd")
FREEZERCTL = os.environ.get("FREEZERCTL", "client/ctl/freezerctl")
MOCK_TRAINER = os.environ.get("MOCK_TRAINER", "tests/mock_trainer")
SLOW = max(1, int(os.environ.get("FZ_TEST_SLOW") or 1))

POLL = 0.005
PR_SET_PDEATHSIG = 1
CLONE_NEWNS, CLONE_NEWUSER = 0x20000, 0x10000000
MS_RDONLY, MS_REMOUNT, MS_REC, MS_PRIVATE, MNT_DETACH = 1, 32, 16384, 1 << 18, 2
_libc = ctypes.CDLL(None, use_errno=True)
_tests = []
_scenes = []


def seconds(limit):
    """A time limit, in the time of this build."""
    return limit * SLOW


# --- TAP ---


class Skip(Exception):
    """Raised by a test that cannot run here; says why."""


class Failure(AssertionError):
    """Raised by check() and the waits; its text is the diagnosis."""


def check(condition, message, *values):
    """Fails the test with `message`, and the values that show why, unless `condition`."""
    if not condition:
        raise Failure(message + "".join(f"\n  {value!r}" for value in values))


def equal(got, want, what):
    check(got == want, f"{what}: got {got!r}, want {want!r}")


def note(text):
    """A diagnostic line of TAP."""
    for line in str(text).splitlines():
        print("# " + line, flush=True)


def test(title, limit=60):
    """Registers a test function, which gets a Scene. It is ended after `limit` seconds."""

    def register(function):
        _tests.append((title, limit, function))
        return function

    return register


def _on_alarm(_signal, _frame):
    raise Failure("the test ran out of time")


def _run(title, limit, function):
    """Runs one test. Returns the words around its number in its line of TAP."""
    scene = Scene()
    signal.signal(signal.SIGALRM, _on_alarm)
    signal.alarm(seconds(limit))
    try:
        function(scene)
        scene.end()
        return "ok", title
    except Skip as reason:
        return "ok", f"{title} # SKIP {reason}"
    except Exception as error:  # a broken test must not hide the ones behind it
        signal.alarm(0)
        note(error if isinstance(error, Failure) else traceback.format_exc())
        scene.show_logs()
        return "not ok", title
    finally:
        signal.alarm(0)
        scene.destroy()


def main():
    """Runs the registered tests; words on the command line choose those whose title or function holds one of them."""
    for program in (FREEZERD, FREEZERCTL, MOCK_TRAINER):
        if not os.access(program, os.X_OK):
            print(f"Bail out! there is no {program}: make check builds it and sets FREEZERD, FREEZERCTL, MOCK_TRAINER")
            sys.exit(1)
    chosen = [t for t in _tests if not sys.argv[1:] or any(w in t[0] or w in t[2].__name__ for w in sys.argv[1:])]
    print(f"1..{len(chosen)}", flush=True)
    failed = 0
    for number, (title, limit, function) in enumerate(chosen, 1):
        began = time.monotonic()
        result, words = _run(title, limit, function)
        failed += result != "ok"
        note(f"{time.monotonic() - began:.1f} s")
        print(f"{result} {number} - {words}", flush=True)
    sys.exit(1 if failed else 0)


@atexit.register
def _destroy_scenes():
    for scene in list(_scenes):
        scene.destroy()


# --- processes ---


def _die_with_parent():
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def is_sanitized():
    """Whether freezerd was built with a sanitizer, whose allocator is its own and keeps what was freed."""
    linked = subprocess.run(["ldd", FREEZERD], capture_output=True, text=True, check=False).stdout
    with open(FREEZERD, "rb") as program:
        return "asan" in linked or "tsan" in linked or b"__sanitizer_" in program.read()


def mapped_segments(pid):
    """Paths of the segments that a process has mapped."""
    try:
        with open(f"/proc/{pid}/maps", encoding="utf-8") as maps:
            found = {line.split()[5] for line in maps if "/dev/shm/freezer." in line}
    except OSError:
        return set()
    return {path for path in found if os.path.exists(path)}


class Process:
    """A started program, with its standard error, and its output unless that is a pipe, in files of the scene."""

    def __init__(self, scene, name, argv, env=None, pass_fds=(), stdin=subprocess.DEVNULL):
        self.scene = scene
        self.name = name
        self.out_path = scene.path(name + ".out")
        self.err_path = scene.path(name + ".err")
        environment = dict(scene.env, **(env or {}))
        with open(self.out_path, "wb") as out, open(self.err_path, "ab") as err:
            self.popen = subprocess.Popen(argv, stdin=stdin, stdout=out, stderr=err, env=environment,
                                          pass_fds=pass_fds, preexec_fn=_die_with_parent)
        self.pid = self.popen.pid
        scene.processes.append(self)

    def alive(self):
        return self.popen.poll() is None

    def signal(self, number):
        if self.alive():
            self.scene.segments |= mapped_segments(self.pid)
            self.popen.send_signal(number)

    def stop(self):
        """SIGSTOP; returns when the process has really stopped."""
        self.signal(signal.SIGSTOP)
        wait_until(lambda: process_state(self.pid) in "Tt", f"{self.name} stopped")

    def cont(self):
        self.signal(signal.SIGCONT)

    def kill(self):
        """kill -9, and reaps."""
        self.signal(signal.SIGKILL)
        self.popen.wait(seconds(10))

    def terminate(self, limit=10):
        """SIGTERM; returns the exit status."""
        self.signal(signal.SIGTERM)
        return self.wait(limit)

    def wait(self, limit=10):
        try:
            return self.popen.wait(seconds(limit))
        except subprocess.TimeoutExpired:
            raise Failure(f"{self.name} (pid {self.pid}) did not end within {seconds(limit)} s") from None

    def errors(self):
        with open(self.err_path, encoding="utf-8", errors="replace") as err:
            return err.read()


def process_state(pid):
    """The letter of a process's state in /proc, "X" when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as stat:
            return stat.read().rpartition(")")[2].split()[0]
    except OSError:
        return "X"


def wait_until(condition, what, limit=20):
    """Waits for `condition()` to become true, and returns what it returned."""
    deadline = time.monotonic() + seconds(limit)
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise Failure(f"not within {seconds(limit)} s: {what}")
        time.sleep(POLL)


class Daemon(Process):
    def __init__(self, scene, name, *options, wait_ready=True, **keywords):
        ready, self.ready_fd = os.pipe()
        argv = [FREEZERD, "--ready-fd", str(self.ready_fd), *options]
        try:
            super().__init__(scene, name, argv, pass_fds=(self.ready_fd,), **keywords)
        finally:
            os.close(self.ready_fd)
        with os.fdopen(ready, "rb") as pipe:
            self.ready_text = pipe.read() if wait_ready else None
        check(not wait_ready or self.ready_text, f"{name} did not become ready: {self.errors()}")

    def connect(self):
        return Control(self.scene.socket)


class Trainer(Process):
    """A mock_trainer that prints one line per batch, which lines() gives as Batch objects."""

    def __init__(self, scene, name, rank, argv, env):
        super().__init__(scene, name, argv, env)
        self.rank = rank
        self._batches = []
        self._offset = 0

    def batches(self):
        """All batches so far, in order: tuples (step, epoch, gen, mask)."""
        with open(self.out_path, "rb") as out:
            out.seek(self._offset)
            text = out.read()
        whole = text[:text.rfind(b"\n") + 1]
        self._offset += len(whole)
        for line in whole.splitlines():
            batch = json.loads(line)
            check(batch["rank"] == self.rank, f"{self.name} printed a line of another rank", batch)
            self._batches.append((batch["step"], batch["epoch"], batch["gen"], batch["mask"]))
        return self._batches

    def step(self):
        """Step of the newest batch, -1 before the first."""
        batches = self.batches()
        return batches[-1][0] if batches else -1

    def wait_for(self, condition, what, limit=20):
        """Waits until the newest batch fulfils `condition(step, epoch, gen, mask)`; returns it."""

        def newest():
            batches = self.batches()
            if batches and condition(*batches[-1]):
                return batches[-1]
            check(self.alive() or self._ended_just_now(condition), f"{self.name} ended: no {what}", self.errors())
            return None

        return wait_until(newest, f"{self.name}: {what}", limit)

    def _ended_just_now(self, condition):
        batches = self.batches()
        return bool(batches) and condition(*batches[-1])

    def wait_step(self, step, limit=20):
        return self.wait_for(lambda s, e, g, m: s >= step, f"step {step}", limit)

    def wait_gen(self, gen=1, limit=20):
        return self.wait_for(lambda s, e, g, m: g >= gen, f"gen {gen}", limit)


class Result:
    """What a freezerctl said: status, out, err, and data, the object of --json."""

    def __init__(self, completed):
        self.status = completed.returncode
        self.out = completed.stdout
        self.err = completed.stderr
        try:
            self.data = json.loads(self.out)
        except ValueError:
            self.data = None

    def __repr__(self):
        return f"exit {self.status}\n  out: {self.out.strip()}\n  err: {self.err.strip()}"


# --- mounts ---

_may_mount = False


def _need(result, what):
    if result != 0:
        raise Skip(f"{what}: {os.strerror(ctypes.get_errno())}")


def _own_mounts():
    """A mount namespace for this process and what it starts from now on; skips where there is none to be had."""
    global _may_mount
    if _may_mount:
        return
    uid, gid = os.geteuid(), os.getegid()
    _need(_libc.unshare(CLONE_NEWNS | (CLONE_NEWUSER if uid else 0)), "no mount namespace")
    if uid:
        for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
                file.write(text)
    _need(_libc.mount(None, b"/", None, ctypes.c_ulong(MS_REC | MS_PRIVATE), None), "mounts cannot be made private")
    _may_mount = True


# --- the scene ---


class Scene:
    """A private folder with one socket, and all processes that the test starts."""

    def __init__(self):
        self.root = tempfile.mkdtemp(prefix="fz", dir="/tmp")
        self.socket = self.path("s")
        self.state_dir = self.path("state")
        self.processes = []
        self.segments = set()
        self.mounted = False
        self._names = {}
        self._params_files = {}
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("FREEZER", "SLURM", "TORCHELASTIC", "XDG_"))}
        kept.update(FREEZER_SOCKET=self.socket, HOME=self.root, LC_ALL="C.UTF-8")
        for name in ("RANK", "WORLD_SIZE", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "NOTIFY_SOCKET", "LISTEN_FDS"):
            kept.pop(name, None)
        self.env = kept
        _scenes.append(self)

    def path(self, name):
        return os.path.join(self.root, name)

    def write(self, name, text):
        """Writes a file of the scene, returns its path."""
        with open(self.path(name), "w", encoding="utf-8") as out:
            out.write(text)
        return self.path(name)

    def small_state(self, kib):
        """Puts the state directory on a file system of its own that holds so much; skips where that cannot be done."""
        _own_mounts()
        os.mkdir(self.state_dir, 0o700)
        _need(_libc.mount(b"fz", self.state_dir.encode(), b"tmpfs", ctypes.c_ulong(0), f"size={kib}k,mode=0700".encode()),
              "no tmpfs")
        self.mounted = True

    def read_only_state(self, read_only):
        """Makes that file system read-only, or writable again."""
        flags = ctypes.c_ulong(MS_REMOUNT | (MS_RDONLY if read_only else 0))
        _need(_libc.mount(b"fz", self.state_dir.encode(), None, flags, None), "no remounting")

    def fill_state(self):
        """Takes all space of that file system. Returns the file that does."""
        path = os.path.join(self.state_dir, "fill")
        fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        size = 1 << 16
        while size:
            try:
                os.write(fd, b"x" * size)
            except OSError:
                size //= 2
        os.close(fd)
        return path

    def unique(self, name):
        self._names[name] = self._names.get(name, 0) + 1
        return name if self._names[name] == 1 else f"{name}.{self._names[name]}"

    def daemon(self, *options, **keywords):
        """Starts freezerd and waits until it is ready."""
        return Daemon(self, self.unique("freezerd"), "--socket", self.socket, "--state-dir", self.state_dir, *options,
                      **keywords)

    def params_file(self, params):
        """A file with these parameters; the same one for all that ask for the same."""
        text = "".join((p if isinstance(p, str) else "{} {} {}".format(*p)) + "\n" for p in params)
        if text not in self._params_files:
            self._params_files[text] = self.write(f"params.{len(self._params_files)}", text)
        return self._params_files[text]

    def trainer(self, params, steps, rank=0, world=1, run="run", env=None, quiet=False, **options):
        """
        Starts one rank. `params` is a list of (name, elements, flag) or names, `steps` the range; options are
        mock_trainer's with underscores: step_us=200, jitter=True. `quiet`: it prints no batches.
        """
        file = self.params_file(params)
        argv = [MOCK_TRAINER, "--run", run, "--rank", str(rank), "--world", str(world), "--params", file,
                "--steps", "{}:{}".format(*steps)]
        if not quiet:
            argv.append("--print")
        for option, value in options.items():
            argv.append("--" + option.replace("_", "-"))
            if value is not True:
                argv.append(str(value))
        return Trainer(self, self.unique(f"{run}.{rank}"), rank, argv, env)

    def trainers(self, params, steps, world, seed=1, **options):
        """Starts all ranks of a run."""
        return [self.trainer(params, steps, rank=rank, world=world, seed=seed + rank, **options)
                for rank in range(world)]

    def ctl(self, *words, limit=60, stdin=None, env=None):
        """Runs freezerctl to its end."""
        completed = subprocess.run([FREEZERCTL, *words], capture_output=True, text=True, timeout=seconds(limit),
                                   input=stdin or "", env=dict(self.env, **(env or {})),
                                   preexec_fn=_die_with_parent)
        return Result(completed)

    def ctl_json(self, *words, want=0, **keywords):
        """Runs freezerctl --json, requires an exit status and that its schema describes the object, and returns that."""
        result = self.ctl(*words, "--json", **keywords)
        equal(result.status, want, f"exit status of freezerctl {' '.join(words)}\n  {result!r}\n ")
        equal(schema.find_mistakes(result.data), [], f"freezerctl {' '.join(words)} by its schema")
        return result.data

    def end(self):
        """Ends everything in order, trainers before daemons, and requires that all of it ends well."""
        order = sorted((p for p in self.processes if p.alive()), key=lambda p: isinstance(p, Daemon))
        for process in order:
            process.cont()
            status = process.terminate()
            check(status == 0, f"{process.name} ended with status {status} after SIGTERM", process.errors()[-2000:])
        for process in self.processes:
            errors = process.errors()
            for word in ("Sanitizer", "runtime error:", "Assertion"):
                check(word not in errors, f"{process.name} reported an error", errors[-4000:])

    def show_logs(self):
        for process in self.processes:
            note(f"--- {process.name}, pid {process.pid}, status {process.popen.poll()}")
            note("\n".join(line[:300] for line in process.errors().splitlines()[-15:]))

    def destroy(self):
        for process in self.processes:
            if process.alive():
                process.kill()
        for path in self.segments:
            if os.path.exists(path):
                os.unlink(path)
        if self.mounted:
            _libc.umount2(self.state_dir.encode(), MNT_DETACH)
        shutil.rmtree(self.root, ignore_errors=True)
        if self in _scenes:
            _scenes.remove(self)


# --- the wire ---


class Control:
    """A control connection that stays open. Requests may overlap: send() several, then answer() each."""

    def __init__(self, path, limit=60):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(seconds(limit))
        self.socket.connect(path)
        self.last_id = 0
        self.parts = {}
        self.answers = {}
        self.events = []
        self._rest = b""

    def close(self):
        self.socket.close()

    def send(self, op, **fields):
        """Sends a request, returns its id."""
        self.last_id += 1
        request = {"id": self.last_id, "op": op, **fields}
        if self.last_id == 1:
            request["protocol"] = 1
        self.socket.sendall(json.dumps(request).encode() + b"\n")
        return self.last_id

    def send_at_once(self, requests):
        """Sends requests, (op, fields) each, so that freezerd reads all of them before it does anything; their ids."""
        lines = b""
        for op, fields in requests:
            self.last_id += 1
            lines += json.dumps({"id": self.last_id, "op": op, "protocol": 1, **fields}).encode() + b"\n"
        check(len(lines) <= 4096, "freezerd does not read so much at once")
        self.socket.sendall(lines)
        return list(range(self.last_id - len(requests) + 1, self.last_id + 1))

    def read_line(self):
        """The next line as an object, None at the end of the stream."""
        while b"\n" not in self._rest:
            try:
                data = self.socket.recv(1 << 20)
            except socket.timeout:
                raise Failure("freezerd did not answer in time") from None
            except ConnectionResetError:
                data = b""
            if not data:
                return None
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return json.loads(line)

    def _take(self):
        line = self.read_line()
        check(line is not None, "freezerd closed the connection")
        if "event" in line:
            self.events.append(line["event"])
        elif line.get("part"):
            collected = self.parts.setdefault(line["id"], {})
            for key, value in line.items():
                collected[key] = collected.get(key, []) + value if isinstance(value, list) else value
        else:
            for key, value in self.parts.pop(line["id"], {}).items():
                if isinstance(value, list):
                    line[key] = value + line.get(key, [])
                else:
                    line.setdefault(key, value)
            self.answers[line["id"]] = line

    def answer(self, number):
        """Waits for the whole answer to a request."""
        while number not in self.answers:
            self._take()
        return self.answers.pop(number)

    def accepted(self, number):
        """Waits until a change that waits for its ranks was accepted."""
        while number not in self.answers and not self.parts.get(number, {}).get("accepted"):
            self._take()

    def ask(self, op, **fields):
        return self.answer(self.send(op, **fields))

    def require(self, op, **fields):
        """Asks, and fails the test unless the answer is ok."""
        answer = self.ask(op, **fields)
        check(answer.get("ok") is True, f"{op} {fields} was refused", answer)
        return answer

    def wait_attached(self, run=None):
        """Waits until all ranks of a run, which need not exist yet, have attached; returns the answer."""
        fields = {"run": run} if run else {}
        answer = self.require("wait", **{"for": "attached"}, wait_ms=int(seconds(20) * 1000), **fields)
        check(answer["met"], "not all ranks have attached", answer)
        return answer

    def change(self, op, *patterns, wait=30, **fields):
        """A change, however large, that waits until every rank has applied it; `wait` 0: no waiting."""
        fields.setdefault("yes", True)
        if patterns:
            fields["patterns"] = list(patterns)
        return self.require(op, wait_ms=int(seconds(wait) * 1000), **fields)


# --- what several tests check ---


def by_batch(trainers):
    """
    {(step, epoch): (gen, mask)} over all ranks, after checking that no two ranks differ in a mask at any (step, epoch),
    and that no rank changes its mind within one.
    """
    seen = {}
    for trainer in trainers:
        for step, epoch, gen, mask in trainer.batches():
            first = seen.setdefault((step, epoch), (gen, mask, trainer.name))
            check(first[1] == mask, f"two masks at step {step}, epoch {epoch}",
                  f"{first[2]}: gen {first[0]} {first[1]}", f"{trainer.name}: gen {gen} {mask}")
    return {key: value[:2] for key, value in seen.items()}


def first_step_of(trainer, gen):
    """The first step at which a rank held `gen` or a newer one, None if it never did."""
    return next((step for step, _, held, _ in trainer.batches() if held >= gen), None)
