"""Write faces between a run's training faces, of no group, for ``distil_classifier.py``.

python tools/mix_faces.py --run sixth --out 4.pt --seed 5 --count 9000

Up to half of the way from one face to another in GLOW's latent space, most of them moved by up to 2.2 times the difference
of two groups' averages of their gender, and all along the difference of the two genders.
"""

import argparse
from pathlib import Path

import torch

import ageflow
from ageflow.data.faces import Faces


def mix(run: str, runs_root: Path, seed: int, count: int) -> torch.Tensor:
    """Faces uint8 [count, 3, S, S]; `run` of the demo set needs faces, GLOW and averages."""
    torch.manual_seed(seed)
    faces = Faces.open(runs_root / "demo" / run / "faces").select(split="train")
    glow = ageflow.load_method("glow", run=run, runs_root=runs_root, scale=1.0).glow
    own = torch.tensor(faces.groups)
    male, made = torch.tensor((faces.table["gender"] == "male").to_numpy()).long(), []
    with torch.inference_mode():
        z = torch.cat([glow.encode(faces.images(slice(start, start + 64))) for start in range(0, len(faces), 64)])
        cells = [z[(male == sex) & (own == group)].mean(0) for sex in (0, 1) for group in range(4)]
        means = torch.stack(cells).view(2, 4, -1)
        for some in torch.arange(count).split(64):
            size = len(some)
            one, other = torch.randint(len(z), (2, size))
            mixed = z[one] + torch.rand(size, 1) * 0.5 * (z[other] - z[one])
            target = torch.randint(4, (size,))
            way = torch.rand(size, 1) * 2.2 * (torch.rand(size, 1) < 0.7)
            mixed = mixed + way * (means[male[one], target] - means[male[one], own[one]])
            mixed = mixed + torch.randn(size, 1) * 0.9 * (means[1, own[one]] - means[0, own[one]])
            made.append(ageflow.to_uint8(glow.decode(mixed).clamp(0, 1)))
    return torch.cat(made)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=9000)
    given = parser.parse_args()
    torch.save(mix(given.run, ageflow.settings("prepare_data", {}).runs_root, given.seed, given.count), given.out)


if __name__ == "__main__":
    main()
