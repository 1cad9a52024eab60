"""Train the translator T against D and A on latents encoded once (Eqs. 6-11, Fig. 3)."""

from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ageflow.config import OF_DECODED_AGE, TrainICTM
from ageflow.data.faces import Faces
from ageflow.data.records import AGE_GROUPS
from ageflow.flows.glow import load_glow, to_uint8
from ageflow.storage import CheckpointError, checkpoints, device_of, fingerprint
from ageflow.training.alike import warn_of_differences
from ageflow.training.classifier import load_classifier
from ageflow.training.decoded_age import DecodedAge, age_classifier_folder, train_age_classifier
from ageflow.training.decoded_face import features_distance, structure_distance, surroundings_distance
from ageflow.training.distributed import processes
from ageflow.training.initial import find_unless_begun, warn_of_known_people, weights_of
from ageflow.training.launch import launched
from ageflow.training.live import live
from ageflow.training.loop import alone_in, train
from ageflow.training.metrics import save_faces
from ageflow.training.task import Piece, Task, Turn
from ageflow.translation import losses
from ageflow.translation.discriminator import Discriminator
from ageflow.translation.ictm import ICTMConfig, Translator
from ageflow.translation.latents import Latents
from ageflow.translation.methods import TRANSLATORS, TranslatorMethod, translate_latents
from ageflow.translation.prototypes import Prototypes
from ageflow.workspace import Workspace

__all__ = ["TranslatorTask", "round_trip", "train_translator"]

_PREVIEW_FACES = 6
_DECODED_AT_A_TIME = 8  # in a preview
# In the config as what they made: `decoded_age`. So a run of before these were there is the same training still.
_OF_SOURCE = ("source_colours", "source_surroundings", "source_mouth")  # how C sees a face
_OF_TEACHER = ("structure_weight", "features_weight", "surroundings_weight")  # what of its teacher's face T is to keep
_OF_DECODED_AGE = {"age_classifier", *OF_DECODED_AGE}


class TranslatorTask(Task):
    """T and D take turns: T minimises Eq. 10, D with A minimises Eq. 11.

    Each micro-batch draws faces and, for each, a target group; D sees the translations of T's turn beside the
    real latents of the same batch, and A learns the age groups from the real ones (PAPER.md, Eq. 11).

    Arguments:
        settings: losses' weights and shapes.
        latents, prototypes: of the run's GLOW.
        kind: ``ictm``, or ``no_ictm`` for the ablation, which has no consistency loss as it has no inverse.
        age_classifier: folder of the classifier of faces that `DecodedAge` makes A of; None: A is D's head.
        faces: whose latents they are; for `source_colours`, `source_surroundings` and `source_mouth`.
    """

    def __init__(
        self,
        settings: TrainICTM,
        latents: Latents,
        prototypes: Prototypes,
        glow_folder: Path,
        kind: Literal["ictm", "no_ictm"] = "ictm",
        age_classifier: Path | None = None,
        faces: Faces | None = None,
    ) -> None:
        self.settings = settings
        self.faces = None
        wanted = [name for name in _OF_SOURCE if getattr(settings, name)]
        if age_classifier is not None and wanted:
            if faces is None:
                raise ValueError(f"{wanted[0]} = True needs the faces whose latents these are: pass faces")
            self.faces = faces
        self.device = device_of(settings.device)
        self.latents = latents
        self.rows = {split: latents.rows(split=split) for split in ("train", "test")}
        self.groups = torch.tensor(latents.table["group"].to_numpy(dtype=np.int64))
        self.combinations = prototypes.combination_of(latents.table, len(latents.table))
        self.prototypes = prototypes.to(self.device)
        self.glow = load_glow(glow_folder, settings.device)
        self.count = len(prototypes.means)
        # By target group.
        self.akd_weight = torch.tensor(settings.akd_weight, device=self.device).expand(self.count)
        self.age_focus = torch.tensor(settings.age_focus, device=self.device).expand(self.count)
        self.decoded_age = None
        if age_classifier is not None:
            shown = {name: getattr(settings, name) for name in _OF_SOURCE}
            classifier = load_classifier(age_classifier, settings.device)
            self.decoded_age = DecodedAge(self.glow, classifier, **shown).to(self.device)
            # What each face is to stay, −1 where it is not known.
            self.values = {
                name: torch.tensor(pd.Categorical(latents.table[name], labels).codes.astype(np.int64))
                for name, labels in self.decoded_age.classifier.also.items()
            }

        config = ICTMConfig(
            latent=settings.latent, couplings=settings.couplings, width=settings.width, seed=settings.seed
        )
        translator = TRANSLATORS[kind](config, self.glow.latent_shapes, self.count)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(settings.seed)  # the CPU's, which is put back
            critic = Discriminator(translator.visible.dimensions, self.count)
        path = None
        if settings.init_from is not None:
            path = find_unless_begun(settings.init_from, settings, kind, kind)
        if path is not None:
            if faces is not None:
                warn_of_known_people(settings.init_from, path, faces)
            self._begin_from(path, kind, translator, critic)
        translator.checks_targets = False  # its targets are drawn here
        self.modules = nn.ModuleDict({"translator": translator, "discriminator": critic})
        self.turns = [
            Turn("T", list(translator.parameters()), self.translator_loss, settings.learning_rate, conclude=self._left),
            Turn("D", list(critic.parameters()), self.discriminator_loss, settings.discriminator_learning_rate),
        ]
        # Notebook 06 passes its own settings, which say more than what this training depends on.
        self.config = settings.model_dump(mode="json", include=set(TrainICTM.model_fields) - _OF_DECODED_AGE) | {
            "kind": kind,
            "translator": config.model_dump(),
            "latent_shapes": [list(shape) for shape in self.glow.latent_shapes],
            "groups": self.count,
            "glow": latents.glow,
            "faces": latents.faces,
            "prototypes": {"attributes": list(prototypes.attributes), "counts": prototypes.cells["count"].tolist()},
        }
        self.config["averages_of"] = prototypes.cells["average_of"].tolist()  # small cells fall back on other faces
        self.config["age_focus"] = settings.age_focus or None  # None: as before there was such a thing
        if age_classifier is not None:
            self.config["decoded_age"] = fingerprint(age_classifier)
            self.config["attribute_weight"] = settings.attribute_weight or None
            self.config |= {name: getattr(settings, name) or None for name in (*_OF_SOURCE, *_OF_TEACHER)}
        self._translated: dict[Piece, tuple[Tensor, Tensor, Tensor]] = {}

    def start(self) -> None:
        """T begins as the identity, or from `init_from`; the prior generator at zero, or at the average latents."""
        if self.settings.init_from is not None:
            return
        if self.settings.prior_start == "averages":
            translator = self.modules["translator"]
            averages = self.prototypes.means[:, self.prototypes.any]
            translator.prior.start_from(translator.visible.flat(averages))

    def _begin_from(self, path: Path, kind: str, translator: Translator, critic: Discriminator) -> None:
        """Fill T with trained weights, and D with those that it was trained against, where they are there too."""
        weights = weights_of(path, kind)
        if weights is None:
            raise CheckpointError(f"{path} is not a file of the kit: a translator begins from a run or a released file")
        shape = {"kind": kind, **translator.config.model_dump(exclude={"seed"})}
        shape |= {"latent_shapes": self.glow.latent_shapes, "groups": self.count}
        weights.fill(translator, shape)
        if weights.critic:
            critic.load_state_dict(weights.critic)

    def chosen(self, piece: Piece) -> np.ndarray:
        """Rows of a piece of a batch among the latents, [B] int64."""
        return self.rows["train"][piece.choose(len(self.rows["train"]), self.settings.seed).numpy()]

    def batch(self, piece: Piece) -> tuple[Tensor, Tensor, Tensor]:
        """A piece of a batch: latents [B, D], their groups [B] and attribute combinations [B]."""
        rows = self.chosen(piece)
        groups, combinations = self.groups[rows], self.combinations[rows]
        return self.latents.batch(rows).to(self.device), groups.to(self.device), combinations.to(self.device)

    def translator_loss(self, piece: Piece) -> tuple[Tensor, dict[str, Tensor]]:
        """L_T, Eq. 10."""
        z_s, source, combination = self.batch(piece)
        target = piece.of(torch.randint(self.count, (piece.size,), device=self.device))
        translator, critic, weights = self.modules["translator"], self.modules["discriminator"], self.settings

        translated = translator(z_s, target)
        z_t, *source_age = translated if isinstance(translated, tuple) else (translated,)
        # Eq. 6's target; for t = s the direction is zero and the face its own target. The levels that T does not see
        # (`latent`) stay the face's: it cannot move them.
        visible = translator.visible
        teacher = z_s + weights.scale * self.prototypes.direction(source, target, combination, check=False)
        teacher = visible.put(z_s, visible.take(teacher))
        fake, age = critic(visible.flat(z_t))
        of_faces: dict[str, tuple[float, Tensor]] = {}
        if self.decoded_age is not None:
            age, of_faces = self._of_faces(piece, z_t, teacher, target)
        distance = losses.distillation(visible.flat(z_t), visible.flat(teacher), weights.akd_reduction)
        parts = {
            "distillation": distance.mean(),
            "adversarial": losses.adversarial(fake),
            "age": losses.age(age, target, self.age_focus[target]),
        }
        loss = (
            (self.akd_weight[target] * distance).mean()
            + weights.adversarial_weight * parts["adversarial"]
            + weights.age_weight * parts["age"]
        )
        for name, (weight, part) in of_faces.items():
            parts[name] = part
            loss = loss + weight * part
        if source_age:
            parts["consistency"] = losses.consistency(visible.flat(z_s), *source_age, reading=weights.consistency)
            loss = loss + weights.consistency_weight * parts["consistency"]
        with torch.no_grad():
            for name, latent in (("distance", z_t), ("untouched", z_s)):
                parts[name] = losses.distillation(visible.flat(latent), visible.flat(teacher), "mean").mean()
        if any(kept.number != piece.number for kept in self._translated):
            self._translated.clear()  # of a try for the most faces that fit, broken off before D's turn
        self._translated[piece] = (z_s, source, z_t.detach())  # for D's turn, which follows
        return loss, parts

    def _of_faces(
        self, piece: Piece, z_t: Tensor, teacher: Tensor, target: Tensor
    ) -> tuple[Tensor, dict[str, tuple[float, Tensor]]]:
        """A's logits [B, groups] of the decoded faces; what else is asked of these: each with its weight (ours)."""
        weights, asked = self.settings, {}
        rows = self.chosen(piece)
        images = self.decoded_age.decode(z_t)
        source = None if self.faces is None else self.faces.images(rows)
        age, told = self.decoded_age.told(images, piece, source, target)
        if weights.attribute_weight and told:  # faces may have no attributes
            values = {name: self.values[name][rows].to(self.device) for name in told}
            asked["attributes"] = (weights.attribute_weight, losses.attributes(told, values))
        if any(getattr(weights, name) for name in _OF_TEACHER):
            with torch.no_grad():
                like = self.decoded_age.decode(teacher)
            asked["structure"] = (weights.structure_weight, structure_distance(images, like).mean())
            asked["features"] = (weights.features_weight, features_distance(images, like).mean())
            asked["surroundings"] = (weights.surroundings_weight, surroundings_distance(images, like).mean())
        return age, asked

    @staticmethod
    def _left(values: dict[str, Tensor]) -> dict[str, Tensor]:
        """`distillation_left` of the whole batch: 1 where T does nothing, 0 where it has learnt its teacher."""
        left = values.pop("distance") / values.pop("untouched").clamp_min(1e-12)
        return values | {"distillation_left": left}

    def discriminator_loss(self, piece: Piece) -> tuple[Tensor, dict[str, Tensor]]:
        """L_D, Eq. 11; A learns from real latents and their own groups."""
        z, group, translated = self._translated.pop(piece)
        visible = self.modules["translator"].visible
        critic = self.modules["discriminator"]
        # In one call: each turns the vectors of D's spectral normalisation, and both halves are to see the same D.
        confidence, ages = critic(torch.cat([visible.flat(z), visible.flat(translated)]))
        (real, fake), age = confidence.chunk(2), ages[: len(z)]
        adversarial = losses.discriminator(real, fake)
        classification = F.cross_entropy(age, group)
        accuracy = (age.detach().argmax(1) == group).float().mean()
        loss = adversarial + self.settings.discriminator_age_weight * classification
        return loss, {"adversarial": adversarial, "age": classification, "age_accuracy": accuracy}

    @torch.inference_mode()
    def preview(self, averaged: nn.ModuleDict, folder: Path, iteration: int) -> dict[str, float]:
        """Held-out faces in their own and the other age groups; D's and A's view of held-out latents."""
        translator, critic = averaged["translator"], averaged["discriminator"]
        rows = self.rows["test"] if len(self.rows["test"]) else self.rows["train"]
        z = self.latents.batch(rows[:_PREVIEW_FACES]).to(self.device)
        columns = [z] + [translate_latents(translator, z, torch.full((len(z),), t)) for t in range(self.count)]
        images = self.glow.decode(torch.stack(columns, dim=1).flatten(0, 1))
        save_faces(images, folder / f"translations-{iteration:08d}.png", columns=len(columns))

        z = self.latents.batch(rows[:256]).to(self.device)
        group = self.groups[rows[:256]].to(self.device)
        target = (group + 1 + torch.arange(len(group), device=self.device) % (self.count - 1)) % self.count
        translated = translate_latents(translator, z, target)
        age_of_real = self._ages(critic, z).argmax(1)
        age_of_translated = self._ages(critic, translated).argmax(1)
        return {
            "test/age_accuracy_real": float((age_of_real == group).float().mean()),
            "test/age_accuracy_translated": float((age_of_translated == target).float().mean()),
        }

    def _ages(self, critic: Discriminator, z: Tensor) -> Tensor:
        """A's logits [B, groups] of latents [B, D], without augmentation."""
        if self.decoded_age is not None:
            return torch.cat([self.decoded_age(some) for some in z.split(_DECODED_AT_A_TIME)])
        return critic(self.modules["translator"].visible.flat(z))[1]


def train_translator(settings: TrainICTM, kind: Literal["ictm", "no_ictm"] = "ictm") -> Path:
    """Train ICTM (or the network without it) with D and A; returns the run's folder of it. Stopped, it goes on.

    Before it trains or keeps the network without ICTM, it warns of all that makes the two no fair comparison.

    Raises:
        MissingArtefactError: no GLOW, latents or prototypes yet; the message names the notebook.
        CheckpointError: the latents or prototypes are of another GLOW than the run's.
        ConfigChangedError: the folder holds one trained with other values.
    """
    workspace = Workspace.of(settings)
    with live(workspace.path(kind), settings.progress):
        decoded = kind == "ictm" and settings.age_classifier == "decoded"
        more = [age_classifier_folder(settings)] if decoded else []
        if launched(settings, workspace.path(kind), *more):
            return workspace.path(kind)
        task = _task(settings, workspace, kind)
        if kind == "no_ictm" and processes().first:
            warn_of_differences(workspace, task.config, settings)
        return train(task, settings, workspace.path(kind))


def _task(settings: TrainICTM, workspace: Workspace, kind: Literal["ictm", "no_ictm"]) -> TranslatorTask:
    """What is trained, from what the earlier notebooks made, which must belong together."""
    faces = Faces.open(workspace.require("faces"))
    glow_folder = workspace.require("glow")
    latents = Latents.open(workspace.require("latents"), faces)
    prototypes = Prototypes.load(workspace.require("prototypes"))
    glow = fingerprint(glow_folder)
    for what, of in (("latents", latents.glow), ("prototypes", prototypes.glow)):
        if of != glow:
            raise CheckpointError(
                f"the run's {what} are of GLOW {of}, and its GLOW is now {glow}: run 03_prototypes.ipynb again"
            )
    if prototypes.faces and prototypes.faces != latents.faces:
        raise CheckpointError("the run's averages are of other faces than its latents: run 03_prototypes.ipynb again")
    classifier = None
    if settings.age_classifier == "decoded":
        anew = settings.restart and kind == "ictm"
        if anew or not (age_classifier_folder(settings) / "done.json").is_file():
            # C is trained before T, so first: nobody trains T, and T can be made of these settings.
            with alone_in(workspace.path(kind), processes()):
                TranslatorTask(settings, latents, prototypes, glow_folder, kind, faces=faces)
        # The ablation takes the one that T learned from, where it is there; and a T that has begun keeps its own.
        stays = kind == "no_ictm" or (not anew and bool(checkpoints(workspace.path(kind))))
        classifier = train_age_classifier(settings, faces, anew, stays)
    return TranslatorTask(settings, latents, prototypes, glow_folder, kind, classifier, faces)


@torch.inference_mode()
def round_trip(method: TranslatorMethod, faces: Faces, count: int = 16) -> pd.DataFrame:
    """Faces to every age group and back through T⁻¹: the largest errors, one row a target group.

    Arguments:
        method: the trained AgeFlow.
        faces: any prepared faces.
        count: how many of them.

    Returns:
        `latent_error`, the largest |T⁻¹(T(z)) − z|, and `pixel_error`, the largest error of the decoded face in
        8-bit steps.
    """
    images = faces.images(slice(0, min(count, len(faces)))).to(method.device)
    z = method.glow.encode(images)
    rows = []
    for target, name in enumerate(AGE_GROUPS):
        moved = method.translator(z, torch.full((len(z),), target, device=z.device))
        back = method.translator.inverse(*moved)[0]
        error = to_uint8(method.glow.decode(back)).int() - images.int()
        latent_error = float((back - z).abs().max())
        rows.append({"target": name, "latent_error": latent_error, "pixel_error": int(error.abs().max())})
    return pd.DataFrame(rows)
