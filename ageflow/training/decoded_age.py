"""A through the decoder: the age groups of a latent, seen in the face that it decodes to (ours).

The paper's A is a head on D's two linear layers (Fig. 3), and learns from as many latents as there are faces. On
the demo's T finds latents that such an A takes for any age while the decoded face hardly changes (the study at the
end of notebook 06). A classifier of faces generalises from as few, and as `Glow.decode` is exact and differentiable,
A(z) = C(G⁻¹(z)) is a classifier of latents as well, whose gradient reaches T.

What pleases C need not be age, and T finds it: tint and contrast of the whole picture, darker hair before a lighter
background, a mouth wiped away (smiles, teeth and red lips are of the young), brows lifted, a haze over the face. Two
things help, and did so together in the same study. C has to know better: one that also learned from the translations
of T before it is right about them, and its ages are then worth reaching. And T may be asked for its teacher's face
where age is not: its edges, eyes, brows, mouth, hair and background (`structure_weight`, `features_weight`,
`surroundings_weight`; `decoded_face`). Faces stay sharp and whole, and the age is found in the face.

The way before that is still there: C may be shown the translated face in its source's colours (`source_colours`),
surroundings (`source_surroundings`) or with its source's mouth (`source_mouth`), so that T wins nothing there. But then
C judges a picture that is never seen: a face at 45 with its source's young mouth looks younger than the same face with
the mouth that T gives it, and T goes too far.

The same C tells the attributes too, by logits of their own, and T may be asked to keep them (`attribute_weight`). Left
to please C's ages alone it changes whatever goes with age; asked to keep them, it may move further from its teacher
before a face is spoilt (the same study).
"""

import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ageflow import config
from ageflow.data.faces import Faces
from ageflow.flows.glow import Glow
from ageflow.folders import sole_writer
from ageflow.storage import latest
from ageflow.training.checkpoint import ConfigChangedError, refuse_another, set_aside
from ageflow.training.classifier import Classifier, ClassifierTask, augmented, labelled
from ageflow.training.decoded_face import in_colours_of, in_surroundings_of, with_mouth_of
from ageflow.training.distributed import processes
from ageflow.training.initial import find_unless_begun, weights_of
from ageflow.training.loop import train
from ageflow.training.task import Piece
from ageflow.workspace import Workspace

__all__ = [
    "DecodedAge",
    "age_classifier_folder",
    "train_age_classifier",
]

_PART = "decoded_age"  # its folder in a run, and its file among the weights that ship
# Added to the seed: notebook 05's judge starts from other weights and sees the faces in another order.
_NOT_THE_JUDGE = 1009
_TURNED = 0.5  # as far as the C that ships has learned from


class DecodedAge(nn.Module):
    """A(z) = C(G⁻¹(z)), fixed: latents [B, D] → logits [B, groups].

    Arguments:
        glow: a trained flow, fixed.
        classifier: an age classifier of its faces, fixed.
        source_colours: C sees a face whose source is known in that one's colours (`in_colours_of`), so that T cannot
            please it by paler or redder pictures.
        source_surroundings: C sees it in the source's hair and background (`in_surroundings_of`), so that T cannot
            please it by what is no face.
        source_mouth: C sees it with the source's mouth (`with_mouth_of`), so that T cannot please it by a mouth that is
            wiped away; a list: whether for each target group.
    """

    def __init__(
        self,
        glow: Glow,
        classifier: Classifier,
        source_colours: bool = False,
        source_surroundings: bool = False,
        source_mouth: bool | Sequence[bool] = False,
    ) -> None:
        super().__init__()
        self.glow = glow
        self.classifier = classifier
        self.source_colours = source_colours
        self.source_surroundings = source_surroundings
        self.source_mouth = source_mouth
        self.register_buffer("mouths", torch.tensor(source_mouth, dtype=torch.bool), persistent=False)
        self.requires_grad_(False).eval()

    def forward(self, z: Tensor, piece: Piece | None = None) -> Tensor:
        """Logits [B, groups] of latents z [B, D]; with a gradient for z where one is asked for."""
        return self.told(self.decode(z), piece)[0]

    def decode(self, z: Tensor) -> Tensor:
        """The faces [B, 3, S, S] of latents z [B, D], as they would be saved.

        T may draw outside [0, 1], where C has learnt nothing and says anything.
        """
        return self.glow.decode(z).clamp(0, 1)

    def told(
        self, images: Tensor, piece: Piece | None = None, source: Tensor | None = None, target: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Logits [B, groups] of decoded faces [B, 3, S, S], and those [B, values] of each attribute that C tells.

        Arguments:
            images: of `decode`.
            piece: T learns from faces that are turned and shifted half as far as those that the judges learn from, and
                lit as these are, so that it cannot please C by single pixels; None: the faces as they are.
            source: faces [B, 3, S, S], uint8 or float in [0, 1], that these were translated from, for `source_colours`,
                `source_surroundings` and `source_mouth`; None: the faces as they are.
            target: their target groups, int [B], where `source_mouth` tells the groups apart.
        """
        if source is not None:
            source = source.to(images.device)
            if self.source_colours:
                images = in_colours_of(source, images)
            if self.source_surroundings:
                images = in_surroundings_of(source, images)
            if self.source_mouth:
                if self.mouths.ndim and target is None:
                    raise ValueError("source_mouth tells the target groups apart: pass target, the groups [B]")
                images = with_mouth_of(source, images, self.mouths[target] if self.mouths.ndim else None)
        return self.classifier.apart(self.classifier(images if piece is None else augmented(images, piece, _TURNED)))


def age_classifier_folder(settings: config.TrainICTM) -> Path:
    """Where a run keeps C: its ``decoded_age/``."""
    return Workspace.of(settings).path(_PART)


def train_age_classifier(settings: config.TrainICTM, faces: Faces, anew: bool = False, stays: bool = False) -> Path:
    """Train C on the run's faces, as notebook 05 trains the preset's judge; stopped, it goes on.

    It learns the faces' attributes beside the age, where they are known. Begun from weights, it has their architecture,
    and without updates it tells those attributes only that the weights tell.

    From another seed than the judge's: the judge itself takes no part in T's training. And regardless of attributes:
    where more of the young are women (61 % in the demo set), T would make women of men to please it.

    Arguments:
        settings: of notebook 04; its seed, and what begins with `age_classifier_`.
        faces: the run's prepared faces.
        anew: keep what is there under a number, and begin anew.
        stays: a T has learned from it, or the ablation is to: once it is finished it is trained no further.

    Returns:
        Its folder, the run's ``decoded_age/``.

    Raises:
        ConfigChangedError: the folder holds one trained with other values; or it stays, and T asks for more updates.
    """
    folder = age_classifier_folder(settings)
    if anew and processes().first:
        with sole_writer(folder):
            set_aside(folder)
    common = ("dataset", "preset", "run", "runs_root", "device", "progress", "gpus", "nodes", "rendezvous")
    given = {name: getattr(settings, name) for name in common} | {"seed": settings.seed + _NOT_THE_JUDGE}
    given |= {
        "architecture": settings.age_classifier_architecture,
        "init_from": settings.age_classifier_from or "nothing",
    }
    also = faces.attributes
    if settings.age_classifier_from is not None:
        path = find_unless_begun(
            settings.age_classifier_from, settings.model_copy(update={"restart": anew}), _PART, _PART
        )
        if path is None:  # it goes on as it began
            told = latest(folder).config["classifier"]
            given["architecture"] = settings.age_classifier_architecture or told["architecture"]
            also = list(told.get("also", {}))
        weights = None if path is None else weights_of(path, _PART)
        if weights is not None:  # otherwise the task says what is wrong
            given["architecture"] = settings.age_classifier_architecture or weights.config["architecture"]
            if settings.age_classifier_iterations == 0:  # it does not learn what it does not know
                known = weights.config.get("also", {})
                also = [name for name in also if known.get(name) == list(labelled(faces, name)[0])]
    given["cooldown"] = 0  # the judge's is for its own updates; C has as many as are asked for
    if settings.age_classifier_learning_rate is not None:
        given["learning_rate"] = settings.age_classifier_learning_rate
    chosen = config.settings("train_classifiers", given)
    if settings.age_classifier_iterations is not None:
        chosen = chosen.model_copy(update={"iterations": settings.age_classifier_iterations})
    task = ClassifierTask(chosen, faces, "age", faces.attributes, also=also, part=_PART)
    task.step = "train_ictm"  # notebook 06 takes it as it is
    if stays and (folder / "done.json").is_file():
        chosen = _no_further(settings, chosen, task, folder)
    train(task, chosen, folder)
    processes().told_by_first(0)  # the others wait until it is written
    return folder


def _no_further(
    settings: config.TrainICTM, chosen: config.TrainClassifiers, task: ClassifierTask, folder: Path
) -> config.TrainClassifiers:
    """What C is trained by where it stays: trained on, it would be another than the one that T learned from."""
    trained = latest(folder)
    if trained is None or trained.iteration >= chosen.iterations:
        return chosen
    refuse_another(trained.config, task.config, folder, chosen.step, task.step)
    there = (
        f"age_classifier_iterations = {chosen.iterations}: the classifier in {folder}, which the run's translators "
        f"learn from, has {trained.iteration} updates and stays as it is"
    )
    if settings.step == config.TrainICTM.step:
        raise ConfigChangedError(
            f"{there}: pass age_classifier_iterations = {trained.iteration}, name another run, or begin it and T anew "
            "with restart=True"
        )
    if settings.age_classifier_iterations is not None and processes().first:
        warnings.warn(there, stacklevel=4)
    return chosen.model_copy(update={"iterations": trained.iteration})
