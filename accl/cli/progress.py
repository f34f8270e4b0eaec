"""The live view of a run in the foreground."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable

from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from accl.cli.foreground import Foreground
from accl.cli.output import SafeConsole, say
from accl.cli.table import percent
from accl.errors import AbsentError, BusyError, ConfigError, RunError, TrainingError
from accl.launch import process
from accl.store.lock import holder
from accl.store.rundir import RunDir
from accl.store.state import RunState, State, observe
from accl.text import duration

POLL_EVERY_S = 0.25
# Of errors that say more than that training failed, which a trainer ends with as any command does.
OWN_CODES = range(ConfigError.exit_code, AbsentError.exit_code + 1)


def show_progress(run: RunDir, start: Callable[[], subprocess.Popen[bytes]]) -> int:
    """Start the trainer of a run, show it until it ends, and return the exit code for the command.

    Raises:
        BusyError: another process holds the run.
        TrainingError: the run failed or crashed; its reason is the message. Its exit code is that of the trainer where
            an error of accl ended it.
    """
    console = SafeConsole(err=True)
    with Foreground(start) as foreground:
        say(f"run {run.id}   watch it in another terminal: accl tui", err=True)
        _follow(run, foreground, console)
    return _report(run, observe(run), foreground.process.returncode, console)


def _follow(run: RunDir, foreground: Foreground, console: SafeConsole) -> None:
    answered, printed = 0, ""
    drawn = console.is_terminal and not console.is_dumb_terminal
    with Live(console=console, refresh_per_second=8, transient=True, auto_refresh=drawn) as live:
        while True:
            ended = foreground.process.poll() is not None
            state = observe(run)
            if drawn:
                live.update(_view(state, foreground.presses > 0))
            else:
                printed = print_progress(console, state, printed)
            if ended:
                return
            if foreground.presses > answered:
                _interrupt(run, console, kill=answered > 0)
                answered = foreground.presses
            time.sleep(POLL_EVERY_S)


def _interrupt(run: RunDir, console: SafeConsole, kill: bool) -> None:
    """Ask for a graceful stop, or kill a run that was asked before."""
    try:
        process.stop(run, kill)
        if not kill:
            console.print("stopping after this step, with a checkpoint; Ctrl-C again kills it now")
    except RunError as error:
        console.print(str(error))


def _view(state: RunState, stopping: bool) -> Table:
    grid = Table.grid(padding=(0, 1))
    word = f"{state.state.icon} {'stopping' if stopping else state.phase or state.state.value}"
    left, speed = state.left_seconds, state.latest.get("questions_per_second", 0.0)
    if not state.total_steps:
        grid.add_row(Text(f"{word} …"))
        return grid
    texts = [
        f"{state.step:,}/{state.total_steps:,}",
        figures(state),
        f"{speed:,.0f} questions/s" if speed else "",
        f"ETA {duration(left)}" if left is not None else "",
    ]
    bar = ProgressBar(total=state.total_steps, completed=state.step, width=24)
    grid.add_row(Text(word), bar, *map(Text, texts))
    return grid


def figures(state: RunState) -> str:
    """Return the newest loss and validation accuracy of a run, as far as there are any."""
    loss, accuracy = state.latest.get("train/loss"), state.latest.get("validation/accuracy")
    parts = [
        "" if loss is None else f"loss {loss:.3f}",
        "" if accuracy is None else f"validation {percent(accuracy)} %",
    ]
    return "  ".join(filter(None, parts))


def print_progress(console: SafeConsole, state: RunState, printed: str, label: str = "") -> str:
    """Print a line when the phase changes, and one for each tenth of the way, each after a label.

    Args:
        printed: what the last call returned, or nothing.
    """
    tenth = 10 * state.step // state.total_steps if state.total_steps else 0
    now = f"{state.phase} {tenth}" if state.phase == "training" else state.phase
    if now and now != printed and state.state.active:
        way = f" {state.step:,}/{state.total_steps:,} {figures(state)}" if state.total_steps else ""
        console.print(f"{label}{state.phase}{way}", soft_wrap=True)
    return now or printed


def _report(run: RunDir, state: RunState, code: int, console: SafeConsole) -> int:
    if state.state is State.FINISHED:
        took, then = duration(state.ended - state.started), f"accl show {run.typed}"
        accuracy = f"test accuracy {percent(state.latest.get('test/accuracy'))} %{_floors(run)}"
        if "test/accuracy" not in state.latest:  # eval.test=false
            best = percent(state.validated)
            accuracy, then = f"validation accuracy {best} %, test split unread", f"accl test {run.typed}"
        console.print(f"{state.state.icon} finished in {took}: {accuracy}\n  {then}", soft_wrap=True)
        return 0
    if state.state is State.STOPPED:
        console.print(f"{state.state.icon} {state.reason}", soft_wrap=True)
        return state.exit_code or 0
    if code == BusyError.exit_code and state.state.active:
        raise BusyError(f"{run.id} is held by {holder(run) or 'another trainer'} now.", f"See: accl show {run.typed}")
    # Its process has ended, whatever a heartbeat that is still young says.
    word = State.CRASHED if state.state.active else state.state
    what = f"{run.id} {word}: {state.reason or f'exit code {code}'}"
    error = TrainingError(what, f"The whole story: accl logs {run.typed}")
    if code in OWN_CODES:
        error.exit_code = code
    raise error


def _floors(run: RunDir) -> str:
    """Write the accuracies of the rules that never read the question, to stand beside that of the run."""
    from accl.store.reader import query  # which imports DuckDB

    try:
        [rows] = query(run.database, ("SELECT key, value FROM run.meta WHERE key LIKE 'floor/test/%' ORDER BY key", ()))
    except RunError:
        return ""
    names = {"majority_letter": "most frequent letter", "longest_option": "longest option"}
    parts = [f"{names.get(key.rsplit('/', 1)[-1], key)} {percent(float(value))} %" for key, value in rows]
    return f" (floors: {', '.join(parts)})" if parts else ""
