"""The age slider as widgets: what to choose from, the face, the same face at the slider's age."""

import base64
import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import numpy as np
from IPython.display import HTML
from torch import Tensor

from ageflow.checkpoint import CheckpointError
from ageflow.config import ParameterError, Slider
from ageflow.data.pictures import read_picture
from ageflow.data.records import AGE_GROUPS
from ageflow.flows.glow import to_uint8
from ageflow.report.drawing import Figure
from ageflow.run import write_atomically
from ageflow.slider.explorer import Explorer, Portrait
from ageflow.slider.latest import Latest
from ageflow.slider.layout import Parts
from ageflow.slider.models import find_models
from ageflow.slider.pictures import difference, gif, png
from ageflow.slider.static import in_words, static_figure
from ageflow.translation.ages import GROUP_CENTRES, age_to_weights

# Messages written for a person; anything else is a fault of this kit, and its traceback goes to the log.
_WRITTEN = (ValueError, FileNotFoundError, CheckpointError)
# Outside these nothing changes; every other year is smooth enough, and half the bytes of every year.
_GIF_AGES = np.arange(GROUP_CENTRES[0], GROUP_CENTRES[-1] + 1, 2)
_KINDS = {"png": "image/png", "gif": "image/gif"}


@dataclass(frozen=True)
class Position:
    """Everything a picture depends on."""

    portrait: Portrait
    age: float
    method: str
    strength: float


class AgeSlider(widgets.VBox):
    """An `Explorer` under one's hand.

    A move is only noted; a thread draws the newest one and drops those it overtook. Cosine, estimated age, round trip
    and strip follow when the hand rests. What goes wrong is told in the widget.

    Arguments:
        settings: of notebook 09.
    """

    def __init__(self, settings: Slider) -> None:
        self.settings = settings
        self.explorer: Explorer | None = None
        self.portrait: Portrait | None = None
        self.shown: Tensor | None = None  # uint8 [3, S, S]
        self._shown_at: Position | None = None  # where the slider stood for it
        self._found: list[Portrait] = []
        self._before_own = settings.age  # the last age that was not the face's own
        self._strip_of: tuple[Portrait, str, float] | None = None
        self._told = ""
        self._telling = threading.Lock()
        self._latest = Latest(self._draw, self._fail_at, self._follow)
        self.parts = parts = Parts(self._choose_test_face, self._choose_found_face)
        super().__init__(parts.rows)
        self.add_class("ageflow-slider")
        parts.method.value, parts.age.value, parts.strength.value = settings.method, settings.age, settings.strength
        models = find_models(settings.runs_root)
        runs = list(zip(models["data set"], models["run"], strict=True))
        parts.model.options = [(" / ".join(run), run) for run in runs]
        parts.model.value = own if (own := (settings.dataset, settings.run)) in runs else None
        self._open(settings, choose=settings.photo is None)  # where a photo cannot be used, nobody stands in its place
        if settings.photo:
            self._take_photo(settings.photo)
        parts.model.observe(self._on_model, "value")
        parts.upload.observe(self._on_upload, "value")
        for part in (parts.age, parts.method, parts.strength):
            part.observe(self._on_move, "value")
        parts.own.on_click(self._on_own)
        parts.save_png.on_click(lambda _: self._offer("png"))
        parts.save_gif.on_click(lambda _: self._offer("gif"))

    def wait(self, seconds: float = 60.0) -> bool:
        """Wait until everything shown belongs to where the slider stands; False: that took longer."""
        return self._latest.wait(seconds)

    def save(self, path: Path | str) -> Path:
        """Write the face that is shown as ``.png``, or from 25 to 57 years and back as ``.gif``.

        Raises:
            ValueError: another kind of file, or nothing is shown.
        """
        path = Path(path)
        write_atomically(path, self._file(path.suffix.lower().lstrip(".")))
        return path

    def figure(self) -> Figure | HTML:
        """What is shown, as a figure: for a page, and for where no front end draws widgets; or why there is nothing."""
        self.wait()
        position = self._position()
        if position is None or self._shown_at != position:
            return HTML(self.parts.problem.value)
        seen = (position.portrait, position.age, position.method, position.strength)
        return static_figure(self.explorer, *seen, self._told)

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        """The widget; as text, what is wrong or who is shown."""
        self.wait()
        words = self.parts.problem_text or f"The age slider: {self.parts.about.value}"
        return (super()._repr_mimebundle_(**kwargs) or {}) | {"text/plain": words}

    # -- choosing ------------------------------------------------------------------------------------------------

    def _open(self, settings: Slider, choose: bool = True) -> None:
        """Take a run, and one of its faces if `choose`; what it lacks is told."""
        parts = self.parts
        self.explorer, self.portrait, self.shown, self._shown_at = None, None, None, None
        parts.blank(parts.original, parts.aged, parts.difference, *parts.groups)
        parts.say("")
        try:
            explorer = Explorer(settings)
            face = settings.face
            if face >= len(explorer):
                where = f"{settings.dataset}/{explorer.workspace.run}"
                raise ParameterError(f"face = {face}: {where} has {len(explorer)} test faces, 0 to {len(explorer) - 1}")
            parts.gallery.fill(
                len(explorer), explorer.faces.images, lambda number: explorer.portrait(number).about, face
            )
        except Exception as error:
            parts.gallery.fill(0, list, str, 0)
            self._fail(error)
            return
        self.explorer = explorer
        if choose:
            self._choose_test_face(face)

    def _choose_test_face(self, number: int) -> None:
        if self.explorer is None:
            return
        self._show_found([])
        self.parts.gallery.mark(number)
        self._take(self.explorer.portrait(number))

    def _choose_found_face(self, number: int) -> None:
        self.parts.found.mark(number)
        self._take(self._found[number])

    def _take(self, portrait: Portrait) -> None:
        self.portrait = portrait
        self.parts.original.value = png(portrait.image)
        self.parts.about.value = portrait.about
        self.parts.own.description = f"own age: {portrait.own:g}"
        self._on_move()

    def _on_model(self, change: dict) -> None:
        if change["new"] is not None:
            dataset, run = change["new"]
            self._open(self.settings.model_copy(update={"dataset": dataset, "run": run, "face": 0}))

    def _on_upload(self, change: dict) -> None:
        if change["new"]:
            self._take_photo(bytes(change["new"][0]["content"]))

    def _take_photo(self, photo: bytes | Path) -> None:
        if self.explorer is None:  # why is told already
            return
        self.parts.say("Looking for faces …")
        try:
            content = photo if isinstance(photo, bytes) else read_picture(photo.parent, photo.name)
            faces = self.explorer.uploaded(content)
        except Exception as error:
            if isinstance(photo, Path) and isinstance(error, ValueError):
                error = ValueError(f"photo = {photo}: {error}")
            self._fail(error)
            return
        self._show_found(faces)
        self.parts.gallery.mark(None)
        self._choose_found_face(0)

    def _show_found(self, faces: list[Portrait]) -> None:
        self._found = faces
        several = len(faces) if len(faces) > 1 else 0
        self.parts.found.fill(several, lambda numbers: [faces[n].image for n in numbers], lambda n: faces[n].about, 0)
        self.parts.found_row.layout.display = "" if several else "none"

    # -- showing -------------------------------------------------------------------------------------------------

    def _position(self) -> Position | None:
        if self.explorer is None or self.portrait is None:
            return None
        return Position(self.portrait, self.parts.age.value, self.parts.method.value, self.parts.strength.value)

    def _on_move(self, _: dict | None = None) -> None:
        position = self._position()
        if position is None:
            return
        with self._telling:
            self.parts.say("")
        if position.age != position.portrait.own:
            self._before_own = position.age
        self._latest.wish(position)

    def _on_own(self, _: widgets.Button) -> None:
        if self.portrait is not None:
            self.parts.age.value = self.portrait.own

    def _at(self, position: Position, age: float) -> Tensor:
        return self.explorer.at_age(position.portrait, age, position.method, position.strength)

    def _draw(self, position: Position) -> None:
        """The picture of a position, and what costs next to nothing beside it."""
        age, parts, back = position.age, self.parts, None
        if age == position.portrait.own:
            back = self.explorer.back(position.portrait, self._before_own, position.method, position.strength)
        shown = self._at(position, age) if back is None else to_uint8(back)
        parts.aged.value = png(shown)
        self.shown, self._shown_at = shown, position
        if back is None:
            weights = zip(AGE_GROUPS, age_to_weights(age).tolist(), strict=True)
            parts.said.value = (
                f"at {age:.1f}: {', '.join(f'{weight:.0%} {name}' for name, weight in weights if weight)}"
            )
        else:
            parts.said.value = f"own age {age:.1f}: back from {self._before_own:.1f}"
        parts.difference.value = png(difference(position.portrait.image, shown))
        if parts.link.value:
            parts.link.value = ""

    def _follow(self, position: Position) -> Iterator[None]:
        """What takes longer than a hand waits, in pieces."""
        explorer, parts, shown = self.explorer, self.parts, self.shown
        if (of := (position.portrait, position.method, position.strength)) != self._strip_of:
            for image, centre in zip(parts.groups, GROUP_CENTRES, strict=True):
                image.value = png(self._at(position, centre))
                yield
            self._strip_of = of
        readings = explorer.read(position.portrait, shown)
        yield
        back = explorer.back(position.portrait, position.age, position.method, position.strength)
        told = in_words(readings, back, position.portrait.image)
        self._told = "; ".join(told)
        parts.readings.value = " · ".join(told)

    def _fail_at(self, error: Exception, position: Position) -> None:
        """Tell what went wrong there, unless the hand has moved on; what was shown before is of another place."""
        with self._telling:
            if position == self._position():
                self._fail(error)
                if self._shown_at != position:
                    self._blank()

    def _fail(self, error: Exception) -> None:
        """Tell what went wrong."""
        if isinstance(error, _WRITTEN):
            self.parts.say(str(error))
        else:
            logging.getLogger(__name__).error("the slider cannot show this", exc_info=error)
            self.parts.say(f"This cannot be shown: {type(error).__name__}: {error}")

    def _blank(self) -> None:
        """Show no face where there is none to show."""
        self.shown, self._shown_at, self._strip_of, self._told = None, None, None, ""
        self.parts.blank(self.parts.aged, self.parts.difference, *self.parts.groups)
        self.parts.said.value = self.parts.readings.value = ""

    # -- saving --------------------------------------------------------------------------------------------------

    def _file(self, kind: str) -> bytes:
        if kind not in _KINDS:
            raise ValueError(f"a face is saved as .png or .gif, not as {kind!r}")
        self.wait()
        position = self._position()
        if position is None or self._shown_at != position:
            raise ValueError("there is no face to save: choose one, and a method that is trained")
        if kind == "png":
            return png(self.shown)
        ages = np.array_split(_GIF_AGES, 3)  # in batches, for the memory's sake
        seen = [self.explorer.at_ages(position.portrait, part, position.method, position.strength) for part in ages]
        return gif([image for batch in seen for image in batch])

    def _offer(self, kind: str) -> None:
        """A link that saves the file on the person's own computer, which need not be the kernel's."""
        self.parts.link.value = "drawing …"
        try:
            content = self._file(kind)
        except Exception as error:
            self.parts.link.value = ""
            self._fail(error)
            return
        position = self._position()
        years = f"{position.age:g}" if kind == "png" else f"{_GIF_AGES[0]:g}-{_GIF_AGES[-1]:g}"
        name = f"face_{years}_{position.method.replace('+', '_')}.{kind}"
        self.parts.offer(name, f"data:{_KINDS[kind]};base64,{base64.b64encode(content).decode()}")


def age_slider(settings: Slider) -> AgeSlider:
    """The age slider of a run, to be shown in a notebook cell; what the run lacks is told in the widget."""
    return AgeSlider(settings)
