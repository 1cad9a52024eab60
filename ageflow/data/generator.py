"""The face generator of the package ``random-face``: numbers in, photorealistic faces out, on the CPU.

It is a MobileStyleGAN in OpenVINO's format, 1024×1024, published under Apache-2.0 and derived from FFHQ. Its
last layer writes a face as the four Haar bands of 512×512; the first band is the face at half the size. Where
that is enough, the graph is cut there, which gives the very face that averaging 2×2 pixels would.

`AgeDirection` says where to move a face in the generator's style space so that it is judged older.
"""

import importlib.metadata
import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import safe_open

RESOLUTIONS = (256, 512, 1024)
WIDTH = 512  # numbers in a draw, in a style w
TRUNCATION = 0.75
DIRECTION_FILE = Path(__file__).with_name("age_direction.safetensors")
_MEAN_DRAWS = 4096
_BANDS = "Add_754"  # the node that writes the 4 Haar bands × 3 colours
# First and last node of the two widest of the seven inverse Haar transforms between layers.
_INVERSE_HAAR = (("Mul_556", "Add_576"), ("Mul_656", "Add_676"))
# Same numbers on every machine, however many threads: no bf16, one face an inference.
_PRECISION = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "THROUGHPUT"}


def package_version() -> str:
    """Version of the installed generator; it decides what a seed draws.

    Raises:
        ModuleNotFoundError: the package is not installed.
    """
    try:
        return importlib.metadata.version("random-face")
    except importlib.metadata.PackageNotFoundError:
        raise ModuleNotFoundError(
            "the demo faces need the package random-face: pip install -e '.[demo]' in the kit's folder"
        ) from None


def resolution_for(image_size: int) -> int:
    """The least resolution to draw at so that an aligned face of `image_size` pixels is sharp.

    An aligned face shows about 0.9 of the drawn picture's side, and shrinking by 1.5 or more hides the resampling.
    """
    return next((resolution for resolution in RESOLUTIONS if resolution >= 1.5 * image_size), RESOLUTIONS[-1])


@dataclass(frozen=True)
class AgeDirection:
    """A direction in w, fitted once (``tools/fit_age_direction.py``) and kept in ``age_direction.safetensors``.

    Arguments:
        unit: [512], length 1, pointing to the old.
        years_per_step: years that a move of length 1 adds on average.
        facts: how it was fitted (draws, R² held out, package version).
    """

    unit: np.ndarray
    years_per_step: float
    facts: dict[str, str]

    @classmethod
    def load(cls, file: Path = DIRECTION_FILE) -> "AgeDirection":
        """Read a fitted direction."""
        with safe_open(file, framework="numpy") as stored:
            return cls(stored.get_tensor("unit"), float(stored.get_tensor("years_per_step")[0]), stored.metadata())


class FaceGenerator:
    """Draws faces.

    Arguments:
        resolution: side of the faces, one of `RESOLUTIONS`. 256 and 512 take three quarters of 1024's time.

    Raises:
        ModuleNotFoundError: ``random-face`` or ``openvino`` is not installed.
        ValueError: another resolution.
    """

    def __init__(self, resolution: int = 512) -> None:
        if resolution not in RESOLUTIONS:
            raise ValueError(f"the generator draws at {RESOLUTIONS} pixels, not at {resolution}")
        package_version()
        import openvino

        self.resolution = resolution
        self._openvino = openvino
        self._core = openvino.Core()
        # The package's own module does not import with a current openvino; its two networks are plain files.
        self._folder = Path(importlib.util.find_spec("random_face").submodule_search_locations[0]) / "data"
        mapping = self._core.read_model(self._folder / "MappingNetwork.xml")
        mapping.reshape({"var": [-1, WIDTH]})
        self._mapping = self._core.compile_model(mapping, "CPU", _PRECISION)
        synthesis = self._compile_synthesis()
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
        images = np.empty((len(styles), self.resolution, self.resolution, 3), dtype=np.uint8)
        styles = np.asarray(styles, dtype=np.float32)
        for start in range(0, len(styles), len(self._requests)):
            # Not strict: fewer faces than requests are left in the end.
            under_way = list(zip(self._requests, styles[start : start + len(self._requests)], strict=False))
            for request, style in under_way:
                request.start_async({0: style[None]})
            for place, (request, _) in enumerate(under_way, start):
                request.wait()
                images[place] = self._to_image(request.get_output_tensor(0).data[0])
        return images

    def _map(self, draws: np.ndarray) -> np.ndarray:
        """Styles before truncation."""
        return self._mapping({0: np.asarray(draws, dtype=np.float32)})[0]

    def _compile_synthesis(self) -> object:
        network = self._core.read_model(self._folder / "SynthesisNetwork.xml")
        if self.resolution < RESOLUTIONS[-1]:
            nodes = {node.get_friendly_name(): node for node in network.get_ordered_ops()}
            for first, last in _INVERSE_HAAR:
                self._replace_inverse_haar(nodes[first], nodes[last])
            network = self._openvino.Model([nodes[_BANDS].output(0)], network.get_parameters(), "half_size")
        return self._core.compile_model(network, "CPU", _PRECISION)

    @staticmethod
    def _replace_inverse_haar(first: object, last: object) -> None:
        """Put one transposed convolution where the graph has splits and six of them: the same, a seventh faster.

        The channels of `first` are C low bands, then for each of them its three high bands.
        """
        from openvino import opset13

        signs = np.float32([[[1, 1], [1, 1]], [[1, 1], [-1, -1]], [[1, -1], [1, -1]], [[1, -1], [-1, 1]]]) / 2
        channels = first.output(0).partial_shape[1].get_length() // 4
        kernel = np.zeros((4 * channels, channels, 2, 2), dtype=np.float32)
        for channel in range(channels):
            high = channels + 3 * channel
            kernel[[channel, high, high + 1, high + 2], channel] = signs
        weights = opset13.constant(kernel)
        joined = opset13.convolution_backprop_data(first.output(0), weights, [2, 2], None, [0, 0], [0, 0], [1, 1])
        for target in list(last.output(0).get_target_inputs()):
            target.replace_source_output(joined.output(0))

    def _to_image(self, values: np.ndarray) -> np.ndarray:
        """[3, 1024, 1024] or the Haar bands [12, 512, 512], in [-1, 1] → uint8 [resolution, resolution, 3]."""
        side = self.resolution
        if side < RESOLUTIONS[-1]:
            values = values[:3] / 2  # the low band of an orthonormal Haar transform is twice the 2×2 average
        shrink = values.shape[1] // side
        values = values.reshape(3, side, shrink, side, shrink).mean(axis=(2, 4))
        return ((values.clip(-1, 1) + 1) * 127.5).round().astype(np.uint8).transpose(1, 2, 0)
