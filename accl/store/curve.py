"""A metric over time in bins, so that a run of any length is a few thousand numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

AXES = ("step", "epoch", "questions", "time")


@dataclass(frozen=True)
class Curve:
    """One metric of one run in N bins of steps, in order; a bin may be a single step.

    Attributes:
        first, last: first and last step that has a value in the bin.
        epoch, questions, seconds: as at the last step of the bin; seconds are running time, without pauses.
        n: number of values in the bin, finite or not.
        broken: number of them that are NaN or infinite.
        median, low, high: median, 10 % and 90 % quantile of the finite ones; NaN where there are none.
        lowest, highest: extremes of the finite ones.
    """

    first: Integers
    last: Integers
    epoch: Floats
    questions: Floats
    seconds: Floats
    n: Integers
    broken: Integers
    median: Floats
    low: Floats
    high: Floats
    lowest: Floats
    highest: Floats

    def __len__(self) -> int:
        return len(self.first)

    @property
    def raw(self) -> bool:
        """Whether each bin is one value."""
        return bool((self.n == 1).all())

    def x(self, axis: str) -> Floats:
        """Return the N positions on an axis of `AXES`; time is in seconds."""
        if axis == "step":
            return self.last.astype(np.float64)
        return {"epoch": self.epoch, "questions": self.questions, "time": self.seconds}[axis]

    def at(self, step: float) -> int:
        """Return the index of the newest bin that begins at a step or before it, -1 if there is none."""
        return int(np.searchsorted(self.first, step, side="right")) - 1

    @property
    def newest(self) -> float:
        """Median of the newest bin, NaN if its values are broken or there is none."""
        return float(self.median[-1]) if len(self) else float("nan")


def raw_curve(steps: Integers, epoch: Floats, questions: Floats, seconds: Floats, values: Floats) -> Curve:
    """Make the curve of N values in which each bin is one of them."""
    known = np.where(np.isfinite(values), values, np.nan)
    broken = (~np.isfinite(values)).astype(np.int64)
    return Curve(
        steps, steps, epoch, questions, seconds, np.ones_like(steps), broken, known, known, known, known, known
    )
