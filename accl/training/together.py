"""Runs that share one training process, each in a thread of its own: one start and one CUDA context for all of them.

Everything that a run changes is its own: its lock, state, database, console log, checkpoints, random numbers and CUDA
stream. Questions that several runs name are read and tokenised once. The runs prepare one after the other, and train
side by side.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TextIO, cast

from accl.files import open_regular
from accl.store import stop
from accl.store.rundir import RunDir
from accl.streams import GuardedStream
from accl.training.interrupt import Interrupt
from accl.training.report import say

if TYPE_CHECKING:
    from accl.training.setup import LoadedData

# A run that shares its process is asked to stop by its mark alone: a signal would reach the others too.
LOOK_S = 0.2
# Runs begin so long after the first of their process at the latest: they show that they live once they have begun.
FIRST_ALONE_S = 20.0
# A thread that computes in Python lets others go on after this time, and not only after Python's 5 ms: a step lets go
# of Python's lock some six times. Beside a thread that prepares a run, four others took 157 steps/s with 5 ms, 889
# with 0.5 and 1,198 with 0.2 (host's part of MiniLM's steps, two cores).
SWITCH_S = 0.0002


class SharedProcess:
    """The process that some runs train in; or one run alone, for which nothing here makes a difference.

    Attributes:
        runs: all of them. loaded: questions that they have in common; see `accl.training.setup.build_context`.
        waited: seconds that a run waited for the first one before it began.
    """

    def __init__(self, runs: Sequence[RunDir]) -> None:
        self.runs = tuple(runs)
        self.loaded: LoadedData = {}
        self._turn = threading.Lock()
        self.waited = dict.fromkeys(self.runs, 0.0)
        self._first_is_ready = threading.Event()
        self._consoles = {run: _open_console(run) for run in runs} if self.is_shared else {}

    @property
    def is_shared(self) -> bool:
        """Whether there are several runs."""
        return len(self.runs) > 1

    def console(self, run: RunDir) -> TextIO | None:
        """Return the console log of a run; None where that is the standard output of the process."""
        return self._consoles.get(run)

    def say(self, line: str) -> None:
        """Print a line on the console log of every run."""
        for run in self.runs:
            say(line, self.console(run))

    def describe(self, run: RunDir) -> str:
        """Say with whom a run shares its process, and what that means for what is recorded of it."""
        others = ", ".join(other.id for other in self.runs if other != run)
        figures = "its times are those of a GPU that others use, and processor, memory and GPU load are of all of them"
        return f"shares process {os.getpid()} with {others}: {figures}; libraries print to the log of {self.runs[0].id}"

    def wait_for_first(self, run: RunDir) -> None:
        """Let the first run prepare before others begin: they would slow it down, and wait for it in any case."""
        if run != self.runs[0]:
            began = time.monotonic()
            self._first_is_ready.wait(FIRST_ALONE_S)
            self.waited[run] = time.monotonic() - began

    def release_others(self) -> None:
        """Let other runs begin: one of the process is ready, or has ended."""
        self._first_is_ready.set()

    @contextmanager
    def preparing(self, wait: Callable[[], None]) -> Iterator[None]:
        """Prepare one run at a time.

        Args:
            wait: called again and again while another one prepares; it may raise, which ends the waiting.
        """
        while not self._turn.acquire(timeout=LOOK_S):
            wait()
        try:
            yield
        finally:
            self._turn.release()
            self.release_others()


def train_together(process: SharedProcess, signals: Interrupt, train: Callable[[RunDir, Interrupt], int]) -> int:
    """Train every run of the process in a thread of its own, and return the largest of their exit codes.

    A run whose mark says so is asked to stop, or ended without a checkpoint, and the others go on. A signal asks all of
    them, and a later SIGINT ends all of them at once.

    Args:
        signals: what the process was asked for by signals. train: trains one run, and returns its exit code.
    """
    interrupts = {run: Interrupt() for run in process.runs}
    codes = dict.fromkeys(process.runs, 1)  # of one whose thread failed where nothing could be recorded any more

    def work(run: RunDir) -> None:
        try:
            codes[run] = train(run, interrupts[run])
        finally:
            process.release_others()

    threads = [threading.Thread(target=work, args=(run,), name=run.id) for run in process.runs]
    with _switching_every(SWITCH_S):
        for thread in threads:
            thread.start()
        _wait_for(threads, signals, interrupts)
    return max(codes.values())


def _wait_for(threads: list[threading.Thread], signals: Interrupt, interrupts: dict[RunDir, Interrupt]) -> None:
    while living := [thread for thread in threads if thread.is_alive()]:
        try:
            for run, interrupt in interrupts.items():
                _pass_on(run, signals, interrupt)
            living[0].join(LOOK_S)
        except KeyboardInterrupt:  # a person does not want to wait any longer
            for interrupt in interrupts.values():
                interrupt.ask("SIGINT", at_once=True)


@contextmanager
def _switching_every(seconds: float) -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(seconds)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def _pass_on(run: RunDir, signals: Interrupt, interrupt: Interrupt) -> None:
    if signals.asked:
        interrupt.ask(signals.signal)
    if not interrupt.at_once and stop.marked(run):
        interrupt.ask("SIGTERM", at_once=stop.killed(run))


def _open_console(run: RunDir) -> TextIO | None:
    with suppress(OSError):  # then it prints where the process does
        stream = open(  # noqa: SIM115 - open as long as the process lives
            open_regular(run.console, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "a", encoding="utf-8", errors="replace"
        )
        return cast(TextIO, GuardedStream(stream, lossy=True))
    return None
