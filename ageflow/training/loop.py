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
from torch import nn

from ageflow.checkpoint import Checkpoint, checkpoint_file, latest, read_checkpoint, readable, set_aside
from ageflow.config import ParameterError, Training
from ageflow.device import device_of, keep_freed_memory, peak_memory
from ageflow.run import MANIFEST, FolderInUseError, remove_leftovers, sole_writer
from ageflow.training.distributed import Processes, Stopping, accumulate, as_module, choose_micro_batch, processes
from ageflow.training.metrics import Metrics
from ageflow.training.task import State, Task, Values, micro_batches, running_statistics, seed_of
from ageflow.work import progress_bar

# So many updates in a row that are not finite: training goes back; after so many times, it gives up.
_MOST_IN_A_ROW = 20
_MOST_SETBACKS = 5
# What a training writes into its folder and its samples' folder, each file first under another name.
_OUR_FILES = r"checkpoint-\d{8}\.safetensors|metrics\.jsonl|manifest\.json|[a-z]+-\d{8}\.png"
# What a process that is killed loses at most: it saves so often, too, where `checkpoint_every` updates take longer.
_SECONDS_LOST = 15 * 60


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
    device, together = device_of(settings.device), processes()
    if settings.batch_size < together.count:  # started by torchrun itself, where `gpus` is not the number
        raise ParameterError(f"batch_size = {settings.batch_size}: expected a face each for {together.count} processes")
    if device.type == "cpu":
        keep_freed_memory()
    with alone_in(folder, together):
        if together.first:
            if settings.restart:
                set_aside(folder)
            for each in (folder, folder / "samples"):
                remove_leftovers(each, _OUR_FILES)
        task.modules.to(device)
        state = _begin(task, settings, folder, together)
        if together.first and state.iteration > settings.iterations:
            what = f"{folder} has been trained for {state.iteration} iterations"
            more = f"more than iterations = {settings.iterations}, and stays as it is"
            warnings.warn(f"{what}, {more}: for fewer name another run, or pass restart=True", stacklevel=2)
        if not state.resumed or state.iteration < settings.iterations:
            if together.first:
                (folder / MANIFEST).unlink(missing_ok=True)  # more iterations were asked for
            with Stopping() as stopping:
                _iterate(state, settings, folder, together, stopping)
        if together.first and state.iteration >= settings.iterations and not (folder / MANIFEST).is_file():
            details = {"iterations": state.iteration, "skipped": int(state.skipped[0])}
            replace(task.manifest, fingerprint=latest(folder).fingerprint, details=details).write(folder)
    return folder


@contextlib.contextmanager
def alone_in(folder: Path, together: Processes) -> Iterator[None]:
    """While the block lasts, which all of `together` enter, no other training gets into `folder`."""
    with contextlib.ExitStack() as stack:
        in_use = False
        try:
            stack.enter_context(sole_writer(folder) if together.first else contextlib.nullcontext())
        except FolderInUseError:
            in_use = True
        # All have to answer: none begins anew what another still reads the weights of that it begins from.
        if together.largest(in_use):
            raise FolderInUseError(folder)
        yield


def _begin(task: Task, settings: Training, folder: Path, together: Processes) -> State:
    """The state to continue from: the newest checkpoint's, or a new one, the same on every process."""
    checkpoint = _on_all(latest(folder) if together.first else None, folder, together)
    if checkpoint is None:
        torch.manual_seed(settings.seed)
        task.start()
    state = State(task, settings.ema, device_of(settings.device))
    if checkpoint is not None:
        checkpoint.check_same(task.manifest, settings.step)
        state.load(checkpoint)
    return state


def _on_all(found: Checkpoint | None, folder: Path, together: Processes) -> Checkpoint | None:
    """The checkpoint that the first process alone has looked for, or None, whatever another's machine lists yet."""
    number = together.largest(found.iteration if found else -1)
    return found if found or number < 0 else read_checkpoint(checkpoint_file(folder, number))


def _iterate(state: State, settings: Training, folder: Path, together: Processes, stopping: Stopping) -> None:
    """Update until `settings.iterations` or a signal; write metrics, previews and checkpoints on the way."""
    task, first, due = state.task, state.iteration, False
    micro_batch = choose_micro_batch(task, settings, together, state.device)
    losses = [as_module(objective, together) for objective in task.objectives]
    show = settings.progress and together.first
    bar = progress_bar(total=settings.iterations, initial=first, unit="step", title=folder.name, show=show)
    began = saved = time.perf_counter()
    metrics_of = contextlib.closing(Metrics(folder, first)) if together.first else contextlib.nullcontext()
    with bar, state.writing(), metrics_of as metrics:
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
                shown = [f"{name} {value:.3g}" for name, value in numbers.items() if name.endswith("loss")]
                bar.set_postfix_str(", ".join(shown), refresh=False)
            if metrics and (state.iteration % settings.preview_every == 0 or last):
                metrics.write(state.iteration, task.preview(state.averaged.eval(), folder / "samples", state.iteration))
            due |= state.iteration % settings.checkpoint_every == 0 or time.perf_counter() - saved > _SECONDS_LOST
            # Not amid updates that are skipped: only a few checkpoints are kept, and one must be from before.
            if together.first and (last or signal or (due and not state.skipped[1])):
                state.save(folder)
                due, saved = False, time.perf_counter()
            bar.update()
            if show and state.iteration == first + 1:
                how = f"processes: {together.count}, faces in a pass: {micro_batch}"
                how += f", memory of each: {peak_memory(state.device) / 2**30:.1f} GB"
                bar.write(f"{how}; curves while it trains: tensorboard --logdir {folder}")
            if signal:
                stopping.signal = signal
                break
    together.largest(0)  # none ends before the first has saved


def _update(state: State, losses: list[nn.Module], settings: Training, micro_batch: int, together: Processes) -> Values:
    """One update of every objective; the values to log, of the whole batch."""
    task, iteration = state.task, state.iteration
    cooled = (settings.iterations - iteration + 1) / max(1, settings.cooldown)  # the last update still moves
    rate = min(1.0, iteration / max(1, settings.warmup)) * min(1.0, cooled) * 0.5**state.setbacks
    mine = micro_batches(iteration - 1, settings.batch_size, micro_batch, together.rank, together.count)
    values: Values = {}
    any_skipped = torch.zeros((), device=state.device)
    for place, (objective, loss) in enumerate(zip(task.objectives, losses, strict=True)):
        # After a setback other noise than what led there.
        seed = seed_of(settings.seed + 1_000_003 * state.setbacks, iteration * len(task.objectives) + place)
        statistics = [(statistic, statistic.clone()) for statistic in running_statistics(task.modules)]
        logged = accumulate(task.modules, loss, mine, seed)
        together.sum(logged.values())
        logged = objective.reduce_metrics(logged)
        norm = nn.utils.clip_grad_norm_(objective.parameters, settings.clip or math.inf)
        skip = (~(torch.isfinite(norm) & torch.isfinite(logged["loss"]))).float()
        if state.device.type == "cpu":
            state.written()
        objective.step(skip, rate)
        for statistic, before in statistics:  # a skipped update leaves nothing behind
            statistic.copy_(torch.where(skip > 0, before, statistic))
        any_skipped = torch.maximum(any_skipped, skip)
        logged = logged | {"gradient_norm": norm}
        values |= {f"{objective.name}/{name}": value for name, value in logged.items()}
    if together.count > 1 and (statistics := running_statistics(task.modules)):  # each process saw its own faces
        together.sum(statistics)
        torch._foreach_div_(statistics, together.count)
    state.count(any_skipped)
    state.update_average()
    return values


def _go_back(state: State, settings: Training, folder: Path, together: Processes) -> None:
    """To the newest checkpoint from before the row of updates that were not finite, with half the learning rate."""
    state.written()
    setbacks, total = state.setbacks + 1, state.skipped[0]
    what = f"{_MOST_IN_A_ROW} steps in a row up to iteration {state.iteration} were not finite in loss or gradient"
    before = (checkpoint for checkpoint in readable(folder) if not checkpoint.tensors("counts.")["skipped"][1])
    found = next(before, None) if together.first and setbacks <= _MOST_SETBACKS else None
    checkpoint = _on_all(found, folder, together)
    if checkpoint is None:
        back = f"it went back {state.setbacks} times (at most {_MOST_SETBACKS}, and only to a checkpoint from before)"
        do = f"lower learning_rate ({settings.learning_rate}) or set clip"
        raise TrainingDivergedError(f"{what}, and {back}: {do}")
    state.load(checkpoint)
    state.setbacks, state.skipped = setbacks, torch.stack([total, 0 * total, 0 * total])
    if together.first:
        back = f"back to iteration {checkpoint.iteration}, at {0.5**setbacks:g} of the learning rate"
        warnings.warn(f"{what}: {back}", stacklevel=3)
