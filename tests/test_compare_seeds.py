"""Comparing recipes over several seeds: selection, statistics and output."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import printed_by_compare
from factory import SIX_TASKS, STARTED, crashed_run, finished_run, running_run

from accl.analysis.ablation import Ablation, compare_seeds
from accl.analysis.compare import compare
from accl.analysis.crossed import difference_over_seeds
from accl.analysis.power import seeds_needed, smallest_difference
from accl.analysis.select import select_seeds
from accl.analysis.stats import holm
from accl.bench.runs import record_evaluation
from accl.errors import CompareError
from accl.store.rundir import RunDir
from accl.store.writer import Recorder

N = 240
RATES = {"baseline": 0.40, "contrastive": 0.42, "full": 0.62}


def answers(recipe: str, seed: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Questions differ in how hard they are, the same for every arm; arms share the luck of a seed."""
    hardness = np.random.default_rng(0).uniform(-0.3, 0.3, N)
    return np.asarray(np.random.default_rng(seed).random(N) < RATES[recipe] + hardness)


@pytest.fixture
def grid(tmp_path: Path) -> dict[tuple[str, int], RunDir]:
    return {
        (recipe, seed): finished_run(
            tmp_path,
            recipe,
            seed=seed,
            correct=answers(recipe, seed),
            measured=(1.0 + seed, 0.1 * seed, 0.5),
            curves=False,
        )
        for recipe in RATES
        for seed in (1, 2, 3)
    }


def ablation(root: Path, *recipes: str) -> Ablation:
    return compare_seeds(select_seeds(root, recipes or tuple(RATES)))


# Which runs --------------------------------------------------------------------------------------


def test_an_arm_is_the_newest_run_of_every_seed_that_all_recipes_have(tmp_path: Path) -> None:
    old = finished_run(tmp_path, "baseline", seed=1, started=STARTED)
    new = finished_run(tmp_path, "baseline", seed=1, started=STARTED + 100)
    rest = [finished_run(tmp_path, r, seed=s) for r, s in (("baseline", 2), ("full", 2), ("full", 1))]
    finished_run(tmp_path, "full", seed=5)
    running_run(tmp_path, "full", seed=1)
    crashed_run(tmp_path, "baseline", seed=5)
    found = select_seeds(tmp_path, ["full", "baseline"])
    assert found.seeds == (1, 2)
    assert found.runs == ((rest[2], rest[1]), (new, rest[0]))
    assert old not in found.runs[1]
    assert found.left_out == {"full": (5,)}
    assert found.gaps == ["Left out for want of partners: seed 5 of full."]
    rest[0].config.write_text("recipe: baseline\nold_key: 1\n", encoding="utf-8")
    found = select_seeds(tmp_path, ["full", "baseline"])
    assert found.seeds == (1,)
    assert any(text.startswith("1 run in the folder could not be read") for text in found.gaps)


@pytest.mark.parametrize(
    "other", [{"profile": "minilm"}, {"fingerprint": "ffff"}, {"steps": 100}, {"overrides": ["data.protocol=official"]}]
)
def test_runs_on_other_terms_are_not_mixed_in(tmp_path: Path, other: dict[str, object]) -> None:
    for recipe in ("baseline", "full"):
        for seed in (1, 2, 3):
            finished_run(tmp_path, recipe, seed=seed, curves=False)
        for seed in (3, 4):
            finished_run(tmp_path, recipe, seed=seed, started=STARTED + 500, **other)  # type: ignore[arg-type]
    found = select_seeds(tmp_path, ["baseline", "full"])
    assert found.seeds == (1, 2, 3)  # the most seeds win over the newest runs
    assert found.left_out == {}
    assert len(compare_seeds(found).arms) == 2


def test_of_groups_with_equally_many_seeds_the_newest_is_taken(tmp_path: Path) -> None:
    for steps, started in ((100, STARTED), (200, STARTED + 100)):
        for recipe in ("baseline", "full"):
            for seed in (1, 2):
                finished_run(tmp_path, recipe, seed=seed, steps=steps, started=started)
    assert ablation(tmp_path, "baseline", "full").steps == 200


@pytest.mark.usefixtures("grid")
def test_names_that_are_no_recipes_of_runs_are_refused(tmp_path: Path, grid: dict[tuple[str, int], RunDir]) -> None:
    with pytest.raises(CompareError, match="is not a recipe"):
        select_seeds(tmp_path, ["baseline", grid["full", 1].id])
    with pytest.raises(CompareError, match="baseline was named twice"):
        select_seeds(tmp_path, ["baseline", "baseline"])
    with pytest.raises(CompareError, match="at least two recipes"):
        compare_seeds(select_seeds(tmp_path, ["baseline"]))
    with pytest.raises(CompareError, match=r"of baseline or full in .* with profile paper"):
        select_seeds(tmp_path, ["baseline", "full"], profile="paper")


def test_without_a_shared_seed_the_missing_runs_are_named(tmp_path: Path) -> None:
    anchor = finished_run(tmp_path, "baseline", seed=7, steps=300)
    finished_run(tmp_path, "full", seed=8, steps=200)
    with pytest.raises(CompareError, match="No seed has a finished run of every recipe") as caught:
        select_seeds(tmp_path, ["baseline", "full"])
    assert caught.value.hint == (
        f"Beside {anchor.id} train: accl train full --profile demo --seed 7 --set train.max_steps=300"
    )
    with pytest.raises(CompareError, match="no finished run of contrastive") as caught:
        select_seeds(tmp_path, ["baseline", "contrastive"])
    assert caught.value.hint == "Train first: accl train contrastive --profile demo"


# The numbers -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("grid")
def test_means_and_deviations_are_over_seeds(tmp_path: Path) -> None:
    found = ablation(tmp_path)
    assert (found.seeds, found.n, found.steps) == ((1, 2, 3), N, 200)
    for arm in found.arms:
        right = np.stack([answers(arm.label, seed) for seed in found.seeds])
        assert arm.accuracy.mean == pytest.approx(right.mean())
        assert arm.accuracy.sd == pytest.approx(right.mean(axis=1).std(ddof=1))
        macro = [np.mean([row[task::6].mean() for task in range(6)]) for row in right]
        assert arm.macro_accuracy.mean == pytest.approx(np.mean(macro))
        assert arm.ece is not None
        assert (arm.ece.mean, arm.ece.sd) == pytest.approx((0.2, 0.1))
        assert arm.loss is not None
        assert arm.loss.mean == pytest.approx(3.0)


@pytest.mark.usefixtures("grid")
def test_differences_are_paired_by_seed_and_question(tmp_path: Path) -> None:
    found = ablation(tmp_path)
    right = {recipe: np.stack([answers(recipe, seed) for seed in (1, 2, 3)]) for recipe in RATES}
    baseline, contrastive, full = found.arms
    assert baseline.difference is None
    assert contrastive.difference == difference_over_seeds(right["baseline"], right["contrastive"])
    assert full.difference == difference_over_seeds(right["baseline"], right["full"])
    assert [contrastive.p_holm, full.p_holm] == holm([contrastive.difference.p, full.difference.p])
    for position, comparison in enumerate(found.per_seed):
        paired = comparison.arms[2].paired
        assert paired is not None
        assert paired.delta == pytest.approx(full.difference.per_seed[position])
        assert {arm.seed for arm in comparison.arms} == {found.seeds[position]}


@pytest.mark.usefixtures("grid")
def test_hard_pairs_are_the_same_questions_under_every_seed(tmp_path: Path) -> None:
    found = ablation(tmp_path)
    assert found.hard_pairs is not None
    mask = found.hard_pairs.members(np.arange(N) % 6)
    first, full = (np.stack([answers(r, s)[mask] for s in (1, 2, 3)]) for r in ("baseline", "full"))
    assert found.arms[2].hard_accuracy is not None
    assert found.arms[2].hard_accuracy.mean == pytest.approx(full.mean())
    assert found.arms[2].hard_difference == difference_over_seeds(first, full)
    assert all(comparison.hard_pairs == found.hard_pairs for comparison in found.per_seed)


def test_floors_are_counted_by_seed(tmp_path: Path) -> None:
    for seed, rate in ((1, 0.1), (2, 0.9), (3, 0.9)):
        finished_run(tmp_path, "baseline", seed=seed, correct=0.8)
        finished_run(tmp_path, "full", seed=seed, correct=rate)
    found = ablation(tmp_path, "baseline", "full")
    assert [arm.above_trivial for arm in found.arms] == [3, 2]
    assert "full beats its floor under 2 of 3 seeds." in found.warnings
    assert any("giving the longest option, 25.0 %" in note for note in found.notes)


def test_what_makes_the_numbers_less_than_they_seem_is_told(tmp_path: Path) -> None:
    for seed in (1, 2):
        finished_run(tmp_path, "baseline", seed=seed, trivial_baselines={})
        finished_run(tmp_path, "full", seed=seed, overrides=[f"optim.lr={seed * 1e-4}"])
    finished_run(tmp_path, "baseline", seed=9)
    found = ablation(tmp_path, "baseline", "full")
    assert found.arms[0].above_trivial is None
    assert [text.split(":")[0] for text in found.warnings] == [
        "Two seeds say little about the spread over seeds",
        "baseline has runs without floors, so nothing says whether they learned anything.",
        "The runs of full differ in more than the seed (optim.lr)",
        "Left out for want of partners",
    ]


def test_power_is_that_of_the_answers(tmp_path: Path, grid: dict[tuple[str, int], RunDir]) -> None:
    found = ablation(tmp_path)
    before, after = (np.stack([answers(r, s) for s in (1, 2, 3)]) for r in ("baseline", "full"))
    full = found.arms[2]
    assert full.smallest_difference == smallest_difference(before, after)
    assert full.seeds_needed == seeds_needed(before, after)
    assert found.arms[0].smallest_difference is None
    assert f"{100 * full.smallest_difference:.1f} (full) points (with 80 % power)" in found.power
    assert found.power.startswith(f"Power: {N} questions and 3 seeds could have shown a difference of ")
    one = compare([grid["baseline", 3], grid["full", 3]])
    assert one.arms[1].smallest_difference == smallest_difference(before[2:], after[2:])
    assert one.power.endswith("points (with 80 % power).")
    assert one.power in printed_by_compare(tmp_path, "--one-seed", "baseline", "full", columns=200)


def test_how_soon_an_arm_is_as_accurate_as_the_reference_at_its_end(tmp_path: Path) -> None:
    for seed in (1, 2):
        for recipe, steps in (("baseline", 200), ("full", 200), ("contrastive", 200)):
            run = finished_run(tmp_path, recipe, seed=seed, steps=steps, curves=False)
            recorder = Recorder(run.database)
            rates = {"baseline": (10, 40, 60), "full": (30, 70, 90), "contrastive": (10, 20, 30)}[recipe]
            for step, rate in zip((50, 100, 200), rates, strict=True):
                record_evaluation(recorder, step, "validation", np.arange(100) < rate, 6)
            assert recorder.close() == 0
    baseline, full, contrastive = ablation(tmp_path, "baseline", "full", "contrastive").arms
    assert baseline.efficiency is None
    assert full.efficiency is not None
    assert contrastive.efficiency is not None
    assert (full.efficiency.steps, full.efficiency.reference_steps) == (100, 200)
    assert (contrastive.efficiency.reached, contrastive.efficiency.censored) == (0, True)
    lines = [
        " ".join(line.split()) for line in printed_by_compare(tmp_path, "baseline", "full", "contrastive").splitlines()
    ]
    assert "steps to reach reference 200 100 > 200 (0 of 2)" in lines
    assert any(line.startswith("difference (steps) – -100 > +0") for line in lines)


def test_arms_without_validations_have_no_row_for_them(tmp_path: Path, grid: dict[tuple[str, int], RunDir]) -> None:
    assert grid
    assert ablation(tmp_path).arms[1].efficiency is None
    assert "steps to reach reference" not in printed_by_compare(tmp_path)


# The command -------------------------------------------------------------------------------------


def test_markdown_holds_one_compact_table_with_a_row_per_recipe(tmp_path: Path) -> None:
    recipes = ["baseline", "contrastive", "full"]
    for name in ("one", "two", "three"):
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump({"loss": {"temperature": 0.2}}), encoding="utf-8")
        recipes.append(str(path))
    for recipe in recipes:
        for seed in (1, 2):
            finished_run(tmp_path, recipe, seed=seed, curves=False)
    names = ["baseline", "contrastive", "full", "one", "two", "three"]
    lines = printed_by_compare(tmp_path, *names, "--all-seeds", "--format", "md").splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert table[0] == (
        "| arm | seeds | steps | accuracy (%) | macro (%) | hard pairs (%) | delta to baseline \\[95 %] (points) "
        "| Holm p | ECE | beats its floor |"
    )
    assert [line.split(" | ")[0] for line in table[2:]] == [f"| {name}" for name in names]
    assert max(map(len, table)) < 140
    assert lines[0] == "**Accuracy on 120 test questions over 2 seeds**"
    assert sum(line.startswith("**") for line in lines) == 1


@pytest.mark.usefixtures("grid")
@pytest.mark.parametrize("columns", [40, 80, 200])
def test_the_terminal_shows_means_runs_and_how_they_were_tested(
    tmp_path: Path, columns: int, grid: dict[tuple[str, int], RunDir]
) -> None:
    shown = printed_by_compare(tmp_path, "--all-seeds", "--notes", columns=columns)
    assert max(map(len, shown.splitlines())) <= columns
    full = ablation(tmp_path).arms[2]
    assert f"{100 * full.accuracy.mean:.2f} ± {100 * full.accuracy.sd:.2f}" in shown
    words = " ".join(shown.split())
    assert "Seeds 1, 2, 3; ± is the standard deviation over them" in words
    assert "its own quantile of Student's t" in words
    if columns >= 80:
        assert all(run.id in shown for run in grid.values())


@pytest.mark.usefixtures("grid")
def test_the_terminal_lists_the_tasks_that_change_most_over_all_seeds(tmp_path: Path) -> None:
    shown = printed_by_compare(tmp_path, "baseline", "full", "--tasks", "1", columns=120)
    before, after = (np.stack([answers(r, s) for s in (1, 2, 3)]) for r in ("baseline", "full"))
    deltas = [(after[:, task::6].mean() - before[:, task::6].mean()) for task in range(6)]
    best = int(np.argmax(deltas))
    head, row = "Largest gains and losses of full against baseline", SIX_TASKS[best][0].replace("_", " ")
    line = next(line for line in shown.split(head)[1].splitlines() if line.startswith(row))
    expected = [f"{100 * side[:, best::6].mean():.2f}" for side in (before, after)]
    assert line.removeprefix(row).split()[:4] == ["40", *expected, f"{100 * deltas[best]:+.2f}"]
    assert "Largest" not in printed_by_compare(tmp_path, "baseline", "full", "--tasks", "0")


@pytest.mark.usefixtures("grid")
def test_csv_has_raw_values_and_json_every_seed(tmp_path: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(printed_by_compare(tmp_path, "--all-seeds", "--format", "csv"))))
    full = ablation(tmp_path).arms[2]
    assert full.difference is not None
    assert [row["arm"] for row in rows] == list(RATES)
    assert float(rows[2]["accuracy_sd"]) == full.accuracy.sd
    assert float(rows[2]["delta_low"]) == full.difference.low
    assert json.loads(rows[2]["seeds"]) == [1, 2, 3]
    assert rows[0]["delta"] == ""
    found = json.loads(printed_by_compare(tmp_path, "--all-seeds", "--format", "json"))
    assert found["arms"][2]["difference"]["per_seed"] == list(full.difference.per_seed)
    assert [comparison["arms"][0]["seed"] for comparison in found["per_seed"]] == [1, 2, 3]
    assert len(found["per_seed"][0]["arms"][2]["tasks"]) == 6


def test_a_single_shared_seed_is_an_ordinary_comparison_that_says_so(tmp_path: Path) -> None:
    for recipe, seed in (("baseline", 1), ("full", 1), ("full", 2)):
        finished_run(tmp_path, recipe, seed=seed)
    found = json.loads(printed_by_compare(tmp_path, "baseline", "full", "--all-seeds", "--format", "json"))
    assert found["warnings"][0].startswith("Only seed 1 has a run of every arm")
    assert [arm["seed"] for arm in found["arms"]] == [1, 1]
    shown = " ".join(printed_by_compare(tmp_path, "baseline", "full", "--all-seeds").split())
    assert "Warning: Only seed 1 has a run" in shown
    assert "McNemar" in shown
