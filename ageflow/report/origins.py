"""What of a run was trained in it, and from what it began."""

from ageflow.checkpoint import CheckpointError, checkpoints, latest
from ageflow.run import Workspace

_NAMES = {"glow": "GLOW", "decoded_age": "A behind the decoder", "ictm": "ICTM", "no_ictm": "w/o ICTM"}
_SOURCES = {None: "from nothing", "pretrained": "from the weights that ship with the kit"}


def origins(workspace: Workspace) -> list[str]:
    """A phrase for every network of the run: the updates it had here, and from what it began or, without any, is."""
    folders = {name: workspace.path(part) for part, name in _NAMES.items()}
    judges = sorted(path for path in workspace.path("classifiers").glob("*") if path.is_dir())
    folders |= {f"{folder.name} classifier": folder for folder in judges}
    told = []
    for name, folder in folders.items():
        if not checkpoints(folder):
            continue
        try:
            checkpoint = latest(folder)
        except CheckpointError as error:
            told.append(f"{name} cannot be told ({error})")
            continue
        begun = checkpoint.settings.get("init_from")
        done = f"{checkpoint.iteration:,} updates" if checkpoint.iteration else "loaded"
        told.append(f"{name} {done} {_SOURCES.get(begun, f'from {begun}')}")
    return told
