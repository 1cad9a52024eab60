"""One page that gathers a run: verdict, faces, numbers, tables, figures and executed notebooks."""

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import resources
from pathlib import Path

import jinja2
import nbformat
import pandas as pd
from nbconvert import HTMLExporter

from ageflow.report.results import origins
from ageflow.report.tables import LAYOUTS
from ageflow.report.verdict import Tile
from ageflow.run import Workspace, write_atomically
from ageflow.training.metrics import read_metrics

# The run's figures by the file's name, those of faces first; whatever else lies in figures/ follows under its own name.
_FACES = {
    "figure_4": "Figure 4. Test faces (red frames) in every age group, by AgeFlow",
    "figure_6": "Figure 6. The methods on the same faces (red frames)",
}
_CAPTIONS = {
    "figure_trade_off": "Not in the paper. The identity–age trade-off: each method moving faces less and more of the way "
    "(large points: as it is), by the run's classifier and by the second judge",
    "figure_ages": "Not in the paper. Predicted age against continuous target age: means over test faces, with 95 % "
    "bootstrap intervals over identities",
    "figure_1_top": "Figure 1, top. The latents of the faces in the plane, by age group and attribute",
    "figure_1_bottom": "Figure 1, bottom. The faces of the average latents",
    "figure_a1": "Figure A.1. Faces of another set (red frames) in every age group, by AgeFlow, from the faces alone",
    "figure_a2": "Figure A.2. Faces drawn from GLOW by temperature, the same noise in a column",
}
_TRAINING = "training_"
_INTERVAL = re.compile(r"\[[-+]?\d[-+\d.,e ]*\]")


@dataclass(frozen=True)
class Executed:
    """A notebook of the run, the minutes it took and when it ended; None where it has not run."""

    notebook: str
    minutes: float | None = None
    finished: datetime | None = None


def write_page(workspace: Workspace, preset: str, executed: Sequence[Executed]) -> Path:
    """Write ``report/index.html`` and an HTML copy of every executed notebook beside it.

    Arguments:
        workspace: the run; what it has not made yet is left out of the page.
        preset: the preset it ran with.
        executed: its notebooks, in order.

    Returns:
        The page.
    """
    files = {file.stem: file for file in sorted(workspace.path("figures").glob("*.png"))}
    training = {name: name.removeprefix(_TRAINING) for name in files if name.startswith(_TRAINING)}
    others = {name: name.replace("_", " ") for name in files if name not in _FACES | _CAPTIONS | training}
    figures = {
        section: [(caption, _embedded(files[name])) for name, caption in captions.items() if name in files]
        for section, captions in (("faces", _FACES), ("figures", _CAPTIONS | others), ("trainings", training))
    }
    left_out = workspace.manifest("figures").details["left_out"] if workspace.has("figures") else {}
    shown = workspace.manifest("tables").details if workspace.has("tables") else {}
    dates = [entry.finished for entry in executed if entry.finished]
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    page = environment.from_string(resources.files("ageflow.report").joinpath("page.html").read_text()).render(
        dataset=workspace.dataset,
        run=workspace.run,
        preset=preset,
        finished=f"{max(dates):%-d %B %Y, %H:%M}" if dates else "unfinished",
        minutes=sum(entry.minutes or 0 for entry in executed),
        trained=origins(workspace),
        verdict=shown.get("verdict", []),
        tiles=[*_tiles(workspace), *(Tile(**tile) for tile in shown.get("tiles", []))],
        tables=_tables(workspace),
        left_out={_CAPTIONS[name].partition(":")[0]: why for name, why in left_out.items()},
        notebooks=[(entry, *_notebook(workspace, entry.notebook)) for entry in executed],
        **figures,
    )
    path = workspace.folder("report") / "index.html"
    write_atomically(path, page.encode())
    return path


def _tiles(workspace: Workspace) -> list[Tile]:
    """How many faces there are, and how well GLOW fits those held out."""
    found = []
    if workspace.has("faces"):
        faces = pd.read_parquet(workspace.path("faces", "faces.parquet"), columns=["identity", "split"])
        people = faces["identity"].nunique()
        whose = "no two known to be of one person" if people == len(faces) else f"of {people:,} identities"
        held_out = f"{(faces['split'] == 'test').sum():,} of them held out for testing"
        found.append(Tile(f"{len(faces):,}", f"faces {whose}", held_out))
    bits = read_metrics(workspace.path("glow")).get("test/bits_per_dim", pd.Series(dtype=float)).dropna()
    if len(bits):
        found.append(Tile(f"{bits.iloc[-1]:.2f}", "bits per dimension on held-out faces (GLOW)"))
    return found


def _tables(workspace: Workspace) -> list[tuple[str, str]]:
    """The tables' headings, and the tables as HTML."""
    files = {number: workspace.path("tables", f"table{number}.html") for number in LAYOUTS}
    # An interval stays in one piece; it may stand below its number where the window is narrow.
    return [
        (f"Table {number}. {LAYOUTS[number].title}", _INTERVAL.sub(r"<span>\g<0></span>", file.read_text()))
        for number, file in files.items()
        if file.is_file()
    ]


def _embedded(picture: Path) -> str:
    """A picture as the source of an element, so that the page can be sent to someone."""
    return "data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode()


def _notebook(workspace: Workspace, notebook: str) -> tuple[str, str | None]:
    """Write the executed copy as HTML; its first heading and its link, or the name and None while it has not run."""
    copy = workspace.path("notebooks", f"{notebook}.ipynb")
    if not copy.is_file():
        return notebook, None
    node = nbformat.read(copy, as_version=4)
    html, _ = HTMLExporter(require_js_url="").from_notebook_node(node)
    write_atomically(workspace.path("report", "notebooks", f"{notebook}.html"), html.encode())
    headings = (cell.source for cell in node.cells if cell.cell_type == "markdown" and cell.source.startswith("# "))
    return next(headings, notebook).splitlines()[0].removeprefix("# "), f"notebooks/{notebook}.html"
