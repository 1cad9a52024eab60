"""README and docs are true: the paths they name exist, and whoever follows their steps gets what they promise."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

PAGES = [ROOT / "README.md", ROOT / "findings/README.md", *sorted((ROOT / "docs").glob("*.md"))]


def section(title: str) -> str:
    """The text below a heading."""
    pages = "\n".join(page.read_text() for page in PAGES)
    return re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", pages, re.DOTALL | re.MULTILINE)[1]


def anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings_that_exist(page):
    links = re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)", page.read_text())
    for path, name in links:
        target = page.parent / path if path else page
        assert target.exists(), f"{page.name} links to {path}"
        headings = re.findall(r"^#+ (.+)", target.read_text(), re.MULTILINE) if name else []
        assert not name or name in map(anchor, headings), f"{page.name} links to {path}#{name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_code_and_notebooks_that_are_named_exist(page):
    for path in re.findall(r"`((?:ageflow|notebooks|tests|tools)/[\w/.-]+\.(?:py|ipynb|toml|md))`", page.read_text()):
        assert (ROOT / path).exists(), f"{page.name} names {path}"


def test_every_behaviour_that_is_guarded_against_has_its_test():
    rows = re.findall(r"^\|.*\| (.*) \|$", section("What the kit guards against"), re.MULTILINE)[2:]
    there = set(re.findall(r"^def (test_\w+)", "".join(map(Path.read_text, ROOT.glob("tests/**/*.py"))), re.MULTILINE))
    assert rows
    for row in rows:
        named = re.findall(r"`(test_\w+)`", row)
        assert named, row
        assert set(named) <= there, named


def test_every_finding_has_its_line_and_its_guess():
    scripts = {file.name: file.read_text() for file in (ROOT / "findings").glob("*.sh")}
    listed = re.findall(r"^\| \[[\w-]+\]\(([\w-]+\.sh)\) \|", (ROOT / "findings/README.md").read_text(), re.MULTILINE)
    assert listed == sorted(scripts)
    assert len(scripts) >= 12
    for name, script in scripts.items():
        assert re.match(r"#!/usr/bin/env bash\n# Guessed: .*Seen: ", script, re.DOTALL), name


DATA_SET = """
from pathlib import Path
from PIL import Image
from ageflow import settings
from ageflow.data.readers import READERS
folder = Path("mine/faces")
folder.mkdir(parents=True)
for name in ("anna_34_f.jpg", "carl_61_m.jpg", "holiday.jpg"):
    Image.new("RGB", (64, 64)).save(folder / name)
read = READERS["mine"](settings("prepare_data", {"dataset": "mine", "data_root": "mine", "runs_root": "runs"}))
table = read.table.set_index("identity")
assert table.loc["anna", "gender"] == "female" and int(table.loc["carl", "age"]) == 61, table
assert [left.file for left in read.rejections] == ["holiday.jpg"], read.rejections
"""
LOSS = """
from pathlib import Path
from ageflow.training.ictm import train_translator
from ageflow.training.metrics import read_metrics
from tests.tiny import settings_of
often = {"iterations": 2, "preview_every": 2, "checkpoint_every": 2}
train_translator(settings_of("train_ictm", Path("runs"), typical_weight=0.1, restart=True, **often))
typical = read_metrics(Path("runs/demo/tiny/ictm"))["T/typical"].dropna()
assert len(typical) == 2 and typical.gt(0).all(), typical
"""
METHOD = """
import torch
from ageflow import load_method
from ageflow.data.faces import Faces
calm = load_method("calm", run="tiny", runs_root="runs")
faces = Faces.open("runs/demo/tiny/faces")
z, source = calm.glow.encode(faces.images([0, 1])), torch.tensor(faces.groups[:2])
torch.testing.assert_close(calm.move(z, source, source, None), 0.9 * z)
torch.testing.assert_close(calm.round_trip(z, (source + 1) % 4, source, None), z, rtol=0, atol=1e-5)
"""
METRIC = """
import pandas as pd
from ageflow.report.results import METRICS
from ageflow.report.tables import LAYOUTS
assert "years_off" in LAYOUTS[5].metrics
judged = pd.DataFrame({"identity": ["a", "b"], "target": [0, 3], "predicted_age": [27.0, 50.0]})
assert METRICS["years_off"].scores(judged)["value"].tolist() == [2.0, 5.0]
"""


STEPS = {"Add a data set": DATA_SET, "Change a loss": LOSS, "Add a method": METHOD, "Add a metric": METRIC}


@pytest.mark.parametrize("title", STEPS)
def test_who_follows_the_steps_gets_what_they_promise(title, tmp_path, request):
    works = STEPS[title]
    shutil.copytree(ROOT / "ageflow", tmp_path / "ageflow", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    if "runs/" in works:
        shutil.copytree(request.getfixturevalue("translators"), tmp_path / "runs")
    steps = re.findall(r"^```diff\n--- (\S+)\n(.*?)^```", section(title), re.DOTALL | re.MULTILINE)
    assert len(steps) >= 2
    for name, lines in steps:
        file, lines = tmp_path / name, lines.splitlines(keepends=True)
        text = file.read_text()
        old, new = ("".join(line[1:] for line in lines if line[0] in kept) for kept in (" -", " +"))
        assert not old or text.count(old) == 1, f"{name} does not have, or has twice:\n{old}"
        file.write_text(text.replace(old, new) if old else text + new)
    command, environment = [sys.executable, "-c", works], os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
