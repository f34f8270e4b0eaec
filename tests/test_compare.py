"""Comparing arms: honest pairing, clear refusals, and the command that prints it."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np
import pytest
from conftest import compare_app, printed_by_compare
from factory import ALL_TASKS, SIX_TASKS, STARTED, crashed_run, finished_run, running_run
from typer.testing import CliRunner

from accl.analysis.compare import compare
from accl.analysis.stats import standard_error
from accl.errors import AbsentError, AcclError, CompareError, DamagedError, RunError
from accl.store.rundir import RunDir
from accl.store.state import State, read_state, write_state

N = 120


def answers(*right: range) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    found = np.zeros(N, bool)
    for part in right:
        found[part.start : part.stop] = True
    return found


@pytest.fixture
def three(tmp_path: Path) -> list[RunDir]:
    """baseline: 60 right; contrastive: 8 gains and 2 losses on it; full: 30 right, below its floor."""
    return [
        finished_run(tmp_path, "baseline", correct=answers(range(60))),
        finished_run(tmp_path, "contrastive", correct=answers(range(2, 68)), started=STARTED + 100),
        finished_run(
            tmp_path,
            "full",
            correct=answers(range(30)),
            started=STARTED + 200,
            trivial_baselines={"longest_option": 0.3},
        ),
    ]


# The numbers -------------------------------------------------------------------------------------


def test_accuracy_and_pairing_of_known_answers(three: list[RunDir]) -> None:
    baseline, contrastive, full = compare(three).arms
    assert (baseline.correct, baseline.n, baseline.accuracy) == (60, N, 0.5)
    assert baseline.paired is None
    assert baseline.p_holm is None
    assert contrastive.paired is not None
    assert (contrastive.paired.gains, contrastive.paired.losses) == (8, 2)
    assert contrastive.paired.delta == pytest.approx(6 / N)
    assert contrastive.paired.p == pytest.approx(112 / 1024)  # 2 (1 + 10 + 45) / 2^10
    assert contrastive.standard_error == standard_error(66 / N, N)
    assert full.paired is not None
    assert full.paired.p == pytest.approx(2**-29)  # 30 losses, no gain
    assert full.p_holm == pytest.approx(2 * 2**-29)  # the smaller of two p values counts twice
    assert contrastive.p_holm == pytest.approx(112 / 1024)
    assert contrastive.training_seconds == 12.5
    assert contrastive.questions_per_second == 256.0
    assert contrastive.tested_step == 200


def test_groups_and_tasks_add_up_to_the_whole(three: list[RunDir]) -> None:
    for arm in compare(three).arms:
        for parts in (arm.categories, arm.subcategories, arm.tasks):
            assert sum(part.n for part in parts) == arm.n
            assert sum(part.correct for part in parts) == arm.correct
        assert arm.macro_accuracy == pytest.approx(np.mean([score.accuracy for score in arm.tasks]))
        if arm.paired:
            assert sum(score.gains for score in arm.tasks) == arm.paired.gains
            assert sum(score.losses for score in arm.tasks) == arm.paired.losses
    assert {group.name for group in arm.categories} == {category for *_, category in SIX_TASKS}


def test_macro_weighs_tasks_equally_and_tasks_are_ranked_by_their_change(tmp_path: Path) -> None:
    # 4 tasks, 6 questions: tasks 0 and 1 have two each, tasks 2 and 3 one.
    first = finished_run(tmp_path, "baseline", correct=[True, False, True, True, False, False], tasks=SIX_TASKS[:4])
    second = finished_run(tmp_path, "full", correct=[True, True, False, True, True, False], tasks=SIX_TASKS[:4])
    arm = compare([first, second]).arms[1]
    assert [score.accuracy for score in arm.tasks] == [1.0, 0.5, 0.0, 1.0]
    assert arm.macro_accuracy == pytest.approx(2.5 / 4)
    assert [(score.task.index, score.delta) for score in arm.tasks_by_delta] == [
        (0, 0.5),
        (1, 0.5),
        (3, 0.0),
        (2, -1.0),
    ]


def test_tasks_without_test_questions_are_left_out(tmp_path: Path) -> None:
    runs = [finished_run(tmp_path, recipe, correct=[True, False, True]) for recipe in ("baseline", "full")]
    arm = compare(runs).arms[0]
    assert len(arm.tasks) == 3
    assert arm.macro_accuracy == pytest.approx(2 / 3)


def test_answers_are_paired_by_question_whatever_their_order_on_disk(three: list[RunDir]) -> None:
    before = compare(three[:2]).arms[1].paired
    with duckdb.connect(str(three[1].database)) as connection:
        connection.execute("CREATE TABLE p AS SELECT * FROM predictions ORDER BY hash(question_id)").fetchall()
        connection.execute("DELETE FROM predictions").fetchall()
        connection.execute("INSERT INTO predictions SELECT * FROM p").fetchall()
    assert compare(three[:2]).arms[1].paired == before


def test_all_57_tasks_and_the_full_test_split_compare(tmp_path: Path) -> None:
    runs = [
        finished_run(tmp_path, recipe, correct=rate, questions=14_042, tasks=ALL_TASKS, curves=False)
        for recipe, rate in (("baseline", 0.30), ("contrastive", 0.32))
    ]
    arm = compare(runs).arms[1]
    assert len(arm.tasks) == len(ALL_TASKS) == 57
    assert len(arm.subcategories) == 17
    assert len(arm.categories) == 4
    assert arm.paired is not None
    assert arm.paired.low < 0.02 < arm.paired.high


def test_config_differences_show_all_but_the_recipe_name(tmp_path: Path) -> None:
    first = finished_run(tmp_path, "baseline")
    second = finished_run(tmp_path, "full", overrides=["optim.lr=0.5"])
    arms = compare([first, second]).arms
    assert arms[0].config_difference == {}
    changed = arms[1].config_difference
    assert changed["optim.lr"][1] == 0.5
    assert changed["curriculum.policy"] == ("uniform", "confusion")
    assert changed["loss.contrastive_weight"] == (0.0, 0.3)
    assert "recipe" not in changed


def test_arms_of_one_recipe_are_told_apart(tmp_path: Path) -> None:
    first = finished_run(tmp_path, "full", seed=1)
    second = finished_run(tmp_path, "full", seed=2)
    third = finished_run(tmp_path, "full", seed=2)
    assert [arm.label for arm in compare([first, second]).arms] == ["full s1", "full s2"]
    labels = [arm.label for arm in compare([first, second, third]).arms]
    assert labels[0] == "full s1"
    assert labels[1:] == [f"full {run.id[-4:]}" for run in (second, third)]


# Warnings ----------------------------------------------------------------------------------------


def test_an_arm_that_does_not_beat_its_floor_says_so(three: list[RunDir]) -> None:
    comparison = compare(three)
    assert [arm.above_trivial for arm in comparison.arms] == [True, True, False]
    (warning,) = [text for text in comparison.warnings if text.startswith("full does not beat its floor")]
    assert "25.0 % against 30.0 % for always giving the longest option" in warning


def test_an_accuracy_equal_to_its_rounded_floor_does_not_beat_it(tmp_path: Path) -> None:
    right = [True, False, False] * 10
    runs = [
        finished_run(tmp_path, r, correct=right, trivial_baselines={"majority_letter": 1 / 3})
        for r in ("baseline", "full")
    ]
    comparison = compare(runs)
    assert comparison.arms[0].trivial_baselines == {"majority_letter": 0.333333}
    assert comparison.arms[0].above_trivial is False


def test_an_accuracy_barely_above_its_floor_says_so(tmp_path: Path) -> None:
    runs = [finished_run(tmp_path, r, correct=answers(range(32))) for r in ("baseline", "full")]
    assert any("by less than the uncertainty" in text for text in compare(runs).warnings)


def test_missing_floors_are_told(tmp_path: Path) -> None:
    runs = [finished_run(tmp_path, r, trivial_baselines={}) for r in ("baseline", "full")]
    comparison = compare(runs)
    assert comparison.arms[0].above_trivial is None
    assert any("recorded no floors" in text for text in comparison.warnings)


def test_unequal_steps_and_seeds_are_told(tmp_path: Path) -> None:
    first = finished_run(tmp_path, "baseline", steps=200, seed=1)
    second = finished_run(tmp_path, "full", steps=100, seed=2, training_seconds=None)
    comparison = compare([first, second])
    assert any("baseline 200, full 100): compare at equal steps" in text for text in comparison.warnings)
    assert any("different seeds" in text for text in comparison.warnings)
    assert comparison.arms[1].training_seconds is None


def test_numbers_name_their_protocol(tmp_path: Path) -> None:
    assert (
        "not leaderboard MMLU"
        in compare([finished_run(tmp_path, r, profile="paper") for r in ("baseline", "full")]).notes[0]
    )
    official = ["data.protocol=official"]
    runs = [finished_run(tmp_path, r, profile="paper", overrides=official) for r in ("baseline", "full")]
    assert compare(runs).notes[0].startswith("Protocol official")
    assert "nothing about MMLU" in compare([finished_run(tmp_path, r) for r in ("baseline", "full")]).notes[0]


# Refusals ----------------------------------------------------------------------------------------


def test_fewer_than_two_runs_are_refused(three: list[RunDir]) -> None:
    with pytest.raises(CompareError, match="at least two runs"):
        compare(three[:1])
    with pytest.raises(CompareError, match="named twice"):
        compare([three[0], three[0]])


@pytest.mark.parametrize("state", [State.STOPPED, State.FAILED])
def test_a_run_that_ended_early_is_refused_with_the_way_on(three: list[RunDir], state: State) -> None:
    write_state(three[1], replace(read_state(three[1]), state=state))
    with pytest.raises(CompareError, match=f"is {state}, not finished") as caught:
        compare(three)
    assert caught.value.hint == f"Go on with: accl resume {three[1].id}"


def test_running_and_crashed_runs_are_refused(tmp_path: Path, three: list[RunDir]) -> None:
    with pytest.raises(CompareError, match="is running, not finished") as caught:
        compare([three[0], running_run(tmp_path)])
    assert "accl runs" in caught.value.hint
    with pytest.raises(CompareError, match="is crashed, not finished"):
        compare([three[0], crashed_run(tmp_path)])


def test_missing_answers_are_refused(tmp_path: Path, three: list[RunDir]) -> None:
    bare = finished_run(tmp_path, "full", predictions=False)
    with pytest.raises(AbsentError, match="no answers to the test split") as caught:
        compare([three[0], bare])
    assert caught.value.hint == "Train it again: accl train full --profile demo"
    bare.database.unlink()
    with pytest.raises(AbsentError, match=r"no run\.duckdb"):
        compare([three[0], bare])


def test_a_run_without_a_data_fingerprint_is_refused(three: list[RunDir]) -> None:
    three[1].write_json(three[1].provenance, {"data": {}})
    with pytest.raises(AbsentError, match="no data fingerprint"):
        compare(three)


def test_answers_given_twice_are_refused(three: list[RunDir]) -> None:
    with duckdb.connect(str(three[1].database)) as connection:
        connection.execute("INSERT INTO predictions SELECT * FROM predictions LIMIT 1").fetchall()
    with pytest.raises(DamagedError, match="more than once"):
        compare(three)


def test_another_schema_is_refused(three: list[RunDir]) -> None:
    with duckdb.connect(str(three[1].database)) as connection:
        connection.execute("UPDATE meta SET value = '99' WHERE key = 'schema_version'").fetchall()
    with pytest.raises(RunError, match="has schema 99"):
        compare(three)


def test_different_data_protocol_or_profile_is_refused(tmp_path: Path) -> None:
    first = finished_run(tmp_path, "baseline")
    others = {
        "data": finished_run(tmp_path, "full", fingerprint="ffff", overrides=["data.path=my questions"]),
        "protocol": finished_run(tmp_path, "full", overrides=["data.protocol=official"]),
        "profile": finished_run(tmp_path, "full", profile="minilm"),
    }
    with pytest.raises(CompareError, match=r"differ in data \(00112233aabb, ffff\)"):
        compare([first, others["data"]])
    with pytest.raises(CompareError, match=r"differ in protocol \(pooled, official\)") as caught:
        compare([first, others["protocol"]])
    assert caught.value.hint.endswith("accl train full --profile demo --set data.protocol=pooled")
    with pytest.raises(CompareError, match=r"profile \(demo, minilm\)") as caught:
        compare([first, others["profile"]])
    assert caught.value.hint.endswith("accl train full --profile demo")
    with pytest.raises(CompareError, match="differ in") as caught:
        compare([others["data"], first])
    assert "--set 'data.path=my questions'" in caught.value.hint


def test_different_questions_or_right_answers_are_refused(tmp_path: Path) -> None:
    first = finished_run(tmp_path, "baseline", questions=100)
    with pytest.raises(CompareError, match="0 only the first, 20 only the second"):
        compare([first, finished_run(tmp_path, "full", questions=120)])
    changed = finished_run(tmp_path, "full", questions=100)
    with duckdb.connect(str(changed.database)) as connection:
        connection.execute("UPDATE predictions SET gold = 3 WHERE question_id = 'test/00000'").fetchall()
    with pytest.raises(CompareError, match="disagree on the tasks or the right answers"):
        compare([first, changed])


# The command -------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_the_command_shows_runs_numbers_warnings_and_protocol(
    tmp_path: Path, three: list[RunDir], columns: int
) -> None:
    shown = printed_by_compare(tmp_path, "--notes", columns=columns)
    assert max(map(len, shown.splitlines())) <= columns
    words = " ".join(shown.split())
    for expected in ("50.00 ± 4.56", "+5.00", "0.109", "humanities", "12 s", "Configuration differences"):
        assert expected in words
    assert "Warning: full does not beat its floor" in words
    assert "nothing about MMLU" in words
    if columns >= 80:
        assert all(run.id in shown for run in three)


@pytest.mark.usefixtures("three")
def test_arms_stand_side_by_side_in_80_columns_and_notes_wait_to_be_asked_for(tmp_path: Path) -> None:
    lines = printed_by_compare(tmp_path).splitlines()
    assert ["arm", "baseline", "contrastive", "full"] in [line.split() for line in lines]
    accuracy = next(line for line in lines if line.startswith("accuracy (%) "))
    assert " ".join(accuracy.split()) == "accuracy (%) 50.00 ± 4.56 55.00 ± 4.54 25.00 ± 3.95"
    assert any(line.startswith("Warning: full does not beat its floor") for line in lines)
    assert lines[-1] == "How these numbers are made: --notes"
    assert not any("Bonett" in line for line in lines)


def test_more_arms_than_fit_follow_in_blocks(tmp_path: Path) -> None:
    runs = [finished_run(tmp_path, "full", seed=seed, curves=False) for seed in range(1, 5)]
    lines = printed_by_compare(tmp_path, *(run.id for run in runs)).splitlines()
    assert max(map(len, lines)) <= 80
    heads = [line.split()[1:] for line in lines if line.startswith("arm  ") and " run " not in line]
    assert [" ".join(head) for head in heads] == ["full s1 full s2 full s3", "full s4"]


def test_many_arms_are_ranked(tmp_path: Path) -> None:
    rates = {1: 0.5, 2: 0.7, 3: 0.3, 4: 0.6, 5: 0.4}
    runs = [
        finished_run(tmp_path, "full", seed=seed, correct=np.arange(N) < N * rate, curves=False)
        for seed, rate in rates.items()
    ]
    lines = printed_by_compare(tmp_path, *(run.id for run in runs)).splitlines()
    assert max(map(len, lines)) <= 80
    ranked = [line.split() for line in lines if line.startswith("full s") and "±" in line]
    assert [row[1] for row in ranked] == ["s2", "s4", "s1", "s5", "s3"]
    assert [row[5] for row in ranked] == ["+20.00", "+10.00", "–", "-10.00", "-20.00"]


def test_the_command_prints_one_raw_row_per_arm_as_csv(tmp_path: Path, three: list[RunDir]) -> None:
    rows = list(csv.DictReader(io.StringIO(printed_by_compare(tmp_path, "--format", "csv"))))
    assert [row["run"] for row in rows] == [run.id for run in three]
    assert float(rows[1]["accuracy"]) == 66 / N
    assert float(rows[1]["p"]) == pytest.approx(112 / 1024)
    assert rows[0]["delta"] == ""


@pytest.mark.usefixtures("three")
def test_the_command_prints_everything_as_json(tmp_path: Path) -> None:
    found = json.loads(printed_by_compare(tmp_path, "baseline", "contrastive", "--format", "json"))
    assert found["profile"] == "demo"
    assert [arm["label"] for arm in found["arms"]] == ["baseline", "contrastive"]
    arm = found["arms"][1]
    assert arm["paired"]["gains"] == 8
    assert arm["accuracy"] == 66 / N
    assert len(arm["tasks"]) == len(SIX_TASKS)
    assert arm["config_difference"]["loss.contrastive_weight"] == [0.0, 0.3]


@pytest.mark.usefixtures("three")
def test_the_number_of_task_rows_is_what_was_asked(tmp_path: Path) -> None:
    assert "Largest" not in printed_by_compare(tmp_path, "baseline", "contrastive", "--tasks", "0")
    shown = printed_by_compare(tmp_path, "baseline", "full", "--tasks", "2", "--format", "md")
    part = shown.split("**Largest gains and losses of full against baseline**")[1].split("**")[0]
    assert part.count("\n| ") == 2 + 2  # header, rule, and two losses; there are no gains


@pytest.mark.usefixtures("three")
def test_the_folder_of_runs_comes_from_the_environment(tmp_path: Path) -> None:
    found = CliRunner().invoke(compare_app(), ["--format", "csv"], env={"ACCL_RUNS": str(tmp_path)})
    assert found.exit_code == 0
    assert found.stdout.startswith("arm,recipe,run")


def test_the_command_without_runs_says_what_to_type(tmp_path: Path) -> None:
    with pytest.raises(AcclError, match="accl train baseline --profile demo && accl train contrastive"):
        printed_by_compare(tmp_path / "nowhere")


def test_the_help_has_examples() -> None:
    found = CliRunner().invoke(compare_app(), ["--help"], env={"COLUMNS": "100"})
    assert "accl compare baseline contrastive full" in found.stdout
    assert "ACCL_RUNS" in found.stdout
