"""Every method by its name: the kit's, the baselines, a Python class of one's own, and a folder of pictures made elsewhere."""

from pathlib import Path

from ageflow.config import BASELINES, METHODS, ParameterError, default_runs_root
from ageflow.device import device_of
from ageflow.evaluation.pictures import FolderMethod
from ageflow.names import any_method, made_of, own_class
from ageflow.run import Workspace, digest
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
        name: of the kit's methods (``ageflow``, ``glow``…), of a baseline (``caae``…), ``package.module:Class``, a
            `Method` of one's own, which is made with the run's `Workspace` and the device; or ``folder:/path``.
        dataset, run: the run; by default ``demo/demo``, or ``<dataset>/paper``.
        runs_root: folder of all runs; None: the project's.
        device: ``auto``, ``cpu``, ``cuda``…
        scale: s of Eq. 5 for the kit's methods without a translator; None: the s that the run's ICTM was trained with,
            and where it has none, the data set's.

    Raises:
        ValueError: a name that is no method, or a class that is no `Method`.
        MissingArtefactError: the run lacks a part; the message names the notebook that makes it.
        CheckpointError: its parts are of different GLOWs.
    """
    name = any_method(name)
    run = run or ("demo" if dataset == "demo" else "paper")
    workspace = Workspace(Path(runs_root).expanduser() if runs_root else default_runs_root(), dataset, run)
    if name in METHODS:
        return load_latent_method(name, workspace, device, scale)
    if name in BASELINES:
        from ageflow.baselines.method import load_baseline

        return load_baseline(name, workspace, device)
    method = FolderMethod(name) if name.startswith("folder:") else _own(name, workspace, device)
    method.name = name
    return method


def _own(name: str, workspace: Workspace, device: str) -> Method:
    kind = own_class(name)
    if not issubclass(kind, Method):
        raise ParameterError(f"{name!r} is no ageflow.Method: derive the class from it (docs/method.md)")
    try:
        method = kind(workspace, device_of(device))
    except TypeError as error:
        raise ParameterError(f"{name!r}: {error}; it needs __init__(self, workspace, device) and translate") from error
    method.title = method.title or kind.__name__
    # By names that the evaluation's own fingerprints do not have.
    source = {"own/source": digest(made_of(name).read_bytes())}
    method.weights = source | {f"own/{part}": str(value) for part, value in method.weights.items()}
    return method
