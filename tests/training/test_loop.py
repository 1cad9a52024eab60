"""The loop: what it resumes to, what it skips, and how it accumulates and clips."""

import json
import shutil
import warnings

import pytest
import torch
from torch import nn

from ageflow.checkpoint import ConfigChangedError, checkpoints, latest, load_state, set_aside
from ageflow.config import Training
from ageflow.training import loop
from ageflow.training.distributed import Losses, Processes
from ageflow.training.loop import TrainingDivergedError, train
from ageflow.training.metrics import read_metrics
from ageflow.training.state import State
from ageflow.training.task import Piece, Task, Turn, sample_batch


class Line(Task):
    """Fit y = 3x − 1 from noisy batches, with dropout, so that every source of randomness is in use."""

    def __init__(self, broken_at=(), **config):
        torch.manual_seed(5)
        self.modules = nn.ModuleDict({"line": nn.Sequential(nn.Linear(1, 8), nn.Dropout(0.2), nn.Linear(8, 1))})
        self.turns = [Turn("line", list(self.modules.parameters()), self.loss, 0.05)]
        self.config = {"slope": 3, **config}
        self.x = torch.linspace(-1, 1, 64)[:, None]
        self.broken_at, self.seen = broken_at, []

    def start(self):
        """Nothing to initialise."""

    def loss(self, piece):
        x = self.x[piece.choose(64, 0)]
        self.seen.append(piece.number)
        noise = piece.of(torch.randn(piece.size, 1))
        loss = (self.modules["line"](x + 0.1 * noise) - (3 * x - 1)).square().mean()
        return (loss * float("nan") if piece.number in self.broken_at else loss), {"x": x.mean()}

    def preview(self, averaged, folder, iteration):
        return {"test/loss": float((averaged["line"](self.x) - (3 * self.x - 1)).square().mean())}


def settings(**values) -> Training:
    values = {
        "iterations": 30,
        "checkpoint_every": 10,
        "preview_every": 10,
        "log_every": 1,
        "batch_size": 4,
        "progress": False,
    } | values
    return Training(**values)


def weights(folder):
    checkpoint = latest(folder)
    return {**checkpoint.tensors("model."), **{"a." + k: v for k, v in checkpoint.tensors("average.").items()}}


def test_training_learns(tmp_path):
    before = Line().preview(Line().modules.eval(), tmp_path, 0)["test/loss"]
    train(Line(), settings(iterations=200), tmp_path / "a")
    assert read_metrics(tmp_path / "a")["test/loss"].dropna().iloc[-1] < 0.05 * before
    assert json.loads((tmp_path / "a" / "done.json").read_text())["iterations"] == 200


def test_what_a_killed_training_had_half_written_is_removed_and_nothing_else(tmp_path):
    """SIGKILL in the middle of a checkpoint leaves its temporary file: gigabytes, for a GLOW of the paper's size."""
    (tmp_path / "samples").mkdir()
    ours = [
        ".checkpoint-00000021.safetensors.p68ego6u",
        ".metrics.jsonl.abcdefgh",
        "samples/.samples-00000020.png.a_b1c2d3",
    ]
    others = [".checkpoint-00000021.safetensors", ".notes.abcdefgh", "samples/mine.png"]
    for name in ours + others:
        (tmp_path / name).write_bytes(b"half")
    train(Line(), settings(iterations=3), tmp_path)
    assert [name for name in ours if (tmp_path / name).exists()] == []
    assert [name for name in others if not (tmp_path / name).exists()] == []


def test_a_stopped_run_goes_on_to_the_same_numbers(tmp_path):
    train(Line(), settings(warmup=15, micro_batch=2, ema=0.9), tmp_path / "whole")

    class Stopped(Line):
        def loss(self, piece):
            if piece.number == 17:  # in iteration 18, seven after the last checkpoint
                raise KeyboardInterrupt
            return super().loss(piece)

    with pytest.raises(KeyboardInterrupt):
        train(Stopped(), settings(warmup=15, micro_batch=2, ema=0.9), tmp_path / "parts")
    again = Line()
    train(again, settings(warmup=15, micro_batch=2, ema=0.9), tmp_path / "parts")
    assert min(again.seen) == 10, "it goes on after the checkpoint of iteration 10"
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    first, second = ((tmp_path / name / "metrics.jsonl").read_bytes() for name in ("whole", "parts"))
    assert first == second, "each iteration stands once, with the same numbers"


def test_it_also_saves_when_some_minutes_have_passed(tmp_path, monkeypatch):
    """`checkpoint_every` counts updates, and those of a large network take seconds each."""
    for seconds, expected in ((3600, [3]), (0, [2, 3])):
        monkeypatch.setattr(loop, "_SECONDS_LOST", seconds)
        folder = train(Line(), settings(iterations=3, checkpoint_every=1000), tmp_path / f"{seconds}")
        assert [iteration for iteration, _ in checkpoints(folder)] == expected


def test_a_finished_training_does_nothing_again(tmp_path):
    train(Line(), settings(), tmp_path / "a")
    again = Line()
    train(again, settings(), tmp_path / "a")
    assert again.seen == []
    train(again, settings(iterations=35), tmp_path / "a")
    assert again.seen == [30, 31, 32, 33, 34]
    with pytest.warns(UserWarning, match=r"trained for 35 iterations, more than iterations = 30: .* restart=True"):
        train(again, settings(iterations=30), tmp_path / "a")
    assert again.seen == [30, 31, 32, 33, 34]


def test_a_step_that_is_not_finite_is_skipped_and_counted(tmp_path):
    task = Line(broken_at=(3, 7))
    before = [p.clone() for p in task.modules.parameters()]
    train(task, settings(), tmp_path / "a")
    assert all(torch.isfinite(tensor).all() for tensor in weights(tmp_path / "a").values())
    assert not torch.equal(before[0], next(task.modules.parameters()))
    assert json.loads((tmp_path / "a" / "done.json").read_text())["skipped"] == 2
    lines = read_metrics(tmp_path / "a").dropna(subset="skipped").set_index("iteration")["skipped"]
    assert (lines[3], lines[4], lines[8], lines[30]) == (0, 1, 2, 2)


def test_a_training_that_only_breaks_says_so(tmp_path):
    with pytest.raises(TrainingDivergedError, match=r"20 steps in a row.*learning_rate"):
        train(Line(broken_at=range(1000)), settings(), tmp_path / "a")


def test_accumulated_batches_give_the_gradient_of_one_large_batch(tmp_path):
    class Plain(Line):
        def loss(self, piece):
            x = self.x[piece.start : piece.stop]
            return (self.modules["line"][2](self.modules["line"][0](x)) - (3 * x - 1)).square().mean(), {}

    train(Plain(), settings(iterations=1, clip=0.1, batch_size=16), tmp_path / "one")
    train(Plain(), settings(iterations=1, clip=0.1, batch_size=16, micro_batch=5), tmp_path / "four")
    one, four = weights(tmp_path / "one"), weights(tmp_path / "four")
    for name in one:
        torch.testing.assert_close(one[name], four[name], rtol=0, atol=1e-6)
    norms = [read_metrics(tmp_path / name)["line/gradient_norm"][0] for name in ("one", "four")]
    assert norms[0] == pytest.approx(norms[1], rel=1e-5)
    assert norms[0] > 0.1, "the clip was in use"


def test_clipping_bounds_the_step():
    parameter = nn.Parameter(torch.zeros(2))
    turn = Turn("t", [parameter], lambda piece: ((parameter * torch.tensor([30.0, 40.0])).sum(), {}), 0.1)
    from ageflow.training.loop import _accumulate

    class Holder:
        modules = nn.ParameterList([parameter])

    norm, _ = _accumulate(Holder(), turn, Losses(turn, Processes()), [Piece(0, 0, 4, 4)], 5.0, 1, Processes())
    assert float(norm) == pytest.approx(50)
    torch.testing.assert_close(parameter.grad, torch.tensor([3.0, 4.0]), rtol=1e-4, atol=0)


def test_warm_up_raises_the_learning_rate_linearly(tmp_path):
    task = Line()
    train(task, settings(iterations=5, warmup=10), tmp_path / "a")
    assert task.turns[0].optimizer.param_groups[0]["lr"] == pytest.approx(0.05 * 0.5)


def test_a_cooldown_lets_the_learning_rate_fall_to_zero_over_the_last_updates(tmp_path):
    class Watched(Line):
        def loss(self, piece):
            rates.append(self.turns[0].optimizer.param_groups[0]["lr"])  # of the update before
            return super().loss(piece)

    rates = []
    task = Watched()
    train(task, settings(iterations=10, cooldown=4), tmp_path / "a")
    rates.append(task.turns[0].optimizer.param_groups[0]["lr"])
    torch.testing.assert_close(rates[1:], [0.05] * 7 + [0.05 * left / 4 for left in (3, 2, 1)])


def test_a_training_that_had_no_cooldown_goes_on_to_one(tmp_path):
    train(Line(), settings(iterations=10), tmp_path / "a")
    task = Line()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(task, settings(iterations=20, cooldown=5), tmp_path / "a")
    assert task.turns[0].optimizer.param_groups[0]["lr"] == pytest.approx(0.05 / 5)
    with pytest.warns(
        UserWarning, match=r"up to 20, the learning rate came down \(cooldown\), to 0.2 of.* rises .*to 1:"
    ):
        train(task, settings(iterations=30, cooldown=5), tmp_path / "a")


def test_only_a_learning_rate_that_rises_again_is_told(tmp_path):
    class Stopped(Line):
        def loss(self, piece):
            if piece.number == self.last:
                raise KeyboardInterrupt
            return super().loss(piece)

    def stop_at(iteration, folder, **changed):
        task = Stopped()
        task.last = iteration
        with pytest.raises(KeyboardInterrupt):
            train(task, settings(checkpoint_every=1, **changed), folder)

    stop_at(17, tmp_path / "amid", iterations=20, cooldown=10)
    shutil.copytree(tmp_path / "amid", tmp_path / "longer")
    train(Line(), settings(iterations=10), tmp_path / "first")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(Line(), settings(iterations=20, cooldown=10), tmp_path / "amid")  # it goes on as it began
        stop_at(13, tmp_path / "first", iterations=30, cooldown=10)
        train(Line(), settings(iterations=13, cooldown=10), tmp_path / "first")  # enough now, and never cooled
        train(Line(), settings(iterations=30, cooldown=10), tmp_path / "first")
    with pytest.warns(UserWarning, match="up to 17, the learning rate came down"):
        train(Line(), settings(iterations=40, cooldown=10), tmp_path / "longer")


def test_another_config_is_an_error_that_names_the_value(tmp_path):
    train(Line(), settings(), tmp_path / "a")
    with pytest.raises(ConfigChangedError, match=r"slope: 3 → 4.*restart=True"):
        train(Line(slope=4), settings(), tmp_path / "a")
    train(Line(slope=4), settings(restart=True), tmp_path / "a")
    assert latest(tmp_path / "a").config["slope"] == 4
    assert latest(tmp_path / "a.1").config["slope"] == 3, "nothing is lost"


def test_a_damaged_checkpoint_is_passed_over(tmp_path):
    folder = tmp_path / "a"
    train(Line(), settings(), folder)
    assert [iteration for iteration, _ in checkpoints(folder)] == [20, 30]
    newest = checkpoints(folder)[-1][1]
    newest.write_bytes(newest.read_bytes()[:100])
    with pytest.warns(UserWarning, match="cannot be read"):
        assert latest(folder).iteration == 20
    again = Line()
    with pytest.warns(UserWarning, match="cannot be read"):
        train(again, settings(), folder)
    assert min(again.seen) == 20
    assert latest(folder).iteration == 30


def test_averaged_weights_follow_slowly(tmp_path):
    task = Line()
    train(task, settings(ema=0.99), tmp_path / "a")
    averaged, plain = Line().modules, Line().modules
    load_state(averaged, tmp_path / "a")
    load_state(plain, tmp_path / "a", averaged=False)
    assert torch.equal(plain["line"][0].weight, task.modules["line"][0].weight)
    assert not torch.equal(averaged["line"][0].weight, plain["line"][0].weight)


def test_batches_cover_an_epoch_and_depend_on_the_seed():
    epoch = torch.cat([sample_batch(12, 4, seed=1, number=n) for n in range(3)])
    assert sorted(epoch.tolist()) == list(range(12))
    following = torch.cat([sample_batch(12, 4, seed=1, number=n) for n in range(3, 6)])
    assert epoch.tolist() != following.tolist()
    assert sample_batch(12, 4, 1, 5).tolist() == sample_batch(12, 4, 1, 5).tolist()
    assert sample_batch(3, 8, 0, 0).shape == (8,)
    with pytest.raises(ValueError, match="no faces"):
        sample_batch(0, 4, 0, 0)


def test_set_aside_keeps_every_earlier_folder(tmp_path):
    folder = tmp_path / "glow"
    for text in ("first", "second"):
        folder.mkdir()
        (folder / "x").write_text(text)
        set_aside(folder)
    assert (tmp_path / "glow.1" / "x").read_text() == "first"
    assert (tmp_path / "glow.2" / "x").read_text() == "second"
    assert set_aside(folder) is None


def test_what_was_stopped_is_finished_where_fewer_iterations_are_enough(tmp_path):
    class Stopped(Line):
        def loss(self, piece):
            if piece.number == 9:
                raise KeyboardInterrupt
            return super().loss(piece)

    with pytest.raises(KeyboardInterrupt):
        train(Stopped(), settings(checkpoint_every=8), tmp_path / "a")
    assert not (tmp_path / "a" / "done.json").exists()
    with pytest.warns(UserWarning, match="trained for 8 iterations, more than iterations = 5"):
        train(Line(), settings(iterations=5), tmp_path / "a")
    assert json.loads((tmp_path / "a" / "done.json").read_text())["iterations"] == 8, "those it has"
    train(Line(), settings(), tmp_path / "a")
    train(Line(), settings(), tmp_path / "b")
    assert weights(tmp_path / "a").keys() == weights(tmp_path / "b").keys()
    assert all(torch.equal(value, weights(tmp_path / "b")[name]) for name, value in weights(tmp_path / "a").items())


def test_a_skipped_update_leaves_the_running_statistics_as_they_were(tmp_path):
    class Normalised(Line):
        def __init__(self, infinite_at=()):
            super().__init__()
            self.modules = nn.ModuleDict({"line": nn.Sequential(nn.Linear(1, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))})
            self.turns = [Turn("line", list(self.modules.parameters()), self.loss, 0.05)]
            self.infinite_at = infinite_at

        def loss(self, piece):
            x = self.x[piece.choose(64, 0)]
            if piece.number in self.infinite_at:
                x = x * float("inf")
            return (self.modules["line"](x) - (3 * x - 1)).square().mean(), {}

    train(Normalised(infinite_at={4}), settings(iterations=6), tmp_path / "a")
    metrics = read_metrics(tmp_path / "a")
    assert metrics["skipped"].dropna().iloc[-1] == 1
    assert metrics["test/loss"].notna().any()
    assert all(bool(torch.isfinite(value).all()) for value in weights(tmp_path / "a").values())


def test_all_processes_go_back_to_the_checkpoint_that_the_first_tells(tmp_path, monkeypatch):
    """A machine that shares the folder may list an older state of it, and would train on from other weights."""

    class Second(Processes):
        first = False

        def told_by_first(self, value):
            return 20

    asked = settings(iterations=20)
    folder = train(Line(), asked, tmp_path / "a")
    assert [number for number, _ in checkpoints(folder)] == [10, 20]
    task = Line()
    state = State(task, asked.ema, torch.device("cpu"))
    state.iteration = 40
    monkeypatch.setattr(loop, "checkpoints", lambda folder: checkpoints(folder)[:1])
    loop._go_back(state, asked, folder, task.config, Second())
    assert (state.iteration, state.setbacks) == (20, 1)
    torch.testing.assert_close(dict(task.modules.state_dict()), dict(latest(folder).tensors("model.")))
