"""Actions on runs that more than one screen offers."""

from __future__ import annotations

from textual.screen import Screen

from accl.errors import AcclError
from accl.store.rundir import RunDir
from tui.messages import Ask
from tui.threads import in_daemon_thread


def stop_after_confirmation(screen: Screen[None], run: RunDir, state: str, active: bool) -> None:
    """Ask the user, then ask the run to stop after its current step.

    Failures become notifications, and so does the ``state`` of a run that is not ``active``.
    """
    if not active:
        screen.notify(f"It is {state} already.", title=run.id, markup=False)
        return
    app = screen.app

    async def stop() -> None:
        from accl.launch import process  # not needed to show runs: imported late for a fast start

        try:
            await in_daemon_thread(lambda: process.stop(run))
        except AcclError as error:
            app.notify(str(error), title="Not stopped", severity="error", markup=False)
        else:
            app.notify("It finishes its step, writes a checkpoint and ends.", title=f"Stopping {run.id}", markup=False)

    consequences = ("It finishes its step, writes a checkpoint,", "and can be resumed later.")
    screen.post_message(Ask("Stop this run?", run.id, consequences, stop))
