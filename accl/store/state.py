"""The state of a run, assessed from evidence: its lock, its heartbeat, progress, exit code.

``queued -> starting -> running -> finished | failed | stopped | crashed``, and ``stalled`` while
running without progress. The trainer writes ``state.json``; `observe` checks it against the lock that every
trainer holds, so that a killed run never shows as running, and a living one never as anything else.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import math
import os
import re
import reprlib
import socket
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from itertools import takewhile
from typing import Any

from accl.errors import AbsentError, BusyError, DamagedError
from accl.store import stop as stop_request
from accl.store.files import RESTORE, read_tail, writing
from accl.store.lock import Holder, Proof, RunLock, probe
from accl.store.rundir import RunDir
from accl.store.waiting import queued_words


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
        """Whether the run is under way, or will be once there is a place for it."""
        return self is State.QUEUED or self.trains

    @property
    def trains(self) -> bool:
        """Whether the run has, or should have, a trainer; what is queued has none yet."""
        return self in (State.STARTING, State.RUNNING, State.STALLED)

    @property
    def ended_early(self) -> bool:
        """Whether the run ended before its last step, so that it can go on."""
        return self in (State.FAILED, State.STOPPED, State.CRASHED)


_ICONS = dict(zip(State, "…◌▶◍✓✗■☠", strict=True))

# A trainer writes ``state.json`` once a second. Where its lock proves nothing, it counts as dead when the file has not
# been written for so long.
HEARTBEAT_LOST_S = 60.0
# A live process counts as stalled after so long without progress; compiling and evaluating report progress too.
STALLED_AFTER_S = 120.0

# Environment variable that says which GPUs CUDA shows to a process.
VISIBLE_GPUS = "CUDA_VISIBLE_DEVICES"

# Begins the line of the console log where a process starts; lines above it are of earlier processes.
START_MARK = "---"
CONSOLE_TAIL_BYTES = 16384
# Begins a line that names an exception, as the last one of a traceback does.
_EXCEPTION = re.compile(r"[^\s:]*(?:Error|Exception|Interrupt|Exit)(?:\s*:|$)")


@dataclass(frozen=True)
class RunState:
    """The content of ``state.json``. Times are seconds since the epoch.

    Attributes:
        pid, pid_started, host: process id, start time and machine of the process.
        phase: current activity before and after the steps, in words.
        step, total_steps: optimizer steps done and planned.
        heartbeat: last time the process showed that it lives.
        progressed: last time the work moved on (a step, a file read, an evaluation batch).
        first_started: start of the first process.
        started, ended: start and end of the current process. exit_code: None until it ended.
        elapsed: seconds of training before the current process started, of a resumed run.
        reason: why the run is in this state, in words.
        checkpoint_last, checkpoint_best: folder names under ``checkpoints/``.
        latest: newest value of the few metrics that a table of runs shows.
        interrupted_by: signal that stopped the run although nobody had asked for it, such as ``SIGTERM`` of a
            scheduler; empty otherwise.
        pending: measurements in the spool that could not be merged into the database when the process ended.
        visible_gpus: ``CUDA_VISIBLE_DEVICES`` of the process; None where it is not set, or that was not recorded.
            The launcher says it first: a process that is just being started shows no variables of its own.
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
    first_started: float = 0.0
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
    visible_gpus: str | None = None

    def changed(self, **values: Any) -> RunState:
        """Return a copy with some fields replaced."""
        return dataclasses.replace(self, **values)

    @property
    def begun(self) -> float:
        """Start of the first process; 0 before there was one."""
        return self.first_started or self.started  # a run of an earlier version does not have the former

    @property
    def validated(self) -> float | None:
        """Validation accuracy of the best weights, which are those that are tested; None if unknown.

        Runs of earlier versions only say that of the last ones.
        """
        return self.latest.get("validation/accuracy/best", self.latest.get("validation/accuracy"))

    @property
    def goes_on_from(self) -> int:
        """Step of the last checkpoint, from which a resume goes on; 0 without one."""
        name = self.checkpoint_last.rpartition("-")[2]
        return int(name) if name.isdecimal() else 0

    @property
    def left_seconds(self) -> float | None:
        """Seconds to the last step at the newest speed, as `left_at`."""
        return self.left_at(self.latest.get("steps_per_second", 0.0))

    def left_at(self, steps_per_second: float) -> float | None:
        """Return the seconds to the last step at a speed; None where nothing progresses or nothing is left."""
        steps = self.total_steps - self.step
        progresses = self.state is State.RUNNING and steps > 0 and steps_per_second > 0
        return steps / steps_per_second if progresses else None


_KINDS = {field.name: str(field.type) for field in dataclasses.fields(RunState)}
_WORDS = {
    "State": "a state",
    "str": "text",
    "str | None": "text",
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
        case ("str | None", str()) | (("int | None" | "str | None"), None):
            return True
    return False


def write_state(run: RunDir, state: RunState) -> None:
    """Replace ``state.json`` atomically."""
    run.write_json(run.state, dataclasses.asdict(state))


def overwrite_state(run: RunDir, state: RunState) -> None:
    """Write over ``state.json`` in its place, as the end of a run on a full disk: no room is needed for a new file.

    Raises:
        OSError: it cannot be written all the same.
    """
    descriptor = os.open(run.state, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        os.ftruncate(descriptor, os.pwrite(descriptor, json.dumps(dataclasses.asdict(state)).encode(), 0))
    finally:
        os.close(descriptor)


def end_waiting(run: RunDir, state: RunState) -> None:
    """Write the state of a run that does not wait any more, on a full disk too: nothing else keeps it from starting.

    Raises:
        RunError: it cannot be written.
    """
    with writing(run.state):
        try:
            write_state(run, state)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            overwrite_state(run, state)


def observe(run: RunDir, now: float | None = None) -> RunState:
    """Read ``state.json`` and assess it against the lock of the run.

    A process that is gone without having written how it ended is ``crashed``; one that lives without progress is
    ``stalled``. The reason names the evidence.

    Args:
        now: seconds since the epoch; the current time when None.

    Raises:
        AbsentError, DamagedError: as `read_state`.
    """
    return assess(read_state(run), run, time.time() if now is None else now)


def assess(state: RunState, run: RunDir, now: float, proof: Proof | None = None) -> RunState:
    """Assess a state that has been read already, as `observe`.

    Args:
        proof: what the lock of the run proves; looked up when None.
    """
    if not state.state.active:
        return state
    proof = probe(run) if proof is None else proof
    alive = bool(proof.held) and proof.holder.trains
    if state.state is State.QUEUED:
        return state if alive else state.changed(reason=queued_words(run))
    here = state.host in ("", socket.gethostname())
    # Locks of a network file system may hold on one machine only, so a free one is no proof elsewhere.
    if not alive and here and proof.held is not None:
        # The process may have ended well since the state was read, or another may have taken over.
        newer = read_state(run)
        if not newer.state.active or newer.started != state.started:
            return newer
        if stop_request.killed(run):
            why = "killed by accl stop or a second Ctrl-C, before there was a checkpoint of its last steps"
            return state.changed(state=State.CRASHED, reason=why, ended=max(state.heartbeat, state.started))
        who = f"process {state.pid} is gone" if state.pid else "the process never came up"
        return _crashed(state, run, f"{who} and left no message (killed, or out of memory?)")
    if not alive and (silent := silence(run)) > HEARTBEAT_LOST_S:
        age = f"for {silent:.0f} s" if silent < math.inf else "at all"
        return _crashed(state, run, f"no heartbeat from {state.host or 'anywhere'} {age}")
    # Clocks of two machines are never compared: here all times are of one, elsewhere of the trainer's.
    silent = now - state.heartbeat if here else silence(run)
    idle = state.heartbeat - max(state.progressed, state.started) + silent
    if idle > STALLED_AFTER_S:
        return state.changed(state=State.STALLED, reason=f"alive, but no progress for {idle:.0f} s")
    return state


def claim(run: RunDir, purpose: str) -> RunLock:
    """Take the lock of a run in order to train it.

    Raises:
        BusyError: a trainer lives, by its lock or, where that proves nothing, by its heartbeat; the message says who.
        RunError: the lock file or ``state.json`` cannot be used.
    """
    lock = RunLock.acquire(run, purpose)
    try:
        proof = Proof(False if lock.works and not lock.created else None)
        state = assess(read_state(run), run, time.time(), proof)
        if not state.state.trains:
            lock.sign(purpose)
            return lock
        since = "an unknown time"
        with suppress(ValueError, OverflowError, OSError):
            since = datetime.fromtimestamp(state.started, UTC).isoformat(sep=" ", timespec="seconds")
        who = Holder(state.host, state.pid, since)
        raise BusyError(
            f"{run.id} is {state.state} by its heartbeat of {silence(run):.0f} s ago: {who}.",
            f"It counts as dead {HEARTBEAT_LOST_S:.0f} s after its last heartbeat.",
        )
    except BaseException:
        lock.abandon()
        raise


def share_a_process(states: Iterable[RunState]) -> bool:
    """Return whether one process trains several of the runs; those that have no process yet share none."""
    processes = Counter((state.host, state.pid) for state in states if state.pid)
    return max(processes.values(), default=0) > 1


def silence(run: RunDir) -> float:
    """Return the seconds since ``state.json`` was written, by the clock of its file system; infinite without one."""
    try:
        written = os.stat(run.state, follow_symlinks=False).st_mtime
    except OSError:
        return math.inf
    try:
        # A file without a name: a look leaves no trace.
        with tempfile.TemporaryFile(dir=run.path) as file:
            now = os.fstat(file.fileno()).st_mtime
    except OSError:  # nothing may be written there, so this machine's clock is the only one to ask
        now = time.time()
    return max(0.0, now - written)


def _crashed(state: RunState, run: RunDir, otherwise: str) -> RunState:
    lines = _newest_lines(run)
    reason = next(filter(_EXCEPTION.match, lines), "")
    if not reason:  # an error that is told may have ended the process, or not
        told = next((line for line in lines if line.startswith("error: ")), "")
        reason = f"{otherwise}; its last {told}" if told else otherwise
    return state.changed(state=State.CRASHED, reason=reason, ended=max(state.heartbeat, state.started))


def _newest_lines(run: RunDir) -> list[str]:
    """Return the last lines that the newest process wrote on the console, newest first; none without a console."""
    try:
        lines = read_tail(run.console, CONSOLE_TAIL_BYTES).decode(errors="replace").splitlines()[::-1]
    except (FileNotFoundError, DamagedError):
        return []
    return [line.strip() for line in takewhile(lambda line: not line.startswith(START_MARK), lines)]
