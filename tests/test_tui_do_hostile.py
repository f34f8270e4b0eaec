"""Runs whose every text tries to act on a terminal, in the screens that do something with them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hostile import EVIL, acting, hostile_run
from textual.pilot import Pilot
from textual.screen import ModalScreen
from textual.widgets import Input
from tui_pilot import on_screen, open_app, runs_listed, until

from accl.launch import queue
from accl.store.experiment import write_experiment
from accl.store.rundir import RunDir
from accl.store.state import State, read_state, write_state
from accl.store.waiting import Waiting, write_waiting
from tui.screens.queue import QueueScreen
from tui.snapshot import _lines as lines_of


@pytest.fixture(name="run")
def _run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDir:
    """A hostile run that waits in the queue."""
    monkeypatch.setattr("tui.load.machine_load", lambda: (EVIL,))
    monkeypatch.setattr(queue, "ensure_worker", lambda _: None)
    run = hostile_run(tmp_path)
    write_experiment(run, EVIL)
    write_state(run, read_state(run).changed(state=State.QUEUED))
    write_waiting(run, Waiting(1.0, 1.0, paused=EVIL, folder=os.getcwd(), command=(EVIL,)))
    return run


def drawn(pilot: Pilot[None]) -> str:
    return "\n".join(line.text for line in lines_of(pilot.app))  # type: ignore[arg-type]


async def test_no_form_or_question_draws_text_that_a_terminal_acts_upon(run: RunDir) -> None:
    async with open_app(run.path.parent, (160, 45)) as pilot:
        await runs_listed(pilot)
        screen = pilot.app.screen
        for key in ("T", "N", "E", "D", "R", "L", "n"):
            await pilot.press(key)
            await until(pilot, lambda: isinstance(pilot.app.screen, ModalScreen))
            await until(pilot, lambda: not getattr(pilot.app.screen, "pending", ""))
            shown = drawn(pilot)
            assert not acting(shown), (key, shown)
            assert not any(acting(line.value) for line in pilot.app.screen.query(Input)), key
            await pilot.press("escape")
            await until(pilot, lambda: pilot.app.screen is screen)


async def test_the_queue_draws_none_either(run: RunDir) -> None:
    async with open_app(run.path.parent, (200, 45)) as pilot:
        await runs_listed(pilot)
        await pilot.press("Q")
        await until(pilot, lambda: isinstance(pilot.app.screen, QueueScreen) and "owned" in on_screen(pilot))
        assert not acting(drawn(pilot))
        assert "paused" in drawn(pilot)
