"""Reports of the training process: measurements, state, heartbeat and the load of the machine."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from accl.store.rundir import RunDir
from accl.store.state import RunState, State, process_start_time, read_state, write_state
from accl.store.writer import Recorder
from accl.text import without_credentials

SYSTEM_EVERY_S = 2.0


class Reporter:
    """Writer of ``state.json`` and ``run.duckdb`` while a run trains.

    Methods return at once, and a background thread writes both about once a second.
    """

    def __init__(self, run: RunDir) -> None:
        self.run = run
        self._lock = threading.Lock()
        self._begun = time.monotonic()
        before = read_state(run)
        self._elapsed = before.elapsed
        now = time.time()
        self._state = before.changed(
            state=State.STARTING,
            pid=os.getpid(),
            pid_started=process_start_time(os.getpid()) or now,
            host=socket.gethostname(),
            started=now,
            heartbeat=now,
            progressed=now,
            ended=0.0,
            exit_code=None,
            reason="",
            phase="starting",
        )
        write_state(run, self._state)
        self._read_load: Callable[[], Sequence[float | None]] | None = None
        self._load_due = 0.0
        self.recorder = Recorder(run.database, on_tick=self._tick)

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
        self.update(phase=words)
        self.save()

    def update(self, **values: Any) -> None:
        """Change the state in memory; the heartbeat writes it to disk. Any update counts as progress."""
        with self._lock:
            self._state = self._state.changed(progressed=time.time(), **values)

    def latest(self, values: dict[str, float]) -> None:
        """Update the newest values of the metrics that tables of runs show."""
        self.update(latest={**self._state.latest, **values})

    def save(self) -> None:
        """Write ``state.json`` now."""
        with self._lock:
            self._state = self._state.changed(heartbeat=time.time(), elapsed=self.seconds)
            write_state(self.run, self._state)

    def event(self, level: str, kind: str, message: str) -> None:
        """Record an event in the database and on the console, without credentials that its message quotes."""
        message = without_credentials(message)
        self.recorder.event(self.seconds, level, kind, message)
        print(f"{level}: {message}", flush=True)  # noqa: T201 - this is the console log

    def close(self, state: State, reason: str, exit_code: int) -> None:
        """Record how the run ended. The measurements are on disk before the state says so."""
        # Even a run that ends before the first reading was due has one.
        if self._read_load is not None:
            self.recorder.system(self.seconds, self._read_load())
        self.recorder.close()
        reason = without_credentials(reason)
        self.update(state=state, reason=reason, exit_code=exit_code, phase="", ended=time.time())
        self.save()

    def _tick(self) -> None:
        if self._read_load is not None and time.monotonic() >= self._load_due:
            self._load_due = time.monotonic() + SYSTEM_EVERY_S
            self.recorder.system(self.seconds, self._read_load())
        try:
            self.save()
        except OSError as error:  # a full disk must not end the thread that would say so when there is room again
            print(f"error: state.json cannot be written: {error}", flush=True)  # noqa: T201
