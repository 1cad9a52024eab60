#!/usr/bin/env bash
# Guessed: beside a setuptools without pkg_resources, importing face_recognition raises ImportError and exits with 1.
#     Seen: it asks to install face_recognition_models, which is installed, and ends Python with status 0; what
#     would have caught ImportError catches nothing, and the text goes to standard output, into the table of names
# Versions: face_recognition 1.3.0, face-recognition-models 0.3.0, setuptools 81.0.0 (works) and 84.2.1 (does not)
# For a user: a night's batch ends "with success" without a face, and every step after it starts: pin setuptools
#     below 82, and look for the table, not for the status
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
export OMP_NUM_THREADS=2
python3 -m venv venv
# dlib-bin is dlib compiled, under another name: hence --no-deps
venv/bin/pip install --quiet --no-compile --disable-pip-version-check --no-deps face_recognition==1.3.0 face-recognition-models==0.3.0 dlib-bin==20.0.1.post1 numpy==2.4.6 pillow==12.3.0 click==8.5.1
cat > batch.py <<'PYTHON'
try:
    import face_recognition
except ImportError:
    raise SystemExit(3)
print("the batch has run")
raise SystemExit(5)
PYTHON
for wanted in "81.0.0 5" "84.2.1 0"; do
  read -r version status <<< "$wanted"
  venv/bin/pip install --quiet --no-compile --disable-pip-version-check "setuptools==$version"
  seen=0
  venv/bin/python -W ignore batch.py > said || seen=$?
  echo "setuptools $version: status $seen, standard output begins: $(head -n 1 said)"
  [ "$seen" = "$status" ]
done
grep -q "install .face_recognition_models" said
[ "$(grep -c "the batch has run" said)" = 0 ]
[ -d venv/lib/python3*/site-packages/face_recognition_models/models ]
mkdir known unknown
venv/bin/face_recognition known unknown > names.csv  # its own command line: nothing is known, nobody is there
echo "the table of its command line: $(wc -l < names.csv) lines, the first: $(head -n 1 names.csv)"
grep -q "install .face_recognition_models" names.csv
