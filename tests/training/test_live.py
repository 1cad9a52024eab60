"""The live view: what it draws, and where; in JupyterLab in a real browser."""

import io
import json
import re
from pathlib import Path

import numpy as np
import papermill
import pytest
from PIL import Image

from ageflow.training.live import draw
from ageflow.work import front_end
from tests.conftest import ROOT
from tests.slider.test_in_browser import browser, jupyter_lab, keep, no_error_in, page, run_all_cells  # noqa: F401
from tests.training.processes import with_faces


def test_it_draws_the_losses_and_the_newest_picture(tmp_path):
    assert draw(tmp_path) is None
    written = [{"iteration": n, "glow/loss": 5 - n / 10, "glow/gradient_norm": 1e3} for n in range(1, 9)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in written[:4]))
    seen = []
    for number in (None, 4, 8):
        if number:
            (tmp_path / "samples").mkdir(exist_ok=True)
            Image.new("RGB", (64, 16), (255, 10 * number, 0)).save(tmp_path / "samples" / f"samples-{number:08d}.png")
        content, width = draw(tmp_path)
        image = np.array(Image.open(io.BytesIO(content)).convert("RGB"))
        assert image.shape[1] == 2 * width
        seen.append(image)
    assert seen[0].shape[1] < seen[1].shape[1], "there is a picture beside the curve now"
    orange = [(image.reshape(-1, 3) == (255, 80, 0)).all(1).sum() for image in seen[1:]]
    assert orange[0] == 0 < orange[1], "the newest picture is the one of iteration 8"


def test_nobody_watches_a_plain_process_or_papermill(papermill, tmp_path):
    assert not front_end()
    with_faces(tmp_path, "tiny")
    out = tmp_path / "out.ipynb"
    given = {"preset": "smoke", "run": "tiny", "runs_root": tmp_path, "iterations": 4}
    words = [word for name, value in given.items() for word in ("-p", name, str(value))]
    done = papermill("02_train_glow.ipynb", str(out), *words, OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    cell = next(
        cell for cell in json.loads(out.read_text())["cells"] if "train_glow(settings)" in "".join(cell["source"])
    )
    assert {output["output_type"] for output in cell["outputs"]} == {"stream"}, "text only"
    assert "100%" in str(cell["outputs"])


@pytest.mark.parametrize("gpus", [pytest.param(1, marks=pytest.mark.benchmark), 2])
def test_in_jupyterlab_curve_and_samples_follow_the_training(tmp_path, page, keep, gpus, monkeypatch):  # noqa: F811
    """The picture below the cell changes while the cell runs, in the kernel and in processes of its own."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with_faces(tmp_path, "tiny")
    notebook: Path = tmp_path / "work" / "02_train_glow.ipynb"
    notebook.parent.mkdir()
    given = {"preset": "smoke", "run": "tiny", "runs_root": str(tmp_path), "gpus": gpus}
    given |= {"iterations": 100_000}  # on any machine more than the test waits for
    papermill.execute_notebook(
        ROOT / "notebooks" / notebook.name,
        notebook,
        given,
        prepare_only=True,
        kernel_name="python3",
        progress_bar=False,
    )
    with jupyter_lab(notebook) as (address, log):
        page.goto(f"{address}/lab/tree/{notebook.name}?token=slider")
        run_all_cells(page)
        cell = page.locator(".jp-CodeCell", has_text=re.compile("folder = train_glow"))
        picture = cell.locator("img")
        picture.wait_for(timeout=180_000)
        picture.scroll_into_view_if_needed()
        seen = set()
        for _ in range(240):
            seen.add(picture.get_attribute("src"))
            if len(seen) == 3:
                break
            page.wait_for_timeout(500)
        page.screenshot(path=str(keep / f"live_{gpus}.png"))
        assert len(seen) == 3, "the picture did not change while training ran"

        page.get_by_role("menuitem", name="Kernel", exact=True).click()
        page.locator('[data-command="kernelmenu:interrupt"]').click()
        cell.get_by_text("KeyboardInterrupt").first.wait_for(timeout=60_000)
        assert picture.count() == 1, "one picture, drawn anew"
        page.screenshot(path=str(keep / f"live_{gpus}_end.png"))
        no_error_in(log)  # now: the cells below are still at work when the server ends
        page.goto("about:blank")
