"""What the screens show, gathered off the UI thread: `RunsFeed` for the table, `RunFeed` for one run.

A `look` may block on the disk; it is called from a thread, one at a time. What it returns never
changes afterwards, so that the UI may draw it while the next look is under way.
"""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections import deque
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from accl.errors import AcclError, ConfigError, RunError
from accl.store.reader import Confusion, Evaluation, Event, Follower, Task, Weights
from accl.store.rundir import RunDir, Setup, list_runs
from accl.store.state import RunState, State, assess, read_state
from tui.raster import Floats

# The rate behind the ETA is taken over the steps of the last half minute of watching.
RATE_WINDOW_S = 30.0
RATE_LEAST_S = 3.0
CONSOLE_BYTES = 16384


@dataclass(frozen=True)
class RunLine:
    """A run in one line.

    Attributes:
        created: seconds since the epoch; NaN if unknown, as is ``rate``.
        rate: steps per second.
        problem: what could not be read; ``unreadable`` when that is the state itself.
    """

    run: RunDir
    state: RunState
    recipe: str
    profile: str
    seed: int
    created: float
    rate: float
    problem: str = ""
    unreadable: bool = False

    @property
    def reason(self) -> str:
        return self.problem or self.state.reason

    @property
    def word(self) -> str:
        """Icon and word of the state."""
        return "? unreadable" if self.unreadable else f"{self.state.state.icon} {self.state.state}"

    @property
    def active(self) -> bool:
        return self.state.state.active and not self.unreadable

    @property
    def left_seconds(self) -> float:
        """Estimated time to the last step; NaN when the run does not move."""
        steps = self.state.total_steps - self.state.step
        if self.state.state is not State.RUNNING or not self.rate > 0 or steps <= 0:
            return math.nan
        return steps / self.rate

    def latest(self, name: str) -> float:
        return self.state.latest.get(name, math.nan)

    def contains(self, words: str) -> bool:
        """Whether every word is a part of the state, recipe, profile, seed or id."""
        text = f"{self.state.state} {self.recipe} {self.profile} s{self.seed} {self.run.id}".lower()
        return all(word in text for word in words.lower().split())


class LineReader:
    """Reads one run's line; ``state.json`` is parsed again only when it was replaced."""

    def __init__(self, run: RunDir) -> None:
        self.run = run
        self._mark: tuple[int, int] | None = None
        self._state = RunState()
        self._problem = ""
        self._setup: Setup | None = None
        self._seen: deque[tuple[float, int]] = deque()

    def look(self, now: float) -> RunLine:
        problem = self._read_setup()
        try:
            found = os.stat(self.run.state)
            mark = (found.st_mtime_ns, found.st_ino)
        except FileNotFoundError:
            mark = None
        if mark is not None and mark != self._mark:
            try:
                self._state, self._problem = read_state(self.run), ""
            except RunError as error:
                self._problem = str(error)
            self._mark = mark
        state = self._state
        if mark is not None and not self._problem:
            try:
                state = assess(state, self.run, now)
            except RunError as error:
                self._problem = str(error)
        setup = self._setup or Setup("?", "?", -1)
        return RunLine(
            self.run,
            state,
            setup.recipe,
            setup.profile,
            setup.seed,
            _created(self.run),
            self._rate(state, now),
            # The run is named beside it anyway.
            (self._problem or problem).replace(f"{self.run.path}{os.sep}", ""),
            bool(self._problem),
        )

    def _read_setup(self) -> str:
        if self._setup is None:
            try:
                self._setup = self.run.setup()
            except ConfigError as error:
                return str(error)
        return ""

    def _rate(self, state: RunState, now: float) -> float:
        seen = self._seen
        if seen and state.step < seen[-1][1]:
            seen.clear()
        if not seen or seen[-1][1] != state.step:
            seen.append((now, state.step))
        while len(seen) > 2 and now - seen[0][0] > RATE_WINDOW_S:
            seen.popleft()
        if len(seen) > 1 and seen[-1][0] - seen[0][0] >= RATE_LEAST_S:
            return (seen[-1][1] - seen[0][1]) / (seen[-1][0] - seen[0][0])
        spent = state.elapsed + (state.heartbeat - state.started)
        return state.step / spent if state.step and spent > 0 else math.nan


def _created(run: RunDir) -> float:
    """When the run was made: from its id, or of a renamed one from its configuration file."""
    try:
        return datetime.strptime(run.id[:15], "%Y%m%d-%H%M%S").timestamp()
    except ValueError:
        try:
            return run.config.stat().st_mtime
        except OSError:
            return math.nan


class RunsFeed:
    """All runs of a folder, newest first."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._readers: dict[str, LineReader] = {}

    def look(self) -> list[RunLine]:
        now = time.time()
        runs = list_runs(self.root)
        self._readers = {run.id: self._readers.get(run.id) or LineReader(run) for run in runs}
        lines = [reader.look(now) for reader in self._readers.values()]
        return sorted(lines, key=lambda line: (line.created, line.run.id), reverse=True)


@dataclass(frozen=True)
class Curve:
    """One metric over time; parallel arrays."""

    step: Floats
    epoch: Floats
    time: Floats
    values: Floats

    def along(self, axis: str) -> Floats:
        """x values of the axis ``step``, ``epoch`` or ``time`` (seconds)."""
        found: Floats = getattr(self, axis)
        return found


@dataclass(frozen=True)
class RunView:
    """Everything known of one run. ``version`` grows whenever the measurements did."""

    line: RunLine
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
        """Accuracy of answering without reading, by name, as the run recorded it for the split."""
        found = {}
        for key, value in self.meta.items():
            if key.startswith(f"floor/{split}/"):
                try:
                    found[key.rsplit("/", 1)[-1].replace("_", " ")] = float(value)
                except ValueError:
                    continue
        return found


class RunFeed:
    """Follows one run."""

    def __init__(self, run: RunDir) -> None:
        self.run = run
        self._line = LineReader(run)
        self._follower = Follower(run)
        self._view: RunView | None = None

    def look(self) -> RunView:
        line = self._line.look(time.time())
        problem = ""
        try:
            changed = self._follower.refresh()
        except AcclError as error:
            changed, problem = False, str(error).replace(f"{self.run.path}{os.sep}", "")
        follower = self._follower
        if self._view is None or changed:
            self._view = RunView(
                line,
                version=self._view.version + 1 if self._view else 0,
                tasks=tuple(follower.tasks),
                series={
                    name: Curve(
                        np.asarray(s.steps, float),
                        np.asarray(s.epochs, float),
                        np.asarray(s.seconds, float),
                        np.asarray(s.values, float),
                    )
                    for name, s in follower.series.items()
                },
                curriculum=tuple(follower.curriculum),
                confusion=dict(follower.confusion),
                evaluations=tuple(follower.evaluations),
                task_accuracy=dict(follower.task_accuracy),
                events=tuple(follower.events),
            )
        self._view = dataclasses.replace(
            self._view,
            line=line,
            tasks=tuple(follower.tasks),
            task_accuracy=dict(follower.task_accuracy),
            meta=dict(follower.meta),
            console=_tail(self.run.console),
            stale=follower.stale_seconds,
            problem=problem,
        )
        return self._view


def _tail(path: Path) -> tuple[str, ...]:
    """The last lines of a log. A progress line that rewrote itself counts as its last writing."""
    try:
        with open(path, "rb") as file:
            file.seek(0, os.SEEK_END)
            cut = file.tell() > CONSOLE_BYTES
            file.seek(max(0, file.tell() - CONSOLE_BYTES))
            lines = file.read().decode(errors="replace").split("\n")
    except OSError:
        return ()
    lines = lines[1:] if cut else lines
    return tuple(printable for line in lines if (printable := _printable(line)))


def _printable(line: str) -> str:
    text = line.rstrip("\r").rsplit("\r", 1)[-1].expandtabs(4)
    return "".join(character for character in text if character.isprintable()).rstrip()
