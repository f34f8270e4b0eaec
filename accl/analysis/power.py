"""Smallest difference that a comparison of two arms can show, and seeds that a narrow interval needs."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from accl.analysis.crossed import (
    Z_70,
    CrossedVariance,
    crossed_variance,
    imaginary_questions,
    student_t_quantile,
)
from accl.analysis.stats import Z_95, paired_difference

POWER = 0.8  # chance of p <= 0.05, two-sided, that the smallest difference has
MAX_SEEDS = 1000
ASSUMPTIONS = (
    "Assumes the same questions, as many seeds in both arms, and that further seeds vary as those seen do, "
    "which is a rough guess from few."
)


def smallest_difference(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """Return the true difference that these questions and seeds show with 80 % power, two-sided at 5 %, as a fraction.

    With the variance V and the degrees of freedom f of the test that compares the arms::

        smallest = (t_{f, 0.975} + t_{f, 0.8}) sqrt(V)

    Over several seeds these are those of `accl.analysis.crossed.difference_over_seeds`, and the result is at least
    (z_0.85 + z_0.8) sqrt(B), as that also tests the questions alone. Under one seed they are the normal quantiles and
    V = (p + q - (p - q)^2) / (n + 2) of `accl.analysis.stats.paired_interval`, for the choice of the questions alone.
    Smaller differences may exist: that none was significant does not rule them out.
    Source: the normal approximation with t quantiles, Julious, Sample Sizes for Clinical Trials (2009), chapter 3.

    Args:
        first, second: (S, n) whether each question was answered right under each seed.

    Raises:
        ValueError: the two differ in shape, or there is no question.
    """
    if len(first) == 1:
        paired = paired_difference(first[0], second[0])
        p, q = (paired.gains + 1) / (paired.n + 2), (paired.losses + 1) / (paired.n + 2)
        return (Z_95 + NormalDist().inv_cdf(POWER)) * math.sqrt((p + q - (p - q) ** 2) / (paired.n + 2))
    if first.shape != second.shape or first.size == 0:
        raise ValueError(f"cannot pair answers of shapes {first.shape} and {second.shape} over seeds")
    variance = crossed_variance(second.astype(np.float64) - first)
    quantiles = student_t_quantile(0.975, variance.freedom) + student_t_quantile(POWER, variance.freedom)
    of_questions = (Z_70 + NormalDist().inv_cdf(POWER)) * math.sqrt(variance.over_questions)
    return max(quantiles * math.sqrt(variance.of_mean), of_questions)


def seeds_needed(first: NDArray[np.bool_], second: NDArray[np.bool_], half_width: float = 0.01) -> int | None:
    """Return the number of seeds of both arms for which the interval of their difference is ± ``half_width``.

    The variance of `accl.analysis.crossed.difference_over_seeds` is split into the parts of its model, and put
    together again for another number of seeds::

        A(S) = (var(seed) + var(rest)/n) / S,   C(S) = var(rest)/(n S),   B(S) = var(question)/n + C(S)

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
    seen = crossed_variance(d_SN)
    of_questions = max(0.0, float(d_SN.mean(axis=0).var(ddof=1)) / n - seen.rest)
    for count in range(2, MAX_SEEDS + 1):
        rest = seen.rest * seeds / count
        then = CrossedVariance(
            count, n, seen.over_seeds * seeds / count, of_questions + rest + imaginary_questions(count, n), rest
        )
        # Student's quantile is above the normal one, and takes a while to compute.
        if Z_95 * math.sqrt(then.of_mean) <= half_width >= then.half_width:
            return count
    return 0
