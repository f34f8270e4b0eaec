"""Whether and how often the test split was looked at: by a run once, and by all runs on the same questions together.

Every look is an event of the kind ``test``, which a resumed run keeps. Runs of earlier versions recorded none, and have
looked once where they have an evaluation of the split.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from accl.store.deadline import DEADLINE_S, each_within
from accl.store.files import writing
from accl.store.lock import TESTING
from accl.store.measurements import Measurements
from accl.store.provenance import data_fingerprint, read_provenance
from accl.store.reader import attached, checking
from accl.store.rundir import RunDir, run_folders
from accl.store.schema import check_rows
from accl.store.state import claim, read_state, write_state
from accl.text import counted

TEST_EVENT = "test"
ACCURACY = "test/accuracy"  # in ``state.json``

_LOOKS = f"SELECT count(*) FROM run.events WHERE kind = '{TEST_EVENT}'"
_TASKS = "SELECT step, split, task, n, correct FROM run.task_evals WHERE split = 'test'"


@dataclass(frozen=True)
class SplitTest:
    """The test of a run.

    Attributes:
        n, correct: questions of the split, and those answered right. looks: how often it was read.
    """

    n: int
    correct: int
    looks: int

    @property
    def accuracy(self) -> float:
        """Share of the questions that were answered right."""
        return self.correct / self.n


def look_words(tested_step: int) -> str:
    """Return the message of a look at the test split with the weights of a step."""
    return f"looked at the test split with the weights of step {tested_step}, which validation chose"


def count_looks(measured: Measurements) -> int:
    """Return how often a run has looked at its test split, from its measurements (``events`` and ``tasks``)."""
    looks = sum(event.kind == TEST_EVENT for event in measured.events)
    return max(looks, int("test" in measured.task_accuracy))


def read_tested(run: RunDir) -> SplitTest | None:
    """Read what a run's looks at its test split found; None while it is unread.

    Raises:
        BusyError, DamagedError, AbsentError, RunError: the database cannot be read.
    """
    with checking(run.database), attached(run.database) as execute:
        [[looks]], rows = execute(_LOOKS), execute(_TASKS)
        check_rows("task_evals", rows)
        n, correct = (sum(row[column] for row in rows) for column in (3, 4))
        if not 0 <= correct <= n:
            raise ValueError("counts in task_evals that cannot be")
    return SplitTest(n, correct, max(looks, 1)) if n else None


def note_accuracy(run: RunDir, test: SplitTest) -> None:
    """Put the accuracy of a test into a ``state.json`` that lacks it: a kill came between the two, or it is a backup.

    Raises:
        BusyError: another process holds the run.
        RunError: its files cannot be used.
    """
    if ACCURACY in read_state(run).latest:
        return
    lock = claim(run, TESTING)
    try:
        state = read_state(run)
        with writing(run.state):
            write_state(run, state.changed(latest={**state.latest, ACCURACY: test.accuracy}))
    finally:
        lock.abandon()


@dataclass(frozen=True)
class Looks:
    """Looks at one test split by several runs.

    Attributes:
        runs: number of runs that have looked. looks: how often, together.
        unreadable: number of runs of which it is not known.
    """

    runs: int = 0
    looks: int = 0
    unreadable: int = 0

    def __str__(self) -> str:
        """Say it in a sentence."""
        who = f"{counted(self.runs, 'run')} of this folder"
        unknown = f", and {self.unreadable:,} of which it is not known" if self.unreadable else ""
        many = ": the best of many tests is better than it is" if self.runs > 1 else ""
        times = "once" if self.looks == 1 else f"{self.looks:,} times in all"
        return f"{who} looked at this test split {times}{unknown}{many}."


def looks_at(runs: Iterable[RunDir], fingerprint: str) -> Looks:
    """Count the looks of runs at the test split of the questions with a fingerprint (`data_fingerprint`)."""
    found = [answer for _, answer in each_within(DEADLINE_S, lambda run: _looks(run, fingerprint), list(runs))]
    looks = [answer for answer in found if isinstance(answer, int)]
    return Looks(sum(count > 0 for count in looks), sum(looks), len(found) - len(looks))


def looks_in(root: Path, fingerprint: str) -> Looks:
    """Count the looks of all runs under ``root``, as `looks_at`.

    Raises:
        RunError, BusyError: the folder cannot be read.
    """
    return looks_at(run_folders(root), fingerprint)


def _looks(run: RunDir, fingerprint: str) -> int:
    if data_fingerprint(read_provenance(run)) != fingerprint:
        return 0
    if not run.database.exists():  # it was never started
        return 0
    tested = read_tested(run)
    return tested.looks if tested else 0
