# offline.py - freezerctl without a daemon: help, mistakes on the command line, rules check, simulate, run, no daemon.
import json
import os
import re
import stat
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "integration"))
import fz  # noqa: E402
import schema  # noqa: E402
from fz import check, equal  # noqa: E402

SOURCE = os.environ.get("top_srcdir", ".")
NAMES = ("model.embed_tokens.weight 1000 0\nmodel.embed_positions.weight 100\n"
         + "".join(f"model.layers.{i}.w 100\nmodel.layers.{i}.b 10\n" for i in range(4)) + "model.norm.weight 5\n")
RULES = """version: 1
pin: ["model.norm"]
rules:
  - name: positions
    freeze: ["model.embed_positions"]
    until: {step: 9000}
  - name: early-layers
    freeze: ["model.layers.{0..2}"]
    from: {step: 1200}
"""


def expect(result, status, out=None, err=None):
    """Requires an exit status and, unless None, exactly these lines."""
    equal(result.status, status, f"exit status\n  {result!r}\n ")
    if out is not None:
        equal(result.out, out, "stdout")
    if err is not None:
        equal(result.err, err, "stderr")


def usual_place(t):
    """Takes the scene's socket away, so that freezerctl looks at the usual places, which are the scene's own."""
    del t.env["FREEZER_SOCKET"]
    t.env.update(FREEZERD=fz.FREEZERD, XDG_RUNTIME_DIR=t.path("xdg"))
    os.mkdir(t.path("xdg"), 0o700)
    return t.path("xdg/freezer/freezerd.sock")


def commands(t):
    return t.ctl_json("help")["commands"]


# --- help ---

TOPICS = ("exit-codes", "environment", "patterns", "output", "options")


@fz.test("help: examples first, at most 24 lines of 80 columns, for every command and topic")
def help_pages(t):
    words = [[]] + [command["name"].split() for command in commands(t)]
    words += [[topic] for topic in TOPICS]
    for page in words:
        result = t.ctl("help", *page)
        expect(result, 0, err="")
        lines = result.out.splitlines()
        check(len(lines) <= 24, f"help {page} has {len(lines)} lines")
        check(all(len(line) <= 80 for line in lines), f"help {page} is too wide", result)
        if len(page) == 0 or page[0] not in TOPICS:
            check(all("freezerctl" in line for line in lines[:2]), f"help {page}: no examples first", result)
    for command in commands(t):
        equal(t.ctl(*command["name"].split(), "--help").out, t.ctl("help", *command["name"].split()).out, "--help")
    equal(t.ctl("--help").out, t.ctl("help").out, "--help")


@fz.test("help names only commands that exist, and each of them")
def help_overview(t):
    text = t.ctl("help").out
    for command in commands(t):
        check(re.search(rf"^  {command['name'].split()[0]} ", text, re.M), f"{command['name']} is missing", text)
    for later in ("verify", "doctor", "top", "timeline", "metrics", "reload"):
        check(not re.search(rf"\b{later}\b", text), f"{later} is not there yet", text)
        result = t.ctl(later)
        equal(result.status, 2, f"exit status of {later}")
        check(f"unknown command '{later}'" in result.err, "no sentence", result)


@fz.test("examples of the help are accepted by the parser")
def examples(t):
    for command in commands(t):
        for example in command["examples"]:
            words = re.findall(r"'[^']*'|\S+", re.split(r" [|&]", example)[0])[1:]
            result = t.ctl(*[word.strip("'") for word in words])
            check(result.status != 2 or "names.txt" in result.err, f"'{example}' is no valid command", result)


@fz.test("the schema of --json knows every command")
def schema_is_complete(t):
    names = {f"freezer.{command['name'].replace(' ', '-')}/1" for command in commands(t)}
    equal(schema.all_names(), names - {"freezer.run/1", "freezer.completion/1"} | {"freezer.error/1"}, "schemas")


@fz.test("the man page knows every command, option, alias and exit status")
def man_page(t):
    with open(os.path.join(SOURCE, "client/ctl/freezerctl.1"), encoding="utf-8") as file:
        page = file.read().replace("\\-", "-").replace("\\&", "")
    data = t.ctl_json("help")
    for command in data["commands"]:
        check(re.search(rf"^\.B[A-Z]* \"?{command['name']}\b", page, re.M), f"command {command['name']}")
        if command["alias"]:
            check(command["alias"] in page, f"alias {command['alias']}")
        for option in command["options"]:
            check(f"--{option}" in page, f"option --{option} of {command['name']}")
    for option in data["global_options"]:
        check(f"--{option}" in page, f"option --{option}")
    for line in t.ctl("help", "exit-codes").out.splitlines()[:11]:
        check(re.search(rf"^\.B {line.split()[0]}$", page, re.M), f"exit status {line}")
    for line in t.ctl("help", "environment").out.splitlines():
        if re.match(r"[A-Z]", line):
            check(line.split()[0] in page or line.startswith("Without"), f"variable {line}")


# --- mistakes ---

MISTAKES = [
    (["freze", "x"], "unknown command 'freze'", "did you mean 'freeze'?"),
    (["rules"], "rules needs a command", "rules takes one of: check, load, show, unload"),
    (["rules", "chek"], "unknown command 'rules chek'", "did you mean 'rules check'?"),
    (["sim"], "unknown command 'sim'", "did you mean 'simulate'?"),
    (["list", "--dept", "2", "--jsno"], "unknown option '--jsno'", "did you mean '--json'?"),
    (["--depth", "2", "list"], "unknown option '--depth'", "options of a command come after its name"),
    (["freeze"], "freeze needs PATTERN...", "freezerctl freeze model.layers.4 --reason plateau"),
    (["explain", "a", "b"], "explain takes no 'b'", "freezerctl explain model.layers.3.mlp.c_fc.weight"),
    (["freeze", "--for", "x", "a"], "--for: 'x' is not a whole number in range",
     "'freezerctl help freeze' lists the options"),
    (["freeze", "--for", "1", "--until-step", "2", "a"], "--for and --until-step both say at which step it ends", None),
    (["freeze", "--at-step", "5", "--until-step", "5", "a"], "it would end (--until-step) before it begins (--at-step)",
     None),
    (["pin", "--frozen", "--training", "a"], "--frozen and --training exclude each other", None),
    (["list", "-o", "nmae"], "unknown column 'nmae'", "did you mean 'NAME'?"),
    (["runs", "-o", "xyzzy"], "unknown column 'xyzzy'", "'-o help' lists the columns"),
    (["list", "--state", "frzen"], "--state: unknown value 'frzen'", "did you mean 'frozen'?"),
    (["list", "--why", "xyzzy"], "--why: unknown value 'xyzzy'", "rule, override, baseline, pin"),
    (["wait"], "wait needs --for CONDITION", "freezerctl wait --for attached --timeout 60"),
    (["wait", "--for", "atached"], "--for: unknown condition 'atached'", "did you mean 'attached'?"),
    (["wait", "--for", "step"], "--for: step needs a value, step=N", None),
    (["wait", "--for", "idle=1"], "--for: idle takes no value", None),
    (["wait", "--for", "step=1.5"], "--for: '1.5' is not a whole number in range", None),
    (["status", "--color", "blue"], "--color: unknown value 'blue'", "always, never or auto"),
    (["status", "--json", "--plain"], "--json and --plain exclude each other", None),
    (["status", "--timeout", "soon"], "--timeout: 'soon' is not a number of seconds",
     "'freezerctl help status' lists the options"),
    (["help", "freze"], "no help for 'freze'", "did you mean 'freezerctl help freeze'?"),
    (["help", "exitcodes"], "no help for 'exitcodes'", "did you mean 'freezerctl help exit-codes'?"),
]


@fz.test("mistakes on the command line: exit 2, one sentence, one hint, nothing on stdout")
def mistakes(t):
    for words, sentence, hint in MISTAKES:
        result = t.ctl(*words)
        expected = f"freezerctl: {sentence}\n" + (f"hint: {hint}\n" if hint else "")
        json_too = "--json" in words
        expect(result, 2, None if json_too else "", expected)


@fz.test("mistakes with --json: the sentence on stderr, a freezer.error/1 on stdout")
def mistakes_as_json(t):
    for words, sentence, hint in MISTAKES:
        if "--plain" in words:
            continue
        result = t.ctl(*words, "--json") if words[0] != "--depth" else t.ctl("--json", *words)
        want = {"schema": "freezer.error/1", "error": {"code": "usage", "message": sentence, "hint": hint}, "exit": 2}
        if words[0] == "list" and "-o" in words or words[0] == "runs":
            continue  # --json has no columns to be wrong about
        equal(result.data, want, f"freezerctl {' '.join(words)}")
        check(sentence in result.err, "no sentence on stderr", result)


# --- no daemon ---


@fz.test("no daemon: exit 3 with every place that was tried; --json says it as an object; version does without")
def no_daemon(t):
    hint = "hint: 'systemctl --user start freezerd', or 'freezerctl run -- python train.py'\n"
    expect(t.ctl("runs"), 3, "", f"freezerctl: no freezerd is running\n  tried {t.socket}  no such socket\n" + hint)
    for words in (["status"], ["list"], ["freeze", "a"], ["rules", "show"], ["watch"], ["wait", "--for", "idle"],
                  ["ping"], ["explain", "a"], ["is-frozen", "a"], ["unpin", "a"], ["auto", "a"], ["rules", "unload"]):
        equal(t.ctl(*words).status, 3, f"exit status of {words}")
        data = t.ctl_json(*words, want=3)
        equal((data["schema"], data["error"]["code"], data["exit"]), ("freezer.error/1", "no_daemon", 3), f"{words}")
    os.mkdir(t.path("run"), 0o755)
    result = t.ctl("runs", env={"FREEZER_SOCKET": "", "XDG_RUNTIME_DIR": t.path("run")})
    check(result.status in (0, 3), "places", result)
    result = t.ctl("version", "-S", t.path("none"))
    check(re.fullmatch(r"freezerctl (\S+), libfreezer \1 \(ABI \d+\), protocol 1; no server\n", result.out), "", result)
    equal(t.ctl_json("version")["server"], None, "server")
    equal(t.ctl("-V").out, t.ctl("version").out, "-V")
    equal(t.ctl("list", "-o", "help").status, 0, "exit status of list -o help")


@fz.test("a socket that nobody serves, a path that is too long: said in words")
def dead_sockets(t):
    daemon = t.daemon()
    daemon.kill()
    result = t.ctl("ping")
    expect(result, 3, "")
    check("stale" in result.err or "nobody" in result.err, "a dead socket", result)
    result = t.ctl("ping", "-S", "/tmp/" + "x" * 120)
    expect(result, 3, "")
    check("107" in result.err and "125" in result.err, "both numbers", result)


# --- rules check, simulate ---


@fz.test("rules check: places, carets, suggestions; every mistake of every file; exit 7")
def rules_check(t):
    good, names = t.write("good.yaml", RULES), t.write("names.txt", NAMES)
    slips = t.write("slips.yaml", RULES.replace("model.layers.{", "model.layer.{").replace("from:", "form:"))
    expect(t.ctl("rules", "check", good), 0, f"{good}: no errors, 2 rules, profile owned\n", "")
    expect(t.ctl("rules", "check", good, "--params", names), 0,
           f"{good}: no errors, 2 rules, profile owned, against {names}\n", "")
    expect(t.ctl("rules", "check", "-q", good), 0, "", "")
    result = t.ctl("rules", "check", slips, good)
    expect(result, 7, f"{good}: no errors, 2 rules, profile owned\n")
    check(f"{slips}:9:5: error: unknown key 'form'; did you mean 'from'?\n    form: {{step: 1200}}\n    ^~~~\n" in
          result.err, "place and caret", result)
    error = t.ctl_json("rules", "check", slips, want=7)["error"]
    equal((error["code"], error["details"][0]["line"], error["details"][0]["column"], error["details"][0]["hint"]),
          ("rules_invalid", 9, 5, "did you mean 'from'?"), "error")
    data = t.ctl_json("rules", "check", good)
    equal((data["schema"], data["files"][0]["rules"], data["files"][0]["profile"]),
          ("freezer.rules-check/1", 2, "owned"), "--json")
    missing = t.write("missing.yaml", RULES.replace("model.layers.{", "model.layer.{"))
    result = t.ctl("rules", "check", missing, "--params", names)
    expect(result, 7, "")
    check(f"{missing}:8:14: error: 'model.layer.{{0..2}}' matches nothing in {names}; did you mean "
          "'model.layers.{0..2}'?" in result.err, "no match", result)
    equal(t.ctl("rules", "check", missing, "--params", names, "--allow-missing").status, 0, "--allow-missing")
    equal(t.ctl("rules", "check", t.path("none")).status, 1, "a file that is not there")


@fz.test("simulate: the table, its columns, -q and --plain")
def simulate_table(t):
    words = ["simulate", t.write("rules.yaml", RULES), "--params", t.write("names.txt", NAMES), "--steps", "0:12000"]
    expect(t.ctl(*words), 0, """ STEP  TRAINABLE  CHANGE
    0     28.8 %  positions: freezes embed_positions
1,200      7.4 %  early-layers: freezes layers.0..2
9,000     13.9 %  positions ends: embed_positions trains
""", "")
    expect(t.ctl(*words, "--plain"), 0, "0\t445\tpositions: freezes embed_positions\n"
           "1200\t115\tearly-layers: freezes layers.0..2\n9000\t215\tpositions ends: embed_positions trains\n", "")
    expect(t.ctl(*words, "-q"), 0, "0\n1200\n9000\n", "")
    expect(t.ctl(*words, "-o", "trainable,step"), 0, "TRAINABLE   STEP\n   28.8 %      0\n    7.4 %  1,200\n"
           "   13.9 %  9,000\n", "")
    expect(t.ctl(*words, "--epoch-every", "5000", "-o", "step,epoch"), 0,
           " STEP  EPOCH\n    0      0\n1,200      0\n9,000      1\n", "")
    columns = t.ctl(*words, "-o", "help")
    check("TRAINABLE" in columns.out and columns.status == 0, "-o help", columns)


@fz.test("simulate --json: one entry per change, or per step; a thousand million steps take no longer")
def simulate_json(t):
    words = ["simulate", t.write("rules.yaml", RULES), "--params", t.write("names.txt", NAMES), "--steps"]
    data = t.ctl_json(*words, "0:1000000000")
    equal(list(data), ["schema", "params", "masks"], "fields")
    equal(data["schema"], "freezer.simulate/1", "schema")
    equal(data["params"], [line.split()[0] for line in NAMES.splitlines()], "params")
    equal(data["masks"], [{"step": 0, "epoch": 0, "mask": "00111111111"},
                          {"step": 1200, "epoch": 0, "mask": "00000000111"},
                          {"step": 9000, "epoch": 0, "mask": "01000000111"}], "masks")
    data = t.ctl_json(*words, "1198:1202", "--every-step", "--epoch-every", "600")
    equal([(m["step"], m["epoch"]) for m in data["masks"]], [(1198, 1), (1199, 1), (1200, 2), (1201, 2)], "steps")
    equal(t.ctl_json(*words, "7:7")["masks"], [], "no steps")
    for steps in ("5", "5:4", "a:b", "-1:4", ":"):
        expect(t.ctl(*words, steps), 2, "")


@fz.test("simulate: what is wrong with a file of parameters is said with its line")
def simulate_params(t):
    rules = t.write("rules.yaml", "version: 1\nrules: []\n")
    for text, line, word in (("a\nb 1 2\n", 2, "neither 0 nor 1"), ("a x\n", 1, "number of elements"),
                             ("a\n\nb\na\n", 4, "twice"), ("a 1 1 1\n", 1, "three words"),
                             ("a\nb\x01c\n", 2, "no name")):
        names = t.write("names.txt", text)
        result = t.ctl("simulate", rules, "--params", names, "--steps", "0:1")
        expect(result, 2, "")
        check(f"{names}:{line}: " in result.err and word in result.err, f"line {line}: {word}", result)
    equal(t.ctl("simulate", rules, "--params", t.path("none"), "--steps", "0:1").status, 1, "no file")
    result = t.ctl("simulate", rules, "--params", "-", "--steps", "0:1", "--json", stdin="größe 2 0\r\n\n  b\n")
    equal((result.data["params"], result.data["masks"][0]["mask"]), (["größe", "b"], "01"), "standard input")


@fz.test("simulate: nothing that trains is a warning; no match (7, or --allow-missing); profile lighter only warns")
def simulate_guards(t):
    names = t.write("names.txt", "a 1\nb 1\n")
    every = t.write("all.yaml", "version: 1\nrules:\n  - freeze: ['**']\n    from: {step: 5}\n")
    words = ["--params", names, "--steps", "0:10", "--json"]
    result = t.ctl("simulate", every, *words)
    equal((result.status, result.data["masks"][1]), (0, {"step": 5, "epoch": 0, "mask": "00"}), "all of it frozen")
    check("warning: nothing trains at step 5" in result.err, "sentence", result)
    equal(t.ctl("simulate", every, "--params", names, "--steps", "0:5").err, "", "before that step")
    nothing = t.write("none.yaml", "version: 1\nrules:\n  - freeze: [c]\n")
    equal(t.ctl("simulate", nothing, *words).status, 7, "no match")
    equal(t.ctl("simulate", nothing, *words, "--allow-missing").data["masks"][0]["mask"], "11", "--allow-missing")
    lighter = t.write("l.yaml", "version: 1\nprofile: lighter\nrules:\n  - name_starts_with: ['']\n    until_step: 2\n")
    result = t.ctl("simulate", lighter, *words)
    equal([m["mask"] for m in result.data["masks"]], ["00", "11"], "lighter")
    check("warning" in result.err, "no warning", result)


# --- run ---


@fz.test("run: a daemon at the usual place or one of its own, the command's status, nothing left behind")
def run(t):
    usual = usual_place(t)
    result = t.ctl("run", "--", "sh", "-c", f"echo $FREEZER_SOCKET; {fz.FREEZERCTL} ping -q && exit 7")
    expect(result, 7, usual + "\n", f"freezerd: for this command only, socket {usual}\n")
    equal(os.listdir(t.path("xdg/freezer")), [], "left behind")
    result = t.ctl("run", fz.FREEZERCTL, "run", "sh", "-c", f"echo $FREEZER_SOCKET; {fz.FREEZERCTL} ping -v")
    equal(result.status, 0, f"run within run\n  {result!r}\n ")
    inner = result.out.splitlines()[0]
    check(inner != usual and re.fullmatch(r"/tmp/freezer-run-\w+/freezerd.sock", inner), "a place of its own", result)
    check(not os.path.exists(os.path.dirname(inner)), "its folder is left behind", inner)
    equal(stat.S_IMODE(os.stat(t.path("xdg/freezer")).st_mode), 0o700, "mode of the folder")
    given = t.path("mine")
    equal(t.ctl("run", "-q", "-S", given, "--", "sh", "-c", "echo $FREEZER_SOCKET").out, given + "\n", "--socket")


@fz.test("run: 128 + N for a signal, 126, 127; the command's options are its own; rules are checked first")
def run_statuses(t):
    usual_place(t)
    equal(t.ctl("run", "-q", "--", "sh", "-c", "kill -9 $$").status, 137, "killed")
    result = t.ctl("run", "-q", "--", t.path("none"))
    expect(result, 127, "", f"freezerctl: command '{t.path('none')}' not found\n")
    equal(t.ctl("run", "-q", "--", t.write("plain", "")).status, 126, "not executable")
    equal(t.ctl("run", "-q", "echo", "--json", "-n").out, "--json -n\n", "options of the command")
    slips = t.write("slips.yaml", "version: 1\nrulse: []\n")
    result = t.ctl("run", "--rules", slips, "--", "echo", "no")
    expect(result, 7, "")
    check(f"{slips}:2:1: error: unknown key 'rulse'" in result.err, "place", result)
    rules = t.write("rules.yaml", "version: 1\nrules:\n  - freeze: [a]\n    until: {step: 3}\n")
    names = t.params_file([("a", 1, 1), ("b", 1, 1)])
    result = t.ctl("run", "-q", "--rules", rules, "--", fz.MOCK_TRAINER, "--run", "r", "--rank", "0", "--world", "1",
                   "--params", names, "--steps", "0:5", "--print")
    equal([json.loads(line)["mask"] for line in result.out.splitlines()], ["01", "01", "01", "11", "11"], "masks")
    equal(t.ctl("run", "--", "true", env={"FREEZERD": t.path("none")}).status, 1, "no freezerd")


@fz.test("run: signals are passed on")
def run_signals(t):
    usual_place(t)
    script = "trap 'echo got; exit 3' TERM; echo up; while :; do sleep 0.01; done"
    process = subprocess.Popen([fz.FREEZERCTL, "run", "-q", "--", "sh", "-c", script], env=t.env,
                               stdout=subprocess.PIPE, text=True, preexec_fn=fz._die_with_parent)
    equal(process.stdout.readline(), "up\n", "start")
    process.terminate()
    equal(process.stdout.read(), "got\n", "signal")
    equal(process.wait(fz.seconds(20)), 3, "exit status")


fz.main()
