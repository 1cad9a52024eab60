"""The picture of `Glow.report`: where a flow stops fitting, or stops being invertible."""

from ageflow.flows.diagnosis import GlowReport
from ageflow.report.picture import Picture


def glow_diagnosis(report: GlowReport) -> Picture:
    """Latents by level; condition numbers, log-determinants and round-trip errors by flow step.

    A flow that fits has latents of mean 0 and standard deviation 1. A 1×1 convolution whose condition number runs
    away takes the round trip with it.
    """
    picture = Picture(11, 5.6)
    (latents, conditions), (determinants, errors) = picture.subplots(2, 2)
    levels, steps = report.levels, report.steps
    latents.errorbar(
        levels["level"], levels["mean"], yerr=levels["standard_deviation"], fmt="o", color="#0072b2", capsize=4
    )
    for line in (-1, 0, 1):
        latents.axhline(line, color="grey", linewidth=0.6, linestyle="-" if line == 0 else ":")
    latents.set(title="latents: mean ± standard deviation", xlabel="level", xticks=levels["level"])

    number = range(len(steps))
    for axes, column, title, colour in (
        (conditions, "condition", "condition number of the 1×1 convolution", "#d55e00"),
        (determinants, "log_det", "log-determinant, nats a dimension", "#009e73"),
        (errors, "round_trip", f"error of the round trip (the whole flow: {report.round_trip:.1e})", "#cc79a7"),
    ):
        axes.plot(number, steps[column], ".-", color=colour)
        axes.set(title=title, xlabel="flow step, the finest level first")
        if column != "log_det":
            axes.set_yscale("log")
        for first in steps.index[steps["step"] == 0][1:]:
            axes.axvline(first - 0.5, color="grey", linewidth=0.6, linestyle=":")
    return picture
