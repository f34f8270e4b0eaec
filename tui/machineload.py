"""Load of the machine as curves, and its means and peaks in words."""

from __future__ import annotations

import numpy as np

from accl.store.curve import Curve, Floats, raw_curve
from tui import theme
from tui.feed import RunView
from tui.scale import short
from tui.text import Piece
from tui.widgets.chart import Chart, Line

GIB = 2.0**30
# Of each figure: its title, its unit, and by what it is divided.
FIGURES = {
    "gpu_util": ("GPU", "%", 1.0),
    "gpu_memory": ("GPU memory", "GiB", GIB),
    "power": ("GPU power", "W", 1.0),
    "cpu": ("CPU", "% of a core", 1.0),
    "rss": ("memory", "GiB", GIB),
}


def load_charts(view: RunView) -> list[Chart]:
    """Return a chart of each figure that the machine tells; steps and epochs are those of the run's longest curve."""
    clock = max(view.curves.values(), key=lambda curve: int(curve.last[-1]), default=None)
    charts = []
    for i, (name, seconds, values) in enumerate(_figures(view)):
        title, unit, _ = FIGURES[name]
        line = Line(title, _curve(seconds, values, clock), theme.series_style(i), band=False)
        charts.append(Chart(f"{title}, {unit}", (line,), metrics=(name,)))
    return charts


def load_text(view: RunView) -> list[Piece]:
    """Return mean and peak of each figure."""
    pieces: list[Piece] = []
    for name, _, values in _figures(view):
        title, unit, _ = FIGURES[name]
        mean, peak = (short(float(number)) for number in (values.mean(), values.max()))
        pieces += [
            (" · " if pieces else "", theme.RULE),
            (f"{title} ", theme.DIM),
            (f"{mean} {unit}", theme.BOLD),
            (f" peak {peak}", theme.DIM),
        ]
    return pieces or [("no load was recorded", theme.VERY_DIM)]


def _figures(view: RunView) -> list[tuple[str, Floats, Floats]]:
    figures = []
    for name, (_, _, size) in FIGURES.items():
        seconds, values = view.system.get(name, (np.zeros(0), np.zeros(0)))
        known = np.isfinite(values)
        if known.any():
            figures.append((name, seconds[known], values[known] / size))
    return figures


def _curve(seconds: Floats, values: Floats, clock: Curve | None) -> Curve:
    steps, epoch, questions = np.zeros((3, len(seconds)))
    if clock is not None:
        begun = np.r_[0.0, clock.seconds]
        steps, epoch, questions = (
            np.interp(seconds, begun, np.r_[0.0, clock.x(axis)]) for axis in ("step", "epoch", "questions")
        )
    return raw_curve(np.rint(steps).astype(np.int64), epoch, questions, seconds, values)
