"""Settings and keys that the charts of a screen share: x axis, smoothing, and scale of the y axis."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.style import Style

from tui.feed import Curve
from tui.keys import next_choice
from tui.scale import smooth
from tui.widgets.chart import Chart, Line, ReferenceLine

AXES = ("step", "epoch", "time")
SMOOTHING = (0.0, 0.6, 0.9)
FLOOR_STYLES = (Style(color="#f0795b"), Style(color="#dd8fbd"))


def floor_lines(floors: Iterable[tuple[str, float]]) -> list[ReferenceLine]:
    """Make reference lines of the accuracies of trivial baselines, given with their names."""
    return [ReferenceLine(name, value, FLOOR_STYLES[i % 2]) for i, (name, value) in enumerate(sorted(floors))]


class CurveSettings:
    """Mixin: the settings, the actions that change them, and charts drawn with them."""

    axis = "step"
    smoothing = 0.6
    log_scale = False

    def show_curves(self) -> None:
        """Draw the charts with the settings as they are now."""
        raise NotImplementedError

    def is_smoothed(self, metric: str) -> bool:
        """Return whether to smooth a metric: values of single batches, but not evaluations."""
        return self.smoothing > 0 and metric.startswith("train/") and metric != "train/lr"

    def line(self, name: str, metric: str, curve: Curve, style: Style, raw: bool = True) -> Line:
        """Make the line of a metric, with the unsmoothed values behind it if ``raw``."""
        x = curve.x(self.axis)
        if not self.is_smoothed(metric):
            return Line(name, x, curve.values, style)
        return Line(name, x, smooth(curve.values, self.smoothing), style, curve.values if raw else None)

    def draw_chart(
        self, chart: Chart, metric: str, lines: Sequence[Line], references: Sequence[ReferenceLine] = ()
    ) -> None:
        """Draw the lines; ``metric`` is the one that decides about smoothing."""
        note = f"smoothed {self.smoothing:g}" if self.is_smoothed(metric) else ""
        chart.show(lines, references, self.axis, self.log_scale and not chart.shares, note)

    def action_axis(self) -> None:
        self.axis = next_choice(AXES, self.axis)
        self.show_curves()

    def action_smoothing(self) -> None:
        self.smoothing = next_choice(SMOOTHING, self.smoothing)
        self.show_curves()

    def action_scale(self) -> None:
        self.log_scale = not self.log_scale
        self.show_curves()
