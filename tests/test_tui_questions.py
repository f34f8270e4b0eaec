"""Panes 4 and 5 of a run: its tasks, and its questions with the answers of several arms."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import duckdb
import numpy as np
import pytest
from factory import SIX_TASKS, STARTED, finished_run
from snapshots import SIZES, assert_snapshot, freeze
from textual.pilot import Pilot
from tui_pilot import on_screen, open_app, open_newest_run, until

from accl.bench.runs import record_answers
from accl.store.rundir import RunDir
from accl.store.writer import Recorder
from tui.messages import OpenRun, ShowQuestions
from tui.panes.tasks import Score, whiskers
from tui.screens.run import RunScreen
from tui.screens.runs import RunsScreen
from tui.snapshot import pending
from tui.widgets.filter import Filter
from tui.widgets.questions import QuestionDetail, QuestionList
from tui.widgets.table import Table

RIGHT = [i % 6 < i // 12 for i in range(60)]  # of 60 questions of six tasks: the first task is the best


def two_arms(root: Path) -> RunDir:
    """Make a baseline that gets every question right, and a full run of the same seed that does not."""
    finished_run(root, "baseline", correct=[True] * 60)
    return finished_run(root, "full", correct=RIGHT, started=STARTED + 60)


def rows(pilot: Pilot[None]) -> Sequence[str]:
    """Return the ids of the questions listed."""
    return [question.id for question in pilot.app.screen.query_one(QuestionList).questions]


async def complete(pilot: Pilot[None]) -> None:
    await until(pilot, lambda: not pending(pilot.app))  # type: ignore[arg-type]


def test_a_bar_has_the_interval_as_whiskers_and_the_floor() -> None:
    assert whiskers(Score(12, 12), 0.25, 20) == "━━━━━╎━━━━━━━━━────●"
    assert whiskers(Score(12, 6), 0.25, 20) == "━━━━━╎───●────┤     "
    assert whiskers(Score(12, 0), float("nan"), 20).rstrip() == "●───┤"
    assert whiskers(Score(), 0.25, 20) == ""


async def test_tasks_are_worst_first_and_lead_to_their_wrong_questions_and_back(tmp_path: Path) -> None:
    finished_run(tmp_path, correct=RIGHT)
    async with open_app(tmp_path, (160, 45)) as pilot:
        screen = await open_newest_run(pilot)
        await pilot.press("4")
        table = screen.query_one("#task-table", Table)
        await until(pilot, lambda: len(table.rows) == 6)
        text = on_screen(pilot)
        assert "weights of step 200" in text
        assert "33.3 % [22.7–45.9] n 60" in text
        last = table.rows[0].cells
        assert [cell[0] for cell in last[6:9]] == ["10", "0.0", "0.0–27.8"], "Wilson, not ±0"
        names = [row.cells[0][0] for row in table.rows]
        assert names[-1] == SIX_TASKS[0][0]
        await pilot.click(Table, offset=(3, 0))
        assert [row.cells[0][0] for row in table.rows] == sorted(names)
        await pilot.press("i", "end", "enter")
        await complete(pilot)
        task = SIX_TASKS[0][0]
        assert screen.pane_name == "questions"
        assert screen.query_one("#question-filter", Filter).value == f'task="{task}" wrong'
        assert rows(pilot) == ["test/00000", "test/00006"]
        await pilot.press("escape")
        assert screen.pane_name == "tasks"


async def test_questions_are_filtered_and_shown_beside_another_arm(tmp_path: Path) -> None:
    two_arms(tmp_path)
    async with open_app(tmp_path) as pilot:
        screen = await open_newest_run(pilot)
        await pilot.press("5")
        await complete(pilot)
        assert len(rows(pilot)) == 60
        assert "60 · 40 wrong" in on_screen(pilot)
        assert rows(pilot)[0] == "test/00000", "the worst mistakes come first"
        detail = "\n".join(screen.query_one(QuestionDetail).text_lines)
        assert "✓ A Option 0" in detail
        assert "70.0 ◂" in detail
        assert "baseline s42" in detail
        assert "nearest other tasks: " + SIX_TASKS[1][0] in detail.replace("\n", " ")
        await pilot.press("slash", *"flip:base gold:b", "enter")
        await complete(pilot)
        found = rows(pilot)
        assert found
        assert all(not RIGHT[int(name[-5:])] and int(name[-5:]) % 4 == 1 for name in found)
        screen.query_one("#question-filter", Filter).value = "flop:x"
        await until(pilot, lambda: "There is no key 'flop'" in on_screen(pilot))
        assert rows(pilot) == found, "a bad query keeps the last view"
        screen.post_message(ShowQuestions("flip:nobody"))
        await until(pilot, lambda: "No run of nobody has the profile" in on_screen(pilot))
        assert rows(pilot) == found
        await pilot.press("escape", "b")
        await complete(pilot)
        assert "baseline s42" not in "\n".join(screen.query_one(QuestionDetail).text_lines)
        await pilot.press("enter")
        assert not screen.query_one(QuestionList).display
        await pilot.press("escape")
        assert screen.query_one(QuestionList).display


async def test_a_run_is_opened_with_questions_and_escape_leads_to_the_screen_before(tmp_path: Path) -> None:
    run = two_arms(tmp_path)
    async with open_app(tmp_path) as pilot:
        pilot.app.post_message(OpenRun(run, questions="right p>.5"))
        await until(pilot, lambda: isinstance(pilot.app.screen, RunScreen))
        await complete(pilot)
        assert len(rows(pilot)) == sum(RIGHT)
        await pilot.press("escape")
        assert isinstance(pilot.app.screen, RunsScreen)


async def test_a_validation_that_comes_while_one_looks_is_shown(tmp_path: Path) -> None:
    run = finished_run(tmp_path, correct=RIGHT)
    async with open_app(tmp_path) as pilot:
        await open_newest_run(pilot)
        await pilot.press("5", "v")
        await until(pilot, lambda: "A run records them with its first validation" in on_screen(pilot))
        recorder = Recorder(run.database)
        recorder.meta({"validation_step": "10"})
        record_answers(recorder, "validation", np.array(RIGHT[:12]), 6)
        recorder.close()
        await until(pilot, lambda: len(rows(pilot)) == 12)


async def test_an_old_run_says_that_it_has_no_texts(tmp_path: Path) -> None:
    run = finished_run(tmp_path, correct=RIGHT)
    with duckdb.connect(str(run.database)) as connection:
        connection.execute("DROP TABLE questions").fetchall()
    async with open_app(tmp_path) as pilot:
        await open_newest_run(pilot)
        await pilot.press("5")
        await until(
            pilot, lambda: "an earlier version recorded its answers alone" in " ".join(on_screen(pilot).split())
        )


async def test_tasks_and_questions_look_as_they_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    freeze(monkeypatch)
    two_arms(tmp_path)
    async with open_app(tmp_path, SIZES[0]) as pilot:
        await open_newest_run(pilot)
        for name, key in (("tasks", "4"), ("questions", "5")):
            await pilot.press(key)
            for columns, lines in SIZES:
                await pilot.resize_terminal(columns, lines)
                await complete(pilot)
                assert_snapshot(f"{name}-{columns}x{lines}", on_screen(pilot).splitlines())
