"""Notebook 09 in JupyterLab and through Voilà in a real browser: the picture follows the slider.

``--screenshots FOLDER`` keeps what the browser showed, of the run that ``--screenshots-of`` names. docs/slider.png is
one of them; README.md has the command.
"""

import io
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import papermill
import pytest
from PIL import Image
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright
from playwright.sync_api import Error as PlaywrightError

from ageflow.run import Workspace
from tests.conftest import ROOT, Run
from tests.slider.conftest import astronaut

_TOKEN = "slider"
_PIXELS = """image => {
    const canvas = Object.assign(document.createElement("canvas"), {width: 64, height: 64});
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0, 64, 64);
    return image.naturalWidth ? Array.from(context.getImageData(0, 0, 64, 64).data) : [];
}"""
# What the applications write into the console by themselves, whatever the notebook: JupyterLab asks for its news;
# Notebook 7 for the schemas of settings it does not have; Voilà for Font Awesome on the internet, and for an extension
# of Notebook 7 that needs more than Voilà has.
_NOT_OURS = re.compile(
    r"favicon|jupyterlab_news|api/(me|news|lsp)|reading 'schema'\).*notebook_core|@fortawesome/fontawesome-free"
    r"|shared module is not a function.*@jupyter-notebook/lab-extension",
    re.DOTALL,
)


def browser_path() -> str:
    found = [path for path in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if path]
    assert found, "no browser: install chromium or google-chrome, so that it is on the PATH (`make test` does, as root)"
    return found[0]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=browser_path(), args=arguments)
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def shown_run(request: pytest.FixtureRequest) -> Workspace:
    """The run to show: the smoke run, or the one that ``--screenshots-of`` names."""
    named = request.config.getoption("--screenshots-of")
    if named:
        named = named.resolve()
        return Workspace(named.parents[1], named.parent.name, named.name)
    run: Run = request.getfixturevalue("smoke_run")
    return run.workspace


@pytest.fixture
def notebook(shown_run: Workspace, tmp_path: Path) -> Path:
    """Notebook 09 with the run's parameters, not executed."""
    parameters = {"dataset": shown_run.dataset, "preset": "smoke", "run": shown_run.run}
    parameters |= {"runs_root": str(shown_run.runs_root)}
    path = tmp_path / "work" / "09_age_slider.ipynb"
    path.parent.mkdir()
    papermill.execute_notebook(
        ROOT / "notebooks" / path.name, path, parameters, prepare_only=True, kernel_name="python3", progress_bar=False
    )
    return path


@contextmanager
def served(application: str, arguments: list[str], folder: Path, answers: str) -> Iterator[tuple[str, Path]]:
    """A Jupyter application on a free port, its settings beside `folder`; yields its address and its log.

    Arguments:
        application: module, ``jupyterlab`` or ``voila``.
        arguments: its own.
        folder: where it works.
        answers: path that answers once it is ready.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    state = folder.parent / f"{application}_state"
    state.mkdir()
    names = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTERLAB_SETTINGS_DIR")
    environment = os.environ | {name: str(state / name.lower()) for name in (*names, "JUPYTERLAB_WORKSPACES_DIR")}
    # Jupyter asks for kernels in its own environment, not in whichever python is first on the PATH.
    command = [sys.executable, "-m", application, "--no-browser", f"--port={port}", *arguments]
    log = state / "log.txt"
    with log.open("w") as stream:
        server = subprocess.Popen(command, env=environment, cwd=folder, stdout=stream, stderr=stream)
        try:
            address = f"http://127.0.0.1:{port}"
            _wait_for(f"{address}{answers}", server, log)
            yield address, log
        except PlaywrightError as error:
            error.add_note(f"the server wrote:\n{log.read_text()}")
            raise
        finally:
            server.terminate()
            server.wait(30)


def jupyter_lab(notebook: Path) -> object:
    arguments = ["--ip=127.0.0.1", "--port-retries=0", "--allow-root", f"--IdentityProvider.token={_TOKEN}"]
    arguments += [f"--ServerApp.root_dir={notebook.parent}", "--LabApp.news_url=None"]
    arguments += ["--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    return served("jupyterlab", arguments, notebook.parent, f"/api?token={_TOKEN}")


def voila(notebook: Path) -> object:
    return served("voila", [str(notebook), "--Voila.ip=127.0.0.1"], notebook.parent, "/voila/static/voila.js")


def _wait_for(address: str, server: subprocess.Popen, log: Path) -> None:
    for _ in range(240):
        assert server.poll() is None, f"the server stopped:\n{log.read_text()}"
        try:
            with urllib.request.urlopen(address, timeout=2):
                return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.5)
    raise AssertionError(f"the server does not answer:\n{log.read_text()}")


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page that must not have written an error into the browser's console."""
    opened = browser.new_page(viewport={"width": 1280, "height": 1400}, accept_downloads=True)
    errors: list[str] = []

    def told(words: str) -> None:
        if not _NOT_OURS.search(words):
            errors.append(words)

    def written(message: ConsoleMessage) -> None:
        if message.type == "error":
            told(f"{message.text} ({message.location.get('url', '')})")

    opened.on("console", written)
    opened.on("pageerror", lambda error: told(f"{error} {error.stack}"))
    yield opened
    opened.close()
    assert errors == []


@pytest.fixture
def keep(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Where the screenshots go."""
    folder = request.config.getoption("--screenshots") or tmp_path
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def run_all_cells(page: Page) -> None:
    """Run > Run All Cells, once the notebook's kernel is there: before that JupyterLab runs nothing, without a word."""
    page.locator(".jp-Toolbar-kernelName", has_text="Python 3").wait_for(timeout=120_000)
    page.locator('.jp-Notebook-ExecutionIndicator[data-status="idle"]').wait_for(timeout=120_000)
    page.locator(".jp-Notebook .jp-Cell").first.click()
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.locator('[data-command="runmenu:run-all"]').click()


def pixels(page: Page, name: str) -> np.ndarray:
    """What the browser shows of a picture, [64, 64, 3]; zeros while there is none."""
    values = page.locator(f".ageflow-{name}").evaluate(_PIXELS)
    return np.array(values or [0] * 64 * 64 * 4, dtype=np.int64).reshape(64, 64, 4)[..., :3]


def changed(page: Page, before: np.ndarray, name: str = "aged") -> np.ndarray:
    """The picture once it differs from `before`."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        now = pixels(page, name)
        if now.any() and not np.array_equal(now, before):
            return now
        time.sleep(0.05)
    raise AssertionError(f"the picture ({name}) did not change within 30 s")


def drag(page: Page, *ages: float) -> list[np.ndarray]:
    """Take the slider's handle to each age in turn, the button held down; what is shown at each stop."""
    box = page.locator(".ageflow-age .noUi-base").bounding_box()
    grip = page.locator(".ageflow-age .noUi-handle").bounding_box()
    seen, before = [], pixels(page, "aged")
    page.mouse.move(grip["x"] + grip["width"] / 2, grip["y"] + grip["height"] / 2)
    page.mouse.down()
    for age in ages:
        page.mouse.move(box["x"] + box["width"] * (age - 20) / 50, box["y"] + box["height"] / 2, steps=6)
        near = "|".join(f"{years:.1f}" for years in (age - 0.5, age, age + 0.5))  # a pixel is not an age
        page.locator(".ageflow-said", has_text=re.compile(f"at ({near}):|own age ({near}):")).wait_for(timeout=30_000)
        before = changed(page, before)
        seen.append(before)
    page.mouse.up()
    return seen


def try_everything(page: Page, keep: Path, where: str) -> None:
    """Choose a face, drag from 25 to 65, upload a photograph, save it, upload what is no picture."""
    page.locator(".ageflow-aged").wait_for(timeout=180_000)
    changed(page, np.zeros((64, 64, 3), dtype=np.int64))
    original = pixels(page, "original")
    page.locator(".ageflow-gallery .ageflow-thumbnail").nth(2).click()
    assert changed(page, original, "original").std() > 10
    page.locator(".ageflow-method button", has_text=re.compile("^GLOW$")).click()
    stops = drag(page, 26, 31, 37, 43, 49, 55)
    page.locator(".ageflow-method button", has_text=re.compile("^AgeFlow$")).click()
    changed(page, stops[-1])
    drag(page, 25, 32, 39, 46, 53)
    page.mouse.move(0, 0)
    drag(page, 65)
    page.locator(".ageflow-readings", has_text="there and back").wait_for(timeout=30_000)
    time.sleep(1)
    page.screenshot(path=str(keep / f"{where}_face.png"))
    alone = Image.open(io.BytesIO(page.locator(".ageflow-slider").screenshot()))
    alone.convert("RGB").quantize(256).save(keep / f"{where}_slider.png", optimize=True)  # small enough for a README

    before = pixels(page, "original")
    photograph = keep / "astronaut.png"
    astronaut().save(photograph)
    with page.expect_file_chooser() as chooser:
        page.locator(".ageflow-upload").click()
    chooser.value.set_files(photograph)
    page.get_by_text("your picture, judged").wait_for(timeout=60_000)
    uploaded = changed(page, before, "original")
    aged = pixels(page, "aged")
    page.locator(".ageflow-readings", has_text="there and back").wait_for(timeout=30_000)
    assert np.abs(aged - uploaded).mean() > 0.1
    # What was said while it was looked for is gone, and the slider back in its place.
    page.wait_for_function("() => !document.querySelector('.ageflow-problem').innerText.trim()", timeout=30_000)
    drag(page, 28, 60)
    for kind in ("png", "gif"):
        page.locator(f".ageflow-save-{kind}").click()
        with page.expect_download(timeout=90_000) as download:
            page.locator(f".ageflow-saved[download$={kind}]").click(timeout=90_000)
        assert Image.open(download.value.path()).size == (256, 256)
    time.sleep(1)
    page.screenshot(path=str(keep / f"{where}_photograph.png"))

    text = keep / "not_a_picture.jpg"
    text.write_text("words")
    with page.expect_file_chooser() as chooser:
        page.locator(".ageflow-upload").click()
    chooser.value.set_files(text)
    page.locator(".ageflow-problem", has_text="does not open as a picture").wait_for(timeout=30_000)
    page.screenshot(path=str(keep / f"{where}_problem.png"))
    for file in (photograph, text):
        file.unlink()


def no_error_in(log: Path) -> None:
    """The kernel and the server wrote no traceback."""
    written = log.read_text()
    assert "Traceback" not in written, written


def test_in_jupyterlab_the_picture_follows_the_slider(notebook: Path, page: Page, keep: Path):
    with jupyter_lab(notebook) as (address, log):
        page.goto(f"{address}/lab/tree/{notebook.name}?token={_TOKEN}")
        run_all_cells(page)
        page.locator(".ageflow-age").scroll_into_view_if_needed(timeout=180_000)
        page.locator(".ageflow-gallery").scroll_into_view_if_needed()
        try_everything(page, keep, "jupyterlab")
        assert page.locator(".jp-RenderedText[data-mime-type='application/vnd.jupyter.error']").count() == 0
        page.goto("about:blank")
    no_error_in(log)


def test_in_notebook_7_the_picture_follows_the_slider(notebook: Path, page: Page):
    with jupyter_lab(notebook) as (address, log):
        page.goto(f"{address}/notebooks/{notebook.name}?token={_TOKEN}")
        run_all_cells(page)
        page.locator(".ageflow-age").scroll_into_view_if_needed(timeout=180_000)
        changed(page, np.zeros((64, 64, 3), dtype=np.int64))
        drag(page, 27, 40, 54)
        page.goto("about:blank")
    no_error_in(log)


def test_through_voila_the_picture_follows_the_slider(notebook: Path, page: Page, keep: Path):
    with voila(notebook) as (address, log):
        page.goto(address, timeout=180_000)
        try_everything(page, keep, "voila")
        page.goto("about:blank")
    no_error_in(log)
