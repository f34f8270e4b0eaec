"""Runs grouped into arms by their configurations, compared over whatever seeds they have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from factory import finished_run

from accl.analysis.arms import ArmsComparison, compare_arms
from accl.analysis.crossed import difference_over_seeds
from accl.analysis.grouping import Arm, differing_keys, group_runs, in_order
from accl.analysis.power import seeds_needed
from accl.analysis.results import read_results
from accl.store.rundir import RunDir

N = 120


def grouped(runs: list[RunDir]) -> list[Arm]:
    setups = [run.setup() for run in runs]
    return group_runs([(s.recipe, s.seed, run.config_text()) for s, run in zip(setups, runs, strict=True)])


def compared(runs: list[RunDir], reference: str = "baseline") -> ArmsComparison:
    return compare_arms(grouped(runs), reference, {i: read_results(run) for i, run in enumerate(runs)})


def right(share: float, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random(N) < share


def test_seeds_of_a_recipe_are_one_arm_and_other_configurations_are_others(tmp_path: Path) -> None:
    runs = [finished_run(tmp_path, "full", seed=seed, curves=False) for seed in (2, 1)]
    runs += [finished_run(tmp_path, "full", seed=1, curves=False, overrides=["optim.lr=0.5"])]
    runs += [finished_run(tmp_path, "baseline", seed=1, curves=False)]
    arms = grouped(runs)
    assert [arm.members for arm in arms] == [(1, 0), (2,), (3,)], "by seed"
    assert [arm.label for arm in arms][1:] == ["full lr=0.5", "baseline"]
    assert arms[0].label.startswith("full lr=")
    assert differing_keys(arms[:2]) == ["optim.lr"]
    assert "curriculum.policy" in differing_keys(arms)


def test_numbers_in_labels_are_written_as_they_were_typed(tmp_path: Path) -> None:
    runs = [finished_run(tmp_path, overrides=[f"train.max_steps={steps}"], curves=False) for steps in (40, 1000)]
    arms = group_runs([("baseline", 42, run.config_text()) for run in runs])
    assert [arm.label for arm in arms] == ["baseline max_steps=40", "baseline max_steps=1000"]


def test_a_run_that_is_tested_later_is_of_the_same_arm(tmp_path: Path) -> None:
    runs = [finished_run(tmp_path, seed=1, curves=False)]
    runs += [finished_run(tmp_path, seed=2, curves=False, overrides=["eval.test=false"])]
    assert [(arm.label, arm.members) for arm in grouped(runs)] == [("baseline", (0, 1))]


def test_configurations_that_cannot_be_read_are_never_one_arm() -> None:
    arms = group_runs([("full", 1, "rubbish"), ("full", 2, "other"), ("full", 3, "rubbish")])
    assert [arm.members for arm in arms] == [(0, 2), (1,)]
    assert len({arm.label for arm in arms}) == 2


def test_the_reference_is_the_baseline_or_the_oldest() -> None:
    arms = group_runs([("full", 1, ""), ("contrastive", 1, "")])
    assert in_order(arms, [2.0, 1.0])[0].label == "contrastive"
    assert in_order([*arms, *group_runs([("baseline", 1, "")])], [2.0, 1.0])[0].label == "baseline"


def test_several_seeds_are_compared_over_seeds_and_questions(tmp_path: Path) -> None:
    before, after = [right(0.5, s) for s in (1, 2, 3)], [right(0.7, s + 10) for s in (1, 2, 3)]
    runs = [finished_run(tmp_path, "baseline", seed=i, correct=x, curves=False) for i, x in enumerate(before)]
    runs += [finished_run(tmp_path, "full", seed=i, correct=x, curves=False) for i, x in enumerate(after)]
    result = compared(runs)
    score = result.scores["full"]
    expected = difference_over_seeds(np.stack(before), np.stack(after))
    assert score.difference == expected
    assert score.deltas == pytest.approx(expected.per_seed)
    assert score.p_holm == expected.p
    assert [flip.gains - flip.losses for flip in score.flips] == [round(d * N) for d in score.deltas]
    assert sum(task.n for task in score.tasks) == N
    assert sum(task.delta * task.n for task in score.categories) == pytest.approx(expected.delta * N)
    assert result.scores["baseline"].difference is None


def test_only_seeds_that_both_have_are_paired_and_one_pair_is_compared_by_questions(tmp_path: Path) -> None:
    runs = [finished_run(tmp_path, "baseline", seed=s, curves=False) for s in (1, 2)]
    runs += [finished_run(tmp_path, "full", seed=s, curves=False) for s in (2, 3)]
    score = compared(runs).scores["full"]
    assert [(flip.before, flip.run) for flip in score.flips] == [(1, 2)]
    assert score.seeds_needed is None
    assert any("Train three to five seeds" in note for note in compared(runs).notes)
    apart = compared([runs[0], runs[3]])
    assert any("share no seed" in note for note in apart.notes)


def test_a_run_with_other_questions_is_left_out_and_the_others_are_compared(tmp_path: Path) -> None:
    runs = [finished_run(tmp_path, "baseline", curves=False), finished_run(tmp_path, "full", curves=False)]
    runs.append(finished_run(tmp_path, "contrastive", questions=60, curves=False))
    result = compared(runs)
    assert set(result.scores) == {"baseline", "full"}
    assert "different test questions" in str(result.problems[2])
    without_reference = compare_arms(grouped(runs), "contrastive", {0: read_results(runs[0])})
    assert without_reference.scores["baseline"].difference is None, "the reference has no results"


def _simulated(generator: np.random.Generator, seeds: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw answers of two arms whose accuracies vary by seed with a standard deviation of 2 points."""
    chance = np.clip(generator.normal(0.7, 0.02, (2, seeds, 1)), 0, 1)
    return tuple(generator.random((2, seeds, n)) < chance)  # type: ignore[return-value]


def test_the_seeds_needed_give_such_an_interval_when_they_are_simulated() -> None:
    generator, n = np.random.default_rng(1), 2000
    needed = [seeds_needed(*_simulated(generator, 20, n), half_width=0.015) for _ in range(15)]
    count = int(np.median([number for number in needed if number]))

    def width(seeds: int) -> float:
        found = [difference_over_seeds(*_simulated(generator, seeds, n)) for _ in range(15)]
        return float(np.median([(d.high - d.low) / 2 for d in found]))

    assert width(count) == pytest.approx(0.015, rel=0.15)
    assert width(count // 2) > 0.015 * 1.2


def test_no_number_of_seeds_is_enough_where_the_questions_alone_leave_more() -> None:
    question = np.random.default_rng(0).random(1000) < 0.5
    first, second = np.tile(question, (3, 1)), np.tile(~question, (3, 1))
    assert seeds_needed(first, second) == 0
    assert seeds_needed(first, first) == 2, "nothing differs at all"
    assert seeds_needed(first[:1], second[:1]) is None
