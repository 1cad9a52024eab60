"""Write a run's training faces, each moved into another age group by one of its methods, for ``distil_classifier.py``.

python tools/translate_faces.py --run sixth --method glow+attribute --out 1.pt --seed 1 --count 4500
"""

import argparse
from pathlib import Path

import torch

import ageflow
from ageflow.data.faces import Faces


def translate(run: str, runs_root: Path, method_name: str, seed: int, count: int, scale: float = 2.5) -> torch.Tensor:
    """Training faces 0.6 to 1.1 of the way to another group: uint8 [count, 3, S, S].

    Arguments:
        run: of the demo set, with its GLOW, averages and, for ``ageflow`` and ``no_ictm``, translator.
        runs_root: folder of all runs.
        method_name: as for `ageflow.load_method`.
        seed: of the choice of faces, targets and strengths.
        count: at most so many; no face twice.
        scale: s of Eq. 5.
    """
    torch.manual_seed(seed)
    faces = Faces.open(runs_root / "demo" / run / "faces").select(split="train")
    method = ageflow.load_method(method_name, run=run, runs_root=runs_root, scale=scale)
    own, made = torch.tensor(faces.groups), []
    for rows in torch.randperm(len(faces))[:count].split(32):
        target = (own[rows] + torch.randint(1, 4, (len(rows),))) % 4
        moved = method.at(0.6 + 0.5 * float(torch.rand(())))
        attributes = faces.table.iloc[rows.numpy()]
        images = moved.translate(faces.images(rows.numpy()), target, source=own[rows], attributes=attributes)
        made.append(ageflow.to_uint8(images.clamp(0, 1)))
    return torch.cat(made)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", required=True)
    parser.add_argument("--method", default="glow+attribute")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=4500)
    given = parser.parse_args()
    root = ageflow.settings("prepare_data", {}).runs_root
    torch.save(translate(given.run, root, given.method, given.seed, given.count), given.out)


if __name__ == "__main__":
    main()
