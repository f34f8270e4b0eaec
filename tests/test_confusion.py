"""Task confusion against loops, and what its mean must not depend on."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from accl.method.confusion import (
    PrototypeConfusion,
    TaskConfusion,
    mean_similarity,
    nearest_tasks,
    pair_similarities,
    prototype_confusion,
    task_confusion,
)

TASKS = st.lists(st.integers(-1, 4), max_size=14)


def features(count: int, seed: int, dim: int = 6) -> Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)) * 3


def by_loops(e: Tensor, task: list[int], tasks: int) -> tuple[Tensor, Tensor]:
    """One pair at a time, in float64."""
    rows = e.double().tolist()
    total = torch.zeros(tasks, tasks, dtype=torch.float64)
    count = torch.zeros(tasks, tasks, dtype=torch.float64)
    for a in range(len(task)):
        for b in range(len(task)):
            if a == b or task[a] < 0 or task[b] < 0:
                continue
            dot = sum(x * y for x, y in zip(rows[a], rows[b], strict=True))
            total[task[a], task[b]] += max(0.0, dot / (math.hypot(*rows[a]) * math.hypot(*rows[b])))
            count[task[a], task[b]] += 1
    return total, count


def close(result: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(result.double(), expected.double(), rtol=1e-5, atol=1e-6, equal_nan=True)


@settings(max_examples=50, deadline=None)
@given(task=TASKS, more=st.integers(0, 3), seed=st.integers(0, 999))
def test_sums_and_counts_equal_loops_over_all_pairs(task: list[int], more: int, seed: int) -> None:
    tasks = 5 + more  # tasks that never occur are rows of zeros
    e = features(len(task), seed)
    sum_KK, count_KK = pair_similarities(e, torch.tensor(task, dtype=torch.long), tasks)
    total, count = by_loops(e, task, tasks)
    close(sum_KK, total)
    assert torch.equal(count_KK.double(), count)
    assert torch.equal(sum_KK, sum_KK.T)
    assert torch.equal(count_KK, count_KK.T)
    assert sum_KK.dtype == count_KK.dtype == torch.float32


def test_it_does_not_depend_on_length_precision_or_autocast_and_has_no_gradient() -> None:
    e = features(6, 1).bfloat16().requires_grad_()
    task = torch.tensor([0, 0, 1, 1, 2, -1])
    plain, _ = pair_similarities(e.detach().float() * 7, task, 3)
    with torch.autocast("cpu", torch.bfloat16):
        mixed, _ = pair_similarities(e, task, 3)
    close(mixed, plain)
    assert not mixed.requires_grad


def test_opposite_embeddings_count_as_a_pair_of_no_similarity() -> None:
    e = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 2.0]])
    confusion = TaskConfusion(3, None)
    confusion.observe(e, torch.tensor([0, 1, 0]))
    assert confusion.sum_KK.tolist() == [[0, 0, 0]] * 3
    assert confusion.count_KK.tolist() == [[2, 2, 0], [2, 0, 0], [0, 0, 0]]
    nan = math.nan
    close(confusion.mean(), torch.tensor([[0.0, 0.0, nan], [0.0, nan, nan], [nan, nan, nan]]))


@settings(max_examples=30, deadline=None)
@given(batches=st.lists(TASKS, max_size=4), seed=st.integers(0, 999))
def test_without_forgetting_it_is_the_sum_over_batches(batches: list[list[int]], seed: int) -> None:
    confusion = TaskConfusion(5, None)
    total, count = torch.zeros(5, 5, dtype=torch.float64), torch.zeros(5, 5, dtype=torch.float64)
    for number, task in enumerate(batches):
        e = features(len(task), seed + number)
        confusion.observe(e, torch.tensor(task, dtype=torch.long))
        more, pairs = by_loops(e, task, 5)
        total, count = total + more, count + pairs
    close(confusion.sum_KK, total)
    assert torch.equal(confusion.count_KK.double(), count)
    close(confusion.mean(), total / count)  # 0/0 is NaN: never observed
    assert torch.equal(confusion.mean().isnan(), count == 0)


def test_an_observation_counts_half_after_its_half_life() -> None:
    confusion = TaskConfusion(2, half_life=4)
    confusion.observe(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([0, 1]))
    nothing = torch.zeros(0, 2), torch.zeros(0, dtype=torch.long)
    for _ in range(4):
        confusion.observe(*nothing)
    expected = torch.tensor([[0, 0.5], [0.5, 0]])
    close(confusion.sum_KK, expected)
    close(confusion.count_KK, expected)
    assert confusion.mean()[0, 1].item() == pytest.approx(1)  # forgetting alone does not change the mean
    confusion.observe(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 1]))
    keep = 0.5 ** (5 / 4)
    assert confusion.mean()[0, 1].item() == pytest.approx(keep / (keep + 1), rel=1e-5)


def test_the_mean_does_not_depend_on_how_often_a_task_was_drawn_and_the_sum_does() -> None:
    """Every task has one direction, so that there is no noise: only the frequency of drawing differs."""
    direction = torch.nn.functional.normalize(features(4, 2).abs(), dim=-1)
    exact = (direction @ direction.T).clamp(min=0)

    def observed(frequency: list[float]) -> TaskConfusion:
        confusion = TaskConfusion(4, None)
        generator = torch.Generator().manual_seed(3)
        for _ in range(200):
            task = torch.multinomial(
                torch.tensor(frequency, dtype=torch.float), 8, replacement=True, generator=generator
            )
            confusion.observe(direction[task], task)
        return confusion

    even, skewed = observed([1, 1, 1, 1]), observed([20, 2, 1, 1])
    torch.testing.assert_close(even.mean(), exact, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(skewed.mean(), exact, rtol=1e-4, atol=1e-5)

    def share(confusion: TaskConfusion) -> float:  # of the first task in the summed rows
        off = confusion.sum_KK - confusion.sum_KK.diag().diag()
        return (off[0].sum() / off.sum()).item()

    assert share(skewed) > share(even) + 0.1


def test_it_is_part_of_the_checkpoint() -> None:
    confusion, other = TaskConfusion(3, 10.0), TaskConfusion(3, 10.0)
    task = torch.tensor([0, 1, 2, 0])
    confusion.observe(features(4, 4), task)
    other.load_state_dict(confusion.state_dict())
    for each in (confusion, other):
        each.observe(features(4, 5), task)
    assert torch.equal(confusion.mean().nan_to_num(-1), other.mean().nan_to_num(-1))


# --- over a whole split


@settings(max_examples=40, deadline=None)
@given(task=TASKS, rows=st.integers(1, 16), tasks=st.integers(5, 7), seed=st.integers(0, 999))
def test_whole_split_similarity_is_the_same_in_chunks_at_once_and_by_loops(
    task: list[int], rows: int, tasks: int, seed: int
) -> None:
    e, task_N = features(len(task), seed), torch.tensor(task, dtype=torch.long)
    total, count = by_loops(e, task, tasks)
    for chunk in (rows, 2048):
        mean_KK, count_KK = mean_similarity(e, task_N, tasks, rows=chunk)
        close(mean_KK, total / count)
        assert torch.equal(count_KK.double(), count)
        assert torch.equal(mean_KK.nan_to_num(-1), mean_KK.T.nan_to_num(-1))


def test_one_batch_of_everything_observes_what_the_whole_split_has() -> None:
    e, task = features(30, 6), torch.arange(30) % 7
    confusion = TaskConfusion(7, None)
    confusion.observe(e, task)
    mean_KK, count_KK = mean_similarity(e, task, 7, rows=8)
    close(confusion.mean(), mean_KK)
    assert torch.equal(confusion.count_KK, count_KK)


# --- per task


def test_a_tasks_confusion_is_the_plain_mean_over_other_observed_tasks() -> None:
    nan = math.nan
    mean_KK = torch.tensor([[0.9, 0.2, 0.4, nan], [0.2, 0.9, nan, nan], [0.4, nan, nan, nan], [nan, nan, nan, 0.9]])
    kept = mean_KK.clone()
    close(task_confusion(mean_KK), torch.tensor([0.3, 0.2, 0.4, nan]))
    assert torch.equal(mean_KK.nan_to_num(-1), kept.nan_to_num(-1))  # the matrix is left alone


@pytest.mark.parametrize("tasks", [1, 2, 5, 57, 100])
def test_any_number_of_tasks_works(tasks: int) -> None:
    task = torch.arange(2 * tasks) % tasks
    confusion = TaskConfusion(tasks, 5.0)
    confusion.observe(features(2 * tasks, 7), task)
    assert confusion.mean().shape == (tasks, tasks)
    assert not confusion.mean().isnan().any()
    c_K = task_confusion(confusion.mean())
    assert c_K.shape == (tasks,)
    assert c_K.isnan().all() == (tasks == 1)  # a single task has no other to be confused with


# --- nearest prototype


def by_nearest_prototype(batches: list[tuple[Tensor, list[int]]], tasks: int, keep: float) -> tuple[Tensor, Tensor]:
    """One question at a time, in float64: shares and counts."""
    sums: dict[int, Tensor] = {}
    nearest = torch.zeros(tasks, tasks, dtype=torch.float64)
    count = torch.zeros(tasks, tasks, dtype=torch.float64)
    for e, task in batches:
        unit = torch.nn.functional.normalize(e.double(), dim=-1)
        nearest, count = nearest * keep, count * keep
        for row, t in zip(unit, task, strict=True):
            if t in sums:
                cosine = {s: float(row @ p / p.norm()) for s, p in sums.items()}
                nearest[t, max(cosine, key=lambda s: cosine[s])] += 1
                count[t, list(sums)] += 1
        sums = {t: p * keep for t, p in sums.items()}
        for row, t in zip(unit, task, strict=True):
            if t >= 0:
                sums[t] = sums.get(t, torch.zeros_like(row)) + row
    share = nearest / nearest.sum(-1, keepdim=True)
    return torch.where(count > 0, share, math.nan), count


@settings(max_examples=40, deadline=None)
@given(batches=st.lists(TASKS, max_size=5), half_life=st.sampled_from([None, 2.0]), seed=st.integers(0, 999))
def test_streaming_prototypes_equal_loops_over_questions(
    batches: list[list[int]], half_life: float | None, seed: int
) -> None:
    confusion = PrototypeConfusion(5, 6, half_life)
    given_ = [(features(len(task), seed + i), task) for i, task in enumerate(batches)]
    for e, task in given_:
        confusion.observe(e, torch.tensor(task, dtype=torch.long))
    share, count = by_nearest_prototype(given_, 5, confusion.keep)
    close(confusion.share(), share)
    close(confusion.count_KK, count)
    rows = confusion.share().nansum(-1)
    close(rows, (count.sum(-1) > 0).double())


@settings(max_examples=40, deadline=None)
@given(task=TASKS, tasks=st.integers(5, 7), seed=st.integers(0, 999))
def test_whole_split_prototypes_leave_the_question_itself_out(task: list[int], tasks: int, seed: int) -> None:
    e = features(len(task), seed)
    unit = torch.nn.functional.normalize(e.double(), dim=-1)
    nearest = torch.zeros(tasks, tasks, dtype=torch.float64)
    for a, t in enumerate(task):
        others = {s: [unit[b] for b in range(len(task)) if b != a and task[b] == s] for s in range(tasks) if t >= 0}
        cosine = {
            s: float(unit[a] @ torch.nn.functional.normalize(sum(v, torch.zeros(6)), dim=-1))
            for s, v in others.items()
            if v
        }
        if t in cosine:
            nearest[t, max(cosine, key=lambda s: cosine[s])] += 1
    share_KK, count_KK = prototype_confusion(e, torch.tensor(task, dtype=torch.long), tasks)
    sizes = torch.tensor([task.count(t) for t in range(tasks)])
    seen = (sizes > 1)[:, None] & (sizes > 0)
    close(share_KK, torch.where(seen, nearest / sizes[:, None], math.nan))
    close(count_KK, torch.where(seen, sizes[:, None], 0))
    for a, row in enumerate(nearest_tasks(e, torch.tensor(task, dtype=torch.long), tasks, 2)):
        means = {s: sum(unit[b] for b in range(len(task)) if task[b] == s) for s in {*task} - {task[a], -1}}
        cosines = [float(unit[a] @ torch.nn.functional.normalize(mean, dim=-1)) for mean in means.values()]
        found = [float(unit[a] @ torch.nn.functional.normalize(means[s], dim=-1)) for s in row]
        assert found == pytest.approx(sorted(cosines, reverse=True)[:2], abs=1e-5)


def test_separate_tasks_are_told_apart_and_twins_are_taken_for_each_other() -> None:
    generator = torch.Generator().manual_seed(8)
    direction = torch.eye(12)[[0, 1, 2, 2]]  # tasks 2 and 3 are one
    streaming = PrototypeConfusion(4, 12, 20)
    for _ in range(100):
        task = torch.randperm(4, generator=generator)
        streaming.observe(direction[task] + 0.1 * torch.randn(4, 12, generator=generator), task)
    task = torch.arange(400) % 4
    whole, count = prototype_confusion(direction[task] + 0.1 * torch.randn(400, 12, generator=generator), task, 4)
    for share in (streaming.share(), whole):
        assert share[0, 0] == share[1, 1] == 1
        assert 0.3 < share[2, 3] < 0.7
        assert 0.3 < share[3, 2] < 0.7
    assert (count == 100).all()


def test_prototypes_are_part_of_the_checkpoint_and_do_not_depend_on_length_or_autocast() -> None:
    one, other = PrototypeConfusion(3, 6, 10.0), PrototypeConfusion(3, 6, 10.0)
    task = torch.tensor([0, 1, 2, 0, -1])
    one.observe(features(5, 4), task)
    other.load_state_dict(one.state_dict())
    one.observe(features(5, 5), task)
    with torch.autocast("cpu", torch.bfloat16):
        other.observe(features(5, 5) * 9, task)
    close(one.share(), other.share())
    assert not one.share().isnan().any()


def test_literal_totals_are_masked_where_no_pair_was_seen() -> None:
    confusion = TaskConfusion(3, None)
    confusion.observe(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 1]))
    nan = math.nan
    close(confusion.total(), torch.tensor([[nan, 0, nan], [0, nan, nan], [nan, nan, nan]]))
