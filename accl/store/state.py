"""The state of a run, assessed from evidence: pid and its start time, heartbeat, progress, exit code.

``queued -> starting -> running -> finished | failed | stopped | crashed``, and ``stalled`` while
running without progress. The trainer writes ``state.json``; `observe` checks it against the process
itself, so that a killed run never shows as running.
"""

from __future__ import annotations

import dataclasses
import os
import reprlib
import socket
import time
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from accl.errors import AbsentError, DamagedError
from accl.store.files import read_tail
from accl.store.rundir import RESTORE, RunDir


class State(StrEnum):
    """State of a run, and the word shown for it."""

    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    STALLED = "stalled"
    FINISHED = "finished"
    FAILED = "failed"
    STOPPED = "stopped"
    CRASHED = "crashed"

    @property
    def icon(self) -> str:
        """Sign beside the word, so that colour alone never carries the state."""
        return _ICONS[self]

    @property
    def active(self) -> bool:
        """Whether the run has, or should have, a live process."""
        return self in (State.QUEUED, State.STARTING, State.RUNNING, State.STALLED)


_ICONS = dict(zip(State, "…◌▶◍✓✗■☠", strict=True))

# A run on another machine counts as dead after so long without a heartbeat; its trainer writes one a second.
HEARTBEAT_LOST_S = 60.0
# A live process counts as stalled after so long without progress; compiling and evaluating report progress too.
STALLED_AFTER_S = 120.0
# A process counts as crashed when it has not reported so long after its start: slow disks make imports slow.
STARTUP_TIMEOUT_S = 30.0

# Begins the line of the console log where a process starts; lines above it are of earlier processes.
START_MARK = "---"


@dataclass(frozen=True)
class RunState:
    """The content of ``state.json``. Times are seconds since the epoch.

    Attributes:
        pid, pid_started, host: process id, start time and machine of the process.
        phase: current activity before and after the steps, in words.
        step, total_steps: optimizer steps done and planned.
        heartbeat: last time the process showed that it lives.
        progressed: last time the work moved on (a step, a file read, an evaluation batch).
        started, ended: start and end of the current process. exit_code: None until it ended.
        elapsed: seconds of training before the current process started, of a resumed run.
        reason: why the run is in this state, in words.
        checkpoint_last, checkpoint_best: folder names under ``checkpoints/``.
        latest: newest value of the few metrics that a table of runs shows.
        interrupted_by: signal that stopped the run although nobody had asked for it, such as ``SIGTERM`` of a
            scheduler; empty otherwise.
        pending: measurements in the spool that could not be merged into the database when the process ended.
    """

    state: State = State.STARTING
    pid: int = 0
    pid_started: float = 0.0
    host: str = ""
    phase: str = ""
    step: int = 0
    total_steps: int = 0
    heartbeat: float = 0.0
    progressed: float = 0.0
    started: float = 0.0
    ended: float = 0.0
    elapsed: float = 0.0
    exit_code: int | None = None
    reason: str = ""
    checkpoint_last: str = ""
    checkpoint_best: str = ""
    latest: dict[str, float] = field(default_factory=dict)
    interrupted_by: str = ""
    pending: int = 0

    def changed(self, **values: Any) -> RunState:
        """Return a copy with some fields replaced."""
        return dataclasses.replace(self, **values)

    @property
    def left_seconds(self) -> float | None:
        """Seconds to the last step at the newest speed; None while not running or without a speed."""
        speed = self.latest.get("steps_per_second", 0.0)
        return (self.total_steps - self.step) / speed if self.state is State.RUNNING and speed else None


_KINDS = {field.name: str(field.type) for field in dataclasses.fields(RunState)}
_WORDS = {
    "State": "a state",
    "str": "text",
    "int": "a number of things",
    "float": "a time",
    "int | None": "an exit code",
    "dict[str, float]": "numbers by name",
}
_MAX_INT, _MAX_PID, _MAX_TIME = 2**63 - 1, 2**31 - 1, 250e9  # a time after the year 9890 cannot be shown


def read_state(run: RunDir) -> RunState:
    """Read ``state.json`` as written, every field of its type and in its range.

    Fields that this version does not know are left out.

    Raises:
        AbsentError: there is no such file.
        DamagedError: it cannot be read, or a field holds what it cannot hold.
    """
    raw = {key: value for key, value in run.read_json(run.state).items() if key in _KINDS}
    if not raw and not os.path.lexists(run.state):
        raise AbsentError(f"{run.state} is missing.", RESTORE)
    for key, value in {"state": None, **raw}.items():
        if not _holds(key, value):
            what = f"{run.state} cannot be understood: {key} is {reprlib.repr(value)}, not {_WORDS[_KINDS[key]]}."
            raise DamagedError(what, "Was it written by a newer accl? Otherwise restore it from a backup.")
    return RunState(**raw | {"state": State(raw["state"])})


def _holds(key: str, value: object) -> bool:
    """Return whether a field may hold a value; a bool is no number, and NaN no time."""
    match _KINDS[key], value:
        case "State", str():
            return value in list(State)
        case "str", str():
            return not (key.startswith("checkpoint_") and "/" in value)  # else a path out of the run
        case (("int" | "int | None" | "float"), bool()):
            return False
        case "int", int():
            return 0 <= value <= (_MAX_PID if key == "pid" else _MAX_INT)
        case "int | None", int():
            return abs(value) <= _MAX_PID
        case "float", (int() | float()):
            return 0 <= value <= _MAX_TIME
        case "dict[str, float]", dict():  # a loss may be NaN or infinite
            return all(type(v) is float or (type(v) is int and abs(v) <= _MAX_INT) for v in value.values())
        case "int | None", None:
            return True
    return False


def write_state(run: RunDir, state: RunState) -> None:
    """Replace ``state.json`` atomically."""
    run.write_json(run.state, dataclasses.asdict(state))


def process_start_time(pid: int) -> float | None:
    """Return the start time of a live process in seconds since the epoch.

    Returns:
        None when the process does not exist or is a zombie, NaN when it belongs to another user.
    """
    import psutil  # here: a table of runs that have all ended needs no process

    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return float(process.create_time())
    except psutil.NoSuchProcess:
        return None
    except psutil.AccessDenied:
        return float("nan")


def _alive(state: RunState) -> bool:
    started = process_start_time(state.pid) if state.pid else None
    if started is None:
        return False
    # Pids are reused; the start time tells processes apart, to within a clock tick or two of boot-time arithmetic.
    # NaN, a process of another user, counts as alive.
    return not abs(started - state.pid_started) > 2.0


def observe(run: RunDir, now: float | None = None) -> RunState:
    """Read ``state.json`` and assess it against the process.

    A process that is gone without having written how it ended is ``crashed``; one that lives without progress is
    ``stalled``. The reason names the evidence.

    Args:
        now: seconds since the epoch; the current time when None.

    Raises:
        AbsentError, DamagedError: as `read_state`.
    """
    return assess(read_state(run), run, time.time() if now is None else now)


def assess(state: RunState, run: RunDir, now: float) -> RunState:
    """Assess a state that has been read already, as `observe`."""
    if not state.state.active or state.state is State.QUEUED:
        return state
    silent = now - state.heartbeat
    if state.pid == 0:  # prepared by the launcher; the process has not reported yet
        if last_exception_line(run) or now - state.started > STARTUP_TIMEOUT_S:
            why = last_exception_line(run) or "the process never came up: see console.log"
            return _crashed(state, why, state.started)
        return state
    if state.host == socket.gethostname():
        if not _alive(state):
            # The process may have ended well since the state was read.
            newer = read_state(run)
            if not newer.state.active:
                return newer
            gone = f"process {state.pid} is gone and left no message (killed, or out of memory?)"
            return _crashed(state, last_exception_line(run) or gone, state.heartbeat)
    elif silent > HEARTBEAT_LOST_S:
        return _crashed(state, f"no heartbeat from {state.host} for {silent:.0f} s", state.heartbeat)
    idle = now - max(state.progressed, state.started)
    if idle > STALLED_AFTER_S:
        return state.changed(state=State.STALLED, reason=f"alive, but no progress for {idle:.0f} s")
    return state


def _crashed(state: RunState, reason: str, ended: float) -> RunState:
    return state.changed(state=State.CRASHED, reason=reason, ended=ended)


def last_exception_line(run: RunDir) -> str:
    """Return the last line of the newest process on the console that names an exception; empty when there is none."""
    try:
        lines = read_tail(run.console, 16384).decode(errors="replace").splitlines()
    except (FileNotFoundError, DamagedError):
        return ""
    for line in reversed(lines):
        if line.startswith(START_MARK):
            break
        head = line.split(":", 1)[0].strip()
        if head and " " not in head and head.rsplit(".", 1)[-1].endswith(("Error", "Exception", "Interrupt", "Exit")):
            return line.strip()
    return ""
