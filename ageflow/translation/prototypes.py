"""Average latents per age group and attributes, and the directions between them (Fig. 1, Eqs. 5 and 6)."""

import itertools
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ageflow.checkpoint import CheckpointError
from ageflow.config import ParameterError
from ageflow.config import Prototypes as PrototypesSettings
from ageflow.data.records import AGE_GROUPS, NO_GROUP
from ageflow.run import Manifest, Workspace, digest, write_atomically
from ageflow.translation.attributes import attribute_values
from ageflow.translation.latents import Latents
from ageflow.work import progress_bar

_CHUNK = 256  # latents read at a time: 200 MB at 256x256


@dataclass(frozen=True)
class Prototypes:
    """Average latents z̄ of each age group × attribute combination α, from the training faces.

    Attributes:
        means: float32 [groups, combinations + 1, D]; the last of the second axis is the group's plain average,
            whatever the attributes.
        attributes: the attributes' names, in the order of the combinations' values.
        combinations: the attribute values of each combination, ``[("female",), ("male",)]``.
        cells: one row a cell: group, the attributes, count, and `average_of`, which says what the cell's average
            was taken over: "cell", or what it fell back to as it had fewer than `min_cell` faces.
        glow: fingerprint of the GLOW whose latents these are.
        faces: fingerprint of the faces.
    """

    means: Tensor
    attributes: tuple[str, ...]
    combinations: list[tuple[str, ...]]
    cells: pd.DataFrame
    glow: str
    faces: str

    @property
    def fingerprint(self) -> str:
        """Of the averages' values."""
        return digest(self.means.cpu().numpy().tobytes())

    @property
    def any(self) -> int:
        """Index of the combination that stands for "whatever the attributes"."""
        return len(self.combinations)

    def combination_of(self, attributes: Mapping[str, Sequence] | pd.DataFrame | None, count: int) -> Tensor:
        """The combination's index of each face, int64 [count].

        A face whose attributes are missing, or make a combination the training faces do not have, gets `any`:
        its group's plain average.

        Arguments:
            attributes: see `attribute_values`; None: none is known.
            count: how many faces.

        Raises:
            ValueError: see `attribute_values`.
        """
        if not self.attributes or attributes is None:
            return torch.full((count,), self.any)
        values = attribute_values(attributes, self.attributes, self.combinations, count)
        number = {combination: index for index, combination in enumerate(self.combinations)}
        return torch.tensor([number.get(value, self.any) for value in values], dtype=torch.int64)

    def direction(self, source: Tensor, target: Tensor, combination: Tensor, check: bool = True) -> Tensor:
        """z̄_{t,α} − z̄_{s,α} of Eqs. 5 and 6, [B, D].

        Arguments:
            source: int groups [B], or weights over the groups [B, groups].
            target: the same; weights between two groups are an age between them.
            combination: indices from `combination_of`, [B].
            check: see `as_weights`.

        Where source and target are the same, the direction is exactly zero: Eq. 6 is undefined there, and its
        target is the face itself.
        """
        means = self.means
        weights = as_weights(target, len(means), check) - as_weights(source, len(means), check)
        return torch.einsum("bg,gbd->bd", weights.to(means), means[:, combination.to(means.device)])

    def to(self, device: torch.device) -> "Prototypes":
        """The same with the means on `device`."""
        return Prototypes(self.means.to(device), self.attributes, self.combinations, self.cells, self.glow, self.faces)

    def save(self, folder: Path) -> Path:
        """Write ``prototypes.safetensors`` and ``counts.csv`` into `folder`."""
        metadata = {
            "attributes": json.dumps(self.attributes),
            "combinations": json.dumps(self.combinations),
            "cells": self.cells.to_json(orient="records"),
            "glow": self.glow,
            "faces": self.faces,
        }
        write_atomically(folder / "counts.csv", self.cells.to_csv(index=False).encode())
        path = folder / "prototypes.safetensors"
        write_atomically(path, save({"means": self.means.contiguous()}, metadata))
        settings = {"attributes": list(self.attributes), "counts": self.cells["count"].tolist()}
        Manifest({"glow": self.glow, "faces": self.faces}, settings, self.fingerprint).write(folder)
        return path

    @classmethod
    def load(cls, folder: Path) -> "Prototypes":
        """What `save` wrote.

        Raises:
            CheckpointError: the file is damaged.
        """
        path = folder / "prototypes.safetensors"
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata()
                return cls(
                    means=file.get_tensor("means"),
                    attributes=tuple(json.loads(metadata["attributes"])),
                    combinations=[tuple(values) for values in json.loads(metadata["combinations"])],
                    cells=pd.DataFrame(json.loads(metadata["cells"])),
                    glow=metadata["glow"],
                    faces=metadata["faces"],
                )
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path} cannot be read ({error}): run 03_prototypes.ipynb again") from None


_OF_YEARS = "of an age in years ageflow.age_to_weights makes weights"


def as_weights(groups: Tensor, count: int, check: bool = True) -> Tensor:
    """Group weights, float [B, count]: integer groups [B] as one-hot, weights as they are.

    Arguments:
        groups: integers [B] or weights [B, count].
        count: number of groups.
        check: look at the values, for which the host waits for the device; training, whose groups come from
            checked tables, does not.

    Raises:
        ValueError: groups outside 0 … count − 1, or weights of another width or that do not sum to 1.

    Example:
        >>> as_weights(torch.tensor([1, 0]), 3).tolist()
        [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]
    """
    if groups.ndim == 1 and not groups.is_floating_point():
        if check and len(groups) and (int(groups.min()) < 0 or int(groups.max()) >= count):
            raise ValueError(f"age groups are 0 … {count - 1}, not {sorted(set(groups.tolist()))}; {_OF_YEARS}")
        return (groups[:, None] == torch.arange(count, device=groups.device)).float()
    if groups.ndim != 2 or groups.shape[1] != count:
        raise ValueError(
            f"a target is int groups [B] or weights [B, {count}], not {groups.dtype} {tuple(groups.shape)}; {_OF_YEARS}"
        )
    if check and not torch.allclose(groups.sum(1), torch.ones_like(groups[:, 0]), atol=1e-3):
        raise ValueError(f"the weights of a target must sum to 1, not {groups.sum(1).tolist()}")
    return groups


def compute_prototypes(settings: PrototypesSettings, latents: Latents) -> Prototypes:
    """Average the training faces' latents and keep them in the run's ``prototypes`` folder."""
    attributes = settings.attributes
    if attributes is None:
        attributes = ["gender"] if "gender" in latents.table and latents.table["gender"].notna().any() else []
    prototypes = average_latents(latents, attributes, settings.min_cell, settings.progress)
    prototypes.save(Workspace.of(settings).folder("prototypes"))
    return prototypes


def average_latents(latents: Latents, attributes: Sequence[str], min_cell: int, progress: bool = False) -> Prototypes:
    """Averages per age group × attribute combination over the training split; `progress` draws a bar.

    A cell with fewer than `min_cell` faces takes the average over its last attribute's values, then over the one
    before, and at last its group's; `cells` says which. Where that happens in some groups only, a direction between
    these and the others (Eqs. 5 and 6) changes those attributes too: a warning names them.

    Raises:
        ParameterError: faces without ages, an age group without any training face, or an attribute the faces do not have.
    """
    table = latents.table
    unknown = [name for name in attributes if name not in table or table[name].isna().all()]
    if unknown:
        left = [name for name in attributes if name not in unknown]
        raise ParameterError(f'the faces have no {unknown}: pass attributes without (-p attributes "{left}")')
    if (table["group"] == NO_GROUP).any():
        raise ParameterError(
            "these faces have no ages, so there are no age groups to average: such a set serves to pre-train GLOW and "
            "to test models of other sets. Name a data set with ages."
        )
    rows = latents.rows(split="train")
    training = table.iloc[rows]
    values = [sorted(training[name].dropna().unique()) for name in attributes]
    combinations = list(itertools.product(*values)) if attributes else []

    # Sums of the finest cells; every average, fallbacks included, is a sum of these.
    keys = list(
        training[["group", *attributes]]
        .astype(object)
        .where(training[[*attributes, "group"]].notna(), None)
        .itertuples(index=False, name=None)
    )
    sums, counts = _sums(latents, rows, keys, progress)

    def average(group: int, fixed: tuple[str, ...]) -> tuple[Tensor, int]:
        inside = [key for key in sums if key[0] == group and key[1 : 1 + len(fixed)] == fixed]
        count = sum(counts[key] for key in inside)
        total = sum((sums[key] for key in inside), torch.zeros(latents.array.shape[1], dtype=torch.float64))
        return total / max(count, 1), count

    means, cells = [], []
    for group, name in enumerate(AGE_GROUPS):
        group_mean, group_count = average(group, ())
        if group_count == 0:
            raise ParameterError(f"no training face is in the age group {name}: its average cannot be taken")
        row = []
        for combination in combinations:
            own = average(group, combination)[1]
            for kept in range(len(attributes), -1, -1):
                mean, count = average(group, combination[:kept])
                if count >= min_cell or kept == 0:
                    break
            of = "cell" if kept == len(attributes) else " × ".join(["group", *attributes[:kept]])
            cells.append(
                {"group": name, **dict(zip(attributes, combination, strict=True)), "count": own, "average_of": of}
            )
            row.append(mean)
        cells.append({"group": name, **dict.fromkeys(attributes, "any"), "count": group_count, "average_of": "cell"})
        means.append(torch.stack([*row, group_mean]))
    table = pd.DataFrame(cells)
    _warn_of_uneven(table, attributes, min_cell)
    return Prototypes(torch.stack(means).float(), tuple(attributes), combinations, table, latents.glow, latents.faces)


def _warn_of_uneven(cells: pd.DataFrame, attributes: Sequence[str], min_cell: int) -> None:
    """Name the combinations whose averages are over fewer attributes in some age groups than in others."""
    uneven = []
    for combination, own in cells.groupby(list(attributes), sort=False) if attributes else []:
        if own["average_of"].nunique() > 1:
            coarse = own[own["average_of"] != "cell"]
            groups = ", ".join(
                f"{group} ({count})" for group, count in zip(coarse["group"], coarse["count"], strict=True)
            )
            uneven.append(f"{' × '.join(combination)} in {groups}")
    if uneven:
        warnings.warn(
            f"fewer than min_cell = {min_cell} training faces: {'; '.join(uneven)}. Averages of more faces take their "
            "place, so directions from or to these groups change the attributes as well. A smaller min_cell or fewer "
            "attributes avoid it.",
            stacklevel=3,
        )


def _sums(
    latents: Latents, rows: np.ndarray, keys: list[tuple], progress: bool
) -> tuple[dict[tuple, Tensor], dict[tuple, int]]:
    """Sum (float64) and number of the latents of each key, in one pass over the file."""
    sums: dict[tuple, Tensor] = {}
    counts: dict[tuple, int] = {}
    with progress_bar(total=len(rows), title="average", unit="latent", show=progress) as bar:
        for start in range(0, len(rows), _CHUNK):
            batch = latents.batch(rows[start : start + _CHUNK]).double()
            for key, latent in zip(keys[start : start + _CHUNK], batch, strict=True):
                counts[key] = counts.get(key, 0) + 1
                if key in sums:
                    sums[key] += latent
                else:
                    sums[key] = latent.clone()
            bar.update(len(batch))
    return sums, counts


def direction_lengths(prototypes: Prototypes) -> pd.DataFrame:
    """Lengths of the directions between neighbouring age groups, beside what chance alone would give.

    Averages of n standard normal latents of the same distribution lie √(D/n_s + D/n_t) apart by chance; a `ratio`
    near 1 says that the direction is mostly noise. Cells that fell back are left out.
    """
    rows = []
    cells = prototypes.cells
    named = [*prototypes.combinations, ("any",) * len(prototypes.attributes)]
    for number, combination in enumerate(named):
        matches = (cells[list(prototypes.attributes)] == list(combination)).all(axis=1)
        own = cells[matches].set_index("group")
        for source, target in itertools.pairwise(range(len(AGE_GROUPS))):
            pair = own.loc[[AGE_GROUPS[source], AGE_GROUPS[target]]]
            if (pair["average_of"] != "cell").any():
                continue
            length = float((prototypes.means[target, number] - prototypes.means[source, number]).norm())
            chance = float(np.sqrt((prototypes.means.shape[2] / pair["count"]).sum()))
            about = dict(zip(prototypes.attributes, combination, strict=True))
            step = f"{AGE_GROUPS[source]} → {AGE_GROUPS[target]}"
            rows.append({**about, "direction": step, "length": length, "by_chance": chance, "ratio": length / chance})
    return pd.DataFrame(rows)
