"""The slider's widgets and where they stand; what they do is `ageflow.slider.widget`'s."""

import html
from collections.abc import Callable

import ipywidgets as widgets
from PIL import Image

from ageflow.data.records import AGE_GROUPS
from ageflow.slider.gallery import Gallery
from ageflow.slider.pictures import DIFFERENCE_GAIN, SHOWN, png
from ageflow.translation.ages import OLDEST, YOUNGEST
from ageflow.translation.methods import METHODS

STRIP = 128  # pixels of a face in the strip
_NOTHING = png(Image.new("RGB", (8, 8), (238, 238, 238)))
_WORDS = {"description_width": "80px"}


class Parts:
    """Every widget by name, and `rows`, the lines they stand in.

    Arguments:
        test_face: called with the number of a test face that is clicked.
        found_face: called with the number of a face of one's own picture that is clicked.
    """

    def __init__(self, test_face: Callable[[int], None], found_face: Callable[[int], None]) -> None:
        self.model = widgets.Dropdown(description="model", style=_WORDS, layout={"width": "320px"})
        self.upload = widgets.FileUpload(
            accept="image/*", multiple=False, description="your own picture", layout={"width": "170px"}
        )
        self.gallery, self.found = Gallery(test_face), Gallery(found_face)
        self.found_row = widgets.VBox([widgets.Label("Several faces were found: choose one."), self.found])
        self.method = widgets.ToggleButtons(
            options=[(words, name) for name, words in METHODS.items()], style={"button_width": "150px"}
        )
        self.strength = widgets.FloatSlider(
            1, min=0, max=2, step=0.05, description="strength", readout_format=".2f", style=_WORDS
        )
        self.strength.layout.width = "420px"
        self.age = widgets.FloatSlider(
            60, min=YOUNGEST, max=OLDEST, step=0.5, description="age", readout_format=".1f", style=_WORDS
        )
        self.age.layout.width = "640px"
        self.own = widgets.Button(description="own age", tooltip="back to the face's own age, by the exact inverse")
        self.own.layout.width = "140px"
        self.original, self.aged, self.difference = (widgets.Image(width=SHOWN, height=SHOWN) for _ in range(3))
        self.about, self.said = widgets.Label(), widgets.Label()
        self.readings, self.problem = widgets.HTML(), widgets.HTML()
        self.groups = [widgets.Image(width=STRIP, height=STRIP) for _ in AGE_GROUPS]
        self.save_png = widgets.Button(description="save as PNG", icon="download")
        self.save_gif = widgets.Button(description="save as GIF", icon="film")
        self.link = widgets.HTML()
        self.problem_text = ""
        for name, widget in vars(self).items():
            if isinstance(widget, widgets.Widget):
                widget.add_class(f"ageflow-{name.replace('_', '-')}")
        self.found_row.layout.display = "none"

    @property
    def rows(self) -> list[widgets.Widget]:
        """From the choice of a face to the saving of a picture."""
        faces = [
            _captioned(self.original, self.about),
            _captioned(self.aged, self.said),
            _captioned(self.difference, widgets.Label(f"difference × {DIFFERENCE_GAIN}; grey: none")),
        ]
        groups = [_captioned(image, widgets.Label(name)) for image, name in zip(self.groups, AGE_GROUPS, strict=True)]
        return [
            widgets.HBox([self.model, self.upload]),
            self.problem,
            self.gallery,
            self.found_row,
            widgets.HBox([_word("method"), self.method]),
            self.strength,
            widgets.HBox([self.age, self.own]),
            widgets.HBox(faces),
            self.readings,
            widgets.HBox(groups),
            widgets.HBox([self.save_png, self.save_gif, self.link]),
        ]

    def say(self, problem: str) -> None:
        """Tell what is wrong; "": nothing is."""
        self.problem_text = problem
        told = f'<div style="color: #c62828; max-width: 800px; line-height: 1.4">{html.escape(problem)}</div>'
        self.problem.value = told if problem else ""

    def blank(self, *images: widgets.Image) -> None:
        """Show nothing in place of `images`."""
        for image in images:
            image.value = _NOTHING

    def offer(self, name: str, address: str) -> None:
        """A link that saves a file of that name."""
        name = html.escape(name)
        self.link.value = (
            f'<a class="ageflow-saved" style="text-decoration: underline" download="{name}" href="{address}">{name}</a>'
        )


def _word(word: str) -> widgets.Label:
    """A word before buttons, where the sliders' own words stand."""
    return widgets.Label(word, layout={"width": "80px", "justify_content": "flex-end"})


def _captioned(image: widgets.Image, caption: widgets.Label) -> widgets.VBox:
    caption.layout.width = f"{image.width}px"  # a long caption must not push the pictures apart
    image.layout.object_fit = "contain"
    return widgets.VBox([image, caption], layout={"margin": "0 8px 0 0"})
