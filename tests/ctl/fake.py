# fake.py - freezerctl against a server that says what no freezerd should: silence, ends, garbage, other versions.
import json
import os
import re
import socket
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "integration"))
import fz  # noqa: E402
from fz import check, equal  # noqa: E402

CLOSE = object()


class Server:
    """Answers each request with what `reply(request)` returns: a list of lines (str or object), CLOSE to hang up."""

    def __init__(self, t, reply):
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(t.socket)
        self.listener.listen(8)
        self.reply = reply
        self.requests = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            peer, _ = self.listener.accept()
            threading.Thread(target=self._talk, args=(peer,), daemon=True).start()

    def _talk(self, peer):
        try:
            self._answer(peer)
        except ConnectionError:
            pass  # freezerctl had read enough

    def _answer(self, peer):
        with peer, peer.makefile("rb") as lines:
            for line in lines:
                request = json.loads(line)
                self.requests.append(request)
                for answer in self.reply(request):
                    if answer is CLOSE:
                        peer.shutdown(socket.SHUT_RDWR)
                        return
                    if not isinstance(answer, bytes):
                        answer = json.dumps(dict({"id": request["id"]}, **answer)).encode() + b"\n"
                    peer.sendall(answer)


def changed(**fields):
    return dict({"ok": True, "run": "gpt2", "matched": 2, "matched_elements": 20, "changed": 2, "changed_elements": 20,
                 "gen": 5, "applied": True, "step": 7, "ranks": 1, "world": 1, "waited_ms": 3, "trainable_before": 50,
                 "trainable_after": 30, "n_params": 5, "elements": 100}, **fields)


@fz.test("requests: version, operation, run, who, and the fields of each command")
def requests(t):
    server = Server(t, lambda request: [{"ok": False, "error": {"code": "no_run", "message": "no"}}])
    for words, want in (
        (["freeze", "a", "!b", "--for", "3", "--reason", "why", "-n", "-y"],
         {"op": "freeze", "patterns": ["a", "!b"], "for": 3, "reason": "why", "dry_run": True, "yes": True,
          "wait_ms": 0}),
        (["unfreeze", "a", "--until-step", "9,000", "--until-epoch", "2", "--at-step", "4", "--force",
          "--include-baseline", "--timeout", "1.5"],
         {"op": "unfreeze", "until_step": 9000, "until_epoch": 2, "at_step": 4, "force": True, "include_baseline": True,
          "wait_ms": 1500}),
        (["auto", "a", "--no-wait"], {"op": "auto", "wait_ms": 0}),
        (["pin", "a", "--frozen", "--timeout", "1000000"], {"op": "pin", "value": "frozen", "wait_ms": 86400000}),
        (["pin", "a"], {"op": "pin", "value": None, "wait_ms": 30000}),
        (["unpin", "a"], {"op": "unpin"}), (["rules", "unload"], {"op": "rules_unload"}),
        (["list", "a", "--state", "frozen", "--why", "pin"], {"op": "list", "state": "frozen", "why": "pin"}),
        (["list", "--state", "frozen", "--depth", "2"], {"op": "list", "state": None, "patterns": None}),
        (["explain", "a.b"], {"op": "explain", "param": "a.b"}),
        (["is-frozen", "a"], {"op": "is_frozen", "patterns": ["a"]}),
    ):
        result = t.ctl("-r", "gpt2", *words)
        equal((result.status, result.err), (4, "freezerctl: no\n"), f"{words}")
        request = server.requests[-1]
        equal({key: request.get(key) for key in want}, want, f"request of {words}")
        equal((request["protocol"], request["run"]), (1, "gpt2"), "version and run")
        check(set(request["by"]) <= {"user", "host"}, "by", request)
    t.ctl("unpin", "a", env={"FREEZER_RUN": "llama"})
    equal(server.requests[-1]["run"], "llama", "FREEZER_RUN")


@fz.test("silence: 124 after the limit; an acknowledged change has time; a daemon that goes away is named (3)")
def silence(t):
    script = []
    Server(t, lambda request: script)
    result = t.ctl("runs", "--timeout", "0.2")
    equal(result.status, 124, "exit status")
    equal(result.err, f"freezerctl: freezerd at {t.socket} does not answer\n", "sentence")
    script[:] = [CLOSE]
    result = t.ctl("runs")
    equal((result.status, result.err), (3, f"freezerctl: freezerd at {t.socket} closed the connection\n"), "closed")
    script[:] = [{"part": True, "accepted": True, "gen": 5}, CLOSE]
    result = t.ctl("freeze", "a")
    equal(result.status, 3, "exit status of a change")
    check("hint: the change may have been made" in result.err, "hint", result)


@fz.test("garbage instead of an answer: exit 1 with a sentence; answers to other requests are passed over")
def garbage(t):
    script = []
    Server(t, lambda request: script)
    for line in (b"hello\n", b"{}{}\n", b'{"id":1,"id":1}\n', b"\xff\n", b"[" * 100 + b"\n", b"x" * 1100000 + b"\n"):
        script[:] = [line]
        result = t.ctl("runs", "--json")
        equal((result.status, result.data["error"]["code"]), (1, "failed"), f"{line[:20]!r}")
    script[:] = [b'{"id":99,"ok":true,"runs":[]}\n', {"ok": True, "runs": [{"name": "x"}]}]
    check("x" in t.ctl("runs").out, "another request's answer")
    script[:] = [{"ok": True}]
    for words in (["status"], ["runs"], ["list"], ["list", "--depth", "2"], ["explain", "a"], ["is-frozen", "a"],
                  ["ping"], ["rules", "show"], ["freeze", "a"], ["auto", "a"], ["wait", "--for", "idle"]):
        result = t.ctl(*words)
        check(result.status in (0, 1, 8, 124), f"{words}: an answer without fields", result)


@fz.test("another version: what it says is shown, exit 1")
def version(t):
    Server(t, lambda request: [b'{"type":"error","ok":false,"error":{"code":"protocol","message":"freezerd speaks '
                               b'protocol 2, you 1"},"protocol":2}\n', CLOSE])
    result = t.ctl("freeze", "a")
    equal((result.status, result.err), (1, "freezerctl: freezerd speaks protocol 2, you 1\n"), "mismatch")


@fz.test("a change in all its outcomes: the sentence and the exit status")
def outcomes(t):
    script = []
    Server(t, lambda request: script)
    for words, answer, status, out in (
        ("freeze a", changed(), 0, "gpt2: froze 2 parameters (20); gen 5 applied by 1/1 ranks at step 7"),
        ("freeze a", changed(waited_ms=1900), 0,
         "gpt2: froze 2 parameters (20); gen 5 applied by 1/1 ranks at step 7 (1.9 s)"),
        ("freeze a", changed(until_step=9000, until_epoch=2), 0,
         "gpt2: froze 2 parameters (20) until step 9,000 or epoch 2; gen 5 applied by 1/1 ranks at step 7"),
        ("freeze a", changed(matched=1, changed=0, nothing=True), 0,
         "gpt2: nothing to do, 1 parameter is frozen already"),
        ("unfreeze a", changed(changed=0, nothing=True), 0, "gpt2: nothing to do, 2 parameters are training already"),
        ("pin a", changed(changed=0, nothing=True), 0, "gpt2: nothing to do, 2 parameters are pinned so already"),
        ("freeze a", changed(applied=False, gen=None, step=None, ranks=0, world=2), 8,
         "gpt2: froze 2 parameters (20); queued until all ranks are attached"),
        ("freeze a", changed(applied=False, superseded_by=6, step=None), 8,
         "gpt2: froze 2 parameters (20); superseded by gen 6 before it was published"),
        ("auto a", changed(trainable_after=50, dropped=1), 0,
         "gpt2: 1 override dropped; changed 2 parameters (20); gen 5 applied by 1/1 ranks at step 7"),
        ("auto a", changed(changed=0, changed_elements=0, trainable_after=50, dropped=2), 0,
         "gpt2: 2 overrides dropped; gen 5"),
        ("freeze -n a", changed(dry_run=True, gen=None, changed=0, changed_elements=0, trainable_after=50), 0,
         "would change no bit of 2 parameters now; nothing changed"),
        ("auto -n a", changed(dry_run=True, gen=None, dropped=1, trainable_after=70), 0,
         "would drop 1 override; unfreeze 2 of 5 parameters (20); trainable 50 -> 70 (70.0 %); nothing changed"),
        ("rules unload", changed(trainable_after=70, next={"epoch": 3}), 0,
         "gpt2: rules unloaded; unfroze 2 parameters (20); gen 5 applied by 1/1 ranks at step 7; "
         "next change at epoch 3"),
    ):
        script[:] = [answer]
        result = t.ctl(*words.split())
        equal((result.status, result.out), (status, out + "\n"), f"{words} {answer}")
    script[:] = [changed(notes=["n"], warnings=["w"], undo="freezerctl auto a")]
    equal(t.ctl("freeze", "a").err, "freezerctl: note: n\nfreezerctl: warning: w\nundo: freezerctl auto a\n", "stderr")
    missing = [{"rank": rank, "reason": "stopped"} for rank in range(20)]
    script[:] = [changed(applied=False, ranks=0, world=20, missing=missing)]
    result = t.ctl("freeze", "a")
    check("  rank 15  stopped\n  and 4 more\n" in result.err, "many ranks", result)


@fz.test("exit statuses of the error codes on the wire; messages of several lines; events; all of it escaped")
def codes(t):
    script = []
    Server(t, lambda request: script)
    for code, status in (("internal", 1), ("bad_pattern", 2), ("no_match", 4), ("permission", 5), ("refused_pinned", 6),
                         ("needs_yes", 6), ("rules_invalid", 7), ("from_the_future", 1)):
        script[:] = [{"ok": False, "error": {"code": code, "message": "first\n  \x1bsecond", "hint": "third"}}]
        result = t.ctl("freeze", "a")
        equal((result.status, result.err), (status, "freezerctl: first\n  \\x1bsecond\nhint: third\n"), code)
        data = t.ctl_json("freeze", "a", want=status)
        equal(data["error"]["code"], code, "code")
    result = t.ctl("watch")
    equal(result.status, 1, "watch refused")
    event = {"time": "2026-01-09T14:02:35.000Z", "event": "applied", "run": "gpt2-ft", "gen": 4, "step": 4032,
             "froze": 12, "by": "ana"}
    script[:] = [{"ok": True}, {"event": event}, CLOSE]
    equal(json.loads(t.ctl("watch", "--json").out.splitlines()[0]), {"schema": "freezer.watch/1", **event}, "event")
    check(re.search(r"gpt2-ft  applied +gen 4 at step 4,032  ana\n", t.ctl("watch").out), "event as text")


fz.main()
