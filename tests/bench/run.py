#!/usr/bin/env python3
# run.py - runs all benchmarks and prints one table, or with --json one object: ratios of things measured in one run.
"""
usage: run.py [--json] [--quick] [WORD...]

Each row compares something of ours with something known that was measured in turns with it on the same machine. A row
with a target is met if the ratio is at most that. Words choose the benchmarks whose name holds one of them.
Needs the built programs in the environment, as `make bench` sets it.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "integration"))
import fz  # noqa: E402
import harm as of_harm  # noqa: E402

BUILD = os.environ.get("top_builddir", ".")
QUICK = "--quick" in sys.argv
N_NAMES, N_SELECTORS = 100_000, 1_000
LOAD_RUNS, LOAD_PACE = 64, 100


class Scene(fz.Scene):
    """A scene whose freezerd keeps nothing on disk."""

    def __init__(self):
        super().__init__()
        self.state_dir = "none"

    def __enter__(self):
        return self

    def __exit__(self, *_exception):
        self.destroy()


def program(name):
    return os.path.join(BUILD, "tests", "bench", name)


def row(what, against, unit, ours, theirs, ratio, target=None):
    return {"what": what, "against": against, "unit": unit, "ours": ours, "theirs": theirs, "ratio": ratio,
            "target": target}


def run_rows(scene, name, *arguments):
    """The rows that a C program prints."""
    done = subprocess.run([program(name), *arguments], env=scene.env, stdout=subprocess.PIPE, check=True, timeout=120)
    return [json.loads(line) for line in done.stdout.splitlines()]


def idle(scene):
    rows = run_rows(scene, "bench_idle")
    scene.daemon()
    return run_rows(scene, "bench_idle") + rows


def event(scene):
    return run_rows(scene, "bench_event")


def change(scene):
    daemon = scene.daemon()
    os.sched_setaffinity(daemon.pid, {min(os.sched_getaffinity(0))})
    return run_rows(scene, "bench_change")


def durable(scene):
    """The same with a state directory, on the file system that /tmp is on."""
    scene.state_dir = scene.path("state")
    daemon = scene.daemon()
    os.sched_setaffinity(daemon.pid, {min(os.sched_getaffinity(0))})
    return run_rows(scene, "bench_change", scene.path("line"))


# --- selectors ---


def names_of_a_model():
    return [f"model.layers.{i // 100}.experts.{i % 100}.weight" for i in range(N_NAMES)]


def freeze_pass(names, exact, prefixes):
    """How lighter decides, for each parameter, whether a selector of its lists names it."""
    flags = {}
    for name in names:
        if name in exact or any(name.startswith(prefix) for prefix in prefixes):
            flags[name] = False
        else:
            flags[name] = True
    return sum(not flag for flag in flags.values())


def match(scene):
    names = names_of_a_model()
    stride = N_NAMES // (N_SELECTORS // 2)
    exact = [names[i * stride + 7] for i in range(N_SELECTORS // 2)]
    prefixes = [names[i * stride + 11][:-len(".weight")] for i in range(N_SELECTORS // 2)]
    names_file = scene.write("names", "".join(name + "\n" for name in names))
    kinds = {
        "1,000 name: and prefix:": [f"name:{n}" for n in exact] + [f"prefix:{p}" for p in prefixes],
        "1,000 bare names": exact + prefixes,
        "20 globs": [f"model.layers.{i}?.experts.*.weight" for i in range(10, 30)],
    }
    selected = {kind: [] for kind in kinds}
    python, ours = [], {kind: [] for kind in kinds}
    for _ in range(1 if QUICK else 3):
        for kind, selectors in kinds.items():
            done = subprocess.run([program("bench_match"), names_file,
                                   scene.write("selectors", "".join(s + "\n" for s in selectors))],
                                  stdout=subprocess.PIPE, check=True, timeout=120)
            said = json.loads(done.stdout)
            ours[kind].append(said["ns"] / 1e6)
            selected[kind].append(said["selected"])
        began = time.perf_counter()
        count = freeze_pass(names, exact, prefixes)
        python.append((time.perf_counter() - began) * 1e3)
    for kind in list(kinds)[:2]:
        fz.equal(selected[kind], [count] * len(python), f"parameters selected by {kind}")
    rows = []
    for kind in kinds:
        ratio = statistics.median(o / p for o, p in zip(ours[kind], python))
        rows.append(row(f"{kind} over 100,000 names", "lighter's loop, 1,000 selectors", "ms",
                        statistics.median(ours[kind]), statistics.median(python), ratio,
                        None if "globs" in kind else 0.01))
    return rows


# --- freezerd under load ---


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mib(pid):
    """(resident, of that anonymous) memory."""
    with open(f"/proc/{pid}/status", encoding="utf-8") as status:
        sizes = {line.split(":")[0]: int(line.split()[1]) / 1024 for line in status if line.startswith(("VmRSS", "RssAnon"))}
    return sizes["VmRSS"], sizes["RssAnon"]


def load(scene):
    spell = 5 if QUICK else 20
    daemon = scene.daemon()
    with subprocess.Popen([program("bench_load"), str(LOAD_RUNS), str(LOAD_PACE), str(spell + 2)], env=scene.env,
                          stdout=subprocess.PIPE) as generator:
        fz.check(generator.stdout.readline() == b"attached\n", "the load generator failed")
        time.sleep(1)
        before, began = cpu_seconds(daemon.pid), time.monotonic()
        time.sleep(spell)
        share = (cpu_seconds(daemon.pid) - before) / (time.monotonic() - began)
        resident, anonymous = memory_mib(daemon.pid)
        generator.wait()
    what = f"freezerd, {LOAD_RUNS} runs at {LOAD_PACE} steps/s"
    return [row(what + ": CPU", "one core", "%", 100 * share, 100, share, 0.05),
            row(what + ": memory", "16 MiB", "MiB", resident, 16, resident / 16, 1),
            row(what + ": its heap", "16 MiB", "MiB", anonymous, 16, anonymous / 16)]


# --- a scheduled flip ---


def flip(scene):
    """Steps by which flips that a rule schedules come late, freezerd being stopped."""
    flips = 20
    rules = {"version": 1, "rules": [{"freeze": ["a"], "from": {"step": 1000 + 97 * i}, "until": {"step": 1040 + 97 * i}}
                                     for i in range(flips)]}
    daemon = scene.daemon("--rules", scene.write("rules.yaml", json.dumps(rules)))
    rank = scene.trainer(["a", "b"], (0, 1100 + 97 * flips), step_us=200)
    rank.wait_gen(1)
    daemon.stop()
    fz.equal(rank.wait(60), 0, "exit status of the trainer")
    late = 0
    for step, _, _, mask in rank.batches():
        frozen = step >= 1000 and (step - 1000) % 97 < 40 and (step - 1000) // 97 < flips
        late += (mask[0] == "0") != frozen
    daemon.cont()
    return [row(f"{2 * flips} scheduled flips, freezerd stopped", "the rule's step", "steps late", late, 0, late, 0)]


def harm(scene):
    return of_harm.harm(scene, row, *((5, 150) if QUICK else (25, 150)))


BENCHES = [("idle", idle), ("event", event), ("change", change), ("durable", durable), ("flip", flip), ("match", match), ("load", load),
           ("harm", harm)]


def number(value, unit):
    return f"{value:,.0f} {unit}" if value >= 100 or value == int(value) else f"{value:.2f} {unit}"


def is_met(r):
    return None if r["target"] is None else r["ratio"] <= r["target"]


def table(rows):
    lines = [("WHAT", "OURS", "AGAINST", "", "RATIO", "TARGET", "MET")]
    for r in rows:
        met = is_met(r)
        lines.append((r["what"], number(r["ours"], r["unit"]), r["against"], number(r["theirs"], r["unit"]),
                      f"{r['ratio']:.4f}" if r["ratio"] < 0.1 else f"{r['ratio']:.2f}",
                      "" if r["target"] is None else f"<= {r['target']:g}",
                      "" if met is None else "yes" if met else "NO"))
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    right = (1, 3, 4, 5)
    return "\n".join("  ".join(cell.rjust(w) if i in right else cell.ljust(w)
                               for i, (cell, w) in enumerate(zip(line, widths))).rstrip() for line in lines)


def main():
    words = [word for word in sys.argv[1:] if not word.startswith("--")]
    rows = []
    for name, bench in BENCHES:
        if words and not any(word in name for word in words):
            continue
        print(f"bench: {name}", file=sys.stderr, flush=True)
        with Scene() as scene:
            for r in bench(scene):
                rows.append({"bench": name, **r, "met": is_met(r)})
    machine = {"cores": os.cpu_count(), "system": platform.platform(), "load": os.getloadavg()[0]}
    if "--json" in sys.argv:
        print(json.dumps({"schema": "freezer.bench/1", "machine": machine, "rows": rows}))
    else:
        print(table(rows))
        print(f"{machine['cores']} cores, load {machine['load']:.2f}, {machine['system']}")


if __name__ == "__main__":
    main()
