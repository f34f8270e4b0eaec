"""From confusion to weights: what holds for every policy, and where the rule as written fails."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from weights import weights

from accl.method.confusion import TaskConfusion, task_confusion
from accl.method.curriculum import mix_uniform, uniform


def matrix(tasks: int, seed: int, unobserved: float = 0.0) -> Tensor:
    """A symmetric matrix of mean cosines, a share of its pairs not observed."""
    generator = torch.Generator().manual_seed(seed)
    upper = torch.rand(tasks, tasks, generator=generator, dtype=torch.float64).triu()
    mean_KK = upper + upper.triu(1).T
    hidden = torch.rand(tasks, tasks, generator=generator).triu() < unobserved
    return mean_KK.masked_fill(hidden | hidden.T, math.nan)


def clear_cut(mean_KK: Tensor) -> bool:
    """Tasks are equally confusable, or differ by far more than rounding."""
    c_K = task_confusion(mean_KK)
    spread = (c_K - c_K.nanmean()).square().nanmean().sqrt().nan_to_num(0)
    return not 1e-9 < spread < 1e-2


MATRICES = st.builds(matrix, st.integers(1, 12), st.integers(0, 9999), st.sampled_from([0.0, 0.3, 0.8, 1.1])).filter(
    clear_cut
)
TEMPERATURES = st.sampled_from([0.01, 0.5, 2.0, 100.0])
EPSILONS = st.floats(0, 1)


def close(p_K: Tensor, expected: Tensor, atol: float = 1e-9) -> None:
    torch.testing.assert_close(p_K, expected.double(), rtol=0, atol=atol)


def confusion_policy(mean_KK: Tensor, temperature: float, epsilon: float) -> Tensor:
    return weights("confusion", temperature, epsilon, similarity_KK=mean_KK)


def literal_policy(sum_KK: Tensor, temperature: float) -> Tensor:
    return weights("as_published", temperature, 0.1, literal_KK=sum_KK)


# --- every policy


@given(mean_KK=MATRICES, temperature=TEMPERATURES, epsilon=EPSILONS)
def test_confusion_weights_are_a_distribution_above_the_uniform_share(
    mean_KK: Tensor, temperature: float, epsilon: float
) -> None:
    p_K = confusion_policy(mean_KK, temperature, epsilon)
    assert p_K.dtype == torch.float64
    assert p_K.sum().item() == pytest.approx(1, abs=1e-12)
    assert (p_K >= epsilon / len(mean_KK) * (1 - 1e-12)).all()


@given(mean_KK=MATRICES, temperature=TEMPERATURES, epsilon=EPSILONS, seed=st.integers(0, 999))
def test_renumbering_the_tasks_renumbers_the_weights(
    mean_KK: Tensor, temperature: float, epsilon: float, seed: int
) -> None:
    order = torch.randperm(len(mean_KK), generator=torch.Generator().manual_seed(seed))
    close(
        confusion_policy(mean_KK[order][:, order], temperature, epsilon),
        confusion_policy(mean_KK, temperature, epsilon)[order],
    )
    sum_KK = mean_KK.nan_to_num(0) * 10
    close(literal_policy(sum_KK[order][:, order], temperature), literal_policy(sum_KK, temperature)[order])


@given(tasks=st.integers(1, 100))
def test_uniform_gives_every_task_the_same(tasks: int) -> None:
    assert uniform(tasks).tolist() == [1 / tasks] * tasks


@given(shares=st.lists(st.floats(0.001, 1), min_size=1, max_size=20), epsilon=EPSILONS)
def test_epsilon_is_a_uniform_share(shares: list[float], epsilon: float) -> None:
    p_K = torch.tensor(shares, dtype=torch.float64)
    p_K /= p_K.sum()
    result = mix_uniform(p_K, epsilon)
    assert result.sum().item() == pytest.approx(1)
    assert (result >= epsilon / len(p_K)).all()
    close(mix_uniform(p_K, 0), p_K)
    close(mix_uniform(p_K, 1), uniform(len(p_K)))


# --- the corrected rule


def test_the_corrected_rule_by_hand() -> None:
    nan = math.nan
    # Off-diagonal means 0.2, 0.4, 0.6; mean 0.4, standard deviation sqrt(0.08 / 3).
    mean_KK = torch.tensor([[nan, 0.0, 0.4], [0.0, nan, 0.8], [0.4, 0.8, nan]])
    z_K = torch.tensor([-0.2, 0.0, 0.2], dtype=torch.float64) / math.sqrt(0.08 / 3)
    exponential = [math.exp(z / 2) for z in z_K.tolist()]
    softmax = torch.tensor([e / sum(exponential) for e in exponential])
    close(confusion_policy(mean_KK, 2.0, 0.1), 0.9 * softmax + 0.1 / 3, atol=1e-6)


def test_a_tasks_similarity_to_itself_does_not_count() -> None:
    mean_KK = matrix(6, 1)
    close(confusion_policy(mean_KK.clone().fill_diagonal_(1e3), 2.0, 0.1), confusion_policy(mean_KK, 2.0, 0.1))


@given(mean_KK=MATRICES, scale=st.floats(0.1, 10), shift=st.floats(-1, 1))
def test_only_differences_between_tasks_count(mean_KK: Tensor, scale: float, shift: float) -> None:
    """Standardising: an encoder with all cosines near 1 gives the same curriculum as one with them spread out."""
    close(confusion_policy(mean_KK * scale + shift, 2.0, 0.1), confusion_policy(mean_KK, 2.0, 0.1), atol=1e-7)


@given(mean_KK=MATRICES.filter(lambda m: len(m) > 1), epsilon=st.floats(0, 0.9))
def test_a_more_confusable_task_gets_more(mean_KK: Tensor, epsilon: float) -> None:
    mean_KK = mean_KK.nan_to_num(0.5)
    off_KK = mean_KK - mean_KK.diag().diag()
    p_K = confusion_policy(mean_KK, 2.0, epsilon)
    by_confusion = p_K[off_KK.sum(-1).argsort()]
    assert (by_confusion.diff() >= -1e-12).all()


@pytest.mark.parametrize("tasks", [1, 2, 57])
def test_equally_confusable_tasks_get_the_same(tasks: int) -> None:
    close(confusion_policy(torch.full((tasks, tasks), 0.3), 0.01, 0.0), uniform(tasks))
    close(confusion_policy(torch.full((tasks, tasks), math.nan), 0.01, 0.0), uniform(tasks))


def test_tasks_that_are_equal_but_for_rounding_get_the_same() -> None:
    """What fp32 sums over many batches leave of equal embeddings is noise, and must not be magnified."""
    generator = torch.Generator().manual_seed(0)
    confusion = TaskConfusion(8, half_life=50)
    direction = torch.randn(32, generator=generator)
    for _ in range(200):
        task = torch.randperm(8, generator=generator)[:4].repeat_interleave(2)
        confusion.observe(direction.repeat(8, 1), task)
    assert confusion.mean().unique().numel() > 1
    close(confusion_policy(confusion.mean(), 0.5, 0.0), uniform(8))


def test_an_unobserved_task_counts_as_average() -> None:
    mean_KK = matrix(5, 2)
    mean_KK[4, :] = mean_KK[:, 4] = math.nan
    p_K = confusion_policy(mean_KK, 1.0, 0.0)
    # Standard scores of the others have mean 0, so their geometric mean is the weight of z = 0.
    assert p_K[4].item() == pytest.approx(math.exp(p_K[:4].log().mean().item()))


def test_one_observed_pair_says_nothing_about_who_is_more_confusable() -> None:
    mean_KK = torch.full((4, 4), math.nan)
    mean_KK[0, 1] = mean_KK[1, 0] = 0.7
    close(confusion_policy(mean_KK, 0.1, 0.0), uniform(4))


# --- draw frequency, and the rule as written


def observed(direction_KD: Tensor, frequency_K: Tensor, steps: int) -> TaskConfusion:
    """Confusion after batches of 16 questions drawn by frequency; each task's questions all look alike."""
    confusion = TaskConfusion(len(direction_KD), None)
    generator = torch.Generator().manual_seed(4)
    for _ in range(steps):
        task = torch.multinomial(frequency_K, 16, replacement=True, generator=generator)
        confusion.observe(direction_KD[task], task)
    assert not confusion.mean().isnan().any()
    return confusion


def test_the_corrected_rule_does_not_depend_on_how_often_a_task_was_drawn_and_the_written_one_does() -> None:
    direction = F.normalize(torch.rand(6, 5, generator=torch.Generator().manual_seed(5)), dim=-1)
    even = observed(direction, torch.ones(6), 300)
    skewed = observed(direction, torch.tensor([8.0, 1, 1, 1, 1, 1]), 300)
    corrected = [confusion_policy(c.mean(), 2.0, 0.1) for c in (even, skewed)]
    close(corrected[1], corrected[0], atol=1e-4)
    assert not torch.allclose(corrected[0], uniform(6), atol=0.02)  # and is a curriculum all the same
    literal = [literal_policy(c.sum_KK, 2.0) for c in (even, skewed)]
    assert (literal[1] - literal[0]).abs().max() > 0.5
    assert literal[1].argmax() == 0  # drawn most, hence "most confused"


@settings(max_examples=20)
@given(mean_KK=MATRICES, rate=st.lists(st.floats(1, 1000), min_size=12, max_size=12))
def test_counts_cancel_in_the_corrected_rule(mean_KK: Tensor, rate: list[float]) -> None:
    tasks = len(mean_KK)
    count_KK = torch.outer(torch.tensor(rate[:tasks]), torch.tensor(rate[:tasks]))
    confusion = TaskConfusion(tasks, None)
    seen_KK = ~mean_KK.isnan()
    confusion.count_KK.copy_(count_KK * seen_KK)
    confusion.sum_KK.copy_(count_KK * mean_KK.nan_to_num(0))
    close(confusion_policy(confusion.mean(), 2.0, 0.1), confusion_policy(mean_KK, 2.0, 0.1), atol=1e-4)


def test_the_rule_as_written_collapses_at_the_first_update() -> None:
    """100 uniform steps of 16 over 57 tasks with cosines near 0.8, T = 2: one task takes it all."""
    generator = torch.Generator().manual_seed(6)
    base, own = torch.randn(64, generator=generator), torch.randn(57, 64, generator=generator)
    confusion = TaskConfusion(57, None)
    for _ in range(100):
        task = torch.randint(57, (16,), generator=generator)
        noise = torch.randn(16, 64, generator=generator)
        confusion.observe(2 * base + 0.5 * own[task] + 0.8 * noise, task)
    written = literal_policy(confusion.sum_KK, 2.0)
    assert written.sum().item() == pytest.approx(1)
    assert written.max() > 0.9
    # A batch of the winner alone has no pair with another task: nothing can take the weight away again.
    winner = int(written.argmax())
    before = confusion.sum_KK - confusion.sum_KK.diag().diag()
    confusion.observe(torch.randn(16, 64, generator=generator), torch.full((16,), winner))
    assert torch.equal(confusion.sum_KK - confusion.sum_KK.diag().diag(), before)
    # With means in place of sums, the same temperature gives no curriculum at all.
    means = literal_policy(confusion.mean().nan_to_num(0) / 56, 2.0)
    assert (means * 57 - 1).abs().max() < 0.05
    corrected = confusion_policy(confusion.mean(), 2.0, 0.1)
    assert 1.5 / 57 < corrected.max() < 0.2
    assert corrected.min() >= 0.1 / 57


def test_the_rule_as_written_by_hand() -> None:
    sum_KK = torch.tensor([[9.0, 1.0, 3.0], [1.0, 5.0, 0.0], [3.0, 0.0, 7.0]])
    close(literal_policy(sum_KK, 2.0), torch.tensor([4.0, 1.0, 3.0], dtype=torch.float64).div(2).softmax(-1))


def test_the_rule_as_written_survives_huge_sums() -> None:
    p_K = literal_policy(torch.tensor([[0.0, 1e6], [1e6 - 1000, 0.0]]), 2.0)
    assert p_K.tolist() == [1.0, pytest.approx(0.0, abs=1e-100)]
