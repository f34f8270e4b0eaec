"""Load of a machine: of this one now, in the few words of a head line; of a run's as curves, and as means and peaks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import psutil

from accl.launch.gpus import GpuLoad, gpus, load
from accl.store.curve import Curve, Floats, raw_curve
from tui import theme
from tui.feed import RunView
from tui.scale import short
from tui.text import Piece
from tui.widgets.chart import Chart, Line

GB = 1e9
FEW = 2  # GPUs that have a text each
# Of each figure: its title, its unit, and by what it is divided.
FIGURES = {
    "gpu_util": ("GPU", "%", 1.0),
    "gpu_memory": ("GPU memory", "GB", GB),
    "power": ("GPU power", "W", 1.0),
    "cpu": ("CPU", "% of a core", 1.0),
    "rss": ("memory", "GB", GB),
}

_last: tuple[float, float] | None = None  # of `_busy_and_all`

_gpus = cache(gpus)


def machine_load() -> tuple[str, ...]:
    """Return texts about the GPUs, and one about the processors since the last call; what is not told is left out."""
    global _last
    loads = [load(gpu) for gpu in _gpus()]
    parts = [f"GPU{each.gpu.index}{_amounts([each])}" for each in loads]
    if len(loads) > FEW:
        parts = [f"{len(loads)} GPUs{_amounts(loads)}"]
    before, _last = _last, _busy_and_all()
    if before and _last[1] > before[1]:
        share = (_last[0] - before[0]) / (_last[1] - before[1])
        parts.append(f"all cores {min(max(share, 0.0), 1.0):.0%}")
    return tuple(parts)


def _amounts(loads: Sequence[GpuLoad]) -> str:
    """Return the use of each GPU, and power and memory of all."""
    used = ["–" if each.used is None else f"{each.used:.0f}" for each in loads]
    watts = [each.watts for each in loads if each.watts is not None]
    memory = [(each.memory, each.gpu.memory_total or 0) for each in loads if each.memory is not None]
    held, total = (sum(column) for column in zip((0, 0), *memory, strict=True))
    return (
        (f" {' '.join(used)}%" if set(used) != {"–"} else "")
        + (f" {sum(watts):.0f}W" if watts else "")
        + (f" {held / GB:.0f}/{total / GB:.0f}GB" if memory else "")
    )


def _busy_and_all() -> tuple[float, float]:
    """Return seconds of all processors: psutil's own share of them is for calls from one thread."""
    times = psutil.cpu_times()._asdict()
    everything = sum(times.values()) - times.get("guest", 0.0) - times.get("guest_nice", 0.0)  # which user has, too
    return everything - times["idle"] - times.get("iowait", 0.0), everything


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
