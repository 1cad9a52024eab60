"""``python -m ageflow.age``: photographs of every kind, each accounted for; and faces put back into them."""

import csv
import resource
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ageflow
from ageflow.age import main
from ageflow.data.align import Aligner
from ageflow.data.paste import paste_change
from ageflow.data.pictures import open_image
from ageflow.slider.explorer import Explorer, View
from tests import tiny
from tests.slider.conftest import astronaut, in_format

TURNED = Image.Exif()
TURNED[0x0112] = 6  # shown a quarter turned to the right


def six() -> Image.Image:
    face, picture = astronaut().crop((100, 0, 350, 256)), Image.new("RGB", (750, 512))
    for place in range(6):
        picture.paste(face, (place % 3 * 250, place // 3 * 256))
    return picture


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The part of the command line that names a small run."""
    runs_root = tiny.tiny_run(tmp_path_factory.getbasetemp() / "tiny")
    return ["--run", "tiny", "--runs-root", str(runs_root), "--method", "glow"]


@pytest.fixture
def album(tmp_path: Path) -> dict[str, int]:
    """Files in ``tmp_path/album``, and how many faces are in each."""
    person = astronaut()
    grey = np.asarray(person.convert("L")).astype(np.uint16) * 257
    sideways = person.transpose(Image.Transpose.ROTATE_90)
    files = {
        "me.png": (in_format(person, "PNG"), 1),
        "sub/cmyk.jpg": (in_format(person.convert("CMYK"), "JPEG"), 1),
        "sub/grey16.png": (in_format(Image.fromarray(grey), "PNG"), 1),
        "sub/palette.png": (in_format(person.quantize(64), "PNG"), 1),
        "turned.jpg": (in_format(sideways, "JPEG", quality=95, exif=TURNED), 1),
        "40 megapixels.jpg": (in_format(person.resize((6400, 6400)), "JPEG"), 1),
        "six, of one.png": (in_format(six(), "PNG"), 6),
        "nobody.png": (in_format(Image.new("RGB", (300, 200), "gray"), "PNG"), 0),
        "half.jpg": (in_format(person, "JPEG")[:9000], 0),
        "notes.txt": (b"no picture\n", 0),
        "empty.jpg": (b"", 0),
    }
    for name, (content, _) in files.items():
        (tmp_path / "album" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "album" / name).write_bytes(content)
    return {str(tmp_path / "album" / name): faces for name, (_, faces) in files.items()}


def table(out: Path) -> list[dict[str, str]]:
    with (out / "faces.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_file_is_in_the_table_and_a_second_call_makes_nothing_anew(run, album, tmp_path, capsys):
    out = tmp_path / "album" / "aged"
    command = [str(tmp_path / "album"), f"{tmp_path}/album/me.png", "--to", "30", "57.5", "--out", str(out), *run]
    assert main([*command, "--paste-back"]) == 0
    assert "12 faces of 7 photos, 4 files without" in capsys.readouterr().out
    rows = table(out)
    assert {row["file"] for row in rows} == set(album), "the photo given twice is there once, and no output as a photo"
    for file, faces in album.items():
        own = [row for row in rows if row["file"] == file]
        assert len(own) == (2 * faces or 1)
        assert bool(own[0]["reason"]) == (not faces)
        for row in own if faces else ():
            assert 20 < float(row["age_before"]) < 60 > float(row["age_after"]) > 20
            assert -1 <= float(row["cosine"]) <= 1
            assert Image.open(out / row["output"]).size == (tiny.SIDE, tiny.SIDE)
            assert (pasted := Image.open(out / row["pasted"])).size == open_image(Path(file).read_bytes()).size
            assert np.ptp(np.asarray(pasted), axis=2).any() == ("grey" not in file)
    (sheet,) = (out / "sheets").iterdir()
    assert Image.open(sheet).size == (15 * 64, 3 * 78)

    (changed := Path(next(iter(album)))).write_bytes(in_format(astronaut().rotate(5), "PNG"))
    before = {path: path.stat().st_mtime_ns for path in (out / "faces").rglob("*.*") if path.is_file()}
    assert main([*command, "--paste-back"]) == 0
    anew = {path.parent.name for path, time in before.items() if path.stat().st_mtime_ns != time}
    assert anew == {changed.name}
    assert len(table(out)) == len(rows)


def test_what_an_earlier_call_made_is_never_lost_mixed_or_aged_again(run, tmp_path, capsys):
    a, b, out = (str(tmp_path / name) for name in ("a", "b", "b/aged"))
    for file in ("a/one.png", "b/one.png", "b/x", "a/x/y"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (six() if file == "a/one.png" else astronaut()).save(tmp_path / file, "PNG")
    assert main([b, "--to", "30", "--out", out, *run]) == 0
    made = {path: path.read_bytes() for path in Path(out).rglob("*.*") if path.is_file()}
    for more, said in {
        a: "b/one.png, too",
        f"{b} --method glow+attribute": "method: 'glow' → 'glow+attribute'",
    }.items():
        assert main(["--to", "30", "--out", out, *run, *more.split()]) == 2
        assert said in capsys.readouterr().err
        assert made == {path: path.read_bytes() for path in Path(out).rglob("*.*") if path.is_file()}
    assert main([a, b, "--to", "57", "--out", out, *run]) == 0
    assert len({(row["file"], row["target"]) for row in table(Path(out))}) == 4 * 2
    assert len({row["output"] for row in table(Path(out))}) == 2 * (6 + 3), "none overwrote another"
    assert main([b, "--to", "57", "--out", f"{b}/other", *run]) == 0
    assert {row["file"] for row in table(tmp_path / "b/other")} == {f"{b}/one.png", f"{b}/x"}
    assert f"{out} is left out" in capsys.readouterr().err


def test_a_target_that_a_face_does_not_go_to_leaves_the_others(run, tmp_path, monkeypatch, capsys):
    code = "pairs = {(0, 1), (1, 2), (2, 3)}; __init__ = print; translate = lambda self, images, *_: images / 255"
    (tmp_path / "near.py").write_text(f"import ageflow\n\n\nclass Near(ageflow.Method): {code}\n")
    monkeypatch.syspath_prepend(tmp_path)
    astronaut().save(tmp_path / "me.png")
    command = [f"{tmp_path}/me.png", "--out", f"{tmp_path}/aged", *run, "--method", "near:Near", "--paste-back"]
    assert main([*command, "--to", "25", "35", "45", "57"]) == 0
    assert "1 faces of 1 photos, 0 files without, 3 times" in capsys.readouterr().out
    rows = table(tmp_path / "aged")
    assert sorted("Near does not go from" in row["reason"] for row in rows) == [False, True, True, True]
    assert [bool(row["output"] and row["pasted"]) for row in rows] == [not row["reason"] for row in rows]
    assert main([*command[:-1], "--to", "25"]) == 0, "without --paste-back"
    assert table(tmp_path / "aged") == rows
    assert all((tmp_path / "aged" / row["pasted"]).is_file() for row in rows if row["pasted"])


def test_memory_does_not_grow_with_the_number_of_photographs(run, tmp_path):
    (tmp_path / "album").mkdir()
    most = []
    for number in range(15):  # 17 MB each, decoded
        astronaut().rotate(number).resize((2400, 2400)).save(tmp_path / "album" / f"{number}.jpg")
        if number in (2, 14):
            assert main([f"{tmp_path}/album", "--to", "57", "--out", f"{tmp_path}/aged", "--paste-back", *run]) == 0
            most.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    assert most[1] - most[0] < 80_000, "kilobytes"


def test_the_table_says_what_the_slider_says_and_largest_is_one_face(run, tmp_path):
    two, small = Image.new("RGB", (900, 512)), astronaut().crop((100, 0, 350, 256))
    two.paste(small, (0, 0))
    two.paste(small.resize((500, 512)), (300, 0))
    (tmp_path / "six.png").write_bytes(in_format(six(), "PNG"))
    (tmp_path / "two.png").write_bytes(in_format(two, "PNG"))
    photos, out = [str(tmp_path / "six.png"), str(tmp_path / "two.png")], tmp_path / "aged"
    assert main([*photos, "--to", "65", "--out", str(out), "--faces", "largest", "--strength", "0.5", *run]) == 0
    rows = table(out)
    assert [row["file"] for row in rows] == photos
    explorer = Explorer(ageflow.settings("age_slider", {"run": "tiny", "runs_root": run[3]}))
    portraits = explorer.portraits_in(open_image((tmp_path / "two.png").read_bytes()))
    assert len(portraits) == int(rows[1]["face"]) == 2
    shown = explorer.at_age(View(portrait := portraits[1], 65.0, "glow", 0.5))
    written = np.asarray(Image.open(out / rows[1]["output"]))
    assert np.array_equal(written, shown.permute(1, 2, 0).numpy())
    assert float(rows[1]["cosine"]) == pytest.approx(explorer.cosines(portrait, shown[None])[0], abs=1e-3)
    assert float(rows[1]["age_after"]) == pytest.approx(explorer.estimate(shown)[0], abs=0.1)


def test_outside_the_faces_circle_the_photograph_is_the_same_to_the_last_bit(run, album, tmp_path):
    turned = next(file for file in album if "turned" in file)
    assert main([turned, "--to", "57", "--out", str(tmp_path / "aged"), "--paste-back", *run]) == 0
    photo = open_image(Path(turned).read_bytes())
    changed = np.asarray(Image.open(tmp_path / "aged" / table(tmp_path / "aged")[0]["pasted"])) != np.asarray(photo)
    a, b = Aligner(tiny.SIDE).align_all(photo)[0].similarity
    y, x = np.indices(changed.shape[:2]) + 0.5
    inside = abs(x + 1j * y - (a * (0.5 + 0.5j) * tiny.SIDE + b)) < abs(a) * tiny.SIDE / 2
    assert not changed[~inside].any()
    assert changed[inside].any(axis=1).mean() > 0.3


@pytest.mark.parametrize("a", [9 * np.exp(0.5j), 0.4 * np.exp(-2j), 60 + 0j])
def test_a_change_lands_where_the_face_was_cut_out(a: complex):
    """A bright spot at (22, 30) of the aligned face, in a photograph much finer, coarser, and smaller than the face."""
    photo, b, spot = Image.new("RGB", (1200, 1100), (9, 90, 200)), 600 + 500j - a * (22 + 30j), np.indices((64, 64))
    before = np.full((64, 64, 3), 90, np.uint8)
    bright = 60 * np.exp(-((spot[1] + 0.5 - 22) ** 2 + (spot[0] + 0.5 - 30) ** 2) / 9)
    paste_change(photo, (a, b), before, before + bright[..., None].astype(np.uint8))
    gain = np.asarray(photo)[..., 1].astype(float) - 90
    y, x = np.indices(gain.shape) + 0.5
    found = ((gain * x).sum() / gain.sum(), (gain * y).sum() / gain.sum())
    assert found == pytest.approx((600, 500), abs=0.7 + 0.3 * abs(a) / 9)


def test_a_wrong_command_is_explained_before_anything_is_written(run, album, tmp_path, capsys):
    photo, out, data = next(iter(album)), tmp_path / "aged", tmp_path / "data"
    data.mkdir()
    (data / "faces.csv").write_text("file,age\na.jpg,34\n")
    wrong = {
        f"{tmp_path}/gone.jpg: there is no such file": [f"{tmp_path}/gone.jpg", "--out", str(out)],
        "is a file: name a folder": [photo, "--out", photo],
        "holds another faces.csv": [photo, "--out", str(data)],
        "would be read as photos": [f"{tmp_path}/album", "--out", f"{tmp_path}/album"],
        "did you mean 'glow'": [photo, "--out", str(out), "--method", "glw"],
        "strength = 3.0": [photo, "--out", str(out), "--strength", "3"],
        "run 01_prepare_data.ipynb first": [photo, "--out", str(out), "--run", "other"],
        "embedder 'arcface': expected": [photo, "--out", str(out), "--embedder", "arcface"],
    }
    for words, arguments in wrong.items():
        assert main([*run, *arguments, "--to", "30"]) > 0
        assert words in capsys.readouterr().err
    assert main([*run, photo, "--out", str(out), "--to", "90"]) == 2
    assert "age = 90: expected 20 to 70 years" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main([photo, "--out", str(out), "--to", "old"])
    assert "invalid float value: 'old'" in capsys.readouterr().err
    assert not out.exists()
    assert (data / "faces.csv").read_text() == "file,age\na.jpg,34\n"
