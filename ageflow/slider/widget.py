"""The age slider as widgets: what to choose from, the face, the same face at the slider's age."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
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
from ageflow.slider.controls import Controls, saving_link
from ageflow.slider.explorer import Explorer, Portrait, View, find_models
from ageflow.slider.latest import Latest
from ageflow.slider.pictures import difference, gif, png, static_figure
from ageflow.translation.ages import GROUP_CENTRES, age_to_weights

# Errors whose messages are written for a person; any other is a fault of this kit, and its traceback goes to the log.
_EXPECTED = (ValueError, FileNotFoundError, CheckpointError)
# Outside these nothing changes; every other year is smooth enough, and half the bytes of every year.
_GIF_AGES = np.arange(GROUP_CENTRES[0], GROUP_CENTRES[-1] + 1, 2)


class AgeSlider(widgets.VBox):
    """An `Explorer` under one's hand.

    A move is only noted; a thread draws the newest one and drops those it overtook. Cosine, estimated age, round trip
    and strip follow when the hand rests. What goes wrong is shown in the widget.

    Arguments:
        settings: of notebook 09.
    """

    def __init__(self, settings: Slider) -> None:
        self.settings = settings
        self.explorer: Explorer | None = None
        self.portrait: Portrait | None = None
        self.shown: Tensor | None = None  # uint8 [3, S, S]
        self._shown_view: View | None = None
        self._strip_view: View | None = None
        self._last_age = settings.age  # the last that was not the face's own
        self._problem_lock = threading.Lock()
        self._latest = Latest(self._draw, self._fail_at, self._follow)
        self.controls = controls = Controls(self._choose_test_face, self._choose_found_face)
        super().__init__(controls.rows)
        self.add_class("ageflow-slider")
        for name in ("method", "age", "strength"):
            getattr(controls, name).value = getattr(settings, name)
        models = find_models(settings.runs_root)
        runs = list(zip(models["data set"], models["run"], strict=True))
        controls.model.options = [(" / ".join(run), run) for run in runs]
        controls.model.value = own if (own := (settings.dataset, settings.run)) in runs else None
        self._open(settings, choose=settings.photo is None)  # where a photo cannot be used, nobody is shown instead
        if settings.photo:
            self._take_photo(settings.photo)
        controls.model.observe(self._on_model, "value")
        controls.upload.observe(self._on_upload, "value")
        for control in (controls.age, controls.method, controls.strength):
            control.observe(self._on_move, "value")
        controls.own_age.on_click(self._on_own_age)
        controls.save_png.on_click(lambda _: self._offer("png"))
        controls.save_gif.on_click(lambda _: self._offer("gif"))

    def wait(self, seconds: float = 60.0) -> bool:
        """Wait until everything shown belongs to the slider's position; False: that took longer."""
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
        if (view := self._settled_view()) is None:
            return HTML(self.controls.problem.value)
        return static_figure(self.explorer, view, self.controls.readings.value)

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        """The widget; as text, what is wrong or who is shown."""
        self.wait()
        words = self.controls.problem_text or f"The age slider: {self.controls.about.value}"
        return (super()._repr_mimebundle_(**kwargs) or {}) | {"text/plain": words}

    # -- choosing ------------------------------------------------------------------------------------------------

    def _open(self, settings: Slider, choose: bool = True) -> None:
        """Take a run, and its first test face if `choose`; what it lacks is shown."""
        self.explorer, self.portrait = None, None
        self._blank(original=True)
        self._show_found([])
        self.controls.show_problem("")
        self.controls.test_faces.fill(0, list)
        with self._problems_shown():
            explorer = Explorer(settings)
            if settings.face >= (count := len(explorer)):
                run = f"{settings.dataset}/{settings.run}"
                raise ParameterError(f"face = {settings.face}: {run} has {count} test faces, 0 to {count - 1}")
            self.controls.test_faces.fill(count, explorer.portrait, settings.face)
            self.explorer = explorer
            if choose:
                self._choose_test_face(settings.face)

    def _choose_test_face(self, number: int) -> None:
        self._show_found([])
        self.controls.test_faces.mark(number)
        self._take(self.explorer.portrait(number))

    def _choose_found_face(self, number: int) -> None:
        self.controls.found.mark(number)
        self._take(self._found[number])

    def _take(self, portrait: Portrait) -> None:
        self.portrait = portrait
        self.controls.original.value = png(portrait.image)
        self.controls.about.value = portrait.about
        self.controls.own_age.description = f"own age: {portrait.own_age:g}"
        self._on_move()

    def _take_photo(self, photo: bytes | Path) -> None:
        if self.explorer is None:  # the reason is shown already
            return
        self.controls.show_problem("Looking for faces …")
        with self._problems_shown(f"photo = {photo}: " if isinstance(photo, Path) else ""):
            content = photo if isinstance(photo, bytes) else read_picture(photo.parent, photo.name)
            self._show_found(self.explorer.portraits_in(content))
            self.controls.test_faces.mark(None)
            self._choose_found_face(0)

    def _show_found(self, faces: list[Portrait]) -> None:
        self._found = faces
        self.controls.found.fill(len(faces), faces.__getitem__)
        self.controls.found_row.layout.display = "" if len(faces) > 1 else "none"

    # -- moving --------------------------------------------------------------------------------------------------

    def _on_model(self, change: dict) -> None:
        if change["new"] is not None:
            dataset, run = change["new"]
            self._open(self.settings.model_copy(update={"dataset": dataset, "run": run, "face": 0}))

    def _on_upload(self, change: dict) -> None:
        if change["new"]:
            self._take_photo(bytes(change["new"][0]["content"]))

    def _on_own_age(self, _: widgets.Button) -> None:
        if self.portrait is not None:
            self.controls.age.value = self.portrait.own_age

    def _on_move(self, _: dict | None = None) -> None:
        view = self._view()
        if view is None:
            return
        with self._problem_lock:
            self.controls.show_problem("")
        if view.age != view.portrait.own_age:
            self._last_age = view.age
        self._latest.request(view)

    def _view(self) -> View | None:
        if self.explorer is None or self.portrait is None:
            return None
        return View(self.portrait, self.controls.age.value, self.controls.method.value, self.controls.strength.value)

    def _settled_view(self) -> View | None:
        """Where the slider stands, once that is what is shown; None where nothing can be."""
        self.wait()
        view = self._view()
        return view if view == self._shown_view else None

    # -- showing -------------------------------------------------------------------------------------------------

    def _draw(self, view: View) -> None:
        """The picture of a view, and what costs next to nothing beside it."""
        controls, back = self.controls, None
        if view.age == view.portrait.own_age:
            back = self.explorer.back(replace(view, age=self._last_age))
        shown = self.explorer.at_age(view) if back is None else to_uint8(back)
        controls.aged.value = png(shown)
        self.shown, self._shown_view = shown, view
        if back is None:
            weights = zip(AGE_GROUPS, age_to_weights(view.age).tolist(), strict=True)
            mixed = ", ".join(f"{weight:.0%} {name}" for name, weight in weights if weight)
            controls.caption.value = f"at {view.age:.1f}: {mixed}"
        else:
            controls.caption.value = f"own age {view.age:.1f}: back from {self._last_age:.1f}"
        controls.difference.value = png(difference(view.portrait.image, shown))
        controls.download.value = ""

    def _follow(self, view: View) -> Iterator[None]:
        """What takes longer than a hand waits, in parts."""
        explorer, portrait, shown = self.explorer, view.portrait, self.shown
        if (strip_view := replace(view, age=0.0)) != self._strip_view:
            for image, centre in zip(self.controls.strip, GROUP_CENTRES, strict=True):
                image.value = png(explorer.at_age(replace(view, age=centre)))
                yield
            self._strip_view = strip_view
        readings = [f"cosine to the face before {explorer.cosine(portrait, shown):.3f} ({explorer.embedder.name})"]
        yield
        if explorer.workspace.has("classifiers"):
            readings.append(f"estimated age {explorer.estimate(shown)[0]:.0f}")
        else:
            readings.append("no estimated age: run 05_train_classifiers.ipynb")
        back = explorer.back(view)
        if back is None:
            readings.append("no way back: this method has no inverse")
        else:
            largest, different = (back * 255 - portrait.image).abs().max(), (to_uint8(back) != portrait.image).sum()
            values = f"{different} of {back.numel()} values differ"
            readings.append(f"there and back: largest error {largest:.1g} of 255, {values}")
        self.controls.readings.value = " · ".join(readings)

    def _fail_at(self, error: Exception, view: View) -> None:
        """Show what went wrong there, unless the hand has moved on; what was shown before is of another view."""
        with self._problem_lock:
            if view == self._view():
                self._fail(error)
                if self._shown_view != view:
                    self._blank()

    @contextmanager
    def _problems_shown(self, named: str = "") -> Iterator[None]:
        """What goes wrong inside is shown, a mistake of the person's after what it is `named`."""
        try:
            yield
        except ValueError as error:
            self._fail(ValueError(f"{named}{error}"))
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        """Show what went wrong."""
        if isinstance(error, _EXPECTED):
            self.controls.show_problem(str(error))
        else:
            logging.getLogger(__name__).error("the slider cannot show this", exc_info=error)
            self.controls.show_problem(f"This cannot be shown: {type(error).__name__}: {error}")

    def _blank(self, original: bool = False) -> None:
        """Show no face where there is none to show."""
        self.shown, self._shown_view, self._strip_view = None, None, None
        self.controls.blank(original)

    # -- saving --------------------------------------------------------------------------------------------------

    def _file(self, kind: str) -> bytes:
        if kind not in ("png", "gif"):
            raise ValueError(f"a face is saved as .png or .gif, not as {kind!r}")
        if (view := self._settled_view()) is None:
            raise ValueError("there is no face to save: choose one, and a method that is trained")
        if kind == "png":
            return png(self.shown)
        batches = np.array_split(_GIF_AGES, 3)  # for the memory's sake
        return gif([image for ages in batches for image in self.explorer.at_ages(view, ages)])

    def _offer(self, kind: str) -> None:
        """A link that saves the file on the person's own computer, which need not be the kernel's."""
        self.controls.download.value = "drawing …"
        link = ""
        with self._problems_shown():
            content, view = self._file(kind), self._shown_view
            years = f"{view.age:g}" if kind == "png" else f"{_GIF_AGES[0]:g}-{_GIF_AGES[-1]:g}"
            link = saving_link(f"face_{years}_{view.method.replace('+', '_')}.{kind}", content, f"image/{kind}")
        self.controls.download.value = link
