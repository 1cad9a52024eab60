"""Cycle error: a face to another age and back. What comes back is the face, as far as nothing was lost on the way.

There are two ways back. By the *inverse*: the latent is moved, and moved back by the move's exact inverse (ICTM run
backwards, the prototype step subtracted); AgeFlow without ICTM has none. By the *condition*: the translated face, as
it would be saved with 8 bits, is translated once more, to the group it came from, as with any other method.
"""

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ageflow.data.faces import Faces
from ageflow.data.records import AGE_GROUPS
from ageflow.evaluation.judging import attributes_of, translate
from ageflow.evaluation.parts import Parts, in_batches
from ageflow.flows.glow import to_uint8
from ageflow.translation.methods import LatentMethod

CYCLE_COLUMNS = ("inverse_error", "inverse_equal", "condition_error", "condition_equal")


@torch.inference_mode()
def cycle_errors(
    method: LatentMethod,
    name: str,
    faces: Faces,
    chosen: np.ndarray,
    batch: int = 64,
    progress: bool = True,
    parts: Parts | None = None,
) -> pd.DataFrame:
    """Translate faces into the groups that are not their own, and back both ways.

    Arguments:
        method: the method; `name` is what the rows call it.
        faces: prepared faces.
        chosen: which of them, [M] int64.
        batch: faces at a time.
        progress: draw a bar.
        parts: where what is measured is kept on the way.

    Returns:
        One row a face × target: method, face, identity, source, target; inverse_error and condition_error, the mean
        absolute difference from the face, of pixel values in [0,1]; inverse_equal and condition_equal, the share (%)
        of its 8-bit values that come back the same. Those of the inverse are NaN where the method has none.

    Raises:
        FloatingPointError: the method made a face that is not finite.
    """
    own = faces.groups[chosen]
    row, target = np.nonzero(own[:, None] != np.arange(len(AGE_GROUPS)))

    def measure(some: slice) -> pd.DataFrame:
        which, targets = chosen[row[some]], torch.from_numpy(target[some])
        images, source = faces.images(which), torch.from_numpy(faces.groups[which])
        part = {"face": faces.table["face"].to_numpy()[which], "identity": faces.identities[which]}
        part |= {"source": source.numpy(), "target": targets.numpy()}
        compared = dict.fromkeys(CYCLE_COLUMNS, np.full(len(which), np.nan))
        if method.invertible:
            device, attributes = method.device, attributes_of(faces, which)
            z = method.glow.encode(images.to(device))
            z = method.round_trip(z, targets.to(device), source.to(device), attributes)
            compared |= _compared("inverse", images, method.glow.decode(z))
        there = to_uint8(translate(method, name, faces, which, targets))
        attributes = attributes_of(faces, which)
        back = method.translate(there, source, source=targets, attributes=attributes)
        compared |= _compared("condition", images, back)
        return pd.DataFrame(part | compared)

    rows = in_batches(measure, len(row), batch, f"{name}, there and back", progress, parts)
    rows.insert(0, "method", name)
    return rows


def _compared(way: str, images: Tensor, back: Tensor) -> dict[str, np.ndarray]:
    back = back.cpu()
    finite = torch.isfinite(back).flatten(1).all(dim=1)
    if not finite.all():
        raise FloatingPointError(
            f"{int((~finite).sum())} of {len(back)} faces came back with values that are not finite by the {way}: look at "
            "the method's training curves, and train it again"
        )
    error = (back - images.float() / 255).abs().flatten(1).mean(dim=1)
    equal = (to_uint8(back) == images).flatten(1).double().mean(dim=1)
    return {f"{way}_error": error.numpy().astype(float), f"{way}_equal": 100 * equal.numpy()}
