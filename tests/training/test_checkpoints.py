"""What a training finds in its folder: damaged checkpoints, another training, another process; and devices by name."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from ageflow.checkpoint import CheckpointError, ConfigChangedError, checkpoints, latest, read_checkpoint
from ageflow.config import ParameterError
from ageflow.device import device_of, devices_of
from ageflow.flows.glow import Glow, GlowConfig
from ageflow.run import FolderInUseError, Manifest
from ageflow.training.loop import train
from ageflow.training.task import Objective, State, Task
from tests.conftest import ROOT
from tests.training.line import Line, saved, settings, weights


class Trap:
    """Unpickled, it would leave a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-16])


def flip_a_weight(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 0x04
    path.write_bytes(content)


def flip_the_iteration(path: Path) -> None:
    content = path.read_bytes()
    assert content.count(b'"iteration":"30"') == 1
    path.write_bytes(content.replace(b'"iteration":"30"', b'"iteration":"38"'))


def pickled(path: Path) -> None:
    torch.save({"model": Trap(path.parent / "unpickled")}, path)


@pytest.mark.parametrize("damage", [cut, flip_a_weight, flip_the_iteration, pickled])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(tmp_path, damage):
    folder = train(Line(), settings(), tmp_path / "a")
    assert saved(folder) == [20, 30]
    whole = {name: tensor.clone() for name, tensor in weights(folder).items()}  # not mapped from the file to damage
    before, newest = (path for _, path in checkpoints(folder))
    damage(newest)
    with pytest.raises(CheckpointError, match=f"{re.escape(str(newest))} cannot be read"):
        read_checkpoint(newest)
    again = Line()
    with pytest.warns(UserWarning, match=f"{newest.name} cannot be read .*; trying the checkpoint before it"):
        train(again, settings(), folder)
    assert min(again.seen) == 20, "it continues from the checkpoint of iteration 20"
    assert all(torch.equal(whole[name], tensor) for name, tensor in weights(folder).items())
    assert not (folder / "unpickled").exists(), "a pickle was run"

    for path in (before, newest):
        cut(path)
    with pytest.warns(UserWarning, match="cannot be read"), pytest.raises(CheckpointError, match="read: delete them"):
        latest(folder)


def test_a_checkpoint_of_another_training_is_refused_and_left(tmp_path):
    """Nothing is trained on it, and nothing of it is lost, not even where it is begun anew."""
    folder = train(Line(), settings(), tmp_path / "a")
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    other = Line(slope=5)
    with pytest.raises(ConfigChangedError, match=r"slope: 3 → 5.*restart=True"):
        train(other, settings(iterations=40), folder)
    assert other.seen == []
    other.manifest = Manifest({"faces": "cd"}, {"slope": 3})
    with pytest.raises(ConfigChangedError, match=r"other values \(other faces\)"):
        train(other, settings(iterations=40), folder)
    assert before == {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    train(Line(slope=4), settings(restart=True), folder)
    assert latest(folder).settings["slope"] == 4
    assert latest(tmp_path / "a.1").settings["slope"] == 3


def test_what_a_killed_training_had_half_written_is_removed_and_nothing_else(tmp_path):
    """SIGKILL in the middle of a checkpoint leaves its temporary file: gigabytes, for a GLOW of the paper's size."""
    (tmp_path / "samples").mkdir()
    ours = [".checkpoint-00000021.safetensors.p68ego6u", ".metrics.jsonl.abcdefgh"]
    ours += ["samples/.samples-00000020.png.a_b1c2d3", ".tmpi3LWSq"]  # the last is safetensors' own
    others = [".checkpoint-00000021.safetensors", ".notes.abcdefgh", "samples/mine.png"]
    for name in ours + others:
        (tmp_path / name).write_bytes(b"half")
    train(Line(), settings(iterations=3), tmp_path)
    assert [name for name in ours + others if (tmp_path / name).exists()] == others


def test_a_folder_is_trained_in_by_one_process_at_a_time_however_the_other_ends(tmp_path):
    folder = tmp_path / "a"
    hold = "import sys, time, pathlib; from ageflow.run import sole_writer\n"
    hold += "with sole_writer(pathlib.Path(sys.argv[1])): print('has it', flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", hold, folder], cwd=ROOT, stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout.readline() == "has it\n"
            with pytest.raises(FolderInUseError, match=re.escape(str(folder))):
                train(Line(), settings(), folder)
            assert not folder.exists()
        finally:
            other.kill()
    assert Manifest.read(train(Line(), settings(iterations=1), folder)) is not None


def test_work_in_pieces_takes_every_gpu_unless_one_is_named(monkeypatch):
    """Of a machine with three, which none is here."""
    assert devices_of("cpu") == [torch.device("cpu")]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert devices_of("cuda") == [torch.device("cuda", index) for index in range(3)]
    assert devices_of("cuda:1") == [torch.device("cuda", 1)]


@pytest.mark.parametrize("name", ["gpu", "mps", "cuda:99"])
def test_a_device_that_is_not_there_is_named(name):
    with pytest.raises(ParameterError, match=f"device = '{name}': (expected auto|this machine has)"):
        device_of(name)


class _PapersGlow(Task):
    """The paper's GLOW on one face."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        glow = Glow(GlowConfig(image_size=256, levels=6, steps=32, hidden=512, memory="reversible"))
        self.face = torch.randint(0, 256, (1, 3, 256, 256), dtype=torch.uint8)
        self.modules, self.networks, self.manifest = torch.nn.ModuleDict({"glow": glow}), {"glow": {}}, Manifest()
        self.objectives = [Objective("glow", list(glow.parameters()), self.loss, 1e-6)]

    def start(self) -> None:
        self.modules["glow"].initialize(self.face.float() / 255 - 0.5)

    def loss(self, part):
        return self.modules["glow"].bits_per_dim(self.face).mean(), {}

    def preview(self, averaged, folder, iteration):
        return {}


@pytest.mark.benchmark
@pytest.mark.timeout(1800)
def test_no_update_of_the_papers_glow_waits_for_its_checkpoint(tmp_path, monkeypatch):
    waited, written = [], State.written

    def timed(state: State) -> None:
        began = time.perf_counter()
        written(state)
        waited.append(time.perf_counter() - began)

    monkeypatch.setattr(State, "written", timed)
    train(_PapersGlow(), settings(iterations=3, checkpoint_every=1, preview_every=9, batch_size=1, ema=0.999), tmp_path)
    size = latest(tmp_path).path.stat().st_size
    print(f"{size / 1e9:.2f} GB after each update: waited {max(waited[:-1]):.2f} s, at the end {waited[-1]:.1f}")
    assert max(waited[:-1]) < 1
