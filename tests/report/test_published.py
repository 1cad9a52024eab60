"""The paper's numbers, held against the lines of the paper they were copied from."""

import pytest

from ageflow.report.tables import published

# The rows of Tables 1-4 as the paper's text has them, MORPH's columns left of CACD's; Tables 2 and 4: gender MORPH,
# gender CACD, race MORPH.
ROWS = {
    1: """
CAAE  56.71  56.17  45.58  48.48  CAAE  57.50  42.60  50.51  24.97
IPCGAN  75.71  80.30  48.91  53.71  IPCGAN  71.84  52.99  60.07  77.61
WGLCA-GAN  80.19  77.10  81.12  85.38  WGLCA-GAN  78.05  72.48  62.54  81.48
AgeFlow (ours)  87.19  91.85  90.68  90.71  AgeFlow (ours)  86.49  78.06  85.91  88.15
CAAE  0.265  0.289  0.279  0.220  CAAE  0.092  0.101  0.091  0.075
IPCGAN  0.567  0.609  0.610  0.467  IPCGAN  0.445  0.554  0.569  0.462
WGLCA-GAN  0.671  0.792  0.764  0.614  WGLCA-GAN  0.752  0.803  0.769  0.758
AgeFlow (ours)  0.897  0.923  0.903  0.767  AgeFlow (ours)  0.905  0.926  0.919  0.847
""",
    2: """
CAAE  94.53  94.59  93.37  92.96  89.11  83.78  97.01  96.73  93.84
IPCGAN  97.30  97.48  95.14  94.96  97.42  95.49  96.87  97.10  97.05
WGLCA-GAN  97.71  98.95  96.20  98.14  95.64  95.69  98.53  98.26  96.28
AgeFlow (ours)  98.19  99.26  98.21  98.63  98.02  98.49  98.85  98.80  97.72
""",
    3: """
GLOW  47.92  52.75  60.46  65.23  GLOW  49.92  49.64  52.61  32.13
+Attribute  61.86  54.51  64.17  35.67  +Attribute  67.35  42.39  55.39  46.95
w/o ICTM  80.12  87.27  84.92  88.37  w/o ICTM  78.05  67.51  80.23  79.98
AgeFlow  87.19  91.85  90.68  90.71  AgeFlow  86.49  78.06  85.91  88.15
GLOW  0.809  0.772  0.912  0.721  GLOW  0.811  0.865  0.871  0.773
+Attribute  0.853  0.917  0.915  0.752  +Attribute  0.895  0.910  0.925  0.796
w/o ICTM  0.870  0.889  0.873  0.739  w/o ICTM  0.877  0.887  0.901  0.749
AgeFlow  0.897  0.923  0.903  0.767  AgeFlow  0.905  0.926  0.919  0.847
""",
    4: """
GLOW  95.02  94.89  94.60  94.38  95.77  94.36  97.34  96.88  96.45
+Attribute  97.62  98.95  98.22  98.68  98.01  98.63  98.72  98.83  97.09
w/o ICTM  96.15  98.48  96.20  98.14  96.66  98.30  99.41  97.71  96.75
AgeFlow  98.19  99.26  98.21  98.63  98.02  98.49  98.85  98.80  97.72
""",
}
PAPER_NAMES = {"AgeFlow (ours)": "AgeFlow", "+Attribute": "GLOW + attribute", "w/o ICTM": "AgeFlow w/o ICTM"}


@pytest.mark.parametrize("table", ROWS)
def test_numbers_are_those_of_the_papers_lines(table):
    expected = {}
    for method, *cells in (line.split("  ") for line in ROWS[table].strip().splitlines()):
        method = PAPER_NAMES.get(method, method)
        if table in (1, 3):
            metric = "age_accuracy" if float(cells[0]) > 1 else "cosine"
            parts = {("morph", metric): (cells[:4], 0), ("cacd", metric): (cells[5:], 0)}
            assert PAPER_NAMES.get(cells[4], cells[4]) == method
        else:
            names = [("morph", "gender"), ("cacd", "gender"), ("morph", "race")]
            parts = {name: (cells[3 * place :][:3], 1) for place, name in enumerate(names)}
        for (dataset, metric), (values, first) in parts.items():
            for group, value in enumerate(values, first):
                expected[dataset, metric, method, group] = float(value)
    found = published(table).set_index(["dataset", "metric", "method", "group"])["value"].to_dict()
    assert len(found) == (64 if table in (1, 3) else 36)
    assert found == expected
