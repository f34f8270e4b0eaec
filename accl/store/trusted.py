"""Programs that this user has allowed runs to start: a run is data from a stranger, and its configuration names one.

What was typed on this machine is remembered, as the hash of the command, in the user's folder for state. A run that was
copied here may say what it likes: its command is not run until somebody who sees it allows it.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress

from accl.errors import RunError
from accl.files import read_trusted, replace_file, state_folder

MOST = 1000  # commands, the newest of which are kept
FILE = "allowed"


def _hash(command: str) -> str:
    return hashlib.sha256(command.encode(errors="surrogateescape")).hexdigest()


def _known() -> list[str]:
    with suppress(OSError, ValueError):
        return read_trusted(state_folder() / FILE).decode(errors="replace").split()
    return []


def is_allowed(command: str) -> bool:
    """Return whether a command was allowed on this machine, by this user."""
    return _hash(command) in _known()


def allow(command: str) -> None:
    """Allow a command from now on.

    Raises:
        RunError: the user's folder for state cannot be written.
    """
    if is_allowed(command):
        return
    path = state_folder() / FILE
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, "\n".join([*_known(), _hash(command)][-MOST:]).encode(), 0o600)
    except OSError as error:
        what = f"{path} cannot be written ({error.strerror}), and alerts.command would not be run."
        raise RunError(what, "Is your home folder writable? XDG_STATE_HOME names another.") from error
