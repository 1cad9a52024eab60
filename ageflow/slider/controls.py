"""The slider's widgets and their layout; what they do is `ageflow.slider.widget`'s."""

import base64
import html
from collections.abc import Callable

import ipywidgets as widgets
import torch

from ageflow.data.records import AGE_GROUPS
from ageflow.slider.explorer import AGE_STEP, Portrait
from ageflow.slider.pictures import DIFFERENCE_GAIN, SHOWN, png
from ageflow.translation.ages import OLDEST, YOUNGEST
from ageflow.translation.methods import METHODS

_STRIP, _THUMBNAIL = 128, 64  # CSS pixels of a face
_NOTHING = png(torch.full((3, 8, 8), 238, dtype=torch.uint8), side=8)
_LABEL = {"description_width": "80px"}


class Thumbnails(widgets.VBox):
    """Faces as buttons to choose from, a page at a time.

    Arguments:
        choose: called with the number of the face that is clicked.
        per_page: faces on a page.
    """

    def __init__(self, choose: Callable[[int], None], per_page: int = 12) -> None:
        self._choose, self._per_page, self._count, self._chosen = choose, per_page, 0, None
        self._style, self._row = (
            widgets.HTML(layout={"display": "none"}),
            widgets.HBox(layout={"flex_flow": "row wrap"}),
        )
        self.page = widgets.IntSlider(description="page", min=1, max=1, style=_LABEL)
        self.page.observe(lambda _: self._show(), "value")
        super().__init__([self._style, self._row, self.page])

    def fill(self, count: int, portrait: Callable[[int], Portrait], chosen: int = 0) -> None:
        """Show `count` faces, `portrait` of each number, from the page of the one that is chosen."""
        self._count, self._portrait, self._chosen = count, portrait, chosen
        with self.page.hold_trait_notifications():
            self.page.max = max(1, -(-count // self._per_page))
            self.page.value = chosen // self._per_page + 1
        self.page.layout.display = "" if count > self._per_page else "none"
        self._show()

    def mark(self, number: int | None) -> None:
        """Frame the face that is chosen; None: no face of these is."""
        self._chosen = number
        for shown, button in zip(self._numbers, self._row.children, strict=True):
            (button.add_class if shown == number else button.remove_class)("ageflow-chosen")

    @property
    def _numbers(self) -> range:
        first = (self.page.value - 1) * self._per_page
        return range(first, min(first + self._per_page, self._count))

    def _show(self) -> None:
        buttons, rules = [], [".ageflow-chosen {outline: 3px solid #d32f2f}"]
        for number in self._numbers:
            portrait, name = self._portrait(number), f"ageflow-{self.model_id}-{number}"
            size = {"width": f"{_THUMBNAIL}px", "height": f"{_THUMBNAIL}px", "margin": "3px", "padding": "0"}
            button = widgets.Button(tooltip=portrait.about, layout=size)
            button.add_class("ageflow-thumbnail").add_class(name)
            button.on_click(lambda _, number=number: self._choose(number))
            buttons.append(button)
            address = data_address(png(portrait.image, _THUMBNAIL), "image/png")
            rules.append(f".{name} {{background: url({address}) center / cover !important}}")
        self._style.value = f"<style>{' '.join(rules)}</style>"
        self._row.children = buttons
        self.mark(self._chosen)


class Controls:
    """Every widget by name, and `rows`, their layout.

    Arguments:
        choose_test_face: called with the number of the test face that is clicked.
        choose_found_face: called with the number of the face of one's own picture that is clicked.
    """

    def __init__(self, choose_test_face: Callable[[int], None], choose_found_face: Callable[[int], None]) -> None:
        self.model = widgets.Dropdown(description="model", style=_LABEL, layout={"width": "320px"})
        self.upload = widgets.FileUpload(accept="image/*", description="your own picture", layout={"width": "170px"})
        self.test_faces, self.found = Thumbnails(choose_test_face), Thumbnails(choose_found_face)
        self.found_row = widgets.VBox([widgets.Label("Several faces were found: choose one."), self.found])
        self.found_row.layout.display = "none"
        self.method = widgets.ToggleButtons(
            options=[(label, name) for name, label in METHODS.items()], style={"button_width": "150px"}
        )
        self.strength = _slider("strength", 0, 2, 0.05, ".2f", "420px")
        self.age = _slider("age", YOUNGEST, OLDEST, AGE_STEP, ".1f", "640px")
        self.own_age = widgets.Button(description="own age", tooltip="back to the face's own age, by the exact inverse")
        self.own_age.layout.width = "140px"
        self.original, self.aged, self.difference = (widgets.Image(width=SHOWN, height=SHOWN) for _ in range(3))
        self.about, self.caption = widgets.Label(), widgets.Label()
        self.readings, self.problem, self.download = widgets.HTML(), widgets.HTML(), widgets.HTML()
        self.strip = [widgets.Image(width=_STRIP, height=_STRIP) for _ in AGE_GROUPS]
        self.save_png = widgets.Button(description="save as PNG", icon="download")
        self.save_gif = widgets.Button(description="save as GIF", icon="film")
        self.problem_text = ""
        for name, widget in vars(self).items():
            if isinstance(widget, widgets.Widget):
                widget.add_class(f"ageflow-{name.replace('_', '-')}")

    @property
    def rows(self) -> list[widgets.Widget]:
        """From the choice of a face to the saving of a picture."""
        change = widgets.Label(f"difference × {DIFFERENCE_GAIN}; grey: none")
        faces = {self.original: self.about, self.aged: self.caption, self.difference: change}
        groups = zip(self.strip, map(widgets.Label, AGE_GROUPS), strict=True)
        method = widgets.Label("method", layout={"width": "80px", "justify_content": "flex-end"})
        return [
            widgets.HBox([self.model, self.upload]),
            self.problem,
            self.test_faces,
            self.found_row,
            widgets.HBox([method, self.method]),
            self.strength,
            widgets.HBox([self.age, self.own_age]),
            widgets.HBox([_captioned(image, caption) for image, caption in faces.items()]),
            self.readings,
            widgets.HBox([_captioned(image, caption) for image, caption in groups]),
            widgets.HBox([self.save_png, self.save_gif, self.download]),
        ]

    def show_problem(self, problem: str) -> None:
        """Show what is wrong; "": nothing is."""
        self.problem_text = problem
        shown = f'<div style="color: #c62828; max-width: 800px; line-height: 1.4">{html.escape(problem)}</div>'
        self.problem.value = shown if problem else ""

    def blank(self, original: bool = False) -> None:
        """Show no face at any age, and not the original either where that is asked for."""
        for image in (self.aged, self.difference, *self.strip, *([self.original] if original else [])):
            image.value = _NOTHING
        self.caption.value = self.readings.value = ""


def saving_link(name: str, content: bytes, kind: str) -> str:
    """HTML of a link that saves a file of that name and MIME type."""
    look = 'class="ageflow-saved" style="text-decoration: underline"'
    name = html.escape(name)
    return f'<a {look} download="{name}" href="{data_address(content, kind)}">{name}</a>'


def data_address(content: bytes, kind: str) -> str:
    """A file of that MIME type as an address that holds it."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _slider(label: str, low: float, high: float, step: float, digits: str, width: str) -> widgets.FloatSlider:
    slider = widgets.FloatSlider(low, min=low, max=high, step=step, description=label, readout_format=digits)
    slider.style.description_width, slider.layout.width = _LABEL["description_width"], width
    return slider


def _captioned(image: widgets.Image, caption: widgets.Label) -> widgets.VBox:
    caption.layout.width = f"{image.width}px"  # a long caption must not push the pictures apart
    image.layout.object_fit = "contain"
    return widgets.VBox([image, caption], layout={"margin": "0 8px 0 0"})
