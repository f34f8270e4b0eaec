"""Curves as cells of the terminal: what belongs to each dot column, and the line, band and points made of it.

A cell of braille has 2 x 4 dots, so that W cells are 2 W dot columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from accl.store.curve import Curve
from tui.raster import BRAILLE, Floats, Range, dot_rows, raster
from tui.scale import finite_range

Cells = NDArray[np.int64]
Bits = NDArray[np.uint8]

# A bin stands for its values as three points: where they lie, and the share of the values that each is given. The
# quantiles of a single bin are then those that it was made with.
_SHARES = {"low": 0.2, "median": 0.6, "high": 0.2}
_QUANTILES = {"low": 0.1, "median": 0.5, "high": 0.9}
# Dot columns that are drawn of a line, in a period: what tells lines apart without colours.
PATTERNS = (np.ones(1, bool), np.arange(6) < 4, np.arange(4) < 1, np.isin(np.arange(10), (0, 1, 2, 3, 6)))


@dataclass(frozen=True)
class DotColumns:
    """A curve by dot column, D of them; NaN where a column has no finite value.

    Attributes:
        median, low, high: median, 10 % and 90 % quantile of all values of a column.
        lowest, highest: extremes.
        broken: whether a value of the column is NaN or infinite.
        before, after: position in dot columns, and median, of the last bin before the first column and of the first
            one after the last, to which the line runs.
    """

    median: Floats
    low: Floats
    high: Floats
    lowest: Floats
    highest: Floats
    broken: NDArray[np.bool_]
    before: tuple[float, float] | None = None
    after: tuple[float, float] | None = None


def dot_columns(curve: Curve, axis: str, x_range: Range, dots: int) -> DotColumns:
    """Gather the bins of a curve by dot column; the first column is at x_range[0], the last at x_range[1]."""
    position = (curve.x(axis) - x_range[0]) / (x_range[1] - x_range[0]) * (dots - 1)
    column = np.rint(np.nan_to_num(np.clip(position, -2.0, dots + 1.0), nan=-2.0)).astype(np.int64)
    inside = (column >= 0) & (column < dots)
    known = inside & np.isfinite(curve.median)
    broken = np.zeros(dots, bool)
    broken[column[inside & (curve.broken > 0)]] = True
    lowest, highest = np.full(dots, np.nan), np.full(dots, np.nan)
    np.fmin.at(lowest, column[known], curve.lowest[known])
    np.fmax.at(highest, column[known], curve.highest[known])
    outside = [np.flatnonzero(side)[pick:][:1] for side, pick in ((column < 0, -1), (column >= dots, 0))]
    before, after = ((float(position[i[0]]), float(curve.median[i[0]])) if len(i) else None for i in outside)
    return DotColumns(
        **_quantiles(curve, known, column, dots),
        lowest=lowest,
        highest=highest,
        broken=broken,
        before=before,
        after=after,
    )


def _quantiles(curve: Curve, known: NDArray[np.bool_], column: Cells, dots: int) -> dict[str, Floats]:
    weight = np.maximum(1, curve.n - curve.broken)[known]
    values = np.concatenate([getattr(curve, name)[known] for name in _SHARES])
    weights = np.concatenate([share * weight for share in _SHARES.values()])
    columns = np.tile(column[known].astype(np.uint16), len(_SHARES))
    order = np.argsort(values)
    order = order[np.argsort(columns[order], kind="stable")]  # stable, by small integers: a radix sort
    values, below = values[order], np.r_[0.0, np.cumsum(weights[order])]
    count = np.bincount(columns, minlength=dots)
    filled = count > 0
    end = np.cumsum(count)[filled]
    start = end - count[filled]
    result = {}
    for name, share in _QUANTILES.items():
        total = below[end] - below[start]
        target = below[start] + (share - 1e-9) * total  # the sums are rounded
        quantile = np.full(dots, np.nan)
        quantile[filled] = values[np.clip(np.searchsorted(below[1:], target), start, end - 1)]
        result[name] = quantile
    return result


def visible_range(columns: Sequence[DotColumns], raw: bool, log: bool) -> Range | None:
    """Return the smallest and the largest value to be drawn, None without any."""
    names = ("lowest", "highest") if raw else ("low", "high")
    return finite_range((getattr(column, name) for column in columns for name in names), positive=log)


def median_line(columns: DotColumns, cells: int, rows: int, y_range: Range, log: bool, pattern: int = 0) -> Bits:
    """Rasterize the line through the medians, joined over empty columns but not over broken ones."""
    at = np.flatnonzero(columns.broken | np.isfinite(columns.median))
    ends = [[end] if end else [] for end in (columns.before, columns.after)]
    x = np.array([*(x for x, _ in ends[0]), *at, *(x for x, _ in ends[1])], np.float64)
    y = np.array([*(y for _, y in ends[0]), *columns.median[at], *(y for _, y in ends[1])], np.float64)
    bits = raster(x, y, cells, rows, (0.0, cells * 2.0 - 1), y_range, log)
    drawn = np.resize(PATTERNS[pattern % len(PATTERNS)], cells * 2).reshape(cells, 2)
    return np.asarray(bits & (drawn @ np.array([0x47, 0xB8], np.uint8)), np.uint8)


def raw_line(curve: Curve, axis: str, cells: int, rows: int, x_range: Range, y_range: Range, log: bool) -> Bits:
    """Rasterize every value, or from the smallest to the largest value of every bin."""
    x, y = curve.x(axis), curve.median
    if not curve.raw:
        x, y = np.repeat(x, 2), np.stack([curve.lowest, curve.highest], axis=1).ravel()
    return raster(x, y, cells, rows, x_range, y_range, log)


def band_dots(columns: DotColumns, cells: int, rows: int, y_range: Range, log: bool) -> Cells:
    """Count the dots, of 8, of each cell that lie between the 10 % and the 90 % quantile: (rows, cells)."""
    at = np.flatnonzero(np.isfinite(columns.low))
    if not len(at):
        return np.zeros((rows, cells), np.int64)
    every = np.arange(cells * 2)
    low = np.interp(every, at, columns.low[at], left=np.nan, right=np.nan)
    high = np.interp(every, at, columns.high[at], left=np.nan, right=np.nan)
    if log:  # what lies below the axis is drawn down to its edge
        low = np.where(low > 0, low, np.where(high > 0, y_range[0], np.nan))
    gap = columns.broken & ~np.isfinite(columns.median)
    top, bottom = dot_rows(high, rows, y_range, log), dot_rows(low, rows, y_range, log)
    row = np.arange(rows * 4)[:, None]
    with np.errstate(invalid="ignore"):
        dots = (row >= np.rint(top)) & (row <= np.rint(bottom)) & ~gap
    return np.asarray(dots.reshape(rows, 4, cells, 2).sum(axis=(1, 3)), np.int64)


class Kind(IntEnum):
    """Kinds of cells, by what is in them."""

    EMPTY = 0
    GRID = 1
    FLOOR = 2
    FAINT = 3  # the line that joins points
    LINE = 4
    POINT = 5


@dataclass(frozen=True)
class Canvas:
    """The cells of a plot, each (rows, cells).

    Attributes:
        glyphs: code points.
        kinds: a `Kind` each.
        owner: index of the line or floor that gives a cell its colour, -1 for none.
        band: index of the line whose band is behind a cell, -1 for none.
    """

    glyphs: NDArray[np.uint32]
    kinds: Cells
    owner: Cells
    band: Cells


GRID_GLYPH = ord("·")


def canvas(
    lines: Sequence[tuple[Bits, Kind]], bands: Sequence[Cells], floors: Sequence[Bits], size: tuple[int, int]
) -> Canvas:
    """Put lines over floors and bands over nothing: a cell belongs to the line, or band, with most dots in it.

    Args:
        lines, bands: braille bits with their kind, and counts of dots, by line.
        size: rows and cells.
    """
    bits, kinds = np.zeros(size, np.uint8), np.zeros(size, np.int64)
    owner, band = np.full(size, -1), np.full(size, -1)
    for index, floor in enumerate(floors):
        bits[floor > 0], kinds[floor > 0], owner[floor > 0] = floor[floor > 0], Kind.FLOOR, index
    if lines:
        # Of an own line every dot counts more than any number of a line that only joins points.
        counts = np.stack([np.bitwise_count(line).astype(np.int64) * (9 if k == Kind.LINE else 1) for line, k in lines])
        drawn, first = counts.max(axis=0) > 0, counts.argmax(axis=0)
        owner[drawn], kinds[drawn] = first[drawn], np.array([kind for _, kind in lines])[first[drawn]]
        bits[drawn] = np.bitwise_or.reduce([line for line, _ in lines])[drawn]
    if bands:
        dots = np.stack(bands)
        wide = dots.max(axis=0) >= 4
        band[wide] = dots.argmax(axis=0)[wide]
        own = np.where(kinds >= Kind.FAINT, owner, -1)
        behind = np.take_along_axis(dots, np.maximum(own, 0)[None], axis=0)[0] >= 4
        band = np.where((own >= 0) & behind, own, band)
    glyphs = np.where(kinds == Kind.EMPTY, ord(" "), BRAILLE + bits.astype(np.uint32)).astype(np.uint32)
    return Canvas(glyphs, kinds, owner, band)


def put_points(
    canvas: Canvas, curve: Curve, axis: str, x_range: Range, y_range: Range, log: bool, index: int, symbol: str = "•"
) -> None:
    """Mark every finite value of a curve in its cell."""
    rows, cells = canvas.kinds.shape
    x = np.rint((curve.x(axis) - x_range[0]) / (x_range[1] - x_range[0]) * (cells * 2 - 1))
    y = np.rint(dot_rows(curve.median, rows, y_range, log))
    with np.errstate(invalid="ignore"):
        inside = (x >= 0) & (x < cells * 2) & (y >= 0) & (y < rows * 4)
    at = (y[inside] // 4).astype(np.int64), (x[inside] // 2).astype(np.int64)
    canvas.glyphs[at], canvas.kinds[at], canvas.owner[at] = ord(symbol), Kind.POINT, index


def put_grid(canvas: Canvas, rows: Sequence[int], cells: Sequence[int]) -> None:
    """Put a faint dot where the ticks of both axes cross and nothing else is."""
    at = np.ix_(np.array(rows, np.int64), np.array(cells, np.int64))
    free = canvas.kinds[at] == Kind.EMPTY
    canvas.glyphs[at] = np.where(free, GRID_GLYPH, canvas.glyphs[at])
    canvas.kinds[at] = np.where(free, Kind.GRID, canvas.kinds[at])


def arm_curve(curves: Sequence[Curve]) -> Curve:
    """Make the curve of an arm from those of its seeds, one or more, aligned by the last step of their bins.

    The median runs across the seeds, and the band and the extremes from the smallest to the largest of their medians.
    Where a seed has no bin at a step, its value is what lies between its neighbours; after its end it has none.
    """
    filled = [curve for curve in curves if len(curve)]
    if len(filled) <= 1:
        return (filled or curves)[0]
    curves = filled
    steps = np.unique(np.concatenate([curve.last for curve in curves]))
    longest = max(curves, key=lambda curve: curve.last[-1])
    values = np.stack([_aligned(curve, curve.median, steps) for curve in curves])
    known = np.isfinite(values)
    some = known.any(axis=0)
    lowest = np.where(some, np.where(known, values, np.inf).min(axis=0), np.nan)
    highest = np.where(some, np.where(known, values, -np.inf).max(axis=0), np.nan)
    median = np.full(len(steps), np.nan)
    median[some] = np.nanmedian(values[:, some], axis=0)
    broken = np.zeros(len(steps), np.int64)
    for curve in curves:
        np.add.at(broken, np.searchsorted(steps, curve.last[curve.broken > 0]), 1)
    clock = {name: np.interp(steps, longest.last, getattr(longest, name)) for name in ("epoch", "questions", "seconds")}
    return Curve(
        first=np.r_[min(curve.first[0] for curve in curves), steps[:-1] + 1],
        last=steps,
        **clock,
        n=np.maximum(known.sum(axis=0) + broken, 1),
        broken=broken,
        median=median,
        low=lowest,
        high=highest,
        lowest=lowest,
        highest=highest,
    )


def _aligned(curve: Curve, values: Floats, steps: Cells) -> Floats:
    """Interpolate values of a curve at steps, NaN before its beginning and after its end."""
    return np.asarray(np.interp(steps, curve.last, values, left=np.nan, right=np.nan), np.float64)
