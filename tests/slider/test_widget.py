"""The slider's widgets without a browser: every one does what it says, and what goes wrong is shown."""

import base64
import io
import json
import re
import shutil
import time
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from ageflow.checkpoint import checksum
from ageflow.slider import AgeSlider, Explorer, View, find_models
from ageflow.translation.methods import METHODS
from tests.conftest import Run
from tests.slider.conftest import REFUSED, astronaut, in_format, slider_settings, two_faces


def shown(content: bytes) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(content)))


def upload(slider: AgeSlider, content: bytes, name: str = "me.jpg") -> None:
    file = {"name": name, "type": "image/jpeg", "size": len(content), "last_modified": datetime(2026, 1, 1)}
    slider.controls.upload.value = [file | {"content": memoryview(content)}]
    assert slider.wait()


def test_every_widget_changes_the_picture(slider: AgeSlider):
    controls = slider.controls
    seen = [controls.aged.value]
    moves = [(controls.age, 25.0), (controls.method, "glow"), (controls.age, 60.0), (controls.strength, 0.5)]
    for widget, value in moves:
        widget.value = value
        assert slider.wait()
        assert controls.aged.value not in seen, f"{widget.description} = {value} changes nothing"
        seen.append(controls.aged.value)
    assert controls.caption.value == "at 60.0: 100% 51+"
    before = controls.original.value
    controls.thumbnails[1].click()
    assert slider.wait()
    assert controls.original.value != before
    assert "test face 1" in controls.about.value


def test_every_method_is_shown_with_its_readings_and_strip(slider: AgeSlider):
    for method in METHODS:
        slider.controls.method.value = method
        assert slider.wait()
        assert slider.problem == ""
        assert "cosine to the face before" in slider.controls.readings.value
        assert ("0 of 3072 values differ" in slider.controls.readings.value) == (method != "no_ictm")
        for image, centre in zip(slider.controls.strip, (25.0, 35.5, 45.5, 57.0), strict=True):
            expected = slider.explorer.at_age(View(slider.portrait, centre, method, slider.controls.strength.value))
            small = Image.fromarray(expected.permute(1, 2, 0).contiguous().numpy()).resize((256, 256), 3)
            assert np.array_equal(shown(image.value), np.array(small))


def test_back_at_the_own_age_it_is_the_input_every_value(slider: AgeSlider):
    controls, portraits = slider.controls, map(slider.explorer.portrait, range(len(slider.explorer)))
    slider._choose(next(portrait for portrait in portraits if portrait.own_age < 50))
    controls.age.value = 65.0
    assert slider.wait()
    assert controls.aged.value != controls.original.value
    controls.own_age.click()
    assert slider.wait()
    assert torch.equal(slider.shown, slider.portrait.image)
    assert controls.aged.value == controls.original.value
    assert "back from 65.0" in controls.caption.value
    assert (shown(controls.difference.value) == 128).all()


def test_moves_faster_than_pictures_are_dropped_and_the_last_is_shown(slider: AgeSlider):
    drawn: list[bytes] = []
    strips: list[bytes] = []
    slider.controls.aged.observe(lambda change: drawn.append(change["new"]), "value")
    slider.controls.strip[0].observe(lambda change: strips.append(change["new"]), "value")
    slider.controls.strength.value = 0.9
    started = time.perf_counter()
    for age in np.linspace(20, 65, 400):
        slider.controls.age.value = float(age)
    moving = time.perf_counter() - started
    assert slider.wait()
    assert moving < 2, "a move waits for a picture"
    assert len(drawn) < 200
    assert len(strips) == 1, "what takes longer waits for the last"
    last = slider.explorer.at_age(View(slider.portrait, 65.0, strength=0.9))
    assert torch.equal(slider.shown, last)
    assert slider.controls.caption.value == "at 65.0: 100% 51+"


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_upload_is_explained_and_leaves_the_face(slider: AgeSlider, name: str):
    content, words = REFUSED[name]
    before = (slider.controls.original.value, slider.controls.aged.value)
    upload(slider, content)
    assert words in slider.problem
    assert words in slider.controls.problem.value
    assert (slider.controls.original.value, slider.controls.aged.value) == before
    slider.controls.age.value = 33.0
    assert slider.wait()
    assert slider.controls.problem.value == ""


def test_a_photograph_is_aged_and_saved(slider: AgeSlider, tmp_path: Path):
    controls = slider.controls
    upload(slider, in_format(astronaut(), "JPEG"))
    assert slider.problem == ""
    assert "your picture" in controls.about.value
    controls.save["gif"].click()
    assert 'download="face_40_ageflow.gif"' in controls.download.value
    film = Image.open(io.BytesIO(base64.b64decode(re.search(r"base64,([^\"]*)", controls.download.value)[1])))
    assert film.n_frames > 10
    assert np.array_equal(shown(slider.save(tmp_path / "face.png").read_bytes()), shown(controls.aged.value))
    with pytest.raises(ValueError, match=r"\.png or \.gif"):
        slider.save(tmp_path / "face.bmp")


def test_of_two_faces_either_can_be_chosen(slider: AgeSlider):
    upload(slider, in_format(two_faces(), "PNG"))
    second, test_face = slider.controls.thumbnails[1:3]
    left = slider.controls.original.value
    second.click()
    assert slider.wait()
    assert slider.controls.original.value != left
    test_face.click()
    assert slider.wait()
    assert slider.controls.about.value == slider.explorer.portrait(0).about


def test_ones_own_picture_stays_in_another_run_may_be_chosen_again_and_is_saved_whole(smoke_run: Run, tmp_path: Path):
    for name in ("one", "two"):
        shutil.copytree(smoke_run.workspace.root, tmp_path / "demo" / name)
    made = AgeSlider(slider_settings(smoke_run, runs_root=tmp_path, run="one", method="glow"))
    save = made.controls.save["photo"]
    assert save.layout.display == "none", "a test face is of no photograph"
    upload(made, in_format(two_faces(), "PNG"))
    left = made.portrait
    made.controls.thumbnails[1].click()
    right = made.portrait
    made.controls.model.value = ("demo", "two")
    assert made.wait()
    assert (made.explorer.settings.run, made.portrait.about) == ("two", right.about)
    assert torch.equal(made.portrait.image, right.image)
    save.click()
    assert 'download="photo_60_glow.png"' in made.controls.download.value
    whole = shown(base64.b64decode(re.search(r"base64,([^\"]*)", made.controls.download.value)[1]))
    changed = (whole != np.array(two_faces())).any(axis=2)
    assert changed[:, 430:].any()
    assert not changed[:, :430].any()
    for kind in ("PNG", "PNG", "BMP"):  # the same file once more, twice in a row, and the same picture as another file
        upload(made, in_format(two_faces(), kind))
        assert torch.equal(made.portrait.image, left.image)
        made.controls.thumbnails[1].click()
    made.controls.thumbnails[2].click()
    assert save.layout.display == "none"
    made.wait()


def test_a_photo_and_a_face_may_be_parameters_and_nobody_stands_in_for_them(smoke_run: Run, tmp_path: Path):
    photo = tmp_path / "me.png"
    photo.write_bytes(in_format(astronaut(), "PNG"))
    for asked, words in (({"photo": photo}, "your picture"), ({"face": 1}, "test face 1")):
        made = AgeSlider(slider_settings(smoke_run, **asked))
        assert words in made._repr_mimebundle_()["text/plain"]
        assert made.shown is not None
    gone = tmp_path / "not there.png"
    refused = {f"photo = {gone}: the file cannot be read": {"photo": gone}, "face = 999: demo/smoke has": {"face": 999}}
    for words, asked in refused.items():
        made = AgeSlider(slider_settings(smoke_run, **asked))
        assert made.wait()
        assert words in made.problem
        assert (made.portrait, made.shown) == (None, None)
        assert words in made.figure().data


@pytest.fixture
def partial_runs(smoke_run: Run, tmp_path: Path) -> Path:
    """Runs that stopped after notebook 01, 02, 03 and 04."""
    kept: tuple[str, ...] = ()
    for name, parts in {
        "one": ("faces",),
        "two": ("glow",),
        "three": ("prototypes",),
        "four": ("decoded_age", "ictm"),
    }.items():
        kept += parts
        for part in kept:
            shutil.copytree(smoke_run.workspace.path(part), tmp_path / "demo" / name / part)
    return tmp_path


@pytest.mark.parametrize(
    ("run", "notebook"),
    [("none", "01_prepare_data"), ("one", "02_train_glow"), ("two", "04_train_ictm"), ("three", "04_train_ictm")],
)
def test_a_missing_model_is_named_with_its_notebook(partial_runs: Path, smoke_run: Run, run: str, notebook: str):
    made = AgeSlider(slider_settings(smoke_run, runs_root=partial_runs, run=run))
    assert made.wait()
    assert f"run {notebook}.ipynb first" in made.problem
    assert f"run {notebook}.ipynb first" in made._repr_mimebundle_()["text/plain"]


def test_what_a_run_has_can_be_shown_whatever_it_lacks(partial_runs: Path, smoke_run: Run):
    made = AgeSlider(slider_settings(smoke_run, runs_root=partial_runs, run="three"))
    made.controls.method.value = "glow"
    assert made.wait()
    assert made.problem == ""
    assert made.shown is not None
    assert "05_train_classifiers" in made.controls.readings.value
    made.controls.method.value = "no_ictm"
    assert made.wait()
    assert "run 06_ablations.ipynb first" in made.problem
    assert made.shown is None
    upload(made, in_format(astronaut(), "PNG"))
    assert "run 05_train_classifiers.ipynb first" in made.problem
    made.controls.strength.value = 0.6
    made.controls.model.value = ("demo", "four")
    made.controls.method.value = "ageflow"
    assert made.wait()
    assert made.problem == ""
    assert made.explorer.settings.run == "four"
    assert made.controls.strength.value == 0.6, "runs are compared at one strength"


def test_no_face_of_another_method_stays_where_one_fails(partial_runs: Path, smoke_run: Run, tmp_path: Path):
    """The ICTM is there, and was trained on the latents of another GLOW."""
    for file in (partial_runs / "demo" / "four" / "ictm").glob("checkpoint-*.safetensors"):
        with safe_open(file, framework="pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            metadata = {name: value for name, value in opened.metadata().items() if name != "checksum"}
        metadata["inputs"] = json.dumps(json.loads(metadata["inputs"]) | {"glow": "another"})
        save_file(tensors, file, metadata | {"checksum": checksum(tensors, metadata)})
    made = AgeSlider(slider_settings(smoke_run, runs_root=partial_runs, run="four", method="glow", age=60.0))
    assert made.wait()
    assert made.shown is not None
    made.controls.method.value = "ageflow"
    assert made.wait()
    assert "is of another GLOW" in made.problem
    assert made.shown is None
    assert made.controls.readings.value == ""
    with pytest.raises(ValueError, match="no face to save"):
        made.save(tmp_path / "face.png")
    made.controls.method.value = "glow"
    assert made.wait()
    assert made.shown is not None


def test_every_run_with_a_glow_is_listed(partial_runs: Path):
    found = find_models(partial_runs).set_index("run")
    assert found["methods"].to_dict() == {
        "two": "none yet",
        "three": "GLOW, GLOW + attribute",
        "four": "GLOW, GLOW + attribute, Soft source (ours), Calibrated step (ours), AgeFlow",
    }
    assert find_models(partial_runs / "nowhere").empty


def test_the_test_faces_come_in_pages(slider: AgeSlider, explorer: Explorer):
    controls = slider.controls
    assert 12 < len(explorer) <= 24
    assert controls.page.max == 2
    controls.page.value = 2
    there = [button for button in controls.thumbnails if button.layout.display != "none"]
    assert len(there) == controls.style.value.count("url(") == len(explorer) - 12
    there[0].click()
    assert slider.wait()
    assert controls.about.value == explorer.portrait(12).about
