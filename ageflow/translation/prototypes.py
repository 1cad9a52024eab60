"""Latents of a set of faces, encoded once; their averages per age group and attributes, and the directions between these
(Fig. 1, Eqs. 5 and 6). The latents lie in files ``latents-00000.npy``, … of some faces each.
"""

import contextlib
import functools
import itertools
import json
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ageflow.checkpoint import CheckpointError, fingerprint
from ageflow.config import ParameterError
from ageflow.config import Prototypes as PrototypesSettings
from ageflow.data.faces import Faces
from ageflow.data.records import GENDERS, PAPER_GROUPS, AgeGroups
from ageflow.device import device_of, devices_of, fast_precision, keep_freed_memory
from ageflow.flows.glow import Glow, load_glow
from ageflow.run import MANIFEST, Manifest, Workspace, atomic_file, digest, remove_leftovers, sole_writer
from ageflow.translation.ages import as_weights
from ageflow.work import progress_bar, resumable_map

_NAME, _SHARD = "latents-{:05d}.npy", 512  # faces: 200 MB at 256×256
_LARGEST_HALF = 6e4  # float16 holds no more; its eleven bits are enough for what T learns from
_CHUNK = 256  # latents read at a time: 200 MB at 256×256


# -- latents ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Latents:
    """The latents of prepared faces, D numbers each.

    Attributes:
        table: the faces, one row each, as `Faces.table`.
        shards: float16 [n, D] each, or float32 where that is too small, memory-mapped, in the table's order; all but the
            last of the same length.
        glow: fingerprint of the GLOW that encoded them.
        faces: that of the faces.
        age_groups: the faces'.
        encode: rows to latents, where they were not kept; then there are no shards.
    """

    table: pd.DataFrame
    shards: Sequence[np.ndarray]
    glow: str
    faces: str
    age_groups: AgeGroups = PAPER_GROUPS
    encode: Callable[[np.ndarray], Tensor] | None = None

    @classmethod
    def open(cls, folder: Path, faces: Faces, glow: str | None = None, device: str = "auto") -> "Latents":
        """The latents that `encode_faces` left in `folder`, of these `faces`.

        Arguments:
            folder: the run's ``latents``, finished.
            faces: the run's.
            glow: fingerprint of the run's GLOW; None: not compared.
            device: where they are encoded each time, if they were not kept.

        Raises:
            CheckpointError: they are of other faces or of another GLOW, or damaged.
        """
        inputs = check_inputs(folder, faces=faces.fingerprint, glow=glow)
        if not Manifest.read(folder).settings["keep"]:
            on = device_of(device)
            encoder = load_glow(folder.parent / "glow", device, fast_precision(on))
            encode = functools.partial(_latents_of, faces, encoder, on)
            return cls(faces.table, [], **inputs, age_groups=faces.age_groups, encode=encode)
        shards = [_read(*shard) for shard in _files(folder, faces).items()]
        return cls(faces.table, shards, **inputs, age_groups=faces.age_groups)

    def __len__(self) -> int:
        return len(self.table)

    @property
    def dimensions(self) -> int:
        """D."""
        return (self.shards or [self.batch([0])])[0].shape[1]

    def batch(self, index: Sequence[int] | np.ndarray | slice | Tensor) -> Tensor:
        """Rows of the latents, float32 [B, D], on the CPU, in the order asked for."""
        rows = np.arange(len(self))[index.numpy() if isinstance(index, Tensor) else index]
        if self.encode is not None:
            return self.encode(rows)
        shards, positions = np.divmod(rows, len(self.shards[0]))
        batch = np.empty((len(rows), self.dimensions), dtype=np.float32)
        for shard in np.unique(shards):
            batch[shards == shard] = self.shards[shard][positions[shards == shard]]
        return torch.from_numpy(batch)

    def rows(self, **conditions: object) -> np.ndarray:
        """Positions of the faces whose columns have these values: ``rows(split="train")``."""
        return np.flatnonzero(self.table[[*conditions]].eq(pd.Series(conditions)).all(axis=1))


def check_inputs(folder: Path, **expected: str | None) -> dict[str, str]:
    """Fingerprints of what notebook 03's `folder`, which is finished, was made from.

    Raises:
        CheckpointError: it was made from others than `expected`, by name; None: not compared.
    """
    inputs = Manifest.read(folder).inputs
    other = [name for name, value in expected.items() if value not in (None, inputs[name])]
    if other:
        raise CheckpointError(f"{folder} was made from other {' and '.join(other)}: run 03_prototypes.ipynb again")
    return inputs


def _files(folder: Path, faces: Faces) -> dict[Path, int]:
    """The files of the shards, and how many faces each has."""
    starts = range(0, len(faces), _SHARD)
    return {folder / _NAME.format(start // _SHARD): min(_SHARD, len(faces) - start) for start in starts}


def _read(file: Path, count: int) -> np.ndarray:
    with contextlib.suppress(OSError, ValueError, EOFError):
        array = np.load(file, mmap_mode="r")
        if array.ndim == 2 and len(array) == count:
            return array
    raise CheckpointError(f"{file} is damaged: run 03_prototypes.ipynb again, which encodes anew")


def encode_faces(settings: PrototypesSettings) -> Latents:
    """Encode all of the run's faces with its GLOW, once; stopped, it continues with what is missing.

    With ``keep = False`` no latents are written: whatever needs some encodes them, each time.

    In this process, or where there are several GPUs in one process each, or on a dask cluster's workers, which see the
    same folders: a script that starts processes needs ``if __name__ == "__main__":``, a notebook does not.

    Raises:
        MissingArtefactError: no faces, or no trained GLOW.
        FolderInUseError: another process encodes them.
        ParameterError: no dask scheduler answers.
        WorkersLostError: workers died again and again; what they finished stays.
    """
    workspace = Workspace.of(settings)
    faces, glow = Faces.open(workspace.require("faces")), workspace.require("glow")
    folder = workspace.folder("latents")
    inputs = {"glow": fingerprint(glow), "faces": faces.fingerprint}
    manifest = Manifest.read(folder)
    kept = {"keep": settings.keep}
    if manifest is not None and manifest.inputs == inputs and manifest.settings == kept:
        with contextlib.suppress(CheckpointError):  # damaged: encoded anew
            return Latents.open(folder, faces, device=settings.device)
    with sole_writer(folder):
        (folder / MANIFEST).unlink(missing_ok=True)
        remove_leftovers(folder, r"latents-\d+\.npy")
        files = _files(folder, faces) if settings.keep else {}
        for file in set(folder.glob("latents-*.npy")) - set(files):
            file.unlink()  # of more faces, or no longer wanted
        # A cluster's workers have devices of their own, which this machine may lack.
        workers = settings.workers or (1 if settings.scheduler else len(devices_of(settings.device)))
        where = {"workers": workers, "scheduler": settings.scheduler}
        keys = [digest([inputs, _SHARD, shard, count]) for shard, count in enumerate(files.values())]
        bar = {"sizes": [*files.values()], "title": "encode", "unit": "face", "show": settings.progress}
        anywhere = settings.model_copy(update={"runs_root": settings.runs_root.resolve()})
        encode = functools.partial(_encode, settings=anywhere, of_glow=inputs["glow"], length=_SHARD)
        try:
            resumable_map(encode, range(len(files)), folder / "pieces", keys, **where, **bar)
        finally:
            _opened.cache_clear()  # the GLOW's memory is wanted for what comes next
        shutil.rmtree(folder / "pieces", ignore_errors=not files)
        Manifest(inputs, kept, digest(inputs)).write(folder)
    return Latents.open(folder, faces, device=settings.device)


_turn: dict[str, int] = {}  # the shard that this process began with


def _encode(shard: int, settings: PrototypesSettings, of_glow: str, length: int) -> dict[str, Any]:
    """Encode the faces of a shard of `length`, some at a time, and write it, in this process or another.

    Where the device names no one of several GPUs, each process takes the next and stays with it, as it holds the GLOW.
    """
    devices, workspace = devices_of(settings.device), Workspace.of(settings)
    own = devices[_turn.setdefault(settings.device, shard) % len(devices)]
    faces, glow = _opened(workspace, of_glow, own)
    rows = np.arange(shard * length, min((shard + 1) * length, len(faces)))
    latents = _latents_of(faces, glow, own, rows, settings.encode_batch)
    halves = latents.abs().max() < _LARGEST_HALF
    with atomic_file(workspace.path("latents", _NAME.format(shard))) as file:
        np.save(file, (latents.half() if halves else latents).numpy())
    return {}


@torch.inference_mode()
def _latents_of(faces: Faces, glow: Glow, device: torch.device, rows: np.ndarray, at_a_time: int = 64) -> Tensor:
    """Faces encoded, float32 [B, D] on the CPU."""
    parts = np.split(rows, range(at_a_time, len(rows), at_a_time))
    return torch.cat([glow.encode(faces.images(part).to(device)).cpu() for part in parts])


@functools.lru_cache(maxsize=1)  # one set's shards after another
def _opened(workspace: Workspace, of_glow: str, device: torch.device) -> tuple[Faces, Glow]:
    if device.type == "cpu":
        keep_freed_memory()
    return Faces.open(workspace.path("faces")), load_glow(workspace.path("glow"), str(device), fast_precision(device))


# -- averages --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Prototypes:
    """Average latents z̄ of each age group × attribute combination α, from the training faces.

    Attributes:
        means: float32 [groups, combinations + 1, D]; the last of the second axis is the group's plain average,
            whatever the attributes.
        cells: one row a cell, in the order of `means`: group, the attributes, count, and `average_of`, over what the
            cell's average was taken: "cell", or what it fell back to as it had fewer than `min_cell` faces.
        spread: mean squared distance of a training face's latent from the average of its group and attributes.
    """

    means: Tensor
    cells: pd.DataFrame
    spread: float

    @property
    def age_groups(self) -> AgeGroups:
        """The age groups."""
        return AgeGroups.of_labels(self.cells["group"].unique())

    @property
    def attributes(self) -> tuple[str, ...]:
        """The attributes' names."""
        return tuple(self.cells.columns[1:-2])

    @property
    def combinations(self) -> list[tuple[str, ...]]:
        """The attributes' values in each combination, ``[("female",), ("male",)]``."""
        return list(self.cells[[*self.attributes]][: self.any].itertuples(index=False, name=None))

    @functools.cached_property
    def smoothed(self) -> Tensor:
        """The averages of groups × combinations less what is chance in them (ours), [groups · K, D].

        An average of n latents lies √(`spread` / n) from the true one: with some hundred faces, most of the distance
        between two neighbouring groups is that. So a line is fitted to each combination's averages, weighted by their
        counts: c_α + b · age, one slope b for all and the groups' centres as ages. Of what is left of the averages, r,
        the share 1 − E / Σ n |r|² counts (James & Stein), where chance makes E = `spread` for each degree of freedom:
        none of it with few faces, nearly all with many.
        """
        combinations = self.any or 1
        means = self.means[:, :combinations].flatten(0, 1).double()
        count = self.cells["count"].to_numpy().reshape(-1, self.means.shape[1])[:, :combinations].ravel()
        weights = means.new_tensor(count).clamp_min(1).sqrt()[:, None]
        ages = means.new_tensor(self.age_groups.centres).repeat_interleave(combinations)[:, None]
        terms = torch.cat([ages, torch.eye(combinations).to(means).repeat(len(self.means), 1)], dim=1)
        line = terms @ torch.linalg.lstsq(weights * terms, weights * means).solution
        free = len(terms) - combinations - 1
        left = float((weights * (means - line)).square().sum())
        share = max(0.0, 1 - free * self.spread / left) if free > 0 and left else 1.0
        return (line + share * (means - line)).float()

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
            attributes: by name, one value a face, or one string or None for all; None: none is known. None, NaN and ""
                are missing, and what differs from a training face's value in its letters' case only, or in spaces
                around it, is that value. A value of no training face gives a warning.
            count: how many faces.

        Raises:
            ValueError: an attribute that is needed is not given, or not for each face; or a gender that is neither
                female nor male.
        """
        if not self.attributes or attributes is None:
            return torch.full((count,), self.any)
        if missing := [name for name in self.attributes if name not in attributes]:
            raise ValueError(f"attributes {missing} are needed (the prototypes hold {list(self.attributes)})")
        values = [self._values(name, attributes[name], count) for name in self.attributes]
        numbers = pd.MultiIndex.from_tuples(self.combinations).get_indexer(pd.MultiIndex.from_arrays(values))
        return torch.tensor(np.where(numbers < 0, self.any, numbers))

    def _values(self, name: str, given: Sequence | str | None, count: int) -> pd.Series:
        """The training faces' value that is meant by each of those `given`; None where there is none."""
        known = sorted({combination[self.attributes.index(name)] for combination in self.combinations})
        given = pd.Series([given] * count if given is None or isinstance(given, str) else list(given), dtype=object)
        if len(given) != count:
            raise ValueError(f"attributes[{name!r}] has {len(given)} entries for {count} faces: one a face")
        given = given.where(given.notna() & (given != ""), None)
        meant = given.astype(str).str.strip().str.casefold().map({one.strip().casefold(): one for one in known})
        strange = given[given.notna() & meant.isna()].unique()
        if name == "gender" and not {*strange} <= {*GENDERS}:
            raise ValueError(f"attributes['gender'] = {strange[0]!r}: expected {', '.join(GENDERS)}, or None")
        if len(strange):
            warnings.warn(f"{name} {[*strange]} is of no training face: taken as unknown", stacklevel=3)
        return meant

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
        moved = Prototypes(self.means.to(device), self.cells, self.spread)
        vars(moved)["smoothed"] = self.smoothed.to(device)  # fitted on the CPU: a GPU would be waited for
        return moved

    def save(self, folder: Path) -> None:
        """Write averages and counts into `folder` as one file, ``prototypes.safetensors``."""
        cells = self.cells.to_json(orient="records")
        with atomic_file(folder / "prototypes.safetensors") as file:
            file.write(save({"means": self.means.contiguous(), "spread": torch.tensor(self.spread)}, {"cells": cells}))

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
        path = folder / "prototypes.safetensors"
        try:
            with safe_open(path, framework="pt") as file:
                cells = pd.DataFrame(json.loads(file.metadata()["cells"]))
                return cls(file.get_tensor("means"), cells, float(file.get_tensor("spread")))
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path} cannot be read ({error}): run 03_prototypes.ipynb again") from None


def compute_prototypes(settings: PrototypesSettings, latents: Latents) -> Prototypes:
    """Average the training faces' latents and keep them in the run's ``prototypes`` folder."""
    default = ["gender"] if "gender" in latents.table and latents.table["gender"].notna().any() else []
    attributes = default if settings.attributes is None else settings.attributes
    prototypes = average_latents(latents, attributes, settings.min_cell, settings.progress)
    folder = Workspace.of(settings).folder("prototypes")
    prototypes.save(folder)
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
    table, labels = latents.table, latents.age_groups.labels
    unknown = [name for name in attributes if name not in table or table[name].isna().all()]
    if unknown:
        raise ParameterError(f"attributes = {attributes}: the faces have no {', '.join(unknown)}; leave that out")
    rows = latents.rows(split="train")
    absent = [name for group, name in enumerate(labels) if not (table["group"].iloc[rows] == group).any()]
    if absent:
        what = f"no training face is in the age groups {', '.join(absent)}: there is nothing to average"
        raise ParameterError(f"{what}. Prepare the faces with other groups, or of more pictures (01, as another run)")
    keys = ["group", *attributes]
    finest = table.iloc[rows].groupby(keys, dropna=False)  # every average, fallbacks included, is a sum of these
    sums, squares = _sums(latents, rows, finest.ngroup().to_numpy(), finest.ngroups, progress)
    counts = finest.size().reset_index(name="count")
    combinations = list(itertools.product(*(sorted(table[name].iloc[rows].dropna().unique()) for name in attributes)))
    means, cells = [], []
    for group, combination in itertools.product(range(len(labels)), [*(combinations if attributes else ()), ()]):
        # Which of the finest cells it is of, by its first attributes; and so with one attribute less, and less again.
        inside = [
            (counts[keys[: 1 + kept]] == [group, *combination[:kept]]).all(axis=1).to_numpy()
            for kept in range(len(combination) + 1)
        ]
        faces = [int(counts["count"][some].sum()) for some in inside]
        kept = max(kept for kept, count in enumerate(faces) if count >= min_cell or kept == 0)
        means.append(sums[torch.tensor(inside[kept])].sum(0) / faces[kept])
        average_of = "cell" if kept == len(combination) else " × ".join(keys[: 1 + kept])
        cells.append((labels[group], *(combination or ("any",) * len(attributes)), faces[-1], average_of))
    cells = pd.DataFrame(cells, columns=[*keys, "count", "average_of"])
    if attributes and (uneven := cells.groupby([*attributes])["average_of"].nunique() > 1).any():
        named = f"fewer than min_cell = {min_cell} training faces in some groups of {[*uneven.index[uneven]]}"
        warnings.warn(f"{named}: directions between these and others change the attributes as well", stacklevel=3)
    between = float((sums.square().sum(1) / torch.tensor(counts["count"].to_numpy())).sum())
    spread = (squares - between) / max(1, len(rows) - len(counts))
    return Prototypes(torch.stack(means).unflatten(0, (len(labels), -1)).float(), cells, spread)


def _sums(latents: Latents, rows: np.ndarray, cells: np.ndarray, count: int, progress: bool) -> tuple[Tensor, float]:
    """The sum of each cell's latents, float64 [count, D], and of all their squares, in one pass over the files."""
    sums, squares = torch.zeros(count, latents.dimensions, dtype=torch.float64), 0.0
    with progress_bar(total=len(rows), title="average", unit="latent", show=progress) as bar:
        for start in range(0, len(rows), _CHUNK):
            some = slice(start, start + _CHUNK)
            batch = latents.batch(rows[some]).double()
            sums.index_add_(0, torch.tensor(cells[some]), batch)
            squares += float(batch.square().sum())
            bar.update(len(rows[some]))
    return sums, squares


def direction_lengths(prototypes: Prototypes) -> pd.DataFrame:
    """Lengths of the directions between neighbouring age groups, beside what chance alone would give.

    Averages of n latents of the same distribution lie √(σ²/n_s + σ²/n_t) apart by chance, with their `spread` σ²; a
    `ratio` near 1 says that the direction is mostly noise. Cells that fell back are left out.
    """
    groups, named, _ = prototypes.means.shape
    cells = prototypes.cells
    own = (cells["average_of"] == "cell").to_numpy().reshape(groups, named)
    variance = prototypes.spread / cells["count"].clip(lower=1).to_numpy().reshape(groups, named)
    steps = cells[[*prototypes.attributes]].iloc[named:].reset_index(drop=True)
    pairs = itertools.pairwise(prototypes.age_groups.labels)
    steps["direction"] = np.repeat([" → ".join(pair) for pair in pairs], named)
    steps["length"] = prototypes.means.diff(dim=0).norm(dim=2).flatten().cpu().numpy()
    steps["by_chance"] = np.sqrt(variance[1:] + variance[:-1]).ravel()
    steps["ratio"] = steps["length"] / steps["by_chance"]
    return steps[(own[1:] & own[:-1]).ravel()]
