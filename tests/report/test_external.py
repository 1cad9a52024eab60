"""Figure A.1: whose faces are taken from another set, and the rest is accounted for."""

import numpy as np
import pandas as pd
import pytest
import skimage.data
import torch
from PIL import Image

from ageflow.config import ParameterError
from ageflow.data.faces import Faces, shard_file
from ageflow.report.figures import external_faces
from tests.tiny import SIDE, write_faces


@pytest.fixture
def pictures(tmp_path):
    """A folder with one face in it, in a subfolder, and what is none."""
    folder = tmp_path / "pictures"
    (folder / "more").mkdir(parents=True)
    Image.fromarray(skimage.data.astronaut()).save(folder / "more" / "astronaut.png")
    Image.new("RGB", (80, 60), "grey").save(folder / "wall.jpg")
    (folder / "broken.png").write_bytes(b"no picture")
    (folder / "notes.txt").write_text("of no interest")
    return folder


def other_run(runs_root, side=SIDE, **columns):
    """A second run in `runs_root`: the tiny faces again, some columns changed."""
    folder = runs_root / "morph/other/faces"
    write_faces(folder)
    pd.read_parquet(folder / "faces.parquet").assign(**columns).to_parquet(folder / "faces.parquet")
    pixels = np.load(shard_file(folder, 0))
    if side != SIDE:
        np.save(shard_file(folder, 0), pixels.repeat(side // SIDE, axis=1).repeat(side // SIDE, axis=2))
    return folder


def test_of_a_run_test_faces_come_first_and_nobody_twice_while_others_are_left(faces, tmp_path):
    folder = other_run(tmp_path, source="another set")
    taken = external_faces("morph/other", faces, tmp_path, count=6)
    # The tiny set has six test people; its ages are 25, 35, 45 and 55.
    others = Faces.open(folder)
    held_out = others.select(split="test")
    rows = [int(np.flatnonzero((held_out.images(slice(None)) == image).all((1, 2, 3)))[0]) for image in taken.images]
    assert held_out.table["identity"].iloc[rows].nunique() == 6
    assert taken.labels == [f"age {age:.0f}" for age in held_out.table["age"].iloc[rows]]
    assert not torch.equal(external_faces("morph/other", faces, tmp_path, 6, seed=1).images, taken.images)
    assert len(external_faces(str(folder.parent), faces, tmp_path / "nowhere", 500).images) == len(others)


def test_people_the_model_was_trained_on_are_not_shown(faces, tmp_path):
    folder = other_run(tmp_path, split="test")
    taken = external_faces("morph/other", faces, tmp_path, count=500)
    trained_on = set(faces.table.loc[faces.table["split"] == "train", "identity"])
    unseen = [name for name in Faces.open(folder).identities if name not in trained_on]
    assert len(taken.images) == len(unseen) == 24
    assert "24 of the 24" in taken.about
    everybody = Faces(faces.folder, faces.table.assign(split="train"))
    with pytest.raises(ParameterError, match="training half"):
        external_faces("morph/other", everybody, tmp_path, count=6)


def test_faces_of_another_size_are_brought_to_the_models(faces, tmp_path):
    other_run(tmp_path, side=2 * SIDE, source="another set")
    large = external_faces("morph/other", faces, tmp_path, count=4)
    assert large.images.shape == (4, 3, SIDE, SIDE)
    other_run(tmp_path, source="another set")
    small = external_faces("morph/other", faces, tmp_path, count=4)
    assert (large.images.float() - small.images.float()).abs().mean() < 3  # of 255


def test_of_a_folder_faces_are_found_and_aligned_and_the_rest_told(faces, pictures):
    taken = external_faces(str(pictures), faces, pictures, count=3)
    assert taken.images.shape == (1, 3, SIDE, SIDE)
    assert taken.labels == [""]
    assert set(taken.left_out) == {"wall.jpg", "broken.png"}
    assert taken.left_out["wall.jpg"] == "MTCNN finds no face"
    # Aligned: the whites of the eyes are darker than the cheeks below them, and the suit's orange is out of the picture.
    face = taken.images[0].float().mean(0)
    eyes, cheeks = face[14:16, 9:23].mean(), face[18:21, 10:22].mean()
    assert eyes + 10 < cheeks
    (pictures / "more" / "astronaut.png").unlink()
    with pytest.raises(ParameterError, match=r"wall\.jpg: MTCNN finds no face"):
        external_faces(str(pictures), faces, pictures, count=3)


def test_what_is_neither_run_nor_folder_is_refused_with_both_meant(faces, tmp_path):
    with pytest.raises(ParameterError, match=r"morph/nothing.*01_prepare_data.*folder of pictures"):
        external_faces("morph/nothing", faces, tmp_path, count=3)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ParameterError, match="holds no pictures"):
        external_faces(str(tmp_path / "empty"), faces, tmp_path, count=3)
