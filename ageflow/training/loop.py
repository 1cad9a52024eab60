"""The training loop: one for GLOW, for ICTM with D, and for the classifiers; for one process or many.

A `Task` says what is trained: its modules and, in order, its turns. A turn is one optimiser with its parameters
and its loss; GLOW and a classifier have one, ICTM and D alternate as two. `train` reads from top to bottom.

Everything random in iteration i comes from (seed, i), and a checkpoint holds weights, averages, optimisers and counts:
a run that was stopped goes on to the same numbers as one that never was: on the CPU to the last bit, on a GPU up to
rounding, whose sums are added in another order each time.
"""

import contextlib
import json
import math
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ageflow.config import ParameterError, Training
from ageflow.folders import FolderInUseError, sole_writer
from ageflow.memory import keep_freed_memory
from ageflow.progress import progress_bar
from ageflow.storage import (
    Checkpoint,
    CheckpointError,
    checkpoint_file,
    checkpoints,
    device_of,
    latest,
    read_checkpoint,
    remove_leftovers,
    write_atomically,
)
from ageflow.training.checkpoint import comparable, refuse_another, set_aside, told_by
from ageflow.training.distributed import Processes, losses_of, processes, quietly
from ageflow.training.length import cooled, warn_of_another_length
from ageflow.training.metrics import Metrics
from ageflow.training.size import faces_a_pass, outlook
from ageflow.training.state import State
from ageflow.training.stopping import Stopping
from ageflow.training.task import Task, Turn, keep_spectral_norms, pieces, running_statistics, seed_of

__all__ = ["TrainingDivergedError", "alone_in", "train"]

# So many updates in a row that are not finite: training goes back; after so many times, it gives up.
_MOST_IN_A_ROW = 20
_MOST_SETBACKS = 5
# What a training writes into its folder and its samples' folder, each file first under another name.
_OUR_FILES = r"checkpoint-\d{8}\.safetensors|metrics\.jsonl|done\.json|[a-z]+-\d{8}\.png"
# What a process that is killed loses at most: it saves so often, too, where `checkpoint_every` updates take longer.
_SECONDS_LOST = 15 * 60
# Updates after which the line about speed is said: the first ones are slower.
_WARM = 3


class TrainingDivergedError(RuntimeError):
    """Too many updates in a row had a loss or a gradient that was not finite."""


def train(task: Task, settings: Training, folder: Path) -> Path:
    """Train `task` in `folder`; where it was stopped, it goes on.

    An update whose loss or gradient is not finite on any process is skipped on all, and counted. Twenty in a row, and
    training goes back to the last checkpoint from before with half the learning rate. SIGTERM and SIGINT save first.

    Arguments:
        task: what to train.
        settings: iterations, warm-up, clipping and so on.
        folder: holds checkpoints, ``metrics.jsonl``, ``tensorboard/``, ``samples/`` and, at the end, ``done.json``.
            Processes on several machines must share it.

    Returns:
        `folder`.

    Raises:
        ConfigChangedError: `folder` holds a training with another config.
        ParameterError: fewer faces in an update than there are processes.
        TrainingDivergedError: it diverged with nothing to go back to, or again and again.
        CheckpointError: no checkpoint of the folder can be used.
        FolderInUseError: another process trains in it.
        OSError: the folder cannot be written; the last checkpoint is whole.
    """
    with alone_in(folder, processes()):
        return _train(task, settings, folder)


@contextlib.contextmanager
def alone_in(folder: Path, together: Processes) -> Iterator[None]:
    """While the block lasts, which all of `together` enter, no other training gets into `folder`."""
    with contextlib.ExitStack() as stack:
        in_use = False
        if together.first:
            try:
                stack.enter_context(sole_writer(folder))
            except FolderInUseError:
                in_use = True
        if together.told_by_first(in_use):
            raise FolderInUseError(folder)
        yield


def _train(task: Task, settings: Training, folder: Path) -> Path:
    """`train`, alone in `folder`."""
    device, together = device_of(settings.device), processes()
    if settings.batch_size < together.count:  # torchrun's, which `gpus` does not tell
        raise ParameterError(
            f"batch_size = {settings.batch_size} is less than a face for each of {together.count} processes"
        )
    if device.type == "cpu":
        keep_freed_memory()
    config = comparable(task.config)
    if settings.restart and together.first:
        set_aside(folder)
    if together.first:
        for each in (folder, folder / "samples"):
            remove_leftovers(each, _OUR_FILES)  # of a training that was killed while it wrote one
    task.modules.to(device)
    state = _begin(task, settings, folder, config, together)
    finished = (folder / "done.json").is_file()
    if together.first:
        warn_of_another_length(folder, state, settings)
    if state.iteration >= settings.iterations and (finished or state.iteration):
        if together.first and not finished:
            _conclude(folder, state, 0.0)  # it was stopped on its way to more iterations, and has enough of them now
        return folder
    if together.first:
        (folder / "done.json").unlink(missing_ok=True)  # more iterations were asked for
    micro_batch = faces_a_pass(task, settings, together, device)
    losses = [losses_of(turn, together) for turn in task.turns]

    metrics = Metrics(folder, state.iteration) if together.first else None
    bar = progress_bar(
        total=settings.iterations,
        initial=state.iteration,
        title=folder.name,
        unit="step",
        show=settings.progress and together.first,
    )
    began, first, due = time.perf_counter(), state.iteration, False
    saved = began
    with bar, Stopping() as stopping:
        try:
            if metrics and settings.iterations == state.iteration == 0:  # what it begins from, as it is
                metrics.write(0, task.preview(state.averaged.eval(), folder / "samples", 0))
                state.save(folder, config)
            while state.iteration < settings.iterations:
                state.iteration += 1
                values = _update(state, losses, settings, micro_batch, together)

                last = state.iteration == settings.iterations
                signal = together.largest(stopping.asked)
                if state.iteration % settings.log_every == 0 or last:  # the only place that waits for the device
                    if state.skipped.longest >= _MOST_IN_A_ROW:
                        _go_back(state, settings, folder, config, together)
                        if metrics:
                            metrics.close()
                            metrics = Metrics(folder, state.iteration)
                        bar.n = state.iteration
                        continue
                    numbers = {name: float(value) for name, value in values.items()}
                    numbers |= {"skipped": state.skipped.total}
                    if metrics:
                        metrics.write(state.iteration, numbers)
                        metrics.write_time(state.iteration, time.perf_counter() - began)
                    bar.set_postfix_str(_headline(numbers), refresh=False)
                if metrics and (state.iteration % settings.preview_every == 0 or last):
                    metrics.write(
                        state.iteration, task.preview(state.averaged.eval(), folder / "samples", state.iteration)
                    )
                due |= state.iteration % settings.checkpoint_every == 0 or time.perf_counter() - saved > _SECONDS_LOST
                # Not amid updates that are skipped: only a few checkpoints are kept, and one must be from before.
                if together.first and (last or signal or (due and not state.skipped.in_a_row)):
                    state.save(folder, config)
                    due, saved = False, time.perf_counter()
                bar.update()
                if settings.progress and together.first and state.iteration - first == _WARM and not last:
                    left, seconds = settings.iterations - state.iteration, (time.perf_counter() - began) / _WARM
                    bar.write(outlook(task.modules, settings, micro_batch, together, left, seconds))
                if signal:
                    stopping.asked = signal
                    break
        finally:
            if metrics:
                metrics.close()
    if together.first and state.iteration == settings.iterations:
        _conclude(folder, state, time.perf_counter() - began)
    return folder


def _conclude(folder: Path, state: State, seconds: float) -> None:
    summary = {"iterations": state.iteration, "skipped": state.skipped.total, "seconds": seconds}
    write_atomically(folder / "done.json", json.dumps(summary).encode())


def _begin(task: Task, settings: Training, folder: Path, config: dict[str, Any], together: Processes) -> State:
    """The state to go on from: the newest checkpoint's, or a new one, which the first process makes for all."""
    checkpoint = latest(folder) if together.first and folder.exists() else None
    number = together.told_by_first(checkpoint.iteration if checkpoint else -1)
    if number < 0:
        if together.first:
            folder.mkdir(parents=True, exist_ok=True)
            torch.manual_seed(settings.seed)
            task.start()
        together.give_to_all(task.modules)
        return State(task, settings.ema, device_of(settings.device))
    checkpoint = checkpoint or read_checkpoint(checkpoint_file(folder, number))
    refuse_another(checkpoint.config, config, folder, settings.step, task.step)
    state = State(task, settings.ema, device_of(settings.device))
    state.load(checkpoint)
    return state


def _update(
    state: State, losses: list[nn.Module], settings: Training, micro_batch: int, together: Processes
) -> dict[str, Tensor]:
    """One update of every turn; the values to log, of the whole batch."""
    task, iteration = state.task, state.iteration
    # Rises from the first update, and falls after the last but `cooldown`; the last one still moves.
    rising, state.cooled = iteration / max(1, settings.warmup), cooled(iteration, settings)
    rate = min(1.0, rising) * state.cooled * state.rate
    mine = pieces(iteration - 1, settings.batch_size, micro_batch, together.rank, together.count)
    values: dict[str, Tensor] = {}
    any_bad = torch.zeros((), device=state.device)
    for place, (turn, loss) in enumerate(zip(task.turns, losses, strict=True)):
        # After a setback other noise than what led there.
        seed = seed_of(settings.seed + 1_000_003 * state.setbacks, iteration * len(task.turns) + place)
        statistics = [(held, held.clone()) for held in running_statistics(task.modules)]
        norm, of_turn = _accumulate(task, turn, loss, mine, settings.clip, seed, together)
        bad = (~(torch.isfinite(norm) & torch.isfinite(of_turn["loss"]))).float()
        turn.step(bad, rate)
        for held, before in statistics:  # a skipped update leaves nothing behind, or they would not be finite for good
            held.copy_(torch.where(bad > 0, before, held))
        any_bad = torch.maximum(any_bad, bad)
        values |= {f"{turn.name}/{name}": value for name, value in of_turn.items()}
        values[f"{turn.name}/gradient_norm"] = norm
    together.average_statistics(task.modules)
    state.skipped.count(any_bad)
    state.update_average()
    return values


def _accumulate(
    task: Task, turn: Turn, losses: nn.Module, mine: list, clip: float | None, seed: int, together: Processes
) -> tuple[Tensor, dict[str, Tensor]]:
    """Gradients of one turn over the whole batch, clipped after; their norm and the logged values.

    The same seed before every piece: what a loss draws, it draws for the whole batch, and takes its rows.
    """
    for parameter in task.modules.parameters():
        parameter.grad = None
    sums: dict[str, Tensor] = {}
    task.modules.train()
    for piece in mine:
        if piece is not mine[0]:
            keep_spectral_norms(task.modules)
        torch.manual_seed(seed)
        with quietly(losses, last=piece is mine[-1]):
            loss, values = losses(piece)
            loss.backward()
        for name, value in values.items():
            sums[name] = sums.get(name, 0) + value * piece.share
    norm = nn.utils.clip_grad_norm_(turn.parameters, clip or math.inf)
    return norm, turn.conclude(together.summed(sums))


def _go_back(state: State, settings: Training, folder: Path, config: dict[str, Any], together: Processes) -> None:
    """To the newest checkpoint from before the row of updates that were not finite, with half the learning rate."""
    diverged, setbacks, total = state.iteration, state.setbacks + 1, state.skipped.total
    what = f"{_MOST_IN_A_ROW} steps in a row up to iteration {diverged} had losses or gradients that are not finite"
    if setbacks > _MOST_SETBACKS:
        raise TrainingDivergedError(
            f"{what}, after {_MOST_SETBACKS} setbacks: lower learning_rate ({settings.learning_rate}) or set clip; "
            f"the last checkpoint in {folder} is whole"
        )
    checkpoint = _from_before(folder, config) if together.first else None
    number = together.told_by_first(checkpoint.iteration if checkpoint else -1)
    if number < 0:
        raise TrainingDivergedError(
            f"{what}, and there is no checkpoint from before to go back to: lower learning_rate "
            f"({settings.learning_rate}) or set clip"
        )
    state.load(checkpoint or read_checkpoint(checkpoint_file(folder, number)))
    state.setbacks = setbacks
    state.skipped.counts = torch.tensor([total, 0, 0], device=state.device)
    if together.first:
        warnings.warn(f"{what}: back to iteration {number}, at {state.rate:g} of the learning rate", stacklevel=2)


def _from_before(folder: Path, config: dict[str, Any]) -> Checkpoint | None:
    """The newest checkpoint that can be read, is of this training and amid no updates that were skipped."""
    for _, path in reversed(checkpoints(folder)):
        try:
            checkpoint = read_checkpoint(path)
        except CheckpointError as error:
            warnings.warn(str(error), stacklevel=3)
            continue
        counts = checkpoint.tensors("counts.")
        before = comparable(checkpoint.config)
        if before == told_by(before, config) and counts and int(counts["skipped"][1]) == 0:
            return checkpoint
    return None


def _headline(numbers: dict[str, float]) -> str:
    shown = [(name.split("/")[-1], v) for name, v in numbers.items() if name.endswith("loss")]
    return ", ".join(f"{name} {value:.3g}" for name, value in shown)
