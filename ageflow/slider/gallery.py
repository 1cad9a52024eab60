"""Thumbnails to choose from, a page at a time."""

import base64
from collections.abc import Callable, Sequence

import ipywidgets as widgets
from torch import Tensor

from ageflow.slider.pictures import png, side_by_side

_SIDE = 64  # CSS pixels of a thumbnail


class Gallery(widgets.VBox):
    """Faces as buttons.

    A button shows no picture by itself: each is given its piece of one long background picture.

    Arguments:
        chosen: called with the number of a face that is clicked.
        per_page: thumbnails shown at a time.
    """

    def __init__(self, chosen: Callable[[int], None], per_page: int = 12) -> None:
        self._chosen, self._per_page = chosen, per_page
        self._style, self._row, self._where = widgets.HTML(), widgets.HBox(), widgets.Label()
        self._style.layout.display = "none"
        self._back, self._on = (
            widgets.Button(description=sign, tooltip=words, layout={"width": "40px"})
            for sign, words in (("◀", "the faces before"), ("▶", "the faces after"))
        )
        self._back.on_click(lambda _: self._show(self._first - per_page))
        self._on.on_click(lambda _: self._show(self._first + per_page))
        self._row.layout.flex_flow = "row wrap"
        self._pager = widgets.HBox([self._back, self._on, self._where])
        self._first, self._count, self._current = 0, 0, 0
        super().__init__([self._style, self._row, self._pager])

    def fill(
        self, count: int, images: Callable[[Sequence[int]], Sequence[Tensor]], about: Callable[[int], str], current: int
    ) -> None:
        """Show `count` faces.

        Arguments:
            count: how many there are; 0 empties the gallery.
            images: gives the faces of some numbers, each uint8 [3, S, S].
            about: gives the words shown over a face.
            current: the one that is chosen.
        """
        self._count, self._images, self._about, self._current = count, images, about, current
        self._show(current // self._per_page * self._per_page)

    def mark(self, number: int | None) -> None:
        """Frame the face that is chosen; None: no face of this gallery is."""
        self._current = number
        for place, button in enumerate(self._row.children):
            (button.add_class if self._first + place == number else button.remove_class)("ageflow-chosen")

    def _show(self, first: int) -> None:
        self._first = max(0, min(first, (self._count - 1) // self._per_page * self._per_page))
        numbers = range(self._first, min(self._first + self._per_page, self._count))
        buttons = []
        for place, number in enumerate(numbers):
            button = widgets.Button(tooltip=self._about(number), layout={"width": f"{_SIDE}px", "height": f"{_SIDE}px"})
            button.add_class("ageflow-thumbnail")
            button.add_class(self._class(place))
            button.on_click(lambda _, number=number: self._chosen(number))
            buttons.append(button)
        self._style.value = self._css(self._images(list(numbers))) if buttons else ""
        self._row.children = buttons
        last = self._first + len(buttons)
        self._where.value = f"faces {self._first} to {last - 1} of {self._count}"
        self._back.disabled, self._on.disabled = self._first == 0, last >= self._count
        self._pager.layout.display = "" if self._count > self._per_page else "none"
        self.mark(self._current)

    def _class(self, place: int) -> str:
        return f"ageflow-{self.model_id}-{place}"  # another slider on the same page has thumbnails of its own

    def _css(self, images: Sequence[Tensor]) -> str:
        row = side_by_side(images, _SIDE, gap=0)
        row = row.resize((_SIDE * len(images), _SIDE)) if row.height != _SIDE else row
        address = f"data:image/png;base64,{base64.b64encode(png(row)).decode()}"
        every = ", ".join(f".{self._class(place)}" for place in range(len(images)))
        rules = [f"{every} {{background-image: url({address}) !important; padding: 0; margin: 3px}}"]
        rules += [
            f".{self._class(place)} {{background-position: -{place * _SIDE}px 0}}" for place in range(len(images))
        ]
        rules.append(".ageflow-thumbnail.ageflow-chosen {outline: 3px solid #d32f2f}")
        return f"<style>{' '.join(rules)}</style>"
