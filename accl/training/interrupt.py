"""A request to stop, from a signal to the training loop."""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass
from types import FrameType

from accl.store import stop

# A scheduler signals the step, the shell and the session: what comes so soon after the first signal belongs to it.
REPEAT_S = 10.0


class StoppedEarly(BaseException):
    """Ends the preparations or an evaluation of a run that was asked to stop.

    No `Exception`: a library that is called meanwhile must not take it for a failure of its own.
    """


class StoppedAtOnce(BaseException):
    """Ends a run that shares its process and is not to write another checkpoint."""


@dataclass
class Interrupt:
    """A request to finish the step, write a checkpoint and end; set by a signal handler, or from another thread.

    Attributes:
        signal: name of the signal that asked, such as ``SIGTERM``.
        at_once: whether the run is to end without a checkpoint, as a process of its own would when it is killed.
    """

    asked: bool = False
    signal: str = ""
    at_once: bool = False
    _asked_at: float = 0.0

    def listen(self) -> None:
        """Handle the signals that ask for a stop from now on, and those that were held back until now."""
        for number in stop.SIGNALS:
            signal.signal(number, self.handle)
        stop.let_in()

    def handle(self, number: int, _frame: FrameType | None) -> None:
        """Ask for a stop; SIGINT long after the first signal ends the process at once.

        Raises:
            KeyboardInterrupt: a person has waited and does not want to wait longer.
        """
        if not self.asked:
            self.asked, self.signal, self._asked_at = True, signal.Signals(number).name, time.monotonic()
        elif number == signal.SIGINT and time.monotonic() - self._asked_at > REPEAT_S:
            raise KeyboardInterrupt

    def ask(self, name: str, at_once: bool = False) -> None:
        """Ask for a stop, as a signal of this name would; or for an end without a checkpoint."""
        self.at_once |= at_once
        if not self.asked:
            self.signal, self.asked = name, True

    def check(self) -> None:
        """Raise `StoppedEarly` when a stop was asked for; and as `check_at_once`."""
        self.check_at_once()
        if self.asked:
            raise StoppedEarly

    def check_at_once(self) -> None:
        """Raise `StoppedAtOnce` when the run is to end without a checkpoint."""
        if self.at_once:
            raise StoppedAtOnce
