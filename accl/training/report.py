"""Reports of the training process: measurements, state, heartbeat and the load of the machine."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TextIO

import psutil

from accl.errors import RunError
from accl.store.merge import pending_words
from accl.store.rundir import RunDir
from accl.store.state import VISIBLE_GPUS, RunState, State, overwrite_state, read_state, write_state
from accl.store.writer import Recorder
from accl.text import without_credentials
from accl.training.alerts import Alerts
from accl.training.phases import PhaseClock, process_age

SYSTEM_EVERY_S = 2.0


class Reporter:
    """Writer of ``state.json`` and ``run.duckdb`` while a run trains.

    Methods return at once, and a background thread writes both about once a second. A full disk and a database that
    another process holds raise nothing: ``state.json`` says so as soon as it can be written.

    Args:
        stop: whether waiting for the database should end, at the start and at the end of the run.
        console: the console log of the run; None for the standard output of this process.

    Attributes:
        clock: seconds of the process by phase.
    """

    def __init__(self, run: RunDir, stop: Callable[[], bool] = lambda: False, console: TextIO | None = None) -> None:
        self.run, self.console = run, console
        self._lock = threading.Lock()
        self._begun = time.monotonic()
        self.clock = PhaseClock(process_age())
        before = read_state(run)
        self._elapsed = before.elapsed
        now = time.time()
        self._state = before.changed(
            state=State.STARTING,
            pid=os.getpid(),
            pid_started=psutil.Process().create_time(),
            host=socket.gethostname(),
            first_started=before.begun or now,
            started=now,
            heartbeat=now,
            progressed=now,
            ended=0.0,
            exit_code=None,
            reason="",
            phase="starting",
            interrupted_by="",
            visible_gpus=os.environ.get(VISIBLE_GPUS),
        )
        write_state(run, self._state)
        self.alerts = Alerts(run, self.event, lambda: self._state)
        self._read_load: Callable[[], Sequence[float | None]] | None = None
        self._load_due = 0.0
        self.recorder = Recorder(
            run.database,
            on_tick=self._tick,
            seconds=lambda: self.seconds,
            notify=self.say,
            stop=stop,
            run=run.made_as(),
        )

    @property
    def state(self) -> RunState:
        return self._state

    @property
    def seconds(self) -> float:
        """Seconds of work so far, pauses between a stop and a resume left out."""
        return self._elapsed + time.monotonic() - self._begun

    def restart_clock(self, elapsed: float) -> None:
        """Go on from the clock of a checkpoint."""
        self._elapsed, self._begun = elapsed, time.monotonic()

    def watch_load(self, read: Callable[[], Sequence[float | None]]) -> None:
        """Record the machine's load from now on; see `Recorder.system` for what ``read`` returns."""
        self._read_load = read

    def phase(self, words: str) -> None:
        """Say in ``state.json`` what is being done, at once: phases are few, and screens should not lag behind."""
        self.clock.enter(words)
        self.update(phase=words)
        self.save()

    def update(self, **values: Any) -> None:
        """Change the state in memory; the heartbeat writes it to disk. Any update counts as progress."""
        with self._lock:
            self._state = self._state.changed(progressed=time.time(), **values)

    def latest(self, values: dict[str, float]) -> None:
        """Update the newest values of the metrics that tables of runs show."""
        self.update(latest={**self._state.latest, **values})

    def save(self) -> bool:
        """Write ``state.json`` now; False when the disk is full, and the next heartbeat does it."""
        with self._lock:
            self._state = self._state.changed(heartbeat=time.time(), elapsed=self.seconds)
            trouble = self.recorder.trouble
            try:
                write_state(self.run, self._state.changed(phase=trouble) if trouble else self._state)
            except OSError as error:
                self.say(f"error: state.json cannot be written: {error}")
                return False
        return True

    def event(self, level: str, kind: str, message: str) -> None:
        """Record an event in the database and on the console, without credentials that its message quotes."""
        message = without_credentials(message)
        self.recorder.event(self.seconds, level, kind, message)
        self.say(f"{level}: {message}")

    def say(self, line: str) -> None:
        """Print a line on the console log of the run, unless its disk is full."""
        say(line, self.console)

    def close(self, state: State, reason: str, exit_code: int) -> int:
        """Record how the run ended, and return its exit code.

        The measurements are on disk before the state says so. Those that could not be merged into the database are
        counted as ``pending``; a run with measurements that could be written nowhere is not finished.
        """
        # Even a run that ends before the first reading was due has one.
        if self._read_load is not None:
            self.recorder.system(self.seconds, self._read_load())
        pending, lost = self.recorder.close(), self.recorder.lost
        words = [without_credentials(reason), pending_words(pending, self.recorder.trouble)]
        if lost:
            words.append(f"({lost:,} measurements are lost)")
            if state is State.FINISHED:
                state, exit_code = State.FAILED, RunError.exit_code
        self.recorder.trouble = ""
        ended = {"state": state, "reason": " ".join(filter(None, words)), "exit_code": exit_code, "pending": pending}
        self.update(**ended, phase="", ended=time.time())
        if not self.save():
            with suppress(OSError):  # the last resort
                overwrite_state(self.run, self._state)
        self.alerts.ended(self._state)
        _drop_console_output()
        return exit_code

    def _tick(self) -> None:
        if self._read_load is not None and time.monotonic() >= self._load_due:
            self._load_due = time.monotonic() + SYSTEM_EVERY_S
            self.recorder.system(self.seconds, self._read_load())
        self.alerts.look()
        self.save()


def say(line: str, console: TextIO | None = None) -> None:
    """Print a line on a console log, by default the standard output, unless its disk is full."""
    with suppress(OSError):
        print(line, file=console, flush=True)


def _drop_console_output() -> None:
    """Forget what a full disk did not take, which would turn into an exit status of its own when Python ends."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
