"""Stopping a run: the question before, the request, and its outcome."""

from __future__ import annotations

from textual.app import App, ComposeResult
from textual.containers import Vertical
from textual.screen import ModalScreen

from accl.errors import AcclError
from accl.store.rundir import RunDir
from tui import theme
from tui.keys import bindings
from tui.threads import in_daemon_thread
from tui.widgets.keybar import KeyBar
from tui.widgets.text import Text


class ConfirmScreen(ModalScreen[bool]):
    """Ask whether the run should be stopped; the result is the answer."""

    BINDINGS = bindings("confirm")

    def __init__(self, run_id: str) -> None:
        super().__init__()
        self.run_id = run_id

    def compose(self) -> ComposeResult:
        with Vertical(id="question"):
            yield Text(id="question-text")
            yield KeyBar("confirm")

    def on_mount(self) -> None:
        self.query_one("#question-text", Text).show(
            [("Stop this run?", theme.TITLE)],
            [(self.run_id, theme.BOLD)],
            [],
            [("It finishes its step, writes a checkpoint,", theme.DIM)],
            [("and can be resumed later.", theme.DIM)],
        )


def stop_after_confirmation(app: App[None], run: RunDir, state: str, active: bool) -> None:
    """Ask the user, then ask the run to stop after its current step.

    Failures become notifications, and so does the ``state`` of a run that is not ``active``.
    """

    def on_answer(confirmed: bool | None) -> None:
        if confirmed:
            # A worker of the app, not of the screen: leaving the screen must not cancel the request.
            app.run_worker(_stop(app, run), group="stop")

    if active:
        app.push_screen(ConfirmScreen(run.id), on_answer)
    else:
        app.notify(f"It is {state} already.", title=run.id, markup=False)


async def _stop(app: App[None], run: RunDir) -> None:
    from accl.launch import process  # not needed to show runs: imported late for a fast start

    try:
        await in_daemon_thread(lambda: process.stop(run))
    except AcclError as error:
        app.notify(str(error), title="Not stopped", severity="error", markup=False)
    else:
        app.notify("It finishes its step, writes a checkpoint and ends.", title=f"Stopping {run.id}", markup=False)
