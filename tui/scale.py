"""Smoothing of curves, axis ranges, round ticks, and numbers in few characters."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from tui.raster import Floats, Range


def finite_range(arrays: Iterable[Floats], positive: bool = False) -> Range | None:
    """Return the smallest and largest finite (and, for a log axis, positive) value, or None without any."""
    low, high = math.inf, -math.inf
    for values in arrays:
        kept = values[np.isfinite(values) & ((values > 0) if positive else True)]
        if len(kept):
            low, high = min(low, float(kept.min())), max(high, float(kept.max()))
    return (low, high) if low <= high else None


def padded(bounds: Range, log: bool = False, share: float = 0.05) -> Range:
    """Return the range with a margin on both sides; a constant gets half its value on each side."""
    low, high = bounds
    if log:
        factor = (high / low) ** share if high > low else 2.0
        if not math.isfinite(factor) or factor <= 1.0:
            factor = 1.0 + share
        return max(low / factor, 5e-324), min(high * factor, 1.7e308)
    margin = (high / 2 - low / 2) * 2 * share if high > low else abs(high) * 0.5 or 0.5
    return max(low - margin, -1.7e308), min(high + margin, 1.7e308)


def ticks(bounds: Range, max_count: int) -> list[float]:
    """Return at most ``max_count`` round values in the range: steps of 1, 2, 2.5 or 5 times a power of ten."""
    low, high = bounds
    span = high - low
    if max_count < 1 or not math.isfinite(span) or span <= 0:
        return [low] if max_count >= 1 and math.isfinite(low) else []
    rough = span / max_count
    try:
        power = 10.0 ** math.floor(math.log10(rough))
    except (OverflowError, ValueError):
        return [low]
    if power == 0.0:
        return [low]
    for factor in (1.0, 2.0, 2.5, 5.0, 10.0, 20.0, 25.0, 50.0):
        step = power * factor
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first + 1 <= max_count:
            break
    return [i * step for i in range(first, last + 1)]


def log_ticks(bounds: Range, max_count: int) -> list[float]:
    """Return at most ``max_count`` powers of ten in the range, or `ticks` if it is shorter than a decade."""
    low, high = math.log10(bounds[0]), math.log10(bounds[1])
    first, last = math.ceil(low - 1e-9), math.floor(high + 1e-9)
    if last - first >= 1:
        every = max(1, math.ceil((last - first + 1) / max(1, max_count)))
        return [10.0**i for i in range(first, last + 1, every) if i > -308]
    return [value for value in ticks(bounds, max_count) if value > 0]


def short(value: float, step: float | None = None) -> str:
    """Format a number in few characters: 0.25, 1,200, 12.5k, 2e-5. The step of an axis sets the decimals."""
    if not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 1e6 or size < 1e-3:
        for unit, sign in ((1e9, "G"), (1e6, "M")):
            if unit <= size < unit * 1000:
                return f"{value / unit:.3g}{sign}"
        text = f"{value:.1e}"
        mantissa, exponent = text.split("e")
        return f"{mantissa.removesuffix('.0')}e{int(exponent)}"
    if size >= 1e4:
        return f"{value / 1000:.4g}k"
    if step:
        # As many decimals as the step has, so that no two ticks have the same label.
        decimals = next((d for d in range(6) if _whole(step * 10**d)), 6)
        return f"{value:,.{decimals}f}"
    if size >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:#.3g}"


def percent(value: float, step: float | None = None) -> str:
    """Format a share as a percentage: 33.7 %."""
    if not math.isfinite(value):
        return "–"
    return f"{value * 100:.{0 if step and step >= 0.01 - 1e-12 and _whole(step * 100) else 1}f} %"


def _whole(value: float) -> bool:
    return abs(value - round(value)) < 1e-6
