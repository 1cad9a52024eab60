"""Notebook 09 in JupyterLab in a real browser: the picture follows the slider."""

import os
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
from playwright.sync_api import Page, sync_playwright

from tests.conftest import ROOT, Run

_TOKEN = "slider"
_PIXELS = """image => {
    const canvas = Object.assign(document.createElement("canvas"), {width: 64, height: 64});
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0, 64, 64);
    return image.naturalWidth ? Array.from(context.getImageData(0, 0, 64, 64).data) : [];
}"""


def browser_path() -> str:
    found = [path for path in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if path]
    assert found, "no browser: install chromium or google-chrome, so that it is on the PATH (`make test` does, as root)"
    return found[0]


@pytest.fixture
def notebook(smoke_run: Run, tmp_path: Path) -> Path:
    """Notebook 09 with the smoke run's parameters, not executed."""
    parameters = {"preset": "smoke", "runs_root": str(smoke_run.workspace.runs_root)}
    path = tmp_path / "work" / "09_age_slider.ipynb"
    path.parent.mkdir()
    papermill.execute_notebook(
        ROOT / "notebooks" / path.name, path, parameters, prepare_only=True, kernel_name="python3", progress_bar=False
    )
    return path


@contextmanager
def jupyter_lab(folder: Path, state: Path) -> Iterator[str]:
    """JupyterLab on `folder`, its settings and workspaces in `state`; yields its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    names = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTERLAB_SETTINGS_DIR")
    environment = os.environ | {name: str(state / name.lower()) for name in (*names, "JUPYTERLAB_WORKSPACES_DIR")}
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--no-browser",
        "--ip=127.0.0.1",
        f"--port={port}",
        "--port-retries=0",
    ]
    command += [f"--IdentityProvider.token={_TOKEN}", f"--ServerApp.root_dir={folder}", "--allow-root"]
    command += ["--LabApp.news_url=None", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    log = state / "jupyter.log"
    with log.open("w") as stream:
        server = subprocess.Popen(command, env=environment, cwd=folder, stdout=stream, stderr=stream)
        try:
            address = f"http://127.0.0.1:{port}"
            _wait_for(f"{address}/api?token={_TOKEN}", server, log)
            yield address
        finally:
            server.terminate()
            server.wait(30)


def _wait_for(address: str, server: subprocess.Popen, log: Path) -> None:
    for _ in range(240):
        assert server.poll() is None, f"JupyterLab stopped:\n{log.read_text()}"
        try:
            with urllib.request.urlopen(address, timeout=2):
                return
        except OSError:
            time.sleep(0.5)
    raise AssertionError(f"JupyterLab does not answer:\n{log.read_text()}")


def pixels(page: Page, name: str) -> np.ndarray:
    """What the browser shows of a picture, [64, 64, 3]."""
    values = page.locator(f".ageflow-{name}").evaluate(_PIXELS)
    return np.array(values, dtype=np.int64).reshape(64, 64, 4)[..., :3]


def changed(page: Page, before: np.ndarray) -> np.ndarray:
    """The aged picture once it differs from `before`."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        now = pixels(page, "aged")
        if not np.array_equal(now, before):
            return now
        time.sleep(0.05)
    raise AssertionError("the picture did not change within 20 s")


def test_the_picture_follows_the_slider(notebook: Path, tmp_path: Path):
    state = tmp_path / "state"
    state.mkdir()
    with jupyter_lab(notebook.parent, state) as address, sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
        browser = playwright.chromium.launch(executable_path=browser_path(), args=arguments)
        page = browser.new_page(viewport={"width": 1400, "height": 1200})
        page.goto(f"{address}/lab/tree/{notebook.name}?token={_TOKEN}")
        page.locator(".jp-Notebook .jp-Cell").first.click(timeout=120_000)
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.locator('[data-command="runmenu:run-all"]').click()
        page.locator(".ageflow-aged").wait_for(timeout=120_000)
        first = changed(page, np.zeros((64, 64, 3), dtype=np.int64))

        handle = page.locator(".ageflow-age .noUi-handle")
        handle.focus()
        for _ in range(5):
            page.keyboard.press("ArrowRight")
        after_keys = changed(page, first)

        box = page.locator(".ageflow-age .noUi-base").bounding_box()
        grip = handle.bounding_box()
        page.mouse.move(grip["x"] + grip["width"] / 2, grip["y"] + grip["height"] / 2)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] - 1, box["y"] + box["height"] / 2, steps=8)
        live = changed(page, after_keys)  # the button is still down
        page.mouse.up()
        page.get_by_text("at 65.0 years: 100% 51+").wait_for(timeout=20_000)
        time.sleep(0.5)
        oldest = pixels(page, "aged")

        page.locator(".ageflow-method select").select_option(label="GLOW")
        by_glow = changed(page, oldest)
        page.screenshot(path=str(tmp_path / "slider.png"))
        original = pixels(page, "original")
        browser.close()
    assert original.std() > 10
    assert live.std() > 10
    assert np.abs(by_glow - oldest).mean() > 0.1
