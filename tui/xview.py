"""The x axis that all charts of a screen share: its unit, the visible range and the cursor."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from accl.store.curve import Curve
from tui.raster import Range

SMALLEST_SHARE = 1e-6  # of the extent: no zoom goes further


@dataclass(frozen=True)
class XView:
    """The visible part of the x axis, and the cursor. Every change makes a new view.

    The extent, which the methods take, is the range of all data.

    Attributes:
        axis: one of `accl.store.curve.AXES`.
        low, high: visible range; None follows the extent while it grows.
        cursor: position of the cursor on the axis, None without one.
    """

    axis: str = "step"
    low: float | None = None
    high: float | None = None
    cursor: float | None = None

    def range(self, extent: Range) -> Range:
        """Return the visible range, which is never empty."""
        low = extent[0] if self.low is None else self.low
        high = extent[1] if self.high is None else self.high
        return (low, high) if low < high else (low - 0.5, low + 0.5)

    def zoomed(self, factor: float, extent: Range) -> XView:
        """Divide the visible range by a factor; the cursor, or else the middle, stays where it is on the screen."""
        low, high = self.range(extent)
        centre = self.cursor if self.cursor is not None and low <= self.cursor <= high else (low + high) / 2
        smallest = (extent[1] - extent[0]) * SMALLEST_SHARE
        if self.axis == "step":
            smallest = max(smallest, 2.0)
        size = max((high - low) / factor, smallest)
        if size >= extent[1] - extent[0]:
            return self.whole()
        start = centre - (centre - low) / (high - low) * size
        return self._shown(start, size, extent)

    def panned(self, share: float, extent: Range) -> XView:
        """Move the visible range by a share of its size, at most to an end of the extent."""
        if self.low is None and self.high is None:
            return self
        low, high = self.range(extent)
        return self._shown(low + share * (high - low), high - low, extent)

    def between(self, a: float, b: float, extent: Range) -> XView:
        """Show the range between two positions."""
        low, high = max(min(a, b), extent[0]), min(max(a, b), extent[1])
        return replace(self, low=low, high=high) if low < high else self

    def whole(self) -> XView:
        """Show the whole extent."""
        return replace(self, low=None, high=None)

    def without_cursor(self) -> XView:
        return replace(self, cursor=None)

    def at(self, x: float, extent: Range) -> XView:
        """Put the cursor at a position of the extent, and bring it into view."""
        x = min(max(round(x) if self.axis == "step" else x, extent[0]), extent[1])
        view, (low, high) = replace(self, cursor=x), self.range(extent)
        if low <= x <= high:
            return view
        return view._shown(x if x < low else x - (high - low), high - low, extent)

    def moved(self, columns: int, dots: int, extent: Range) -> XView:
        """Move the cursor by dot columns, of which ``dots`` are visible; without one, begin at the last."""
        low, high = self.range(extent)
        if self.cursor is None:
            return self.at(high, extent)
        dot = (high - low) / max(1, dots - 1)
        if self.axis == "step":  # no key without an effect
            dot = max(dot, 1.0)
        return self.at(self.cursor + columns * dot, extent)

    def on_axis(self, axis: str, clock: Curve) -> XView:
        """Show the same part of the run on another axis; the clock knows the positions of its steps on both."""
        ends = (self.low, self.high, self.cursor)
        return XView(axis, *(None if x is None else convert(x, self.axis, axis, clock) for x in ends))

    def _shown(self, low: float, size: float, extent: Range) -> XView:
        low = max(extent[0], min(low, extent[1] - size))
        return replace(self, low=low, high=low + size)


def convert(x: float, axis: str, to: str, clock: Curve) -> float:
    """Convert a position between two axes, linearly between the steps that the clock knows."""
    if axis == to or not len(clock):
        return x
    return float(np.interp(x, np.r_[0.0, clock.x(axis)], np.r_[0.0, clock.x(to)]))
