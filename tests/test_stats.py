"""The statistics against hand calculation, scipy and their own properties."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize  # type: ignore[import-untyped]
from scipy import stats as reference

from accl.analysis.crossed import (
    contrast_over_seeds,
    crossed_variance,
    difference_over_seeds,
    student_t_quantile,
    student_t_tail,
)
from accl.analysis.stats import (
    Z_95,
    holm,
    mcnemar_exact,
    paired_difference,
    paired_interval,
    standard_error,
    wilson,
)

counts = st.integers(0, 400)


def test_mcnemar_agrees_with_a_calculation_by_hand() -> None:
    # 2 gains, 8 losses: 2 * (C(10,0) + C(10,1) + C(10,2)) / 2^10 = 2 * (1 + 10 + 45) / 1024 = 112 / 1024
    assert mcnemar_exact(2, 8) == pytest.approx(0.109375, abs=1e-12)


@given(counts, counts)
def test_mcnemar_is_the_two_sided_binomial_test(gains: int, losses: int) -> None:
    expected = reference.binomtest(gains, gains + losses, 0.5).pvalue if gains + losses else 1.0
    assert mcnemar_exact(gains, losses) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("gains", "losses"), [(6900, 7142), (5000, 9042), (0, 14_042), (1, 1000)])
def test_mcnemar_stays_exact_for_many_discordant_questions(gains: int, losses: int) -> None:
    m, term, total = gains + losses, 1, 1  # whole numbers: binom(m, 0), and the sum up to binom(m, gains)
    for i in range(gains):
        term = term * (m - i) // (i + 1)
        total += term
    exact = 2 * total / 2**m
    assert mcnemar_exact(gains, losses) == pytest.approx(exact, rel=1e-8, abs=1e-300)


@given(counts, counts)
def test_mcnemar_does_not_care_which_arm_is_first(gains: int, losses: int) -> None:
    assert mcnemar_exact(gains, losses) == mcnemar_exact(losses, gains)
    assert 0.0 < mcnemar_exact(gains, losses) <= 1.0


@given(st.integers(0, 200), st.integers(1, 100))
def test_mcnemar_falls_when_gains_grow_away_from_losses(losses: int, more: int) -> None:
    assert mcnemar_exact(losses + more + 1, losses) < mcnemar_exact(losses + more, losses)


def test_interval_agrees_with_a_calculation_by_hand() -> None:
    # 10 gains and 4 losses on 98 questions: p = 0.11, q = 0.05, 0.06 ± 1.96 sqrt((0.16 - 0.0036) / 100)
    low, high = paired_interval(10, 4, 98)
    half = 1.959964 * math.sqrt(0.1564 / 100)
    assert low == pytest.approx(0.06 - half, abs=1e-6)
    assert high == pytest.approx(0.06 + half, abs=1e-6)
    assert pytest.approx(reference.norm.ppf(0.975)) == Z_95


@given(counts, counts, st.integers(0, 2000))
def test_interval_holds_the_difference_and_mirrors_when_the_arms_swap(gains: int, losses: int, rest: int) -> None:
    n = gains + losses + rest
    if n == 0:
        with pytest.raises(ValueError, match="0 questions"):
            paired_interval(gains, losses, n)
        return
    low, high = paired_interval(gains, losses, n)
    assert -1.0 <= low <= (gains - losses) / n <= high <= 1.0
    assert low < high
    assert paired_interval(losses, gains, n) == pytest.approx((-high, -low))


def test_interval_covers_the_true_difference_as_often_as_it_says() -> None:
    generator = np.random.default_rng(1)
    n, gain, loss = 200, 0.12, 0.05
    draws = generator.multinomial(n, [gain, loss, 1 - gain - loss], size=4000)
    inside = [low <= gain - loss <= high for low, high in (paired_interval(b, c, n) for b, c, _ in draws)]
    assert 0.935 <= np.mean(inside) <= 0.97


def test_paired_difference_counts_what_only_one_arm_got_right() -> None:
    first = np.array([1, 1, 1, 0, 0, 0, 0, 1], bool)
    second = np.array([1, 0, 1, 1, 1, 1, 0, 1], bool)
    found = paired_difference(first, second)
    assert (found.gains, found.losses, found.n) == (3, 1, 8)
    assert found.delta == pytest.approx(second.mean() - first.mean())
    assert found.p == pytest.approx(2 * (1 + 4) / 16)


def test_answers_of_different_lengths_cannot_be_paired() -> None:
    with pytest.raises(ValueError, match="cannot pair"):
        paired_difference(np.ones(3, bool), np.ones(4, bool))
    with pytest.raises(ValueError, match="cannot pair"):
        paired_difference(np.ones(0, bool), np.ones(0, bool))


def test_standard_error_of_mmlu_sized_splits() -> None:
    assert standard_error(0.3, 14_042) * 100 == pytest.approx(0.39, abs=0.005)
    assert standard_error(0.3, 1_531) * 100 == pytest.approx(1.17, abs=0.005)
    with pytest.raises(ValueError, match="0 questions"):
        standard_error(0.3, 0)


def test_holm_agrees_with_a_calculation_by_hand() -> None:
    # sorted 0.01, 0.03, 0.04 times 3, 2, 1 = 0.03, 0.06, 0.04; the last is lifted to 0.06
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_never_lowers_a_p_value_and_keeps_the_order(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    largest = min(1.0, len(p_values) * min(p_values))
    assert all(a >= p for a, p in zip(adjusted, p_values, strict=True))
    assert min(adjusted) == pytest.approx(largest)  # the smallest is Bonferroni's
    assert max(adjusted) <= 1.0
    order = np.argsort(p_values, kind="stable")
    assert list(np.array(adjusted)[order]) == sorted(adjusted)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6), st.floats(0.001, 0.2))
def test_holm_rejects_what_the_step_down_procedure_rejects(p_values: list[float], alpha: float) -> None:
    rejected: set[int] = set()
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if (len(p_values) - rank) * p_values[index] > alpha:
            break
        rejected.add(index)
    assert {i for i, p in enumerate(holm(p_values)) if p <= alpha} == rejected


def test_holm_refuses_what_is_no_probability() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm([0.2, float("nan")])


# Several seeds -----------------------------------------------------------------------------------


@given(st.floats(0, 60), st.floats(0.5, 1e5))
def test_students_t_agrees_with_scipy(t: float, freedom: float) -> None:
    assert student_t_tail(t, freedom) == pytest.approx(reference.t.sf(t, freedom), rel=1e-8, abs=1e-300)


@given(st.sampled_from([0.5, 0.9, 0.975, 0.995]), st.floats(1, 1e5))
def test_students_quantiles_agree_with_scipy(probability: float, freedom: float) -> None:
    assert student_t_quantile(probability, freedom) == pytest.approx(reference.t.ppf(probability, freedom), abs=1e-9)


def test_students_t_refuses_what_it_has_no_value_for() -> None:
    with pytest.raises(ValueError, match="t = -1"):
        student_t_tail(-1.0, 3.0)
    with pytest.raises(ValueError, match="df = 0"):
        student_t_tail(1.0, 0.0)
    with pytest.raises(ValueError, match="probability 1"):
        student_t_quantile(1.0, 3.0)


def test_difference_over_seeds_agrees_with_a_calculation_by_hand() -> None:
    # Rows of d: (1, 1, 0, 0), (1, 0, 0, 0), (1, 1, 0, -1): seed means 1/2, 1/4, 1/4; question means 1, 2/3, 0, -1/3.
    first = np.array([[0, 0, 1, 1], [0, 1, 0, 1], [0, 0, 0, 1]], bool)
    second = np.array([[1, 1, 1, 1], [1, 1, 0, 1], [1, 1, 0, 0]], bool)
    found = difference_over_seeds(first, second)
    assert found.per_seed == (0.5, 0.25, 0.25)
    assert found.delta == pytest.approx(1 / 3)
    assert found.sd == pytest.approx(math.sqrt(1 / 48))  # (1/36 + 1/144 + 1/144) / 2 = 1/48
    of_seeds = 1 / 48 / 3
    questions = [1, 2 / 3, 0, -1 / 3, 3**-0.5, -(3**-0.5)]  # with the two imaginary ones
    of_questions = np.var(questions, ddof=1) / 6
    # d_sq - d_s - d_q + 1/3: (-1/6, 1/6, -1/6, 1/6), (1/12, -7/12, 1/12, 5/12), (1/12, 5/12, 1/12, -7/12)
    rest = (4 / 36 + 2 * (1 + 49 + 1 + 25) / 144) / (2 * 3) / 12
    variance = of_seeds + of_questions - rest
    of_two, of_four = reference.t.ppf(0.975, [2, 4])
    half = math.sqrt(of_two**2 * of_seeds + of_four**2 * (of_questions - rest))
    assert half > reference.norm.ppf(0.85) * math.sqrt(of_questions)
    freedom = optimize.brentq(lambda f: reference.t.ppf(0.975, f) - half / math.sqrt(variance), 2, 4)
    assert (found.low, found.high) == pytest.approx((1 / 3 - half, 1.0 if 1 / 3 + half > 1 else 1 / 3 + half))
    assert found.p == pytest.approx(2 * reference.t.sf(1 / 3 / math.sqrt(variance), freedom))


def test_variance_of_the_mean_counts_seeds_questions_and_rest_once() -> None:
    generator = np.random.default_rng(3)
    shape = (400, 4, 300)
    seeds, questions = generator.normal(0, 0.02, (400, 4, 1)), generator.normal(0, 0.3, (400, 1, 300))
    d = seeds + questions + generator.normal(0, 0.5, shape)
    estimated = np.mean([crossed_variance(matrix).of_mean for matrix in d])
    assert estimated == pytest.approx(0.02**2 / 4 + 0.3**2 / 300 + 0.5**2 / 1200, rel=0.05)


def test_seeds_that_agree_by_luck_leave_what_the_questions_alone_leave() -> None:
    first, second = np.zeros((2, 5, 600), bool)
    for seed, start in enumerate(range(0, 300, 60)):  # 36 gains and 24 losses under each seed, of different questions
        second[seed, start : start + 36] = True
        first[seed, start + 36 : start + 60] = True
    found = difference_over_seeds(first, second)
    assert found.sd == pytest.approx(0, abs=1e-12)
    of_questions = crossed_variance(second.astype(float) - first).over_questions
    assert found.high - found.delta == pytest.approx(reference.norm.ppf(0.85) * math.sqrt(of_questions))
    assert found.p == pytest.approx(reference.norm.sf(0.02 / math.sqrt(of_questions)) / 3)
    assert difference_over_seeds(first, first).p == 1.0


@given(st.integers(2, 5), st.integers(1, 60), st.integers(0, 2**32 - 1))
def test_difference_over_seeds_mirrors_when_the_arms_swap(seeds: int, n: int, draw: int) -> None:
    first, second = np.random.default_rng(draw).random((2, seeds, n)) < 0.5
    one, other = difference_over_seeds(first, second), difference_over_seeds(second, first)
    assert -1 <= one.low <= one.delta <= one.high <= 1
    assert one.low < one.high
    assert (other.delta, other.low, other.high) == pytest.approx((-one.delta, -one.high, -one.low))
    assert other.p == pytest.approx(one.p)
    if one.low > -1 and one.high < 1 and abs(one.p - 0.05) > 1e-9:
        assert (one.p < 0.05) == (one.low > 0 or one.high < 0)


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize(("seed_sd", "question_sd"), [(0.0, 0.0), (0.0, 0.3), (0.02, 0.0), (0.02, 0.3)])
def test_interval_over_seeds_covers_the_truth_whether_seeds_or_questions_vary(
    seeds: int, seed_sd: float, question_sd: float
) -> None:
    generator = np.random.default_rng(seeds)
    n, delta, inside, repetitions = 400, 0.03, 0, 400
    for _ in range(repetitions):
        # Chances of gain and loss: 0.25 each, moved by the arm, the seed and the question.
        push = delta + generator.normal(0, seed_sd, (seeds, 1)) + generator.uniform(-1, 1, n) * question_sd * 0.5
        draw = generator.random((seeds, n))
        gain, loss = draw < 0.25 + push / 2, draw > 0.75 + push / 2
        found = difference_over_seeds(loss, gain)
        inside += found.low <= delta <= found.high
    assert inside / repetitions >= 0.93


def test_a_contrast_is_the_gain_on_a_group_minus_that_on_the_others() -> None:
    generator = np.random.default_rng(4)
    first = generator.random((4, 900)) < 0.5
    group = np.arange(900) < 300
    second = np.where(group & (generator.random((4, 900)) < 0.4), True, first)  # about 20 points, in the group alone
    found = contrast_over_seeds(first, second, group)
    inside, outside = (difference_over_seeds(first[:, part], second[:, part]) for part in (group, ~group))
    assert outside.delta == 0
    assert found.delta == pytest.approx(inside.delta - outside.delta)
    assert found.p < 0.001
    assert found.low > 0.1
    back = contrast_over_seeds(first, second, ~group)
    assert (back.delta, back.low, back.high, back.p) == pytest.approx((-found.delta, -found.high, -found.low, found.p))
    everywhere = np.where(generator.random((4, 900)) < 0.4, True, first)
    assert contrast_over_seeds(first, everywhere, group).p > 0.05
    with pytest.raises(ValueError, match="inside and outside"):
        contrast_over_seeds(first, second, group | True)
    with pytest.raises(ValueError, match="cannot contrast"):
        contrast_over_seeds(first, second, group[1:])


def test_seeds_that_disagree_widen_the_interval() -> None:
    generator = np.random.default_rng(7)
    first = generator.random((3, 2000)) < 0.5
    alike = np.stack([np.where(np.arange(2000) < 60, True, row) for row in first])
    unlike = first.copy()
    unlike[0, :180] = True
    calm, wild = difference_over_seeds(first, alike), difference_over_seeds(first, unlike)
    assert wild.delta == pytest.approx(calm.delta, abs=0.005)
    assert wild.high - wild.low > 2 * (calm.high - calm.low)
    assert calm.p < 0.05 < wild.p


def test_a_single_seed_has_no_spread() -> None:
    with pytest.raises(ValueError, match="over seeds"):
        difference_over_seeds(np.ones((1, 4), bool), np.ones((1, 4), bool))
    with pytest.raises(ValueError, match="over seeds"):
        difference_over_seeds(np.ones((2, 4), bool), np.ones((2, 5), bool))


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_interval_of_a_share_is_that_of_wilson(counted: tuple[int, int]) -> None:
    expected = reference.binomtest(*counted).proportion_ci(0.95, "wilson")
    assert wilson(*counted) == pytest.approx((expected.low, expected.high), rel=1e-9, abs=1e-12)


def test_a_share_of_all_questions_has_an_interval_and_one_of_none_is_refused() -> None:
    assert wilson(12, 12) == pytest.approx((0.758, 1.0), abs=5e-4)
    for impossible in ((0, 0), (3, 2), (-1, 2)):
        with pytest.raises(ValueError, match="no interval"):
            wilson(*impossible)
