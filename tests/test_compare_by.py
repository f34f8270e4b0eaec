"""Comparing arms part by part, and question by question."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import duckdb
import numpy as np
import pytest
from conftest import printed_by_compare
from factory import SIX_TASKS, finished_run

from accl.analysis.breakdown import Part, find_flips, score_parts
from accl.analysis.crossed import difference_over_seeds
from accl.analysis.results import Results, read_results
from accl.analysis.stats import holm, paired_difference
from accl.errors import ConfigError
from accl.store.rundir import RunDir

N = 120
RATES = {"baseline": 0.5, "full": 0.7}
TASK = np.arange(N) % len(SIX_TASKS)


def answers(recipe: str, seed: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    return np.asarray(np.random.default_rng(seed + 10 * len(recipe)).random(N) < RATES[recipe])


@pytest.fixture
def grid(tmp_path: Path) -> dict[tuple[str, int], RunDir]:
    return {
        (recipe, seed): finished_run(tmp_path, recipe, seed=seed, correct=answers(recipe, seed), curves=False)
        for recipe in RATES
        for seed in (1, 2, 3)
    }


def results(grid: dict[tuple[str, int], RunDir], seeds: int) -> list[list[Results]]:
    return [[read_results(grid[recipe, seed]) for seed in range(1, seeds + 1)] for recipe in RATES]


def mask_of(part: Part, name: str) -> np.ndarray:
    place = {"task": 0, "subcategory": 1, "category": 2}[part]
    return np.isin(TASK, [i for i, task in enumerate(SIX_TASKS) if task[place] == name])


@pytest.mark.parametrize("part", ["task", "subcategory", "category"])
@pytest.mark.parametrize("seeds", [1, 3])
def test_each_part_is_compared_as_the_whole_is(grid: dict[tuple[str, int], RunDir], part: Part, seeds: int) -> None:
    scores = score_parts(list(RATES), results(grid, seeds), part)
    assert sum(score.n for score in scores) == N
    assert [score.delta for score in scores] == sorted((score.delta for score in scores), reverse=True)
    assert [score.p_holm for score in scores] == holm([score.p for score in scores])
    for score in scores:
        mask = mask_of(part, score.name)
        before, after = (np.stack([answers(r, s)[mask] for s in range(1, seeds + 1)]) for r in RATES)
        expected = difference_over_seeds(before, after) if seeds > 1 else paired_difference(before[0], after[0])
        assert (score.delta, score.low, score.high, score.p) == (
            expected.delta,
            expected.low,
            expected.high,
            expected.p,
        )
        assert (score.before, score.accuracy) == (before.mean(), after.mean())
        assert score.gains - score.losses == after.sum() - before.sum()


def test_flips_count_seeds_and_stand_from_gain_to_loss(grid: dict[tuple[str, int], RunDir]) -> None:
    flips, counts = find_flips(list(RATES), results(grid, 3))
    before, after = (np.stack([answers(r, s) for s in (1, 2, 3)]) for r in RATES)
    gains, losses = (after & ~before).sum(axis=0), (before & ~after).sum(axis=0)
    assert {flip.id for flip in flips} == {f"test/{i:05d}" for i in np.flatnonzero(gains + losses)}
    assert counts == {"full": ((gains > losses).sum(), (gains < losses).sum())}
    for flip in flips:
        i = int(flip.id.removeprefix("test/"))
        assert (flip.gains, flip.losses) == (gains[i], losses[i])
        assert (flip.before, flip.after) == (before[:, i].sum(), after[:, i].sum())
        assert (flip.task, flip.text) == (SIX_TASKS[TASK[i]][0], f"What is asked in {flip.id}?")
    net = [flip.gains - flip.losses for flip in flips]
    assert net == sorted(net, reverse=True)
    few, _ = find_flips(list(RATES), results(grid, 3), 8)
    assert [flip.id for flip in few] == [flip.id for flip in [*flips[:4], *flips[-4:]]]


def test_flips_of_one_side_fill_what_the_other_lacks(tmp_path: Path) -> None:
    right = np.arange(N) < 60
    runs = [finished_run(tmp_path, "baseline", correct=right, curves=False)]
    runs += [finished_run(tmp_path, "full", correct=np.arange(N) < 90, curves=False)]
    flips, counts = find_flips(["baseline", "full"], [[read_results(run)] for run in runs], 10)
    assert [flip.gains for flip in flips] == [1] * 10
    assert counts == {"full": (30, 0)}


def test_flips_of_runs_without_texts_are_found(grid: dict[tuple[str, int], RunDir]) -> None:
    with duckdb.connect(str(grid["baseline", 1].database)) as connection:
        connection.execute("DELETE FROM questions").fetchall()
    flips, _ = find_flips(list(RATES), results(grid, 1))
    assert flips
    assert {flip.text for flip in flips} == {""}


@pytest.mark.usefixtures("grid")
@pytest.mark.parametrize("by", ["category", "subcategory", "task", "question"])
def test_every_form_fits_80_columns(tmp_path: Path, by: str) -> None:
    shown = printed_by_compare(tmp_path, "baseline", "full", "--by", by)
    assert max(map(len, shown.splitlines())) <= 80
    assert shown.startswith("full against baseline: 120 test questions over 3 seeds (demo, pooled)")
    assert "Two seeds say little" not in shown


@pytest.mark.usefixtures("grid")
def test_csv_and_json_have_every_row_of_every_arm(tmp_path: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(printed_by_compare(tmp_path, *RATES, "--by", "task", "--format", "csv"))))
    assert {row["name"] for row in rows} == {task for task, *_ in SIX_TASKS}
    assert {(row["arm"], row["reference"], row["seeds"]) for row in rows} == {("full", "baseline", "3")}
    found = json.loads(printed_by_compare(tmp_path, *RATES, "--by", "question", "--one-seed", "--format", "json"))
    before, after = (answers(recipe, 3) for recipe in RATES)
    assert len(found) == (before != after).sum()
    assert {row["gains"] + row["losses"] for row in found} == {1}
    limited = printed_by_compare(tmp_path, *RATES, "--by", "question", "--limit", "2", "--format", "json")
    assert len(json.loads(limited)) == 2


@pytest.mark.usefixtures("grid")
def test_a_limit_without_questions_is_refused(tmp_path: Path) -> None:
    for arguments in (["--limit", "3"], ["--limit", "3", "--by", "task"]):
        with pytest.raises(ConfigError, match="--limit is for --by question"):
            printed_by_compare(tmp_path, *RATES, *arguments)
