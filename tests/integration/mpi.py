#!/usr/bin/env python3
"""mpi.py - three MPI processes, of which one is attached: after each step they are equal to the bit."""

import os
import shutil

import fz

EXAMPLE = os.path.join(os.environ.get("top_builddir", "."), "client", "examples", "mpi")


class Run(fz.Process):
    """mpirun with the example, and what its ranks have printed so far."""

    def __init__(self, scene, steps):
        argv = ["mpirun", "--oversubscribe", "--allow-run-as-root", "-n", "3", EXAMPLE, str(steps), "3000"]
        if fz.is_sanitized():
            raise fz.Skip("MPI itself is not free of what a sanitizer finds")
        if shutil.which("mpirun") is None or not os.access(EXAMPLE, os.X_OK):
            if os.environ.get("FZ_MPI_REQUIRED"):
                raise fz.Failure("there is no mpirun, or the example was not built")
            raise fz.Skip("no MPI (Debian: libopenmpi-dev openmpi-bin)")
        super().__init__(scene, "mpi", argv, env={"OMPI_MCA_mpi_yield_when_idle": "1", "FREEZER_RUN": "mpi"})

    def steps(self):
        """{step: {rank: (mask, sum)}}"""
        found = {}
        with open(self.out_path, encoding="utf-8") as out:
            for line in out.read().split("\n")[:-1]:
                rank, step, _, mask, total = line.split()
                found.setdefault(int(step), {})[int(rank)] = (mask, total)
        return found

    def wait_step(self, step):
        fz.wait_until(lambda: len(self.steps().get(step, ())) == 3 or not self.alive(), f"step {step}", 60)


@fz.test("frozen and unfrozen live, at the same step on all", limit=180)
def test_live(scene):
    scene.daemon()
    run = Run(scene, 600)
    run.wait_step(3)
    frozen_at = scene.ctl_json("freeze", "b", "--run", "mpi")["step"]
    thawed_at = scene.ctl_json("unfreeze", "b", "--run", "mpi")["step"]
    fz.equal(run.wait(120), 0, f"exit status: {run.errors()[-2000:]}")
    steps = run.steps()
    fz.equal(sorted(steps), list(range(600)), "steps")
    for step, ranks in steps.items():
        fz.equal(len(set(ranks.values())), 1, f"different ranks at step {step}: {ranks}")
        fz.equal(ranks[0][0], "1011" if frozen_at <= step < thawed_at else "1111", f"what trains at step {step}")


@fz.test("no freezerd: training is as it is", limit=120)
def test_none(scene):
    run = Run(scene, 20)
    fz.equal(run.wait(60), 0, f"exit status: {run.errors()[-2000:]}")
    fz.equal({ranks[0][0] for ranks in run.steps().values()}, {"1111"}, "masks")


if __name__ == "__main__":
    fz.main()
