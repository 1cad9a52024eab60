"""Which runs are asked for: every data set with every seed and every value that is varied."""

import difflib
import itertools
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ageflow.batch.plan import Plan
from ageflow.config import DATASETS, ParameterError
from ageflow.run import Workspace

_LOG = "batch.log"
_LONGEST_NAME = 200  # characters; file systems take 255 bytes in a folder's name
_UNSAFE = re.compile(r"[^A-Za-z0-9._+-]+")
# Parameters that say which run it is: options of their own set them.
_OPTIONS = {
    **{"dataset": "--dataset", "seed": "--seed", "run": "--run", "data_root": "--data-root"},
    **{"runs_root": "--runs-root"},
}


@dataclass(frozen=True)
class Member:
    """One run of a sweep.

    Arguments:
        plan: what it runs.
        seed: its seed; None where none was asked for.
        varied: the varied parameters that set it apart, by name.
    """

    plan: Plan
    seed: int | None
    varied: Mapping[str, Any]

    @cached_property
    def workspace(self) -> Workspace:
        """The folders of the run."""
        return self.plan.workspace

    @property
    def name(self) -> str:
        """The run with its data set, ``"morph/paper-seed1"``."""
        return f"{self.workspace.dataset}/{self.workspace.run}"

    @property
    def settings(self) -> str:
        """The varied parameters as text, ``"scale=1.4, akd_weight=2"``."""
        return ", ".join(f"{name}={value}" for name, value in self.varied.items())

    @property
    def log(self) -> Path:
        """The file of what it prints."""
        return self.workspace.path("notebooks", _LOG)


@dataclass(frozen=True)
class Sweep:
    """The product of data sets, seeds and varied parameters.

    A run is called as its `base` would be (its `run`, or else the preset's name), then ``-seed<N>`` where seeds are
    given, then ``-<name>=<value>`` for each varied parameter; what a folder's name should not hold becomes ``-``.

    Arguments:
        base: what the runs share.
        datasets: names of data sets.
        seeds: seeds, which every notebook is given; none: the notebooks' own.
        varied: values by parameter, which is named as in `Plan.parameters`.
        data_roots: folders of raw data sets by name; a data set that is not named has the `base`'s.
    """

    base: Plan
    datasets: Sequence[str]
    seeds: Sequence[int] = ()
    varied: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    data_roots: Mapping[str, Path] = field(default_factory=dict)

    def members(self) -> list[Member]:
        """The runs, those of one data set together.

        Raises:
            ParameterError: a value stands twice or where it does not belong, two runs have one name, or a plan's
                parameters cannot be used; nothing has run.
            FileNotFoundError: a notebook is not there.
        """
        self._check_values()
        values = itertools.product(self.datasets, self.seeds or (None,), *self.varied.values())
        members = [self._member(dataset, seed, chosen) for dataset, seed, *chosen in values]
        for member in members:
            member.plan.check()
            _ = member.plan.folder  # the notebooks are there
        names = Counter(member.name for member in members)
        for name, times in names.items():
            if times > 1:
                raise ParameterError(
                    f"{times} runs would be called {name}: expected a name of its own for every run. Leave out the "
                    "value that stands twice, or start this command twice with another --run"
                )
        return members

    def _member(self, dataset: str, seed: int | None, chosen: Sequence[Any]) -> Member:
        varied = dict(zip(self.varied, chosen, strict=True))
        parameters = {**self.base.parameters, **varied} | ({} if seed is None else {"seed": seed})
        own = {"dataset": dataset, "parameters": parameters, "data_root": self._data_root(dataset)}
        plan = replace(self.base, **own)
        parts = ["" if seed is None else f"seed{seed}", *(f"{_safe(name)}={_safe(varied[name])}" for name in varied)]
        suffix = "".join(f"-{part}" for part in parts if part)
        if suffix and "run" not in parameters:
            name = plan.settings_of(plan.chapters[0]).run + suffix
            if len(name) > _LONGEST_NAME:
                raise ParameterError(
                    f"the run's name {name!r} has {len(name)} characters, and at most {_LONGEST_NAME} are expected: "
                    "vary fewer parameters at a time, or shorter values"
                )
            plan = replace(plan, run=name)
        return Member(plan, seed, varied)

    def _data_root(self, dataset: str) -> Path | None:
        root = self.data_roots.get(dataset, self.base.data_root)
        # The demo set draws its faces, so a folder for all sets is not meant for it.
        return None if dataset == "demo" and len(self.datasets) > 1 and dataset not in self.data_roots else root

    def _check_values(self) -> None:
        for option, given in (("--dataset", self.datasets), ("--seed", self.seeds)):
            repeated = [value for value, times in Counter(given).items() if times > 1]
            if repeated:
                raise ParameterError(
                    f"{option} names {repeated[0]} twice: expected each once, as the same run twice tells nothing. "
                    "Leave one out"
                )
        if self.seeds and "seed" in self.base.parameters:
            raise ParameterError(
                f"-p seed {self.base.parameters['seed']} and --seed {' '.join(map(str, self.seeds))}: "
                "expected one of them"
            )
        for name in self.varied:
            if name in _OPTIONS:
                raise ParameterError(f"--vary {name}: expected a parameter of the notebooks; use {_OPTIONS[name]}")
            if name in self.base.parameters:
                raise ParameterError(f"{name} is given by -p and varied by --vary: expected one of them")
        for dataset in self.data_roots:
            if dataset not in self.datasets:
                raise ParameterError(
                    f"--data-root {dataset}=…: expected one of the data sets asked for, {', '.join(self.datasets)}. "
                    f"Add {dataset} to --dataset, or leave its folder out"
                )
        if self.data_roots and self.base.chapters[0].number == "01":
            for dataset in self.datasets:
                if dataset != "demo" and dataset not in self.data_roots:
                    raise ParameterError(
                        f"--data-root names no folder for {dataset}: add {dataset}=FOLDER, the folder of its raw files"
                    )


def check_dataset(name: str, where: str) -> None:
    """There is a data set of that name.

    Arguments:
        name: of a data set.
        where: what the user wrote, for the message.

    Raises:
        ParameterError: there is none; the message names those there are.
    """
    if name not in DATASETS:
        near = difflib.get_close_matches(name, DATASETS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ParameterError(f"{where}: there is no data set {name!r}; expected one of {', '.join(DATASETS)}.{hint}")


def _safe(value: Any) -> str:
    """A value as a part of a folder's name; the values of a list are joined by ``+``."""
    text = "+".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return _UNSAFE.sub("-", text)
