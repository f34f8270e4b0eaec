"""A trainer in the foreground of a command, and the signals that the command gets meanwhile.

The trainer has a session of its own, so that no signal to the terminal or to the command's group reaches it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from types import FrameType

Handler = Callable[[int, FrameType | None], None]

# A scheduler that ends a job sends one of these to the command; SIGHUP is a terminal that was closed.
FORWARDED = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
# Presses of Ctrl-C so close together are one.
ONE_PRESS_S = 1.0


def end_on_signals() -> None:
    """Let signals end this command although it may be PID 1, to which the kernel passes on only what is handled."""
    if os.getpid() == 1:
        for number in (*FORWARDED, signal.SIGHUP):
            signal.signal(number, lambda number, _frame: sys.exit(128 + number))
        signal.signal(signal.SIGINT, signal.default_int_handler)


class Foreground:
    """A trainer that a command waits for, as a context.

    SIGTERM, SIGUSR1 and SIGUSR2 are passed on to it. SIGHUP ends the command and leaves the trainer alone, except as
    PID 1, whose end would kill the trainer: there it is passed on too. Presses of Ctrl-C are counted.

    Args:
        start: starts the trainer; a signal that comes meanwhile is passed on afterwards.

    Attributes:
        process: the trainer.
        presses: how often Ctrl-C was pressed, those within a second counted as one.
    """

    def __init__(self, start: Callable[[], subprocess.Popen[bytes]]) -> None:
        self.presses, self._pressed = 0, -ONE_PRESS_S
        handlers: dict[signal.Signals, Handler] = dict.fromkeys(FORWARDED, self._pass_on)
        if os.getpid() == 1:
            handlers[signal.SIGHUP] = self._pass_on
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # ignored by what a shell runs in the background
            handlers[signal.SIGINT] = self._press
        early: list[int] = []
        self._send: Callable[[int], object] = early.append
        # Handled and not blocked: what this thread blocks, another one (numpy has some) lets in, and the process dies.
        self._before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        try:
            self.process = start()
        except BaseException:
            self.__exit__()
            raise
        self._send = self.process.send_signal
        for number in early:
            self._send(number)

    def __enter__(self) -> Foreground:
        return self

    def __exit__(self, *_error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _pass_on(self, number: int, _frame: FrameType | None) -> None:
        self._send(number)

    def _press(self, _number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if now - self._pressed >= ONE_PRESS_S:
            self.presses, self._pressed = self.presses + 1, now
