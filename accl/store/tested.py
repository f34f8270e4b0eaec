"""Whether and how often a run has looked at its test split: once, unless a person asks for more.

Every look is an event of the kind ``test``, which a resumed run keeps. Runs of earlier versions recorded none, and have
looked once where they have an evaluation of the split.
"""

from __future__ import annotations

from accl.store.measurements import Measurements
from accl.store.reader import attached
from accl.store.rundir import RunDir

TEST_EVENT = "test"

_LOOKS = f"SELECT count(*) FROM run.events WHERE kind = '{TEST_EVENT}'"
_TESTS = "SELECT count(DISTINCT step) FROM run.task_evals WHERE split = 'test'"


def look_words(tested_step: int) -> str:
    """Return the message of a look at the test split with the weights of a step."""
    return f"looked at the test split with the weights of step {tested_step}, which validation chose"


def count_looks(measured: Measurements) -> int:
    """Return how often a run has looked at its test split, from its measurements (``events`` and ``tasks``)."""
    looks = sum(event.kind == TEST_EVENT for event in measured.events)
    return max(looks, int("test" in measured.task_accuracy))


def read_looks(run: RunDir) -> int:
    """Read how often a run has looked at its test split; 0 while it is unread.

    Raises:
        BusyError, DamagedError, AbsentError, RunError: the database cannot be read.
    """
    with attached(run.database) as execute:
        [[looks]], [[tests]] = execute(_LOOKS), execute(_TESTS)
    return max(int(looks), int(tests > 0))
