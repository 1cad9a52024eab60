"""The numbers of the paper's Tables 1-4.

Per table: data set → metric → method → one number a column. Age accuracy and attribute preservation are in %,
cosines as they are. Tables 1 and 3 have a column for each target group, Tables 2 and 4 for the groups that faces of
30- are aged to.
"""

import pandas as pd

MORPH, CACD = "morph", "cacd"
PAPER_DATASETS = (MORPH, CACD)

# The columns of each table, as group numbers.
TABLE_GROUPS: dict[int, tuple[int, ...]] = {1: (0, 1, 2, 3), 2: (1, 2, 3), 3: (0, 1, 2, 3), 4: (1, 2, 3)}

PUBLISHED: dict[int, dict[str, dict[str, dict[str, tuple[float, ...]]]]] = {
    1: {
        MORPH: {
            "age_accuracy": {
                "CAAE": (56.71, 56.17, 45.58, 48.48),
                "IPCGAN": (75.71, 80.30, 48.91, 53.71),
                "WGLCA-GAN": (80.19, 77.10, 81.12, 85.38),
                "AgeFlow": (87.19, 91.85, 90.68, 90.71),
            },
            "cosine": {
                "CAAE": (0.265, 0.289, 0.279, 0.220),
                "IPCGAN": (0.567, 0.609, 0.610, 0.467),
                "WGLCA-GAN": (0.671, 0.792, 0.764, 0.614),
                "AgeFlow": (0.897, 0.923, 0.903, 0.767),
            },
        },
        CACD: {
            "age_accuracy": {
                "CAAE": (57.50, 42.60, 50.51, 24.97),
                "IPCGAN": (71.84, 52.99, 60.07, 77.61),
                "WGLCA-GAN": (78.05, 72.48, 62.54, 81.48),
                "AgeFlow": (86.49, 78.06, 85.91, 88.15),
            },
            "cosine": {
                "CAAE": (0.092, 0.101, 0.091, 0.075),
                "IPCGAN": (0.445, 0.554, 0.569, 0.462),
                "WGLCA-GAN": (0.752, 0.803, 0.769, 0.758),
                "AgeFlow": (0.905, 0.926, 0.919, 0.847),
            },
        },
    },
    2: {
        MORPH: {
            "gender": {
                "CAAE": (94.53, 94.59, 93.37),
                "IPCGAN": (97.30, 97.48, 95.14),
                "WGLCA-GAN": (97.71, 98.95, 96.20),
                "AgeFlow": (98.19, 99.26, 98.21),
            },
            "race": {
                "CAAE": (97.01, 96.73, 93.84),
                "IPCGAN": (96.87, 97.10, 97.05),
                "WGLCA-GAN": (98.53, 98.26, 96.28),
                "AgeFlow": (98.85, 98.80, 97.72),
            },
        },
        CACD: {
            "gender": {
                "CAAE": (92.96, 89.11, 83.78),
                "IPCGAN": (94.96, 97.42, 95.49),
                "WGLCA-GAN": (98.14, 95.64, 95.69),
                "AgeFlow": (98.63, 98.02, 98.49),
            },
        },
    },
    3: {
        MORPH: {
            "age_accuracy": {
                "GLOW": (47.92, 52.75, 60.46, 65.23),
                "GLOW + attribute": (61.86, 54.51, 64.17, 35.67),
                "AgeFlow w/o ICTM": (80.12, 87.27, 84.92, 88.37),
                "AgeFlow": (87.19, 91.85, 90.68, 90.71),
            },
            "cosine": {
                "GLOW": (0.809, 0.772, 0.912, 0.721),
                "GLOW + attribute": (0.853, 0.917, 0.915, 0.752),
                "AgeFlow w/o ICTM": (0.870, 0.889, 0.873, 0.739),
                "AgeFlow": (0.897, 0.923, 0.903, 0.767),
            },
        },
        CACD: {
            "age_accuracy": {
                "GLOW": (49.92, 49.64, 52.61, 32.13),
                "GLOW + attribute": (67.35, 42.39, 55.39, 46.95),
                "AgeFlow w/o ICTM": (78.05, 67.51, 80.23, 79.98),
                "AgeFlow": (86.49, 78.06, 85.91, 88.15),
            },
            "cosine": {
                "GLOW": (0.811, 0.865, 0.871, 0.773),
                "GLOW + attribute": (0.895, 0.910, 0.925, 0.796),
                "AgeFlow w/o ICTM": (0.877, 0.887, 0.901, 0.749),
                "AgeFlow": (0.905, 0.926, 0.919, 0.847),
            },
        },
    },
    4: {
        MORPH: {
            "gender": {
                "GLOW": (95.02, 94.89, 94.60),
                "GLOW + attribute": (97.62, 98.95, 98.22),
                "AgeFlow w/o ICTM": (96.15, 98.48, 96.20),
                "AgeFlow": (98.19, 99.26, 98.21),
            },
            "race": {
                "GLOW": (97.34, 96.88, 96.45),
                "GLOW + attribute": (98.72, 98.83, 97.09),
                "AgeFlow w/o ICTM": (99.41, 97.71, 96.75),
                "AgeFlow": (98.85, 98.80, 97.72),
            },
        },
        CACD: {
            "gender": {
                "GLOW": (94.38, 95.77, 94.36),
                "GLOW + attribute": (98.68, 98.01, 98.63),
                "AgeFlow w/o ICTM": (98.14, 96.66, 98.30),
                "AgeFlow": (98.63, 98.02, 98.49),
            },
        },
    },
}


def published(table: int) -> pd.DataFrame:
    """The paper's numbers of one table, long.

    Arguments:
        table: 1 to 4.

    Returns:
        One row a number: dataset (``morph``, ``cacd``), metric (``age_accuracy``, ``cosine``, ``gender``, ``race``),
        method, group (number of the target group), value.

    Example:
        >>> numbers = published(1).set_index(["dataset", "metric", "method", "group"])["value"]
        >>> float(numbers["cacd", "cosine", "AgeFlow", 3])
        0.847
    """
    if table not in PUBLISHED:
        raise ValueError(f"table {table!r}: the paper has Tables 1 to 4")
    return pd.DataFrame(
        [
            (dataset, metric, method, group, value)
            for dataset, metrics in PUBLISHED[table].items()
            for metric, methods in metrics.items()
            for method, values in methods.items()
            for group, value in zip(TABLE_GROUPS[table], values, strict=True)
        ],
        columns=["dataset", "metric", "method", "group", "value"],
    )
