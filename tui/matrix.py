"""Orders, rankings and colour scales of the confusion between K tasks: pure functions of K x K matrices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tui.raster import Floats

SCALES = ("quantiles", "linear", "log")


@dataclass(frozen=True)
class Scale:
    """Positions of values on a colour scale, 0 to 1.

    Attributes:
        kind: one of `SCALES`. With quantiles each colour stands for as many cells, so that no outlier takes them all.
        diverging: whether 0 is in the middle, at 0.5, and values of the same size are as far from it.
        known: finite values that the scale is made for, ascending; with ``diverging``, their sizes.
    """

    kind: str
    diverging: bool
    known: Floats

    @staticmethod
    def of(values: Floats, kind: str, diverging: bool = False) -> Scale:
        """Make the scale of values, of which those that are not finite count as none."""
        finite = values[np.isfinite(values)]
        known = np.sort(np.abs(finite) if diverging else finite)
        if kind == "log":
            known = known[known > 0]
        return Scale(kind, diverging, known)

    def shares(self, values: Floats) -> Floats:
        """Return the position of each value; NaN for those that are not finite."""
        values = np.where(np.isfinite(values), values, np.nan)
        if not self.diverging:
            return self._position(values)
        return 0.5 + 0.5 * np.sign(values) * self._position(np.abs(values))

    def at(self, share: float) -> float:
        """Return the value at a position; NaN if there is none."""
        if not len(self.known):
            return math.nan
        if self.diverging:
            return math.copysign(self._value(abs(2 * share - 1)), share - 0.5) if share != 0.5 else 0.0
        return self._value(share)

    @property
    def _bounds(self) -> tuple[float, float]:
        low = 0.0 if self.diverging and self.kind != "log" else float(self.known[0])
        return low, float(self.known[-1])

    def _value(self, share: float) -> float:
        if self.kind == "quantiles":
            return float(np.quantile(self.known, share))
        low, high = self._bounds
        return low * (high / low) ** share if self.kind == "log" else low + share * (high - low)

    def _position(self, values: Floats) -> Floats:
        if not len(self.known):
            return np.where(np.isnan(values), np.nan, 0.0)
        if self.kind == "quantiles":  # the middle of equal values
            ranks = np.searchsorted(self.known, values, "left") + np.searchsorted(self.known, values, "right") - 1
            return np.where(np.isnan(values), np.nan, np.clip(ranks / 2 / max(1, len(self.known) - 1), 0.0, 1.0))
        low, high = self._bounds
        if self.kind == "log":
            values, low, high = np.log(np.maximum(values, low)), math.log(low), math.log(high)
        result = (values - low) / (high - low) if high > low else np.full_like(values, 0.5) + 0 * values
        return np.clip(result, 0.0, 1.0)


def off_diagonal(matrix: Floats) -> Floats:
    """Return a copy with NaN on the diagonal."""
    return np.where(np.eye(len(matrix), dtype=bool), np.nan, matrix)


def is_symmetric(matrix: Floats) -> bool:
    """Return whether both triangles say the same."""
    return np.allclose(matrix, matrix.T, equal_nan=True)


def rows_to_one(matrix: Floats) -> Floats:
    """Divide each row by its sum; a row without one is NaN."""
    total = np.nansum(matrix, axis=1, keepdims=True)
    shares: Floats = np.divide(matrix, total, out=np.full_like(matrix, np.nan), where=total != 0)
    return shares


def ranked_pairs(matrix: Floats) -> list[tuple[int, int]]:
    """Return the pairs of different tasks, most confused first; each pair once if the matrix is symmetric."""
    wanted: NDArray[np.bool_] = np.isfinite(off_diagonal(matrix))
    if is_symmetric(matrix):
        wanted &= np.triu(np.ones_like(wanted), 1)
    rows, columns = np.nonzero(wanted)
    order = np.argsort(-matrix[rows, columns], kind="stable")
    return list(zip(rows[order].tolist(), columns[order].tolist(), strict=True))


def rank_in_row(matrix: Floats, a: int, b: int) -> int:
    """Return the rank of b among the tasks that a is confused with; 1 is the most confused."""
    return int((off_diagonal(matrix)[a] > matrix[a, b]).sum()) + 1


def rank_of(ranking: Sequence[tuple[int, int]], a: int, b: int) -> int:
    """Return the rank of the pair, in either order, or 0 if it is not in the ranking."""
    return next((ranking.index(pair) + 1 for pair in ((a, b), (b, a)) if pair in ranking), 0)


def cluster_order(matrix: Floats) -> list[int]:
    """Return the tasks in an order in which similar ones are neighbours.

    The leaves of a tree in which the two most similar clusters are joined again and again (average linkage), turned
    so that the ends that meet are the most similar ones.
    """
    k = len(matrix)
    between = np.nan_to_num((matrix + matrix.T) / 2)
    mean = np.where(np.eye(k, dtype=bool), -np.inf, between)
    clusters = [[i] for i in range(k)]
    for _ in range(k - 1):
        a, b = sorted(int(i) for i in np.unravel_index(int(np.argmax(mean)), mean.shape))
        left, right = clusters[a], clusters[b]
        turns = [(x, y) for x in (left, left[::-1]) for y in (right, right[::-1])]
        first, second = max(turns, key=lambda turn: between[turn[0][-1], turn[1][0]])
        merged = (len(left) * mean[a] + len(right) * mean[b]) / (len(left) + len(right))
        mean[a], mean[:, a], mean[b], mean[:, b] = merged, merged, -np.inf, -np.inf
        mean[a, a] = -np.inf
        clusters[a], clusters[b] = first + second, []
    return next((cluster for cluster in clusters if cluster), [])


def compact(value: float) -> str:
    """Format a number for a cell of a matrix, in few characters: .34, -.12, 1.3, 78, 1e5."""
    size = abs(value)
    if not math.isfinite(value):
        return "·"
    if size < 0.995:
        return f"{value:.2f}".replace("0.", ".", 1).replace("-.00", ".00")
    if size < 9.95:
        return f"{value:.1f}"
    if size < 9999.5:
        return f"{value:.0f}"
    return f"{value:.0e}".replace("e+0", "e").replace("e+", "e")


def found(names: Sequence[str], typed: str) -> int | None:
    """Return the index of the name that typed characters mean: they are a part of it, or come in it in this order."""
    typed = typed.casefold()
    ranked = []
    for i, name in enumerate(map(str.casefold, names)):
        at, missing = name.find(typed), iter(name)
        if at >= 0:
            ranked.append((0, at, len(name), i))
        elif all(character in missing for character in typed):
            ranked.append((1, 0, len(name), i))
    return min(ranked)[-1] if ranked else None
