"""Workers as seen from the comparison. Each has a process of its own: no shared memory pool, compiler or settings."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

from accl.bench.protocol import STOP, WINDOW, Candidate, MeasuredWindow, Ready, WorkerError

GRACE_S = 10.0  # for a worker to end after `STOP`


class BenchWorker:
    """Process of a candidate, started at once. A log that `close` removes gets its output.

    Args:
        candidate: the way to compute steps.
        say: receives the progress that the worker reports.
    """

    def __init__(self, candidate: Candidate, say: Callable[[str], None]) -> None:
        self._say = say
        self._connection, other = Pipe()
        handle, name = tempfile.mkstemp(prefix="accl-bench-", suffix=".log")
        self._log = Path(name)
        module = "accl.bench.loop" if candidate.backend else "accl.bench.peer"
        command = [sys.executable, "-m", module, str(other.fileno())]
        with open(handle, "wb") as log, other:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=[other.fileno()]
            )
        say("loading libraries")
        with suppress(OSError):  # a process that has ended already says so when it is asked
            self._connection.send(candidate)

    def ready(self, limit: float) -> Ready:
        """Wait until the worker is ready, at most ``limit`` seconds.

        Raises:
            WorkerError: it failed, or took longer.
            AcclError: as it was raised in the worker.
        """
        ready = self._receive(limit, "building and warming up")
        assert isinstance(ready, Ready)
        return ready

    def ask(self, command: str) -> None:
        """Send a command; `answer` has its result."""
        try:
            self._connection.send(command)
        except OSError:
            raise self._ended() from None

    def answer(self, limit: float) -> Any:
        """Wait for the result of a command; raises as `ready` does."""
        return self._receive(limit, "its window")

    def window(self, limit: float) -> MeasuredWindow:
        """Time one window now; raises as `ready` does."""
        self.ask(WINDOW)
        window = self.answer(limit)
        assert isinstance(window, MeasuredWindow)
        return window

    def close(self) -> None:
        """End the process and remove its log."""
        with suppress(OSError):  # it may have ended by itself
            self._connection.send(STOP)
        try:
            self._process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._connection.close()
        self._log.unlink(missing_ok=True)

    def _receive(self, limit: float, doing: str) -> Any:
        end = time.monotonic() + limit
        while self._connection.poll(max(0.0, end - time.monotonic())):
            try:
                kind, content = self._connection.recv()
            except (EOFError, OSError):
                raise self._ended() from None
            if kind == "phase":
                self._say(content)
            elif kind == "error":
                raise content
            else:
                return content
        raise WorkerError(f"{doing} had not ended after {limit:.0f} s.", "Allow more with --limit SECONDS.")

    def _ended(self) -> WorkerError:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(GRACE_S)
        lines = [line for line in self._log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
        last = f": {lines[-1].strip()}" if lines else ""
        return WorkerError(f"its process ended with exit code {self._process.returncode}{last}")
