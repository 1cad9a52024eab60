"""What lies under a name where a download went wrong."""

from pathlib import Path


def not_downloaded(path: Path) -> str:
    """What a file is instead of weights, and what to do: empty, a web page, a pointer of Git LFS; "" for anything else."""
    try:
        with path.open("rb") as file:
            start = file.read(512).lstrip().lower()
    except OSError:
        return ""
    if not start:
        return "it is empty: download it again"
    if start.startswith(b"version https://git-lfs"):
        return "it is a pointer of Git LFS, not the file: fetch it by `git lfs pull`"
    if start.startswith((b"<!doctype", b"<html", b"<?xml")) or b"<html" in start:
        return "it is a web page, saved in the file's place: download it again, by the link to the file itself"
    return ""
