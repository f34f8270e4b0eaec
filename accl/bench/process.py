"""Contestants of a race, each in a process of its own: no shared memory pool, no shared compiler, no shared settings.

The parent says when a window is timed, so that contestants take turns; while one is timed the others wait for a word.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

from accl.config import Config
from accl.errors import AcclError, TrainingError

STOP, WINDOW, RATES = "stop", "window", "rates"
GRACE_S = 10.0  # to end in after `STOP`


@dataclass(frozen=True)
class Entry:
    """One way to compute optimizer steps.

    Attributes:
        name: in the report.
        config: what is trained.
        steps: of one timed window.
        warmup: untimed steps before the first window, at least.
        path: value of ``train.backend`` of accl; "" for a peer.
        compile: whether a peer compiles its model.
        tracking: whether accl's curriculum watches the batches.
        min_tokens: shorter training questions are left out.
    """

    name: str
    config: Config
    steps: int
    warmup: int
    path: str = ""
    compile: bool = False
    tracking: bool = True
    min_tokens: int = 0


@dataclass(frozen=True)
class Ready:
    """A contestant has built everything and warmed up.

    Attributes:
        facts: model, device and sizes, for the report.
        warmup_steps: how many it took, in ``warmup_seconds``.
    """

    facts: dict[str, Any]
    warmup_steps: int
    warmup_seconds: float


@dataclass(frozen=True)
class Window:
    """One timed window.

    Attributes:
        began, ended: on the clock that all processes of a machine share, s; the device was idle at both.
        questions, tokens, flops: of all its steps; tokens are real ones, padding is not counted.
        memory: bytes. GPU: the most that the process held within the window, with what its allocator keeps and what
            captured graphs work in. CPU: resident set of the process after it.
        allocated: bytes. GPU: the most that tensors took within the window, captured graphs not counted. CPU: None.
        facts: what else is worth telling of it.
    """

    began: float
    ended: float
    steps: int
    questions: int
    tokens: int
    flops: float
    memory: int
    allocated: int | None
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        return self.ended - self.began


class ContestantError(TrainingError):
    """A contestant could not be measured; the reason is its own."""


class Parent(Protocol):
    """What a contestant's process sees of the parent."""

    def say(self, phase: str) -> None:
        """Tell what is going on."""

    def send(self, message: object) -> None:
        """A `Ready`, a `Window` or whatever else was asked for."""

    def command(self) -> str:
        """Wait for the next word: `WINDOW`, `RATES` or `STOP`."""


@dataclass
class _Pipe:
    connection: Connection

    def say(self, phase: str) -> None:
        self.connection.send(("phase", phase))

    def send(self, message: object) -> None:
        self.connection.send(("result", message))

    def command(self) -> str:
        try:
            return str(self.connection.recv())
        except EOFError:  # the parent is gone
            return STOP


class Contestant:
    """The parent's side of a contestant's process, which starts at once.

    Args:
        say: is told what the process says of itself.
    """

    def __init__(self, entry: Entry, say: Callable[[str], None]) -> None:
        self.entry = entry
        self._say = say
        handle, name = tempfile.mkstemp(prefix="accl-bench-", suffix=".log")
        os.close(handle)
        self._log = Path(name)
        context = get_context("spawn")
        self._connection, other = context.Pipe()
        # daemon: it must not outlive the bench.
        self._process = context.Process(target=_child, args=(entry, other, name), daemon=True)
        self._process.start()
        other.close()

    def ready(self, limit: float) -> Ready:
        """Wait until it is ready, at most ``limit`` seconds.

        Raises:
            ContestantError: it failed, or took longer. AcclError: as it was raised over there.
        """
        found = self._receive(limit, "building and warming up")
        assert isinstance(found, Ready)
        return found

    def ask(self, command: str) -> None:
        """Have it do something."""
        try:
            self._connection.send(command)
        except OSError:
            raise self._ended() from None

    def answer(self, limit: float) -> Any:
        """What it found; raises as `ready` does."""
        return self._receive(limit, "its window")

    def window(self, limit: float) -> Window:
        """Time one window now; raises as `ready` does."""
        self.ask(WINDOW)
        found = self.answer(limit)
        assert isinstance(found, Window)
        return found

    def close(self) -> None:
        """End the process and forget its log."""
        with suppress(OSError):  # it may have ended by itself
            self._connection.send(STOP)
        self._process.join(GRACE_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
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
        raise ContestantError(f"{doing} had not ended after {limit:.0f} s.", "Allow more with --limit SECONDS.")

    def _ended(self) -> ContestantError:
        self._process.join(GRACE_S)
        lines = [line for line in self._log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
        last = f": {lines[-1].strip()}" if lines else ""
        return ContestantError(f"its process ended with exit code {self._process.exitcode}{last}")


def _child(entry: Entry, connection: Connection, log: str) -> None:
    """The process of a contestant. What libraries print goes to its log."""
    with open(log, "ab", buffering=0) as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    parent = _Pipe(connection)
    try:
        parent.say("loading libraries")
        if entry.path:
            from accl.bench.ours import run
        else:
            from accl.bench.peer import run
        run(entry, parent)
    except AcclError as error:
        connection.send(("error", error))
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        traceback.print_exc()
        lines = str(error).strip().splitlines()
        reason = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
        connection.send(("error", ContestantError(reason)))
