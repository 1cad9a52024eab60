"""From what a notebook or a command line gives to validated settings, by the presets in ``presets.toml``.

A notebook's parameters become one `Settings` object: the preset's values, then the data set's own, then
whatever the notebook or papermill's ``-p`` names. An unknown name stops the run. ``None`` means "the preset's value".
"""

import ast
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ageflow.config import OF_DECODED, STEPS, ParameterError, Settings, Training, literal, nearest, validated

# The presets by name, and what the paper sets per data set.
PRESETS: dict[str, Any] = tomllib.loads(Path(__file__).with_name("presets.toml").read_text())
DATASET_VALUES: dict[str, dict[str, Any]] = PRESETS.pop("dataset")


def settings(step: str, parameters: Mapping[str, Any]) -> Any:
    """The validated settings of one step.

    Arguments:
        step: the notebook's step, a key of `STEPS` (``"train_glow"``).
        parameters: the parameters by name, or a notebook's ``globals()``: then those are taken that cells of
            plain assignments set, which are the cell tagged `parameters` and the one papermill injects.
            ``None`` leaves a parameter to the preset.

    Returns:
        The `Settings` subclass of the step.

    Raises:
        ParameterError: a name that this step does not know (with the nearest that it does), or a value that
            cannot be used.

    Example:
        >>> settings("train_ictm", {"dataset": "cacd"}).scale
        1.8
    """
    if step not in STEPS:
        raise ParameterError(f"no step {step!r}: the steps are {', '.join(STEPS)}")
    cls = STEPS[step]
    if "get_ipython" in parameters and "In" in parameters:
        parameters = _assigned_in_cells(parameters)
    given = {name: value for name, value in parameters.items() if value is not None}

    unknown = sorted(set(parameters) - set(cls.model_fields))
    if unknown:
        named = "; ".join(f"unknown parameter {name!r}{nearest(name, cls.model_fields)}" for name in unknown)
        raise ParameterError(f"{named} ({step} takes: {', '.join(cls.model_fields)})")

    dataset = given.get("dataset", "demo")
    preset = given.get("preset", "demo" if dataset == "demo" else "paper")
    of_preset, of_dataset = PRESETS.get(preset, {}), DATASET_VALUES.get(dataset, {})
    sources = [of_preset.get("training", {}) if issubclass(cls, Training) else {}, of_preset.get(step, {})]
    sources += [of_dataset, of_dataset.get(preset, {}).get(step, {})]
    values = {name: value for source in sources for name, value in source.items() if name in cls.model_fields}
    if given.get("age_classifier") == "latent":  # then the preset's values for the other are not meant
        values = {name: value for name, value in values.items() if name not in OF_DECODED}
    if given.get("condition") == "target":
        values.pop("cycle_weight", None)
    weights = values.get("age_classifier_from")
    if given.get("age_classifier_from", weights) != weights:  # nor are those weights' updates
        values.pop("age_classifier_iterations", None)
    values |= {"preset": preset, "run": preset} | given
    return validated(cls, values)


def as_typed(name: str, text: str) -> Any:
    """A value from a command line: a Python literal where it is one; a run's name stays as it was written.

    Example:
        >>> as_typed("seed", "3"), as_typed("train_glow.steps", "[4, 8]"), as_typed("run", "2024_06_01")
        (3, [4, 8], '2024_06_01')
    """
    fields = [step.model_fields.get(name.rpartition(".")[2]) for step in STEPS.values()]
    return text if any(field is not None and field.annotation is str for field in fields) else literal(text)


def describe_parameters(settings: Settings) -> str:
    """A line a parameter: its name, its value and its description."""
    fields = type(settings).model_fields
    values = {name: str(getattr(settings, name)) for name in fields}
    names, widest = (max(map(len, texts)) for texts in (values, values.values()))
    return "\n".join(f"{name:{names}}  {values[name]:{widest}}  {field.description}" for name, field in fields.items())


def _assigned_in_cells(namespace: Mapping[str, Any]) -> dict[str, Any]:
    """The names that notebook cells made of nothing but ``name = literal`` have set."""
    names: list[str] = []
    for source in namespace["In"]:
        try:
            body = ast.parse(source).body
            for node in body:
                ast.literal_eval(node.value if isinstance(node, ast.Assign) else node)
        except (SyntaxError, ValueError):  # a magic, a shell command, or a cell that does something
            continue
        targets = [target for node in body if isinstance(node, ast.Assign) for target in node.targets]
        names += [target.id for target in targets if isinstance(target, ast.Name)]
    return {name: namespace[name] for name in names if name in namespace}
