# security.py - who is served by whom: users, groups, the read-only socket; folders and files that others could touch.
import fcntl
import json
import os
import stat
import subprocess

import fz
from fz import check, equal
from rank import Rank, applied, full, run_of, settle

FOREVER = 10**9
NOBODY, GROUP, OTHER_UID = 65534, 54321, 54322
PARAMS = [("a.weight", 10, 1), ("a.bias", 1, 1), ("b.weight", 10, 1)]


def need_root():
    if os.geteuid() != 0:
        raise fz.Skip("only root can become somebody else")


def ctl_as(t, uid, gid, *words, groups=()):
    """freezerctl as somebody else."""
    done = subprocess.run([fz.FREEZERCTL, *words], capture_output=True, text=True, timeout=fz.seconds(30), env=t.env,
                          user=uid, group=gid, extra_groups=list(groups), check=False)
    return fz.Result(done)


def reachable(t):
    """Others may enter the scene's folder; what is in it has modes of its own. Skips where they cannot run our programs."""
    os.chmod(t.root, 0o755)
    for path in (fz.FREEZERCTL, fz.MOCK_TRAINER):
        folder = os.path.realpath(path)
        while folder != "/":
            if not os.stat(folder).st_mode & 0o001:
                raise fz.Skip(f"others cannot enter {folder}, and so not run freezerctl")
            folder = os.path.dirname(folder)


def refused_start(t, *options, status=None, words=(), env=None):
    """A freezerd that does not start, and says why in one line that has these words."""
    daemon = fz.Daemon(t, t.unique("refused"), *options, wait_ready=False, env=env)
    got = daemon.wait()
    check(got not in (0, None) and got > 0 and (status is None or got == status), f"exit status {got}", daemon.errors())
    for word in words:
        check(word in daemon.errors(), f"no '{word}' in what it says", daemon.errors())
    return daemon.errors()


def mode(path):
    return stat.S_IMODE(os.lstat(path).st_mode)


# --- who is served ---


@fz.test("another uid is refused with a sentence that names both sides; freezerctl exits 5, by mode and by credentials")
def stranger(t):
    need_root()
    t.daemon()
    reachable(t)
    result = ctl_as(t, NOBODY, NOBODY, "status")
    equal(result.status, 5, f"exit status of one whom the mode keeps out {result!r}")
    for word in ("uid 0", "gid 0", "0600", f"uid {NOBODY}", f"gid {NOBODY}"):
        check(word in result.err, f"no '{word}'", result)
    os.chmod(t.socket, 0o666)
    for verb in (("status",), ("freeze", "a"), ("watch",), ("ping",)):
        result = ctl_as(t, NOBODY, NOBODY, *verb)
        equal(result.status, 5, f"exit status of {verb}, of one whom the mode lets in {result!r}")
        for word in ("uid 0", "gid 0", "0666", f"uid {NOBODY}", f"gid {NOBODY}"):
            check(word in result.err, f"{verb}: no '{word}'", result)


@fz.test("--socket-group: 0660 and the group's; members by primary and by supplementary group are served, others not")
def group(t):
    need_root()
    daemon = t.daemon("--socket-group", str(GROUP))
    reachable(t)
    found = os.stat(t.socket)
    equal((found.st_uid, found.st_gid, mode(t.socket)), (0, GROUP, 0o660), "owner, group and mode of the socket")
    rank = t.trainer(PARAMS, (0, FOREVER), step_us=300)
    daemon.connect().wait_attached()
    for gid, groups in ((GROUP, ()), (NOBODY, (GROUP,)), (NOBODY, (7, GROUP, 9))):
        result = ctl_as(t, OTHER_UID, gid, "freeze", "a", "--yes", groups=groups)
        equal(result.status, 0, f"freeze by a member: gid {gid}, groups {groups} {result!r}")
        equal(ctl_as(t, OTHER_UID, gid, "auto", "a", groups=groups).status, 0, "and back")
    check(rank.alive(), "the trainer died")
    result = ctl_as(t, OTHER_UID, NOBODY, "status", groups=(7, 9))
    equal(result.status, 5, f"no member {result!r}")
    os.chmod(t.socket, 0o666)
    result = ctl_as(t, OTHER_UID, NOBODY, "status", groups=(7, 9))
    equal(result.status, 5, f"no member, let in by the mode {result!r}")
    check(f"members of group {GROUP}" in result.err, "whom it serves", result)


def as_member(function):
    """What `function` returns in a process of another user who is in the group; None if it failed."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(GROUP)
            os.setuid(OTHER_UID)
            os.write(writer, json.dumps(function()).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8") as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return json.loads(text) if text else None


def hand_over(t, fd, rank=0):
    """Hands back a segment that is locked as a living rank does it; tells what came, then cuts the file short."""
    fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, rank)
    back = Rank(t, resumes=True)
    back.send("resume", fds=[fd], incarnation=1, gen=1, step=5, epoch=0)
    first = back.expect("need", "welcome", "error")["type"]
    if first == "need":
        back.send("params", first=0, params=full(back.params))
        back.expect("welcome")
    owner, same = os.fstat(back.fds[-1]).st_uid, os.fstat(back.fds[-1]).st_ino == os.fstat(fd).st_ino
    back.ready(step=5)
    os.ftruncate(fd, 0)
    return [first, owner, same]


def dead_segment(t):
    """The bytes of a segment, whose run, rank and freezerd are gone, and its name."""
    daemon = t.daemon("--socket-group", str(GROUP))
    reachable(t)
    os.chmod(t.socket, 0o660)
    rank = Rank(t)
    name = rank.attach(step=5)["segment"]
    applied(rank, 1, 5)
    settle(daemon.connect())
    with open("/dev/shm" + name, "rb") as file:
        content = file.read()
    daemon.kill()
    rank.close()
    return content, name


@fz.test("a segment that another member of the group made is not carried on, neither handed over nor by its name")
def foreign_segment(t):
    need_root()
    content, name = dead_segment(t)

    def hand_over_copy():
        fd = os.memfd_create("copy", os.MFD_CLOEXEC)
        os.fchmod(fd, 0o600)
        os.write(fd, content)
        return hand_over(t, fd)

    daemon = t.daemon("--socket-group", str(GROUP))
    equal(as_member(hand_over_copy), ["need", 0, False], "what a foreign segment led to")
    control = daemon.connect()
    equal((run_of(control)["gen"], run_of(control)["incarnation"]), (1, 2), "gen and incarnation")
    control.change("freeze", "a", wait=0)
    daemon.kill()

    def plant():
        fd = os.open("/dev/shm" + name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        os.write(fd, content)
        return True

    check(as_member(plant), "the segment was not planted")
    t.segments.add("/dev/shm" + name)
    planted = os.open("/dev/shm" + name, os.O_RDWR)
    fcntl.lockf(planted, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 0)
    daemon = t.daemon("--socket-group", str(GROUP))
    rank = Rank(t)
    equal(rank.expect("need", "welcome")["type"], "need", "what a planted segment led to")
    rank.send("params", first=0, params=full(rank.params))
    check(rank.expect("welcome")["segment"] != name, "the name of a planted segment")
    rank.ready()
    os.ftruncate(planted, 0)
    os.close(planted)
    equal(daemon.connect().require("status")["status"]["gen"], 1, "gen")
    equal(daemon.terminate(), 0, "exit status")
    check(os.path.exists("/dev/shm" + name), "somebody else's file was removed")


@fz.test("the same bytes, made by the daemon's own user, are carried on")
def own_segment(t):
    need_root()
    content, _ = dead_segment(t)
    fd = os.memfd_create("copy", os.MFD_CLOEXEC)
    os.fchmod(fd, 0o600)
    os.write(fd, content)
    fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 0)
    control = t.daemon("--socket-group", str(GROUP)).connect()
    back = Rank(t, resumes=True)
    back.send("resume", fds=[fd], incarnation=1, gen=1, step=5, epoch=0)
    equal(back.expect("need", "welcome")["type"], "welcome", "what an own segment led to")
    equal(os.fstat(back.fds[-1]).st_ino, os.fstat(fd).st_ino, "the segment that came")
    back.ready(step=6)
    equal((run_of(control)["gen"], run_of(control)["incarnation"]), (1, 1), "gen and incarnation")


@fz.test("--socket-group of a group that is not there: exit 2, with a hint")
def no_group(t):
    refused_start(t, "--socket", t.socket, "--socket-group", "no such group", status=2, words=("no such group", "hint:"))
    refused_start(t, "--socket", t.socket, "--socket-group", str(2**32 - 1), status=2, words=("hint:",))


@fz.test("--socket-ro: queries, watch, wait and dry runs; changes and trainers are refused and told where to go")
def read_only(t):
    ro = t.path("ro")
    daemon = t.daemon("--socket-ro", ro)
    equal((mode(ro), mode(t.socket)), (0o600, 0o600), "modes")
    t.trainer(PARAMS, (0, FOREVER), step_us=300)
    control, looking = daemon.connect(), fz.Control(ro)
    control.wait_attached()
    for op, fields in (("ping", {}), ("runs", {}), ("status", {}), ("list", {}), ("explain", {"param": "a.bias"}),
                       ("is_frozen", {"patterns": ["a"]}), ("watch", {}), ("wait", {"for": "attached"}),
                       ("freeze", {"patterns": ["b"], "dry_run": True})):
        looking.require(op, **fields)
    rules = {"version": 1, "rules": [{"freeze": ["a"]}]}
    for op, fields in (("freeze", {"patterns": ["a"]}), ("unfreeze", {"patterns": ["a"]}), ("auto", {"patterns": ["a"]}),
                       ("pin", {"patterns": ["a"]}), ("unpin", {"patterns": ["a"]}), ("rules_load", {"rules": rules}),
                       ("rules_unload", {})):
        error = looking.ask(op, **fields, yes=True).get("error", {})
        equal(error.get("code"), "permission", f"code of {op} {error}")
        check(t.socket in error["message"], "where to go", error)
    equal(control.require("list", why="override")["params"], [], "overrides after all that was refused")
    result = t.ctl("freeze", "a", "--yes", "--socket", ro)
    equal(result.status, 5, f"exit status of freezerctl {result!r}")
    control.change("freeze", "a.bias")
    check(fz.wait_until(lambda: looking.events or looking.ask("ping") and looking.events, "an event"), "no event")
    here, t.socket = t.socket, ro
    rank = Rank(t, run="other")
    error = rank.expect("error")
    equal((error["error"]["code"], error["close"]), ("permission", True), "what a trainer is told")
    check(here in error["error"]["message"] and rank.line() is None, "where to go, and the end", error)
    t.socket = here
    equal([r["name"] for r in control.require("runs")["runs"]], ["run"], "runs")
    equal(daemon.terminate(), 0, "exit status")
    check(not os.path.exists(ro) and not os.path.exists(ro + ".lock"), "the second socket is left")


@fz.test("--socket-ro that another freezerd has, or that is the main one: it does not start, and leaves no socket")
def read_only_taken(t):
    first = t.daemon("--socket-ro", t.path("ro"))
    refused_start(t, "--state-dir", "none", "--socket", t.path("s2"), "--socket-ro", t.path("ro"),
                  words=(t.path("ro"), str(first.pid)))
    check(not os.path.exists(t.path("s2")) and not os.path.exists(t.path("s2.lock")), "a socket is left")
    refused_start(t, "--state-dir", "none", "--socket", t.path("s3"), "--socket-ro", t.path("s3"), words=(t.path("s3"),))
    check(not os.path.exists(t.path("s3")), "a socket is left")


# --- what others could touch ---


@fz.test("owner and mode of socket, lock, state folder, state file and segment, under any umask, at every moment")
def modes(t):
    for mask in (0o000, 0o077, 0o177):
        before = os.umask(mask)
        try:
            daemon = t.daemon()
        finally:
            os.umask(before)
        rank = t.trainer(PARAMS, (0, FOREVER), step_us=300)
        control = daemon.connect()
        control.wait_attached()
        control.change("freeze", "a.bias")
        control.change("auto", "a.bias")
        files = {t.socket: 0o600, t.socket + ".lock": 0o600, t.state_dir: 0o700}
        for folder, folders, names in os.walk(t.state_dir):
            files.update({os.path.join(folder, name): 0o700 for name in folders})
            files.update({os.path.join(folder, name): 0o600 for name in names})
        check(any(path.endswith("state.json") for path in files), "no state", files)
        segments = fz.mapped_segments(rank.pid)
        equal(len(segments), 1, "segments")
        files.update({path: 0o600 for path in segments})
        for path, want in files.items():
            equal(oct(mode(path)), oct(want), f"mode of {path} with umask {mask:04o}")
            equal(os.lstat(path).st_uid, os.geteuid(), f"owner of {path}")
        equal((rank.terminate(), daemon.terminate()), (0, 0), "exit statuses")


def folder(t, name, permissions, uid=None):
    path = t.path(name)
    os.mkdir(path)
    os.chmod(path, permissions)
    if uid is not None:
        os.chown(path, uid, uid)
    return path


@fz.test("a socket's or state's folder that others may write, or above which they may: refused with owner and mode, exit 5")
def writable_folders(t):
    for permissions in (0o777, 0o770, 0o702, 0o2775):
        open_one = folder(t, t.unique("open"), permissions)
        text = refused_start(t, "--state-dir", "none", "--socket", open_one + "/s", status=5, words=(open_one,))
        check(f"{permissions:04o}" in text, "the mode", text)
        equal(os.listdir(open_one), [], "what is left")
        below = os.path.join(open_one, "below")
        os.mkdir(below, 0o700)
        refused_start(t, "--state-dir", "none", "--socket", below + "/s", status=5, words=(open_one + " ",))
        refused_start(t, "--state-dir", open_one, "--socket", t.socket, status=5, words=("state directory", open_one))
        refused_start(t, "--state-dir", below, "--socket", t.socket, status=5, words=("state directory", open_one))
        check(not os.path.exists(t.socket), "a socket is left")
    sticky = folder(t, "sticky", 0o1777)
    daemon = fz.Daemon(t, "sticky", "--state-dir", sticky + "/state", "--socket", sticky + "/s")
    equal(daemon.terminate(), 0, "in a sticky folder, as /tmp is")


@fz.test("with --socket-group the socket's folder may be shared by all, as a volume of containers is; those above not")
def shared_folder(t):
    shared = folder(t, "shared", 0o2777)
    daemon = fz.Daemon(t, "shared", "--state-dir", "none", "--socket", shared + "/s", "--socket-group", str(os.getgid()))
    equal(mode(shared + "/s"), 0o660, "mode of the socket")
    equal(daemon.terminate(), 0, "exit status")
    below = os.path.join(shared, "below")
    os.mkdir(below, 0o700)
    refused_start(t, "--state-dir", "none", "--socket", below + "/s", "--socket-group", str(os.getgid()), status=5,
                  words=(shared + " ",))


@fz.test("a folder of somebody else, or reached through a link into one: refused with the owner")
def foreign_folders(t):
    need_root()
    foreign = folder(t, "foreign", 0o755, OTHER_UID)
    link = t.path("link")
    os.symlink(foreign, link)
    for path in (foreign, link):
        refused_start(t, "--state-dir", "none", "--socket", path + "/s", status=5, words=(foreign, str(OTHER_UID)))
        refused_start(t, "--state-dir", path, "--socket", t.socket, status=5, words=(foreign, str(OTHER_UID)))
        refused_start(t, "--state-dir", path + "/new", "--socket", t.socket, status=5, words=(foreign, str(OTHER_UID)))
    check(not os.path.exists(t.socket), "a socket is left")


PLANTED = {
    "a file": lambda path: open(path, "wb").close(),
    "a folder": os.mkdir,
    "a FIFO": os.mkfifo,
    "a link to nothing": lambda path: os.symlink("/nonexistent/target", path),
    "a link to a file": lambda path: os.symlink("/etc/hostname", path),
}


@fz.test("a file, folder, FIFO or link in the place of the socket or of its lock: refused by name, and left as it is")
def planted(t):
    for what, plant in PLANTED.items():
        for suffix in ("", ".lock"):
            path = t.path(t.unique("planted"))
            if what == "a file" and suffix:
                continue  # that is what a lock is
            plant(path + suffix)
            before = os.lstat(path + suffix)
            refused_start(t, "--state-dir", "none", "--socket", path, words=(path + suffix,))
            after = os.lstat(path + suffix)
            equal((after.st_ino, after.st_mode, after.st_size), (before.st_ino, before.st_mode, before.st_size), what)
    victim = t.write("victim", "precious")
    os.link(victim, t.path("hard.lock"))
    refused_start(t, "--state-dir", "none", "--socket", t.path("hard"), status=5, words=(t.path("hard.lock"),))
    with open(victim, encoding="utf-8") as kept:
        equal(kept.read(), "precious", "a file that the lock was another name of")
    if os.geteuid() == 0:
        lock = t.write("theirs.lock", "")
        os.chown(lock, OTHER_UID, OTHER_UID)
        refused_start(t, "--state-dir", "none", "--socket", t.path("theirs"), status=5, words=(lock,))


@fz.test("a file, FIFO or link in the place of a run's state: nothing hangs, nothing is written through it")
def planted_state(t):
    daemon = t.daemon()
    rank = t.trainer(PARAMS, (0, FOREVER), step_us=300)
    control = daemon.connect()
    control.wait_attached()
    control.change("freeze", "a.bias")
    state = next(os.path.join(d, "state.json") for d, _, names in os.walk(t.state_dir) if "state.json" in names)
    victim = t.write("victim", "precious")

    def planted(plant):
        try:
            plant(state + ".new")
        except FileExistsError: # freezerd is just writing its own
            return False
        return True

    for plant in (os.mkfifo, lambda path: os.symlink(victim, path), lambda path: os.link(victim, path)):
        fz.wait_until(lambda plant=plant: planted(plant), "a temporary file of another kind")
        control.change("freeze", "a.weight")
        control.change("auto", "a.weight")
        fz.wait_until(lambda: not os.path.lexists(state + ".new"), "the temporary file is gone")
    equal((rank.terminate(), daemon.terminate()), (0, 0), "exit statuses")
    for plant in (os.mkfifo, lambda path: os.symlink(victim, path), os.mkdir):
        if os.path.lexists(state):
            os.unlink(state)
        plant(state)
        daemon = t.daemon()
        rank = t.trainer(PARAMS, (0, FOREVER), step_us=300)
        control = daemon.connect()
        control.wait_attached()
        warnings = control.require("status")["status"]["warnings"]
        check(any("state" in text for text in warnings), "the warning of status", warnings)
        equal((rank.terminate(), daemon.terminate()), (0, 0), "exit statuses")
    with open(victim, encoding="utf-8") as kept:
        equal(kept.read(), "precious", "a file that the state was another name of")
    equal(t.ctl("ping").status, 3, "nobody is left")


if __name__ == "__main__":
    fz.main()
