"""Data of the screens: `RunsFeed` for the table of runs, `RunFeed` for one run.

A `fetch` may block on the disk, and is called by `tui.watch.Watcher`. The values it returns never change afterwards, so
the UI may draw them while the next fetch is under way.
"""

from __future__ import annotations

import math
import os
import time
from collections import defaultdict
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from accl.errors import AcclError, BusyError
from accl.store.columns import RunReader
from accl.store.deadline import DEADLINE_S, each_within
from accl.store.follow import follow
from accl.store.measurements import Measurements
from accl.store.rundir import RunDir, Setup, run_folders
from accl.store.state import RunState, State
from accl.store.summary import Summary, SummaryReader, as_problem, numbers, read_summaries
from tui import theme
from tui.armnames import ArmNames
from tui.text import Piece

if TYPE_CHECKING:
    from accl.store.facts import Facts, FactsReader

# The speed behind the ETA is that over the newest observations of progress, one a second at most: some minutes.
OBSERVATIONS = 240
PAST_S = 60.0  # of progress before the first of them, taken as even
MIN_OBSERVED_S = 3.0
PARTS = 8  # of the observations, whose speeds are compared
MIN_SPEEDS = 3  # fewer say nothing about their spread
RARELY = 10
SETTLED_S = 5.0
STALE_S = 1.0  # a trainer holds its database for milliseconds; longer is said


@dataclass(frozen=True)
class RunSummary:
    """A run as one row of the table; the speed is NaN if unknown.

    Attributes:
        state: the defaults while `summary` has none.
        speed_spread: standard deviation of the speed, as a share of it; NaN if unknown.
        arm: name of its arm among all runs of its folder and profile; empty while nobody has told them apart.
    """

    summary: Summary
    state: RunState
    steps_per_second: float
    speed_spread: float = math.nan
    arm: str = ""

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
    def trains(self) -> bool:
        return self.summary.state is not None and self.state.state.trains

    @property
    def left_seconds(self) -> float:
        """Estimated time to the last step; NaN when the run does not progress."""
        left = self.state.left_at(self.steps_per_second)
        return math.nan if left is None else left

    def latest(self, metric: str) -> float:
        """Return the last value of a metric, or NaN."""
        return self.state.latest.get(metric, math.nan)

    @property
    def validated(self) -> float:
        """Validation accuracy of the best weights; NaN if unknown."""
        return math.nan if (validated := self.state.validated) is None else validated

    @property
    def questions_per_second(self) -> float:
        """Training throughput; NaN when the run is not running."""
        return self.latest("questions_per_second") if self.state.state is State.RUNNING else math.nan


class Speedometer:
    """Speed of a run over the last minutes, the pauses between steps for validations and checkpoints included.

    A pause counts once it is over, and for as long as the steps around it do.
    """

    def __init__(self) -> None:
        self._progress: list[tuple[float, float]] = []  # time and step; replaced, as threads share it

    def observe(self, summary: Summary, now: float) -> RunSummary:
        """Add the speed to a summary; ``now`` is in seconds since the epoch."""
        state = summary.state
        if state is None:
            return RunSummary(summary, RunState(), math.nan)
        self._progress = progress = _continued(self._progress, state, now)
        return RunSummary(summary, state, _speed(progress), _spread(progress))


class Speedometers(defaultdict[RunDir, Speedometer]):
    """Speedometers by run; those who share them say the same of a run."""

    def __init__(self) -> None:
        super().__init__(Speedometer)


def _continued(progress: list[tuple[float, float]], state: RunState, now: float) -> list[tuple[float, float]]:
    """Add an observation, unless no step was made since the last one."""
    if progress and progress[-1][1] == 0 < state.step:
        return [(now, state.step)]  # what came before is the start
    if not progress or state.step < progress[-1][1]:
        spent = state.elapsed + (state.heartbeat - state.started)
        if state.step and spent > 0:
            past = min(spent, PAST_S)
            return [(now - past, state.step - state.step / spent * past), (now, state.step)]
        return [(now, state.step)]
    return progress if progress[-1][1] == state.step else [*progress, (now, state.step)][-OBSERVATIONS:]


def _speed(progress: list[tuple[float, float]]) -> float:
    (first_time, first_step), (last_time, last_step) = progress[0], progress[-1]
    seconds = last_time - first_time
    return (last_step - first_step) / seconds if seconds >= MIN_OBSERVED_S else math.nan


def _spread(progress: list[tuple[float, float]]) -> float:
    """Return the standard deviation of the speeds of parts of the observations, as a share of their mean."""
    if len(progress) <= MIN_SPEEDS:
        return math.nan
    times, steps = np.array(progress)[:: max(1, len(progress) // PARTS)].T
    speeds = np.diff(steps) / np.maximum(np.diff(times), 1e-9)
    return float(speeds.std(ddof=1) / speeds.mean())


def without_path(message: str, run: RunDir) -> str:
    """Remove the path of the run directory, since every screen names the run beside the message."""
    return message.replace(f"{run.path}{os.sep}", "")


@dataclass(frozen=True)
class RunsView:
    """All runs of a folder.

    Attributes:
        summaries: newest first.
        changed: runs that are new, or whose summary is another than at the last look.
        version: how many views there were before.
    """

    summaries: tuple[RunSummary, ...]
    changed: frozenset[RunDir]
    version: int = 0


class RunsFeed:
    """Summaries of all runs in a folder; the newest view is kept as ``last``.

    Of runs that have ended, only every `RARELY`-th look takes notice.
    """

    def __init__(self, root: Path, speedometers: Speedometers) -> None:
        self.root = root
        self._speedometers = speedometers
        self._readers: dict[RunDir, tuple[SummaryReader, Speedometer]] = {}
        self._summaries: dict[RunDir, RunSummary] = {}
        self.last = RunsView((), frozenset())
        self._arms = ArmNames()
        self._listed = -1  # time of the last change of the folder that was seen
        self._looks = 0
        self._closely = False  # whether the next look takes notice of everything
        self._changed: dict[RunDir, int] = {}  # version in which each run changed last
        self._fetched = -math.inf  # time of the last look

    def fetch(self) -> RunsView | None:
        """Read the summaries; None if they are those of before.

        Raises:
            RunError: the folder cannot be read.
            BusyError: it does not answer in time.
        """
        now, rarely = time.time(), self._closely or self._looks % RARELY == 0
        self._closely = False
        self._looks += 1
        known, summaries = self._readers, self._summaries
        if self._folder_may_have_changed(now) or rarely:
            runs = run_folders(self.root)
            self._readers = {run: known.get(run) or (SummaryReader(run), self._speedometers[run]) for run in runs}
        due = [reader for run, (reader, _) in self._readers.items() if rarely or not _has_ended(summaries.get(run))]
        read = {
            summary.run: self._readers[summary.run][1].observe(summary, now) for summary in read_summaries(due, now)
        }
        now_there = {run: read.get(run) or summaries[run] for run in self._readers}
        arms = self._arms.names({run: (each.setup, each.summary.config) for run, each in now_there.items()})
        read |= {run: each for run, each in now_there.items() if each.arm != arms[run]}
        read = {run: replace(each, arm=arms[run]) for run, each in read.items()}
        changed = {run for run, summary in read.items() if not _is_same(summary, summaries.get(run))}
        if not changed and summaries.keys() == self._readers.keys():
            return None
        self._summaries = {run: read.get(run) or summaries[run] for run in self._readers}
        newest_first = sorted(self._summaries.values(), key=lambda summary: summary.summary.age_key, reverse=True)
        version = self.last.version + 1
        self.last = RunsView(tuple(newest_first), frozenset(changed), version)
        self._changed = {run: version if run in changed else self._changed[run] for run in self._readers}
        return self.last

    def refresh(self, age: float) -> None:
        """Fetch, unless that was done less than ``age`` seconds ago for somebody else.

        Raises:
            RunError, BusyError: as `fetch`.
        """
        if self._closely or time.monotonic() - self._fetched >= age:
            self._fetched = -math.inf
            self.fetch()
            self._fetched = time.monotonic()

    def since(self, version: int) -> RunsView:
        """Return the newest view for whoever has seen that of a version; 0 for none."""
        return replace(self.last, changed=frozenset(run for run, at in self._changed.items() if at > version))

    def look_closely(self) -> None:
        """Let the next look take notice of runs that have ended, too."""
        self._closely = True

    def _folder_may_have_changed(self, now: float) -> bool:
        ((_, changed),) = each_within(DEADLINE_S, _changed_at, [self.root])
        if isinstance(changed, BaseException):
            raise changed
        before, self._listed = self._listed, changed
        # A folder that was just made is no run before its first file is there.
        return changed != before or now - changed / 1e9 < SETTLED_S


def _changed_at(folder: Path) -> int:
    """Return the time of the last change of a folder in nanoseconds; 0 if it cannot be told."""
    with suppress(OSError):
        return os.stat(folder).st_mtime_ns
    return 0


def _is_same(summary: RunSummary, before: RunSummary | None) -> bool:
    """Return whether nobody could tell a summary from the one before."""
    if before is None:
        return False
    if summary.summary is before.summary and not summary.active:
        return True  # a thousand runs that have ended are not written out
    return repr(summary) == repr(before)  # as text, since an unknown figure, NaN, is not even equal to itself


def _has_ended(summary: RunSummary | None) -> bool:
    return summary is not None and summary.summary.problem is None and not summary.active


@dataclass(frozen=True, kw_only=True, eq=False)
class RunView(Measurements):
    """All data of one run that were asked for.

    Attributes:
        console: bytes of the log, by which it is seen to grow.
        figures: trivial baselines, by their key in the table ``meta``.
        facts: configuration and provenance; None until they were asked for.
        stale: seconds for which the database could not be read.
        problem: why the database cannot be read now; the measurements are those read before.
    """

    summary: RunSummary
    console: int = 0
    figures: dict[str, float] = field(default_factory=dict)
    facts: Facts | None = None
    stale: float = 0.0
    problem: AcclError | None = None

    def floors(self, split: str) -> dict[str, float]:
        """Return the recorded accuracies of the trivial baselines for a split, by name."""
        prefix = f"floor/{split}/"
        floors = {key: value for key, value in self.figures.items() if key.startswith(prefix)}
        return {key.removeprefix(prefix).replace("_", " "): value for key, value in floors.items()}

    def shows_the_same_as(self, other: RunView) -> bool:
        """Return whether nobody could tell the two from each other."""
        return self._key == other._key

    @property
    def _key(self) -> tuple[object, ...]:
        return (
            self.version,
            repr(self.summary),
            self.console,
            str(self.problem),
            int(self.stale),
            self.figures,
            self.facts,
        )


class RunFeed:
    """Data of one run, followed while it grows; the newest view is kept as ``last``."""

    def __init__(self, run: RunDir, speedometers: Speedometers) -> None:
        self.run = run
        self.reader = RunReader(run)
        self._summaries = SummaryReader(run)
        self._speedometer = speedometers[run]
        self._facts: FactsReader | None = None
        self.last = RunView(summary=self._speedometer.observe(self._summaries.last, time.time()))

    def fetch(self, needs: Collection[str]) -> RunView:
        """Read what is new of what is needed, the names of `NEEDS`, ``console`` and ``config``.

        Measurements that cannot be read are those of before, and a problem.
        """
        now, reader = time.time(), self.reader
        summary = self._summaries.read(now)
        problem, figures = summary.problem, self.last.figures
        try:
            follow(reader, summary.state, needs)
            problem = problem or reader.left_out
            figures = numbers(reader.last.meta, ("floor/",))
        except AcclError as error:
            if not isinstance(error, BusyError) or reader.stale_seconds >= STALE_S:
                problem = error
        self.last = RunView(
            **vars(reader.last),
            summary=self._speedometer.observe(summary, now),
            console=_size(self.run.console) if "console" in needs else self.last.console,
            figures=figures,
            facts=self._read_facts() if "config" in needs else self.last.facts,
            problem=problem,
            stale=reader.stale_seconds,
        )
        return self.last

    def _read_facts(self) -> Facts:
        from accl.store.facts import FactsReader  # here: it imports the schema, and most screens never ask

        self._facts = self._facts or FactsReader(self.run)
        return self._facts.read()

    def failed(self, error: BaseException) -> RunView:
        """Return the data that were fetched last, with why `fetch` failed."""
        problem = as_problem(error, self.run.path)
        summary = replace(self._summaries.last, problem=problem)
        return replace(self.last, summary=self._speedometer.observe(summary, time.time()), problem=problem)


def _size(path: Path) -> int:
    """Return the bytes of a log; 0 if that cannot be told."""
    with suppress(OSError):
        return os.stat(path, follow_symlinks=False).st_size
    return 0
