"""Train the translator T against D and A on latents encoded once (Eqs. 6-11, Fig. 3).

A reads the age group of a latent. The paper's is a head on D's two linear layers, and learns from as many latents as there
are faces. With few faces T finds latents that such an A takes for any age while the decoded face hardly changes. So A may
also read the decoded face (`age_classifier` = decoded, ours): a classifier C of faces generalises from few, and as
`Glow.decode` is exact and differentiable, A(z) = C(G⁻¹(z)) is a classifier of latents as well, whose gradient reaches T.
The same C predicts the attributes, and T may be asked to keep them.
"""

import warnings
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ageflow.checkpoint import ConfigChangedError, find_weights, fingerprint, newest, read_weights
from ageflow.config import TrainICTM, validated
from ageflow.data.faces import Faces
from ageflow.data.records import PAPER_GROUPS
from ageflow.device import device_of, fast_precision, free_memory, reduced_precision, sent
from ageflow.flows.glow import load_glow
from ageflow.parameters import settings as settings_of
from ageflow.run import Manifest, Workspace, digest
from ageflow.training.classifier import ClassifierTask, augmented, labelled, numbered
from ageflow.training.distributed import launched, processes
from ageflow.training.loop import alone_in, train
from ageflow.training.metrics import save_faces
from ageflow.training.task import MicroBatch, Objective, Task, Values, begun, initial_weights
from ageflow.translation import losses
from ageflow.translation.ages import as_weights
from ageflow.translation.calibration import DecodedAge, Reader, condition_of, of_groups
from ageflow.translation.classifier import load_classifier
from ageflow.translation.ictm import Discriminator, ICTMConfig
from ageflow.translation.methods import TRANSLATORS
from ageflow.translation.prototypes import Latents, Prototypes
from ageflow.work import resumable_map

Weighted = dict[str, tuple[float, Tensor]]  # losses by name, each with its weight
_PREVIEW_FACES = 6
_VALIDATED = 256  # faces, by A
_SEARCHED = 64  # faces whose lengths are searched at a time
_DECODED_AT_A_TIME = 8  # in a preview
DECODED_AGE = "decoded_age"  # C's folder in a run, and its file among the weights that come with the kit
# Added to the seed: notebook 05's judge starts from other weights and sees the faces in another order.
_NOT_THE_JUDGE = 1009
_MOVED = 0.5  # share of the judges' augmentation that the C that comes with the kit has learned from


class TranslatorTask(Task):
    """T and D alternate: T minimises Eq. 10, D with A minimises Eq. 11.

    Each micro-batch draws faces and, for each, a target group; D sees the translations of T's update beside the
    real latents of the same batch, and A learns the age groups from the real ones (docs/method.md, Eq. 11).

    Arguments:
        settings: losses' weights and shapes; `network` is ``ictm``, or ``no_ictm`` for the ablation, which has no
            consistency loss as it has no inverse.
        age_classifier: folder of the classifier of faces that `DecodedAge` makes A of; None: A is D's head.

    Raises:
        MissingArtefactError: no faces, GLOW, latents or prototypes yet; the message names the notebook.
        CheckpointError: the latents or prototypes are of another GLOW or of other faces than the run's.
    """

    def __init__(self, settings: TrainICTM, age_classifier: Path | None = None) -> None:
        self.settings, self.device = settings, device_of(settings.device)
        workspace = Workspace.of(settings)
        faces, glow_folder = Faces.open(workspace.require("faces")), workspace.require("glow")
        made_from = {"glow": fingerprint(glow_folder), "faces": faces.fingerprint}
        self.latents = Latents.open(workspace.require("latents"), faces, made_from["glow"], settings.device)
        prototypes = Prototypes.load(workspace.require("prototypes"), **made_from)
        self.faces, self.reader, self.workspace = faces, None, workspace
        self.split_rows = {split: self.latents.rows(split=split) for split in ("train", "test")}
        self.groups = torch.tensor(faces.table["group"].to_numpy(dtype=np.int64))
        self.combinations = prototypes.combination_of(faces.table, len(faces))
        self.prototypes = prototypes.to(self.device)
        size = 4 * len(self.latents) * self.latents.dimensions
        self.held = None  # all latents, on a GPU that has room for them
        if self.latents.shards and self.device.type == "cuda" and size < free_memory(self.device) / 4:
            self.held = torch.cat([torch.tensor(shard, device=self.device) for shard in self.latents.shards])
        # Rounded as C is: T learns from what they make of its latents, and itself stays as exact as it will be used.
        self.glow = load_glow(glow_folder, settings.device, fast_precision(self.device))
        self.count = len(prototypes.means)
        inputs = made_from | {"prototypes": prototypes.fingerprint}
        self.decoded_age = None
        if age_classifier is not None:
            self.decoded_age = DecodedAge(self.glow, load_classifier(age_classifier, settings.device))
            inputs[DECODED_AGE] = fingerprint(age_classifier)
            # What each face is to stay, −1 where it is not known.
            also = self.decoded_age.classifier.also
            self.values = {name: numbered(faces.table[name], labels) for name, labels in also.items()}

        config = ICTMConfig(**settings.model_dump(include={"latent", "couplings", "width", "condition", "seed"}))
        source_aware = settings.condition == "source_aware"
        combinations = max(1, prototypes.any) if source_aware else 1
        translator = TRANSLATORS[settings.network](config, self.glow.latent_shapes, self.count, combinations)
        translator.checks_targets = False  # its targets are drawn here
        self.visible = translator.visible
        if source_aware and self.decoded_age is not None:
            self.reader = Reader(self.decoded_age, self.prototypes, settings.scale, self.visible.only)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(settings.seed)  # the CPU's, which is put back
            critic = Discriminator(self.visible.dimensions, self.count)
        self.modules = nn.ModuleDict({"translator": translator, "discriminator": critic})
        of_t, of_d = (list(module.parameters()) for module in (translator, critic))
        self.objectives = [
            Objective("T", of_t, self.translator_loss, settings.learning_rate, reduce_metrics=_distillation_left),
            Objective("D", of_d, self.discriminator_loss, settings.discriminator_learning_rate),
        ]
        made = {"age_classifier_iterations", "age_classifier_from"}  # of C, which the inputs name
        self.manifest = Manifest(inputs, settings.model_dump(mode="json", exclude=made))
        shape = translator.shape | {"bounds": list(faces.age_groups.bounds)}
        self.networks = {"translator": shape, "discriminator": {}}
        weights = initial_weights(settings, settings.network, "translator", faces)
        if weights is not None:
            weights.fill(translator, shape)
            if weights.critic:  # D that T was trained against
                critic.load_state_dict(weights.critic)
        self._translated: dict[MicroBatch, tuple[Tensor, Tensor, Tensor]] = {}

    def start(self) -> None:
        """T begins as the identity, or from `init_from`; the prior generator at zero, or at the average latents.

        Where T knows the face's age, it begins from these as the calibrated step, its teacher.
        """
        if self.settings.init_from is None and self.settings.prior_start == "averages":
            averages = self.prototypes.smoothed if self.reader else self.prototypes.means[:, self.prototypes.any]
            self.modules["translator"].start_from(self.visible.flat(averages), self.settings.scale)

    def batch_rows(self, part: MicroBatch) -> np.ndarray:
        """Rows of a micro-batch among the latents, [B] int64."""
        training = self.split_rows["train"]
        return training[part.choose(len(training), self.settings.seed).numpy()]

    def batch(self, part: MicroBatch) -> tuple[Tensor, Tensor, Tensor]:
        """A micro-batch: latents [B, D], their groups [B] and attribute combinations [B]."""
        rows = self.batch_rows(part)
        group, combination = (sent(numbers[rows], self.device) for numbers in (self.groups, self.combinations))
        if self.held is not None:
            return self.held[sent(torch.from_numpy(rows), self.device)].float(), group, combination
        return sent(self.latents.batch(rows), self.device), group, combination

    def translator_loss(self, part: MicroBatch) -> tuple[Tensor, Values]:
        """L_T, Eq. 10, and ours."""
        z_s, group, combination = self.batch(part)
        target = part.rows(torch.randint(self.count, (part.size,), device=self.device))
        settings, flat, translator = self.settings, self.visible.flat, self.modules["translator"]
        told = self._told(self.batch_rows(part), target)
        source = told.get("source", group)
        teacher = self._teacher(z_s, source, target, combination, told.get("length"))
        z_t, *source_age = translator(z_s, target, **told)
        distance = losses.distillation(flat(z_t), flat(teacher), settings.akd_reduction)
        fake, age = self.modules["discriminator"](flat(z_t))
        weighted: Weighted = {"adversarial": (settings.adversarial_weight, losses.adversarial(fake))}
        if self.decoded_age is not None:
            age, kept = self._decoded_losses(part, z_t)
            weighted |= (
                {"attributes": (settings.attribute_weight, kept)} if self.values and settings.attribute_weight else {}
            )
        weighted["age"] = (settings.age_weight, losses.age(age, target))
        if settings.cycle_weight:
            # As far back: T is told the negative of what it was told.
            there = condition_of(as_weights(target, self.count, check=False), source) + source
            back = translator(z_t, of_groups(source, self.count), source=there, length=told["length"])[0]
            weighted["cycle"] = (settings.cycle_weight, losses.distillation(flat(back), flat(z_s)).mean())
        if source_age:
            consistency = losses.consistency(flat(z_s), *source_age, reading=settings.consistency)
            weighted["consistency"] = (settings.consistency_weight, consistency)
        weighted["distillation"] = (settings.akd_weight, distance.mean())
        loss = sum(weight * value for weight, value in weighted.values())
        values = {name: value for name, (_, value) in weighted.items()}
        with torch.no_grad():
            for name, latent in (("distance", z_t), ("untouched", z_s)):
                values[name] = losses.distillation(flat(latent), flat(teacher)).mean()
        self._translated[part] = (z_s, group, z_t.detach())  # for D's update, which follows
        return loss, values

    @torch.no_grad()
    def _teacher(
        self, z_s: Tensor, source: Tensor, target: Tensor, combination: Tensor, length: Tensor | None
    ) -> Tensor:
        """Eq. 6's target [B, D].

        For t = s the direction is zero and the face its own target. The levels that T does not see (`latent`) stay the
        face's: it cannot move them. With a source that C read, it is the calibrated step (ours).
        """
        if length is None:
            step = self.settings.scale * self.prototypes.direction(source, target, combination, check=False)
            return z_s + self.visible.only(step)
        return z_s + length[:, None] * self.reader.step(source, as_weights(target, self.count, check=False))

    def _told(self, rows: np.ndarray, target: Tensor) -> dict[str, Tensor]:
        """What T is told of faces beside the target groups [B]: what C reads in them, and how far to go."""
        if self.reader is None:
            return {}
        place = sent(torch.from_numpy(rows), self.device)
        source, lengths = (table[place] for table in self.searched)
        return {"source": source, "length": lengths.gather(1, target[:, None])[:, 0]}

    @cached_property
    def searched(self) -> tuple[Tensor, Tensor]:
        """What C reads in each face [N, groups · K], and the teacher's length to each group [N, groups].

        Searched once, by all processes, for the faces that T learns from and the previews show; kept in the run's
        ``lengths/``, where a training that was stopped and the ablation find them.
        """
        rows, together = np.concatenate([self.split_rows["train"], self.split_rows["test"][:_VALIDATED]]), processes()
        pieces = np.split(rows, range(_SEARCHED, len(rows), _SEARCHED))
        made_from = [self.manifest.inputs, self.settings.scale, self.visible.levels]

        def search(rows: np.ndarray) -> dict[str, list]:
            z, source = sent(self.latents.batch(rows), self.device), self._read(rows)
            goals = torch.eye(self.count, device=self.device)
            lengths = [self.reader.lengths(z, source, goal.expand(len(z), -1)) for goal in goals]
            return {"source": source.tolist(), "lengths": torch.stack(lengths, dim=1).tolist()}

        def of_process(rank: int, show: bool = False) -> list[dict[str, list]]:
            own, folder = pieces[rank :: together.count], self.workspace.path("lengths", f"{rank}-of-{together.count}")
            keys, sizes = [digest([made_from, piece.tolist()]) for piece in own], [*map(len, own)]
            return resumable_map(search, own, folder, keys, sizes=sizes, title="lengths", unit="face", show=show)

        of_process(together.rank, self.settings.progress and together.first)
        together.largest(0)  # until all have searched theirs
        ranks = range(together.count)
        found = [piece for rank in ranks for piece in of_process(rank)]
        places = np.concatenate([piece for rank in ranks for piece in pieces[rank :: together.count]])

        def table(name: str) -> Tensor:
            values = torch.tensor([row for piece in found for row in piece[name]])
            whole = values.new_zeros(len(self.latents), values.shape[1])
            whole[places] = values
            return whole.to(self.device)

        return table("source"), table("lengths")

    def _read(self, rows: np.ndarray) -> Tensor:
        """What C reads in faces, weights [B, groups · K]."""
        return self.reader(sent(self.faces.images(rows), self.device))

    def _decoded_losses(self, part: MicroBatch, z_t: Tensor) -> tuple[Tensor, Tensor]:
        """A's logits [B, groups] of the decoded faces, and their attributes' loss (ours).

        The faces are augmented half as far as judges learn from, so that T cannot please C by single pixels.
        """
        classifier, rows = self.decoded_age.classifier, self.batch_rows(part)
        images = augmented(self.decoded_age.decode(z_t), part, _MOVED)
        with reduced_precision(self.device):
            logits = classifier(images)
        age, attributes = classifier.split_logits(logits.float())
        values = {name: sent(self.values[name][rows], self.device) for name in attributes}
        return age, losses.attributes(attributes, values)

    def discriminator_loss(self, part: MicroBatch) -> tuple[Tensor, Values]:
        """L_D, Eq. 11; A learns from real latents and their own groups."""
        z, group, translated = self._translated.pop(part)
        # In one call: each iterates D's spectral normalisation, and both halves are to see the same D.
        confidence, ages = self.modules["discriminator"](self.visible.flat(torch.cat([z, translated])))
        adversarial, age = losses.discriminator(*confidence.chunk(2)), losses.age(ages[: len(z)], group)
        accuracy = (ages[: len(z)].detach().argmax(1) == group).float().mean()
        loss = adversarial + self.settings.discriminator_age_weight * age
        return loss, {"adversarial": adversarial, "age": age, "age_accuracy": accuracy}

    @torch.inference_mode()
    def preview(self, averaged: nn.ModuleDict, folder: Path, iteration: int) -> dict[str, float]:
        """Held-out faces in their own and the other age groups; A's accuracy on real and translated latents."""
        translator, critic = averaged["translator"], averaged["discriminator"]
        rows = self.split_rows["test"] if len(self.split_rows["test"]) else self.split_rows["train"]
        rows = rows[:_VALIDATED]
        z = self.latents.batch(rows).to(self.device)
        shown = z[:_PREVIEW_FACES]

        def moved(z: Tensor, target: Tensor) -> Tensor:
            return translator(z, target, **self._told(rows[: len(z)], target))[0]

        columns = [shown] + [moved(shown, torch.full((len(shown),), t, device=self.device)) for t in range(self.count)]
        images = self.glow.decode(torch.stack(columns, dim=1).flatten(0, 1))
        save_faces(images, folder / f"translations-{iteration:08d}.png", columns=len(columns))

        group = self.groups[rows].to(self.device)
        target = (group + 1 + torch.arange(len(group), device=self.device) % (self.count - 1)) % self.count
        translated = moved(z, target)
        return {
            "test/age_accuracy_real": float((self._ages(critic, z).argmax(1) == group).float().mean()),
            "test/age_accuracy_translated": float((self._ages(critic, translated).argmax(1) == target).float().mean()),
        }

    def _ages(self, critic: Discriminator, z: Tensor) -> Tensor:
        """A's logits [B, groups] of latents [B, D], without augmentation."""
        if self.decoded_age is not None:
            return torch.cat([self.decoded_age(some) for some in z.split(_DECODED_AT_A_TIME)])
        return critic(self.visible.flat(z))[1]


def _distillation_left(values: Values) -> Values:
    """With `distillation_left` of the whole batch: 1 where T does nothing, 0 where it has learned its teacher."""
    left = values.pop("distance") / values.pop("untouched").clamp_min(1e-12)
    return values | {"distillation_left": left}


def train_translator(settings: TrainICTM) -> Path:
    """Train ICTM (or, by `network`, the network without it) with D and A; returns the run's folder of it.

    Stopped, it continues.

    Raises:
        MissingArtefactError: no GLOW, latents or prototypes yet; the message names the notebook.
        CheckpointError: the latents or prototypes are of another GLOW than the run's.
        ConfigChangedError: the folder holds one trained with other values.
    """
    workspace = Workspace.of(settings)
    folder, classifier = workspace.path(settings.network), None
    if launched(settings, folder):
        return folder
    if settings.age_classifier == "decoded":
        classifier = workspace.path(DECODED_AGE)
        if settings.network == "ictm":  # the ablation takes C as it is
            with alone_in(folder, processes()):
                TranslatorTask(settings)  # wrong values are found before C is trained
            train_age_classifier(settings, Faces.open(workspace.require("faces")))
    return train(TranslatorTask(settings, classifier), settings, folder)


def train_age_classifier(settings: TrainICTM, faces: Faces) -> Path:
    """Train C on the run's faces, as notebook 05 trains the preset's judge; stopped, it continues.

    It learns the faces' attributes beside the age, where they are known. Begun from weights, it has their architecture,
    and without updates it predicts those attributes only that the weights predict. The kit's own weights are trained
    further all the same where the age groups are not the paper's, which are theirs.

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
    folder = Workspace.of(settings).path(DECODED_AGE)
    iterations, from_weights, shape = settings.age_classifier_iterations, settings.age_classifier_from, None
    made = begun(settings, DECODED_AGE)
    if from_weights == "pretrained" and faces.age_groups != PAPER_GROUPS:  # whose groups it has: it has to learn others
        iterations = iterations or None
    if made is not None:
        shape = made.networks["classifier"]
    elif from_weights is not None:
        weights = read_weights(find_weights(from_weights, settings.runs_root, DECODED_AGE), "classifier")
        shape = weights.config if weights else None  # otherwise the task names what is wrong
    attributes = faces.attributes
    if shape and iterations == 0:  # what the weights do not predict it does not learn either
        known = shape.get("also", {})
        attributes = [name for name in attributes if known.get(name) == list(labelled(faces, name)[0])]

    common = {"dataset", "preset", "run", "runs_root", "device", "progress", "gpus", "nodes", "rendezvous", "restart"}
    given = settings.model_dump(include=common) | {"seed": settings.seed + _NOT_THE_JUDGE, "cooldown": 0}
    given |= {"init_from": from_weights or "nothing", "architecture": shape and shape["architecture"]}
    chosen = settings_of("train_classifiers", given | {"iterations": iterations or None})
    if iterations == 0:  # `Training` has them begin at 1
        chosen = chosen.model_copy(update={"iterations": 0})
    task = ClassifierTask(chosen, faces, "age", DECODED_AGE, balance=faces.attributes, also=attributes)
    if made is not None and made.iteration < chosen.iterations and begun(settings, settings.network):
        raise ConfigChangedError(
            f"age_classifier_iterations = {chosen.iterations}: T has learned from the classifier in {folder}, which has "
            f"{made.iteration} updates: pass that number, name another run, or pass restart=True for both"
        )
    return train(task, chosen, folder)


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
    trained = newest(workspace.require("ictm"))
    if trained.settings["init_from"] is not None:
        why = "the run's ICTM began from weights, and the network without it begins from nothing"
        warnings.warn(f"{why}: ICTM is not all that sets the two apart", stacklevel=2)
    own = {"network": "no_ictm", "restart": restart, "init_from": None, "iterations": trained.iteration}
    own |= {"consistency_weight": 0.0, "consistency": "source"}  # it has no such loss
    own |= {"width": width} if width else {}
    return train_translator(validated(TrainICTM, trained.settings | vars(workspace) | own))
