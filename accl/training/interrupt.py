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


@dataclass
class Interrupt:
    """A request to finish the step, write a checkpoint and end; set by a signal handler.

    Attributes:
        signal: name of the signal that asked, such as ``SIGTERM``.
    """

    asked: bool = False
    signal: str = ""
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

    def check(self) -> None:
        """Raise `StoppedEarly` when a stop was asked for."""
        if self.asked:
            raise StoppedEarly
