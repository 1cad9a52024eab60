"""One page that gathers a run: what it is, its numbers, tables, figures and executed notebooks."""

import base64
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import resources
from pathlib import Path

import jinja2
import nbformat
import pandas as pd
from markupsafe import Markup
from nbconvert import HTMLExporter
from nbconvert.filters import markdown2html

from ageflow.report.origins import origins
from ageflow.run import Workspace

# The run's figures by the file's name; whatever else lies in figures/ follows below them under its own name.
_CAPTIONS = {
    "figure_1": "Figure 1. The latents of the faces in the plane, by age group and attribute, and the faces of the average "
    "latents",
    "figure_4": "Figure 4. Test faces (red frames) in every age group, by AgeFlow",
    "figure_6": "Figure 6. The methods on the same faces (red frames)",
    "figure_ages": "Not in the paper. Predicted age against continuous target age: means over test faces, with 95 % "
    "bootstrap intervals over identities",
    "figure_strength": "Not in the paper. What each method gives up of the person for an age: moving faces less and more of "
    "the way (large points: as it is), by the run's classifier and by the second judge",
    "figure_a1": "Figure A.1. Faces of another set (red frames) in every age group, by AgeFlow, which is not told their age",
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


@dataclass(frozen=True)
class Headline:
    """One number of the run and what it is."""

    number: str
    what: str


@dataclass(frozen=True)
class Figure:
    """A picture, embedded so that the page can be sent to someone, and its caption."""

    source: str
    caption: str
    training: bool


def write_page(workspace: Workspace, preset: str, executed: Sequence[Executed]) -> Path:
    """Write ``report/index.html`` and an HTML copy of every executed notebook beside it.

    Arguments:
        workspace: the run; what it has not made yet is left out of the page.
        preset: the preset it ran with.
        executed: its notebooks, in order.

    Returns:
        The page.
    """
    folder = workspace.folder("report")
    written = {entry.notebook: _notebook_page(workspace, entry.notebook) for entry in executed}
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string(resources.files("ageflow.report").joinpath("page.html").read_text())
    figures = _figures(workspace)
    dates = [entry.finished for entry in executed if entry.finished]
    page = template.render(
        dataset=workspace.dataset,
        run=workspace.run,
        preset=preset,
        finished=f"{max(dates):%-d %B %Y, %H:%M}" if dates else "unfinished",
        minutes=sum(entry.minutes or 0 for entry in executed),
        trained=origins(workspace),
        headlines=_headlines(workspace),
        tables=_tables(workspace),
        figures=[figure for figure in figures if not figure.training],
        left_out=_left_out(workspace),
        trainings=[figure for figure in figures if figure.training],
        notebooks=[(entry, _title(workspace, entry.notebook), written[entry.notebook]) for entry in executed],
    )
    path = folder / "index.html"
    temporary = path.with_suffix(".tmp")
    temporary.write_text(page)
    temporary.replace(path)
    return path


def _headlines(workspace: Workspace) -> list[Headline]:
    told = []
    if workspace.has("faces"):
        faces = pd.read_parquet(workspace.path("faces", "faces.parquet"), columns=["identity", "split"])
        people = faces["identity"].nunique()
        whose = "no two known to be of one person" if people == len(faces) else f"of {people:,} identities"
        told.append(Headline(f"{len(faces):,}", f"faces {whose}"))
        told.append(Headline(f"{(faces['split'] == 'test').sum():,}", "of them held out for testing"))
    bits = _held_out_bits(workspace.path("glow", "metrics.jsonl"))
    if bits is not None:
        told.append(Headline(f"{bits:.2f}", "bits per dimension on held-out faces (GLOW)"))
    return told + _judged(workspace)


def _held_out_bits(metrics: Path) -> float | None:
    if not metrics.is_file():
        return None
    values = [json.loads(line).get("test/bits_per_dim") for line in metrics.read_text().splitlines()]
    return next((value for value in reversed(values) if value is not None), None)


def _judged(workspace: Workspace) -> list[Headline]:
    if not workspace.has("evaluation"):
        return []
    done = workspace.manifest("evaluation").details
    summary, told = done["summary"].get("ageflow", {}), []
    where = f", on the test faces of {done['external']}" if done.get("external") else ""
    if summary.get("age_accuracy") is not None:
        told.append(Headline(f"{summary['age_accuracy']:.1f} %", f"age accuracy of AgeFlow{where}"))
    if summary.get("cosine") is not None:
        told.append(Headline(f"{summary['cosine']:.3f}", f"cosine similarity of face and aged face{where}"))
    return told


def _tables(workspace: Workspace) -> list[Markup]:
    files = (workspace.path("tables", f"table{number}.md") for number in range(1, 7))
    # An interval stays in one piece; it may stand below its number where the window is narrow.
    whole = r"<span>\g<0></span>"
    return [Markup(_INTERVAL.sub(whole, markdown2html(file.read_text()))) for file in files if file.is_file()]


def _figures(workspace: Workspace) -> list[Figure]:
    files = {file.stem: file for file in sorted(workspace.path("figures").glob("*.png"))}
    order = [name for name in _CAPTIONS if name in files] + [name for name in files if name not in _CAPTIONS]
    return [Figure(_embedded(files[name]), _caption(name), name.startswith(_TRAINING)) for name in order]


def _left_out(workspace: Workspace) -> dict[str, str]:
    """The captions of the figures that notebook 08 could not draw, and what would draw them."""
    if not workspace.has("figures"):
        return {}
    left_out = workspace.manifest("figures").details["left_out"]
    return {_caption(name).partition(":")[0]: why for name, why in left_out.items()}


def _caption(name: str) -> str:
    return _CAPTIONS.get(name) or name.removeprefix(_TRAINING).replace("_", " ")


def _embedded(picture: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode()


def _title(workspace: Workspace, notebook: str) -> str:
    """The notebook's first heading; its name while it has not run."""
    copy = workspace.path("notebooks", f"{notebook}.ipynb")
    if copy.is_file():
        for cell in nbformat.read(copy, as_version=4).cells:
            if cell.cell_type == "markdown" and cell.source.startswith("# "):
                return cell.source.splitlines()[0].removeprefix("# ")
    return notebook


def _notebook_page(workspace: Workspace, notebook: str) -> str | None:
    """Write the executed copy as HTML; the page's link to it, or None while it has not run."""
    copy = workspace.path("notebooks", f"{notebook}.ipynb")
    if not copy.is_file():
        return None
    html, _ = HTMLExporter(require_js_url="").from_filename(str(copy))
    target = workspace.folder("report", "notebooks") / f"{notebook}.html"
    target.write_text(html)
    return f"notebooks/{target.name}"
