"""Seconds of a training process by phase: where a start, and a whole run, went."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

# Phases that the words of ``state.json`` do not name: from the start of Python to the first of them, and the writing of
# a checkpoint, during which steps wait.
LOADING_PROGRAM, OPENING_RUN, SAVING = "loading the program", "opening the run", "saving"


class PhaseClock:
    """Clock that always runs for exactly one phase, so that phases add up to the age of the process.

    Args:
        age: seconds that the process has lived, which count as `LOADING_PROGRAM`.
    """

    def __init__(self, age: float) -> None:
        self._seconds = {LOADING_PROGRAM: age}
        self._phase, self._since = OPENING_RUN, time.monotonic()

    def enter(self, words: str) -> None:
        """End the current phase and begin that of ``words``.

        What follows a comma or a digit is progress and no part of a name: ``warming up 3/9`` is ``warming up``.
        """
        now = time.monotonic()
        self._seconds[self._phase] = self._seconds.get(self._phase, 0.0) + now - self._since
        self._phase, self._since = re.split(r"[,\d]", words, maxsplit=1)[0].strip(), now

    @contextmanager
    def during(self, words: str) -> Iterator[None]:
        """Count a block for a phase of its own, and go on with the one before."""
        before = self._phase
        self.enter(words)
        try:
            yield
        finally:
            self.enter(before)

    def move(self, seconds: float, words: str) -> None:
        """Count seconds before the first phase for one of their own: the process began them for another run."""
        if seconds > 0:
            self._seconds[LOADING_PROGRAM] -= seconds
            self._seconds[words] = self._seconds.get(words, 0.0) + seconds

    def seconds(self) -> dict[str, float]:
        """Return the seconds of each phase so far, in the order in which they began."""
        self.enter(self._phase)
        return dict(self._seconds)


def process_age() -> float:
    """Return the seconds since this process was started.

    On Linux it is read from the clock that the kernel dates processes by. psutil adds a start of the machine that is
    rounded to seconds, so it serves elsewhere only.
    """
    with suppress(OSError, ValueError, AttributeError, IndexError):
        # The name of the program, in brackets, may hold anything.
        fields = Path("/proc/self/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return time.time() - psutil.Process().create_time()
