"""How many seeds a difference of two arms needs until its interval is narrow enough."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from accl.analysis.crossed import student_t_quantile

MAX_SEEDS = 1000
ASSUMPTIONS = (
    "Assumes the same questions, as many seeds in both arms, and that further seeds vary as those seen do, "
    "which is a rough guess from few."
)


def seeds_needed(first: NDArray[np.bool_], second: NDArray[np.bool_], half_width: float = 0.01) -> int | None:
    """Return the number of seeds of both arms for which the interval of their difference is ± ``half_width``.

    The variance of `accl.analysis.crossed.difference_over_seeds` is split into the parts of its model, by the mean
    squares of seeds, questions and rest, and put together again for another number of seeds::

        A(S) = (var(seed) + var(rest)/n) / S,   B(S) = var(question)/n + var(rest)/(n S)

    Args:
        first, second: (S, n) whether each question was answered right under each seed.
        half_width: a fraction, 0.01 for one point.

    Returns:
        0 if the questions alone leave more than that, however many seeds there are; None for fewer than two seeds.
    """
    seeds, n = first.shape
    if seeds < 2 or n < 2:
        return None
    d_SN = second.astype(np.float64) - first
    d_S, d_N, mean = d_SN.mean(axis=1), d_SN.mean(axis=0), d_SN.mean()
    rest = float(((d_SN - d_S[:, None] - d_N + mean) ** 2).sum()) / ((seeds - 1) * (n - 1))
    per_seed = float(d_S.var(ddof=1))
    per_question = max(0.0, float(d_N.var(ddof=1)) - rest / seeds)
    for count in range(2, MAX_SEEDS + 1):
        of_seeds, of_questions = per_seed / count, (per_question + rest / count) / n
        variance = of_seeds + of_questions
        if variance == 0.0:
            return count
        freedom = variance**2 / (of_seeds**2 / (count - 1) + of_questions**2 / (n - 1))
        # Student's quantile is above the normal one, and takes a while to compute.
        if 1.9599 * math.sqrt(variance) <= half_width >= student_t_quantile(0.975, freedom) * math.sqrt(variance):
            return count
    return 0
