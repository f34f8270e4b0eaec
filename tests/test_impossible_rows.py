"""Rows of our own tables that no run records: a copied run may hold them, and every reader says so."""

from __future__ import annotations

import shutil
from pathlib import Path

import duckdb
import pytest
import typer
from factory import finished_run
from typer.testing import CliRunner

from accl.analysis.results import read_results
from accl.cli.show import show
from accl.errors import DamagedError
from accl.store.columns import RunReader
from accl.store.questions import read_questions
from accl.store.rundir import RunDir
from accl.text import LONGEST

FOLLOWED = [
    "UPDATE metrics SET name = NULL",
    "UPDATE metrics SET step = NULL",
    "UPDATE metrics SET seconds = 'inf'",
    "UPDATE metrics SET epoch = 'nan'",
    "UPDATE events SET seconds = -1e300",
    "UPDATE evals SET value = 'inf' WHERE name = 'n'",
    "UPDATE evals SET value = 'nan' WHERE name = 'n'",
    "UPDATE evals SET split = NULL",
    "UPDATE task_evals SET n = NULL",
    "UPDATE task_evals SET task = -1",
    "UPDATE task_evals SET task = 5000",
    "UPDATE task_evals SET n = 0",
    "UPDATE curriculum SET weights = NULL",
    "UPDATE curriculum SET weights = [1.0]",
    "UPDATE curriculum SET drawn = [NULL]",
    "UPDATE confusion SET matrix = [1.0, 2.0, 3.0]",
]
ANSWERS = [
    "UPDATE predictions SET gold = -1",
    "UPDATE predictions SET predicted = 4",
    "UPDATE predictions SET task = 30000",
    "UPDATE predictions SET question_id = NULL",
    "UPDATE predictions SET probabilities = NULL",
    "UPDATE evals SET value = 'inf' WHERE name = 'n'",
]
QUESTIONS = [
    *ANSWERS[:-1],
    "UPDATE predictions SET question_id = 'test/00000'",
    "UPDATE questions SET id = 'test/00000'",
    "UPDATE questions SET text = NULL",
    "UPDATE questions SET options = [NULL, 'a', 'b', 'c']",
    "UPDATE questions SET options = ['a']",
    "UPDATE questions SET answer = 4",
    "UPDATE questions SET task = 5",
    "UPDATE questions SET neighbours = [6]",
    "UPDATE questions SET neighbours = NULL",
    "UPDATE predictions SET probabilities = [1.0]",
]
TASKS = [
    "UPDATE tasks SET task = task + 1",
    "UPDATE tasks SET task = 0",
    "UPDATE tasks SET name = NULL",
    "INSERT INTO tasks VALUES (1000000, 'far', 'away', 'off')",
]
FIGURES = [f"UPDATE meta SET value = '{value}' WHERE key LIKE 'floor/%'" for value in ("nan", "-inf", "1e999", "words")]


@pytest.fixture(name="whole", scope="module")
def _whole(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    return finished_run(tmp_path_factory.mktemp("whole"), "full", questions=12)


def changed(whole: RunDir, root: Path, sql: str) -> RunDir:
    """Copy a run, and change its database as its owner may."""
    run = RunDir(root / whole.id)
    shutil.copytree(whole.path, run.path)
    with duckdb.connect(str(run.database)) as connection:
        assert connection.execute(sql).fetchall()[0][0] > 0, "no row was changed"
    return run


@pytest.mark.parametrize("sql", [*FOLLOWED, *TASKS])
def test_impossible_measurements_are_damage_each_time_they_are_read(whole: RunDir, tmp_path: Path, sql: str) -> None:
    reader = RunReader(changed(whole, tmp_path, sql))
    for _ in range(2):
        with pytest.raises(DamagedError, match="holds what no run records"):
            reader.refresh()
        assert not reader.last.curves


@pytest.mark.parametrize("sql", [*ANSWERS, *TASKS])
def test_impossible_answers_are_damage(whole: RunDir, tmp_path: Path, sql: str) -> None:
    with pytest.raises(DamagedError) as caught:
        read_results(changed(whole, tmp_path, sql))
    assert "cannot be understood" not in caught.value.what


@pytest.mark.parametrize("sql", QUESTIONS)
def test_impossible_questions_are_damage(whole: RunDir, tmp_path: Path, sql: str) -> None:
    with pytest.raises(DamagedError, match="holds what no run records"):
        read_questions(changed(whole, tmp_path, sql))


@pytest.mark.parametrize("sql", FIGURES)
def test_a_figure_that_is_no_number_is_damage(whole: RunDir, tmp_path: Path, sql: str) -> None:
    results = read_results(changed(whole, tmp_path, sql))
    with pytest.raises(DamagedError, match="no number"):
        results.number(next(key for key in results.meta if key.startswith("floor/")))


def test_megabytes_of_text_in_a_cell_are_cut(whole: RunDir, tmp_path: Path) -> None:
    command = typer.Typer()
    command.command()(show)
    run = changed(whole, tmp_path, "INSERT INTO events VALUES (1000, 1, 'info', 'x', repeat('word ', 2000000))")
    shown = CliRunner().invoke(command, [run.id, "--runs", str(tmp_path)])
    assert shown.exit_code == 0
    assert LONGEST < len(shown.output) < 5 * LONGEST
