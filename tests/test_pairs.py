"""Hard pairs: which task pairs they are, and how arms do on their questions."""

from __future__ import annotations

from pathlib import Path

import duckdb
import numpy as np
import pytest
from factory import SIX_TASKS, finished_run

from accl.analysis.compare import compare
from accl.analysis.pairs import hard_pairs
from accl.store.reader import Task

TASKS = [Task(index, *row) for index, row in enumerate(SIX_TASKS)]
QUESTIONS = np.arange(60) % 6  # ten of each task


def similarity(**cells: float) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """0.1 everywhere off the diagonal but for ``t12=0.5``: cells (1, 2) and (2, 1)."""
    found = np.full((6, 6), 0.1)
    np.fill_diagonal(found, 0.99)
    for name, value in cells.items():
        i, j = int(name[1]), int(name[2])
        found[i, j] = found[j, i] = value
    return found


def test_the_top_decile_is_rounded_up_and_the_diagonal_is_no_pair() -> None:
    found = hard_pairs(TASKS, QUESTIONS, [similarity(t12=0.5, t45=0.7, t03=0.3)])
    assert found is not None
    assert found.observed == 15  # 6 * 5 / 2; a tenth of them, rounded up, is 2
    assert [(pair.first, pair.second, pair.similarity) for pair in found.pairs] == [
        ("philosophy", "virology", 0.7),
        ("astronomy", "college_physics", 0.5),
    ]
    assert [task.index for task in found.tasks] == [1, 2, 4, 5]
    assert found.n == 40
    assert found.members(QUESTIONS).tolist() == [task in (1, 2, 4, 5) for task in QUESTIONS]


def test_pairs_as_similar_as_the_last_belong_too() -> None:
    found = hard_pairs(TASKS, QUESTIONS, [similarity(t12=0.5, t45=0.7, t03=0.5)])
    assert found is not None
    assert [(pair.first, pair.second) for pair in found.pairs] == [
        ("philosophy", "virology"),
        ("anatomy", "econometrics"),
        ("astronomy", "college_physics"),
    ]


def test_pairs_never_observed_are_left_out() -> None:
    nan = float("nan")
    seen = similarity(t01=nan, t02=nan, t03=nan, t04=nan, t05=nan, t23=0.4)
    found = hard_pairs(TASKS, QUESTIONS, [seen])
    assert found is not None
    assert found.observed == 10
    assert [(pair.first, pair.second) for pair in found.pairs] == [("college_physics", "econometrics")]
    assert hard_pairs(TASKS, QUESTIONS, [np.full((6, 6), nan)]) is None


def test_several_seeds_are_averaged_over_what_was_observed() -> None:
    one, two = similarity(t12=0.6, t45=float("nan"), t03=0.5), similarity(t12=0.2, t45=0.55, t03=0.5)
    found = hard_pairs(TASKS, QUESTIONS, [one, two])
    assert found is not None
    assert [pair.similarity for pair in found.pairs] == pytest.approx([0.55, 0.5])
    assert hard_pairs(TASKS, QUESTIONS, [one, None]) is None
    assert hard_pairs(TASKS, QUESTIONS, []) is None


def test_pairs_without_test_questions_have_no_score() -> None:
    assert hard_pairs(TASKS, np.zeros(5, np.int64), [similarity(t12=0.5, t45=0.7)]) is None


def test_arms_are_compared_on_the_questions_of_the_first_arms_pairs(tmp_path: Path) -> None:
    alike, other = similarity(t12=0.5, t45=0.7), similarity(t01=0.9, t03=0.9)
    task = np.arange(120) % 6
    hard = np.isin(task, [1, 2, 4, 5])
    right = np.zeros(120, bool)
    right[np.flatnonzero(hard)[:30]] = True
    better = right.copy()
    better[np.flatnonzero(hard)[30:36]] = True  # six gains there
    better[np.flatnonzero(~hard)[:9]] = True  # and nine elsewhere, which do not count
    runs = [
        finished_run(tmp_path, "baseline", correct=right, similarity=alike),
        finished_run(tmp_path, "full", correct=better, similarity=other),
    ]
    comparison = compare(runs)
    assert comparison.hard_pairs is not None
    assert comparison.hard_pairs.n == 80
    baseline, full = (arm.hard for arm in comparison.arms)
    assert baseline is not None
    assert full is not None
    assert (baseline.n, baseline.correct, baseline.accuracy, baseline.paired) == (80, 30, 30 / 80, None)
    assert full.accuracy == 36 / 80
    assert full.paired is not None
    assert (full.paired.gains, full.paired.losses) == (6, 0)
    assert full.paired.p == pytest.approx(2 / 2**6)
    (note,) = [text for text in comparison.notes if text.startswith("Hard pairs")]
    assert "the 2 of 15 task pairs that baseline tells apart least" in note
    assert "80 of 120 questions, from 4 tasks" in note
    assert "every task" not in note


def test_hard_pairs_that_touch_every_task_say_so(tmp_path: Path) -> None:
    alike = similarity(t01=0.5, t23=0.5, t45=0.5)
    runs = [finished_run(tmp_path, recipe, similarity=alike) for recipe in ("baseline", "full")]
    comparison = compare(runs)
    assert comparison.arms[1].hard is not None
    assert comparison.arms[1].hard.accuracy == comparison.arms[1].accuracy
    assert any("They touch every task" in text for text in comparison.notes)


def test_without_a_record_of_similarities_there_are_no_hard_pairs(tmp_path: Path) -> None:
    runs = [finished_run(tmp_path, recipe) for recipe in ("baseline", "full")]
    with duckdb.connect(str(runs[0].database)) as connection:
        connection.execute("DELETE FROM confusion WHERE kind = 'similarity/test'").fetchall()
    comparison = compare(runs)
    assert comparison.hard_pairs is None
    assert [arm.hard for arm in comparison.arms] == [None, None]
    assert any("Hard pairs cannot be named: baseline" in text for text in comparison.notes)


def test_calibration_and_letters_are_those_of_the_test_answers(tmp_path: Path) -> None:
    # Question i has right option i mod 4; a wrong answer is the next letter.
    right = [True, True, False, False, False, True, True, True]
    runs = [finished_run(tmp_path, r, correct=right, measured=(1.25, 0.06, 0.7)) for r in ("baseline", "full")]
    arm = compare(runs).arms[1]
    assert (arm.loss, arm.ece, arm.brier) == (1.25, 0.06, 0.7)
    assert arm.gold_shares == {"A": 0.25, "B": 0.25, "C": 0.25, "D": 0.25}
    assert arm.predicted_shares == {"A": 2 / 8, "B": 3 / 8, "C": 1 / 8, "D": 2 / 8}
    with duckdb.connect(str(runs[1].database)) as connection:
        connection.execute("DELETE FROM evals WHERE split = 'test'").fetchall()
    arm = compare(runs).arms[1]
    assert (arm.loss, arm.ece, arm.brier) == (None, None, None)
