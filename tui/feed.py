"""Data of the screens, read off the UI thread: `RunsFeed` for the table of runs, `RunFeed` for one run.

A `fetch` may block on the disk; it is called in a thread, one call at a time. The values it returns
never change afterwards, so the UI may draw them while the next fetch is under way.
"""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from accl.errors import AcclError, BusyError, DamagedError
from accl.store.deadline import DEADLINE_S, each_within
from accl.store.files import read_tail
from accl.store.follow import follow
from accl.store.reader import Confusion, Evaluation, Event, Follower, Task, Weights
from accl.store.rundir import RunDir, Setup, run_folders
from accl.store.state import RunState, State
from accl.store.summary import Summary, SummaryReader, as_problem, numbers, read_summaries
from accl.text import printable_lines
from tui import theme
from tui.scale import Curve
from tui.text import Piece

# The speed behind the ETA is averaged over the steps observed in this window.
SPEED_WINDOW_S = 30.0
MIN_SPEED_WINDOW_S = 3.0
CONSOLE_BYTES = 16384
STALE_S = 1.0  # a trainer holds its database for milliseconds; longer is said


@dataclass(frozen=True)
class RunSummary:
    """A run as one row of the table; the speed is NaN if unknown.

    Attributes:
        state: the defaults while `summary` has none.
    """

    summary: Summary
    state: RunState
    steps_per_second: float

    @property
    def run(self) -> RunDir:
        return self.summary.run

    @property
    def setup(self) -> Setup:
        return self.summary.setup or Setup("?", "?", -1)

    @property
    def seed(self) -> str:
        """Seed in words; a question mark if unknown."""
        return str(self.setup.seed) if self.summary.setup else "?"

    @property
    def created(self) -> float:
        """Time at which the run was made, in seconds since the epoch; infinite if unknown."""
        return self.summary.age_key[0]

    @property
    def reason(self) -> Piece:
        """Problem or reason of the state, in the colour of its severity."""
        problem = self.summary.problem
        if problem is not None:
            return without_path(str(problem), self.run), theme.ERROR
        failed = self.state.state in (State.CRASHED, State.FAILED)
        return self.state.reason, theme.ERROR if failed else theme.DIM

    @property
    def state_label(self) -> Piece:
        """Icon and name of the state, in its colour; of a run without one what keeps it from being read."""
        if self.summary.state is None:
            kind = self.summary.problem.kind if self.summary.problem else "unread"
            return f"? {kind}", theme.ERROR
        return f"{self.state.state.icon} {self.state.state}", theme.state_style(self.state.state)

    @property
    def active(self) -> bool:
        return self.summary.state is not None and self.state.state.active

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


class Speedometer:
    """Speed of a run over the steps that were observed lately."""

    def __init__(self) -> None:
        self._progress: deque[tuple[float, int]] = deque()  # time and step

    def observe(self, summary: Summary, now: float) -> RunSummary:
        """Add the speed to a summary; ``now`` is in seconds since the epoch."""
        state = summary.state or RunState()
        return RunSummary(summary, state, self._speed(state, now))

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


def without_path(message: str, run: RunDir) -> str:
    """Remove the path of the run directory, since every screen names the run beside the message."""
    return message.replace(f"{run.path}{os.sep}", "")


class RunsFeed:
    """Summaries of all runs in a folder, newest first."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._readers: dict[RunDir, tuple[SummaryReader, Speedometer]] = {}

    def fetch(self) -> list[RunSummary]:
        """Read all summaries.

        Raises:
            RunError: the folder cannot be read.
        """
        now, known = time.time(), self._readers
        self._readers = {run: known.get(run) or (SummaryReader(run), Speedometer()) for run in run_folders(self.root)}
        summaries = read_summaries([reader for reader, _ in self._readers.values()], now)
        summaries.sort(key=lambda summary: summary.age_key, reverse=True)
        return [self._readers[summary.run][1].observe(summary, now) for summary in summaries]


@dataclass(frozen=True)
class RunView:
    """All data of one run.

    Attributes:
        version: number that grows with every change of the measurements.
        figures: trivial baselines, by their key in the table ``meta``.
        task_accuracy: by split, the step, and the numbers of questions and of correct answers by task.
        stale: seconds for which the database could not be read.
        problem: why the database cannot be read now; the measurements are those read before.
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
    figures: dict[str, float] = field(default_factory=dict)
    stale: float = 0.0
    problem: AcclError | None = None

    def floors(self, split: str) -> dict[str, float]:
        """Return the recorded accuracies of the trivial baselines for a split, by name."""
        prefix = f"floor/{split}/"
        floors = {key: value for key, value in self.figures.items() if key.startswith(prefix)}
        return {key.removeprefix(prefix).replace("_", " "): value for key, value in floors.items()}


class RunFeed:
    """All data of one run, followed while it grows; the newest view is kept as ``last``."""

    def __init__(self, run: RunDir) -> None:
        self.run = run
        self._reader = SummaryReader(run)
        self._speedometer = Speedometer()
        self._follower = Follower(run)
        self.last = RunView(self._speedometer.observe(self._reader.last, time.time()))

    def fetch(self) -> RunView:
        """Read what is new; measurements that cannot be read are those of before, and a problem."""
        now, follower, view = time.time(), self._follower, self.last
        summary = self._reader.read(now)
        problem = summary.problem
        try:
            if follow(follower, summary.state):
                view = _measured(follower, view)
            problem = problem or follower.left_out
        except AcclError as error:
            if not isinstance(error, BusyError) or follower.stale_seconds >= STALE_S:
                problem = error
        self.last = replace(
            view,
            summary=self._speedometer.observe(summary, now),
            console=_tail(self.run.console),
            problem=problem,
            stale=follower.stale_seconds,
        )
        return self.last

    def failed(self, error: BaseException) -> RunView:
        """Return the data that were fetched last, with why `fetch` failed."""
        problem = as_problem(error, self.run.path)
        summary = replace(self._reader.last, problem=problem)
        return replace(self.last, summary=self._speedometer.observe(summary, time.time()), problem=problem)


def _measured(follower: Follower, before: RunView) -> RunView:
    series = {
        name: Curve(*(np.asarray(v, float) for v in (s.steps, s.epochs, s.seconds, s.values)))
        for name, s in follower.series.items()
    }
    return replace(
        before,
        version=before.version + 1,
        tasks=tuple(follower.tasks),
        series=series,
        curriculum=tuple(follower.curriculum),
        confusion=dict(follower.confusion),
        evaluations=tuple(follower.evaluations),
        task_accuracy=dict(follower.task_accuracy),
        events=tuple(follower.events),
        figures=numbers(follower.meta, ("floor/",)),
    )


def fetch_views(feeds: Sequence[RunFeed]) -> list[RunView]:
    """Fetch all data of several runs; one that fails, or does not answer in time, keeps its data and gets a problem."""
    return [
        feed.failed(answer) if isinstance(answer, BaseException) else answer
        for feed, answer in each_within(DEADLINE_S, RunFeed.fetch, feeds)
    ]


def _tail(path: Path) -> tuple[str, ...]:
    """Read the last lines of a log; of a line rewritten by carriage returns, the last version."""
    try:
        content = read_tail(path, CONSOLE_BYTES)
    except (FileNotFoundError, DamagedError):
        return ()
    lines = content.decode(errors="replace").split("\n")
    lines = lines[1:] if len(content) == CONSOLE_BYTES else lines
    return tuple(text for line in lines if (text := printable_lines(line).rstrip()))
