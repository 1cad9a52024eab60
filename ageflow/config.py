"""Every parameter of every notebook, with its type, default and description: one `Settings` class a step."""

import ast
import os
import re
from collections.abc import Mapping
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic.functional_validators import AfterValidator

from ageflow.names import BASELINES, METHODS, any_method, nearest

Dataset = Literal["demo", "morph", "cacd", "fgnet", "celeba", "utkface", "folder"]
Preset = Literal["smoke", "demo", "paper"]
Architecture = Literal["resnet14", "resnet18", "resnet50", "resnet101"]
LatentChoice = Literal["all", "top"] | list[int]
Condition = Literal["target", "source_aware"]
AnyMethod = Annotated[str, AfterValidator(any_method)]
BaselineName = Literal[tuple(BASELINES)]
# Only with a classifier of decoded faces; their defaults ask for nothing.
OF_DECODED = ("age_classifier_iterations", "age_classifier_from", "attribute_weight", "condition", "cycle_weight")
DATASETS: tuple[str, ...] = Dataset.__args__
PAPER_BOUNDS = (30, 40, 50)  # age groups by their last completed years; the last group has no end
Positive = Annotated[float, Field(gt=0)]
AtLeastOne = Annotated[int, Field(ge=1)]
Year = Annotated[int, Field(ge=1, lt=120)]
# One for all the published methods, or one by method.
Counts = AtLeastOne | dict[BaselineName, AtLeastOne]
Values = Positive | dict[BaselineName, Positive]


def _rising(values: list[int]) -> list[int]:
    if values != sorted(set(values)):
        raise ValueError(f"expected rising years, such as {sorted(set(values))}")
    return values


Bounds = Annotated[list[Year], Field(min_length=1, max_length=9), AfterValidator(_rising)]


class ParameterError(ValueError):
    """A parameter of a notebook that cannot be used; the message names it and what was expected."""


def default_runs_root() -> Path:
    """The folder that holds all runs.

    ``AGEFLOW_RUNS`` where it is set; otherwise the ``runs`` folder of the project that the working directory
    lies in, so that a notebook finds the same runs from ``notebooks/`` and from the root;
    otherwise ``runs`` in the working directory.
    """
    if os.environ.get("AGEFLOW_RUNS"):
        return Path(os.environ["AGEFLOW_RUNS"]).expanduser().resolve()
    start = Path.cwd()
    for folder in (start, *start.parents):
        if (folder / "pyproject.toml").is_file() and (folder / "notebooks").is_dir():
            return folder / "runs"
    return start / "runs"


Model = TypeVar("Model", bound=BaseModel)


def validated(cls: type[Model], values: Mapping[str, Any]) -> Model:
    """A `cls` of `values`, every problem named in one `ParameterError`."""
    try:
        return cls(**values)
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            if not problem["loc"]:  # of several parameters: the message names them, and the input is all there are
                lines.append(problem["msg"].removeprefix("Value error, "))
                continue
            name, value = str(problem["loc"][0]), problem["input"]
            about = getattr(cls.model_fields.get(name), "description", None)
            expected = re.findall(r"'(.+?)'", problem.get("ctx", {}).get("expected", ""))  # of a Literal
            said = problem["msg"] + (nearest(value, expected) if isinstance(value, str) else "")
            lines.append(f"{name} = {value!r}: {said}{f' ({about})' if about else ''}")
        raise ParameterError("; ".join(dict.fromkeys(lines))) from None


class Settings(BaseModel):
    """What every notebook takes.

    The fields' descriptions are the documentation; `settings` builds one from a notebook's parameters.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)
    step: ClassVar[str]  # the notebook's, a key of `STEPS`

    dataset: Dataset = Field("demo", description="data set: demo, morph, cacd, fgnet, celeba, utkface or folder")
    preset: Preset = Field("demo", description="sizes: smoke (seconds), demo (minutes) or paper (as in the paper)")
    run: str = Field("demo", description="name of the run: everything lies in runs/<dataset>/<run>")
    data_root: Path | None = Field(None, description="folder that holds the raw data set; the demo set needs none")
    runs_root: Path = Field(default_factory=default_runs_root, description="folder of all runs")
    seed: int = Field(0, ge=0, description="where every random number of this step comes from")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1")
    progress: bool = Field(True, description="draw progress bars")

    def __init_subclass__(cls, step: str = "", **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.step = step

    @model_validator(mode="before")
    @classmethod
    def _as_papermill_passes_it(cls, values: Any) -> Any:
        # Its -p knows numbers, True and False: a list comes as text, a run that is called 007 as 7.
        fields = {name: field.annotation for name, field in cls.model_fields.items()}
        return {name: _meant(value, fields[name]) if name in fields else value for name, value in values.items()}

    @field_validator("*", mode="after")
    @classmethod
    def _expand(cls, value: Any, about: ValidationInfo) -> Any:
        if not isinstance(value, Path):
            return value
        value, is_root = value.expanduser(), about.field_name == "data_root"
        if is_root and about.data.get("dataset") == "demo":
            raise ValueError("dataset = 'demo' draws its faces and does not read it; did you mean dataset = 'folder'?")
        # Of a picture folder that is a link, the tables lie beside the link.
        return value.absolute() if is_root and ".." not in value.parts else value.resolve()

    @field_validator("attributes", "methods", "latent", "strengths", mode="after", check_fields=False)
    @classmethod
    def _each_once(cls, values: Any) -> Any:
        twice = [value for value in dict.fromkeys(values or ()) if isinstance(values, list) and values.count(value) > 1]
        if twice:
            raise ValueError(f"duplicate value {twice[0]!r}")
        return values


class PrepareData(Settings, step="prepare_data"):
    """Notebook 01: from raw files to aligned faces."""

    image_size: int = Field(64, ge=16, description="side of the aligned faces, pixels")
    faces: int = Field(1200, ge=16, description="demo set: how many faces to draw")
    groups: Bounds = Field([*PAPER_BOUNDS], description="age groups: 1 to 9 rising last years, and all above")
    shard_size: int = Field(4096, ge=1, description="faces in one shard file")
    test_share: float = Field(0.2, gt=0, lt=1, description="share of the identities kept for testing")
    cache: Path = Field(Path("~/.cache/ageflow"), description="where generated faces are kept between runs")
    genders: Path | None = Field(None, description="cacd: CSV of name or identity and gender; None: by majority vote")
    columns: str | None = Field(None, description="folder: its table's columns, file=file_name, age=real_age …")
    workers: int = Field(0, ge=0, description="processes that align faces, a shard each; 0: one a processor or GPU")
    scheduler: str | None = Field(None, description="dask scheduler, tcp://host:port, for many machines; None: local")


class Training(Settings):
    """What every training step takes; `iterations` counts optimiser updates."""

    iterations: int = Field(1000, ge=1, description="optimiser updates")
    batch_size: int = Field(16, ge=1, description="faces in one update, over all its passes and processes")
    micro_batch: Annotated[int, Field(ge=1)] | Literal["auto"] | None = Field(
        None, description="faces in one forward pass of a process; auto: as many as fit; nothing: its whole share"
    )
    learning_rate: float = Field(1e-5, gt=0, description="Adam's learning rate")
    warmup: int = Field(0, ge=0, description="updates over which the learning rate rises linearly")
    cooldown: int = Field(0, ge=0, description="last updates, over which the learning rate falls linearly to zero")
    clip: float | None = Field(None, gt=0, description="largest gradient norm, after accumulation, or nothing")
    ema: float = Field(0.999, ge=0, lt=1, description="decay of the averaged weights; 0: keep no average")
    log_every: int = Field(10, ge=1, description="updates between two lines of metrics")
    preview_every: int = Field(500, ge=1, description="updates between two sample grids and validations")
    checkpoint_every: int = Field(500, ge=1, description="updates between two checkpoints")
    init_from: str | None = Field(None, description="initial weights: dataset/run, a path, pretrained, or nothing")
    restart: bool = Field(False, description="begin anew, once; what was there is kept under a number")
    gpus: int = Field(1, ge=1, description="processes on this machine, one a GPU; without GPUs they share the CPU")
    nodes: int = Field(1, ge=1, description="machines that train together, each started with the same values")
    rendezvous: str | None = Field(None, description="host:port of one of several machines, where they meet")
    max_restarts: int = Field(3, ge=0, description="times that processes which died are started again")

    @field_validator("init_from", "age_classifier_from", "clip", "micro_batch", mode="before", check_fields=False)
    @classmethod
    def _nothing_has_a_word(cls, value: object) -> object:
        # None leaves it to the preset, so beginning from new weights, or no clipping, has a word of its own.
        return None if value == "nothing" else str(value) if isinstance(value, Path) else value

    @model_validator(mode="after")
    def _check_processes(self) -> Self:
        processes = self.gpus * self.nodes
        if isinstance(self.batch_size, int) and self.batch_size < processes:
            raise ValueError(f"batch_size = {self.batch_size} is less than a face for each of {processes} processes")
        if self.nodes > 1 and not re.fullmatch(r"[^:\s]+:\d+", self.rendezvous or ""):
            raise ValueError(f"nodes = {self.nodes} need a rendezvous, host:port, not {self.rendezvous!r}")
        return self


class TrainGlow(Training, step="train_glow"):
    """Notebook 02: the flow. Its side and channels come from the prepared faces."""

    levels: int = Field(4, ge=1, description="levels of the flow; each halves the side")
    steps: int | list[int] = Field(16, description="flow steps a level: one number, or one number a level")
    hidden: int = Field(128, ge=1, description="hidden channels of the coupling networks")
    coupling: Literal["additive", "affine"] = Field("additive", description="coupling: additive (paper) or affine")
    prior: Literal["standard", "learned"] = Field("standard", description="prior: standard, or learned and whitened")
    bits: int = Field(5, ge=1, le=8, description="bits a channel the likelihood is computed at")
    memory: Literal["plain", "checkpoint", "reversible"] = Field("plain", description="what the backward pass keeps")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="arithmetic inside the coupling networks")
    flip: bool = Field(False, description="mirror half of the faces while training")
    temperature: float = Field(0.7, gt=0, description="temperature of the samples drawn on the way")


class Prototypes(Settings, step="prototypes"):
    """Notebook 03: encode every face once; average the latents per age group and attributes."""

    attributes: list[str] | None = Field(
        None, description="held fixed while ageing: gender, race; None: gender if known"
    )
    min_cell: int = Field(20, ge=1, description="fewest faces of an average; smaller cells fall back")
    encode_batch: int = Field(64, ge=1, description="faces encoded at a time")
    keep: bool = Field(True, description="write the latents; False: each update of T encodes its own faces")
    workers: int = Field(0, ge=0, description="processes that encode; 0: one a GPU, or one where there is none")
    scheduler: str | None = Field(None, description="dask scheduler, tcp://host:port, for many machines; None: local")


class TrainICTM(Training, step="train_ictm"):
    """Notebook 04: the translator T with D and A, Eqs. 6-11, on latents encoded once."""

    latent: LatentChoice = Field("all", description="what T and D see: all, top, or a list of levels from 0")
    couplings: int = Field(32, ge=1, description="m, the number of couplings F_1…F_m")
    width: int = Field(64, ge=4, description="hidden channels of each F")
    condition: Condition = Field("target", description="T is told the target, or the source's age too (source_aware)")
    prior_start: Literal["zero", "averages"] = Field("zero", description="prior generator's start (see ictm.py)")
    scale: float = Field(1.4, gt=0, description="s of Eq. 6 (MORPH 1.4, CACD 1.8)")
    akd_weight: float = Field(1.0, ge=0, description="weight of the distillation loss, Eq. 6")
    akd_reduction: Literal["mean", "sum"] = Field("mean", description="Eq. 6 over the dimensions: mean or sum")
    adversarial_weight: float = Field(1.0, ge=0, description="weight of the adversarial loss, Eq. 7")
    age_weight: float = Field(1.0, ge=0, description="weight of the age classification loss, Eq. 8")
    consistency_weight: float = Field(0.01, ge=0, description="weight of the consistency loss, Eq. 9")
    consistency: Literal["source", "literal"] = Field("source", description="reading of Eq. 9 (see losses.py)")
    discriminator_age_weight: float = Field(0.1, ge=0, description="weight of A's loss in Eq. 11")
    age_classifier: Literal["latent", "decoded"] = Field("latent", description="A sees latents or decoded faces, Eq. 8")
    age_classifier_iterations: int | None = Field(None, ge=0, description="its updates; None: the judge's; 0: none")
    age_classifier_from: str | None = Field(None, description="its initial weights, named as init_from names them")
    attribute_weight: float = Field(0.0, ge=0, description="weight of the decoded face keeping its attributes (ours)")
    cycle_weight: float = Field(0.0, ge=0, description="weight of T moving the latent back (source_aware, ours)")
    discriminator_learning_rate: float = Field(1e-4, gt=0, description="learning rate of D and A")
    network: Literal["ictm", "no_ictm"] = Field("ictm", description="ictm, or no_ictm: the ablation of 3.4")

    @model_validator(mode="after")
    def _check_age_classifier(self) -> Self:
        for name in OF_DECODED if self.age_classifier == "latent" else ():
            if getattr(self, name) != type(self).model_fields[name].default:
                what = f"{name} = {getattr(self, name)!r} is for a classifier of decoded faces"
                raise ValueError(f"{what}: pass age_classifier = decoded, or leave {name} out")
        if self.cycle_weight and self.condition == "target":
            why = f"cycle_weight = {self.cycle_weight} takes a T that knows the face's age"
            raise ValueError(f"{why}: pass condition = source_aware, or cycle_weight = 0")
        if self.age_classifier_iterations == 0 and self.age_classifier_from is None:
            raise ValueError("age_classifier_iterations = 0 takes given weights: name some by age_classifier_from")
        return self


class TrainClassifiers(Training, step="train_classifiers"):
    """Notebook 05: the judges, an age classifier and one classifier per attribute."""

    architecture: Architecture = Field("resnet18", description="network; resnet14: resnet18 without its last stage")
    weight_decay: float = Field(1e-4, ge=0, description="AdamW's weight decay")


class TrainBaselines(Training, step="baselines"):
    """Notebook 11: the published methods. What is None, or a table without a method, is the method's own (`Recipe`)."""

    methods: list[BaselineName] = Field(list(BASELINES), min_length=1, description="the methods to train")
    iterations: Counts | None = Field(None, description="optimiser updates: a number, or one by method; None: its own")
    batch_size: Counts | None = Field(None, description="faces in an update: a number, or one by method; None: its own")
    learning_rate: Values | None = Field(None, description="learning rate: a number, or one by method; None: its own")
    width: Values = Field(1.0, description="share of the papers' channels: a number, or one by method and else 1")
    weights: dict[str, Annotated[float, Field(ge=0)]] = Field(
        {}, description="weights of the generator's losses by name, in place of the methods' own"
    )


class Ablations(Settings, step="ablations"):
    """Notebook 06: train w/o ICTM as T was trained, then judge the methods."""

    methods: list[AnyMethod] = Field(list(METHODS), min_length=1, description="the methods to judge")
    no_ictm_width: int | None = Field(None, ge=4, description="hidden channels of the network without ICTM; None: T's")
    restart: bool = Field(False, description="train it anew, once; what was there is kept under a number")
    embedder: str = Field("dlib", description="identity: dlib, or the path of an ArcFace ONNX file")
    external: str | None = Field(None, description="judge on the test faces of another prepared run (dataset/run)")
    evaluation_faces: int | None = Field(None, ge=4, description="judge on so many test faces; None: all")
    evaluation_batch: int = Field(64, ge=1, description="faces judged at a time")
    cycle_faces: int | None = Field(32, ge=4, description="of them, faces translated there and back")
    continuous_faces: int | None = Field(64, ge=4, description="of them, faces taken from young to old")
    strength_faces: int | None = Field(64, ge=4, description="of them, faces translated at other strengths too")
    strengths: list[Annotated[float, Field(gt=0, le=5)]] = Field([0.4, 0.6, 0.8, 1.2], description="those strengths")
    inception: Path | None = Field(None, description="torch-fidelity's InceptionV3 for KID; None: the second judge")


class Tables(Settings, step="tables"):
    """Notebook 07: Tables 1-6."""

    bootstrap: int = Field(1000, ge=10, description="bootstrap resamples over identities")
    confidence: float = Field(0.95, gt=0, lt=1, description="confidence of the intervals")


class Figures(Settings, step="figures"):
    """Notebook 08: Figures 1, 4, 6, A.1 and A.2, predicted against target age, and the identity–age trade-off."""

    rows: int = Field(6, ge=1, description="faces in Figures 4, 6 and A.1")
    samples: int = Field(6, ge=1, le=16, description="GLOW samples in each row of Figure A.2")
    temperatures: list[Positive] = Field([0.3, 0.5, 0.7, 0.9, 1.0], min_length=1, description="a row of samples each")
    external: str | None = Field(None, description="Figure A.1 of a run (dataset/run), or of a folder of pictures")


class Slider(Settings, step="age_slider"):
    """Notebook 09: the age slider."""

    method: AnyMethod = Field("ageflow", description="the method; any but a folder of pictures")
    strength: float = Field(1.0, ge=0, le=2, description="strength: 0 moves the face not at all, 1 as the method does")
    face: int = Field(0, ge=0, description="the test face shown first, counted from 0")
    photo: Path | None = Field(None, description="picture file to show first instead of a test face")
    age: float | None = Field(None, ge=0, le=120, description="age shown first, years; None: 60, or what is nearest")
    embedder: str = Field("dlib", description="identity: dlib, or the path of an ArcFace ONNX file")


class Benchmarks(Settings, step="benchmarks"):
    """Notebook 10: GLOW's speed and memory here, beside public codes."""

    image_size: int = Field(64, ge=8, description="side of the random images of the speed table")
    levels: int = Field(4, ge=1, description="levels of the flow")
    steps: int = Field(8, ge=1, description="flow steps a level")
    hidden: int = Field(512, ge=1, description="hidden channels of the coupling networks")
    batch_size: int = Field(16, ge=1, description="faces in one training step")
    repeats: int = Field(3, ge=1, description="timed calls of a measurement, whose median counts")
    rounds: int = Field(3, ge=1, description="times the speed table is measured, each code once a round")
    many_steps: list[int] = Field([4, 8, 16, 32], description="steps a level of the plot of memory against steps")
    many_batches: list[int] = Field([1, 4, 16, 32], description="batches of the plot of memory against batch")
    large: bool = Field(True, description="measure the paper's 256x256, 6 levels of 32 steps, too")


_CLASSES = (PrepareData, TrainGlow, Prototypes, TrainICTM, TrainClassifiers, Ablations, Tables, Figures)
STEPS: dict[str, type[Settings]] = {cls.step: cls for cls in (*_CLASSES, Slider, Benchmarks, TrainBaselines)}


def literal(text: str) -> Any:
    """A value from a command line: ``"3"`` → 3, ``"[4, 8]"`` → a list; what is no Python literal stays text."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _meant(value: Any, annotation: Any) -> Any:
    """A value as the parameter's type takes it: text in brackets as a list, one value as a list of one."""
    if annotation is str and isinstance(value, int | float) and not isinstance(value, bool):
        how = "papermill's -r in place of -p, quotation marks in a notebook, or a name that begins with a letter"
        raise ValueError(f"{value!r} came as a number, and how it was written is lost (007, 2024_06_01): use {how}")
    if isinstance(value, bool) and annotation is not bool:
        return str(value)  # or True would be the number 1
    kinds = {get_origin(one) or one for one in get_args(annotation | None)} - {NoneType}
    if isinstance(value, str) and (dict in kinds or (list in kinds and value.strip().startswith(("[", "(")))):
        return literal(value.strip())
    if kinds != {list} or isinstance(value, list | tuple) or value is None:
        return value
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else [value]
