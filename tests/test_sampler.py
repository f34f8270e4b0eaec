"""Batches: their shape, their odds, their passes over the questions, and that nothing else decides a draw."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import chisquare

from accl.data.sampler import Draw, TaskSampler
from accl.errors import ConfigError

Pools = list[NDArray[np.int64]]
ACCEPT = 1e-4  # of a chi-square test; the seeds are fixed, so it passes always or never


def pools_of(sizes: list[int]) -> Pools:
    """Positions dealt out so that a task's are not in a row: task t of K has t, t + K, t + 2K, ..."""
    tasks = len(sizes)
    return [np.arange(size, dtype=np.int64) * tasks + task for task, size in enumerate(sizes)]


def sampler(
    sizes: list[int],
    batch_size: int,
    questions_per_task: int | None,
    *,
    seed: int = 0,
    permute: bool = True,
    auxiliary: NDArray[np.int64] | None = None,
    auxiliary_questions: int = 0,
    max_repeats: float | None = None,
    steps_per_epoch: int | None = None,
) -> TaskSampler:
    return TaskSampler(
        pools_of(sizes),
        batch_size=batch_size,
        questions_per_task=questions_per_task,
        seed=seed,
        choices=4,
        permute_options=permute,
        auxiliary=auxiliary,
        auxiliary_questions=auxiliary_questions,
        max_repeats=max_repeats,
        steps_per_epoch=steps_per_epoch,
    )


def tasks_of(draw: Draw, tasks: int) -> list[int]:
    return [int(q) % tasks for q in draw.questions]


def same(a: Draw, b: Draw) -> bool:
    return np.array_equal(a.questions, b.questions) and np.array_equal(a.option_order, b.option_order)


SIZES = st.lists(st.integers(0, 9), min_size=1, max_size=8).filter(any)
SEEDS = st.integers(0, 2**31)


def weights_of(data: st.DataObject, sizes: list[int]) -> NDArray[np.float64]:
    """Any weights, zeros and near-zeros among them, that leave something to a task with questions."""
    weights = data.draw(
        st.lists(st.sampled_from([0.0, 1e-320, 1e-12, 0.1, 1.0]), min_size=len(sizes), max_size=len(sizes)).filter(
            lambda w: sum(p for p, size in zip(w, sizes, strict=True) if size) > 1e-13
        )
    )
    return np.array(weights) / sum(weights)


# --- shape


@settings(max_examples=100, deadline=None)
@given(data=st.data(), sizes=SIZES, per_task=st.integers(1, 5), seed=SEEDS)
def test_a_batch_is_always_distinct_tasks_times_questions_of_each(
    data: st.DataObject, sizes: list[int], per_task: int, seed: int
) -> None:
    tasks = data.draw(st.integers(1, sum(map(bool, sizes))))
    weights = weights_of(data, sizes)
    drawing = sampler(sizes, tasks * per_task, per_task, seed=seed)
    for step in range(4):
        drawn = tasks_of(drawing.draw(step, weights), len(sizes))
        blocks = [drawn[i : i + per_task] for i in range(0, len(drawn), per_task)]
        assert all(len(set(block)) == 1 for block in blocks)
        assert len({block[0] for block in blocks}) == tasks
        assert all(sizes[task] for task in drawn)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), sizes=SIZES, batch_size=st.integers(1, 12), seed=SEEDS)
def test_independent_draws_take_only_tasks_with_weight_and_questions(
    data: st.DataObject, sizes: list[int], batch_size: int, seed: int
) -> None:
    weights = weights_of(data, sizes)
    drawing = sampler(sizes, batch_size, None, seed=seed)
    for step in range(4):
        drawn = tasks_of(drawing.draw(step, weights), len(sizes))
        assert len(drawn) == batch_size
        assert all(sizes[task] and weights[task] > 0 for task in drawn)


@settings(max_examples=40, deadline=None)
@given(sizes=SIZES, seed=SEEDS, permute=st.booleans())
def test_every_question_has_its_own_order_of_options(sizes: list[int], seed: int, permute: bool) -> None:
    drawing = sampler(sizes, 40, None, seed=seed, permute=permute)
    order = drawing.draw(0, np.full(len(sizes), 1 / len(sizes))).option_order
    assert order.shape == (40, 4)
    assert (np.sort(order, axis=1) == np.arange(4)).all()
    assert len({tuple(row) for row in order.tolist()}) == 1 or permute
    if permute:
        assert len({tuple(row) for row in order.tolist()}) > 5
    else:
        assert (order == np.arange(4)).all()


def test_all_orders_of_the_options_are_equally_likely() -> None:
    drawing = sampler([5, 5], 480, None, seed=3)
    rows = np.concatenate([drawing.draw(step, np.array([0.5, 0.5])).option_order for step in range(10)])
    counts = Counter(tuple(row) for row in rows.tolist())
    assert len(counts) == 24
    assert chisquare(list(counts.values())).pvalue > ACCEPT


# --- odds

WEIGHTS = np.array([0.4, 0.3, 0.15, 0.1, 0.05, 0.0])


@pytest.mark.parametrize("tasks_per_batch", [1, 3])
def test_the_first_task_of_a_batch_is_drawn_by_the_weights(tasks_per_batch: int) -> None:
    drawing = sampler([7] * 6, 2 * tasks_per_batch, 2, seed=1)
    first = Counter(tasks_of(drawing.draw(step, WEIGHTS), 6)[0] for step in range(4000))
    assert 5 not in first
    assert chisquare([first[t] for t in range(5)], 4000 * WEIGHTS[:5]).pvalue > ACCEPT


def test_the_second_task_is_drawn_by_the_weights_of_those_left() -> None:
    drawing = sampler([7] * 6, 4, 2, seed=2)
    pairs = Counter(tuple(tasks_of(drawing.draw(step, WEIGHTS), 6)[::2]) for step in range(4000))
    expected = {(a, b): 4000 * WEIGHTS[a] * WEIGHTS[b] / (1 - WEIGHTS[a]) for a in range(5) for b in range(5) if a != b}
    assert set(pairs) <= set(expected)
    assert chisquare([pairs[k] for k in expected], list(expected.values())).pvalue > ACCEPT


def test_independent_draws_follow_the_weights() -> None:
    drawing = sampler([7] * 6, 16, None, seed=3)
    drawn = Counter(task for step in range(400) for task in tasks_of(drawing.draw(step, WEIGHTS), 6))
    assert 5 not in drawn
    assert chisquare([drawn[t] for t in range(5)], 6400 * WEIGHTS[:5]).pvalue > ACCEPT


def test_what_an_empty_task_would_have_had_goes_to_the_others_by_their_weights() -> None:
    sizes = [0, 7, 7, 7]
    weights = np.array([0.7, 0.2, 0.06, 0.04])
    for per_task in (None, 1):
        drawing = sampler(sizes, 1, per_task, seed=4)
        drawn = Counter(tasks_of(drawing.draw(step, weights), 4)[0] for step in range(3000))
        assert 0 not in drawn
        assert chisquare([drawn[t] for t in (1, 2, 3)], 3000 * weights[1:] / 0.3).pvalue > ACCEPT


def test_weights_need_not_sum_to_1() -> None:
    one, other = sampler([5] * 4, 4, 2), sampler([5] * 4, 4, 2)
    weights = np.array([0.1, 0.2, 0.3, 0.4])
    for step in range(20):
        assert same(one.draw(step, weights), other.draw(step, weights * 50))


def test_collapsed_weights_still_leave_the_other_places_to_other_tasks() -> None:
    """The winner is always there; the rest are drawn evenly, as far as they have questions."""
    drawing = sampler([5, 5, 0, 5, 5], 6, 2, seed=5)
    others: Counter[int] = Counter()
    for step in range(1500):
        tasks = tasks_of(drawing.draw(step, np.array([0, 1.0, 0, 0, 0])), 5)[::2]
        assert tasks[0] == 1
        others.update(tasks[1:])
    assert set(others) == {0, 3, 4}
    assert chisquare(list(others.values())).pvalue > ACCEPT
    alone = sampler([5, 5, 0, 5, 5], 6, None, seed=5)
    assert tasks_of(alone.draw(0, np.array([0, 1.0, 0, 0, 0])), 5) == [1] * 6


# --- passes


@settings(max_examples=40, deadline=None)
@given(sizes=SIZES, seed=SEEDS, per_task=st.sampled_from([None, 1, 3]))
def test_no_question_comes_twice_before_all_of_its_task_have_come(
    sizes: list[int], seed: int, per_task: int | None
) -> None:
    drawing = sampler(sizes, per_task or 3, per_task, seed=seed)
    seen: list[list[int]] = [[] for _ in sizes]
    for step in range(40):
        for question in drawing.draw(step, np.ones(len(sizes))).questions.tolist():
            seen[question % len(sizes)].append(question)
    assert drawing.drawn.tolist() == [len(questions) for questions in seen]
    for pool, questions in zip(pools_of(sizes), seen, strict=True):
        for start in range(0, len(questions), max(len(pool), 1)):
            one_pass = questions[start : start + len(pool)]
            assert len(set(one_pass)) == len(one_pass)
            if len(one_pass) == len(pool):
                assert sorted(one_pass) == pool.tolist()


def test_every_pass_has_an_order_of_its_own() -> None:
    drawing = sampler([30, 30], 30, None)
    passes = {tuple(drawing.draw(step, np.array([1.0, 0.0])).questions.tolist()) for step in range(4)}
    assert len(passes) == 4
    assert len({frozenset(one) for one in passes}) == 1


def test_tasks_shuffle_independently() -> None:
    drawing = sampler([30, 30], 60, 30)
    draw = drawing.draw(0, np.array([0.5, 0.5])).questions
    one, other = draw[:30] // 2, draw[30:] // 2
    assert sorted(one) == sorted(other)
    assert not np.array_equal(one, other)


# --- nothing else decides


@settings(max_examples=40, deadline=None)
@given(data=st.data(), sizes=SIZES, seed=SEEDS, per_task=st.sampled_from([None, 1, 2]), stop=st.integers(0, 12))
def test_a_resumed_run_draws_what_an_uninterrupted_one_would_have(
    data: st.DataObject, sizes: list[int], seed: int, per_task: int | None, stop: int
) -> None:
    auxiliary = np.arange(1000, 1005)
    batch_size = min(2, sum(map(bool, sizes))) * (per_task or 1)
    weights = [weights_of(data, sizes) for _ in range(3)]

    def fresh() -> TaskSampler:
        return sampler(sizes, batch_size, per_task, seed=seed, auxiliary=auxiliary, auxiliary_questions=3)

    whole = fresh()
    first = [whole.draw(step, weights[step % 3]) for step in range(stop)]
    state = whole.state()
    assert all(type(n) is int for n in state)  # for JSON
    expected = [whole.draw(step, weights[step % 3]) for step in range(stop, stop + 8)]
    resumed = fresh()
    resumed.restore(state)
    assert resumed.state() == state
    # One that has drawn something else before is none the wiser.
    rewound = fresh()
    for step in range(50, 55):
        rewound.draw(step, np.ones(len(sizes)))
    rewound.restore(state)
    for step, draw in zip(range(stop, stop + 8), expected, strict=True):
        for each in (resumed, rewound):
            assert same(each.draw(step, weights[step % 3]), draw)
    assert resumed.state() == whole.state()
    again = fresh()
    assert all(same(again.draw(step, weights[step % 3]), draw) for step, draw in enumerate(first))


def test_what_was_given_and_handed_out_is_not_shared() -> None:
    drawing = sampler([5, 5], 2, None)
    drawing.drawn[:] = 99
    given_state = np.array([1, 2, 0])
    drawing.restore(given_state)  # type: ignore[arg-type]
    drawing.draw(0, np.array([0.5, 0.5]))
    assert given_state.tolist() == [1, 2, 0]
    assert sum(drawing.state()) == 5
    weights = np.array([0.2, 0.6])
    drawing.draw(1, weights)
    assert weights.tolist() == [0.2, 0.6]


@pytest.mark.parametrize("per_task", [None, 2])
def test_seed_and_step_each_make_a_difference(per_task: int | None) -> None:
    weights = np.full(6, 1 / 6)

    def first(seed: int, step: int) -> Draw:
        return sampler([9] * 6, 8, per_task, seed=seed).draw(step, weights)

    assert same(first(1, 5), first(1, 5))
    assert not same(first(1, 5), first(2, 5))
    assert not same(first(1, 5), first(1, 6))


def test_draws_are_those_of_the_formula_to_the_last_bit() -> None:
    """Seeds are published with results: whoever draws again with another version gets the same questions."""
    pools, rng = pools_of([0, 5, 7, 2, 9]), np.random.default_rng(0)
    drawing, drawn = sampler([0, 5, 7, 2, 9], 6, 2, seed=7), [0] * 5
    for step in range(1, 20):
        weights = rng.random(5) if step % 3 else np.array([0.5, 0.0, 0.5, 0.0, 0.0])
        p = np.where([0, 1, 1, 1, 1], weights, 0.0)
        rng_of_step = np.random.default_rng([7, 1, step])
        key = np.log(np.maximum(p / p.sum(), 1e-300)) + rng_of_step.gumbel(size=5)
        key[0] = -np.inf
        questions = []
        for task in np.repeat(np.argsort(-key, kind="stable")[:3], 2):
            number, position = divmod(drawn[task], len(pools[task]))
            drawn[task] += 1
            questions.append(np.random.default_rng([7, 2, task, number]).permutation(pools[task])[position])
        order = rng_of_step.permuted(np.tile(np.arange(4), (6, 1)), axis=1)
        assert same(drawing.draw(step, weights), Draw(np.array(questions), order))
        assert drawing.drawn.tolist() == drawn


# --- auxiliary questions


def test_auxiliary_questions_join_every_batch_in_passes_of_their_own() -> None:
    auxiliary = np.arange(1000, 1010)
    drawing = sampler([6, 6, 6], 4, 2, auxiliary=auxiliary, auxiliary_questions=5)
    plain = sampler([6, 6, 6], 4, 2)
    seen: list[int] = []
    for step in range(4):
        draw = drawing.draw(step, np.ones(3))
        assert draw.option_order.shape == (9, 4)
        assert draw.questions[:4].tolist() == plain.draw(step, np.ones(3)).questions.tolist()
        seen += draw.questions[4:].tolist()
    assert sorted(seen[:10]) == sorted(seen[10:]) == auxiliary.tolist()
    assert seen[:10] != seen[10:]
    assert drawing.drawn.tolist() == plain.drawn.tolist()  # of tasks only
    assert drawing.state() == [*plain.drawn.tolist(), 20]


def test_without_auxiliary_questions_none_are_drawn() -> None:
    assert len(sampler([6, 6], 4, 2, auxiliary_questions=5).draw(0, np.ones(2)).questions) == 4


# --- errors


@pytest.mark.parametrize(("batch_size", "per_task"), [(16, 1), (16, 2), (12, 2), (14, 2)])
def test_too_few_tasks_for_a_batch_is_an_error_whose_suggestion_works(batch_size: int, per_task: int) -> None:
    sizes = [4, 0, 4, 4, 4, 4]  # five with questions
    with pytest.raises(ConfigError) as error:
        sampler(sizes, batch_size, per_task)
    assert f"batch of {batch_size // per_task} tasks x {per_task} questions" in error.value.what
    assert "than the 5 with training questions" in error.value.what
    match = re.search(r"--set sampler\.questions_per_task=(\d+)", error.value.hint)
    assert match is not None
    suggested = int(match[1])
    assert batch_size % suggested == 0
    assert len(sampler(sizes, batch_size, suggested).draw(0, np.ones(6)).questions) == batch_size


def test_a_batch_may_use_every_task_there_is() -> None:
    drawing = sampler([4, 0, 4, 1], 6, 2)
    assert sorted(set(tasks_of(drawing.draw(0, np.ones(4)), 4))) == [0, 2, 3]
