"""Preparation beside a plain loop over facenet-pytorch, and alignment of hard pictures; `pytest -m benchmark tests/data`."""

import os
import shutil
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from facenet_pytorch import MTCNN
from PIL import Image

import ageflow
from ageflow.data.align import Aligner
from ageflow.data.demo import read
from ageflow.data.prepare import prepare
from tests.data.test_align import cropped, eyes_off, turned

_DETECTION_SIZE = 320  # pixels, Aligner's


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of one's own with 1,200 drawn faces, 256×256."""
    folder = tmp_path_factory.mktemp("raw")
    reading = read(ageflow.settings("prepare_data", {"progress": False}))
    for file in reading.table["file"]:
        (folder / file).parent.mkdir(exist_ok=True)
        shutil.copyfile(reading.root / file, folder / file)
    reading.table[["file", "identity", "age", "gender"]].to_csv(folder / "faces.csv", index=False)
    return folder


def settings_for(raw: Path, runs_root: Path, **more):
    values = {"dataset": "folder", "preset": "demo", "image_size": 64, "data_root": raw, "runs_root": runs_root}
    return ageflow.settings("prepare_data", values | {"progress": False, "shard_size": 200} | more)


def four_times(raw: Path, folder: Path) -> Path:
    """A folder with each picture four times, under other names."""
    table = pd.read_csv(raw / "faces.csv", dtype=str)
    for copy in range(4):
        shutil.copytree(raw, folder / str(copy), copy_function=os.link, ignore=shutil.ignore_patterns("*.csv"))
    tables = [table.assign(file=f"{copy}/" + table["file"]) for copy in range(4)]
    pd.concat(tables).to_csv(folder / "faces.csv", index=False)
    return folder


@pytest.mark.benchmark
def test_two_workers_are_at_least_half_as_fast_again_as_a_plain_loop(raw, tmp_path):
    """At equal settings: size searched, smallest face, thresholds. The loop only detects; ours writes shards too."""
    files = sorted(raw.rglob("*.png"))
    detector = MTCNN(min_face_size=_DETECTION_SIZE // 8, thresholds=[0.6, 0.7, 0.7])

    def loop(some: list[Path]) -> float:
        began = time.perf_counter()
        for file in some:
            picture = Image.open(file).convert("RGB").resize((_DETECTION_SIZE, _DETECTION_SIZE))
            detector.detect(picture, landmarks=True)
        return len(some) / (time.perf_counter() - began)

    loop(files[:5])
    rates = [loop(files[:150])]
    many = four_times(raw, tmp_path / "many")  # so many that the workers' start, some seconds, weighs little
    began = time.perf_counter()
    faces = prepare(settings_for(many, tmp_path / "runs", workers=2))
    ours = len(faces) / (time.perf_counter() - began)
    rates.append(loop(files[150:300]))
    print(f"plain loop {rates[0]:.1f} and {rates[1]:.1f} faces/s; prepare with two workers {ours:.1f} faces/s")
    assert ours >= 1.5 * max(rates)


# Crops by the eyes' share of the side (0.525: dlib's chips at padding 0), turns by degrees and the head's share.
_HARD = {"crop": (cropped, 0.525), "90°": (turned, 90, 0.8), "180°": (turned, 180, 0.8), "small": (turned, 0, 0.1)}


@pytest.mark.benchmark
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", _HARD)
def test_of_two_hundred_faces_nearly_all_are_right_or_refused_and_none_is_wrong_in_silence(raw, kind):
    pictures = [Image.open(file).convert("RGB").resize((256, 256)) for file in sorted(raw.rglob("*.png"))[:200]]
    aligner, (make, *how) = Aligner(image_size=64), _HARD[kind]
    eyes = [five[0, :2] for five in aligner.locate(pictures)]
    images, where = make(pictures, eyes, *how)
    refused = np.array([isinstance(face, str) for face in aligner.align(images)])
    off = eyes_off(images, where, aligner)
    print(f"{kind}: {refused.sum()} refused, {((off < 0.15) & ~refused).sum()} right of {len(images)}")
    assert (refused | (off < 0.15)).mean() >= 0.98
    assert not (~refused & (off > 0.15)).any()
