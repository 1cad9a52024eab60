"""`Glow.report` finds what is wrong, and where."""

import numpy as np
import pytest
import torch

import ageflow
from ageflow.report.plots import glow_diagnosis

from .test_transforms import shake


@pytest.fixture
def glow() -> ageflow.Glow:
    config = ageflow.GlowConfig(image_size=16, levels=2, steps=3, hidden=8, coupling="affine", prior="learned")
    glow = ageflow.Glow(config).double()
    glow.initialize(torch.rand(64, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) - 0.5)
    return shake(glow)


@pytest.fixture
def x() -> torch.Tensor:
    return torch.rand(8, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) - 0.5


def test_it_agrees_with_the_flow(glow, x):
    report = glow.report(x)
    z, log_det = glow(x)
    latents = glow.split_latent(z)
    assert report.levels["shape"].tolist() == glow.latent_shapes
    assert report.levels["mean"].tolist() == pytest.approx([float(part.mean()) for part in latents])
    assert report.levels["standard_deviation"].tolist() == pytest.approx([float(part.std()) for part in latents])
    assert report.levels["log_det"].sum() * glow.dimensions == pytest.approx(float(log_det.mean()))
    assert report.steps.groupby("level").size().tolist() == [3, 3]
    assert 0 < report.round_trip < 1e-12
    assert report.steps["round_trip"].max() < 1e-12


def test_it_shows_the_step_that_cannot_be_undone(glow, x):
    healthy = glow.report(x)
    bad = glow.levels[1].transforms[1].linear
    with torch.no_grad():
        bad.log_abs[0] = -25.0
    report = glow.report(x)
    worst = report.steps["condition"].idxmax()
    assert (report.steps["level"][worst], report.steps["step"][worst]) == (1, 1)
    expected = np.linalg.cond(bad.weight().detach().numpy())
    assert report.steps["condition"][worst] == pytest.approx(expected, rel=1e-3)
    assert report.round_trip > 1e3 * healthy.round_trip


def test_values_that_are_not_finite_are_reported(glow, x):
    with torch.no_grad():
        glow.levels[0].transforms[1].coupling.network.last.bias[0] = float("nan")
    steps = glow.report(x).steps
    assert steps["largest"].isna().tolist() == [False, True, True, True, True, True]


def test_it_can_be_drawn(glow, x, tmp_path):
    picture = glow_diagnosis(glow.report(x))
    axes = picture.axes
    assert len(axes) == 4
    assert all(len(a.lines) or a.containers for a in axes)
    picture.savefig(tmp_path / "report.png", dpi=80)
    assert (tmp_path / "report.png").stat().st_size > 10_000
