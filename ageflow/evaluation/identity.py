"""Identity preservation: the cosine similarity of the face before and after, in a face recogniser's eyes (3.3).

The paper takes ArcFace's ResNet-101. Its weights cannot be shipped, so ArcFace is an ONNX file the user names,
and the default is dlib's recogniser, which comes with a package. The two scales cannot be compared with one
another: a table names the embedder its cosines come from.

Embeddings of faces share a large common part, by which any two are alike: a *centred* cosine is of what is left when
the mean face's is taken away. And whether two faces are one person's to the embedder's eyes is told by the threshold
that its makers give.
"""

import hashlib
import importlib.util
import warnings
from pathlib import Path
from typing import Protocol

import numpy as np
import onnxruntime
import pandas as pd
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from ageflow.device import device_of
from ageflow.evaluation.dlib_network import DlibResNet
from ageflow.flows.glow import to_uint8

Eyes = tuple[tuple[float, float], tuple[float, float]]

# Where the eyes' centres lie, left then right in the picture, as shares of the side.
TEMPLATE_EYES: Eyes = ((0.36, 0.465), (0.64, 0.465))  # the kit's aligned faces
DLIB_EYES: Eyes = ((0.31822, 0.31427), (0.66855, 0.31416))  # dlib.get_face_chip, size 150, padding 0.25
ARCFACE_EYES: Eyes = ((38.2946 / 112, 51.6963 / 112), (73.5318 / 112, 51.5014 / 112))  # insightface's arcface_dst


class EmbedderError(ValueError):
    """An embedder that cannot be used; the message says what is missing and what to do."""


class Embedder(Protocol):
    """Turns aligned faces into identities.

    Attributes:
        name: what a table calls it.
        fingerprint: sha256 of its weights, hexadecimal.
        threshold: what `verified` holds against, in words for a table's note.
    """

    name: str
    fingerprint: str
    threshold: str

    def __call__(self, images: Tensor) -> Tensor:
        """Embed faces.

        Arguments:
            images: [B,3,S,S], uint8 or float in [0,1], aligned to the kit's template.

        Returns:
            [B,d] float32 on the CPU, each of unit length.
        """
        ...

    def descriptors(self, images: Tensor) -> Tensor:
        """The same, of the length that the network gives them: what `verified` compares."""
        ...

    def verified(self, first: Tensor, second: Tensor) -> Tensor:
        """Whether descriptors [...,d] and [...,d] are one person's by the embedder's own threshold: bool [...]."""
        ...

    def verified_pairs(self, first: Tensor, second: Tensor) -> Tensor:
        """`verified` of each of descriptors [N,d] with each of [M,d]: bool [N,M], by one matrix product."""
        ...


def chips(images: Tensor, eyes: Eyes, size: int) -> np.ndarray:
    """Cut another template's crop out of faces aligned to the kit's, the same for every face.

    Eye centres and their distance map onto one another exactly; both templates are taken as level (ArcFace's is
    by 0.1 pixel of 112). What lies outside the picture repeats its edge: dlib's chip reaches 1.3 % below it.

    Arguments:
        images: [B,3,S,S], uint8 or float in [0,1].
        eyes: the other template's eye centres, shares of its side.
        size: side of the chip, pixels.

    Returns:
        [B,size,size,3] uint8, bicubic and antialiased.
    """
    if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] != images.shape[3]:
        raise ValueError(f"images of shape {tuple(images.shape)}: expected square colour faces [B,3,S,S]")
    pixels = (images if images.dtype == torch.uint8 else to_uint8(images)).permute(0, 2, 3, 1).cpu().numpy()
    side = images.shape[-1]
    left, right = np.array(TEMPLATE_EYES) * side
    chip_left, chip_right = np.array(eyes)
    scale = (right - left)[0] / (chip_right - chip_left)[0]  # the chip's side, in pixels of the face
    corner = (left + right) / 2 - (chip_left + chip_right) / 2 * scale
    margin = int(np.ceil(max(0.0, *-corner, *(corner + scale - side))))
    padded = np.pad(pixels, ((0, 0), (margin, margin), (margin, margin), (0, 0)), mode="edge")
    x, y = (corner + margin).tolist()
    box = (x, y, x + float(scale), y + float(scale))
    return (
        np.stack([_resize(face, size, box) for face in padded]) if len(padded) else np.zeros((0, size, size, 3), "u1")
    )


def _resize(face: np.ndarray, size: int, box: tuple[float, float, float, float]) -> np.ndarray:
    return np.asarray(Image.fromarray(face).resize((size, size), Image.Resampling.BICUBIC, box=box))


class DlibEmbedder:
    """dlib's 128-d face recogniser, with the weights of the package `face-recognition-models`: works offline.

    Its descriptors share a large common part, so cosines crowd near 1 and two people are far from 0. Between the 1,200
    demo faces at 64×64: two faces of one person 0.96 on average (90 % of them from 0.91 to 0.99; 0.98 within an age
    group, 0.93 between the youngest and the oldest), two people 0.87 (0.81 to 0.93); a cosine tells the two kinds of
    pair apart with an area under the curve of 0.97. Table 1 shows both means on the run's own test faces.

    Arguments:
        device: where it runs.

    Raises:
        EmbedderError: the package with its weights is not installed.
    """

    name = "dlib"
    # of dlib's own example (dnn_face_recognition_ex), which states 99.38 % right answers with it on LFW
    distance = 0.6
    threshold = f"Euclidean distance below {distance}"

    def __init__(self, device: str = "auto") -> None:
        path = _dlib_weights()
        self.fingerprint = _sha256(path)
        self._device = device_of(device)
        self._network = DlibResNet(path).to(self._device)

    def __call__(self, images: Tensor) -> Tensor:
        return normalize(self.descriptors(images), dim=1)

    @torch.inference_mode()
    def descriptors(self, images: Tensor) -> Tensor:
        faces = torch.from_numpy(chips(images, DLIB_EYES, 150)).to(self._device)
        return self._network(faces).cpu()

    def verified(self, first: Tensor, second: Tensor) -> Tensor:
        return (first - second).norm(dim=-1) < self.distance

    def verified_pairs(self, first: Tensor, second: Tensor) -> Tensor:
        return torch.cdist(first, second) < self.distance


class ArcFaceEmbedder:
    """An ArcFace recogniser in an ONNX file the user names (insightface's ``w600k_r50.onnx``, ``glintr100.onnx``).

    Takes RGB faces of 112×112 in ArcFace's own template, (x − 127.5)/127.5. Different people lie near 0. Two faces
    count as one person's above a cosine of 0.45, the threshold that deepface documents for insightface's w600k_r50
    (its ``Buffalo_L``: cosine distance 0.55); insightface gives none.

    Arguments:
        path: the ONNX file; its one input is [B,3,112,112], its one output [B,d].
        device: ``cuda`` runs on the GPU where onnxruntime has its CUDA provider; ``auto`` takes it if it is there.

    Raises:
        EmbedderError: the file is missing, is no ONNX model, or its input is not 112×112.
    """

    cosine = 0.45
    threshold = f"cosine above {cosine}"

    def __init__(self, path: Path, device: str = "auto") -> None:
        path = Path(path).expanduser()
        if not path.is_file():
            raise EmbedderError(
                f"embedder {path}: no such file. Name an ArcFace ONNX file (insightface's glintr100.onnx), or 'dlib'"
            )
        providers = ["CPUExecutionProvider"]
        if device != "cpu" and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
            providers.insert(0, ("CUDAExecutionProvider", {"device_id": device_of(device).index or 0}))
        try:
            self._session = onnxruntime.InferenceSession(str(path), providers=providers)
            wanted = device.startswith("cuda") or device_of(device).type == "cuda"
            if wanted and "CUDAExecutionProvider" not in self._session.get_providers():
                warnings.warn(
                    f"embedder {path} runs on the CPU beside a GPU: this onnxruntime has no CUDA provider. "
                    "Install onnxruntime-gpu in its place, or go on: only the time differs",
                    stacklevel=3,
                )
        except Exception as error:  # onnxruntime raises one class per status, none of them public
            raise EmbedderError(f"embedder {path}: not an ONNX model that onnxruntime can read: {error}") from None
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        shape = inputs[0].shape
        if len(inputs) != 1 or len(shape) != 4 or shape[1:] != [3, 112, 112]:
            raise EmbedderError(
                f"embedder {path}: its input is {shape}; an ArcFace model takes one of [B, 3, 112, 112]"
            )
        self._input, self._output = inputs[0].name, outputs[0].name
        self._batch = shape[0] if isinstance(shape[0], int) else None  # a number where the export fixed it
        self.name = f"ArcFace ({path.name})"
        self.fingerprint = _sha256(path)

    def __call__(self, images: Tensor) -> Tensor:
        return normalize(self.descriptors(images), dim=1)

    def descriptors(self, images: Tensor) -> Tensor:
        faces = chips(images, ARCFACE_EYES, 112).transpose(0, 3, 1, 2).astype(np.float32)
        faces = (faces - 127.5) / 127.5
        step = self._batch or max(len(faces), 1)
        parts = [self._run(faces[start : start + step], step) for start in range(0, len(faces), step)]
        if not parts:
            return torch.zeros(0, 0)
        return torch.from_numpy(np.concatenate(parts))

    def verified(self, first: Tensor, second: Tensor) -> Tensor:
        return torch.cosine_similarity(first, second, dim=-1) > self.cosine

    def verified_pairs(self, first: Tensor, second: Tensor) -> Tensor:
        return normalize(first, dim=1) @ normalize(second, dim=1).T > self.cosine

    def _run(self, faces: np.ndarray, step: int) -> np.ndarray:
        count = len(faces)
        if self._batch and count < step:  # an export of a fixed batch wants all its rows
            faces = np.concatenate([faces, np.repeat(faces[-1:], step - count, axis=0)])
        (embedding,) = self._session.run([self._output], {self._input: faces})
        return np.asarray(embedding, dtype=np.float32).reshape(len(faces), -1)[:count]


def load_embedder(embedder: str, device: str = "auto") -> Embedder:
    """The embedder by its name in the settings.

    Arguments:
        embedder: ``dlib``, or the path of an ArcFace ONNX file.
        device: where it runs.

    Raises:
        EmbedderError: it cannot be loaded.
    """
    if embedder == "dlib":
        return DlibEmbedder(device)
    if Path(embedder).suffix.lower() != ".onnx":
        raise EmbedderError(f"embedder {embedder!r}: expected 'dlib' or the path of an ArcFace file that ends in .onnx")
    return ArcFaceEmbedder(Path(embedder), device)


def cosine(first: Tensor, second: Tensor) -> Tensor:
    """Cosine similarity of embeddings of unit length, row by row: [B,d], [B,d] → [B]."""
    return (first * second).sum(dim=1)


def identity_scores(judged: pd.DataFrame, column: str = "cosine") -> pd.DataFrame:
    """A column about input and output, one row a translated face: columns identity, group (the target), value.

    Arguments:
        judged: rows of `ageflow.evaluation.judging`.
        column: ``cosine``, ``cosine_centred``, or ``verified`` (in %).
    """
    values = 100.0 * judged[column] if column.startswith("verified") else judged[column]
    return pd.DataFrame({"identity": judged["identity"], "group": judged["target"], "value": values})


def _dlib_weights() -> Path:
    # Found by path: importing the package asks for pkg_resources, which setuptools has dropped.
    spec = importlib.util.find_spec("face_recognition_models")
    folders = list(spec.submodule_search_locations or []) if spec else []
    for folder in folders:
        path = Path(folder, "models", "dlib_face_recognition_resnet_model_v1.dat")
        if path.is_file():
            return path
    raise EmbedderError("embedder 'dlib' needs its weights: pip install face-recognition-models")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
