"""How long a training is: its cooldown, and what another length makes of one that is there."""

import warnings
from pathlib import Path

from ageflow.config import Training
from ageflow.training.state import State

__all__ = ["cooled", "warn_of_another_length"]


def cooled(iteration: int, settings: Training) -> float:
    """What the cooldown leaves of the learning rate in an update, counted from 1; the last one still moves."""
    return min(1.0, (settings.iterations - iteration + 1) / max(1, settings.cooldown))


def warn_of_another_length(folder: Path, state: State, settings: Training) -> None:
    """Warn where what is in `folder` is not what `settings.iterations` would train from the beginning.

    Arguments:
        folder: the training's folder.
        state: what is there.
        settings: what is asked for now.
    """
    done, asked = state.iteration, settings.iterations
    if done > asked:
        warnings.warn(
            f"{folder} has been trained for {done} iterations, more than iterations = {asked}: it stays as it is. For a "
            "shorter training name another run, or pass restart=True, which keeps this one under a number",
            stacklevel=3,
        )
    elif done < asked and state.cooled < (now := cooled(done + 1, settings)):
        warnings.warn(
            f"over the last iterations of {folder}, up to {done}, the learning rate came down (cooldown), to "
            f"{state.cooled:.2g} of itself. It rises again now, to {now:.2g}: what comes of iterations = {asked} is not "
            "what as many in one go give",
            stacklevel=3,
        )
