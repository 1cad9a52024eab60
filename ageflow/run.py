"""A run's folder ``runs/<dataset>/<run>``: where each step keeps things, and the manifest of what they were made from.

Every step writes ``manifest.json`` into its folder, last of all: what it was made from (fingerprints by name), the
settings that decide the outcome, and a fingerprint of what was made. That one file tells whether a step is complete and
whether it is current. Files become visible whole or not at all, and one process at a time writes a folder.
"""

import errno
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple, Self

from filelock import FileLock, Timeout

from ageflow.config import BASELINES, ParameterError, Settings

MANIFEST = "manifest.json"
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}  # the disk, the quota, the largest file


# -- files and folders -----------------------------------------------------------------------------------------------


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """A file to write (and read back) that becomes `path` when the block ends, and vanishes when it fails.

    Raises:
        OSError: it cannot be written; on a full disk the message says what to do.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(descriptor)
        with open(temporary, "w+b") as file:  # noqa: PTH123  (its name is text, for those who write by name)
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in _DISK_FULL:
            what = f"{os.strerror(error.errno)}: {path} was not written. Make room on that disk and run this again"
            raise OSError(error.errno, f"{what}: it continues with what is missing") from error
        raise


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` so that `path` is either what it was or complete, whenever the power goes; errors as `atomic_file`."""
    with atomic_file(path) as file:
        file.write(content)


def remove_leftovers(folder: Path, name: str) -> None:
    """Remove the temporary files of writers that were killed, safetensors' own among them.

    Arguments:
        folder: where to look, without its subfolders; it need not exist.
        name: a regular expression of the files that were to be written.
    """
    temporary = re.compile(rf"\.(?:{name})\.[a-z0-9_]{{8}}|\.tmp\w{{6}}")
    for path in folder.iterdir() if folder.is_dir() else ():
        if temporary.fullmatch(path.name):
            path.unlink(missing_ok=True)


class FolderInUseError(RuntimeError):
    """Another process writes into a folder of the run."""

    def __init__(self, folder: Path) -> None:
        what = f"another process is writing {folder}: a notebook or a batch of this run is still at work"
        do = "Wait until it has ended, or stop it (a notebook: Kernel, Shut Down), and run this again"
        super().__init__(f"{what}. {do}")


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Lock `folder` (or a single file) against other processes while the block lasts; the lock file lies beside it.

    Arguments:
        folder: what is written; it need not exist.

    Raises:
        FolderInUseError: another process holds the lock.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.parent / f".{folder.name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise FolderInUseError(folder) from None
    except (NotImplementedError, OSError):  # a file system without locks; a read-only one fails at the first write
        pass
    try:
        yield
    finally:
        lock.release()


def files_state(path: Path, files: Iterable[str] | None = None, without: Path | None = None) -> str:
    """A hash of every file's relative path, size and modification time; nothing is opened, and nothing need be there.

    Arguments:
        path: a folder, or one file.
        files: only these of the folder, relative paths; None: all.
        without: a folder to leave out, though it may lie inside (the runs, in a data folder).
    """
    path = path.resolve()
    found = [path, *sorted(path.rglob("*"))] if files is None else [path / file for file in files]
    without = without.resolve() if without else path
    state = hashlib.sha256()
    for file in filter(Path.is_file, found):
        if not (path in without.parents and file.is_relative_to(without)):
            stat = file.stat()
            state.update(f"{file.relative_to(path).as_posix()}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return state.hexdigest()


# -- what things were made from --------------------------------------------------------------------------------------


def as_json(value: Any) -> Any:
    """`value` as JSON gives it back: tuples as lists, paths as text."""
    return json.loads(json.dumps(value, default=str))


def digest(value: Any) -> str:
    """A fingerprint of JSON values, or of bytes: 16 hexadecimal digits of SHA-256."""
    content = value if isinstance(value, bytes) else json.dumps(value, sort_keys=True, default=str).encode()
    return hashlib.sha256(content).hexdigest()[:16]


def same_place(one: object, other: object) -> bool:
    """Whether two values of a parameter are equal, or name the same file or folder.

    Example:
        >>> same_place("weights.safetensors", str(Path.cwd() / "weights.safetensors")), same_place("a", None)
        (True, False)
    """
    are_text = isinstance(one, str) and isinstance(other, str)
    return one == other or (are_text and Path(one).expanduser().resolve() == Path(other).expanduser().resolve())


@dataclass(frozen=True)
class Manifest:
    """What a step's folder holds and what it was made from; ``manifest.json``, written last.

    Arguments:
        inputs: fingerprint of everything it was made from, by name.
        settings: the settings that decide the outcome, JSON values.
        fingerprint: names what was made, by its content.
        details: whatever else the step notes (counts, seconds).
    """

    inputs: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    fingerprint: str = ""
    details: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """The manifest of a folder; None where the step has not finished there.

        Raises:
            ParameterError: the file is damaged.
        """
        path = folder / MANIFEST
        try:
            return cls(**json.loads(path.read_text())) if path.is_file() else None
        except (ValueError, TypeError) as error:
            raise ParameterError(f"{path} is damaged ({error}): delete it, and its step runs again") from None

    def write(self, folder: Path) -> None:
        """Write it, unless the folder has the same one: then its date stays."""
        text = json.dumps(asdict(self), indent=1, default=str)
        path = folder / MANIFEST
        if not path.is_file() or path.read_text() != text:
            write_atomically(path, text.encode())

    def changes(self, inputs: Mapping[str, str], settings: Mapping[str, Any], free: Set[str] = frozenset()) -> str:
        """Why it is not what `inputs` and `settings` would make, ``"other faces; width: 32 → 64"``; empty where it is.

        Settings that are `free` may change.
        """
        other = sorted(name for name in {*inputs, *self.inputs} if inputs.get(name) != self.inputs.get(name))
        old, new = as_json(self.settings), as_json(settings)
        changed = [n for n in sorted({*old, *new} - free) if not same_place(old.get(n), new.get(n))]
        values = ", ".join(f"{name}: {old.get(name)!r} → {new.get(name)!r}" for name in changed)
        return "; ".join(filter(None, [other and f"other {', '.join(other)}", values]))


# What the processes that the kit starts are given, where the user has not set it. glibc then asks Linux for huge pages,
# which much of it grants only who asks: page by page, a training step takes twice as long. And a thread that waits for
# the others gives its core up sooner, without which one busy program nearly stops a training (docs/performance.md).
PROCESS_ENVIRONMENT = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1", "GOMP_SPINCOUNT": "10000"}


# -- the run ---------------------------------------------------------------------------------------------------------


class Artefact(NamedTuple):
    """What a step leaves behind: the notebook that makes it, and what it is."""

    notebook: str
    what: str


# By the folder in the run.
ARTEFACTS: dict[str, Artefact] = {
    "faces": Artefact("01_prepare_data", "prepared faces"),
    "glow": Artefact("02_train_glow", "a trained GLOW"),
    "latents": Artefact("03_prototypes", "encoded faces"),
    "prototypes": Artefact("03_prototypes", "average latents"),
    "decoded_age": Artefact("04_train_ictm", "the classifier behind the decoder (age_classifier = decoded)"),
    "ictm": Artefact("04_train_ictm", "a trained ICTM"),
    "classifiers": Artefact("05_train_classifiers", "trained classifiers"),
    **{f"baselines/{name}": Artefact("11_baselines", f"a trained {title}") for name, title in BASELINES.items()},
    "no_ictm": Artefact("06_ablations", "the trained network without ICTM"),
    "evaluation": Artefact("06_ablations", "the methods' evaluation"),
    "tables": Artefact("07_tables", "the tables"),
    "figures": Artefact("08_figures", "the figures"),
}


class MissingArtefactError(FileNotFoundError):
    """What a step needs is not there; the message names the notebook that makes it."""


@contextmanager
def reading(file: Path, artefact: str) -> Iterator[None]:
    """Around the reading of a file.

    Arguments:
        file: what is read.
        artefact: a key of `ARTEFACTS`, whose notebook makes it.

    Raises:
        MissingArtefactError: the file is missing or damaged; the message says how it is made again.
    """
    try:
        yield
    except (OSError, ValueError) as error:
        do = f"delete {file.with_name(MANIFEST)}, if it is there, and run {ARTEFACTS[artefact].notebook}.ipynb again"
        raise MissingArtefactError(f"{file} is missing or damaged ({error}): {do}") from None


@dataclass(frozen=True)
class Workspace:
    """The folders of one run.

    Arguments:
        runs_root: folder of all runs.
        dataset: name of the data set.
        run: name of the run.

    Raises:
        ParameterError: a name that cannot name a folder.

    Example:
        >>> Workspace(Path("runs"), "morph", "paper").path("glow").as_posix()
        'runs/morph/paper/glow'
    """

    runs_root: Path
    dataset: str
    run: str

    def __post_init__(self) -> None:
        for name in (self.dataset, self.run):
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+=-]*", name):
                allowed = "use letters, digits, '.', '_', '+', '=' and '-', beginning with a letter or digit"
                raise ParameterError(f"{name!r} cannot name a folder: {allowed}")

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The folders of the run that `settings` name."""
        return cls(settings.runs_root, settings.dataset, settings.run)

    @property
    def root(self) -> Path:
        """``runs/<dataset>/<run>``."""
        return self.runs_root / self.dataset / self.run

    def path(self, *parts: str) -> Path:
        """A path inside the run; nothing is created."""
        return self.root.joinpath(*parts)

    def folder(self, *parts: str) -> Path:
        """A folder inside the run, created if need be."""
        folder = self.path(*parts)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def has(self, artefact: str) -> bool:
        """Whether an earlier step has finished making `artefact` (a key of `ARTEFACTS`)."""
        return self.path(artefact, MANIFEST).is_file()

    def manifest(self, artefact: str) -> Manifest:
        """The manifest of something an earlier step made; errors as `require`."""
        return Manifest.read(self.require(artefact))

    def require(self, artefact: str) -> Path:
        """The folder of something an earlier step made.

        Arguments:
            artefact: a key of `ARTEFACTS`.

        Raises:
            MissingArtefactError: it is not there, or its step was stopped before the end; the message names
                the notebook to run.
        """
        wanted = ARTEFACTS[artefact]
        marker = self.path(artefact, MANIFEST)
        if not marker.is_file():
            what = f"this step needs {wanted.what}, and {marker} is not there: run {wanted.notebook}.ipynb first"
            same = f"with the same dataset, preset, run and runs_root (dataset {self.dataset}, run {self.run})"
            raise MissingArtefactError(f"{what}, {same}")
        return marker.parent
