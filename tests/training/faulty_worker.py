"""Started by torchrun: GLOW on the tiny faces, where the second process's loss is not finite in some updates.

faulty_worker.py RUNS_ROOT 4,9: those updates, counted from 1, each the first time that it comes. It begins anew from the
weights that are in its own folder.
"""

import sys
from pathlib import Path

from ageflow.data.faces import Faces
from ageflow.training.distributed import join, processes
from ageflow.training.glow import GlowTask
from ageflow.training.loop import train
from tests.training.processes import settings_of, workspace


class Faulty(GlowTask):
    """Its loss is infinite in the updates named, on the second process only."""

    broken: set[int]

    def loss(self, part):
        loss, values = super().loss(part)
        if processes().rank == 1 and part.number + 1 in self.broken:
            self.broken.remove(part.number + 1)
            return loss * float("inf"), values
        return loss, values


def main(root: Path, broken: str) -> None:
    """Train, and write down the weights that this process ended with."""
    values = {"iterations": 50, "checkpoint_every": 10, "preview_every": 50}
    values |= {"restart": True, "init_from": "demo/faulty"}
    settings = settings_of("train_glow", root, "faulty", device="cpu", **values)
    folder = workspace(root, "faulty").path("glow")
    with join("cpu"):
        task = Faulty(settings, Faces.open(folder.with_name("faces")))
        task.broken = set(map(int, broken.split(",")))
        train(task, settings, folder)
        sums = [float(parameter.double().sum()) for parameter in task.modules.parameters()]
        (root / f"weights-{processes().rank}.txt").write_text(str(sums))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
