"""What lies under a name where a download went wrong."""

import re
from pathlib import Path


def not_downloaded(path: Path) -> str:
    """What a file is instead of weights, and what to do: empty, a web page or other text, a pointer of Git LFS; "" for the rest."""
    try:
        with path.open("rb") as file:
            start = file.read(512).removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    except OSError:
        return ""
    if not start:
        return "it is empty: download it again"
    if start.startswith(b"version https://git-lfs"):
        return "it is a pointer of Git LFS, not the file: fetch it by `git lfs pull`"
    what = "a web page" if start.startswith((b"<!doctype", b"<html", b"<?xml")) or b"<html" in start else ""
    if not re.search(rb"[\0-\x08\x0e-\x1f]", start):  # as in every format of weights
        what = what or f"a text that begins with {start[:40].decode(errors='replace')!r}"
    return what and f"it is {what}, saved in the file's place: download it again, by the link to the file itself"
