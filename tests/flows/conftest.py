"""The flows' tests on another device: ``pytest tests/flows --device cuda``."""

from collections.abc import Iterator
from functools import partial

import pytest
import torch


@pytest.fixture(autouse=True)
def on_the_device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tensors are made there, and random numbers drawn."""
    device = request.config.getoption("--device")
    if device != "cpu":
        monkeypatch.setattr(torch, "Generator", partial(torch.Generator, device))
        torch.set_default_device(device)
    yield
    torch.set_default_device(None)
