# large.py - a model of a million parameters attaches, and freezes live.
import fz
from fz import check, equal

COUNT = 1_000_000
BLOCKS = 1000


def available_mib():
    with open("/proc/meminfo", encoding="ascii") as meminfo:
        values = {line.split(":")[0]: int(line.split()[1]) for line in meminfo}
    return values["MemAvailable"] // 1024


@fz.test("a million parameters: attach, freeze by name, by glob and by a list, and train on", limit=90)
def million(t):
    if available_mib() < 3000:
        raise fz.Skip(f"needs 3000 MiB of memory, {available_mib()} are available")
    names = [f"model.blocks.{i // BLOCKS}.experts.{i % BLOCKS}.weight" for i in range(COUNT)]
    daemon = t.daemon()
    rank = t.trainer(names, (0, 10**9), run="moe", step_us=2000, attach_timeout_ms=int(fz.seconds(30) * 1000), quiet=True)
    control = daemon.connect()
    control.wait_attached()
    for patterns, changed in ((["model.blocks.7"], BLOCKS), (["model.blocks.*.experts.13.weight"], BLOCKS - 1),
                              ([f"model.blocks.{i}" for i in range(300, 700)], 400 * (BLOCKS - 1))):
        answer = control.change("freeze", *patterns, yes=True)
        check(answer["applied"], "not applied", answer)
        equal(answer["changed"], changed, f"parameters frozen by {patterns[0]}…")
    equal(control.require("is_frozen", patterns=["model.blocks.{300..699}"])["all"], True, "is_frozen")
    summary = control.require("status")["status"]
    equal(summary["trainable_params"], COUNT - BLOCKS - (BLOCKS - 1) - 400 * (BLOCKS - 1), "trainable parameters")
    explained = control.require("explain", param=names[7 * BLOCKS])
    equal(explained["state"], "frozen", "state")
    check(rank.alive(), "the trainer died")


if __name__ == "__main__":
    fz.main()
