"""Every method by its name: the kit's, the baselines, a Python class of one's own, and a folder of pictures made elsewhere."""

from pathlib import Path

from ageflow.config import METHODS, check_method, default_runs_root
from ageflow.run import Workspace
from ageflow.translation.methods import Method, load_latent_method


def load_method(
    name: str,
    dataset: str = "demo",
    run: str | None = None,
    runs_root: Path | str | None = None,
    device: str = "auto",
    scale: float | None = None,
) -> Method:
    """A method of a run.

    Arguments:
        name: of the kit's methods (``ageflow``, ``glow``…) or of a baseline (``caae``…).
        dataset, run: the run; by default ``demo/demo``, or ``<dataset>/paper``.
        runs_root: folder of all runs; None: the project's.
        device: ``auto``, ``cpu``, ``cuda``…
        scale: s of Eq. 5 for the kit's methods without a translator; None: the s that the run's ICTM was trained with,
            and where it has none, the data set's.

    Raises:
        ValueError: a name that is no method.
        MissingArtefactError: the run lacks a part; the message names the notebook that makes it.
        CheckpointError: its parts are of different GLOWs.
    """
    check_method(name)
    run = run or ("demo" if dataset == "demo" else "paper")
    workspace = Workspace(Path(runs_root).expanduser() if runs_root else default_runs_root(), dataset, run)
    if name in METHODS:
        return load_latent_method(name, workspace, device, scale)
    from ageflow.baselines.method import load_baseline

    return load_baseline(name, workspace, device)
