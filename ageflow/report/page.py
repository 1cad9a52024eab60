"""One page that gathers a run: verdict, faces, numbers, tables, figures and executed notebooks."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import jinja2
import nbformat
import pandas as pd
from nbconvert import HTMLExporter

from ageflow.data.records import PAPER_GROUPS
from ageflow.report.drawing import picture_address
from ageflow.report.results import origins
from ageflow.report.tables import LAYOUTS
from ageflow.run import Manifest, Workspace, write_atomically
from ageflow.training.metrics import read_metrics

# The run's figures by the file's name, those of faces first.
_FACES = {
    "figure_4": "Figure 4. Test faces (red frames) in every age group, by AgeFlow",
    "figure_5": "Figure 5. The same faces (red frames) by every method that was judged",
    "figure_6": "Figure 6. The methods on the same faces (red frames)",
    "figure_sheet": "Not in the paper. Many test faces (first column) in every age group, by four methods",
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
    files = sorted(workspace.path("figures").glob("*.png"))
    drawn = {file.stem: picture_address(file.read_bytes(), "png") for file in files}  # one page, to be sent around
    trainings = {name: name.removeprefix("training_") for name in drawn if name.startswith("training_")}
    sections = {"faces": _FACES, "figures": _CAPTIONS, "trainings": trainings}
    made = (Manifest.read(workspace.path(step)) or Manifest() for step in ("figures", "tables"))
    figures, tables = (manifest.details for manifest in made)
    youngest = tables.get("groups", PAPER_GROUPS.labels)[0]
    dates = [entry.finished for entry in executed if entry.finished]
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    page = environment.from_string(Path(__file__).with_name("page.html").read_text()).render(
        dataset=workspace.dataset,
        run=workspace.run,
        preset=preset,
        finished=f"{max(dates):%-d %B %Y, %H:%M}" if dates else "unfinished",
        minutes=sum(entry.minutes or 0 for entry in executed),
        trained=origins(workspace),
        verdict=tables.get("verdict", []),
        tiles=[*_tiles(workspace), *tables.get("tiles", [])],
        tables=[
            (f"Table {number}. {layout.title.format(youngest=youngest)}", file.read_text())
            for number, layout in LAYOUTS.items()
            if (file := workspace.path("tables", f"table{number}.html")).is_file()
        ],
        left_out={(_FACES | _CAPTIONS)[n].partition(":")[0]: why for n, why in figures.get("left_out", {}).items()},
        notebooks=[(entry, *_notebook(workspace, entry.notebook)) for entry in executed],
        **{
            section: [(caption, drawn[name]) for name, caption in of_section.items() if name in drawn]
            for section, of_section in sections.items()
        },
    )
    path = workspace.folder("report") / "index.html"
    write_atomically(path, page.encode())
    return path


def _tiles(workspace: Workspace) -> list[dict[str, str]]:
    """How many faces there are, and how well GLOW fits those held out."""
    found = []
    if workspace.has("faces"):
        faces = pd.read_parquet(workspace.path("faces", "faces.parquet"), columns=["identity", "split"])
        people, held_out = faces["identity"].nunique(), (faces["split"] == "test").sum()
        whose = "no two known to be of one person" if people == len(faces) else f"of {people:,} identities"
        scale = f"{held_out:,} of them held out for testing"
        found.append({"number": f"{len(faces):,}", "what": f"faces {whose}", "scale": scale})
    bits = read_metrics(workspace.path("glow")).get("test/bits_per_dim", pd.Series(dtype=float)).dropna()
    what = "bits per dimension on held-out faces (GLOW)"
    return found + [{"number": f"{last:.2f}", "what": what, "scale": ""} for last in bits.tail(1)]


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
