"""The cap on repeats: holds in every epoch, yields only where a batch needs it, and changes nothing else."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from test_sampler import ACCEPT, SEEDS, SIZES, same, sampler, tasks_of, weights_of

from accl.data.sampler import TaskSampler
from accl.errors import ConfigError


def cap_of(size: int, max_repeats: float, per_task: int | None) -> int:
    group = per_task or 1
    return math.ceil(max(math.ceil(max_repeats * size), 1) / group) * group


@settings(max_examples=80, deadline=None)
@given(
    data=st.data(),
    sizes=SIZES,
    seed=SEEDS,
    per_task=st.sampled_from([None, 1, 2, 3]),
    cap=st.sampled_from([0.3, 1, 2.5]),
)
def test_no_task_is_drawn_beyond_its_cap_in_an_epoch_unless_a_batch_needs_it(
    data: st.DataObject, sizes: list[int], seed: int, per_task: int | None, cap: float
) -> None:
    places = data.draw(st.integers(1, sum(map(bool, sizes))))
    batch_size = places * (per_task or 1)
    epoch = data.draw(st.integers(1, 6))
    weights = weights_of(data, sizes)
    drawing = sampler(sizes, batch_size, per_task, seed=seed, max_repeats=cap, steps_per_epoch=epoch)
    caps = [cap_of(size, cap, per_task) for size in sizes]
    drawn: Counter[int] = Counter()
    for step in range(1, 3 * epoch + 1):
        if (step - 1) % epoch == 0:
            drawn.clear()
        room = [t for t, size in enumerate(sizes) if size and drawn[t] < caps[t]]
        now = Counter(tasks_of(drawing.draw(step, weights), len(sizes)))
        assert sum(now.values()) == batch_size
        drawn += now
        over = [t for t in now if drawn[t] > caps[t]]
        if per_task is not None:
            assert set(now.values()) == {per_task}
            assert len(now) == places
            if len(room) >= places:
                assert not over
            else:
                assert set(room) <= set(now)  # the cap yields only the places that are left over
        elif over:
            assert all(weights[t] == 0 or drawn[t] >= caps[t] for t in range(len(sizes)) if sizes[t])


@settings(max_examples=40, deadline=None)
@given(data=st.data(), sizes=SIZES, seed=SEEDS, per_task=st.sampled_from([None, 1, 2]))
def test_a_cap_that_does_not_bind_changes_nothing(
    data: st.DataObject, sizes: list[int], seed: int, per_task: int | None
) -> None:
    batch_size = per_task or 2
    weights = weights_of(data, sizes)
    free = sampler(sizes, batch_size, per_task, seed=seed)
    capped = sampler(sizes, batch_size, per_task, seed=seed, max_repeats=10, steps_per_epoch=5)
    assert all(same(free.draw(step, weights), capped.draw(step, weights)) for step in range(1, 16))


@pytest.mark.parametrize("per_task", [None, 1])
def test_below_the_cap_tasks_share_by_their_weights_and_a_new_epoch_begins_afresh(per_task: int | None) -> None:
    sizes, weights = [2, 2000, 2000], np.array([0.9, 0.075, 0.025])
    drawing = sampler(sizes, 1, per_task, seed=6, max_repeats=5, steps_per_epoch=2000)
    for epoch in range(2):
        before = drawing.drawn
        for step in range(2000 * epoch + 1, 2000 * epoch + 2001):
            drawing.draw(step, weights)
        drawn = drawing.drawn - before
        assert drawn[0] == 10  # 5 x 2
        assert chisquare(drawn[1:], np.array([0.75, 0.25]) * 1990).pvalue > ACCEPT


@settings(max_examples=40, deadline=None)
@given(data=st.data(), sizes=SIZES, seed=SEEDS, per_task=st.sampled_from([None, 1, 2]), stop=st.integers(0, 12))
def test_a_resumed_run_knows_what_the_epoch_has_had(
    data: st.DataObject, sizes: list[int], seed: int, per_task: int | None, stop: int
) -> None:
    weights = weights_of(data, sizes)

    def fresh() -> TaskSampler:
        return sampler(
            sizes,
            2 * (per_task or 1) if sum(map(bool, sizes)) > 1 else per_task or 1,
            per_task,
            seed=seed,
            max_repeats=1,
            steps_per_epoch=7,
        )

    whole = fresh()
    for step in range(1, stop + 1):
        whole.draw(step, weights)
    state = whole.state()
    assert all(type(n) is int for n in state)  # for JSON
    resumed = fresh()
    for step in range(90, 95):
        resumed.draw(step, weights)
    resumed.restore(state)
    assert all(same(whole.draw(step, weights), resumed.draw(step, weights)) for step in range(stop + 1, stop + 20))
    assert resumed.state() == whole.state()


@pytest.mark.parametrize("per_task", [None, 1])
@pytest.mark.parametrize("weights", [[1.0, 0.0], [float("nan"), 1.0]])
def test_weights_that_leave_nothing_to_draw_are_an_error(per_task: int | None, weights: list[float]) -> None:
    with pytest.raises(ConfigError, match="No task with training questions has any weight"):
        sampler([0, 5], 1, per_task).draw(1, np.array(weights) if weights[0] == 1 else np.array([0.0, weights[0]]))
