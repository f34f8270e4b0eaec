"""The live view of a run in the foreground, and what Ctrl-C means there."""

from __future__ import annotations

import subprocess
import time

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from accl.cli.output import duration, percent
from accl.errors import RunError, TrainingError
from accl.launch import process
from accl.store.reader import StoreBusyError, query
from accl.store.rundir import RunDir
from accl.store.state import RunState, State, observe

LOOK_EVERY_S = 0.25


def watch(run: RunDir, started: subprocess.Popen[bytes]) -> int:
    """Show a run until it ends; returns the exit code for the command.

    Raises:
        TrainingError: the run failed or crashed; its reason is the message.
    """
    console = Console(stderr=True)
    console.print(
        f"run [bold]{run.id}[/bold]   watch it in another terminal: accl tui", highlight=False, soft_wrap=True
    )
    asked = False
    with Live(console=console, refresh_per_second=8, transient=True, auto_refresh=console.is_terminal) as live:
        said = ""
        while True:
            try:
                ended = started.poll() is not None
                state = observe(run)
                if console.is_terminal:
                    live.update(_view(state, asked))
                else:
                    said = _say(console, state, said)
                if ended:
                    break
                time.sleep(LOOK_EVERY_S)
            except KeyboardInterrupt:
                asked = _interrupt(run, console, asked)
    return _report(run, observe(run), started.returncode, console)


def _interrupt(run: RunDir, console: Console, asked: bool) -> bool:
    try:
        if asked:
            process.kill(run)
        else:
            process.stop(run)
            console.print("stopping after this step, with a checkpoint; Ctrl-C again kills it now")
    except RunError as error:
        console.print(str(error))
    return True


def _view(state: RunState, asked: bool) -> Table:
    grid = Table.grid(padding=(0, 1))
    word = "stopping" if asked else state.phase or state.state.value
    left, speed = state.left_seconds, state.latest.get("questions_per_second", 0.0)
    if state.total_steps:
        grid.add_row(
            Text(f"{state.state.icon} {word}"),
            ProgressBar(total=state.total_steps, completed=state.step, width=24),
            Text(f"{state.step:,}/{state.total_steps:,}"),
            Text(_figures(state)),
            Text(f"{speed:,.0f} questions/s" if speed else ""),
            Text(f"ETA {duration(left)}" if left is not None else ""),
        )
    else:
        grid.add_row(Text(f"{state.state.icon} {word} …"))
    return grid


def _figures(state: RunState) -> str:
    latest = state.latest
    parts = []
    if "train/loss" in latest:
        parts.append(f"loss {latest['train/loss']:.3f}")
    if "validation/accuracy" in latest:
        parts.append(f"validation {percent(latest['validation/accuracy'])} %")
    return "  ".join(parts)


def _say(console: Console, state: RunState, said: str) -> str:
    """Where there is no terminal: a line when the phase changes, and one for each tenth of the way."""
    tenth = 10 * state.step // state.total_steps if state.total_steps else 0
    now = f"{state.phase} {tenth}" if state.phase == "training" else state.phase
    if now and now != said and state.state.active:
        way = f" {state.step:,}/{state.total_steps:,} {_figures(state)}" if state.total_steps else ""
        console.print(f"{state.phase}{way}", highlight=False, soft_wrap=True)
    return now or said


def _report(run: RunDir, state: RunState, code: int, console: Console) -> int:
    if state.state is State.FINISHED:
        accuracy = state.latest.get("test/accuracy")
        console.print(
            f"{state.state.icon} finished in {duration(state.ended - state.started)}: "
            f"test accuracy {percent(accuracy)} %{_floors(run)}",
            highlight=False,
            soft_wrap=True,
        )
        console.print(f"  accl show {run.id}", highlight=False, soft_wrap=True)
        return 0
    if state.state is State.STOPPED:
        console.print(f"{state.state.icon} {state.reason}", highlight=False, soft_wrap=True)
        return 0
    raise TrainingError(
        f"{run.id} {state.state}: {state.reason or f'exit code {code}'}", f"The whole story: accl logs {run.id}"
    )


def _floors(run: RunDir) -> str:
    """What one gets without reading the question, beside every accuracy."""
    try:
        [rows] = query(run.database, ("SELECT key, value FROM run.meta WHERE key LIKE 'floor/test/%' ORDER BY key", ()))
    except StoreBusyError:
        return ""
    names = {"majority_letter": "most frequent letter", "longest_option": "longest option"}
    parts = [f"{names.get(key.rsplit('/', 1)[-1], key)} {percent(float(value))} %" for key, value in rows]
    return f" (floors: {', '.join(parts)})" if parts else ""
