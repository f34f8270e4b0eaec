"""The one family of errors a user can cause.

Every error says what happened and what to type next, and has an exit code of its own, so that a
script can tell a typing mistake from a missing GPU.
"""

from __future__ import annotations


class AcclError(Exception):
    """What happened, in one line, and the next step.

    Args:
        what: one line that says what happened.
        hint: what to type or to change next.
    """

    exit_code = 1

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.what} {self.hint}".strip()


class ConfigError(AcclError):
    """An unknown recipe, profile or key, or a value of the wrong type."""

    exit_code = 3


class DataError(AcclError):
    """Questions that are missing or malformed."""

    exit_code = 4


class HubError(AcclError):
    """The Hugging Face Hub could not be reached and nothing usable is cached."""

    exit_code = 5


class DeviceError(AcclError):
    """The device that the configuration asks for is not there."""

    exit_code = 6


class RunError(AcclError):
    """A run that does not exist, or cannot be read, written or changed as asked."""

    exit_code = 7


class CompareError(AcclError):
    """Runs that cannot be compared honestly."""

    exit_code = 8


class TrainingError(AcclError):
    """The training process ended before it had finished."""

    exit_code = 9


class TerminalError(AcclError):
    """The app needs a terminal and there is none."""

    exit_code = 10
