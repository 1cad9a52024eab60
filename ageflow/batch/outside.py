"""What lies outside a run and its notebooks are told to read: which parameters name it, and what they mean."""

from dataclasses import replace
from pathlib import Path

from ageflow.batch.plan import Plan
from ageflow.config import Settings

# A path, wherever it leads.
_PATHS = ("data_root", "runs_root", "genders", "inception", "cache")
# A path, or else another run or a word.
_NAMES = ("init_from", "age_classifier_from", "embedder", "external")
_INPUTS = ("data_root", "genders", "inception", *_NAMES)
_WORDS = {
    "init_from": ("pretrained", "nothing"),
    "age_classifier_from": ("pretrained", "nothing"),
    "embedder": ("dlib",),
}
# What `init_from` is asked for by each step; of judges, every one that there may be.
_PARTS = {
    "train_glow": ("glow",),
    "train_ictm": ("ictm",),
    "train_classifiers": ("age", "gender", "race"),
    "ablations": ("no_ictm",),
}


def read_outside(chosen: Settings) -> dict[str, list[Path]]:
    """The files and folders outside the run that a notebook reads, by the parameter that names them.

    Arguments:
        chosen: the notebook's settings.
    """
    given = {name: getattr(chosen, name, None) for name in _INPUTS}
    places = {name: _meant(name, value, chosen) for name, value in given.items() if value is not None}
    return {name: there for name, there in places.items() if there}


def absolute(plan: Plan) -> Plan:
    """The same plan wherever it is carried out: what is named from this working directory is named from the root.

    The name of a run stays one, and so does what is not there.
    """
    first = plan.settings_of(plan.chapters[0])
    bare = {name: name.rpartition(".")[2] for name in plan.parameters}
    named = {*bare.values()} & {*_PATHS, *_NAMES}
    # In the reach of a single notebook: what a name means is told by the part of a run that the notebook asks for.
    parameters = {name: value for name, value in plan.parameters.items() if bare[name] not in named}
    for chapter in plan.chapters:
        chosen, given = plan.settings_of(chapter), plan.parameters_of(chapter)
        parameters |= {f"{chapter.step}.{name}": _absolute(name, given[name], chosen) for name in named & given.keys()}
    notebooks = None if plan.notebooks is None else plan.notebooks.expanduser().resolve()
    own = {"runs_root": first.runs_root, "data_root": first.data_root, "notebooks": notebooks}
    return replace(plan, parameters=parameters, **own)


def _absolute(name: str, value: object, chosen: Settings) -> object:
    """A value of a parameter as it is to be written for a process in another working directory."""
    if not isinstance(value, str | Path):
        return value
    value, path = str(value), Path(value).expanduser()
    if name in _PATHS:
        return str(path.absolute())
    if path.resolve() == (chosen.runs_root / value).resolve():  # either way
        return value
    here = any(place.resolve().is_relative_to(path.resolve()) for place in _meant(name, value, chosen))
    return str(path.absolute()) if here else value


def _meant(name: str, value: str | Path, chosen: Settings) -> list[Path]:
    """The files and folders that a parameter's value means; none where it is a word, or nothing is there."""
    if value in _WORDS.get(name, ()):
        return []
    path = Path(value).expanduser()
    if name in ("init_from", "age_classifier_from"):
        parts = ("decoded_age",) if name == "age_classifier_from" else _PARTS[chosen.step]
        return _weights(str(value), chosen.runs_root, parts)
    if name == "external":
        from ageflow.data.faces import find_faces  # slow to import, and most batches do without

        faces = find_faces(str(value), chosen.runs_root)
        if faces is not None:
            return [faces]
    return [path] if path.exists() else []


def _weights(value: str, runs_root: Path, parts: tuple[str, ...]) -> list[Path]:
    from ageflow.checkpoint import CheckpointError, find_weights

    found: list[Path] = []
    for part in parts:
        try:
            found.append(find_weights(value, runs_root, part))
        except CheckpointError:  # the notebook says so
            continue
    return list(dict.fromkeys(found))
