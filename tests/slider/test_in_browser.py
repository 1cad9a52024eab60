"""Notebook 09 in JupyterLab, Notebook 7 and Voilà in a real browser: the picture follows the slider.

``--screenshots FOLDER`` keeps what the browser showed, of the run that ``--screenshots-of`` names.
"""

import io
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import papermill
import pytest
from PIL import Image, ImageOps
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

from ageflow.run import Workspace
from tests.conftest import ROOT
from tests.slider.conftest import astronaut

_NOTEBOOK, _TOKEN = "09_age_slider.ipynb", "slider"
_PIXELS = """image => {
    const canvas = Object.assign(document.createElement("canvas"), {width: 64, height: 64});
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0, 64, 64);
    return image.naturalWidth ? Array.from(context.getImageData(0, 0, 64, 64).data) : [];
}"""
_NO_PICTURE = np.zeros((64, 64, 3), dtype=np.int64)
# What the applications write into the console by themselves, whatever the notebook: JupyterLab asks for its news;
# Notebook 7 for the schemas of settings it does not have; Voilà for Font Awesome and MathJax on the internet, and for an
# extension of Notebook 7 that needs more than Voilà has. Served beside Notebook 7, JupyterLab is refused a font of the
# same name.
_NOT_OURS = re.compile(
    r"favicon|jupyterlab_news|api/(me|news|lsp)|reading 'schema'\).*notebook_core|@fortawesome/fontawesome-free|cdnjs.cloudflare.com/.*mathjax|403 .*woff2"
    r"|shared module is not a function.*@jupyter-notebook/lab-extension",
    re.DOTALL,
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    found = [path for path in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if path]
    assert found, "no browser: install chromium or google-chrome, so that it is on the PATH (`make test` does, as root)"
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=found[0], args=arguments)
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with notebook 09, the run's parameters in it: the smoke run's, or of what ``--screenshots-of`` names."""
    if named := request.config.getoption("--screenshots-of"):
        named = named.resolve()
        shown = Workspace(named.parents[1], named.parent.name, named.name)
    else:
        shown = request.getfixturevalue("smoke_run").workspace
    parameters = {"dataset": shown.dataset, "preset": "smoke", "run": shown.run, "runs_root": str(shown.runs_root)}
    folder = tmp_path_factory.mktemp("work")
    source, options = ROOT / "notebooks" / _NOTEBOOK, {"prepare_only": True, "progress_bar": False}
    papermill.execute_notebook(source, folder / _NOTEBOOK, parameters, kernel_name="python3", **options)
    return folder


@pytest.fixture(scope="module")
def server(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Jupyter server with all three applications; neither it nor a kernel writes a traceback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{probe.getsockname()[1]}"
    state = tmp_path_factory.mktemp("state")
    places = ("CONFIG_DIR", "DATA_DIR", "RUNTIME_DIR")
    environment = os.environ | {f"JUPYTER_{place}": str(state / place) for place in places}
    environment |= {f"JUPYTERLAB_{place}": str(state / place) for place in ("SETTINGS_DIR", "WORKSPACES_DIR")}
    # Jupyter asks for kernels in its own environment, not in whichever python is first on the PATH.
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", "--port-retries=0", "--allow-root"]
    command += [
        f"--port={address.rpartition(':')[2]}",
        f"--IdentityProvider.token={_TOKEN}",
        f"--ServerApp.root_dir={folder}",
    ]
    command += shlex.split(re.search(r"^LARGE_PICTURES := (.*)", (ROOT / "Makefile").read_text(), re.MULTILINE)[1])
    command += ["--LabApp.news_url=None", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    log = state / "log.txt"
    with log.open("w") as stream:
        running = subprocess.Popen(command, env=environment, cwd=folder, stdout=stream, stderr=stream)
    try:
        _wait_for(f"{address}/api?token={_TOKEN}", running, log)
        yield address
        assert "Traceback" not in log.read_text(), log.read_text()
    finally:
        running.terminate()
        running.wait(30)


def _wait_for(address: str, server: subprocess.Popen, log: Path) -> None:
    for _ in range(480):
        assert server.poll() is None, f"the server stopped:\n{log.read_text()}"
        try:
            with urllib.request.urlopen(address, timeout=2):
                return
        except OSError:
            time.sleep(0.25)
    raise AssertionError(f"the server does not answer:\n{log.read_text()}")


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page that must not have written an error into the browser's console."""
    opened = browser.new_page(viewport={"width": 1280, "height": 1400}, accept_downloads=True)
    errors: list[str] = []

    def written(message: ConsoleMessage) -> None:
        if message.type == "error":
            errors.append(f"{message.text} ({message.location.get('url', '')})")

    opened.on("console", written)
    opened.on("pageerror", lambda error: errors.append(f"{error} {error.stack}"))
    yield opened
    opened.goto("about:blank")
    opened.close()
    assert [words for words in errors if not _NOT_OURS.search(words)] == []


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
    return np.array(values, dtype=np.int64).reshape(64, 64, 4)[..., :3] if values else _NO_PICTURE


def changed(page: Page, before: np.ndarray, name: str = "aged") -> np.ndarray:
    """The picture once it differs from `before`."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        now = pixels(page, name)
        if now.any() and not np.array_equal(now, before):
            return now
        time.sleep(0.05)
    raise AssertionError(f"the picture ({name}) did not change within 30 s")


def drag(page: Page, *ages: float) -> np.ndarray:
    """Take the slider's handle to each age in turn, the button held down; what is shown at the last stop."""
    box = page.locator(".ageflow-age .noUi-base").bounding_box()
    grip = page.locator(".ageflow-age .noUi-handle").bounding_box()
    shown = pixels(page, "aged")
    page.mouse.move(grip["x"] + grip["width"] / 2, grip["y"] + grip["height"] / 2)
    page.mouse.down()
    for age in ages:
        page.mouse.move(box["x"] + box["width"] * (age - 20) / 50, box["y"] + box["height"] / 2, steps=4)
        near = "|".join(f"{years:.1f}" for years in (age - 0.5, age, age + 0.5))  # a pixel is not an age
        caption = re.compile(f"at ({near}):|own age ({near}):")
        page.locator(".ageflow-caption", has_text=caption).wait_for(timeout=30_000)
        shown = changed(page, shown)
    page.mouse.up()
    page.mouse.move(0, 0)
    return shown


def choose_method(page: Page, name: str, before: np.ndarray) -> None:
    page.locator(".ageflow-method button", has_text=re.compile(f"^{name}$")).click()
    changed(page, before)


def upload(page: Page, file: Path) -> None:
    with page.expect_file_chooser() as chooser:
        page.locator(".ageflow-upload").click()
    chooser.value.set_files(file)


def photograph_and_save(page: Page, folder: Path, keep: Path, name: str) -> None:
    """Choose a face, upload a photograph, save it, upload what is no picture."""
    original = pixels(page, "original")
    page.locator(".ageflow-thumbnail").nth(2).click()
    before = changed(page, original, "original")
    assert before.std() > 10
    drag(page, 65)
    page.locator(".ageflow-readings", has_text="there and back").wait_for(timeout=30_000)
    page.screenshot(path=str(keep / f"{name}_face.png"))
    alone = Image.open(io.BytesIO(page.locator(".ageflow-slider").screenshot()))
    alone.convert("RGB").quantize(256).save(keep / f"{name}_slider.png", optimize=True)  # small enough for a README

    photograph, text = folder / "astronaut.png", folder / "not_a_picture.jpg"
    astronaut().save(photograph)
    text.write_text("words")
    upload(page, photograph)
    page.get_by_text("your picture, estimated").wait_for(timeout=60_000)
    uploaded = changed(page, before, "original")
    page.locator(".ageflow-readings", has_text="there and back").wait_for(timeout=30_000)
    assert np.abs(pixels(page, "aged") - uploaded).mean() > 0.1
    # What was shown while it was looked for is gone, and the slider back in its place.
    page.wait_for_function("() => !document.querySelector('.ageflow-problem').innerText.trim()", timeout=30_000)
    drag(page, 28, 60)
    for kind in ("png", "gif"):
        page.get_by_role("button", name=f"save as {kind.upper()}").click()
        with page.expect_download(timeout=90_000) as download:
            page.locator(f".ageflow-saved[download$={kind}]").click(timeout=90_000)
        assert Image.open(download.value.path()).size == (256, 256)
    page.get_by_role("button", name="save in the photo").click()
    with page.expect_download(timeout=90_000) as download:
        page.locator(".ageflow-saved[download^=photo]").click(timeout=90_000)
    change = np.abs(np.int64(Image.open(download.value.path())) - np.int64(astronaut())).max(axis=-1)
    assert change[60:200, 160:300].max() > 3, "the face"
    assert max(change[300:].max(), change[:, :100].max()) == 0
    page.screenshot(path=str(keep / f"{name}_photograph.png"))
    large = folder / {"voila": "large.tif"}.get(name, "large.bmp")
    ImageOps.mirror(astronaut()).resize((2000, 2000)).save(large)
    assert large.stat().st_size > 11 * 2**20, "more than a websocket takes by default"
    shown = pixels(page, "original")
    upload(page, large)
    changed(page, shown, "original")
    page.wait_for_function("() => !document.querySelector('.ageflow-problem').innerText.trim()", timeout=60_000)
    upload(page, text)
    page.locator(".ageflow-problem", has_text="does not open as a picture").wait_for(timeout=30_000)
    page.screenshot(path=str(keep / f"{name}_problem.png"))


@pytest.mark.parametrize(
    # JupyterLab after Notebook 7, which does not have all the commands of the workspace that it would leave.
    ("name", "path"),
    [("notebook", "notebooks"), ("jupyterlab", "lab/tree"), ("voila", "voila/render")],
)
def test_the_picture_follows_the_slider(
    request: pytest.FixtureRequest, server: str, folder: Path, page: Page, tmp_path: Path, name: str, path: str
):
    keep = request.config.getoption("--screenshots") or tmp_path
    keep.mkdir(parents=True, exist_ok=True)
    page.goto(f"{server}/{path}/{_NOTEBOOK}?token={_TOKEN}", timeout=180_000)
    if name != "voila":  # it runs the cells by itself
        run_all_cells(page)
    page.locator(".ageflow-aged").wait_for(timeout=180_000)
    page.locator(".ageflow-thumbnail").first.scroll_into_view_if_needed()
    choose_method(page, "GLOW", changed(page, _NO_PICTURE))
    choose_method(page, "AgeFlow", drag(page, 26, 37, 49))
    drag(page, 25, 39, 53)
    if name != "notebook":  # it draws widgets as JupyterLab does
        photograph_and_save(page, folder, keep, name)
    assert page.locator(".jp-RenderedText[data-mime-type='application/vnd.jupyter.error']").count() == 0
