"""The age slider as widgets: faces to choose from, the face, the same face at the slider's age."""

import html
import io
import threading
from collections.abc import Iterator, Sequence
from concurrent import futures
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ipywidgets as widgets
import numpy as np
import torch
from IPython.display import HTML
from PIL import Image
from torch import Tensor

from ageflow.checkpoint import CheckpointError
from ageflow.config import BASELINES, Slider
from ageflow.data.pictures import open_image, read_picture
from ageflow.data.records import AgeGroups
from ageflow.flows.glow import to_uint8
from ageflow.report.drawing import Figure, picture_address, show_face
from ageflow.run import write_atomically
from ageflow.slider.explorer import AGE_STEP, Explorer, Portrait, View, find_models
from ageflow.translation.ages import age_to_weights
from ageflow.translation.methods import METHODS

# Errors whose messages are written for a person; any other is a fault of this kit, and its traceback goes to the log.
_EXPECTED = (ValueError, FileNotFoundError, CheckpointError, FloatingPointError)
_SHOWN, _STRIP, _THUMBNAIL = 256, 128, 64  # CSS pixels of a face
_PAGE = 12  # faces to choose from at a time
_DIFFERENCE = 2  # times that a difference of two faces is enlarged


class AgeSlider(widgets.VBox):
    """An `Explorer` under one's hand.

    A move is only noted; a thread draws the newest one and drops those it overtook. Cosine, estimated age, round trip
    and strip follow when the hand rests. What goes wrong is shown in the widget.

    Arguments:
        settings: of notebook 09.

    Attributes:
        explorer: of the chosen run; None where it lacks what the slider needs.
        portrait: the chosen face, or None.
        shown: the face at the slider's age, uint8 [3, S, S]; None: there is none to show.
        problem: what is wrong, in words; "": nothing.
        controls: every widget by its name.
    """

    def __init__(self, settings: Slider) -> None:
        first = 60.0 if settings.age is None else settings.age
        self.problem, self._last_age = "", first  # the last that was not the face's own
        self._photo: bytes | None = None  # one's own picture, the file's content
        self._thread, self._drawing = futures.ThreadPoolExecutor(1), []
        self._overtaken = threading.Event()
        self.controls = of = _controls()
        rows = [
            widgets.HBox([of.model, of.upload, of.limit]),
            of.problem,
            widgets.HBox(of.thumbnails, layout={"flex_flow": "row wrap"}),
            *(of.page, of.method, of.strength),
            widgets.HBox([of.age, of.own_age]),
            _captioned([of.original, of.aged, of.difference], [of.about, of.caption, of.change]),
            of.readings,
            of.groups,
            widgets.HBox([*of.save.values(), of.download, of.style]),
        ]
        super().__init__(rows)
        self.add_class("ageflow-slider").add_class(f"ageflow-{self.model_id}")
        if (own := settings.method) not in METHODS:
            of.method.options = (*of.method.options, (BASELINES.get(own, own), own))
        of.method.value, of.age.value, of.strength.value = settings.method, first, settings.strength
        models = find_models(settings.runs_root)
        runs = list(zip(models["data set"], models["run"], strict=True))
        of.model.options = [(" / ".join(run), run) for run in runs]
        of.model.value = own if (own := (settings.dataset, settings.run)) in runs else None

        def change_model(change: dict) -> None:
            dataset, run = change["new"]
            # One's own picture stays where it is shown, and the face of it that was chosen.
            own = self._faces.index(self.portrait) if self.portrait and self.portrait.similarity else 0
            photo = self._photo if self.portrait is None or self.portrait.similarity else None
            update = {"dataset": dataset, "run": run, "face": 0, "photo": None, "age": None}
            self._open(settings.model_copy(update=update), photo, own)

        def upload(change: dict) -> None:
            for file in change["new"]:
                self._take_photo(bytes(file["content"]))
                of.upload.value = ()  # or the same file, chosen again, would be no change

        of.model.observe(change_model, "value")
        of.upload.observe(upload, "value")
        of.page.observe(lambda _: self._show_page(), "value")
        for control in (of.age, of.method, of.strength):
            control.observe(lambda _: self._move(), "value")
        for place, button in enumerate(of.thumbnails):
            button.on_click(lambda _, place=place: self._choose(self._face(place)))
        of.own_age.on_click(lambda _: self.portrait and setattr(of.age, "value", self.portrait.own_age))
        for kind, button in of.save.items():
            button.on_click(lambda _, kind=kind: self._offer(kind))
        self._open(settings, settings.photo)

    def wait(self, seconds: float = 60.0) -> bool:
        """Wait until everything shown belongs to the slider's position; False: that took longer."""
        return not futures.wait(self._drawing, seconds).not_done

    def save(self, path: Path | str) -> Path:
        """Write the face that is shown as ``.png``, or from the first group's years to the last's and back as ``.gif``.

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
        before, strip = view.portrait.image, self.explorer.at_ages(view, self.explorer.age_groups.centres)
        faces = {"before": before, f"at {view.age:.1f}": self.shown, "difference": _difference(before, self.shown)}
        faces |= dict(zip(self.explorer.age_groups.labels, strip, strict=True))
        figure = Figure(10.0 * len(faces) / 7, 2.3)
        figure.suptitle(f"{self.explorer.method(view.method).title}: {view.portrait.about}", fontsize=10)
        figure.supxlabel(self.controls.readings.value, fontsize=8)
        for axes, (title, face) in zip(figure.subplots(1, len(faces)), faces.items(), strict=True):
            show_face(axes, face)
            axes.set_title(title, fontsize=9)
        return figure

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        """The widget; as text, what is wrong or who is shown."""
        self.wait()
        words = self.problem or f"The age slider: {self.controls.about.value}"
        return (super()._repr_mimebundle_(**kwargs) or {}) | {"text/plain": words}

    # -- choosing ------------------------------------------------------------------------------------------------

    def _open(self, settings: Slider, photo: bytes | Path | None, own: int = 0) -> None:
        """Take a run, and of the photo the face `own`, or the face of the settings; what it lacks is shown alone."""
        self.explorer, self.portrait = None, None
        self.controls.original.value, self.controls.about.value = _NOTHING, ""
        self._blank()
        self._choose_from(())
        with self._problems_shown():
            self.explorer = Explorer(settings)
            self._show_groups(self.explorer.age_groups)
            self._choose_from(range(len(self.explorer)))
            if photo is None:
                self._choose(self.explorer.portrait(settings.face))
            else:
                self._take_photo(photo, own)

    def _show_groups(self, age_groups: AgeGroups) -> None:
        """The slider's range, and a place for a face of each group."""
        of, stops = self.controls, age_groups.stops
        of.age.min, of.age.max = 0, 120  # neither end may pass the other
        of.age.min, of.age.max = stops[0], stops[-1]
        of.strip = [widgets.Image(value=_NOTHING, width=_STRIP, height=_STRIP) for _ in age_groups.labels]
        of.groups.children = _captioned(of.strip, [widgets.Label(label) for label in age_groups.labels]).children

    def _take_photo(self, photo: bytes | Path, own: int = 0) -> None:
        if self.explorer is None:  # the reason is shown already
            return
        self._show_problem("Looking for faces …")
        with self._problems_shown(f"photo = {photo}: " if isinstance(photo, Path) else ""):
            content = read_picture(photo.parent, photo.name) if isinstance(photo, Path) else photo
            found = self.explorer.portraits_in(open_image(content))
            self._photo = content
            self._choose_from([*found, *range(len(self.explorer))])
            self._choose(found[min(own, len(found) - 1)])

    def _choose_from(self, faces: Sequence[Portrait | int]) -> None:
        """Offer faces: those of the person's own picture, then test faces by their number."""
        self._faces = faces
        self.controls.page.max = max(1, -(-len(faces) // _PAGE))
        self.controls.page.value = 1
        self._show_page()

    def _face(self, place: int) -> Portrait:
        face = self._faces[_PAGE * (self.controls.page.value - 1) + place]
        return face if isinstance(face, Portrait) else self.explorer.portrait(face)

    def _choose(self, portrait: Portrait) -> None:
        of, self.portrait = self.controls, portrait
        of.original.value, of.about.value = _png(portrait.image), portrait.about
        of.own_age.description = f"own age: {portrait.own_age:g}"
        of.save["photo"].layout.display = None if portrait.similarity else "none"
        self._move()

    def _show_page(self) -> None:
        """Faces as buttons, which have no pictures of their own: CSS gives them one."""
        there, rules = len(self._faces) - _PAGE * (self.controls.page.value - 1), []
        for place, button in enumerate(self.controls.thumbnails):
            button.layout.display = None if place < there else "none"
            if place < there:
                picture = picture_address(_png(self._face(place).image, _THUMBNAIL), "png")
                where = f".ageflow-{self.model_id} .ageflow-thumbnail:nth-child({place + 1})"
                rules.append(f"{where} {{background: url({picture}) center / cover !important}}")
        self.controls.style.value = f"<style>{' '.join(rules)}</style>"

    # -- moving --------------------------------------------------------------------------------------------------

    def _move(self) -> None:
        if (view := self._view()) is not None:
            if view.age != view.portrait.own_age:
                self._last_age = view.age
            self._overtaken.set()
            self._overtaken = threading.Event()
            self._drawing = [self._thread.submit(self._draw, view, self._overtaken)]

    def _view(self) -> View | None:
        of = self.controls
        return self.portrait and View(self.portrait, of.age.value, of.method.value, of.strength.value)

    def _settled_view(self) -> View | None:
        """Where the slider stands, once that is what is shown; None where nothing can be."""
        self.wait()
        return view if (view := self._view()) == self._shown_view else None

    # -- showing -------------------------------------------------------------------------------------------------

    def _draw(self, view: View, overtaken: threading.Event) -> None:
        """Show a view part by part, as long as no newer one has come."""
        with self._problems_shown(of=view):
            for seconds in () if overtaken.is_set() else self._parts(view):
                if overtaken.wait(seconds):
                    break

    def _parts(self, view: View) -> Iterator[float]:
        """Show the picture of a view, then what takes longer; yields the seconds to wait for a move before each part."""
        of, explorer, portrait = self.controls, self.explorer, view.portrait
        back = explorer.back(replace(view, age=self._last_age)) if view.age == portrait.own_age else None
        shown = explorer.at_age(view) if back is None else to_uint8(back)
        if portrait is not self.portrait:  # another was chosen meanwhile, perhaps of another run
            return
        of.aged.value, self.shown, self._shown_view = _png(shown), shown, view
        age_groups = explorer.age_groups
        weights = zip(age_groups.labels, age_to_weights(view.age, age_groups).tolist(), strict=True)
        mixed = ", ".join(f"{weight:.0%} {name}" for name, weight in weights if weight)
        from_there = f"own age {view.age:.1f}: back from {self._last_age:.1f}"
        of.caption.value = f"at {view.age:.1f}: {mixed}" if back is None else from_there
        of.difference.value = _png(_difference(portrait.image, shown))
        of.download.value = ""
        self._show_problem("")
        yield 0.15  # without a move until what takes longer
        if (strip_view := replace(view, age=0.0)) != self._strip_view:
            for image, centre in zip(of.strip, age_groups.centres, strict=True):
                image.value = _png(explorer.at_age(replace(view, age=centre)))
                yield 0
            self._strip_view = strip_view
        judged = explorer.workspace.has("classifiers")
        age = f"{explorer.estimate(shown)[0]:.0f}" if judged else "unknown: run 05_train_classifiers.ipynb"
        same = f"cosine to the face before {explorer.cosines(portrait, shown[None])[0]:.3f} ({explorer.embedder.name})"
        returned = "no way back: this method has no inverse"
        if (back := explorer.back(view)) is not None:
            error, differ = (back * 255 - portrait.image).abs().max(), (to_uint8(back) != portrait.image).sum()
            returned = f"there and back: largest error {error:.1g} of 255, {differ} of {back.numel()} values differ"
        of.readings.value = " · ".join([same, f"estimated age {age}", returned])

    @contextmanager
    def _problems_shown(self, named: str = "", of: View | None = None) -> Iterator[None]:
        """What goes wrong inside is shown, after what it is `named`; of a view, unless the hand has moved on."""
        try:
            yield
        except Exception as error:
            if of not in (None, self._view()):
                return
            if of not in (None, self._shown_view):  # what is shown is of another view
                self._blank()
            if not isinstance(error, _EXPECTED):
                self.log.error("the slider cannot show this", exc_info=error)
                named = f"{type(error).__name__}: "
            self._show_problem(f"{named}{error}")

    def _show_problem(self, problem: str) -> None:
        self.problem = problem
        shown = f'<div style="color: #c62828; max-width: 800px; line-height: 1.4">{html.escape(problem)}</div>'
        self.controls.problem.value = shown if problem else ""

    def _blank(self) -> None:
        """Show no face at any age."""
        self.shown = self._shown_view = self._strip_view = None
        for image in (self.controls.aged, self.controls.difference, *self.controls.strip):
            image.value = _NOTHING
        self.controls.caption.value = self.controls.readings.value = ""

    # -- saving --------------------------------------------------------------------------------------------------

    def _file(self, kind: str) -> bytes:
        if kind not in self.controls.save or (kind == "photo" and not (self.portrait and self.portrait.similarity)):
            raise ValueError(f"a face is saved as .png or .gif, not as {kind!r}")
        if (view := self._settled_view()) is None:
            raise ValueError("there is no face to save: choose one, and a method that is trained")
        if kind == "png":
            return _png(self.shown)
        if kind == "photo":
            self.explorer.paste(photo := open_image(self._photo), view.portrait, self.shown)
            photo.save(content := io.BytesIO(), "PNG", compress_level=1)
            return content.getvalue()
        # Outside these nothing changes; every other year is smooth enough, and half the bytes of every year.
        first, *_, last = self.explorer.age_groups.centres
        return _gif(self.explorer.at_ages(view, np.arange(first, last + 1, 2)))

    def _offer(self, kind: str) -> None:
        """A link that saves the file on the person's own computer, which need not be the kernel's."""
        self.controls.download.value, link = "drawing …", ""
        with self._problems_shown():
            ending, what = ("png", "photo") if kind == "photo" else (kind, "face")
            address, view = picture_address(self._file(kind), ending), self._shown_view
            name = f"{what}_{view.age:g}_{view.method}.{ending}"
            link = f'<a class="ageflow-saved" download="{name}" href="{address}"><u>{name}</u></a>'
        self.controls.download.value = link


def _controls() -> SimpleNamespace:
    """Every widget by name; its CSS class is ``ageflow-<name>``."""
    methods = [(title, name) for name, title in METHODS.items()]
    square = {"width": f"{_THUMBNAIL}px", "height": f"{_THUMBNAIL}px", "margin": "3px"}
    age = {"min": 0, "max": 120, "step": AGE_STEP, "readout_format": ".1f", "layout": {"width": "640px"}}
    controls = SimpleNamespace(
        model=widgets.Dropdown(description="model"),
        upload=widgets.FileUpload(accept="image/*", description="your own picture", layout={"width": "170px"}),
        page=widgets.BoundedIntText(1, min=1, max=1, description="page"),
        method=widgets.ToggleButtons(options=methods, style={"button_width": "150px"}),
        strength=widgets.FloatSlider(1, min=0, max=2, step=0.05, description="strength"),
        age=widgets.FloatSlider(description="age", **age),
        own_age=widgets.Button(description="own age"),
        **{name: widgets.HTML() for name in ("problem", "style", "readings", "download")},
        **{name: widgets.Label() for name in ("about", "caption")},
        # What is larger never comes here, so only this can tell.
        limit=widgets.Label("up to 10 MiB; up to 256 where make lab started Jupyter"),
        change=widgets.Label(f"difference × {_DIFFERENCE}; grey: none"),
        **{name: widgets.Image(width=_SHOWN, height=_SHOWN) for name in ("original", "aged", "difference")},
    )
    for name, widget in vars(controls).items():
        widget.add_class(f"ageflow-{name.replace('_', '-')}")
    controls.strip, controls.groups = [], widgets.HBox(layout={"flex_flow": "row wrap"})
    controls.thumbnails = [widgets.Button(layout=square).add_class("ageflow-thumbnail") for _ in range(_PAGE)]
    controls.save = {kind: widgets.Button(description=f"save as {kind.upper()}") for kind in ("png", "gif")}
    controls.save["photo"] = widgets.Button(description="save in the photo", layout={"display": "none"})
    return controls


def _captioned(images: Sequence[widgets.Image], captions: Sequence[widgets.Label]) -> widgets.HBox:
    """Images side by side, a caption under each that must not push them apart."""
    for image, caption in zip(images, captions, strict=True):
        caption.layout.width = f"{image.width}px"
    return widgets.HBox([widgets.VBox(pair) for pair in zip(images, captions, strict=True)])


def _enlarged(image: Tensor, side: int = _SHOWN) -> Image.Image:
    """A face, uint8 [3, S, S], as a picture at least `side` pixels wide."""
    picture = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
    return picture if picture.width >= side else picture.resize((side, side), Image.Resampling.BICUBIC)


def _png(image: Tensor, side: int = _SHOWN) -> bytes:
    """A face uint8 [3, S, S], enlarged, as the content of a PNG file."""
    content = io.BytesIO()
    # A slider waits for this: level 1 takes a third of the time of the default, for a tenth more bytes.
    _enlarged(image, side).save(content, "PNG", compress_level=1)
    return content.getvalue()


_NOTHING = _png(torch.full((3, 8, 8), 238, dtype=torch.uint8), side=8)


def _gif(images: Tensor) -> bytes:
    """Faces uint8 [B, 3, S, S] one after another and back, for ever, as the content of a GIF file."""
    # Each frame gets its 256 colours once; left to Pillow, the frames on the way back would get theirs again.
    frames = [_enlarged(image).quantize(256) for image in images]
    first, *rest = [*frames, *frames[-2:0:-1]]
    content = io.BytesIO()
    first.save(content, "GIF", save_all=True, append_images=rest, duration=80, loop=0)
    return content.getvalue()


def _difference(before: Tensor, after: Tensor) -> Tensor:
    """What changed between two faces uint8 [3, S, S], `_DIFFERENCE` times, about a middle grey."""
    return (128 + _DIFFERENCE * (after.int() - before.int())).clamp(0, 255).to(torch.uint8)
