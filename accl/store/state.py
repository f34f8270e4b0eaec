"""What a run is doing, assessed from evidence: pid and its start time, heartbeat, progress, exit code.

``queued -> starting -> running -> finished | failed | stopped | crashed``, and ``stalled`` while
running without progress. The trainer writes what it knows to ``state.json``; `observe` adds what
only a look from outside can tell, so that a killed process never shows as running.
"""

from __future__ import annotations

import dataclasses
import os
import socket
import time
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from accl.errors import RunError
from accl.store.rundir import RunDir


class State(StrEnum):
    """The word shown for a run."""

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
        """A sign beside the word, so that state is never told by colour alone."""
        return _ICONS[self]

    @property
    def active(self) -> bool:
        """Whether a process is, or should be, at work."""
        return self in (State.QUEUED, State.STARTING, State.RUNNING, State.STALLED)


_ICONS = {
    State.QUEUED: "…",
    State.STARTING: "◌",
    State.RUNNING: "▶",
    State.STALLED: "◍",
    State.FINISHED: "✓",
    State.FAILED: "✗",
    State.STOPPED: "■",
    State.CRASHED: "☠",
}

# Without a heartbeat for so long, a run on another machine is taken for dead: its trainer writes one a second.
HEARTBEAT_LOST_S = 60.0
# Without a step for so long, a living process is called stalled. Compiling and evaluating report progress too.
STALLED_AFTER_S = 120.0
# An interpreter on a slow network disk may take a while to say its first word.
UNHEARD_AFTER_S = 30.0

# Begins a line of the console log where a process starts: what stands above is of an earlier life of the run.
LIFE_MARK = "---"


@dataclass(frozen=True)
class RunState:
    """The content of ``state.json``. Times are seconds since the epoch.

    Attributes:
        heartbeat: last sign of life of the process.
        progressed: last time the work itself moved (a step, a file read, an evaluation batch).
        phase: what it is doing, in words, before and after the steps.
        started, ended: when the current process started, and when it ended.
        elapsed: seconds of training before the current process started (of a resumed run).
        step, total_steps: optimizer steps done and planned.
        latest: newest value of the few metrics that a table of runs shows.
        checkpoint_last, checkpoint_best: folder names under ``checkpoints/``.
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

    def changed(self, **values: Any) -> RunState:
        return dataclasses.replace(self, **values)

    @property
    def left_seconds(self) -> float | None:
        """Time to the last step at the newest speed; None while there is no speed."""
        steps_per_second = self.latest.get("steps_per_second", 0.0)
        if self.state is not State.RUNNING or not steps_per_second:
            return None
        return (self.total_steps - self.step) / steps_per_second


_FIELDS = {f.name for f in dataclasses.fields(RunState)}


def read_state(run: RunDir) -> RunState:
    """``state.json`` as written, without assessing it.

    Raises:
        RunError: it is there and cannot be understood.
    """
    raw = run.read_json(run.state)
    try:
        raw["state"] = State(raw.get("state", State.STARTING))
        return RunState(**{key: value for key, value in raw.items() if key in _FIELDS})
    except (ValueError, TypeError) as error:
        raise RunError(f"{run.state} cannot be understood: {error}.", "Was it written by a newer accl?") from error


def write_state(run: RunDir, state: RunState) -> None:
    """Replace ``state.json`` atomically."""
    run.write_json(run.state, dataclasses.asdict(state))


def process_start_time(pid: int) -> float | None:
    """Start time of a living process in seconds since the epoch; None when it is gone (a zombie is gone)."""
    import psutil  # here: a list of runs that have all ended asks about no process

    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return float(process.create_time())
    except psutil.NoSuchProcess:
        return None
    except psutil.AccessDenied:  # it lives, and belongs to somebody else
        return float("nan")


def _alive(state: RunState) -> bool:
    started = process_start_time(state.pid) if state.pid else None
    if started is None:
        return False
    # A pid is reused after a while; its start time tells the old process from a new one. Boot-time
    # arithmetic makes it wobble by a clock tick or two.
    return not abs(started - state.pid_started) > 2.0


def observe(run: RunDir, now: float | None = None) -> RunState:
    """What the run is doing, from ``state.json`` and a look at its process.

    A process that is gone without having said how it ended is ``crashed``. One that lives without
    progress is ``stalled``. The reason says which evidence decided.
    """
    return assess(read_state(run), run, time.time() if now is None else now)


def assess(state: RunState, run: RunDir, now: float) -> RunState:
    """`observe` on a state that was read before."""
    if not state.state.active or state.state is State.QUEUED:
        return state
    silent = now - state.heartbeat
    if state.pid == 0:  # prepared by the launcher, and the process has not spoken yet
        if last_exception_line(run) or now - state.started > UNHEARD_AFTER_S:
            why = last_exception_line(run) or "the process never came up: see console.log"
            return state.changed(state=State.CRASHED, reason=why, ended=state.started)
        return state
    if state.host == socket.gethostname():
        if not _alive(state):
            # It may have ended well between our two looks.
            again = read_state(run)
            if not again.state.active:
                return again
            return state.changed(state=State.CRASHED, reason=_why_crashed(run, state), ended=state.heartbeat)
    elif silent > HEARTBEAT_LOST_S:
        return state.changed(
            state=State.CRASHED,
            reason=f"no heartbeat from {state.host} for {silent:.0f} s",
            ended=state.heartbeat,
        )
    idle = now - max(state.progressed, state.started)
    if idle > STALLED_AFTER_S:
        return state.changed(state=State.STALLED, reason=f"alive, but no progress for {idle:.0f} s")
    return state


def _why_crashed(run: RunDir, state: RunState) -> str:
    last = last_exception_line(run)
    if last:
        return last
    return f"process {state.pid} is gone and left no message (killed, or out of memory?)"


def last_exception_line(run: RunDir) -> str:
    """The last line that the newest process wrote on the console that names an exception; empty without one."""
    try:
        with open(run.console, "rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 16384))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    for line in reversed(lines):
        if line.startswith(LIFE_MARK):
            break
        head = line.split(":", 1)[0].strip()
        if head and " " not in head and head.rsplit(".", 1)[-1].endswith(("Error", "Exception", "Interrupt", "Exit")):
            return line.strip()
    return ""
