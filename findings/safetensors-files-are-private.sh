#!/usr/bin/env bash
# Guessed: save_file writes into the file of that name: umask and an existing file's mode count, a link is followed.
#     Seen: it writes a new file of mode 600 and renames it: 664 becomes 600, a symbolic link is replaced by the file
#     while its target stays as it was, and a hard link keeps the old content; 0.7.0 wrote in place
# Versions: safetensors 0.8.0 and 0.7.0, numpy 2.4.6
# For a user: on a shared disk nobody else can read new weights, and a link to a larger disk is lost with the weights
#     on the small one; chmod after saving, and save to the link's target
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
export OMP_NUM_THREADS=2
umask 022
cat > seen.py <<'PYTHON'
import json
import os
import sys
from pathlib import Path

import numpy as np
import safetensors
from safetensors.numpy import save_file

weights = {"weight": np.ones(3, np.float32)}
for name in ("shared", "target", "one"):
    Path(name).write_bytes(b"old")
    Path(name).chmod(0o664)
Path("link").symlink_to("target")
os.link("one", "other")
for name in ("new", "shared", "link", "one"):
    save_file(weights, name)
modes = [oct(Path(name).stat().st_mode & 0o777) for name in ("new", "shared")]
found = [*modes, Path("link").is_symlink(), Path("target").read_bytes() == b"old", Path("other").read_bytes() == b"old"]
print(f"safetensors {safetensors.__version__}: new {found[0]}, was 664 {found[1]}, link is a link {found[2]},")
print(f"    its target is as it was {found[3]}, the other hard link's content is as it was {found[4]}")
assert found == json.loads(sys.argv[1]), found
PYTHON
for version in 0.8.0 0.7.0; do
  python3 -m venv "$version"
  "$version/bin/pip" install --quiet --no-compile --disable-pip-version-check "safetensors==$version" numpy==2.4.6
done
(mkdir a && cd a && ../0.8.0/bin/python ../seen.py '["0o600", "0o600", false, true, true]')
(mkdir b && cd b && ../0.7.0/bin/python ../seen.py '["0o644", "0o664", true, false, false]')
