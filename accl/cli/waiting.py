"""Waiting for many runs, in the queue or training, with the progress of each; and `accl wait`."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from accl.cli.options import RUNS, QueryArgument, RunsOption
from accl.cli.output import SafeConsole, print_notes, say
from accl.cli.progress import figures
from accl.cli.table import Justify, percent
from accl.errors import INTERRUPTED, BusyError, RunError, TrainingError
from accl.launch import queue
from accl.store.rundir import RunDir, run_folders
from accl.store.selection import matching_summaries
from accl.store.state import State, observe
from accl.store.summary import Summary, SummaryReader, read_summaries
from accl.store.waiting import read_waiting
from accl.text import counted, duration, printable, shortened

POLL_EVERY_S, LAST_POLL_EVERY_S = 0.5, 0.1
BUSY_SHARE = 10  # a look at many runs is followed by a pause so many times as long
WORKER_EVERY_S = 2.0
FRAME = 3  # lines of a terminal beside the runs: the head line, one for what is left out, and the cursor's
NAME, BAR = 16, 19  # columns of a name where there is room for all, and of a bar or a phase
BESIDE = 55  # columns that all but the name take at most
LEFT: tuple[Justify, ...] = ("left",)
RIGHT: tuple[Justify, ...] = ("right",)
INTERRUPT = 130  # exit code of a command that Ctrl-C ended


def wait(query: QueryArgument = None, runs: RunsOption = RUNS) -> None:
    """Wait for all that trains or waits, and show how each run goes.

    A QUERY waits for some, as in accl runs. Ctrl-C ends the command and none of the runs.

    The exit code is 0 if all finished, 75 if a scheduler interrupted those that did not, and 9 otherwise:
    one failed, crashed or was stopped, or all that is left is paused.

    Examples:

      accl wait

      accl wait experiment:weights && accl compare baseline contrastive full
    """
    import typer

    from accl.cli.foreground import end_on_signals

    end_on_signals()
    text = " ".join(query or ())
    active = [each for each in matching_summaries(run_folders(runs), text) if each.state and each.state.state.active]
    chosen = [each.run for each in active if not _unqueued(each)]
    if not chosen:
        print_notes([f"nothing {f'that matches {text} ' if text else ''}trains or waits in {runs}"])
        return
    raise typer.Exit(wait_for(runs, chosen))


def wait_for(root: Path, runs: Sequence[RunDir]) -> int:
    """Show how runs go until all have ended, and return the exit code for the command, as `wait` describes it.

    While one waits for its turn, it is seen to that the queue has a worker. Runs that are paused are waited for as
    long as others go on. Ctrl-C ends the waiting alone.

    Raises:
        RunError: the worker does not start.
    """
    readers = [SummaryReader(run) for run in runs]
    console = SafeConsole(err=True)
    drawn = console.is_terminal and not console.is_dumb_terminal
    names = short_names(read_summaries(readers, time.time()))
    width = max(map(len, names.values()), default=0)
    padded = {run: f"{name:<{width}}" for run, name in names.items()}
    printed, looked_after = dict.fromkeys(runs, ""), 0.0
    try:
        with Live(console=console, refresh_per_second=4, transient=True, auto_refresh=drawn) as live:
            while True:
                begun = time.monotonic()
                summaries = read_summaries(readers, time.time())
                pending = [each for each in summaries if _pending(each)]
                if drawn:
                    live.update(_view(summaries, names, (console.width, console.height)))
                for summary in summaries if not drawn else ():
                    printed[summary.run] = _print_news(console, summary, padded[summary.run], printed[summary.run])
                if not pending:
                    break
                if time.monotonic() - looked_after > WORKER_EVERY_S:
                    queue.ensure_worker(root)
                    looked_after = time.monotonic()
                time.sleep(max(_patience(pending), BUSY_SHARE * (time.monotonic() - begun)))
    except KeyboardInterrupt:
        say("all of them go on by themselves", "to look again:  accl wait   accl queue   accl tui", err=True)
        return INTERRUPT
    return _report(summaries, names, told=not drawn)


def short_names(summaries: Sequence[Summary]) -> dict[RunDir, str]:
    """Return what to call runs beside each other: a name that a person gave, arm and seed, or else the id."""
    from accl.analysis.grouping import group_runs

    known = [each for each in summaries if each.setup]
    arms = group_runs([(each.setup.recipe, each.setup.seed, each.config) for each in known if each.setup])
    labels = {known[i].run: f"{arm.label} s{s.seed}" for arm in arms for i in arm.members if (s := known[i].setup)}
    names = {each.run: each.labels.name or labels.get(each.run, each.run.id) for each in summaries}
    counts = Counter(names.values())
    return {run: printable(name if counts[name] == 1 else run.id) for run, name in names.items()}


def _pending(summary: Summary) -> bool:
    """Return whether a run trains, will by itself, or may, since its folder does not answer at the moment."""
    if summary.state is None:
        return isinstance(summary.problem, BusyError)
    if summary.state.state is not State.QUEUED:
        return summary.state.state.active
    return not (_paused(summary) or _unqueued(summary))


def _patience(pending: Sequence[Summary]) -> float:
    """Return the seconds until the next look: runs that have no steps left may end at any moment."""
    states = [each.state for each in pending]
    closing = all(state is not None and 0 < state.total_steps <= state.step for state in states)
    return LAST_POLL_EVERY_S if closing else POLL_EVERY_S


def _unqueued(summary: Summary) -> bool:
    """Return whether a prepared run has no place in the queue, so that nobody will start it."""
    if summary.state is None or summary.state.state is not State.QUEUED:
        return False
    try:
        # Its place is gone when it is started, which may have been since its state was read.
        return read_waiting(summary.run) is None and observe(summary.run).state is State.QUEUED
    except RunError:
        return True


def _paused(summary: Summary) -> str:
    """Return why a waiting run is paused; empty if it is not."""
    try:
        place = read_waiting(summary.run) if summary.state and summary.state.state is State.QUEUED else None
    except RunError:
        return ""
    return place.paused if place else ""


def _view(summaries: Sequence[Summary], names: dict[RunDir, str], size: tuple[int, int]) -> Group:
    """Return a line on all runs, and below it as many of them as there is room for, those that train first.

    Args:
        size: columns and lines of the terminal.
    """
    columns, room = size[0], max(1, size[1] - FRAME)
    counts = Counter(map(_word, summaries))
    order = sorted(summaries, key=lambda each: (not _pending(each), each.state is None or not each.state.step))
    narrow = columns < NAME + BESIDE
    width = max(1, columns - BAR - 4) if narrow else columns - BESIDE
    rows = Table.grid(padding=(0, 1, 0, 0))
    for justify in LEFT * 3 if narrow else LEFT * 3 + RIGHT * 3:
        rows.add_column(no_wrap=True, justify=justify)
    for summary in order[:room]:
        rows.add_row(*_cells(summary, _both_ends(names[summary.run], width))[: len(rows.columns)])
    left_out = [Text(f"… {len(order) - room} more")] if len(order) > room else []
    head = Text("   ".join(f"{count} {word}" for word, count in counts.items()), no_wrap=True, overflow="ellipsis")
    return Group(head, rows, *left_out)


def _cells(summary: Summary, name: str) -> list[Text | ProgressBar]:
    """Return icon, name, what a run does, its steps, validation accuracy and time left."""
    state = summary.state
    if state is None:
        return [Text("?"), Text(name), Text(_word(summary))]
    steps = f"{state.step:,}/{state.total_steps:,}" if state.total_steps else ""
    accuracy, left = state.latest.get("validation/accuracy"), state.left_seconds
    doing: Text | ProgressBar = Text(_word(summary))
    if state.state.trains:
        words = printable(state.phase or state.state.value)
        doing = Text(words if len(words) <= BAR else f"{words[: BAR - 1]}…")
        if state.phase == "training":
            doing = ProgressBar(total=state.total_steps, completed=state.step, width=BAR)
    return [
        Text(state.state.icon),
        Text(name),
        doing,
        Text(steps),
        Text("" if accuracy is None else f"{percent(accuracy)} %"),
        Text("" if left is None else duration(left)),
    ]


def _both_ends(text: str, width: int) -> str:
    """Return a text of at most ``width`` characters: of a longer one both ends, since the seed stands last."""
    half = width // 2
    return text if len(text) <= width else f"{text[: width - half - 1]}…{text[-half:]}"


def _word(summary: Summary) -> str:
    """Return the state of a run in a word for people."""
    if summary.state is None:
        return summary.problem.kind if summary.problem else "unreadable"
    match summary.state.state:
        case State.QUEUED:
            return "paused" if _paused(summary) else "waiting"
        case State.RUNNING:
            return "training"
    return summary.state.state.value


def _print_news(console: SafeConsole, summary: Summary, name: str, printed: str) -> str:
    """Print a line when a run starts, at each tenth of its way, and when it ends.

    Args:
        printed: what the last call returned, or nothing.
    """
    state = summary.state
    if state is None or not state.state.trains or not state.total_steps:
        news = line = f"{_word(summary)}{_because(summary)}"
    else:
        news = f"{10 * state.step // state.total_steps}"
        line = f"{state.step:,}/{state.total_steps:,}  {figures(state)}"
    if news != printed:
        icon = state.state.icon if state else "?"
        console.print(printable(f"{icon} {name}  {line}".rstrip()), soft_wrap=True)
    return news


def _because(summary: Summary) -> str:
    """Return how well a finished run did, or why another is not finished, after a colon."""
    state = summary.state
    if state is None:
        return f": {summary.problem}" if summary.problem else ""
    if state.state is State.FINISHED:
        splits = [split for split in ("test", "validation") if f"{split}/accuracy" in state.latest]
        words = [f"{split} {percent(state.latest[f'{split}/accuracy'])} %" for split in splits]
        return f" in {duration(state.ended - state.started)}{': ' if words else ''}{', '.join(words)}"
    reason = "" if state.state.active else state.reason
    return f": {shortened(reason)}" if reason else ""


def _report(summaries: Sequence[Summary], names: dict[RunDir, str], told: bool) -> int:
    """Say how runs ended, and return the exit code.

    Args:
        told: whether it has been said of each of them.
    """
    width = max(map(len, names.values()), default=0)
    for each in () if told else summaries:
        icon = each.state.state.icon if each.state else "?"
        say(f"{icon} {names[each.run]:<{width}}  {_word(each)}{_because(each)}", err=True)
    unfinished = [each for each in summaries if not each.has_finished]
    count = len(summaries) - len(unfinished)
    say(f"{count} of {counted(len(summaries), 'run')} finished", err=True)
    if not unfinished:
        return 0
    if reasons := dict.fromkeys(filter(None, map(_paused, unfinished))):
        say(*(f"paused: {reason}" for reason in reasons), "to go on with what is paused:  accl queue resume", err=True)
    interrupted = all(each.state and each.state.interrupted_by for each in unfinished)
    return INTERRUPTED if interrupted else TrainingError.exit_code
