"""Statistics of paired right and wrong answers.

Two arms answer the same n questions: *gains* b are the questions that only the second arm got right,
*losses* c those that only the first got right; b + c answers are discordant.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

Z_95 = 1.959963984540054  # 97.5 % quantile of the standard normal distribution


@dataclass(frozen=True)
class PairedDifference:
    """Accuracy of the second arm minus the first's, as a fraction: delta = (b - c) / n over n questions.

    ``low`` and ``high`` are its `paired_interval`, ``p`` is that of `mcnemar_exact`.
    """

    n: int
    gains: int
    losses: int
    delta: float
    low: float
    high: float
    p: float


def standard_error(accuracy: float, n: int) -> float:
    """Return the standard error of an accuracy a over n independent questions, sqrt(a (1 - a) / n), as a fraction.

    Raises:
        ValueError: n < 1, or the accuracy is outside 0..1.
    """
    if n < 1 or not 0.0 <= accuracy <= 1.0:
        raise ValueError(f"no standard error of accuracy {accuracy} on {n} questions")
    return math.sqrt(accuracy * (1.0 - accuracy) / n)


def wilson(correct: int, n: int) -> tuple[float, float]:
    """Return the 95 % interval of a share of k of n independent questions, as fractions: Wilson's score interval.

    With a = k / n: ``(a + z^2 / 2n ± z sqrt(a (1 - a) / n + z^2 / 4n^2)) / (1 + z^2 / n)``. It stays within 0
    and 1, and does not shrink to a point where all answers are right or all are wrong.
    Source: Wilson, J. of the American Statistical Association 22 (1927).

    Raises:
        ValueError: n < 1, or k is outside 0..n.
    """
    if not 0 <= correct <= n or n < 1:
        raise ValueError(f"no interval for {correct} right of {n} questions")
    a, z2 = correct / n, Z_95**2
    centre, half = a + z2 / (2 * n), Z_95 * math.sqrt(a * (1 - a) / n + z2 / (4 * n * n))
    # Rounding must not leave a hair's breadth outside of what is possible.
    low = 0.0 if correct == 0 else (centre - half) / (1 + z2 / n)
    return low, 1.0 if correct == n else (centre + half) / (1 + z2 / n)


def mcnemar_exact(gains: int, losses: int) -> float:
    """Return the two-sided exact McNemar p.

    Under the null hypothesis each discordant question is a fair coin, so with m = b + c and
    k = min(b, c): ``p = min(1, 2 * sum_{i<=k} binom(m, i) / 2^m)``, in whole numbers up to the division.
    Source: McNemar, Psychometrika 12 (1947), in the exact binomial form of Mosteller (1952).

    Raises:
        ValueError: a negative count.
    """
    if gains < 0 or losses < 0:
        raise ValueError(f"counts cannot be negative: {gains}, {losses}")
    m, k = gains + losses, min(gains, losses)
    ways = accumulate(range(k), lambda term, i: term * (m - i) // (i + 1), initial=1)
    return min(1.0, 2 * sum(ways) / (1 << m))


def paired_interval(gains: int, losses: int, n: int) -> tuple[float, float]:
    """Return the 95 % interval of (b - c) / n: the adjusted Wald interval of Bonett and Price.

    With one imaginary question added to each discordant cell, p = (b + 1) / (n + 2) and q = (c + 1) / (n + 2):
    ``p - q ± z sqrt((p + q - (p - q)^2) / (n + 2))``. Unlike the plain normal approximation it keeps its
    coverage on few questions and does not shrink to a point when no answers differ.
    Source: Bonett & Price, J. Educational and Behavioral Statistics 37 (2012).

    Raises:
        ValueError: n < 1, a negative count, or more discordant questions than n.
    """
    if n < 1 or gains < 0 or losses < 0 or gains + losses > n:
        raise ValueError(f"no interval for {gains} gains and {losses} losses on {n} questions")
    p, q = (gains + 1) / (n + 2), (losses + 1) / (n + 2)
    half = Z_95 * math.sqrt((p + q - (p - q) ** 2) / (n + 2))
    return max(-1.0, p - q - half), min(1.0, p - q + half)


def paired_difference(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> PairedDifference:
    """Compare two arms question by question.

    Args:
        first, second: (n,) whether each question was answered right, in the same order.

    Raises:
        ValueError: the lengths differ, or there is no question.
    """
    if first.shape != second.shape or first.ndim != 1 or first.size == 0:
        raise ValueError(f"cannot pair answers of shapes {first.shape} and {second.shape}")
    n = int(first.size)
    gains = int(np.count_nonzero(second & ~first))
    losses = int(np.count_nonzero(first & ~second))
    low, high = paired_interval(gains, losses, n)
    return PairedDifference(n, gains, losses, (gains - losses) / n, low, high, mcnemar_exact(gains, losses))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p values by Holm's step-down method, in the order given.

    With p sorted ascending, ``adjusted_(i) = max_{j<=i} min(1, (m - j + 1) p_(j))``. Rejecting where the adjusted p
    is at most alpha bounds the family-wise error rate of the m tests by alpha, whatever their dependence.
    Source: Holm, Scandinavian J. of Statistics 6 (1979).

    Raises:
        ValueError: a value is outside 0..1.
    """
    if not all(0.0 <= p <= 1.0 for p in p_values):
        raise ValueError(f"p values lie between 0 and 1: {list(p_values)}")
    ascending = sorted(range(len(p_values)), key=p_values.__getitem__)
    scaled = (min(1.0, (len(p_values) - rank) * p_values[index]) for rank, index in enumerate(ascending))
    adjusted = dict(zip(ascending, accumulate(scaled, max), strict=True))
    return [adjusted[index] for index in range(len(p_values))]
