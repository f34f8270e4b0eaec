"""How curves are looked at: the x axis, smoothing and scale that a screen keeps for all its charts."""

from __future__ import annotations

from dataclasses import dataclass

from rich.style import Style

from tui.feed import Curve
from tui.scale import smooth
from tui.widgets.chart import Line

AXES = ("step", "epoch", "time")
SMOOTHING = (0.0, 0.6, 0.9)


@dataclass
class CurveOptions:
    """What the keys x, s and y change."""

    axis: str = "step"
    smoothing: float = 0.6
    log: bool = False

    def next_axis(self) -> None:
        self.axis = AXES[(AXES.index(self.axis) + 1) % len(AXES)]

    def next_smoothing(self) -> None:
        self.smoothing = SMOOTHING[(SMOOTHING.index(self.smoothing) + 1) % len(SMOOTHING)]

    def smooths(self, metric: str) -> bool:
        """Values of single batches are smoothed; evaluations are shown as measured."""
        return self.smoothing > 0 and metric.startswith("train/") and metric != "train/lr"

    def line(self, name: str, metric: str, curve: Curve, style: Style, raw: bool = True) -> Line:
        """The metric as a line; the unsmoothed values lie behind it when ``raw``."""
        x = curve.along(self.axis)
        if not self.smooths(metric):
            return Line(name, x, curve.values, style)
        return Line(name, x, smooth(curve.values, self.smoothing), style, curve.values if raw else None)

    def note(self, metric: str) -> str:
        return f"smoothed {self.smoothing:g}" if self.smooths(metric) else ""
