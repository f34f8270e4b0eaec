"""Summaries of runs, one row each, read from their small files: a run that cannot be read is one row that says why."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from accl.errors import AcclError, DamagedError, RunError
from accl.store.deadline import DEADLINE_S, each_within
from accl.store.experiment import read_experiment
from accl.store.files import RESTORE
from accl.store.labels import Labels, read_labels
from accl.store.rundir import RunDir, Setup
from accl.store.state import RunState, State, assess, read_state
from accl.yamlfile import shown

CONFIG_LIMIT = 2**16  # characters; accl writes 3,000, and a list keeps those of all its runs


@dataclass(frozen=True)
class Summary:
    """A run in one row.

    Attributes:
        state, setup: None where the file cannot be read.
        age_key: `RunDir.age_key`.
        config: text of ``config.yaml``; empty where that cannot be read or is longer than any that accl writes.
        labels: name, tags and note; none where they cannot be read.
        experiment: name of the experiment that it belongs to; empty for none.
        problem: why something about the run could not be read; None when it is whole.
    """

    run: RunDir
    state: RunState | None = None
    setup: Setup | None = None
    age_key: tuple[float, bool, str] = (float("-inf"), False, "")
    problem: AcclError | None = None
    config: str = field(default="", repr=False)
    labels: Labels = field(default_factory=Labels)
    experiment: str = ""

    @property
    def has_finished(self) -> bool:
        """Whether the run is known to have finished."""
        return self.state is not None and self.state.state is State.FINISHED


class SummaryReader:
    """Reader of one run's summary, which is kept as `last`; it parses ``state.json`` only when it was replaced.

    While nothing changes, the summary is the same object.
    """

    def __init__(self, run: RunDir) -> None:
        self.last = Summary(run)
        self._version: tuple[int, int] | None = None  # modification time and inode of what was parsed
        self._parsed: RunState | RunError = RunState()
        self._labels_version: tuple[int, int] | None = None
        self._labels = Labels()
        self._experiment: str | None = None

    def read(self, now: float) -> Summary:
        """Read the summary; ``now`` is in seconds since the epoch."""
        run, setup, config, state = self.last.run, self.last.setup, self.last.config, None
        problem: RunError | None = None
        try:
            if setup is None:
                config = run.config_text()
                setup = run.setup(config)
                config = config if len(config) <= CONFIG_LIMIT else ""
        except RunError as error:
            problem = error
        try:
            state = assess(self._read_state(), run, now)
        except RunError as error:
            problem = error
        age_key = self.last.age_key if self.last.age_key[2] else run.age_key
        if self._experiment is None:
            self._experiment = read_experiment(run)
        summary = Summary(
            run, state, setup, age_key, problem, config if setup else "", self._read_labels(), self._experiment
        )
        if summary != self.last:
            self.last = summary
        return self.last

    def _read_labels(self) -> Labels:
        run = self.last.run
        try:
            status = os.lstat(run.labels)
            version = status.st_mtime_ns, status.st_ino
            if self._labels_version != version:
                self._labels_version, self._labels = version, read_labels(run)
        except OSError:  # what only people write is no reason to call a run broken
            self._labels = Labels()
        return self._labels

    def _read_state(self) -> RunState:
        run = self.last.run
        try:
            status = os.lstat(run.state)
        except OSError:
            return read_state(run)  # which says what is wrong
        if self._version != (version := (status.st_mtime_ns, status.st_ino)):
            try:
                self._parsed = read_state(run)
            except RunError as error:
                self._parsed = error
            self._version = version
        if isinstance(self._parsed, RunError):
            raise self._parsed
        return self._parsed


def read_summaries(readers: Sequence[SummaryReader], now: float) -> list[Summary]:
    """Read the summaries of several runs; one that fails, or does not answer in time, harms no other."""
    by_run = {reader.last.run: reader for reader in readers}
    answers = each_within(DEADLINE_S, lambda run: by_run[run].read(now), list(by_run))
    return [
        replace(by_run[run].last, state=None, problem=as_problem(answer, run.path))
        if isinstance(answer, BaseException)
        else answer
        for run, answer in answers
    ]


def summarize(runs: Iterable[RunDir]) -> list[Summary]:
    """Read the summaries of several runs once, as `read_summaries`."""
    return read_summaries([SummaryReader(run) for run in runs], time.time())


def as_problem(error: BaseException, path: object) -> AcclError:
    """Return an exception met while reading a run as an error about its files: they may hold anything."""
    if isinstance(error, AcclError):
        return error
    return DamagedError(f"{path} cannot be understood ({type(error).__name__}: {error}).", RESTORE)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn any exception of a block that reads a file of a run into an error about that file, as `as_problem`."""
    try:
        yield
    except AcclError:
        raise
    except Exception as error:
        raise as_problem(error, path) from error


def numbers(meta: Mapping[str, str], prefixes: tuple[str, ...]) -> dict[str, float]:
    """Return the entries of a run's ``meta`` whose keys begin with a prefix, as numbers.

    Raises:
        DamagedError: one is no number.
    """
    figures: dict[str, float] = {}
    for key, value in meta.items():
        if key.startswith(prefixes):
            with suppress(ValueError):
                figures[key] = float(value)
            if not math.isfinite(figures.get(key, math.nan)):
                what = f"The database holds a figure that is no number: {shown(key)} is {shown(value)}."
                raise DamagedError(what, RESTORE)
    return figures
