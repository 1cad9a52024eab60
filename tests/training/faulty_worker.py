"""Started by torchrun: GLOW on the tiny faces, where the second process's loss is not finite in some updates.

faulty_worker.py RUNS_ROOT 4,9 [once]: updates counted from 1; once: not after training went back.
"""

import json
import sys
from pathlib import Path

from ageflow.checkpoint import checksum
from ageflow.data.faces import Faces
from ageflow.training.distributed import join, processes
from ageflow.training.glow import GlowTask
from ageflow.training.loop import train
from tests.training.processes import settings_of, workspace


class Faulty(GlowTask):
    """Its loss is infinite in the updates named, on the second process only."""

    broken: frozenset[int] = frozenset()
    once = False

    def loss(self, piece):
        loss, values = super().loss(piece)
        update = piece.number + 1
        if processes().rank == 1 and update in self.broken:
            if self.once:
                self.broken = self.broken - {update}
            return loss * float("inf"), values
        return loss, values


def main(root: Path, broken: str, once: bool) -> None:
    """Train, and write down the weights that this process ended with."""
    values = {"iterations": 50 if once else 20, "checkpoint_every": 10, "log_every": 1, "preview_every": 50}
    settings = settings_of("train_glow", root, "faulty", device="cpu", **values)
    with join("cpu") as device:
        task = Faulty(
            settings.model_copy(update={"device": device}), Faces.open(workspace(root, "faulty").path("faces"))
        )
        task.broken, task.once = frozenset(map(int, broken.split(","))), once
        train(task, task.settings, workspace(root, "faulty").path("glow"))
        state = {name: tensor.contiguous() for name, tensor in task.modules.state_dict().items()}
        told = {"checksum": checksum(state, {})}
        (root / f"weights-{processes().rank}.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], "once" in sys.argv)
