"""Difference of two arms over several seeds, with the uncertainty of the seeds and of the questions.

Every seed answers the same questions, so seeds and questions are crossed random effects: differences form a matrix
seeds x questions, whose mean varies with both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class SeedDifference:
    """Accuracy of the second arm minus the first's, averaged over seeds, as fractions.

    Attributes:
        seeds: number of seeds S. n: number of questions. per_seed: difference under each seed, in the order given.
        delta, sd: mean and standard deviation of ``per_seed``, the latter with S - 1 in the denominator.
        low, high, p: 95 % interval and two-sided p of delta, see `difference_over_seeds`.
    """

    seeds: int
    n: int
    per_seed: tuple[float, ...]
    delta: float
    sd: float
    low: float
    high: float
    p: float


def difference_over_seeds(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> SeedDifference:
    """Compare two arms over S seeds and n questions, seed by seed and question by question.

    With d_sq = second_sq - first_sq, its grand mean m, seed means d_s and question means d_q, the variance of m is the
    sum of the variances of a mean over seeds and over questions::

        A = sum_s (d_s - m)^2 / (S (S - 1)),   B = sum_q (d_q - m)^2 / (n (n - 1)),   V = A + B
        df = V^2 / (A^2 / (S - 1) + B^2 / (n - 1))
        interval = m ± t_{df, 0.975} sqrt(V),   p = P(|t_df| > |m| / sqrt(V))

    In the model d_sq = mu + seed_s + question_q + rest_sq, A holds var(seed)/S + var(rest)/(n S), B holds
    var(question)/n + var(rest)/(n S), so that their sum counts the rest twice. The unbiased estimate subtracts it
    once, but with three seeds often loses the seeds' part altogether; the conservative sum is never below either part.
    As in `accl.analysis.stats.paired_interval`, B includes two imaginary questions, one gained and one lost under
    every seed, so that it is never 0.

    Source: crossed random effects, Cornfield & Tukey, Annals of Mathematical Statistics 27 (1956); degrees of
    freedom of a sum, Satterthwaite, Biometrics Bulletin 2 (1946).

    Args:
        first, second: (S, n) whether each question was answered right under each seed.

    Raises:
        ValueError: the two differ in shape, there are fewer than two seeds, or there is no question.
    """
    if first.shape != second.shape or first.ndim != 2 or len(first) < 2 or first.size == 0:
        raise ValueError(f"cannot pair answers of shapes {first.shape} and {second.shape} over seeds")
    seeds, n = first.shape
    d_SN = second.astype(np.int8) - first.astype(np.int8)
    d_S, d_N = d_SN.mean(axis=1), np.append(d_SN.mean(axis=0), [1.0, -1.0])
    delta, sd = float(d_S.mean()), float(d_S.std(ddof=1))
    of_seeds, of_questions = sd**2 / seeds, float(d_N.var(ddof=1)) / len(d_N)
    variance = of_seeds + of_questions
    freedom = variance**2 / (of_seeds**2 / (seeds - 1) + of_questions**2 / (len(d_N) - 1))
    half = student_t_quantile(0.975, freedom) * math.sqrt(variance)
    p = 2.0 * student_t_tail(abs(delta) / math.sqrt(variance), freedom)
    return SeedDifference(seeds, n, tuple(d_S.tolist()), delta, sd, max(-1.0, delta - half), min(1.0, delta + half), p)


def student_t_tail(t: float, freedom: float) -> float:
    """Return P(T > t) of Student's t for t >= 0: I_x(df/2, 1/2) / 2 with x = df / (df + t^2).

    Raises:
        ValueError: t is negative, or the degrees of freedom are not positive.
    """
    if not t >= 0.0 or not freedom > 0.0:
        raise ValueError(f"no tail of Student's t for t = {t}, df = {freedom}")
    # 1 - x is computed on its own: the difference would lose digits where t is small.
    return 0.5 * _incomplete_beta(freedom / 2, 0.5, freedom / (freedom + t * t), t * t / (freedom + t * t))


def student_t_quantile(probability: float, freedom: float) -> float:
    """Return the t >= 0 with P(T <= t) = probability, by bisection to the last digit.

    Raises:
        ValueError: the probability is not in [0.5, 1), or the degrees of freedom are not positive.
    """
    if not 0.5 <= probability < 1.0:
        raise ValueError(f"no quantile of Student's t for probability {probability}")
    low, high = 0.0, 1.0
    while student_t_tail(high, freedom) > 1.0 - probability:
        low, high = high, 2.0 * high
    while low < (middle := (low + high) / 2) < high:
        if student_t_tail(middle, freedom) > 1.0 - probability:
            low = middle
        else:
            high = middle
    return high


def _incomplete_beta(a: float, b: float, x: float, rest: float) -> float:
    """Return the regularised incomplete beta I_x(a, b) with rest = 1 - x.

    Lentz's continued fraction is used where it converges fast, the symmetry I_x(a, b) = 1 - I_(1-x)(b, a) elsewhere.

    Source: Press et al., Numerical Recipes, 3rd ed. (2007), section 6.4.
    """
    if x <= 0.0 or rest <= 0.0:
        return 0.0 if x <= 0.0 else 1.0
    if x > (a + 1) / (a + b + 2):
        return 1.0 - _incomplete_beta(b, a, rest, x)
    logs = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log(rest)
    c, d = 1.0, 1.0 / (1.0 - (a + b) * x / (a + 1))
    fraction, m = d, 1
    while True:
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d, c = 1.0 / (1.0 + term * d), 1.0 + term / c
            fraction *= c * d
        if abs(c * d - 1.0) < 1e-14:
            return math.exp(logs) * fraction / a
        m += 1
