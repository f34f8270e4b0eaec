"""Steps and questions to the reference's final validation accuracy."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from factory import finished_run
from scipy import stats as reference  # type: ignore[import-untyped]

from accl.analysis.efficiency import Training, read_training, sample_efficiency
from accl.analysis.results import read_setup
from accl.errors import AbsentError


def training(*accuracies: float, seed: int = 1, every: int = 100, batch_size: int = 16) -> Training:
    steps = tuple(every * (i + 1) for i in range(len(accuracies)))
    return Training(seed, f"run-{seed}", steps, accuracies, batch_size, 2.0, "cpu")


BASE = [training(0.3, 0.4, 0.45, 0.5), training(0.3, 0.35, 0.36, 0.4, seed=2), training(0.2, 0.4, 0.5, 0.6, seed=3)]
FAST = [training(0.4, 0.5, 0.55, 0.6), training(0.5, 0.35, 0.5, 0.5, seed=2), training(0.3, 0.5, 0.6, 0.5, seed=3)]


def test_an_arm_is_timed_to_the_final_accuracy_of_the_reference_seed_by_seed() -> None:
    found = sample_efficiency(BASE, FAST)
    assert [reach.step for reach in found.reference] == [400, 400, 400]
    assert [reach.target for reach in found.arm] == [0.5, 0.4, 0.6]
    assert [reach.step for reach in found.arm] == [200, 100, 300]  # the first at or above, whatever follows
    assert [reach.questions for reach in found.arm] == [3200, 1600, 4800]
    assert (found.steps, found.questions, found.reference_steps, found.delta) == (200, 3200, 400, -200)
    expected = reference.ttest_1samp([-200, -300, -100], 0)
    low, high = expected.confidence_interval(0.95)
    assert (found.low, found.high, found.p) == pytest.approx((low, high, expected.pvalue))
    assert not found.censored


def test_a_run_that_never_gets_there_is_censored_and_leaves_a_lower_bound() -> None:
    slow = [FAST[0], training(0.1, 0.2, 0.3, 0.35, 0.39, seed=2), FAST[2]]
    found = sample_efficiency(BASE, slow)
    assert found.censored
    assert found.reached == 2
    assert found.arm[1].words == "not reached by step 500"
    assert (found.arm[1].step, found.arm[1].questions) == (None, None)
    assert found.delta == pytest.approx((-200 + 100 - 100) / 3)
    assert found.low is not None
    assert (found.high, found.p) == (None, None)


def test_pairs_that_agree_leave_what_the_distance_between_validations_leaves() -> None:
    found = sample_efficiency([BASE[0]] * 4, [FAST[0]] * 4)
    assert found.delta == -200
    assert found.high == pytest.approx(-200 + reference.t.ppf(0.975, 3) * 100 / math.sqrt(6 * 4))
    alike = sample_efficiency(BASE, BASE)
    assert (alike.delta, alike.p) == (0.0, 1.0)


def test_a_single_pair_has_steps_but_no_interval() -> None:
    found = sample_efficiency(BASE[:1], FAST[:1])
    assert found.delta == -200
    assert (found.low, found.high, found.p) == (None, None, None)
    with pytest.raises(ValueError, match="cannot pair 2 with 1 runs"):
        sample_efficiency(BASE[:2], FAST[:1])


def test_the_curve_of_a_run_is_what_its_validations_recorded(tmp_path: Path) -> None:
    found = read_training(read_setup(finished_run(tmp_path, "full", seed=7, steps=200)))
    assert found.steps == (50, 100, 150, 200)
    assert found.accuracies == pytest.approx((0.375, 0.5, 0.625, 0.75), abs=0.01)
    assert (found.seed, found.batch_size, found.device, found.gap) == (7, 16, "cpu", 50)
    assert found.milliseconds_per_step is None


def test_a_run_without_validations_is_refused_with_what_sets_them(tmp_path: Path) -> None:
    with pytest.raises(AbsentError, match="recorded no validation") as caught:
        read_training(read_setup(finished_run(tmp_path, curves=False)))
    assert "eval.every" in caught.value.hint
