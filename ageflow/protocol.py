"""``python -m ageflow.protocol export``: the test faces as PNG, for a tool that is not the kit to translate.

python -m ageflow.protocol export --run demo --out for_others

writes ``faces/<face>.png`` and ``faces.csv``, a row for every picture to make. Another tool writes each as its `output`,
``<face>_<target>.png``, into a folder; notebook 06 judges that by ``-p methods "['ageflow', 'folder:/path']"``.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ageflow.config import Ablations, ParameterError
from ageflow.parameters import settings as settings_of
from ageflow.run import Workspace

_OPTIONS = ("dataset", "preset", "run", "runs_root", "external", "evaluation_faces", "seed")  # as of notebook 06


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code: 0, 1 where the run has no such faces, 2 for wrong parameters."""
    parser = argparse.ArgumentParser(prog="python -m ageflow.protocol", description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=("export",), help="write the faces that notebook 06 judges")
    for name in _OPTIONS:
        parser.add_argument(f"--{name.replace('_', '-')}", help=Ablations.model_fields[name].description)
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="left out: the run's folder export")
    given = parser.parse_args(arguments)
    try:
        settings = settings_of(Ablations.step, {name: getattr(given, name) for name in _OPTIONS})
        out = given.out or Workspace.of(settings).path("export")
        from ageflow.evaluation.pictures import export  # torch is imported only when the command is known to be right

        table = export(settings, out)
    except Exception as error:
        if not (type(error).__module__.startswith("ageflow.") or isinstance(error, OSError)):
            raise  # each of our own errors says what to do; this is a fault of the kit
        print(error, file=sys.stderr)
        return 2 if isinstance(error, ParameterError) else 1
    print(f"{table['face'].nunique()} faces and {len(table)} pictures to make of them: {out / 'faces.csv'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
