"""The training loop: one for GLOW, for ICTM with D, and for the classifiers; for one process or many.

A `Task` holds what is trained: its modules and, in order, its objectives, each with one optimiser, its parameters and
its loss; GLOW and a classifier have one, ICTM and D alternate as two. `train` reads from top to bottom.

Everything random in iteration i comes from (seed, i), and a checkpoint holds weights, averages, optimisers and counts:
a run that was stopped continues to the same numbers as one that never was: on the CPU to the last bit, on a GPU up to
rounding, whose sums are added in another order each time.
"""

import contextlib
import math
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from ageflow.checkpoint import (
    Checkpoint,
    check_same_training,
    checkpoint_file,
    fingerprint,
    latest,
    read_checkpoint,
    readable,
    set_aside,
)
from ageflow.config import ParameterError, Training
from ageflow.device import device_of, keep_freed_memory
from ageflow.run import MANIFEST, FolderInUseError, remove_leftovers, sole_writer
from ageflow.training.distributed import Processes, as_module, maybe_no_sync, processes
from ageflow.training.launch import Stopping
from ageflow.training.metrics import Metrics
from ageflow.training.size import choose_micro_batch, outlook
from ageflow.training.state import State
from ageflow.training.task import (
    MicroBatch,
    Objective,
    Task,
    freeze_spectral_norms,
    micro_batches,
    running_statistics,
    seed_of,
)
from ageflow.work import progress_bar

# So many updates in a row that are not finite: training goes back; after so many times, it gives up.
_MOST_IN_A_ROW = 20
_MOST_SETBACKS = 5
# What a training writes into its folder and its samples' folder, each file first under another name.
_OUR_FILES = r"checkpoint-\d{8}\.safetensors|metrics\.jsonl|manifest\.json|[a-z]+-\d{8}\.png"
# What a process that is killed loses at most: it saves so often, too, where `checkpoint_every` updates take longer.
_SECONDS_LOST = 15 * 60
# Updates after which speed is reported: the first ones are slower.
_WARM = 3


class TrainingDivergedError(RuntimeError):
    """Too many updates in a row had a loss or a gradient that was not finite."""


def train(task: Task, settings: Training, folder: Path) -> Path:
    """Train `task` in `folder`; where it was stopped, it continues.

    An update whose loss or gradient is not finite on any process is skipped on all, and counted. Twenty in a row, and
    training goes back to the last checkpoint from before with half the learning rate. SIGTERM and SIGINT save first.

    Arguments:
        task: what to train.
        settings: iterations, warm-up, clipping and so on.
        folder: holds checkpoints, ``metrics.jsonl``, ``tensorboard/``, ``samples/`` and, at the end, ``manifest.json``.
            Processes on several machines must share it.

    Returns:
        `folder`.

    Raises:
        ConfigChangedError: `folder` holds a training with other settings or on other inputs.
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
        # All have to answer: none begins anew what another still reads the weights of that it begins from.
        if together.largest(in_use):
            raise FolderInUseError(folder)
        yield


def _train(task: Task, settings: Training, folder: Path) -> Path:
    """`train`, alone in `folder`."""
    device, together = device_of(settings.device), processes()
    if settings.batch_size < together.count:  # started by torchrun itself, where `gpus` is not the number
        raise ParameterError(
            f"batch_size = {settings.batch_size} is less than a face for each of {together.count} processes"
        )
    if device.type == "cpu":
        keep_freed_memory()
    if together.first:
        if settings.restart:
            set_aside(folder)
        for each in (folder, folder / "samples"):
            remove_leftovers(each, _OUR_FILES)
    task.modules.to(device)
    state = _begin(task, settings, folder, together)
    if together.first:
        _warn_of_another_length(folder, state, settings)
    if state.resumed and state.iteration >= settings.iterations:
        if together.first and not (folder / MANIFEST).is_file():  # stopped on its way to more, and now has enough
            _finish(folder, state, 0.0)
        return folder
    if together.first:
        (folder / MANIFEST).unlink(missing_ok=True)  # more iterations were asked for
    began = time.perf_counter()
    with Stopping() as stopping:
        _iterate(state, settings, folder, together, stopping)
    if together.first and state.iteration == settings.iterations:
        _finish(folder, state, time.perf_counter() - began)
    return folder


def _begin(task: Task, settings: Training, folder: Path, together: Processes) -> State:
    """The state to continue from: the newest checkpoint's, or a new one, which the first process makes for all."""
    checkpoint = _on_all(latest(folder) if together.first else None, folder, together)
    if checkpoint is not None:
        check_same_training(checkpoint, task.manifest, folder, settings.step)
    elif together.first:
        torch.manual_seed(settings.seed)
        task.start()
    together.broadcast_module(task.modules)
    state = State(task, settings.ema, device_of(settings.device))
    if checkpoint is not None:
        state.load(checkpoint)
    return state


def _on_all(found: Checkpoint | None, folder: Path, together: Processes) -> Checkpoint | None:
    """The checkpoint that the first process has found, or None, for every process, whatever its machine lists yet."""
    number = together.broadcast(found.iteration if found else -1)
    return found if found or number < 0 else read_checkpoint(checkpoint_file(folder, number))


def _iterate(state: State, settings: Training, folder: Path, together: Processes, stopping: Stopping) -> None:
    """Update until `settings.iterations` or a signal; write metrics, previews and checkpoints on the way."""
    task, first, due = state.task, state.iteration, False
    micro_batch = choose_micro_batch(task, settings, together, state.device)
    losses = [as_module(objective, together) for objective in task.objectives]
    show = settings.progress and together.first
    bar = progress_bar(total=settings.iterations, initial=first, unit="step", title=folder.name, show=show)
    began = saved = time.perf_counter()
    with bar, Metrics(folder, first) if together.first else contextlib.nullcontext() as metrics:
        if metrics and settings.iterations == 0:  # the weights it begins from, as they are
            metrics.write(0, task.preview(state.averaged.eval(), folder / "samples", 0))
            state.save(folder)
        while state.iteration < settings.iterations:
            state.iteration += 1
            values = _update(state, losses, settings, micro_batch, together)

            last = state.iteration == settings.iterations
            signal = together.largest(stopping.signal)
            if state.iteration % settings.log_every == 0 or last:  # the only place that waits for the device
                total, _, longest = state.skipped.tolist()
                if longest >= _MOST_IN_A_ROW:
                    _go_back(state, settings, folder, together)
                    if metrics:
                        metrics.rewind(state.iteration)
                    bar.n = state.iteration
                    continue
                numbers = {name: float(value) for name, value in values.items()}
                if metrics:
                    metrics.write(state.iteration, numbers | {"skipped": total}, time.perf_counter() - began)
                bar.set_postfix_str(_headline(numbers), refresh=False)
            if metrics and (state.iteration % settings.preview_every == 0 or last):
                preview = task.preview(state.averaged.eval(), folder / "samples", state.iteration)
                metrics.write(state.iteration, preview)
            due |= state.iteration % settings.checkpoint_every == 0 or time.perf_counter() - saved > _SECONDS_LOST
            # Not amid updates that are skipped: only a few checkpoints are kept, and one must be from before.
            if together.first and (last or signal or (due and not state.skipped[1])):
                state.save(folder)
                due, saved = False, time.perf_counter()
            bar.update()
            if show and state.iteration - first == _WARM and not last:
                seconds = (time.perf_counter() - began) / _WARM
                bar.write(outlook(state, settings, micro_batch, together, seconds))
                bar.write(f"curves while it trains: tensorboard --logdir {folder}")
            if signal:
                stopping.signal = signal
                together.broadcast(0)  # none ends before the first has saved
                break


def _finish(folder: Path, state: State, seconds: float) -> None:
    details = {"iterations": state.iteration, "skipped": int(state.skipped[0]), "seconds": round(seconds, 1)}
    replace(state.task.manifest, fingerprint=fingerprint(folder), details=details).write(folder)


def _warn_of_another_length(folder: Path, state: State, settings: Training) -> None:
    """Warn where what is in `folder` is not what `iterations` would train from the beginning."""
    done, asked = state.iteration, settings.iterations
    if done > asked:
        warnings.warn(
            f"{folder} has been trained for {done} iterations, more than iterations = {asked}: it stays as it is. For a "
            "shorter training name another run, or pass restart=True, which keeps this one under a number",
            stacklevel=4,
        )
    elif done < asked and state.cooled < (now := _cooled(done + 1, settings)):
        warnings.warn(
            f"over the last iterations of {folder}, up to {done}, the learning rate came down (cooldown), to "
            f"{state.cooled:.2g} of itself. It rises again now, to {now:.2g}: what comes of iterations = {asked} is not "
            "what as many in one go give",
            stacklevel=4,
        )


def _cooled(iteration: int, settings: Training) -> float:
    """Share of the learning rate that the cooldown leaves in an update, counted from 1; the last one still moves."""
    return min(1.0, (settings.iterations - iteration + 1) / max(1, settings.cooldown))


def _update(
    state: State, losses: list[nn.Module], settings: Training, micro_batch: int, together: Processes
) -> dict[str, Tensor]:
    """One update of every objective; the values to log, of the whole batch."""
    task, iteration = state.task, state.iteration
    state.cooled = _cooled(iteration, settings)
    rate = min(1.0, iteration / max(1, settings.warmup)) * state.cooled * state.rate
    mine = micro_batches(iteration - 1, settings.batch_size, micro_batch, together.rank, together.count)
    values: dict[str, Tensor] = {}
    any_skipped = torch.zeros((), device=state.device)
    for place, (objective, loss) in enumerate(zip(task.objectives, losses, strict=True)):
        # After a setback other noise than what led there.
        seed = seed_of(settings.seed + 1_000_003 * state.setbacks, iteration * len(task.objectives) + place)
        statistics = [(statistic, statistic.clone()) for statistic in running_statistics(task.modules)]
        norm, logged = _accumulate(task, objective, loss, mine, settings.clip, seed, together)
        skip = (~(torch.isfinite(norm) & torch.isfinite(logged["loss"]))).float()
        objective.step(skip, rate)
        for statistic, before in statistics:  # a skipped update leaves nothing behind
            statistic.copy_(torch.where(skip > 0, before, statistic))
        any_skipped = torch.maximum(any_skipped, skip)
        values |= {f"{objective.name}/{name}": value for name, value in logged.items()}
        values[f"{objective.name}/gradient_norm"] = norm
    together.average_statistics(task.modules)
    state.count(any_skipped)
    state.update_average()
    return values


def _accumulate(
    task: Task,
    objective: Objective,
    losses: nn.Module,
    mine: list[MicroBatch],
    clip: float | None,
    seed: int,
    together: Processes,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Gradients of one objective over the whole batch, clipped after; their norm and the logged values.

    The same seed before every micro-batch: what a loss draws, it draws for the whole batch, and takes its rows.
    """
    for parameter in task.modules.parameters():
        parameter.grad = None
    sums: dict[str, Tensor] = {}
    task.modules.train()
    for part in mine:
        if part is not mine[0]:
            freeze_spectral_norms(task.modules)
        torch.manual_seed(seed)
        with maybe_no_sync(losses, last=part is mine[-1]):
            loss, values = losses(part)
            loss.backward()
        for name, value in values.items():
            sums[name] = sums.get(name, 0) + value * part.share
    norm = nn.utils.clip_grad_norm_(objective.parameters, clip or math.inf)
    return norm, objective.reduce_metrics(together.sum(sums))


def _go_back(state: State, settings: Training, folder: Path, together: Processes) -> None:
    """To the newest checkpoint from before the row of updates that were not finite, with half the learning rate."""
    setbacks, total = state.setbacks + 1, int(state.skipped[0])
    what = (
        f"{_MOST_IN_A_ROW} steps in a row up to iteration {state.iteration} had losses or gradients that are not finite"
    )
    advice = f"lower learning_rate ({settings.learning_rate}) or set clip"
    if setbacks > _MOST_SETBACKS:
        raise TrainingDivergedError(
            f"{what}, after {_MOST_SETBACKS} setbacks: {advice}; the last checkpoint in {folder} is whole"
        )
    before = (checkpoint for checkpoint in readable(folder) if not checkpoint.tensors("counts.")["skipped"][1])
    checkpoint = _on_all(next(before, None) if together.first else None, folder, together)
    if checkpoint is None:
        raise TrainingDivergedError(f"{what}, and there is no checkpoint from before to go back to: {advice}")
    state.load(checkpoint)
    state.setbacks = setbacks
    state.skipped = torch.tensor([total, 0, 0], device=state.device)
    if together.first:
        warnings.warn(
            f"{what}: back to iteration {checkpoint.iteration}, at {state.rate:g} of the learning rate", stacklevel=3
        )


def _headline(numbers: dict[str, float]) -> str:
    shown = [(name.split("/")[-1], value) for name, value in numbers.items() if name.endswith("loss")]
    return ", ".join(f"{name} {value:.3g}" for name, value in shown)
