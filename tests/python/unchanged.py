#!/usr/bin/env python3
"""unchanged.py - python -m pyfreezer run: a script that knows nothing of Freezer, and everything as python does it."""

import torchenv  # noqa: F401 - first: goes on where torch is

import os
import subprocess
import sys
import zipfile

import fz
from training import Model

# Trains until a file says at which step to end; keeps every step's weights of what the test freezes.
SCRIPT = """
import os, sys
import torch
from torch import nn

torch.manual_seed(1)
torch.set_num_threads(1)
torch.use_deterministic_algorithms(True)
folder, flips = sys.argv[1], [word.split(":") for word in sys.argv[2:]]
model = nn.Sequential(*[nn.Sequential(nn.Linear(8, 8), nn.Tanh()) for _ in range(3)], nn.Linear(8, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
kept, step = [], 0
while not os.path.exists(folder + "/end") or step < int(open(folder + "/end").read()):
    for at, prefix, flag in flips:
        if int(at) == step:
            for name, parameter in model.named_parameters():
                if name.startswith(prefix):
                    parameter.requires_grad = flag == "1"
                    parameter.grad = None
    optimizer.zero_grad()
    batch = torch.randn(4, 8)
    (model(batch) - batch.sum(1, keepdim=True)).square().mean().backward()
    optimizer.step()
    step += 1
    kept.append(model[0][0].weight.detach().clone())
    with open(folder + "/step.new", "w") as out:
        out.write(str(step))
    os.replace(folder + "/step.new", folder + "/step")
torch.save({"kept": kept, "model": model.state_dict()}, folder + "/" + ("by-hand" if flips else "live"))
sys.exit(7)
"""


def start(scene, *words, name="script", env=None):
    library = {"FREEZER_LIBRARY": os.environ["FREEZER_LIBRARY"]}  # a scene hides what begins with FREEZER
    return fz.Process(scene, scene.unique(name), [sys.executable, *words], {**library, **(env or {})})


def wait_step(scene, process, step):
    def reached():
        fz.check(process.alive(), "the script trains", process.errors()[-2000:])
        try:
            with open(scene.path("step"), encoding="utf-8") as text:
                return int(text.read()) >= step
        except OSError:
            return False

    fz.wait_until(reached, f"step {step}", 200)


def changed(scene, *words):
    data = scene.ctl_json(*words, "--yes")
    fz.check(data["applied"], "the change was applied", data)
    return data["step"]


@fz.test("an unchanged script is frozen and unfrozen live, equal to the run by hand", limit=900)
def test_live(scene):
    import torch

    scene.daemon()
    script = scene.write("train.py", SCRIPT)
    process = start(scene, "-m", "pyfreezer", "run", "--socket", scene.socket, script, scene.root)
    wait_step(scene, process, 10)
    frozen_at = changed(scene, "freeze", "0", "1")
    wait_step(scene, process, frozen_at + 20)
    thawed_at = changed(scene, "unfreeze", "0")
    scene.write("end.new", str(thawed_at + 20))
    os.rename(scene.path("end.new"), scene.path("end"))
    fz.equal(process.wait(300), 7, "exit status")
    live = torch.load(scene.path("live"))
    still = [torch.equal(live["kept"][frozen_at - 1], weight) for weight in live["kept"][frozen_at:thawed_at]]
    fz.check(still and all(still), "frozen is bit-identical")
    fz.check(not torch.equal(live["kept"][thawed_at - 1], live["kept"][thawed_at]), "what was unfrozen trains")

    flips = [f"{frozen_at}:0.:0", f"{frozen_at}:1.:0", f"{thawed_at}:0.:1"]
    fz.equal(start(scene, script, scene.root, *flips, name="by hand").wait(300), 7, "exit status of the run by hand")
    by_hand = torch.load(scene.path("by-hand"))
    differing = [n for n in live["model"] if not torch.equal(live["model"][n], by_hand["model"][n])]
    fz.equal(differing, [], "differences from the run by hand")


# --- several ranks ---

RANKS = """
import os, sys
import torch
import torch.distributed as dist
from torch import nn

dist.init_process_group("gloo")
torch.set_num_threads(1)
torch.manual_seed(1)
folder, rank = sys.argv[1], dist.get_rank()
layers = [nn.Sequential(nn.Linear(8, 8), nn.Tanh()) for _ in range(3)]
model = nn.parallel.DistributedDataParallel(nn.Sequential(*layers, nn.Linear(8, 1)))
optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
torch.manual_seed(2 + rank)
first, step, end = [], 0, torch.zeros(1)
while not end.item() or step < end.item():
    optimizer.zero_grad()
    batch = torch.randn(4, 8)
    (model(batch) - batch.sum(1, keepdim=True)).square().mean().backward()
    optimizer.step()
    step += 1
    first.append(model.module[0][0].weight.detach().clone())
    if rank == 0:
        if os.path.exists(folder + "/end"):
            end[0] = int(open(folder + "/end").read())
        with open(folder + "/step.new", "w") as out:
            out.write(str(step))
        os.replace(folder + "/step.new", folder + "/step")
    dist.broadcast(end, 0)
torch.save({"first": first, "model": model.module.state_dict()}, f"{folder}/rank{rank}")
dist.destroy_process_group()
"""


@fz.test("under torchrun two ranks of a script with DDP flip at the same step and stay equal", limit=900)
def test_ranks(scene):
    import torch

    scene.daemon()
    script = scene.write("ranks.py", RANKS)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    ours = ["-m", "pyfreezer", "run", "--socket", scene.socket, "--name", "ranks", script, scene.root]
    process = start(scene, *torchrun, *ours, name="torchrun")
    wait_step(scene, process, 10)
    frozen_at = changed(scene, "freeze", "0", "1")
    wait_step(scene, process, frozen_at + 20)
    thawed_at = changed(scene, "unfreeze", "0")
    scene.write("end.new", str(thawed_at + 50))
    os.rename(scene.path("end.new"), scene.path("end"))
    fz.equal(process.wait(300), 0, f"exit status: {process.errors()[-2000:]}")
    one, other = (torch.load(scene.path(f"rank{rank}")) for rank in range(2))
    fz.check(all(torch.equal(a, b) for a, b in zip(one["first"], other["first"])), "equal at every step")
    fz.equal([n for n in one["model"] if not torch.equal(one["model"][n], other["model"][n])], [], "differences")
    still = [torch.equal(one["first"][frozen_at - 1], weight) for weight in one["first"][frozen_at:thawed_at]]
    fz.check(still and all(still), "frozen is bit-identical")
    fz.check(not torch.equal(one["first"][thawed_at - 1], one["first"][thawed_at]), "what was unfrozen trains")


# --- as python does it ---

SEEN = """
import atexit, os, pickle, sys, traceback
import __main__

class Kept: pass

def inner(how):
    if how == "raise": raise ValueError("oh")
    if how == "chain":
        try: {}["k"]
        except KeyError as error: raise RuntimeError("chained") from error
    if how == "message": sys.exit("a message")
    if how == "status": sys.exit(3)
    if how == "interrupt": raise KeyboardInterrupt
    if how == "hook":
        sys.excepthook = lambda cls, error, tb: print("hook", cls, traceback.format_tb(tb), file=sys.stderr)
        raise OSError(1)

print(__name__, __file__, __spec__ and __spec__.name, __package__, __doc__, type(__loader__).__name__, __cached__)
print(sorted(globals()), sys.argv, sys.path, "torch" in sys.modules)
print(__main__ is sys.modules["__main__"], type(pickle.loads(pickle.dumps(Kept()))).__module__)
atexit.register(lambda: print("at exit", sys.modules["__main__"].Kept))
inner(sys.argv[1] if len(sys.argv) > 1 else "")
"""


def both(scene, *words):
    """Runs it with python and with Freezer in a folder of the scene; both must be seen to do the same."""
    runs = [
        subprocess.run([sys.executable, *prefix, *words], cwd=scene.root, env=scene.env, capture_output=True, text=True)
        for prefix in ((), ("-m", "pyfreezer", "run"))
    ]
    for what in ("returncode", "stdout", "stderr"):
        plain, ours = (getattr(run, what) for run in runs)
        fz.check(ours == plain, f"{what} of {' '.join(words)}", plain, ours)


@fz.test("arguments, __main__, sys.path, exit status and tracebacks are those of python", limit=400)
def test_as_python(scene):
    scene.write("script.py", SEEN)
    os.mkdir(scene.path("package"))
    for name in ("__main__.py", "module.py"):
        scene.write(f"package/{name}", SEEN)
    os.symlink("package/module.py", scene.path("link.py"))
    scene.write("wrong.py", "def f(:\n")
    with zipfile.ZipFile(scene.path("archive.zip"), "w") as archive:
        archive.write(scene.path("script.py"), "__main__.py")
    for how in ("", "raise", "chain", "message", "status", "interrupt", "hook"):
        both(scene, "script.py", how, "--rules", "-m")
    for words in ("./package/module.py", "link.py", "wrong.py", "archive.zip raise", "package raise"):
        both(scene, *words.split())
    for words in ("package raise", "package.module --name x", "package.module raise", "nothing"):
        both(scene, "-m", *words.split())


@fz.test("what is wrong with the command line is said before the script starts", limit=400)
def test_errors(scene):
    script = scene.write("script.py", "print('started')")

    def run(*words, want):
        process = start(scene, "-m", "pyfreezer", *words, name="words")
        fz.equal(process.wait(200), want, f"exit status of {words}: {process.errors()}")
        with open(process.out_path, encoding="utf-8") as out:
            text = out.read() + process.errors()
        fz.check("started" not in text and "Traceback" not in text, f"output of {words}", text)
        return text

    rules = scene.write("wrong.yaml", "rules:\n  - freeze: head\n    frm: {step: 3}\n")
    text = run("run", "--rules", rules, script, want=2)
    fz.check(":3:5: error: unknown key 'frm'; did you mean 'from'?" in text, "the mistake has a line", text)
    fz.check("nothing.yaml" in run("run", "--rules", "nothing.yaml", script, want=2), "the file is named")
    fz.check("can't open file" in run("run", "nothing.py", want=2), "the script is named")
    fz.check("SCRIPT" in run("run", want=2), "usage")
    fz.check("torchrun" in run("run", "--help", want=0), "help")


# --- which model, which optimizers ---


@fz.test("the model is the module around all parameters of the optimizer; two are named as in the script")
def test_owners(_scene):
    import torch
    from pyfreezer import _names, _owners

    model, encoder, decoder = Model(1), Model(1), Model(2)
    frozen_beside = torch.nn.Sequential(model)
    optimizer = torch.optim.SGD(model.head.parameters())
    fz.check(_owners.model_of(model.head.parameters(), {}) is frozen_beside, "the outermost module")
    del frozen_beside
    fz.check(_owners.model_of(model.head.parameters(), {}) is model, "the model again")
    parallel = torch.nn.DataParallel(model)
    fz.check(_owners.outermost(model) is parallel and _owners.model_of(model.parameters(), {}) is parallel, "wrapped")
    other = torch.optim.Adam(model.embed.parameters())
    fz.equal(_owners.optimizers_of(model, optimizer), [optimizer, other], "optimizers")

    both = [*encoder.parameters(), *decoder.parameters()]
    together = _owners.model_of(both, {"encoder": encoder, "x": 1})
    fz.equal([name for name, _ in together.named_children()], ["model", "encoder"], "names of two")
    fz.equal(len(_names.collect(together)), len(both), "their parameters")
    fz.equal(_owners.model_of([torch.zeros(1, requires_grad=True)], {}), None, "the module of a loose tensor")


# --- from the first step on ---

FIRST = """
import sys, torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

encoder, decoder = nn.Linear(4, 4), nn.Linear(4, 4)
moved = []
parameters = [*encoder.parameters(), *decoder.parameters()]
optimizer = torch.optim.AdamW(parameters if "loose" not in sys.argv else [torch.ones(1, requires_grad=True)], lr=0.1)
if "itself" in sys.argv:
    import pyfreezer
    session = pyfreezer.attach(decoder, optimizer, run="itself")
register_optimizer_step_pre_hook(lambda *words: None)  # a hook behind Freezer's own
optimizer.step()  # as some do, to warm up: it has no gradients to apply
for _ in range(3):
    begin = encoder.weight.detach().clone()
    optimizer.zero_grad()
    (decoder(encoder(torch.ones(4))).sum() * optimizer.param_groups[0]["params"][-1].sum()).backward()
    optimizer.step()
    moved.append(not torch.equal(begin, encoder.weight))
print(moved, [p.requires_grad for p in parameters])
"""


@fz.test("rules in YAML hold from the first update on; without freezerd or a model the script trains on", limit=900)
def test_first(scene):
    script = scene.write("first.py", FIRST)
    rules = scene.write("rules.yaml", "version: 1\nrules:\n  - freeze: [encoder]\n    until: {step: 2}\n")

    def run(*words, env=None, status=0):
        process = start(scene, "-m", "pyfreezer", "run", *words, name="first", env=env)
        fz.equal(process.wait(300), status, f"exit status: {process.errors()}")
        with open(process.out_path, encoding="utf-8") as out:
            return out.read().split("] ")[0] + "]", process.errors()

    out, errors = run(script)
    fz.equal(out, "[True, True, True]", f"without freezerd: {errors}")
    scene.daemon()
    out, errors = run("--rules", rules, "--name", "named", script)
    fz.equal(out, "[False, False, True]", f"moved; steps count from the first that had gradients: {errors}")
    fz.check("named" in errors and "froze encoder.weight, encoder.bias" in errors, "what is said", errors)
    out, errors = run(script, "loose")
    fz.check("no module has the parameters of this AdamW: training goes on" in errors, "said", errors)
    out, errors = run(script, "loose", env={"FREEZER_REQUIRE": "1"}, status=1)
    fz.check("no module has the parameters of this AdamW" in errors, "why it ends where Freezer is required", errors)
    out, errors = run(script, "itself")
    fz.equal(errors.count("attached to freezerd"), 1, f"attached once: {errors}\n")
    fz.check("as run 'itself'" in errors, "as the script wants it", errors)


if __name__ == "__main__":
    fz.main()
