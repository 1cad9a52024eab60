"""Whether AgeFlow and AgeFlow without ICTM are trained alike, so that ICTM is all that sets the two apart.

Notebook 04 trains the one and notebook 06 the other, each with parameters of its own: a weight that only one of them was
given makes two changes of what a table shows as one.
"""

import shlex
import warnings
from dataclasses import dataclass
from typing import Any

from ageflow.config import OF_DECODED_AGE, TrainICTM, Training
from ageflow.storage import Checkpoint, latest
from ageflow.training.checkpoint import comparable
from ageflow.workspace import Workspace

__all__ = ["Difference", "differences", "differences_of", "tell", "warn_of_differences"]

# What may differ: the networks' own shapes (at half the width the one without ICTM does as many multiply-adds), and the
# loss that needs an inverse. What the two begin from is compared by whether they begin from weights at all.
_OWN = {"kind", "translator", "width", "consistency", "consistency_weight", "init_from"}
# Of both the same run's, unless an earlier notebook has run between the two trainings.
_MADE_BEFORE = {
    "glow": "they learned from the latents of two GLOWs",
    "faces": "they learned from other faces",
    "prototypes": "they learned from other averages",
    "averages_of": "they learned from other averages",
    "decoded_age": "A was another classifier of decoded faces",
}


@dataclass(frozen=True)
class Difference:
    """One thing in which the two trainings differ.

    Arguments:
        name: the parameter's, or a key of what earlier notebooks made.
        ictm, no_ictm: its value in either; for what earlier notebooks made, what says that it is another.
    """

    name: str
    ictm: Any
    no_ictm: Any

    @property
    def is_parameter(self) -> bool:
        """Whether notebook 06 can be given the other's value."""
        return self.name not in _MADE_BEFORE


def differences(ictm: Checkpoint, no_ictm: Checkpoint) -> list[Difference]:
    """In what two trained translators' trainings differ, beside what has to."""
    return _differing(_told(ictm), _told(no_ictm))


def differences_of(workspace: Workspace) -> list[Difference]:
    """`differences` of what the run has now; none where it lacks one of the two.

    Raises:
        CheckpointError: there are checkpoints, and none can be read.
    """
    ictm, no_ictm = (latest(workspace.path(kind)) for kind in ("ictm", "no_ictm"))
    return [] if ictm is None or no_ictm is None else differences(ictm, no_ictm)


def tell(found: list[Difference], begin_anew: bool = True) -> str:
    """Some `differences` in words, and how to make the two trainings alike.

    Arguments:
        found: the differences, one at least.
        begin_anew: the network without ICTM has been trained, and would have to be trained again.
    """
    # What an earlier notebook made is told once, whatever in it is another.
    named = [f"{one.name} {one.ictm} and {one.no_ictm}" for one in found if one.is_parameter]
    named += dict.fromkeys(_MADE_BEFORE[one.name] for one in found if not one.is_parameter)
    given = {one.name: f"-p {one.name} {shlex.quote(str(one.ictm))}" for one in found if one.is_parameter}
    steps = []
    if len(given) < len(found):
        steps.append("run 04_train_ictm.ipynb again, with -p restart True")
    if given or begin_anew:
        passed = [*given.values(), *(["-p restart True"] if begin_anew else [])]
        batch = f"in a batch each with ablations. before its name, ablations.{next(iter(given), 'restart')}"
        # Any other name without a notebook's, restart above all, would reach GLOW and the judges too.
        both = [name for name in given if name not in Training.model_fields]
        batch += f"; a bare {' or '.join(both)} reaches 04 and 06 alike" if both else ""
        steps.append(f"pass {' '.join(passed)} to 06_ablations.ipynb ({batch})")
    return (
        f"AgeFlow and AgeFlow w/o ICTM are not trained alike, so that ICTM is not all that sets them apart: "
        f"{'; '.join(named)}. To make them alike, {', then '.join(steps)}."
    )


def warn_of_differences(workspace: Workspace, config: dict[str, Any], settings: TrainICTM) -> None:
    """Warn, before the network without ICTM is trained, where the run's ICTM was trained otherwise.

    Arguments:
        workspace: the run's.
        config: what the network without ICTM is trained with, of its task.
        settings: what is asked for now.
    """
    if not workspace.has("ictm"):
        return
    ictm = latest(workspace.path("ictm"))
    before = None if settings.restart else latest(workspace.path("no_ictm"))
    asked = _compared(config) | {"iterations": settings.iterations, "cooldown": _no_less(settings.cooldown)}
    if before is not None and before.iteration >= settings.iterations:  # it stays as it is
        asked |= _length(before)
    found = [] if ictm is None else _differing(_told(ictm), asked)
    if found:
        warnings.warn(tell(found, begin_anew=before is not None), stacklevel=3)


def _told(checkpoint: Checkpoint) -> dict[str, Any]:
    return _compared(checkpoint.config) | _length(checkpoint)


def _compared(config: dict[str, Any]) -> dict[str, Any]:
    """What has to be the same, without the length; what is not in the config of an earlier version, as it was then."""
    fields = {name: field.default for name, field in TrainICTM.model_fields.items()}
    told = comparable(fields) | comparable(config)
    kept = {name: told[name] for name in told if (name in fields and name not in _OWN) or name in _MADE_BEFORE}
    # Those of the classifier of decoded faces that stand there tell how T used it; the others, what made it.
    kept["age_classifier"] = "latent" if "decoded_age" not in told else "decoded"
    kept["init_from"] = told.get("init_from")
    return kept


def _length(checkpoint: Checkpoint) -> dict[str, Any]:
    """Updates, and how many of them the learning rate took to come down: the last had 1 / cooldown of it left."""
    length: dict[str, Any] = {"iterations": checkpoint.iteration}
    cooled = checkpoint.tensors("counts.").get("cooled")
    if cooled is not None:  # the first versions did not note it
        length["cooldown"] = _no_less(round(1 / float(cooled)))
    return length


def _no_less(cooldown: int) -> int:
    """A cooldown over one update leaves its learning rate as it is."""
    return cooldown if cooldown > 1 else 0


def _differing(ictm: dict[str, Any], no_ictm: dict[str, Any]) -> list[Difference]:
    found = []
    latent = ictm["age_classifier"] == "latent"
    for name in dict.fromkeys([*ictm, *no_ictm]):
        one, other = ictm.get(name), no_ictm.get(name)
        if name == "init_from" and (one is None) == (other is None):
            continue  # each from weights of its own
        if (name in _MADE_BEFORE or name == "cooldown") and None in (one, other):
            continue  # an earlier version did not tell it, or only one of them has a classifier of decoded faces
        if latent and name in OF_DECODED_AGE:
            continue  # there is none to use, so that age_classifier says it all
        if one != other:
            found.append(Difference(name, *("nothing" if value is None else value for value in (one, other))))
    return found
