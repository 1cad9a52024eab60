"""Prepared faces, read back: a table of labels over memory-mapped shards."""

import warnings
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ageflow.config import ParameterError
from ageflow.data.people import identity_key
from ageflow.data.records import NO_GROUP, AgeGroups
from ageflow.run import Manifest, digest, reading

TABLE_FILE = "faces.parquet"


def shard_file(folder: Path, shard: int) -> Path:
    """The file of a shard: uint8 [rows, S, S, 3]."""
    return folder / f"shard-{shard:05d}.npy"


class Faces:
    """A set of prepared faces, or a selection of one.

    Arguments:
        folder: what `prepare` made: ``faces.parquet`` and the shards.
        table: the rows of this view; columns face, shard, row (in the shard), file, identity, age, group, gender, race,
            split, landmarks, found (faces in the picture), checksum, source. Its index counts from 0.

    Example: two training faces of the oldest group, uint8 [2, 3, S, S]::

        Faces.open("runs/demo/demo/faces").select(split="train", group=3).images([0, 1])
    """

    def __init__(self, folder: Path, table: pd.DataFrame) -> None:
        self.folder = Path(folder)
        self.table = table.reset_index(drop=True)
        self._shards: dict[int, np.ndarray] = {}

    @classmethod
    def open(cls, folder: Path | str) -> "Faces":
        """Read the table of a prepared folder; the pixels stay on disk.

        Raises:
            MissingArtefactError: the folder holds no finished set, or one of its files is damaged.
        """
        with reading(file := Path(folder) / TABLE_FILE, "faces"):
            faces = cls(Path(folder), pd.read_parquet(file))
        for shard in faces.table["shard"].unique():  # a missing one would stop a later step half-way
            faces._shard(int(shard))
        return faces

    @classmethod
    def find(cls, name: str, runs_root: Path) -> "Faces | None":
        """The prepared faces of another run, by ``dataset/run`` or its folder's path; None where `name` is no run's."""
        folders = (runs_root / name, Path(name).expanduser().resolve())
        places = (place for folder in folders for place in (folder / "faces", folder))
        return next((cls.open(place) for place in places if (place / TABLE_FILE).is_file()), None)

    def __len__(self) -> int:
        return len(self.table)

    @property
    def image_size(self) -> int:
        """Side of the faces, pixels."""
        shard = int(self.table["shard"].iloc[0]) if len(self) else 0
        return int(self._shard(shard).shape[1])

    def images(self, index: Sequence[int] | np.ndarray | slice | torch.Tensor | int) -> torch.Tensor:
        """The pixels of some faces.

        Arguments:
            index: rows of `table`: a slice, a list, an array or tensor of integers or of booleans.

        Returns:
            uint8 [B, 3, S, S], in the order asked for; channels last in memory, as the shards are.

        Raises:
            IndexError: a row that this view does not have.
        """
        if isinstance(index, torch.Tensor):
            index = index.cpu().numpy()
        rows = np.atleast_1d(np.arange(len(self))[index])
        shards, positions = self.table["shard"].to_numpy()[rows], self.table["row"].to_numpy()[rows]
        side = self.image_size
        pixels = np.empty((len(rows), side, side, 3), dtype=np.uint8)
        for shard in np.unique(shards):
            wanted = np.flatnonzero(shards == shard)
            pixels[wanted] = self._shard(int(shard))[positions[wanted]]
        return torch.from_numpy(pixels).permute(0, 3, 1, 2)

    def select(self, split: str | None = None, **labels: object) -> "Faces":
        """The faces of one half and with these labels: ``group`` (a number, of `age_groups`), ``gender``, ``race`` …

        Raises:
            ValueError: a half, age group or label that does not exist.
        """
        wanted = labels if split is None else labels | {"split": split}
        known = {"split": ("train", "test")} | ({"group": range(len(self.age_groups))} if "group" in wanted else {})
        for name, values in known.items():
            if name in wanted and wanted[name] not in values:
                raise ValueError(f"{name} = {wanted[name]!r}: it should be one of {', '.join(map(str, values))}")
        if unknown := [name for name in wanted if name not in self.table]:
            raise ValueError(f"no label {unknown[0]!r}: expected one of {', '.join(self.table)}")
        keep = (self.table[list(wanted)] == pd.Series(wanted, dtype=object)).all(axis=1)
        return Faces(self.folder, self.table[keep])

    def unseen_by(self, other: "Faces") -> "Faces":
        """The faces of people who have none in the training half of `other`.

        A name counts within its own data set: "person 3" of two sets are two people, and so are they of two seeds of
        the demo set, which draws its people by the seed. Folders of one's own are one set: "person 3" of two of them is
        one person, or faces of one set that was cut in two would be judged unseen. A picture of a folder of one's own
        that names nobody is of another person than a picture of that name in another folder.
        """
        return Faces(self.folder, self.table[~self._people().isin(other.select(split="train")._people())])

    def _people(self) -> pd.MultiIndex:
        """Whose each face is, by a name that is unique over all sets."""
        manifest = Manifest.read(self.folder)
        settings = manifest.settings if manifest else {}
        table = self.table
        sets = table["source"].where(table["source"] != "demo", f"demo, seed {settings.get('seed')}")
        nameless = (table["source"] == "folder") & (table["identity"] == table["file"])
        sets = sets.where(~nameless, f"folder {settings.get('data_root')}")
        return pd.MultiIndex.from_arrays([sets, table["identity"].map(identity_key)])

    @cached_property
    def age_groups(self) -> AgeGroups:
        """The age groups that the faces were prepared with."""
        return AgeGroups.noted(pd.read_parquet(self.folder / TABLE_FILE, columns=[]).attrs)

    @property
    def groups(self) -> np.ndarray:
        """Age group of every face, int64 [N].

        Raises:
            ParameterError: the data set has no ages.
        """
        if not self.ages_known:
            raise ParameterError(f"the faces in {self.folder} have no ages: this step needs a data set with ages")
        return self.table["group"].to_numpy(dtype=np.int64)

    @property
    def ages_known(self) -> bool:
        """Whether the faces have ages; a data set without ages has no age groups either."""
        return bool((self.table["group"] != NO_GROUP).all())

    @property
    def identities(self) -> np.ndarray:
        """Identity of every face, strings [N]."""
        return np.array(self.table["identity"].tolist(), dtype=str)

    @property
    def attributes(self) -> list[str]:
        """Those of gender and race that are known and differ between faces."""
        return [column for column in ("gender", "race") if self.table[column].dropna().nunique() > 1]

    @property
    def fingerprint(self) -> str:
        """Of the table file, which holds the shards' own: it names labels and pixels."""
        return digest((self.folder / TABLE_FILE).read_bytes())

    def _shard(self, shard: int) -> np.ndarray:
        if shard not in self._shards:
            with reading(file := shard_file(self.folder, shard), "faces"):
                self._shards[shard] = np.load(file, mmap_mode="r")
        return self._shards[shard]


def warn_of_known_people(init_from: str, path: Path, faces: Faces) -> None:
    """Warn where the run that weights come from was trained on people who are to test here.

    Only a run's own faces are known; of a released file's nothing is (the kit's own have them in their model card).

    Arguments:
        init_from: the parameter that named the weights.
        path: the weights' file or folder.
        faces: of the new training.
    """
    source = next((folder / "faces" for folder in path.parents[:3] if (folder / "faces" / TABLE_FILE).is_file()), None)
    test = faces.select(split="test")
    if known := len(test) - len(test.unseen_by(Faces.open(source))) if source else 0:
        what = f"{known:,} of the {len(test):,} test faces are of people whom those weights were trained on, which flatters"
        do = "Begin from other weights, or prepare faces of other people"
        warnings.warn(f"init_from = {init_from!r}: {what}. {do}", stacklevel=3)
