"""Identity preservation: the cosine similarity of the face before and after, by a face recogniser (3.3).

The paper takes ArcFace's ResNet-101. Its weights cannot be shipped, so ArcFace is an ONNX file that the user names, and
the default is dlib's recogniser, which comes with a package. The two scales cannot be compared with one another: a
table names the embedder that its cosines come from.

Embeddings of faces share a large common part, by which any two are alike: a *centred* cosine is of what is left when
the mean face's is taken away. Whether two faces are one person's is decided by the threshold that the embedder's makers
give.
"""

from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from ageflow.data.align import EYES
from ageflow.flows.glow import to_uint8

Eyes = tuple[tuple[float, float], tuple[float, float]]  # their centres, left then right in the picture, of the side


class EmbedderError(ValueError):
    """An embedder that cannot be used; the message says what is missing and what to do."""


class Embedder(ABC):
    """Turns aligned faces into identities.

    Attributes:
        name: what a table calls it.
        fingerprint: of its weights.
        threshold: what `verified_pairs` compares with, in words for a table's note.
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
        return normalize(self.descriptors(images), dim=1)

    @abstractmethod
    def descriptors(self, images: Tensor) -> Tensor:
        """The same, of the length that the network gives them: what `verified_pairs` compares."""

    @abstractmethod
    def verified_pairs(self, first: Tensor, second: Tensor) -> Tensor:
        """Whether descriptors [N,d] and [M,d] are one person's by the embedder's own threshold: bool [N,M]."""


def load_embedder(embedder: str, device: str = "auto") -> Embedder:
    """The embedder by its name in the settings.

    Arguments:
        embedder: ``dlib``, or the path of an ArcFace ONNX file.
        device: where it runs.

    Raises:
        EmbedderError: it cannot be loaded.
    """
    if embedder == "dlib":
        from ageflow.evaluation.dlib_network import DlibEmbedder

        return DlibEmbedder(device)
    if Path(embedder).suffix.lower() != ".onnx":
        raise EmbedderError(f"embedder {embedder!r}: expected 'dlib' or the path of an ArcFace file that ends in .onnx")
    from ageflow.evaluation.arcface import ArcFaceEmbedder  # onnxruntime is slow to import

    return ArcFaceEmbedder(Path(embedder), device)


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
    pixels, side = to_uint8(images).permute(0, 2, 3, 1).cpu().numpy(), images.shape[-1]
    (left, right), (chip_left, chip_right) = np.array(EYES) * side, np.array(eyes)
    scale = (right - left)[0] / (chip_right - chip_left)[0]  # the chip's side, in pixels of the face
    corner = (left + right) / 2 - (chip_left + chip_right) / 2 * scale
    margin = int(np.ceil(max(0.0, *-corner, *(corner + scale - side))))
    padded = np.pad(pixels, ((0, 0), (margin, margin), (margin, margin), (0, 0)), mode="edge")
    box = tuple(float(edge) for edge in (*(corner + margin), *(corner + margin + scale)))
    cut = [np.asarray(Image.fromarray(face).resize((size, size), Image.Resampling.BICUBIC, box)) for face in padded]
    return np.array(cut, dtype=np.uint8).reshape(-1, size, size, 3)
