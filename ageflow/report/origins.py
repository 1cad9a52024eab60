"""What of a run was trained in it, and from what it began."""

import json

from ageflow.storage import CheckpointError, latest
from ageflow.workspace import Workspace

__all__ = ["origins"]

_NAMES = {"glow": "GLOW", "ictm": "ICTM", "no_ictm": "w/o ICTM"}


def origins(workspace: Workspace) -> list[str]:
    """A phrase for every network of the run: the updates it had here, and whether it began from other weights."""
    told = []
    folders = {name: workspace.path(part) for part, name in _NAMES.items()}
    classifiers = workspace.path("classifiers")
    folders |= {f"{path.parent.name} classifier": path.parent for path in sorted(classifiers.glob("*/done.json"))}
    for name, folder in folders.items():
        done = folder / "done.json"
        if not done.is_file():
            continue
        updates = json.loads(done.read_text())["iterations"]
        try:
            checkpoint = latest(folder)
        except CheckpointError:
            checkpoint = None
        begun = checkpoint.config.get("init_from") if checkpoint else None
        source = {None: "from nothing", "pretrained": "from the weights that ship with the kit"}.get(begun)
        told.append(f"{name} {updates:,} updates {source or f'from {begun}'}")
    return told
