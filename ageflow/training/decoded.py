"""A through the decoder: the age group of a latent, read from the face that it decodes to (ours).

The paper's A is a head on D's two linear layers (Fig. 3), and learns from as many latents as there are faces. With few
faces T finds latents that such an A takes for any age while the decoded face hardly changes. A classifier C of faces
generalises from as few, and as `Glow.decode` is exact and differentiable, A(z) = C(G⁻¹(z)) is a classifier of latents as
well, whose gradient reaches T. The same C predicts the attributes, and T may be asked to keep them.
"""

from pathlib import Path

from torch import Tensor, nn

from ageflow.checkpoint import (
    ConfigChangedError,
    check_same_training,
    checkpoints,
    find_weights,
    latest,
    read_weights,
    set_aside,
)
from ageflow.config import TrainICTM
from ageflow.data.faces import Faces
from ageflow.flows.glow import Glow
from ageflow.parameters import settings as settings_of
from ageflow.run import Workspace, sole_writer
from ageflow.training.classifier import Classifier, augmented
from ageflow.training.distributed import processes
from ageflow.training.judges import ClassifierTask, labelled
from ageflow.training.loop import train
from ageflow.training.task import MicroBatch

DECODED_AGE = "decoded_age"  # C's folder in a run, and its file among the weights that come with the kit
# Added to the seed: notebook 05's judge starts from other weights and sees the faces in another order.
_NOT_THE_JUDGE = 1009
_MOVED = 0.5  # share of the judges' augmentation that the C that comes with the kit has learned from


class DecodedAge(nn.Module):
    """A(z) = C(G⁻¹(z)), fixed.

    Arguments:
        glow: a trained flow, fixed.
        classifier: an age classifier of its faces, fixed.
    """

    def __init__(self, glow: Glow, classifier: Classifier) -> None:
        super().__init__()
        self.glow, self.classifier = glow, classifier
        self.requires_grad_(False).eval()

    def forward(self, z: Tensor) -> Tensor:
        """Logits [B, groups] of latents z [B, D]; with a gradient for z where one is asked for."""
        return self.logits(self.decode(z))[0]

    def decode(self, z: Tensor) -> Tensor:
        """The faces [B, 3, S, S] of latents z [B, D], as they would be saved: C has learned nothing outside [0, 1]."""
        return self.glow.decode(z).clamp(0, 1)

    def logits(self, images: Tensor, part: MicroBatch | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Age logits [B, groups] of decoded faces [B, 3, S, S], and those [B, values] of each attribute that C predicts.

        Arguments:
            images: of `decode`.
            part: augments the faces, half as far as judges learn from, so that T cannot please C by single pixels;
                None: the faces as they are.
        """
        images = images if part is None else augmented(images, part, _MOVED)
        return self.classifier.split_logits(self.classifier(images))


def train_age_classifier(settings: TrainICTM, faces: Faces) -> Path:
    """Train C on the run's faces, as notebook 05 trains the preset's judge; stopped, it continues.

    It learns the faces' attributes beside the age, where they are known. Begun from weights, it has their architecture,
    and without updates it predicts those attributes only that the weights predict.

    From another seed than the judge's: the judge itself takes no part in T's training. And balanced over the attributes:
    where more of the young are women, T would make women of men to please it.

    Arguments:
        settings: of notebook 04; its seed, and what begins with `age_classifier_`. `restart` begins C anew, too.
        faces: the run's prepared faces.

    Returns:
        Its folder, the run's ``decoded_age/``.

    Raises:
        ConfigChangedError: the folder holds one trained with other values; or T, which has learned from it, is not
            begun anew.
    """
    workspace = Workspace.of(settings)
    folder = workspace.path(DECODED_AGE)
    if settings.restart and processes().first:
        with sole_writer(folder):
            set_aside(folder)
    common = {"dataset", "preset", "run", "runs_root", "device", "progress", "gpus", "nodes", "rendezvous"}
    given = settings.model_dump(include=common) | {"seed": settings.seed + _NOT_THE_JUDGE}
    given |= {
        "init_from": settings.age_classifier_from or "nothing",
        "cooldown": 0,
    }  # the judge's is for its own updates
    begun = None if settings.restart else latest(folder)
    attributes, shape = faces.attributes, None
    if begun is not None:
        shape = begun.networks["classifier"]
        attributes = list(shape["also"])
    elif settings.age_classifier_from is not None:
        weights = read_weights(
            find_weights(settings.age_classifier_from, settings.runs_root, DECODED_AGE), "classifier"
        )
        shape = weights.config if weights else None  # otherwise the task names what is wrong
        if shape and settings.age_classifier_iterations == 0:  # what they do not predict it does not learn either
            known = shape.get("also", {})
            attributes = [name for name in attributes if known.get(name) == list(labelled(faces, name)[0])]
    given["architecture"] = shape and shape["architecture"]
    chosen = settings_of("train_classifiers", given | {"iterations": settings.age_classifier_iterations or None})
    if settings.age_classifier_iterations == 0:  # `Training` has them begin at 1
        chosen = chosen.model_copy(update={"iterations": 0})
    task = ClassifierTask(chosen, faces, "age", DECODED_AGE, balance=faces.attributes, also=attributes)
    if begun is not None:
        check_same_training(begun, task.manifest, folder, settings.step)
    t_has_begun = not settings.restart and checkpoints(workspace.path(settings.network))
    if t_has_begun and begun is not None and begun.iteration < chosen.iterations:
        raise ConfigChangedError(
            f"age_classifier_iterations = {chosen.iterations}: the classifier in {folder}, which T learns from, has "
            f"{begun.iteration} updates: pass age_classifier_iterations = {begun.iteration}, name another run, or begin it "
            "and T anew with restart=True"
        )
    train(task, chosen, folder)
    processes().broadcast(0)  # the others wait until it is written
    return folder
