"""The plots of a calibration: what was measured against the fit, and what the fit leaves, as SVG text."""

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

from simcore.report.drawing import INK, new_figure, render, series_colours, style, tidy

from .build import Built
from .fit import DecodeSamples, PrefillSamples, decode_step_s, prefill_step_s
from .fit_samples import ride_extra_s

__all__ = ["calibration_plots"]

Floats = npt.NDArray[np.float64]


def calibration_plots(built: Built) -> dict[str, str]:
    """``decode``, ``prefill`` and, where measured, ``mixed``: each the points with the fit, and the residuals."""
    plots = {"decode": _decode(built), "prefill": _prefill(built)}
    if built.split.ride:
        plots["mixed"] = _mixed(built)
    return plots


def _decode(built: Built) -> str:
    samples, steps = built.split.decode, built.fitted.steps.decode
    batch, context, step_s = (
        np.array(column, float)
        for column in zip(*((s.batch, s.context_tokens, s.step_s) for s in samples), strict=True)
    )
    model = decode_step_s(steps, DecodeSamples(batch, context, step_s))
    with style():
        figure = new_figure(9, 3.6)
        left, right = figure.subplots(1, 2)
        colours = series_colours(f"batch {int(value)}" for value in np.unique(batch))
        for name, (colour, _) in colours.items():
            mine = batch == int(name.split()[1])
            left.plot(context[mine], step_s[mine] * 1e3, "o", color=colour, alpha=0.6, markersize=4)
            order = np.argsort(context[mine])
            left.plot(context[mine][order], model[mine][order] * 1e3, color=colour, label=name)
            right.plot(context[mine], _relative(model, step_s)[mine], "o", color=colour, alpha=0.6, markersize=4)
        left.legend()
        _label(left, right, "Decode steps", "context of each request, tokens")
        return render(figure, "decode", "Measured decode step times against the fit, and residuals")


def _prefill(built: Built) -> str:
    samples, steps = built.split.prefill, built.fitted.steps.prefill
    alone = steps.model_copy(update={"base_s": steps.base_s - built.fitted.prefill_scheduling_s})
    new, cached, step_s = (
        np.array(column, float)
        for column in zip(*((s.new_tokens, s.cached_tokens, s.step_s) for s in samples), strict=True)
    )
    model = prefill_step_s(alone, PrefillSamples(new, new * (cached + new / 2), step_s, cached))
    with style():
        figure = new_figure(9, 3.6)
        left, right = figure.subplots(1, 2)
        for name, (colour, _) in series_colours(f"{int(value)} cached" for value in np.unique(cached)).items():
            mine = cached == int(name.split()[0])
            left.plot(new[mine], step_s[mine] * 1e3, "o", color=colour, alpha=0.6, markersize=4)
            order = np.argsort(new[mine])
            left.plot(new[mine][order], model[mine][order] * 1e3, color=colour, label=name)
            right.plot(new[mine], _relative(model, step_s)[mine], "o", color=colour, alpha=0.6, markersize=4)
        left.legend()
        left.set_xscale("log")
        left.set_yscale("log")
        right.set_xscale("log")
        left.axvline(max(steps.knee_tokens, 1), color=INK, linewidth=0.8, linestyle="dashed")
        _label(left, right, "Prefill steps (dashed: the knee)", "new tokens")
        return render(figure, "prefill", "Measured prefill step times against the fit, and residuals")


def _mixed(built: Built) -> str:
    samples = built.split.ride
    mixed_chunk = built.profile.settings.mixed_chunk
    model = np.array([ride_extra_s(sample, built.fitted.steps, mixed_chunk=mixed_chunk) for sample in samples])
    extra, gap = (np.array(column) for column in zip(*((s.extra_s, s.decode_step_s) for s in samples), strict=True))
    new, batch = (np.array(column, float) for column in zip(*((s.new_tokens, s.batch) for s in samples), strict=True))
    with style():
        figure = new_figure(9, 3.6)
        left, right = figure.subplots(1, 2)
        for name, (colour, _) in series_colours(f"beside {int(value)}" for value in np.unique(batch)).items():
            mine = batch == int(name.split()[1])
            left.plot(model[mine] * 1e3, extra[mine] * 1e3, "o", color=colour, alpha=0.6, markersize=4, label=name)
            right.plot(new[mine], _relative(model + gap, extra + gap)[mine], "o", color=colour, alpha=0.6, markersize=4)
        ends = [0, float(max(model.max(), extra.max())) * 1e3]
        left.plot(ends, ends, color=INK, linewidth=0.8)
        left.legend()
        _label(left, right, "A prefill among decoding requests", "new tokens")
        left.set_xlabel("what the model says they wait, ms")
        left.set_ylabel("what they waited, ms")
        return render(figure, "mixed", "Time that a prefill costs decoding requests, model against measurement")


def _relative(model: Floats, sample: Floats) -> Floats:
    return 100 * (model / sample - 1)


def _label(left: Axes, right: Axes, title: str, size: str) -> None:
    left.set_title(title)
    left.set_xlabel(size)
    left.set_ylabel("step, ms (points measured, lines fitted)")
    right.set_title("Residuals")
    right.set_xlabel(size)
    right.set_ylabel("model over measurement, %")
    right.axhline(0, color=INK, linewidth=0.8)
    for axes in (left, right):
        tidy(axes)
