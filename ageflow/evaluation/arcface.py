"""ArcFace recognisers (Deng et al. 2019) from ONNX files."""

import re
import warnings
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import Tensor
from torch.nn.functional import normalize

from ageflow.device import device_of
from ageflow.evaluation.identity import Embedder, EmbedderError, Eyes, chips
from ageflow.run import digest

ARCFACE_EYES: Eyes = ((38.2946 / 112, 51.6963 / 112), (73.5318 / 112, 51.5014 / 112))  # insightface's arcface_dst
_CUDA = "CUDAExecutionProvider"


class ArcFaceEmbedder(Embedder):
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
            raise EmbedderError(f"embedder {path}: no such file; name an ArcFace ONNX file (glintr100.onnx), or 'dlib'")
        providers: list = ["CPUExecutionProvider"]
        if device != "cpu" and _CUDA in onnxruntime.get_available_providers():
            providers.insert(0, (_CUDA, {"device_id": device_of(device).index or 0}))
        try:
            self._session = onnxruntime.InferenceSession(str(path), providers=providers)
        except Exception as error:  # onnxruntime raises one class per status, none of them public
            raise EmbedderError(f"embedder {path}: not an ONNX model that onnxruntime can read: {error}") from None
        if _CUDA not in self._session.get_providers() and (
            device.startswith("cuda") or device_of(device).type != "cpu"
        ):
            why = "this onnxruntime has no CUDA provider; with onnxruntime-gpu in its place it is faster"
            warnings.warn(f"embedder {path} runs on the CPU beside a GPU: {why}", stacklevel=3)
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        shape = inputs[0].shape
        if len(inputs) != 1 or len(shape) != 4 or shape[1:] != [3, 112, 112]:
            raise EmbedderError(f"embedder {path}: its input is {shape}, and an ArcFace model's is [B, 3, 112, 112]")
        self._input, self._output = inputs[0].name, outputs[0].name
        self._batch = shape[0] if isinstance(shape[0], int) else None  # a number where the export fixed it
        self.name = f"ArcFace ({path.name})"
        self.fingerprint = digest([digest(file.read_bytes()) for file in (path, *external_files(path))])

    def descriptors(self, images: Tensor) -> Tensor:
        faces = (chips(images, ARCFACE_EYES, 112).transpose(0, 3, 1, 2).astype(np.float32) - 127.5) / 127.5
        size = self._batch or len(faces)
        filled = np.concatenate([faces, np.repeat(faces[-1:], -len(faces) % size, axis=0)])  # whole batches
        parts = np.split(filled, len(filled) // size)
        found = [self._session.run([self._output], {self._input: part})[0] for part in parts]
        return torch.from_numpy(np.concatenate(found)).float().flatten(1)[: len(faces)]

    def verified_pairs(self, first: Tensor, second: Tensor) -> Tensor:
        return normalize(first, dim=1) @ normalize(second, dim=1).T > self.cosine


def external_files(path: Path) -> list[Path]:
    """The files beside an ONNX model that hold weights of it, as exports of torch 2.14 and later have."""
    content, names = path.read_bytes(), set()
    # protobuf: an entry of the key "location" (field 1), then the file's name (field 2) after its length, a varint
    for entry in re.finditer(rb"\x0a\x08location\x12([\x80-\xff]*[\x00-\x7f])", content):
        length = sum((byte & 127) << 7 * place for place, byte in enumerate(entry[1]))
        names.add(content[entry.end() : entry.end() + length].decode(errors="replace"))
    return [file for file in (path.parent / name for name in sorted(names)) if file.is_file()]
