"""Errors that a user can cause.

Every error says what happened and what to type next, and every kind has its own exit code, so that a script can tell
a typing mistake from a missing GPU.
"""

from __future__ import annotations

from accl.text import printable, without_credentials


class AcclError(Exception):
    """Base of all errors that a user can cause: what happened, in one line, and what to type or change next.

    A command that ends with this error has the exit status ``exit_code``. Where the error is about a run that cannot
    be read, screens call that run ``kind``. What it quotes is made printable here and credentials in it are masked, so
    that no message carries either to a screen, a log or a file.
    """

    exit_code = 1
    kind = "unreadable"

    def __init__(self, what: str, hint: str = "") -> None:
        self.what, self.hint = (printable(without_credentials(text)) for text in (what, hint))
        super().__init__(self.what)

    def __str__(self) -> str:
        return f"{self.what} {self.hint}".strip()


def first_line(error: BaseException) -> str:
    """Return the first line of what a library's error says; its type where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


class ConfigError(AcclError):
    """An unknown recipe, profile or key, or a value of the wrong type."""

    exit_code = 3


class DataError(AcclError):
    """Missing or malformed questions."""

    exit_code = 4


class HubError(AcclError):
    """The Hugging Face Hub is out of reach and nothing usable is cached."""

    exit_code = 5


class DeviceError(AcclError):
    """The device that the configuration names does not exist on this machine."""

    exit_code = 6


class RunError(AcclError):
    """A run that does not exist, or cannot be read, written or changed as asked."""

    exit_code = 7


class CompareError(AcclError):
    """Runs that cannot be compared honestly."""

    exit_code = 8


class TrainingError(AcclError):
    """The training process ended before the run was finished."""

    exit_code = 9


class TerminalError(AcclError):
    """The app needs a terminal and there is none."""

    exit_code = 10


class BusyError(RunError):
    """Another process holds what is needed; the same command may succeed later."""

    exit_code = 11
    kind = "busy"


class DamagedError(RunError):
    """A file of a run exists and does not hold what it should: truncated, overwritten, wrong types, no plain file."""

    exit_code = 12
    kind = "damaged"


class AbsentError(RunError):
    """Something that was asked for was never recorded, or is gone."""

    exit_code = 13
    kind = "absent"


class QueryError(AcclError):
    """A filter that cannot be understood.

    Attributes:
        position: index of the character that it is about.
    """

    exit_code = 14

    def __init__(self, what: str, position: int, hint: str = "") -> None:
        super().__init__(f"{what} (character {position + 1}).", hint)
        self.position = position


# Exit status of a run that a signal stopped without a person having asked for it: EX_TEMPFAIL of sysexits.h, which
# schedulers can be told to requeue.
INTERRUPTED = 75
