"""The loop: what it resumes to, what it skips, and how it accumulates, clips and averages."""

import time

import pytest
import torch
from torch import nn

from ageflow.checkpoint import checkpoint_file, checkpoints, latest, read_checkpoint, save_checkpoint
from ageflow.run import Manifest
from ageflow.training import loop
from ageflow.training import task as tasks
from ageflow.training.distributed import Processes
from ageflow.training.loop import TrainingDivergedError, train
from ageflow.training.metrics import read_metrics
from ageflow.training.task import Objective, State, sample_batch
from tests.training.line import Line, saved, settings, weights


def same(one, other) -> bool:
    """Whether two trainings' weights and averages are the same to the last bit."""
    first, second = weights(one), weights(other)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def stop_at(update, folder, **values) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(Line(stopped_at=update), settings(**values), folder)


def test_training_learns_and_notes_what_it_was_made_from(tmp_path):
    folder = train(task := Line(), settings(iterations=100, preview_every=25), tmp_path / "a")
    assert len(set(task.noise)) == 100
    losses = read_metrics(folder)["test/loss"].dropna().tolist()
    assert len(losses) == 4
    assert losses[-1] < 0.05 * Line().preview(Line().modules.eval(), tmp_path, 0)["test/loss"]
    manifest = Manifest.read(folder)
    assert (manifest.inputs, manifest.settings) == ({"faces": "ab"}, {"slope": 3})
    assert manifest.fingerprint == latest(folder).fingerprint
    assert latest(folder).path.stat().st_mode & 0o777 == 0o644, "others may read it"
    assert (manifest.details["iterations"], manifest.details["skipped"]) == (100, 0)


@pytest.mark.parametrize("ema", [0.9, 0])
def test_a_stopped_run_continues_to_the_same_numbers(tmp_path, ema):
    values = {"warmup": 15, "micro_batch": 2, "ema": ema}
    train(Line(), settings(**values), tmp_path / "whole")
    stop_at(17, tmp_path / "parts", **values)  # in iteration 18, seven after the last checkpoint
    again = Line()
    train(again, settings(**values), tmp_path / "parts")
    assert min(again.seen) == 10, "it continues after the checkpoint of iteration 10"
    assert same(tmp_path / "whole", tmp_path / "parts")
    assert latest(tmp_path / "whole").fingerprint == latest(tmp_path / "parts").fingerprint, "named by their values"
    first, second = ((tmp_path / name / "metrics.jsonl").read_bytes() for name in ("whole", "parts"))
    assert first == second, "each iteration is there once, with the same numbers"


def test_averaged_weights_follow_slowly_and_equal_the_formula(tmp_path):
    """avg ← avg + (1 − decay)(w − avg), decay = min(ema, (1 + i)/(10 + i)), from the first weights on."""
    average = Line().modules["line"][0].weight.detach()
    for done in range(1, 6):
        train(Line(), settings(iterations=done, ema=0.3), tmp_path / "a")
        now = weights(tmp_path / "a")["model.line.0.weight"]
        average = average + (1 - min(0.3, (1 + done) / (10 + done))) * (now - average)
    averaged = weights(tmp_path / "a")["average.line.0.weight"]
    torch.testing.assert_close(averaged, average)
    assert not torch.equal(averaged, now)
    assert torch.equal(latest(tmp_path / "a").state("line")["0.weight"], averaged), "what is used of a training"


def test_a_checkpoint_is_written_while_the_next_gradients_are_computed_and_before_weights_change(tmp_path, monkeypatch):
    happened = []

    class Watched(Line):
        def loss(self, part):
            happened.append(f"gradients {part.number}")
            return super().loss(part)

    def slowly(folder, iteration, tensors, *about):
        time.sleep(0.5)
        found = save_checkpoint(folder, iteration, tensors, *about)
        happened.append(f"written {iteration}")
        return found

    monkeypatch.setattr(tasks, "save_checkpoint", slowly)
    train(Watched(), settings(iterations=12), tmp_path / "slow")
    assert happened[10:] == ["gradients 10", "written 10", "gradients 11", "written 12"]
    monkeypatch.undo()
    train(Line(), settings(iterations=10), tmp_path / "ten")
    ten, slow = (read_checkpoint(checkpoint_file(tmp_path / name, 10)) for name in ("ten", "slow"))
    assert ten.fingerprint == slow.fingerprint, "what was saved are the weights of iteration 10"


def test_it_also_saves_when_some_minutes_have_passed(tmp_path, monkeypatch):
    """`checkpoint_every` counts updates, and those of a large network take seconds each."""
    monkeypatch.setattr(loop, "_SECONDS_LOST", 0)
    assert saved(train(Line(), settings(iterations=3, checkpoint_every=1000), tmp_path / "a")) == [2, 3]


def test_a_finished_training_does_nothing_again_but_takes_more_iterations(tmp_path):
    train(Line(), settings(), tmp_path / "a")
    again = Line()
    train(again, settings(), tmp_path / "a")
    assert again.seen == []
    stop_at(33, tmp_path / "a", iterations=35)
    assert Manifest.read(tmp_path / "a") is None, "until it has those"
    train(again, settings(iterations=35), tmp_path / "a")
    assert again.seen == [30, 31, 32, 33, 34]


def test_what_was_stopped_is_finished_where_fewer_iterations_are_enough(tmp_path):
    stop_at(9, tmp_path / "a", checkpoint_every=8)
    assert Manifest.read(tmp_path / "a") is None
    with pytest.warns(UserWarning, match=r"trained for 8 iterations, more than iterations = 5, .* restart=True"):
        train(Line(), settings(iterations=5), tmp_path / "a")
    assert Manifest.read(tmp_path / "a").details["iterations"] == 8, "those it has"
    train(Line(), settings(), tmp_path / "a")
    train(Line(), settings(), tmp_path / "b")
    assert same(tmp_path / "a", tmp_path / "b")


class Normalised(Line):
    """With batch normalisation, which sees infinite values in the updates that are broken."""

    def __init__(self, **given):
        super().__init__(**given)
        self.modules["line"][1] = nn.BatchNorm1d(8)
        self.objectives = [Objective("line", list(self.modules.parameters()), self.loss, 0.05)]

    def loss(self, part):
        self.x = torch.linspace(-1, 1, 64)[:, None] * (float("inf") if part.number in self.broken_at else 1)
        return super().loss(part)


def test_a_step_that_is_not_finite_leaves_nothing_behind(tmp_path):
    """Weights, the optimiser's moments and running statistics stay as they were."""
    train(Normalised(), settings(iterations=3), tmp_path / "before")
    train(Normalised(broken_at=(3,)), settings(iterations=4), tmp_path / "after")
    before, after = (latest(tmp_path / name).tensors("") for name in ("before", "after"))
    kept = [name for name in before if name.startswith(("model.", "optimizer.")) and "num_batches" not in name]
    assert len(kept) == 8 + 6 * 3
    assert [name for name in kept if not torch.equal(before[name], after[name])] == []


def test_after_twenty_in_a_row_it_goes_back_to_half_the_rate_and_other_noise(tmp_path):
    """The faults come once: what is trained again is finite. A checkpoint from amid them, of iteration 15, is left out."""

    class Once(Line):
        def loss(self, part):
            loss = super().loss(part)
            self.broken_at = [number for number in self.broken_at if number != part.number]
            return loss

    task = Once(broken_at=range(12, 32))
    train(task, settings(iterations=15), tmp_path / "a")
    assert saved(tmp_path / "a") == [10, 15]
    with pytest.warns(UserWarning, match=r"20 steps in a row.*: back to iteration 10, at 0.5 of the learning rate"):
        train(task, settings(iterations=40), tmp_path / "a")
    assert task.objectives[0].optimizer.param_groups[0]["lr"] == pytest.approx(0.025)
    assert Manifest.read(tmp_path / "a").details["skipped"] == 20
    numbers = read_metrics(tmp_path / "a").dropna(subset="line/loss")["iteration"].tolist()
    assert numbers == list(range(1, 41)), "no update is missing or there twice"
    assert int(latest(tmp_path / "a").tensors("counts.")["setbacks"]) == 1
    assert len(set(task.noise)) == len(task.noise) == 32 + 30


def test_a_training_that_only_breaks_says_so(tmp_path):
    with pytest.raises(TrainingDivergedError, match=r"20 steps in a row.*back 0 times.*learning_rate"):
        train(Line(broken_at=range(1000)), settings(), tmp_path / "a")
    train(Line(), settings(iterations=10), tmp_path / "b")
    with (
        pytest.warns(UserWarning, match="back to iteration 10"),
        pytest.raises(TrainingDivergedError, match="back 5 times"),
    ):
        train(Line(broken_at=range(10, 1000)), settings(iterations=1000), tmp_path / "b")
    assert saved(tmp_path / "b") == [10]


def test_all_processes_go_back_to_the_checkpoint_that_the_first_names(tmp_path, monkeypatch):
    """A machine that shares the folder may list an older state of it, and would train on from other weights."""

    class Second(Processes):
        first = False

        def largest(self, value):
            return 20

    asked = settings(iterations=20)
    folder = train(Line(), asked, tmp_path / "a")
    assert saved(folder) == [10, 20]
    state = State(Line(), asked.ema, torch.device("cpu"))
    monkeypatch.setattr("ageflow.checkpoint.checkpoints", lambda folder: checkpoints(folder)[:1])
    loop._go_back(state, asked, folder, Second())
    assert (state.iteration, state.setbacks) == (20, 1)
    kept = loop.read_checkpoint(checkpoints(folder)[-1][1]).tensors("model.")
    torch.testing.assert_close(dict(state.task.modules.state_dict()), kept)


def test_accumulated_batches_give_the_clipped_gradient_of_one_large_batch(tmp_path):
    class Plain(Line):
        def loss(self, part):
            x = self.x[part.start : part.stop] + part.rows(torch.randn(part.size, 1))
            return (self.modules["line"][2](self.modules["line"][0](x)) - (3 * x - 1)).square().mean(), {}

    for name, more in (("one", {}), ("four", {"micro_batch": 5})):
        train(task := Plain(), settings(iterations=1, clip=0.1, batch_size=16, **more), tmp_path / name)
        left = torch.cat([parameter.grad.flatten() for parameter in task.modules.parameters()])
        assert float(left.norm()) == pytest.approx(0.1, rel=1e-3)
    torch.testing.assert_close(weights(tmp_path / "one"), weights(tmp_path / "four"), rtol=0, atol=1e-6)
    norms = [read_metrics(tmp_path / name)["line/gradient_norm"][0] for name in ("one", "four")]
    assert norms[0] == pytest.approx(norms[1], rel=1e-5)
    assert norms[0] > 0.1, "the clip was in use"


def test_the_learning_rate_rises_and_falls_linearly(tmp_path):
    train(task := Line(), settings(iterations=10, preview_every=1, warmup=4, cooldown=5), tmp_path / "a")
    assert task.rates == pytest.approx([0.05 * share for share in (0.25, 0.5, 0.75, 1, 1, 1, 0.8, 0.6, 0.4, 0.2)])


def test_batches_cover_an_epoch_and_depend_on_the_seed():
    epoch, following = torch.cat([sample_batch(12, 4, seed=1, number=n) for n in range(6)]).chunk(2)
    assert sorted(epoch.tolist()) == sorted(following.tolist()) == list(range(12))
    assert epoch.tolist() != following.tolist()
    assert sample_batch(12, 4, 1, 5).tolist() == following[8:].tolist()
    assert sample_batch(12, 4, 2, 0).tolist() != epoch[:4].tolist()
    assert sample_batch(3, 8, 0, 0).shape == (8,)
    with pytest.raises(ValueError, match="no faces"):
        sample_batch(0, 4, 0, 0)
