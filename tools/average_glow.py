"""Average two released GLOWs, and count bits per dimension with and without the cut to 5 bits.

python tools/average_glow.py second.safetensors tuned.safetensors --share 0.7 --out glow.safetensors
python tools/average_glow.py glow.safetensors --bits runs/demo/demo/faces

Weights before and after fine-tuning may be averaged (Wortsman et al., *Robust fine-tuning of zero-shot models*, CVPR 2022).
"""

import argparse
import json
import math
from pathlib import Path

import torch
from safetensors.torch import save_file

from ageflow.checkpoint import checksum, read_weights
from ageflow.data.faces import Faces
from ageflow.flows.glow import Glow, GlowConfig


def average(before: Path, after: Path, share: float, out: Path) -> None:
    """Write before + `share`·(after − before), in half precision."""
    first, second = read_weights(before, "glow"), read_weights(after, "glow")
    state = {}
    for name, value in second.state.items():
        moved = value.is_floating_point()
        state[name] = (first.state[name] + share * (value - first.state[name])).half() if moved else value
    metadata = {"part": "glow", "config": json.dumps(second.config, sort_keys=True)}
    save_file(state, out, metadata | {"checksum": checksum(state, metadata)})


@torch.inference_mode()
def bits(path: Path, folder: Path) -> tuple[float, float]:
    """Bits per dimension of a prepared set's test faces: of 8-bit values cut to 5 bits, and spread without the cut."""
    weights = read_weights(path, "glow")
    glow = Glow(GlowConfig(**weights.config)).eval()
    glow.load_state_dict(weights.state)
    images = Faces.open(folder).select(split="test").images(slice(None))
    noise = torch.rand(images.shape, generator=torch.Generator().manual_seed(0))
    parts = list(zip(images.split(16), noise.split(16), strict=True))
    cut = torch.cat([glow.bits_per_dim(some, noise=theirs) for some, theirs in parts])
    log_prob = torch.cat([glow.log_prob(some / 256 + theirs / 32 - 0.5) for some, theirs in parts])
    return float(cut.mean()), float(5 - log_prob.mean() / glow.dimensions / math.log(2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", nargs="+", type=Path, help="one released GLOW, or two to average")
    parser.add_argument("--share", type=float, default=0.7, help="of the second one")
    parser.add_argument("--out", type=Path, help="file for the average")
    parser.add_argument("--bits", type=Path, metavar="FACES", help="a prepared folder whose test faces are counted")
    given = parser.parse_args()
    if given.out is not None:
        average(*given.weights, given.share, given.out)
    if given.bits is not None:
        cut, uncut = bits(given.out or given.weights[0], given.bits)
        print(f"bits per dimension: {cut:.3f} cut to 5 bits, {uncut:.3f} without the cut")


if __name__ == "__main__":
    main()
