# online.py - every command of freezerctl on a run of two ranks: output, exit status, and what it is as JSON.
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "integration"))
import fz  # noqa: E402
import schema  # noqa: E402
from fz import check, equal  # noqa: E402

FOREVER = 10**9
BLOCK = [("ln_1.weight", 768), ("ln_1.bias", 768), ("attn.c_attn.weight", 1769472), ("attn.c_attn.bias", 2304),
         ("attn.c_proj.weight", 589824), ("attn.c_proj.bias", 768), ("ln_2.weight", 768), ("ln_2.bias", 768),
         ("mlp.c_fc.weight", 2359296), ("mlp.c_fc.bias", 3072), ("mlp.c_proj.weight", 2359296),
         ("mlp.c_proj.bias", 768)]
GPT2 = ([("model.embed_tokens.weight", 38597376, 0), ("model.embed_positions.weight", 786432, 1)]
        + [(f"model.layers.{i}.{name}", elements, 1) for i in range(12) for name, elements in BLOCK]
        + [("model.norm.weight", 768, 1), ("model.norm.bias", 768, 1)])
RULES = """version: 1
pin: ["model.norm"]
rules:
  - name: positions
    freeze: ["model.embed_positions"]
    until: {step: 900000000}
  - name: early-layers
    freeze: ["model.layers.{0..2}"]
    from: {step: 800000000}
"""


def start(t, world=2, step_us=1000, params=GPT2):
    daemon = t.daemon()
    ranks = t.trainers(params, (0, FOREVER), world, run="gpt2-ft", quiet=True, step_us=step_us)
    daemon.connect().wait_attached("gpt2-ft")
    return daemon, ranks


def said(result, out="", err="", status=0):
    """Requires an exit status, and that stdout and stderr are just that: N stands for a number, T for a time of day."""
    equal(result.status, status, f"exit status\n  {result!r}\n ")
    for what, got, want in (("stdout", result.out, out), ("stderr", result.err, err)):
        pattern = re.escape(want).replace("NNN", r"[\d,]+").replace("TTT", r"\d\d:\d\d:\d\d")
        pattern = pattern.replace("WAIT", r"( \([\d.]+ s\))?").replace("WHO", r"\S+").replace("JOB", r"\S+")
        check(re.fullmatch(pattern, got), f"{what} is not as expected", want, got)


# --- changes ---


@fz.test("freeze: what it says; again: nothing to do; -n: nothing is changed; auto: undone")
def freeze(t):
    start(t)
    said(t.ctl("freeze", "-n", "model.layers.4", "model.layers.5.mlp"),
         "would freeze 16 of 148 parameters (11.8M); trainable 85.8M -> 74.0M (59.5 %); nothing changed\n")
    said(t.ctl("freeze", "model.layers.4", "--reason", "plateau"),
         "gpt2-ft: froze 12 parameters (7.1M); gen 2 applied by 2/2 ranks at step NNNWAIT\n",
         "undo: freezerctl revert 1\n")
    said(t.ctl("freeze", "model.layers.4"), "gpt2-ft: nothing to do, 12 parameters are frozen already\n")
    said(t.ctl("freeze", "model.layers.4.mlp"),
         "gpt2-ft: already frozen by override WHO plateau; now held by your override; gen 3WAIT\n",
         "undo: freezerctl revert 2\n")
    said(t.ctl("auto", "model.layers.4"),
         "gpt2-ft: 2 overrides dropped; unfroze 12 parameters (7.1M); gen 4 applied by 2/2 ranks at step NNNWAIT\n")
    said(t.ctl("auto", "model.layers.4"), "gpt2-ft: nothing to do, no override holds 12 parameters\n")
    said(t.ctl("freeze", "-q", "model.layers.3.ln_1.bias"))
    said(t.ctl("thaw", "model.layers.3.ln_1", "--for", "500000000"),
         "gpt2-ft: unfroze 1 parameter (768) until step NNN; gen 6 applied by 2/2 ranks at step NNNWAIT\n",
         "undo: freezerctl revert 5\n")
    said(t.ctl("freeze", "model.layers.9", "--at-step", "700,000,000"),
         "gpt2-ft: from step 700,000,000 on; gen 7WAIT\n",
         "undo: freezerctl revert 6\n")


@fz.test("a change as JSON: the answer with its schema, -n too; --no-wait does not wait")
def change_json(t):
    start(t)
    data = t.ctl_json("freeze", "model.layers.4", "-n")
    equal((data["schema"], data["dry_run"], data["changed"], data["changed_elements"], data["gen"], data["n_params"]),
          ("freezer.freeze/1", True, 12, 7087872, None, 148), "dry run")
    data = t.ctl_json("freeze", "model.layers.4")
    equal((data["run"], data["gen"], data["applied"], data["ranks"], data["world"], data["undo"]),
          ("gpt2-ft", 2, True, 2, 2, "freezerctl revert 1"), "freeze")
    check(isinstance(data["step"], int), "no step", data)
    check("id" not in data and "ok" not in data, "the wire's own fields", data)
    again = t.ctl_json("freeze", "model.layers.4")
    equal((list(again), again["nothing"], again["gen"], again["applied"]), (list(data), True, 2, True), "nothing to do")
    equal((again["step"], again["missing"], again["changed_names"], again["undo"]), (None, [], [], None), "what is not")
    equal(t.ctl_json("freeze", "model.layers.4", "-n")["gen"], None, "gen of a dry run of nothing")
    equal(t.ctl_json("unfreeze", "model.layers.4", "--no-wait")["applied"], False, "--no-wait")
    said(t.ctl("wait", "--for", "idle"))
    said(t.ctl("freeze", "model.layers.4", "--no-wait"), "gpt2-ft: froze 12 parameters (7.1M); gen 4, not waited for\n",
         "undo: freezerctl revert 3\n")


@fz.test("refusals: no match (4), a large change (6), everything (6), the baseline (6), pins (6), bad patterns (2)")
def refusals(t):
    start(t)
    said(t.ctl("freeze", "layers.3"), "",
         "freezerctl: no parameter matches 'layers.3' in run gpt2-ft (148 parameters)\n"
         "hint: did you mean 'model.layers.3' (12 parameters)?\n", 4)
    result = t.ctl("freeze", "model.layers.1*")
    equal(result.status, 4, "exit status")
    check("hint: '*' is one name component; 'model.layers.1*.**' matches 36 parameters\n" in result.err, "hint", result)
    said(t.ctl("freeze", "model.layers"), "", "freezerctl: refused: it freezes 85.1M of the 85.8M elements that train\n"
         "hint: add --yes if that is meant\n", 6)
    equal(t.ctl("freeze", "model.layers", "--no-input").status, 6, "--no-input")
    equal(t.ctl_json("freeze", "model.layers", want=6)["error"]["code"], "needs_yes", "code")
    equal(t.ctl("freeze", "-y", "model.layers", "model.norm", "-n").status, 0, "--yes")
    result = t.ctl("freeze", "-y", "**")
    equal(result.status, 6, "exit status of a full freeze")
    check("--force" in result.err and "every parameter" in result.err, "a full freeze", result)
    said(t.ctl("unfreeze", "model.embed_tokens"), "",
         "freezerctl: refused: 1 of 148 parameters was frozen by the script, not by Freezer (LoRA?)\n"
         "  thawing it adds about 463 MB of gradients and AdamW state on each rank\n"
         "hint: 'freezerctl auto \"**\"' drops Freezer's own changes; else add --force --include-baseline\n", 6)
    equal(t.ctl("unfreeze", "model.embed_tokens", "--force", "--include-baseline").status, 0, "with both flags")
    said(t.ctl("pin", "model.layers.11", "--training"), "gpt2-ft: pinned 12 parameters (7.1M), training; gen 3WAIT\n",
         "undo: freezerctl revert 2\n")
    result = t.ctl("freeze", "model.layers.11")
    equal(result.status, 6, "exit status of freezing what is pinned")
    check("refused: 12 parameters are pinned by" in result.err, "pinned", result)
    check("hint: freezerctl unpin model.layers.11\n" in result.err, "hint", result)
    said(t.ctl("unpin", "model.layers.11"), "gpt2-ft: unpinned 12 parameters (7.1M); gen 4WAIT\n")
    said(t.ctl("unpin", "model.layers.11"), "gpt2-ft: nothing to do, 12 parameters are not pinned\n")
    result = t.ctl("freeze", "model.norm", "re:(")
    equal(result.status, 2, "exit status of a bad regular expression")
    check(result.err.startswith("freezerctl: pattern 're:(': "), "which of them is bad", result)
    said(t.ctl("freeze", "model**"), "", "freezerctl: pattern 'model**': '**' must stand between dots\n"
         "hint: '**' is any number of whole components: 'model.**'\n", 2)
    equal(t.ctl("freeze", "model.layers.1", "!model.layers.2", "-n").status, 0, "an exclusion")


@fz.test("a large change on a terminal is asked about: no is 6, yes does it")
def asking(t):
    start(t)
    for reply, status in (("n\n", 6), ("\x04", 6), ("y\n", 0)):
        master, slave = os.openpty()
        process = subprocess.Popen([fz.FREEZERCTL, "freeze", "model.layers"], env=t.env, stdin=slave, stderr=slave,
                                   stdout=subprocess.PIPE, text=True, preexec_fn=fz._die_with_parent)
        os.close(slave)
        text = b""
        while b"[y/N] " not in text:
            text += os.read(master, 4096)
        check(b"it freezes 85.1M of the 85.8M elements that train" in text, "the question", text)
        os.write(master, reply.encode())
        out, _ = process.communicate(timeout=fz.seconds(30))
        os.close(master)
        equal((process.returncode, "froze 144 parameters" in out), (status, status == 0), f"reply {reply!r}")


@fz.test("a rank that does not apply it: exit 8 with its name; it stays pending; wait --for applied")
def unconfirmed(t):
    _, ranks = start(t)
    ranks[1].stop()
    result = t.ctl("freeze", "model.layers.4", "--timeout", "0.5")
    equal(result.status, 8, f"exit status\n  {result!r}\n ")
    check(re.search(r"gen 2 is not confirmed by every rank; it stays pending\n  rank 1  \S.*\n"
                    r"hint: freezerctl wait --for applied=2\n", result.err), "the rank", result)
    check("rank 0" not in result.err, "a rank that has applied it", result)
    equal(t.ctl("wait", "--for", "applied=2", "--timeout", "0.2").status, 124, "wait")
    status = t.ctl_json("status")["runs"][0]
    equal([change["waiting_for"] for change in status["pending_changes"]], [[1]], "waiting for")
    result = t.ctl()
    check(re.search(r"^  Pending +gen 2  freeze by \S+ for .*, waits for rank 1$", result.out, re.M), "status", result)
    equal(t.ctl_json("freeze", "model.layers.5", "--timeout", "0.2", want=8)["applied"], False, "--json")
    ranks[1].cont()
    said(t.ctl("wait", "--for", "applied=2", "--timeout", "30"))
    said(t.ctl("wait", "--for", "in-sync", "--timeout", "30", "-v"), "gpt2-ft: step NNN, gen NNN\n")


@fz.test("Ctrl-C while a change waits: exit 130, and it says that the change stays")
def interrupted(t):
    _, ranks = start(t)
    ranks[1].stop()
    process = subprocess.Popen([fz.FREEZERCTL, "freeze", "model.layers.4"], env=t.env, stderr=subprocess.PIPE,
                               stdout=subprocess.PIPE, text=True, preexec_fn=fz._die_with_parent)
    fz.wait_until(lambda: t.ctl_json("runs")["runs"][0]["pending"] == 1, "accepted")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=fz.seconds(30))
    equal((process.returncode, out), (130, ""), err)
    equal(err, "freezerctl: interrupted; the change (gen 2) stays and may still be pending\n"
          "hint: 'freezerctl status' shows what is pending\n", "stderr")
    ranks[1].cont()


# --- looking ---


@fz.test("list: parameters, patterns, filters, columns, -q, --plain, JSON")
def list_flat(t):
    start(t)
    t.ctl("freeze", "model.layers.4", "--reason", "plateau")
    result = t.ctl("list", "model.norm", "model.layers.4.ln_1")
    said(result, """NAME                        STATE     ELEMENTS  SINCE  WHY
model.layers.4.ln_1.weight  frozen         768{0}  override WHO plateau
model.layers.4.ln_1.bias    frozen         768{0}  override WHO plateau
model.norm.weight           training       768  start
model.norm.bias             training       768  start
""".format(re.search(r"768( +[\d,]+)  override", result.out).group(1)))
    said(t.ctl("list", "-q", "model.norm"), "model.norm.weight\nmodel.norm.bias\n")
    said(t.ctl("list", "--plain", "-o", "name,state,elements,params,pending", "model.embed_tokens"),
         "model.embed_tokens.weight\tfrozen\t38597376\t1\tno\n")
    equal(len(t.ctl("list", "-q", "--state", "frozen").out.splitlines()), 13, "frozen")
    equal(len(t.ctl("list", "-q", "--why", "override").out.splitlines()), 12, "overrides")
    said(t.ctl("list", "--state", "pending"))
    data = t.ctl_json("list", "--state", "frozen", "--why", "baseline")
    equal((data["schema"], [p["name"] for p in data["params"]]), ("freezer.list/1", ["model.embed_tokens.weight"]), "")
    data = t.ctl_json("list")
    equal(len(data["params"]), 148, "all, from several parts")
    equal(list(data["params"][0]), ["name", "elements", "state", "pending", "since_step", "layer", "why"], "fields")
    said(t.ctl("list", "modle"), "", "freezerctl: no parameter matches 'modle' in run gpt2-ft (148 parameters)\n"
         "hint: did you mean 'model' (148 parameters)?\n", 4)


@fz.test("list --depth: a tree, alike neighbours in one row; ASCII; narrow terminals; colours")
def list_tree(t):
    start(t)
    t.ctl("freeze", "model.layers.{0..2}")
    result = t.ctl("list", "--depth", "2")
    since = re.search(r"21.3M( +[\d,]+)  ", result.out).group(1)
    tree = f"""NAME               STATE     ELEMENTS  SINCE  WHY
model              partial     124.4M
├─embed_tokens     frozen       38.6M  start  baseline
├─embed_positions  training      0.8M  start
├─layers.0..2      frozen       21.3M{since}  override WHO
├─layers.3..11     training     63.8M  start
└─norm             training      1.5K  start
"""
    said(result, tree)
    ascii_tree = tree.replace("├─", "|-").replace("└─", "`-")
    said(t.ctl("list", "--depth", "2", env={"LC_ALL": "C"}), ascii_tree)
    said(t.ctl("list", "--depth", "2", "-q"), "model\nmodel.embed_tokens\nmodel.embed_positions\nmodel.layers.{0..2}\n"
         "model.layers.{3..11}\nmodel.norm\n")
    equal([line.split()[0] for line in t.ctl("list", "--depth", "2", "--state", "frozen").out.splitlines()],
          ["NAME", "model", "├─embed_tokens", "├─layers.0..2".replace("├", "└")], "only frozen")
    said(t.ctl("list", "--state", "partial", "-o", "name,state"), "NAME   STATE\nmodel  partial\n")
    for words in (["list", "--depth", "3"], ["list"], ["status"], ["rules", "show"]):
        narrow = t.ctl(*words, env={"FREEZER_FORCE_TTY": "60", "TERM": "dumb"})
        check(words[0] == "status" or all(len(line) <= 60 for line in narrow.out.splitlines()), f"{words}", narrow)
        check("\x1b" not in narrow.out, "colours on a dumb terminal", narrow)
    wide = t.ctl("list", "--wide", env={"FREEZER_FORCE_TTY": "40"})
    check("model.layers.4.attn.c_attn.weight" in wide.out, "--wide", wide)
    color = {"FREEZER_FORCE_TTY": "80", "TERM": "xterm"}
    check("\x1b[36m" in t.ctl("list", env=color).out, "no colour on a terminal")
    for env in (dict(color, NO_COLOR="1"), dict(color, CLICOLOR="0"), {"TERM": "xterm"}):
        check("\x1b" not in t.ctl("list", env=env).out, f"colour with {env}")
    check("\x1b[36m" in t.ctl("list", "--color", "always", env={"NO_COLOR": "1"}).out, "--color always")
    check("\x1b[36m" in t.ctl("list", env={"CLICOLOR_FORCE": "1"}).out, "CLICOLOR_FORCE")
    check("\x1b" not in t.ctl("list", "--color", "never", env=color).out, "--color never")


@fz.test("explain, is-frozen: what they say, exit 0, 1, 4")
def explain(t):
    start(t)
    t.ctl("freeze", "model.layers.3", "--reason", "plateau")
    said(t.ctl("explain", "model.layers.3.mlp.c_fc.weight"),
         """model.layers.3.mlp.c_fc.weight is FROZEN since step NNN (gen 2)
  baseline   trains
  rules      none are loaded
  override   freeze model.layers.3, WHO (uid NNN) on WHO "plateau", TTT  <- decides
  pin        none
  next       nothing scheduled
  to change  freezerctl auto model.layers.3   (it would train)
""")
    data = t.ctl_json("explain", "model.norm.bias")
    equal((data["schema"], data["state"], data["since_step"]), ("freezer.explain/1", "training", None), "--json")
    equal([layer["layer"] for layer in data["layers"] if layer["decides"]], ["baseline"], "what decides")
    result = t.ctl("explain", "model.layers.3")
    equal(result.status, 4, "exit status of a module")
    check("name one parameter" in result.err, "a module", result)
    said(t.ctl("is-frozen", "model.layers.3"), "yes, 12 parameters are frozen (gen 2)\n")
    said(t.ctl("is-frozen", "-q", "model.layers.3"))
    said(t.ctl("is-frozen", "model.layers.3", "model.norm"),
         "no, 2 of 14 parameters are not frozen (gen 2): model.norm\n",
         "", 1)
    equal(t.ctl_json("is-frozen", "model.norm", want=1)["all"], False, "--json")
    equal(t.ctl("is-frozen", "x").status, 4, "exit status of no match")


@fz.test("status, runs: one screen, one line, as JSON; no run; a wrong run")
def status(t):
    daemon = t.daemon()
    said(t.ctl(), f"freezerd at {t.socket} has no run\n")
    equal(t.ctl_json("status"), {"schema": "freezer.status/1", "runs": []}, "no run")
    said(t.ctl("runs"))
    equal(t.ctl("list").status, 4, "exit status without a run")
    t.trainers(GPT2, (0, FOREVER), 2, run="gpt2-ft", quiet=True, step_us=1000)
    daemon.connect().wait_attached("gpt2-ft")
    equal(t.ctl("rules", "load", t.write("rules.yaml", RULES)).status, 0, "rules load")
    t.ctl("freeze", "model.layers.4", "--reason", "plateau")
    result = t.ctl()
    text = re.sub(r"[▁▂▃▄▅▆▇█]+", "CURVE", result.out)
    text = re.sub(r"step [\d,]+( \([\d.]+ ms/step\))?  ", "step  ", text)
    result.out = text
    said(result, """● gpt2-ft  job JOB  mock  step  2/2 ranks at gen 3
  Trainable  78.0M of 124.4M (62.7 %)  CURVE
  Frozen     model.embed_tokens (script),
             model.embed_positions (rule positions, until step 900,000,000),
             model.layers.4 (override WHO plateau)
  Next       step 800,000,000: rule early-layers begins, model.layers.0..2 are frozen
  Recent     TTT  gen 3  froze model.layers.4 (7.1M)  WHO "plateau"
             TTT  gen 2  loaded 2 rules from WHO  WHO
""")
    equal(t.ctl("status", "-q").out, "gpt2-ft\n", "-q")
    check(re.search(r"^  Rank 1 +pid \d+, attached, gen 3, step", t.ctl("status", "-v").out, re.M), "-v")
    check(t.ctl(env={"LC_ALL": "C"}).out.startswith("* gpt2-ft"), "ASCII")
    data = t.ctl_json("status")["runs"][0]
    equal((data["name"], data["trainable_elements"], data["elements"]), ("gpt2-ft", 77968128, 124439808), "--json")
    said(t.ctl("runs", "-o", "run,framework,ranks,trainable,gen"), "RUN      FRAMEWORK  RANKS  TRAINABLE  GEN\n"
         "gpt2-ft  mock         2/2     62.7 %    3\n")
    said(t.ctl("ps", "--plain", "-o", "run,trainable,params,profile"), "gpt2-ft\t77968128\t148\towned\n")
    equal(t.ctl_json("runs")["schema"], "freezer.runs/1", "--json")
    result = t.ctl("status", "-r", "llama")
    equal(result.status, 4, "exit status of a wrong run")
    check("no run 'llama'" in result.err and "gpt2-ft" in result.err, "a wrong run", result)
    equal(t.ctl("status", env={"FREEZER_RUN": "gpt2"}).status, 0, "a unique start")
    t.trainers([("x", 1, 1)], (0, FOREVER), 1, run="other", quiet=True, step_us=1000)
    daemon.connect().wait_attached("other")
    check("gpt2-ft" in t.ctl().out and "other" in t.ctl().out, "one screen per run")
    equal(sorted(t.ctl("status", "-q").out.split("\n")), ["", "gpt2-ft", "other"], "-q: names only")


@fz.test("an override that has ended: from the first answer after it, with the step and the cause")
def override_ends(t):
    start(t)
    end = t.ctl_json("freeze", "model.layers.4", "--for", "200")["until_step"]
    equal(t.ctl("wait", "--for", f"step={end + 5}").status, 0, "wait")
    since = t.ctl_json("explain", "model.layers.4.mlp.c_fc.weight")
    equal((since["state"], since["since_step"]), ("training", end), "since")
    check(re.search(r"unfroze model\.layers\.4 \(7\.1M\): the override of \S+ ends\b", t.ctl().out), "cause", t.ctl())


@fz.test("status without a daemon: exit 3, and what the segment of a living run says")
def last_known(t):
    daemon, ranks = start(t)
    t.ctl("freeze", "model.layers.4")
    daemon.kill()
    result = t.ctl("-r", "gpt2-ft")
    equal(result.status, 3, "exit status")
    check(re.search(r"○ gpt2-ft  job \S+  last known: step [\d,]+, 2/2 ranks alive\n"
                    r"  Trainable  78.8M of 124.4M \(63.3 %\) at gen 2\n"
                    r"  Frozen     model.embed_tokens.*, model.layers.4", result.out), "last known", result)
    check("no freezerd is running" in result.err, "error", result)
    check("gpt2-ft" not in t.ctl("-r", "gpt3").out, "another run")


# --- rules ---


@fz.test("rules load, show, check --against, unload")
def rules(t):
    start(t)
    good = t.write("rules.yaml", RULES)
    equal(t.ctl("rules", "show").status, 4, "exit status of show without rules")
    equal(t.ctl("rules", "unload").status, 4, "exit status of unload without rules")
    said(t.ctl("rules", "load", "-n", good),
         "would load 2 rules; freeze 1 of 148 parameters (0.8M); trainable 85.8M -> 85.1M (68.4 %); nothing changed\n")
    said(t.ctl("rules", "load", good), "gpt2-ft: 2 rules; froze 1 parameter (0.8M); gen 2 applied by 2/2 ranks at step "
         "NNNWAIT; next change at step 800,000,000\n", "undo: freezerctl revert 1\n")
    said(t.ctl("rules", "load", good), "gpt2-ft: nothing to do, these rules are loaded already\n")
    said(t.ctl("rules", "show"), """RULE          ACTION  MATCHES  WINDOW            NOW
positions     freeze        1  [0, 900,000,000)  active
early-layers  freeze       36  [800,000,000, -)  waits
""")
    check(re.search(r"^source +\S+rules.yaml, loaded by .*\nprofile +owned\npin +model.norm$",
                    t.ctl("rules", "show", "-v").out, re.M), "-v")
    data = t.ctl_json("rules", "show")
    equal((data["schema"], [rule["matches"] for rule in data["rules"]], data["pins"]),
          ("freezer.rules-show/1", [1, 36], ["model.norm"]), "--json")
    slips = t.write("slips.yaml", RULES.replace("model.layers.{", "model.layer.{"))
    said(t.ctl("rules", "check", slips, "--against", "gpt2-ft"), "",
         f"{slips}:8:14: error: 'model.layer.{{0..2}}' matches nothing in gpt2-ft; "
         """did you mean 'model.layers.{0..2}'?
    freeze: ["model.layer.{0..2}"]
             ^~~~~~~~~~~~~~~~~~~~
""", 7)
    said(t.ctl("rules", "check", good, "--against", "gpt2-ft"),
         f"{good}: no errors, 2 rules, profile owned, against gpt2-ft\n")
    equal(t.ctl("rules", "check", good, "--against", "llama").status, 4, "exit status against a wrong run")
    equal(t.ctl("rules", "load", slips).status, 7, "exit status of loading it")
    equal(t.ctl_json("rules", "load", slips, want=7)["error"]["details"][0]["line"], 8, "--json")
    both = t.write("both.yaml", RULES.replace("model.layers.{", "model.layer.{").replace("from:", "form:"))
    check_both, load_both = t.ctl("rules", "check", both, "--against", "gpt2-ft"), t.ctl("rules", "load", both)
    equal((load_both.status, load_both.err), (7, check_both.err), "what load says of a wrong file")
    equal(load_both.err.count(": error: "), 2, "mistakes of the document and of the run together")
    result = t.ctl("rules", "load", both, "-r", "llama")
    equal((result.status, result.err.count(": error: ")), (7, 1), "without the run")
    equal(t.ctl("rules", "load", both, "-S", t.path("none")).err, result.err, "without freezerd")
    equal(t.ctl("rules", "load", slips, "--allow-missing").status, 0, "--allow-missing")
    said(t.ctl("rules", "unload"), "gpt2-ft: rules unloaded; unfroze 1 parameter (0.8M); gen 4 applied by 2/2 ranks at "
         "step NNNWAIT\n")


# --- waiting and watching ---


@fz.test("wait: each condition, and the limit (124); a run that does not exist yet")
def wait(t):
    daemon = t.daemon()
    said(t.ctl("wait", "--for", "attached", "--timeout", "0.1"), "",
         "freezerctl: timed out after 100 ms: there is no run\nhint: 'freezerctl runs' lists the runs\n", 124)
    early = subprocess.Popen([fz.FREEZERCTL, "wait", "--for", "attached", "--json"], env=t.env, text=True,
                             stdout=subprocess.PIPE, preexec_fn=fz._die_with_parent)
    ranks = t.trainers(GPT2, (0, FOREVER), 2, run="gpt2-ft", quiet=True, step_us=1000)
    data = json.loads(early.communicate(timeout=fz.seconds(30))[0])
    equal((early.returncode, data["schema"], data["met"], data["run"]), (0, "freezer.wait/1", True, "gpt2-ft"), "wait")
    said(t.ctl("wait", "--for", "step=200", "--timeout", "30"))
    said(t.ctl("wait", "--for", "training=model.norm"))
    said(t.ctl("wait", "--for", "frozen=model.embed_tokens"))
    for condition in ("applied", "idle", "in-sync"):
        said(t.ctl("wait", "--for", condition, "--timeout", "30"))
    result = t.ctl("wait", "--for", "frozen=model.norm", "--timeout", "0.1")
    said(result, "", "freezerctl: timed out after 100 ms: run gpt2-ft does not have all of them frozen (step NNN)\n"
         "hint: 'freezerctl status' shows where it is\n", 124)
    equal(t.ctl_json("wait", "--for", "step=900,000,000", "--timeout", "0", want=124)["error"]["code"], "timed_out", "")
    equal(t.ctl("wait", "--for", "frozen=modle").status, 4, "exit status of no match")
    t.ctl("freeze", "model.layers.4")
    for rank in ranks:
        rank.terminate()
    said(t.ctl("wait", "--for", "detached", "--timeout", "30"))
    ended = t.ctl_json("runs")["runs"][0]
    equal((ended["live"], ended["gen"], t.ctl_json("status")["runs"][0]["gen"]), (False, 2, 2), "of a run that ended")
    equal(t.ctl_json("is-frozen", "model.layers.4")["gen"], 2, "gen of what it had in the end")
    daemon.terminate()


@fz.test("watch: a line per event, as JSON one object; Ctrl-C ends it with 130; the end of freezerd with 3")
def watch(t):
    daemon, _ = start(t)
    watchers = [subprocess.Popen([fz.FREEZERCTL, "watch", *words], env=t.env, text=True, stdout=subprocess.PIPE,
                                 stderr=subprocess.PIPE, preexec_fn=fz._die_with_parent)
                for words in ([], ["--json"], ["--plain"])]
    first = [None] * 3
    deadline = time.monotonic() + fz.seconds(20)
    while None in first and time.monotonic() < deadline:  # until all of them listen
        t.ctl("freeze", "model.layers.4")
        t.ctl("auto", "model.layers.4")
        for i, watcher in enumerate(watchers):
            os.set_blocking(watcher.stdout.fileno(), False)
            first[i] = first[i] or watcher.stdout.readline() or None
    check(None not in first, "no event", first)
    check(re.match(r"\d\d:\d\d:\d\d  gpt2-ft  \w+ +\S.*  gen \d+", first[0]), "line", first[0])
    data = json.loads(first[1])
    equal((data["schema"], data["run"]), ("freezer.watch/1", "gpt2-ft"), "--json")
    equal(schema.find_mistakes(data), [], "an event by its schema")
    check(re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", data["time"]), "time", data)
    equal(len(first[2].split("\t")), 4, "--plain")
    watchers[0].send_signal(signal.SIGINT)
    equal((watchers[0].wait(fz.seconds(20)), watchers[0].stderr.read()), (130, ""), "Ctrl-C")
    daemon.terminate()
    equal(watchers[1].wait(fz.seconds(20)), 3, "the end of freezerd")
    check("closed the connection" in watchers[1].stderr.read(), "sentence")
    watchers[2].wait(fz.seconds(20))


@fz.test("ping, version with a daemon")
def ping(t):
    daemon = t.daemon()
    check(re.fullmatch(r"freezerd \S+ answers in [\d.]+ m?s\n", t.ctl("ping").out), "ping")
    said(t.ctl("ping", "-q"))
    data = t.ctl_json("ping")
    equal((data["schema"], data["protocol"], data["pid"]), ("freezer.ping/1", 1, daemon.pid), "--json")
    check(re.search(r"; server freezerd \S+, protocol 1\n$", t.ctl("version").out), "version")
    version = t.ctl_json("version")["server"]["version"]
    check(re.fullmatch(rf"freezerctl\t\S+\t1\nlibfreezer\t\S+\t\d+\nfreezerd\t{version}\t1\n",
                       t.ctl("version", "--plain").out), "version --plain")
    daemon.stop()
    result = t.ctl("ping", "--timeout", "0.3")
    equal(result.status, 124, f"exit status of a stopped daemon\n  {result!r}\n ")
    check(f"freezerd at {t.socket} does not answer" in result.err, "sentence", result)
    equal(t.ctl("wait", "--for", "idle", env={"FREEZER_RUN": "x"}, limit=30).status, 124, "wait on a stopped daemon")
    daemon.cont()


COMPLETE = """complete() { :; }
eval "$(freezerctl completion bash)"
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_freezerctl
printf '%s\\n' "${COMPREPLY[@]}"
"""


@fz.test("completion: commands, options, their values, runs, parameters a level at a time; bash evaluates no name")
def completion(t):
    start(t, world=1, params=[*GPT2, ("odd.$(touch${IFS}evil).w", 1, 1), ("odd.b", 1, 1)])

    def words(*typed):
        result = t.ctl("completion", "words", "--", *typed)
        equal((result.status, result.err), (0, ""), f"completion of {typed}")
        return [line.split("\t")[0] for line in result.out.splitlines()]

    for typed, want in ((["un"], ["unfreeze", "unpin"]), (["ru"], ["runs", "rules", "run"]), (["rules", "l"], ["load"]),
                        (["list", "--st"], ["--state"]), (["list", "--state", "f"], ["frozen"]), (["wa"], ["watch", "wait"]),
                        (["-r", "g"], ["gpt2-ft"]), (["wait", "--for", "at"], ["attached"]), (["help", "env"], ["environment"]),
                        (["--wide", "freeze", "-y", "model.n"], ["model.norm", "model.norm.weight", "model.norm.bias"]),
                        (["freeze", "model.layers.1"], ["model.layers.1", "model.layers.10", "model.layers.11"]),
                        (["freeze", "model.layers.3.mlp.c_fc."], [f"model.layers.3.mlp.c_fc.{x}" for x in ("weight", "bias")]),
                        (["-r", "none", "freeze", "model."], []), (["-S", t.path("none"), "freeze", "m"], []),
                        (["rules", "load", "x"], []), (["freeze", "nothing"], [])):
        equal(words(*typed), want, f"candidates for {typed}")
    check("freeze" in words(""), "all commands")
    check({"--depth", "--json"} <= set(words("list", "--")), "options")
    equal(t.ctl("completion", "csh").status, 2, "a shell that nobody knows")
    for shell in ("zsh", "fish"):
        check("freezerctl completion words -- " in t.ctl("completion", shell).out, shell)
    bash = shutil.which("bash")
    if bash:
        done = subprocess.run([bash, "-c", COMPLETE, "bash", "freezerctl", "freeze", "odd."], capture_output=True, text=True,
                              env=dict(t.env, PATH=os.path.dirname(fz.FREEZERCTL) + ":" + os.environ["PATH"]), cwd=t.root,
                              check=False)
        equal((done.stdout.splitlines(), done.stderr), (["odd.\\$\\(touch\\$\\{IFS\\}evil\\)", "odd.b"], ""), "in bash")
        check(not os.path.exists(t.path("evil")), "bash ran the name of a parameter")


@fz.test("names from outside do not reach the terminal as they are")
def hostile_names(t):
    start(t, params=[("größe.w", 10, 1), ("größe.\\x1b", 10, 1), ("b", 10, 1)])
    check("größe.w" in t.ctl("list").out, "UTF-8")
    for words, name in ((["list"], "größe.w"), (["list", "--depth", "9"], "größe")):
        ascii_name = name.replace("ö", "\\xc3\\xb6").replace("ß", "\\xc3\\x9f")
        check(f"{ascii_name} " in t.ctl(*words, env={"LC_ALL": "C"}).out, "a locale that has no such letter", words)
        check("\\x1b " in t.ctl(*words, env={"LC_ALL": "C"}).out, "a backslash is one", words)
        check(name in t.ctl(*words, "--plain", env={"LC_ALL": "C"}).out, "full names for programs", words)
    result = t.ctl("freeze", "b", "--reason", "a\x1b[31mred")
    check("\x1b" not in result.out + result.err + t.ctl("explain", "b").out + t.ctl().out, "escapes", result)


fz.main()
