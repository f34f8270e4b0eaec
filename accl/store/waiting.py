"""The place of a run in the queue: ``queue.json`` in its folder says that it waits to be started, and since when.

Nothing central holds the queue: it is the waiting runs of a folder, in the order of their positions, so that a damaged
file costs one run its place. A run waits as long as its state is ``queued`` and this file stands in the folder that it
was written for: a copy of a waiting run, or one that was unpacked from an archive, is not started by itself.
"""

from __future__ import annotations

import os
import reprlib
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from accl.errors import DamagedError, RunError
from accl.store.files import writing
from accl.store.rundir import RunDir
from accl.text import printable, shortened

MOST = 4096  # runs at once, of a GPU or of a machine
LARGEST = 250e9  # time or position; a later time than the year 9890 cannot be shown


@dataclass(frozen=True)
class Waiting:
    """The content of ``queue.json``.

    Attributes:
        since: time from which the run waits, in seconds since the epoch.
        position: where it stands; the lowest starts first.
        paused: why it is not started although its turn may have come; empty if it is.
        per_gpu: number of runs that may share its GPU, itself among them.
        jobs: number of runs of its folder that may train at once, itself among them; None for one on each GPU, or one
            on the processor.
        folder: the working folder of its trainer, by which relative paths in its configuration are read.
        command: what was typed for it.
    """

    since: float
    position: float
    paused: str = ""
    per_gpu: int = 1
    jobs: int | None = None
    folder: str = "/"
    command: tuple[str, ...] = ()

    def changed(self, **values: Any) -> Waiting:
        """Return a copy with some fields replaced."""
        return replace(self, **values)


def read_waiting(run: RunDir) -> Waiting | None:
    """Return the place of a run in the queue, whatever its state; None if it has none, or if that is of another folder.

    Raises:
        DamagedError: the file holds something else.
    """
    content = run.read_json(run.queue)
    if not content:
        return None
    with suppress(OSError):
        if content.pop("inode", None) != os.stat(run.path).st_ino:
            return None
    known = {field.name for field in fields(Waiting)}
    values = {key: value for key, value in content.items() if key in known}
    for key, value in {"since": None, "position": None, **values}.items():
        if not _holds(key, value):
            hint = f"Put the run at the end of the queue: accl queue add {run.typed}"
            raise DamagedError(f"{run.queue} cannot be understood: {key} is {reprlib.repr(value)}.", hint)
    paused, command = values.get("paused", ""), values.get("command", ())
    return Waiting(**values | {"paused": printable(shortened(paused)), "command": tuple(command)})


def _holds(key: str, value: object) -> bool:
    match key:
        case "since" | "position":
            return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < LARGEST
        case "per_gpu":
            return type(value) is int and 1 <= value <= MOST
        case "jobs":
            return value is None or (type(value) is int and 1 <= value <= MOST)
        case "folder":
            return isinstance(value, str) and os.path.isabs(value) and "\0" not in value
        case "command":
            return isinstance(value, list) and all(isinstance(word, str) for word in value)
    return isinstance(value, str)


def write_waiting(run: RunDir, waiting: Waiting) -> None:
    """Write the place of a run in the queue.

    Raises:
        RunError: its folder cannot be written.
    """
    with writing(run.queue):
        run.write_json(run.queue, asdict(waiting) | {"inode": os.stat(run.path).st_ino})


def forget_waiting(run: RunDir) -> None:
    """Take a run out of the queue that has been started or stopped: what stays in a full or foreign folder is stale."""
    with suppress(OSError):
        run.queue.unlink()


def queued_words(run: RunDir) -> str:
    """Say why a run with the state ``queued`` does not train yet."""
    try:
        waiting = read_waiting(run)
    except RunError as error:
        return error.what
    if waiting is None:
        return f"never started; start it with: accl resume {run.typed}"
    return f"paused: {waiting.paused}" if waiting.paused else "waits for its turn; see: accl queue"
