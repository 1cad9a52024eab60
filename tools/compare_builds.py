"""Time this kit beside an earlier commit of it, in turn: figures of docs/performance.md that need both.

git worktree add ../before f423e47 && make -C ../before install
python tools/compare_builds.py --before ../before
python tools/compare_builds.py --before ../before --cases encoding
python tools/compare_builds.py --before ../before --cases T        # where both have done make demo

Each case runs in a process of its own, by the environment of its build and with all cores. A figure is the median of the
rounds; a case's seconds are those of its fastest update or pass, less the first. For T they are the 30 updates by which
a training of 40 takes longer than one of 10.
"""

import argparse
import importlib.util
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

HERE = Path(__file__).resolve().parents[1]
_SMALL = {"image_size": 64, "levels": 4, "steps": 8, "hidden": 512, "precision": "bf16"}
_DEMO = {"image_size": 64, "levels": 4, "steps": [4, 8, 16, 16], "hidden": 128, "prior": "learned"}
_PAPER = {"image_size": 256, "levels": 6, "steps": 32, "hidden": 512, "memory": "reversible"}
# Shape of GLOW, faces at a time, updates (0: encode, in the precision that T's latents are made in).
CASES = {
    "plain": (_SMALL | {"memory": "plain"}, 16, 6),
    "reversible": (_SMALL | {"memory": "reversible"}, 16, 6),
    "encoding": (_DEMO, 64, 0),
    "paper, 1 face": (_PAPER, 1, 3),
    "paper, 4 faces": (_PAPER, 4, 3),
}
T = "T"


def measure(case: str, **shape: object) -> dict[str, float]:
    """One case by the build that this process imports: seconds an update or pass, and the process's peak in GB.

    Arguments:
        case: of `CASES`.
        shape: settings of GLOW in place of the case's.
    """
    import torch

    from ageflow.flows.glow import Glow, GlowConfig

    of_glow, count, updates = CASES[case]
    before = importlib.util.find_spec("ageflow.device") is None  # a commit of its time, such as f423e47
    importlib.import_module("ageflow.memory" if before else "ageflow.device").keep_freed_memory()
    if not updates:
        of_glow = of_glow | {"precision": "fp32" if before else "bf16"}
    torch.manual_seed(0)
    glow = Glow(GlowConfig(**of_glow | shape))
    x = torch.randint(0, 256, (count, 3, glow.config.image_size, glow.config.image_size), dtype=torch.uint8)
    glow.initialize(x[:8].float() / 255 - 0.5)
    optimiser, seconds = torch.optim.AdamW(glow.parameters(), 1e-5, fused=True), []
    for _ in range(updates or 5):
        start = time.perf_counter()
        if updates:
            optimiser.zero_grad()
            glow.bits_per_dim(x).mean().backward()
            optimiser.step()
        else:
            with torch.inference_mode():
                glow.encode(x)
        seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"seconds": round(min(seconds[1:]), 3), "peak": round(peak, 2)}


def in_build(build: Path, *arguments: str) -> str:
    """What a checkout's own Python prints, started as the checkout starts its own."""
    python = build / ".venv/bin/python"
    from ageflow.run import PROCESS_ENVIRONMENT  # an earlier build may have none

    makes = dict(re.findall(r"^export (\w+) \?= (.+)$", (build / "Makefile").read_text(), re.MULTILINE))
    inherited = {name: value for name, value in os.environ.items() if name not in PROCESS_ENVIRONMENT}
    environment = inherited | {"PYTHONPATH": str(build)} | makes
    command = [str(python if python.is_file() else sys.executable), *arguments]
    done = subprocess.run(command, cwd=build, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}, in {build}, ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return done.stdout


def update_of_t(build: Path) -> dict[str, float]:
    """Seconds an update of T takes on the checkout's own demo run."""
    made, seconds = build / "runs/demo/demo", {}
    for updates in (10, 40):
        with tempfile.TemporaryDirectory() as folder:
            run = Path(folder, "demo/demo")
            run.mkdir(parents=True)
            for part in ("faces", "glow", "latents", "prototypes", "decoded_age", "lengths"):
                if (made / part).is_dir():
                    run.joinpath(part).symlink_to(made / part)
            start = time.perf_counter()
            given = ("-p", "runs_root", folder, "-p", "iterations", str(updates))
            in_build(build, "-m", "ageflow.train", "train_ictm", *given)
            seconds[updates] = time.perf_counter() - start
    return {"seconds": round((seconds[40] - seconds[10]) / 30, 3)}


def compare(before: Path, cases: Sequence[str], rounds: int) -> pd.DataFrame:
    """Medians of both builds in turn, a row a case: seconds and peak before and now, and their ratios (now by before)."""
    found = []
    for number in range(rounds):
        for case in cases:
            for name, build in (("before", before), ("now", HERE)):
                figures = (
                    update_of_t(build)
                    if case == T
                    else json.loads(in_build(build, str(Path(__file__).resolve()), "--case", case))
                )
                found.append({"case": case, "build": name} | figures)
                print(f"round {number + 1} of {rounds}:", found[-1], file=sys.stderr)
    medians = pd.DataFrame(found).groupby(["case", "build"], sort=False).median().unstack("build")
    for figure in medians.columns.unique(0):
        medians[figure, "ratio"] = medians[figure, "now"] / medians[figure, "before"]
    return medians.sort_index(axis="columns", ascending=False)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", type=Path, help="checkout of the earlier commit, installed in its .venv")
    parser.add_argument("--cases", nargs="+", choices=[*CASES, T], default=[*CASES])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)  # what it starts itself with
    given = parser.parse_args(arguments)
    if given.case:
        print(json.dumps(measure(given.case)))
    elif given.before is None or not (given.before / "Makefile").is_file():
        parser.error(f"--before {given.before}: expected the folder of a checkout of this kit")
    else:
        print(compare(given.before.resolve(), given.cases, given.rounds).round(3).to_string())


if __name__ == "__main__":
    main()
