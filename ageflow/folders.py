"""Folders as wholes: who may write into one, and whether one has changed."""

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


class FolderInUseError(RuntimeError):
    """Another process writes into a folder of the run."""

    def __init__(self, folder: Path) -> None:
        super().__init__(
            f"another process is writing {folder}: a notebook or a batch of this run is still at work. Wait until it has "
            "ended, or stop it (a notebook: Kernel, Shut Down), and run this again; a run of another name need not wait"
        )


@contextmanager
def sole_writer(folder: Path, wait: bool = False) -> Iterator[None]:
    """While the block lasts, no other process gets into such a block for `folder`; the end of a process ends its block.

    Arguments:
        folder: what is written, or a single file; it need not exist. The lock lies beside it, and stays there.
        wait: until no other process is in such a block, where that takes a moment only.

    Raises:
        FolderInUseError: another process is in such a block, and `wait` is not asked for.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.parent / f".{folder.name}.lock")
    try:
        lock.acquire(timeout=-1 if wait else 0)
    except Timeout:
        raise FolderInUseError(folder) from None
    except (NotImplementedError, OSError):  # no locks on this file system; or read only, which writing would tell
        pass
    try:
        yield
    finally:
        lock.release()


def folder_state(path: Path, files: Iterable[str] | None = None, without: Path | None = None) -> str:
    """A hash of every file's relative path, size and time of change (or of the one file `path` names).

    Cheap enough for hundreds of thousands of files: nothing is opened. ``"absent"`` where there is nothing.

    Arguments:
        path: the folder or the file.
        files: only these of the folder, relative paths; None: all.
        without: a folder that is no part of it, though it may lie inside.
    """
    if not path.exists():
        return "absent"
    if files is not None:
        found = [path / file for file in files]
    else:
        found = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    if without is not None and path.resolve() in without.resolve().parents:
        left_out = path / without.resolve().relative_to(path.resolve())
        found = [file for file in found if not file.is_relative_to(left_out)]
    digest = hashlib.sha256()
    for file in found:
        stat = file.stat()
        digest.update(f"{file.relative_to(path).as_posix()}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def same_place(one: object, other: object) -> bool:
    """Whether two values of a parameter are the same, or name the same file or folder.

    Example:
        >>> same_place("weights.safetensors", str(Path.cwd() / "weights.safetensors")), same_place("a", None)
        (True, False)
    """
    if one == other or not (isinstance(one, str) and isinstance(other, str)):
        return one == other
    return Path(one).expanduser().resolve() == Path(other).expanduser().resolve()
