#!/usr/bin/env bash
# Guessed: after delete() and compact_files() a person's faces are out of a Lance data set, once cleanup_old_versions
#     has taken the older versions. Seen: they are all still in the files, byte for byte: deleted rows are only marked,
#     and what has less than a tenth of its rows deleted is not compacted. With a threshold of 0 they go
# Versions: pylance 14.0.2
# For a user: who asks for one person's photographs to be deleted among hundreds is told "done", and the files still
#     hold them: materialize_deletions_threshold=0 and older_than=0, then look for the bytes
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
export OMP_NUM_THREADS=2
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check pylance==14.0.2 pyarrow==26.0.1 numpy==2.4.6
venv/bin/python - <<'PYTHON'
from datetime import timedelta
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa

random = np.random.default_rng(0)
people = np.arange(5000) % 100
faces = [random.bytes(3000) for _ in people]  # as dense as JPEG
store = lance.write_dataset(pa.table({"person": people, "face": faces}), "faces.lance")
theirs = [face for person, face in zip(people, faces, strict=True) if person == 7]


def left() -> int:
    """How many of the person's 50 faces are in the files."""
    files = [path.read_bytes() for path in Path("faces.lance").rglob("*") if path.is_file()]
    return sum(any(face in content for content in files) for face in theirs)


store.delete("person = 7")
seen = {"delete": left()}
store.optimize.compact_files()
seen["compact_files"] = left()
store.cleanup_old_versions(older_than=timedelta(0))
seen["cleanup_old_versions, of all ages"] = left()
rows = store.count_rows()
store.optimize.compact_files(materialize_deletions_threshold=0)
store.cleanup_old_versions(older_than=timedelta(0))
seen["both again, with a threshold of 0"] = left()
print(f"pylance {lance.__version__}: {rows} of 5000 rows after deleting 50; faces of the 50 in the files after")
print(", ".join(f"{step}: {count}" for step, count in seen.items()))
assert rows == 4950
assert list(seen.values()) == [50, 50, 50, 0]
PYTHON
