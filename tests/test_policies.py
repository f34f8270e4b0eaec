"""Policies: what holds for all of them, what each prefers, and the statistics they are made from."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from weights import nothing_observed, weights

from accl.choices import POLICIES
from accl.data.sampler import TaskSampler
from accl.method.curriculum import PolicyParams, TaskStats, load_policy, standardised_softmax, uniform
from accl.method.statistics import TaskStatistics, bandit_reward, draw_shares

NAMES = POLICIES.names()
OBSERVING = [name for name in NAMES if load_policy(name).updates_needed]


def observed(tasks: int, seed: int, unknown: float = 0.0) -> TaskStats:
    """Anything that could have been observed, some of it of no task or of all."""
    generator = torch.Generator().manual_seed(seed)

    def per_task(scale: float = 1.0) -> Tensor:
        value_K = torch.rand(tasks, generator=generator, dtype=torch.float64) * scale
        return value_K.masked_fill(torch.rand(tasks, generator=generator) < unknown, math.nan)

    upper = torch.rand(tasks, tasks, generator=generator).triu()
    similarity_KK = upper + upper.triu(1).T
    hidden = torch.rand(tasks, tasks, generator=generator).triu() < unknown
    return TaskStats(
        similarity_KK=similarity_KK.masked_fill(hidden | hidden.T, math.nan),
        literal_KK=similarity_KK * 50,
        entropy_K=per_task(),
        entropy_change_K=per_task() - 0.5,
        fast_loss_K=per_task(3),
        slow_loss_K=per_task(3),
        gain_K=per_task(4).nan_to_num(0) - 2,
        updates=float(seed % 9),
        questions_K=torch.randint(1, 500, (tasks,), generator=generator),
        fixed_K=torch.rand(tasks, generator=generator) + 0.01,
    )


def renumbered(stats: TaskStats, order: Tensor) -> TaskStats:
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(stats):
        value = getattr(stats, field.name)
        if field.name.endswith("_KK"):
            changes[field.name] = value[order][:, order]
        elif field.name.endswith("_K"):
            changes[field.name] = value[order]
    return dataclasses.replace(stats, **changes)


def close(a: Tensor, b: Tensor, atol: float = 1e-9) -> None:
    torch.testing.assert_close(a.double(), b.double(), rtol=0, atol=atol)


# --- every policy


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40, deadline=None)
@given(
    tasks=st.integers(1, 12),
    seed=st.integers(0, 9999),
    unknown=st.sampled_from([0.0, 0.4, 1.1]),
    temperature=st.sampled_from([0.01, 0.5, 2.0, 100.0]),
    epsilon=st.floats(0, 1),
    parameter=st.floats(-2, 3),
)
def test_weights_are_a_distribution_above_the_uniform_share_whatever_the_numbering(
    name: str, tasks: int, seed: int, unknown: float, temperature: float, epsilon: float, parameter: float
) -> None:
    stats, params, policy = (
        observed(tasks, seed, unknown),
        PolicyParams(temperature, epsilon, parameter),
        load_policy(name),
    )
    p_K = policy.compute_weights(stats, params)
    assert p_K.dtype == torch.float64
    assert p_K.sum().item() == pytest.approx(1, abs=1e-12)
    assert (p_K >= (epsilon / tasks * (1 - 1e-12) if policy.uses_epsilon else 0)).all()
    assert torch.equal(p_K, policy.compute_weights(stats, params))  # nothing but its arguments
    order = torch.randperm(tasks, generator=torch.Generator().manual_seed(seed))
    # Dividing by a small spread magnifies the rounding of sums in another order.
    close(policy.compute_weights(renumbered(stats, order), params), p_K[order], atol=1e-6)


@pytest.mark.parametrize("name", [n for n in OBSERVING if n != "as_published"])
@given(tasks=st.integers(1, 60))
def test_with_nothing_observed_every_task_gets_the_same(name: str, tasks: int) -> None:
    close(load_policy(name).compute_weights(nothing_observed(tasks), PolicyParams(1.0, 0.1, 0.5)), uniform(tasks))


# --- each


@pytest.mark.parametrize(
    ("alpha", "expected"), [(1.0, [0.1, 0.4, 0.5, 0]), (0.0, [1 / 3] * 3 + [0]), (0.5, [1 / 5.236, 2 / 5.236, None, 0])]
)
def test_proportional_is_a_power_of_the_number_of_questions(alpha: float, expected: list[float | None]) -> None:
    p_K = weights(f"proportional({alpha})", 1.0, 0.1, questions_K=torch.tensor([10, 40, 50, 0]))
    for p, wanted in zip(p_K.tolist(), expected, strict=True):
        assert wanted is None or p == pytest.approx(wanted, abs=1e-4)


def test_uncertainty_prefers_the_task_the_model_is_least_sure_of_and_by_hand() -> None:
    entropy_K = torch.tensor([0.2, 0.4, 0.6, math.nan], dtype=torch.float64)
    p_K = weights("uncertainty", 2.0, 0.1, entropy_K=entropy_K)
    z = [x / math.sqrt(0.08 / 3) for x in (-0.2, 0.0, 0.2)] + [0.0]
    exponential = [math.exp(x / 2) for x in z]
    close(p_K, 0.9 * torch.tensor(exponential) / sum(exponential) + 0.1 / 4, atol=1e-6)


def test_the_uncertainty_gradient_counts_rising_and_falling_alike() -> None:
    p_K = weights("uncertainty_gradient", 1.0, 0.1, entropy_change_K=torch.tensor([-0.3, 0.3, 0.0, math.nan]))
    assert p_K[0] == p_K[1] > p_K[3] > p_K[2]


def test_learning_progress_prefers_the_task_whose_loss_moves() -> None:
    """Task 0 stays high, 1 stays low, 2 falls, 3 stays in between; all with the same noise."""
    statistics = TaskStatistics(4, half_life=50, fast_half_life=10, gain_half_life=5)
    generator = torch.Generator().manual_seed(0)
    task_B = torch.arange(4).repeat_interleave(4)
    for step in range(120):
        level_K = torch.tensor([2.0, 0.3, 2.0 - 1.5 * step / 120, 1.0])
        loss_B = level_K[task_B] + 0.05 * torch.randn(16, generator=generator)
        statistics.observe(loss_B, torch.full((16,), 0.5), task_B, 4)
    fast_K, slow_K = statistics.fast_loss(), statistics.slow_loss()
    p_K = weights("learning_progress", 0.5, 0.1, fast_loss_K=fast_K, slow_loss_K=slow_K)
    assert p_K.argmax() == 2
    assert p_K[2] > 0.6


@pytest.mark.parametrize("tasks", [2, 57])
def test_the_bandit_leaves_uniform_within_a_run_and_finds_the_best_task(tasks: int) -> None:
    """Losses are drawn around a level per task; batches by the weights in force, so that most see few of the others."""
    generator = torch.Generator().manual_seed(1)
    statistics = TaskStatistics(tasks, half_life=50, fast_half_life=10, gain_half_life=5)
    level_K = torch.full((tasks,), 0.7)
    best = tasks // 2
    level_K[best] = 2.2
    p_K = uniform(tasks)
    for _ in range(40):
        for _ in range(20):
            task_B = torch.multinomial(p_K, 16, replacement=True, generator=generator)
            loss_B = (level_K[task_B] + 0.3 * torch.randn(16, generator=generator)).clamp(min=0)
            statistics.observe(loss_B, torch.zeros(16), task_B, 4)
        statistics.advance(draw_shares(p_K, None))
        p_K = weights("loss_bandit", 0.5, 0.1, gain_K=statistics.gain_K, updates=float(statistics.updates))
    assert p_K.argmax() == best
    assert p_K[best] > 0.7
    assert p_K.min() >= 0.1 / tasks * (1 - 1e-12)


def test_a_gain_is_the_importance_weighted_deviation_of_the_reward_by_hand() -> None:
    statistics = TaskStatistics(3, half_life=50, fast_half_life=10, gain_half_life=1)
    loss_B = torch.tensor([1.0, 1.0, 0.5, 99.0])  # the last has no task
    statistics.observe(loss_B, torch.zeros(4), torch.tensor([0, 0, 1, -1]), 4)
    reward = [1 / (2 * math.log(4)), 0.5 / (2 * math.log(4))]
    baseline = sum(reward) / 2
    statistics.advance(torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64))
    first = [2 / 3 / 0.5 * (reward[0] - baseline), 1 / 3 / 0.3 * (reward[1] - baseline), 0.0]
    close(statistics.gain_K, torch.tensor(first), atol=1e-6)
    statistics.advance(torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64))  # nothing seen: only forgetting
    close(statistics.gain_K, torch.tensor(first) / 2, atol=1e-6)
    assert statistics.updates.item() == 1.5


def test_gains_are_unbiased_however_unevenly_tasks_are_drawn() -> None:
    generator = torch.Generator().manual_seed(2)
    level_K, total_K = torch.tensor([0.4, 0.8, 1.2]), torch.zeros(3, dtype=torch.float64)
    share_K = torch.tensor([0.8, 0.15, 0.05], dtype=torch.float64)
    for _ in range(400):
        statistics = TaskStatistics(3, half_life=50, fast_half_life=10, gain_half_life=5)
        task_B = torch.multinomial(share_K, 200, replacement=True, generator=generator)
        statistics.observe(level_K[task_B], torch.zeros(200), task_B, 4)
        statistics.advance(share_K)
        total_K += statistics.gain_K
    close(total_K / 400, bandit_reward(level_K, 4) - bandit_reward(level_K, 4).mean(), atol=0.01)


def test_rewards_are_bounded_and_a_guess_earns_a_half() -> None:
    reward_B = bandit_reward(torch.tensor([0.0, math.log(4), 2 * math.log(4), 1e9]), 4)
    assert reward_B.tolist() == pytest.approx([0, 0.5, 1, 1])


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 999), places=st.sampled_from([1, 3, 8]))
def test_expected_shares_are_those_of_the_sampler(seed: int, places: int) -> None:
    weights = np.random.default_rng(seed).dirichlet(np.full(20, 3.0))
    share_K = draw_shares(torch.from_numpy(weights), places)
    assert share_K.sum().item() == pytest.approx(1, abs=1e-6)
    pools = [np.arange(5, dtype=np.int64) for _ in range(20)]
    sampler = TaskSampler(
        pools, batch_size=places, questions_per_task=1, seed=seed, choices=2, permute_options=False
    )  # fmt: skip
    for step in range(600):
        sampler.draw(step, weights)
    drawn = sampler.drawn / sampler.drawn.sum()
    assert np.abs(drawn - share_K.numpy()).sum() < (0.25 if places == 1 else 0.12)


def test_expected_shares_of_independent_and_of_collapsed_weights() -> None:
    p_K = torch.tensor([0.7, 0.2, 0.1, 0.0], dtype=torch.float64)
    close(draw_shares(p_K, None), p_K)
    close(draw_shares(p_K, 3), torch.tensor([1 / 3, 1 / 3, 1 / 3, 0]), atol=1e-6)
    collapsed = torch.tensor([1 - 3e-200, 1e-200, 1e-200, 1e-200], dtype=torch.float64)
    shares = draw_shares(collapsed, 2)
    close(shares, torch.tensor([1 / 2, 1 / 6, 1 / 6, 1 / 6]), atol=0.02)


def test_a_task_drawn_far_beyond_its_expected_share_is_credited_at_most_k_times() -> None:
    """A task with hardly any share that is drawn all the same would otherwise outweigh a run's worth of gains."""
    statistics = TaskStatistics(3, half_life=50, fast_half_life=10, gain_half_life=5)
    statistics.observe(torch.tensor([1.0, 0.5]), torch.zeros(2), torch.tensor([0, 1]), 4)
    statistics.advance(torch.tensor([1e-9, 0.5, 0.5], dtype=torch.float64))
    reward_K = bandit_reward(torch.tensor([1.0, 0.5]), 4).double()
    baseline = reward_K.mean()
    # Importances are (1/2) / 1e-9, capped at K = 3, and (1/2) / 0.5 = 1.
    close(
        statistics.gain_K, torch.stack([3 * (reward_K[0] - baseline), reward_K[1] - baseline, baseline * 0]), atol=1e-6
    )


# --- statistics


def test_task_means_forget_by_half_and_do_not_depend_on_frequency() -> None:
    statistics = TaskStatistics(3, half_life=4, fast_half_life=2, gain_half_life=5)
    first = torch.tensor([0, 0, 0, 1])
    statistics.observe(torch.ones(4), torch.full((4,), 0.8), first, 4)
    torch.testing.assert_close(
        statistics.entropy(), torch.tensor([0.8, 0.8, math.nan]).double(), equal_nan=True, atol=1e-6, rtol=0
    )
    for _ in range(3):
        statistics.observe(torch.ones(0), torch.ones(0), torch.zeros(0, dtype=torch.long), 4)
    statistics.observe(torch.tensor([3.0]), torch.tensor([0.2]), torch.tensor([1]), 4)
    assert statistics.entropy()[0].item() == pytest.approx(0.8)  # forgetting alone changes no mean
    assert statistics.entropy()[1].item() == pytest.approx((0.5 * 0.8 + 0.2) / 1.5)
    assert statistics.slow_loss()[1].item() == pytest.approx((0.5 * 1 + 3) / 1.5)
    assert statistics.fast_loss()[1].item() == pytest.approx((0.25 * 1 + 3) / 1.25)


def test_the_change_of_uncertainty_is_known_only_of_tasks_seen_in_between() -> None:
    statistics = TaskStatistics(3, half_life=1e9, fast_half_life=10, gain_half_life=5)
    share_K = torch.full((3,), 1 / 3)
    statistics.observe(torch.ones(2), torch.tensor([0.8, 0.4]), torch.tensor([0, 1]), 4)
    statistics.advance(share_K)
    assert statistics.change().isnan().all()
    statistics.observe(torch.ones(2), torch.tensor([0.2, 0.5]), torch.tensor([0, 2]), 4)
    statistics.advance(share_K)
    torch.testing.assert_close(
        statistics.change(), torch.tensor([-0.3, math.nan, math.nan]).double(), equal_nan=True, atol=1e-6, rtol=0
    )


def test_scores_equal_but_for_rounding_and_a_single_known_score_are_uniform() -> None:
    close(standardised_softmax(torch.tensor([0.3, 0.3 + 1e-7, 0.3]), 0.01, 0.0), uniform(3))
    close(standardised_softmax(torch.tensor([0.3, math.nan, math.nan]), 0.01, 0.0), uniform(3))
