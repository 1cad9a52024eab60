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
from ageflow.data.records import AGE_GROUPS, GENDERS, NO_GROUP
from ageflow.run import Manifest, Workspace, digest, write_atomically
from ageflow.translation.ages import as_weights
from ageflow.translation.latents import Latents, check_inputs
from ageflow.work import progress_bar

_FILE = "prototypes.safetensors"
_CHUNK = 256  # latents read at a time: 200 MB at 256×256


@dataclass(frozen=True)
class Prototypes:
    """Average latents z̄ of each age group × attribute combination α, from the training faces.

    Attributes:
        means: float32 [groups, combinations + 1, D]; the last of the second axis is the group's plain average,
            whatever the attributes.
        cells: one row a cell, in the order of `means`: group, the attributes, count, and `average_of`, over what the
            cell's average was taken: "cell", or what it fell back to as it had fewer than `min_cell` faces.
    """

    means: Tensor
    cells: pd.DataFrame

    @property
    def attributes(self) -> tuple[str, ...]:
        """The attributes' names."""
        return tuple(self.cells.columns[1:-2])

    @property
    def combinations(self) -> list[tuple[str, ...]]:
        """The attributes' values in each combination, ``[("female",), ("male",)]``."""
        of_first_group = self.cells[[*self.attributes]].iloc[: self.any]
        return list(of_first_group.itertuples(index=False, name=None))

    @property
    def any(self) -> int:
        """Index of the combination that stands for "whatever the attributes"."""
        return self.means.shape[1] - 1

    @property
    def fingerprint(self) -> str:
        """Of the averages' values."""
        return digest(self.means.cpu().numpy().tobytes())

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
        number = {combination: index for index, combination in enumerate(self.combinations)}
        values = attribute_values(attributes, self.attributes, self.combinations, count)
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
        return Prototypes(self.means.to(device), self.cells)

    def save(self, folder: Path) -> Path:
        """Write averages and counts into `folder` as one file, ``prototypes.safetensors``."""
        cells = self.cells.to_json(orient="records")
        write_atomically(folder / _FILE, save({"means": self.means.contiguous()}, {"cells": cells}))
        return folder / _FILE

    @classmethod
    def load(cls, folder: Path, **made_from: str) -> "Prototypes":
        """What `save` wrote.

        Arguments:
            folder: the run's ``prototypes``, finished.
            made_from: fingerprints of the run's `glow` and `faces`; what is not given is not compared.

        Raises:
            CheckpointError: the averages were made from others, or the file is damaged.
        """
        check_inputs(folder, **made_from)
        try:
            with safe_open(folder / _FILE, framework="pt") as file:
                return cls(file.get_tensor("means"), pd.DataFrame(json.loads(file.metadata()["cells"])))
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{folder / _FILE} cannot be read ({error}): run 03_prototypes.ipynb again") from None


def attribute_values(
    attributes: Mapping[str, Sequence] | pd.DataFrame,
    names: Sequence[str],
    combinations: Sequence[tuple[str, ...]],
    count: int,
) -> list[tuple[str | None, ...]]:
    """Each face's values of the attributes `names`, [count]; None where one is missing or of no training face.

    Arguments:
        attributes: by name, one value a face, or one string or None for all; None, NaN and "" are missing, and what
            differs from a training face's value in its letters' case only, or in spaces around it, is that value.
        names: the attributes that are needed, in the order of the combinations' values.
        combinations: those of the training faces. A value that is in none gives a warning.
        count: how many faces.

    Raises:
        ValueError: an attribute that is needed is not given, or not for each face; or a gender that is neither female
            nor male.

    Example:
        >>> attribute_values({"race": ["White", None]}, ["race"], [("black",), ("white",)], 2)
        [('white',), (None,)]
    """
    missing = [name for name in names if name not in attributes]
    if missing:
        raise ValueError(f"attributes {missing} are needed (the prototypes hold {list(names)})")
    columns = []
    for place, name in enumerate(names):
        known = sorted({combination[place] for combination in combinations})
        given = attributes[name]
        given = [given] * count if given is None or isinstance(given, str) else list(given)
        if len(given) != count:
            raise ValueError(f"attributes[{name!r}] has {len(given)} entries for {count} faces: one a face")
        given = [None if pd.isna(value) or value == "" else value for value in given]
        found = {None: None}
        for value in dict.fromkeys(given):
            if value is not None:
                found[value] = _training_value(name, value, known)
        columns.append([found[value] for value in given])
    return list(zip(*columns, strict=True))


def _training_value(name: str, value: object, known: Sequence[str]) -> str | None:
    """The training faces' value that is meant by one; None with a warning where there is none."""
    if name == "gender" and value not in GENDERS:
        raise ValueError(f"attributes[{name!r}] = {value!r}: expected {', '.join(GENDERS)}, or None if it is unknown")
    folded = {one.strip().casefold(): one for one in known}
    found = value if value in known else folded.get(str(value).strip().casefold())
    if found is None:
        warnings.warn(
            f"attributes[{name!r}] = {value!r} is of no training face (these are {', '.join(known)}): the age group's "
            "average whatever the attributes is taken",
            stacklevel=4,
        )
    return found


def compute_prototypes(settings: PrototypesSettings, latents: Latents) -> Prototypes:
    """Average the training faces' latents and keep them in the run's ``prototypes`` folder."""
    attributes = settings.attributes
    if attributes is None:
        attributes = ["gender"] if "gender" in latents.table and latents.table["gender"].notna().any() else []
    prototypes = average_latents(latents, attributes, settings.min_cell, settings.progress)
    folder = prototypes.save(Workspace.of(settings).folder("prototypes")).parent
    chosen = {"attributes": attributes, "min_cell": settings.min_cell}
    Manifest({"glow": latents.glow, "faces": latents.faces}, chosen, prototypes.fingerprint).write(folder)
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
            "these faces have no ages, so there are no age groups to average: such a set serves to pre-train GLOW and to test "
            "models of other sets"
        )
    rows = latents.rows(split="train")
    keys = ["group", *attributes]
    finest = table.iloc[rows].groupby(keys, dropna=False)  # every average, fallbacks included, is a sum of these
    sums = _sums(latents, rows, finest.ngroup().to_numpy(), finest.ngroups, progress)
    counts = finest.size().reset_index(name="count")

    def average(group: int, values: Sequence[str]) -> tuple[Tensor, int]:
        """Over the faces of a group whose first attributes have these values, and how many they are."""
        inside = (counts[keys[: 1 + len(values)]] == [group, *values]).all(axis=1).to_numpy()
        count = int(counts["count"][inside].sum())
        return sums[torch.tensor(inside)].sum(0) / max(count, 1), count

    combinations = list(itertools.product(*(sorted(table[name].iloc[rows].dropna().unique()) for name in attributes)))
    means, cells = [], []
    for group, name in enumerate(AGE_GROUPS):
        if average(group, ())[1] == 0:
            raise ParameterError(f"no training face is in the age group {name}: its average cannot be taken")
        for combination in [*(combinations if attributes else ()), ()]:
            mean, own = average(group, combination)
            kept, count = len(combination), own
            while count < min_cell and kept > 0:
                kept -= 1
                mean, count = average(group, combination[:kept])
            of = "cell" if kept == len(combination) else " × ".join(keys[: 1 + kept])
            values = combination or ("any",) * len(attributes)
            cells.append(dict(zip([*keys, "count", "average_of"], [name, *values, own, of], strict=True)))
            means.append(mean)
    prototypes = Prototypes(torch.stack(means).unflatten(0, (len(AGE_GROUPS), -1)).float(), pd.DataFrame(cells))
    _warn_of_uneven(prototypes, min_cell)
    return prototypes


def _sums(latents: Latents, rows: np.ndarray, cells: np.ndarray, count: int, progress: bool) -> Tensor:
    """The sum of each cell's latents, float64 [count, D], in one pass over the files."""
    sums = torch.zeros(count, latents.dimensions, dtype=torch.float64)
    with progress_bar(total=len(rows), title="average", unit="latent", show=progress) as bar:
        for start in range(0, len(rows), _CHUNK):
            some = slice(start, start + _CHUNK)
            sums.index_add_(0, torch.tensor(cells[some]), latents.batch(rows[some]).double())
            bar.update(len(rows[some]))
    return sums


def _warn_of_uneven(prototypes: Prototypes, min_cell: int) -> None:
    """Name the combinations whose averages are over fewer attributes in some age groups than in others."""
    uneven = []
    for number, combination in enumerate(prototypes.combinations):
        own = prototypes.cells.iloc[number :: prototypes.any + 1]
        if own["average_of"].nunique() > 1:
            coarse = own[own["average_of"] != "cell"]
            named = ", ".join(coarse["group"] + " (" + coarse["count"].astype(str) + ")")
            uneven.append(f"{' × '.join(combination)} in {named}")
    if uneven:
        warnings.warn(
            f"fewer than min_cell = {min_cell} training faces: {'; '.join(uneven)}. Averages of more faces take their "
            "place, so directions from or to these groups change the attributes as well. A smaller min_cell or fewer "
            "attributes avoid it.",
            stacklevel=4,
        )


def direction_lengths(prototypes: Prototypes) -> pd.DataFrame:
    """Lengths of the directions between neighbouring age groups, beside what chance alone would give.

    Averages of n standard normal latents of the same distribution lie √(D/n_s + D/n_t) apart by chance; a `ratio`
    near 1 says that the direction is mostly noise. Cells that fell back are left out.
    """
    groups, named, dimensions = prototypes.means.shape
    cells = prototypes.cells
    own = (cells["average_of"] == "cell").to_numpy().reshape(groups, named)
    variance = dimensions / cells["count"].clip(lower=1).to_numpy().reshape(groups, named)
    steps = cells[[*prototypes.attributes]].iloc[named:].reset_index(drop=True)
    steps["direction"] = np.repeat([" → ".join(pair) for pair in itertools.pairwise(AGE_GROUPS)], named)
    steps["length"] = prototypes.means.diff(dim=0).norm(dim=2).flatten().cpu().numpy()
    steps["by_chance"] = np.sqrt(variance[1:] + variance[:-1]).ravel()
    steps["ratio"] = steps["length"] / steps["by_chance"]
    return steps[(own[1:] & own[:-1]).ravel()]
