"""Train the translator T against D and A on latents encoded once (Eqs. 6-11, Fig. 3)."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ageflow.checkpoint import CheckpointError, checkpoints, find_weights, fingerprint, latest, read_weights
from ageflow.config import TrainICTM
from ageflow.data.faces import Faces, warn_of_known_people
from ageflow.data.records import AGE_GROUPS
from ageflow.device import device_of
from ageflow.flows.glow import load_glow, to_uint8
from ageflow.run import Manifest, Workspace
from ageflow.training.classifier import load_classifier
from ageflow.training.decoded import DECODED_AGE, DecodedAge, train_age_classifier
from ageflow.training.distributed import processes
from ageflow.training.launch import launched
from ageflow.training.loop import alone_in, train
from ageflow.training.metrics import save_faces
from ageflow.training.task import MicroBatch, Objective, Task
from ageflow.translation import losses
from ageflow.translation.discriminator import Discriminator
from ageflow.translation.ictm import ICTMConfig
from ageflow.translation.latents import Latents
from ageflow.translation.methods import TRANSLATORS, TranslatorMethod, translate_latents
from ageflow.translation.prototypes import Prototypes

_PREVIEW_FACES = 6
_DECODED_AT_A_TIME = 8  # in a preview


class TranslatorTask(Task):
    """T and D alternate: T minimises Eq. 10, D with A minimises Eq. 11.

    Each micro-batch draws faces and, for each, a target group; D sees the translations of T's update beside the
    real latents of the same batch, and A learns the age groups from the real ones (docs/method.md, Eq. 11).

    Arguments:
        settings: losses' weights and shapes; `network` is ``ictm``, or ``no_ictm`` for the ablation, which has no
            consistency loss as it has no inverse.
        faces, latents, prototypes, glow_folder: of the run.
        age_classifier: folder of the classifier of faces that `DecodedAge` makes A of; None: A is D's head.
    """

    def __init__(
        self,
        settings: TrainICTM,
        faces: Faces,
        latents: Latents,
        prototypes: Prototypes,
        glow_folder: Path,
        age_classifier: Path | None = None,
    ) -> None:
        self.settings = settings
        self.device = device_of(settings.device)
        self.latents = latents
        self.split_rows = {split: latents.rows(split=split) for split in ("train", "test")}
        self.groups = torch.tensor(latents.table["group"].to_numpy(dtype=np.int64))
        self.combinations = prototypes.combination_of(latents.table, len(latents.table))
        self.prototypes = prototypes.to(self.device)
        self.glow = load_glow(glow_folder, settings.device)
        self.count = len(prototypes.means)
        self.akd_weight = torch.tensor(settings.akd_weight, device=self.device).expand(self.count)  # by target group
        self.decoded_age = None
        inputs = {"glow": latents.glow, "faces": latents.faces, "prototypes": prototypes.fingerprint}
        if age_classifier is not None:
            self.decoded_age = DecodedAge(self.glow, load_classifier(age_classifier, settings.device)).to(self.device)
            inputs[DECODED_AGE] = fingerprint(age_classifier)
            # What each face is to stay, −1 where it is not known.
            self.values = {
                name: torch.tensor(pd.Categorical(latents.table[name], labels).codes.astype(np.int64))
                for name, labels in self.decoded_age.classifier.also.items()
            }

        config = ICTMConfig(
            latent=settings.latent, couplings=settings.couplings, width=settings.width, seed=settings.seed
        )
        translator = TRANSLATORS[settings.network](config, self.glow.latent_shapes, self.count)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(settings.seed)  # the CPU's, which is put back
            critic = Discriminator(translator.visible.dimensions, self.count)
        translator.checks_targets = False  # its targets are drawn here
        self.modules = nn.ModuleDict({"translator": translator, "discriminator": critic})
        self.objectives = [
            Objective(
                "T",
                list(translator.parameters()),
                self.translator_loss,
                settings.learning_rate,
                reduce_metrics=self._distillation_left,
            ),
            Objective("D", list(critic.parameters()), self.discriminator_loss, settings.discriminator_learning_rate),
        ]
        made = {"age_classifier_iterations", "age_classifier_from"}  # of C, which the inputs name
        self.manifest = Manifest(inputs, settings.model_dump(mode="json", exclude=made))
        self.networks = {"translator": translator.shape, "discriminator": {}}
        if settings.init_from is not None:
            self._begin_from(settings.init_from, faces)
        self._translated: dict[MicroBatch, tuple[Tensor, Tensor, Tensor]] = {}

    def start(self) -> None:
        """T begins as the identity, or from `init_from`; the prior generator at zero, or at the average latents."""
        if self.settings.init_from is None and self.settings.prior_start == "averages":
            translator = self.modules["translator"]
            averages = self.prototypes.means[:, self.prototypes.any]
            translator.prior.start_from(translator.visible.flat(averages))

    def _begin_from(self, init_from: str, faces: Faces) -> None:
        """Fill T with trained weights, and D with those that it was trained against, where they are there too."""
        settings = self.settings
        if checkpoints(Workspace.of(settings).path(settings.network)) and not settings.restart:
            return
        path = find_weights(init_from, settings.runs_root, settings.network)
        warn_of_known_people(init_from, path, faces)
        weights = read_weights(path, "translator")
        if weights is None:
            raise CheckpointError(f"{path} is not a file of the kit: a translator begins from a run or a released file")
        weights.fill(self.modules["translator"], self.networks["translator"])
        if weights.critic:
            self.modules["discriminator"].load_state_dict(weights.critic)

    def batch_rows(self, part: MicroBatch) -> np.ndarray:
        """Rows of a micro-batch among the latents, [B] int64."""
        training = self.split_rows["train"]
        return training[part.choose(len(training), self.settings.seed).numpy()]

    def batch(self, part: MicroBatch) -> tuple[Tensor, Tensor, Tensor]:
        """A micro-batch: latents [B, D], their groups [B] and attribute combinations [B]."""
        rows = self.batch_rows(part)
        groups, combinations = self.groups[rows], self.combinations[rows]
        return self.latents.batch(rows).to(self.device), groups.to(self.device), combinations.to(self.device)

    def translator_loss(self, part: MicroBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """L_T, Eq. 10."""
        z_s, source, combination = self.batch(part)
        target = part.rows(torch.randint(self.count, (part.size,), device=self.device))
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
            age, of_faces = self._decoded_losses(part, z_t, teacher)
        distance = losses.distillation(visible.flat(z_t), visible.flat(teacher), weights.akd_reduction)
        parts = {
            "distillation": distance.mean(),
            "adversarial": losses.adversarial(fake),
            "age": F.cross_entropy(age, target),  # Eq. 8
        }
        loss = (
            (self.akd_weight[target] * distance).mean()
            + weights.adversarial_weight * parts["adversarial"]
            + weights.age_weight * parts["age"]
        )
        for name, (weight, value) in of_faces.items():
            parts[name] = value
            loss = loss + weight * value
        if source_age:
            parts["consistency"] = losses.consistency(visible.flat(z_s), *source_age, reading=weights.consistency)
            loss = loss + weights.consistency_weight * parts["consistency"]
        with torch.no_grad():
            for name, latent in (("distance", z_t), ("untouched", z_s)):
                parts[name] = losses.distillation(visible.flat(latent), visible.flat(teacher), "mean").mean()
        if any(kept.number != part.number for kept in self._translated):
            self._translated.clear()  # of a measurement of memory, broken off before D's update
        self._translated[part] = (z_s, source, z_t.detach())  # for D's update, which follows
        return loss, parts

    def _decoded_losses(
        self, part: MicroBatch, z_t: Tensor, teacher: Tensor
    ) -> tuple[Tensor, dict[str, tuple[float, Tensor]]]:
        """A's logits [B, groups] of the decoded faces, and the other losses on these, each with its weight (ours)."""
        weights, asked = self.settings, {}
        images = self.decoded_age.decode(z_t)
        age, attributes = self.decoded_age.logits(images, part)
        if weights.attribute_weight and attributes:
            rows = self.batch_rows(part)
            values = {name: self.values[name][rows].to(self.device) for name in attributes}
            asked["attributes"] = (weights.attribute_weight, losses.attributes(attributes, values))
        if weights.structure_weight or weights.features_weight or weights.surroundings_weight:
            with torch.no_grad():
                like = self.decoded_age.decode(teacher)
            asked["structure"] = (weights.structure_weight, losses.structure(images, like))
            asked["features"] = (weights.features_weight, losses.features(images, like))
            asked["surroundings"] = (weights.surroundings_weight, losses.surroundings(images, like))
        return age, asked

    @staticmethod
    def _distillation_left(values: dict[str, Tensor]) -> dict[str, Tensor]:
        """`distillation_left` of the whole batch: 1 where T does nothing, 0 where it has learned its teacher."""
        left = values.pop("distance") / values.pop("untouched").clamp_min(1e-12)
        return values | {"distillation_left": left}

    def discriminator_loss(self, part: MicroBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """L_D, Eq. 11; A learns from real latents and their own groups."""
        z, group, translated = self._translated.pop(part)
        visible = self.modules["translator"].visible
        critic = self.modules["discriminator"]
        # In one call: each iterates D's spectral normalisation, and both halves are to see the same D.
        confidence, ages = critic(torch.cat([visible.flat(z), visible.flat(translated)]))
        (real, fake), age = confidence.chunk(2), ages[: len(z)]
        adversarial = losses.discriminator(real, fake)
        classification = F.cross_entropy(age, group)
        accuracy = (age.detach().argmax(1) == group).float().mean()
        loss = adversarial + self.settings.discriminator_age_weight * classification
        return loss, {"adversarial": adversarial, "age": classification, "age_accuracy": accuracy}

    @torch.inference_mode()
    def preview(self, averaged: nn.ModuleDict, folder: Path, iteration: int) -> dict[str, float]:
        """Held-out faces in their own and the other age groups; A's accuracy on real and translated latents."""
        translator, critic = averaged["translator"], averaged["discriminator"]
        rows = self.split_rows["test"] if len(self.split_rows["test"]) else self.split_rows["train"]
        z = self.latents.batch(rows[:_PREVIEW_FACES]).to(self.device)
        columns = [z] + [translate_latents(translator, z, torch.full((len(z),), t)) for t in range(self.count)]
        images = self.glow.decode(torch.stack(columns, dim=1).flatten(0, 1))
        save_faces(images, folder / f"translations-{iteration:08d}.png", columns=len(columns))

        z = self.latents.batch(rows[:256]).to(self.device)
        group = self.groups[rows[:256]].to(self.device)
        target = (group + 1 + torch.arange(len(group), device=self.device) % (self.count - 1)) % self.count
        translated = translate_latents(translator, z, target)
        return {
            "test/age_accuracy_real": float((self._ages(critic, z).argmax(1) == group).float().mean()),
            "test/age_accuracy_translated": float((self._ages(critic, translated).argmax(1) == target).float().mean()),
        }

    def _ages(self, critic: Discriminator, z: Tensor) -> Tensor:
        """A's logits [B, groups] of latents [B, D], without augmentation."""
        if self.decoded_age is not None:
            return torch.cat([self.decoded_age(some) for some in z.split(_DECODED_AT_A_TIME)])
        return critic(self.modules["translator"].visible.flat(z))[1]


def train_translator(settings: TrainICTM) -> Path:
    """Train ICTM (or, by `network`, the network without it) with D and A; returns the run's folder of it.

    Stopped, it continues.

    Raises:
        MissingArtefactError: no GLOW, latents or prototypes yet; the message names the notebook.
        CheckpointError: the latents or prototypes are of another GLOW than the run's.
        ConfigChangedError: the folder holds one trained with other values.
    """
    workspace = Workspace.of(settings)
    folder = workspace.path(settings.network)
    if launched(settings, folder):
        return folder
    faces = Faces.open(workspace.require("faces"))
    glow_folder = workspace.require("glow")
    latents = Latents.open(workspace.require("latents"), faces)
    prototypes = Prototypes.load(workspace.require("prototypes"))
    _check_same_glow(fingerprint(glow_folder), latents, prototypes)
    made = (faces, latents, prototypes, glow_folder)
    classifier = None
    if settings.age_classifier == "decoded":
        classifier = workspace.path(DECODED_AGE)
        if settings.network == "ictm":  # the ablation takes C as it is
            with alone_in(folder, processes()):
                TranslatorTask(settings, *made)  # wrong values are found before C is trained
            train_age_classifier(settings, faces)
    return train(TranslatorTask(settings, *made, classifier), settings, folder)


def train_without_ictm(workspace: Workspace, width: int | None = None, restart: bool = False) -> Path:
    """Train the network without ICTM as the run's T was trained: settings and classifier are T's own.

    Arguments:
        workspace: the run's.
        width: hidden channels of its networks; None: T's.
        restart: begin it anew; what was there is kept under a number.

    Raises:
        MissingArtefactError: the run has no T yet.
        ConfigChangedError: it holds one that was trained unlike today's T.
    """
    trained = latest(workspace.require("ictm"))
    own = {"network": "no_ictm", "restart": restart, "init_from": None, "runs_root": workspace.runs_root}
    own |= {"dataset": workspace.dataset, "run": workspace.run} | ({"width": width} if width else {})
    return train_translator(TrainICTM.checked(trained.settings | {"iterations": trained.iteration} | own))


def _check_same_glow(glow: str, latents: Latents, prototypes: Prototypes) -> None:
    for what, of in (("latents", latents.glow), ("prototypes", prototypes.glow)):
        if of != glow:
            raise CheckpointError(
                f"the run's {what} are of GLOW {of}, and its GLOW is now {glow}: run 03_prototypes.ipynb again"
            )
    if prototypes.faces != latents.faces:
        raise CheckpointError("the run's averages are of other faces than its latents: run 03_prototypes.ipynb again")


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
