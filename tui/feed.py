"""Data of the screens, read off the UI thread: `RunsFeed` for the table of runs, `RunFeed` for one run.

A `fetch` may block on the disk; it is called in a thread, one call at a time. The values it returns
never change afterwards, so the UI may draw them while the next fetch is under way.
"""

from __future__ import annotations

import math
import os
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from accl.errors import AcclError, ConfigError, RunError
from accl.store.reader import Confusion, Evaluation, Event, Follower, Task, Weights
from accl.store.rundir import RunDir, Setup, list_runs
from accl.store.state import RunState, State, assess, read_state
from tui import theme
from tui.scale import Curve
from tui.text import Piece

# The speed behind the ETA is averaged over the steps observed in this window.
SPEED_WINDOW_S = 30.0
MIN_SPEED_WINDOW_S = 3.0
CONSOLE_BYTES = 16384


@dataclass(frozen=True)
class RunSummary:
    """A run as one row of the table; ``created``, in seconds since the epoch, and the speed are NaN if unknown.

    Attributes:
        problem: message about a file that could not be read.
        unreadable: whether that file is the state itself.
    """

    run: RunDir
    state: RunState
    setup: Setup
    created: float
    steps_per_second: float
    problem: str = ""
    unreadable: bool = False

    @property
    def reason(self) -> Piece:
        """Problem or reason of the state, in the colour of its severity."""
        failed = self.problem or self.state.state in (State.CRASHED, State.FAILED)
        return self.problem or self.state.reason, theme.ERROR if failed else theme.DIM

    @property
    def state_label(self) -> Piece:
        """Icon and name of the state, in its colour."""
        if self.unreadable:
            return "? unreadable", theme.ERROR
        return f"{self.state.state.icon} {self.state.state}", theme.state_style(self.state.state)

    @property
    def active(self) -> bool:
        return self.state.state.active and not self.unreadable

    @property
    def eta_seconds(self) -> float:
        """Estimated time to the last step; NaN when the run does not progress."""
        steps = self.state.total_steps - self.state.step
        if self.state.state is not State.RUNNING or not self.steps_per_second > 0 or steps <= 0:
            return math.nan
        return steps / self.steps_per_second

    def latest(self, metric: str) -> float:
        """Return the last value of a metric, or NaN."""
        return self.state.latest.get(metric, math.nan)

    @property
    def questions_per_second(self) -> float:
        """Training throughput; NaN when the run is not running."""
        return self.latest("questions_per_second") if self.state.state is State.RUNNING else math.nan

    def matches(self, words: str) -> bool:
        """Return whether every word is a part of the state, recipe, profile, seed or id."""
        setup = self.setup
        text = f"{self.state.state} {setup.recipe} {setup.profile} s{setup.seed} {self.run.id}".lower()
        return all(word in text for word in words.lower().split())


class RunSummaryReader:
    """Reader of one run's summary; it parses ``state.json`` only when the file was replaced."""

    def __init__(self, run: RunDir) -> None:
        self.run = run
        self._parsed_version: tuple[int, int] | None = None  # modification time and inode
        self._state = RunState()
        self._problem = ""
        self._setup: Setup | None = None
        self._progress: deque[tuple[float, int]] = deque()  # time and step

    def fetch(self, now: float) -> RunSummary:
        """Read the summary; ``now`` is in seconds since the epoch."""
        setup_problem = ""
        try:
            self._setup = self._setup or self.run.setup()
        except ConfigError as error:
            setup_problem = str(error)
        state = self._state
        try:
            status = os.stat(self.run.state)
            if self._parsed_version != (status.st_mtime_ns, status.st_ino):
                self._parsed_version = status.st_mtime_ns, status.st_ino
                state, self._problem = read_state(self.run), ""
                self._state = state
            if not self._problem:
                state = assess(state, self.run, now)
        except FileNotFoundError:
            pass
        except RunError as error:
            self._problem = str(error)
        return RunSummary(
            self.run,
            state,
            self._setup or Setup("?", "?", -1),
            _created(self.run),
            self._speed(state, now),
            _without_path(self._problem or setup_problem, self.run),
            bool(self._problem),
        )

    def _speed(self, state: RunState, now: float) -> float:
        progress = self._progress
        if progress and state.step < progress[-1][1]:
            progress.clear()
        if not progress or progress[-1][1] != state.step:
            progress.append((now, state.step))
        while len(progress) > 2 and now - progress[0][0] > SPEED_WINDOW_S:
            progress.popleft()
        (first_time, first_step), (last_time, last_step) = progress[0], progress[-1]
        if last_time - first_time >= MIN_SPEED_WINDOW_S:
            return (last_step - first_step) / (last_time - first_time)
        spent = state.elapsed + (state.heartbeat - state.started)
        return state.step / spent if state.step and spent > 0 else math.nan


def _without_path(message: str, run: RunDir) -> str:
    """Remove the path of the run directory, since every screen names the run beside the message."""
    return message.replace(f"{run.path}{os.sep}", "")


def _created(run: RunDir) -> float:
    """Return the time in the run's id, or that of its configuration file if the run was renamed."""
    with suppress(ValueError):
        return datetime.strptime(run.id[:15], "%Y%m%d-%H%M%S").timestamp()
    with suppress(OSError):
        return run.config.stat().st_mtime
    return math.nan


class RunsFeed:
    """Summaries of all runs in a folder, newest first."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._readers: dict[str, RunSummaryReader] = {}

    def fetch(self) -> list[RunSummary]:
        now = time.time()
        self._readers = {run.id: self._readers.get(run.id) or RunSummaryReader(run) for run in list_runs(self.root)}
        summaries = [reader.fetch(now) for reader in self._readers.values()]
        return sorted(summaries, key=lambda summary: (summary.created, summary.run.id), reverse=True)


@dataclass(frozen=True)
class RunView:
    """All data of one run.

    Attributes:
        version: number that grows with every change of the measurements.
        task_accuracy: by split, the step, and the numbers of questions and of correct answers by task.
        stale: seconds for which the database could not be read.
        problem: message about a database that cannot be read.
    """

    summary: RunSummary
    version: int = 0
    tasks: tuple[Task, ...] = ()
    series: dict[str, Curve] = field(default_factory=dict)
    curriculum: tuple[Weights, ...] = ()
    confusion: dict[str, Confusion] = field(default_factory=dict)
    evaluations: tuple[Evaluation, ...] = ()
    task_accuracy: dict[str, tuple[int, NDArray[np.int64], NDArray[np.int64]]] = field(default_factory=dict)
    events: tuple[Event, ...] = ()
    console: tuple[str, ...] = ()
    meta: dict[str, str] = field(default_factory=dict)
    stale: float = 0.0
    problem: str = ""

    def floors(self, split: str) -> dict[str, float]:
        """Return the recorded accuracies of the trivial baselines for a split, by name."""
        prefix = f"floor/{split}/"
        return {
            key.removeprefix(prefix).replace("_", " "): float(value)
            for key, value in self.meta.items()
            if key.startswith(prefix)
        }


class RunFeed:
    """All data of one run, followed while it grows."""

    def __init__(self, run: RunDir) -> None:
        self.run = run
        self._reader = RunSummaryReader(run)
        self._follower = Follower(run)
        self._version = 0
        self._series: dict[str, Curve] = {}

    def fetch(self) -> RunView:
        summary, follower, problem = self._reader.fetch(time.time()), self._follower, ""
        try:
            if follower.refresh():
                self._version += 1
                self._series = {
                    name: Curve(*(np.asarray(v, float) for v in (s.steps, s.epochs, s.seconds, s.values)))
                    for name, s in follower.series.items()
                }
        except AcclError as error:
            problem = _without_path(str(error), self.run)
        return RunView(
            summary,
            self._version,
            tuple(follower.tasks),
            self._series,
            tuple(follower.curriculum),
            dict(follower.confusion),
            tuple(follower.evaluations),
            dict(follower.task_accuracy),
            tuple(follower.events),
            _tail(self.run.console),
            dict(follower.meta),
            follower.stale_seconds,
            problem,
        )


def _tail(path: Path) -> tuple[str, ...]:
    """Read the last lines of a log; of a line rewritten by carriage returns, the last version."""
    try:
        with open(path, "rb") as file:
            file.seek(0, os.SEEK_END)
            truncated = file.tell() > CONSOLE_BYTES
            file.seek(max(0, file.tell() - CONSOLE_BYTES))
            lines = file.read().decode(errors="replace").split("\n")
    except OSError:
        return ()
    lines = lines[1:] if truncated else lines
    return tuple(printable for line in lines if (printable := _printable(line)))


def _printable(line: str) -> str:
    text = line.rstrip("\r").rsplit("\r", 1)[-1].expandtabs(4)
    return "".join(character for character in text if character.isprintable()).rstrip()
