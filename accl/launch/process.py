"""Training processes: each has its own session, so that it outlives the terminal, command or app that started it."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from accl import __version__
from accl.errors import AcclError, BusyError, DamagedError, RunError
from accl.files import open_regular
from accl.launch.commit import running_commit, without_git_variables
from accl.store import stop as stop_request
from accl.store.experiment import write_experiment
from accl.store.files import writing
from accl.store.lock import LOCK_VARIABLE, STARTING, TRAINING, Holder, RunLock, holder
from accl.store.provenance import check_config
from accl.store.rundir import RunDir, create_run, write_atomically
from accl.store.state import (
    START_MARK,
    VISIBLE_GPUS,
    RunState,
    State,
    claim,
    end_waiting,
    observe,
    read_state,
    write_state,
)
from accl.store.trusted import allow
from accl.store.waiting import forget_waiting, read_waiting
from accl.text import without_credentials

if TYPE_CHECKING:
    import psutil

    from accl.config import Config

# Word in the command of a trainer of several runs; see `accl.training.together`.
TOGETHER = "--together"
POLL_EVERY_S = 0.2
EXEC_LOOK_S = 0.005
# A launcher holds a run for the milliseconds in which it starts the trainer.
HANDOVER_S = 5.0


def prepare(root: Path, config: Config, command: list[str], experiment: str = "", based_on: str = "") -> RunDir:
    """Make the run directory of a new run, ready for `start`.

    Args:
        experiment: name of the experiment that it belongs to; empty for none.
        based_on: id of the run whose configuration it was made from; empty for none.

    Raises:
        RunError: the runs folder cannot be written.
    """
    from accl.config import dump  # here and below: most who look at runs and their processes need no schema

    if config.alerts.command is not None and any("alerts.command=" in word for word in command):
        allow(config.alerts.command)  # it was typed, and not only found in the file of another run
    run = create_run(root, config.recipe, config.train.seed)
    # The part of the provenance that only the launcher knows.
    created = datetime.now(UTC).isoformat(timespec="seconds")
    words = [without_credentials(word) for word in command]
    provenance = {"run": run.id, "created": created, "command": words, "accl": __version__, "git": running_commit()}
    base = {"based_on": based_on} if based_on else {}
    try:
        with writing(run.path):
            run.write_json(run.provenance, {**provenance, **base, "config": config.model_dump()})
            if experiment:
                write_experiment(run, experiment)
            write_state(run, RunState(State.QUEUED))
            # Last: a folder counts as a run once it has a configuration, so that no reader sees an incomplete one.
            write_atomically(run.config, dump(config))
    except BaseException:  # a full disk, or Ctrl-C: half a run would stay for ever, and be listed nowhere
        shutil.rmtree(run.path, ignore_errors=True)
        raise
    return run


@dataclass(frozen=True)
class Turn:
    """The turn of a run that waits: how its trainer is started for the one who put it into the queue.

    Attributes:
        command: what was typed for the run.
        folder: working folder, by which relative paths in its configuration are read.
        variables: environment variables that it gets beside those of this process, such as ``CUDA_VISIBLE_DEVICES``.
    """

    command: tuple[str, ...]
    folder: str
    variables: Mapping[str, str]


def start(run: RunDir, accept_changes: bool = False, turn: Turn | None = None) -> subprocess.Popen[bytes]:
    """Start the trainer of a prepared or stopped run: from its last checkpoint, or from the beginning without one.

    Args:
        accept_changes: go on even if configuration, data or model are not what they were when the run began.
        turn: of a run that is started because it waits; None if it is started whether it waits or not.

    Raises:
        ChangedError, ConfigError: its configuration has changed, or cannot be read. Data and model are compared by the
            trainer, which loads them.
        BusyError: a trainer lives, or another process holds the run; the message says who. Or its turn has come, and
            it does not wait any more.
        RunError: the run has finished, or its folder cannot be written.
    """
    lock = _claim_to_start(run, accept_changes, turn)
    try:
        return _launch({run: lock}, turn, ["--accept-changes"] if accept_changes else [])
    except BaseException:
        lock.abandon()
        raise


def start_together(
    runs: Sequence[RunDir], turn: Turn
) -> tuple[subprocess.Popen[bytes] | None, dict[RunDir, Exception]]:
    """Start one trainer for several runs whose turn has come, and return why some of them were not started.

    Returns:
        None and all runs if there is nothing left to train.

    Raises:
        RunError: the trainer cannot be started.
    """
    locks: dict[RunDir, RunLock] = {}
    refused: dict[RunDir, Exception] = {}
    try:
        for run in runs:
            try:
                locks[run] = _claim_to_start(run, False, turn)
            except (AcclError, OSError) as error:
                refused[run] = error
        return _launch(locks, turn) if locks else None, refused
    except BaseException:
        for lock in locks.values():
            lock.abandon()
        raise


def _claim_to_start(run: RunDir, accept_changes: bool, turn: Turn | None) -> RunLock:
    """Take the lock of a run that may be started; raises as `start`."""
    lock = claim(run, STARTING)
    try:
        state = read_state(run).state
        if turn and state is not State.QUEUED:
            raise BusyError(f"{run.id} does not wait any more: it is {state}.", "See: accl runs")
        if turn and ((place := read_waiting(run)) is None or place.paused):
            raise BusyError(f"{run.id} has been paused, or taken out of the queue.", "See: accl queue")
        if state is State.FINISHED:
            hint = "Train longer with a new run: accl train ... --set train.epochs=N"
            raise RunError(f"{run.id} has finished.", hint)
        if not accept_changes:
            from accl.config import load

            check_config(run, load(run.config))
    except BaseException:
        lock.abandon()
        raise
    return lock


def _launch(locks: Mapping[RunDir, RunLock], turn: Turn | None, options: Sequence[str] = ()) -> subprocess.Popen[bytes]:
    """Start a process that inherits the locks of its runs, sign them for it, and let go of them."""
    runs, now = list(locks), time.time()
    inherited = [lock.descriptor for lock in locks.values()]
    before = {run: read_state(run) for run in runs}
    variables = {**environment(), **(turn.variables if turn else {}), LOCK_VARIABLE: ",".join(map(str, inherited))}
    typed = turn.command if turn else sys.argv
    launched = json.dumps({"command": [without_credentials(word) for word in typed], "git": running_commit()})
    words = ["--launched", launched, *options, *([TOGETHER] if len(runs) > 1 else [])]
    try:
        with ExitStack() as files, stop_request.held_back():
            consoles = {run: files.enter_context(open(_open_console(run), "ab")) for run in runs}
            for run, console in consoles.items():
                _mark_started(run, before[run].changed(visible_gpus=variables.get(VISIBLE_GPUS)), now, console)
            process = subprocess.Popen(
                # -P: what lies in the working folder is not imported.
                [sys.executable, "-P", "-m", "accl.training", *words, *(str(run.path.resolve()) for run in runs)],
                stdin=subprocess.DEVNULL,
                stdout=consoles[runs[0]],
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=inherited,
                cwd=turn.folder if turn else None,
                env=variables,
            )
    except OSError as error:
        for run in runs:
            with suppress(OSError):  # the disk that was full may be so still
                write_state(run, before[run])
        names = ", ".join(run.id for run in runs)
        raise RunError(
            f"{names} cannot be started ({error}).", "Is its folder writable, and is there memory?"
        ) from error
    for run, lock in locks.items():
        lock.sign(TRAINING, process.pid)
        forget_waiting(run)
        lock.release()  # the trainer has it
    return process


def _mark_started(run: RunDir, before: RunState, now: float, console: BinaryIO) -> None:
    """Write that a run is being started now, into its state and its console log."""
    starting = before.changed(
        state=State.STARTING,
        pid=0,
        host=socket.gethostname(),
        reason="",
        phase="",
        interrupted_by="",
        first_started=before.begun or now,
        started=now,
        heartbeat=now,
        progressed=now,
    )
    write_state(run, starting)
    stop_request.unmark(run)
    console.write(f"{START_MARK} started {datetime.now():%Y-%m-%d %H:%M:%S}\n".encode())
    console.flush()


def _open_console(run: RunDir) -> int:
    """Open the console log for appending, and return its descriptor.

    Raises:
        DamagedError: it is a folder, a link, a pipe or a device, or may not be written.
    """
    try:
        return open_regular(run.console, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    except OSError as error:
        raise DamagedError(f"{run.console} cannot be written ({error.strerror}).", "Move it out of the way.") from error


def environment() -> dict[str, str]:
    """Return the environment of a child process: this one, with the package of this very process first."""
    kept = without_git_variables()
    home = str(Path(__file__).resolve().parents[2])
    if home not in sys.path[1:]:  # imported from the working folder, which -P leaves out
        kept["PYTHONPATH"] = os.pathsep.join(filter(None, (home, kept.get("PYTHONPATH"))))
    # Threads of torch that wait for each other spin for milliseconds; beside another run they take its cores by that.
    # So many turns are what OpenMP itself takes where it knows of more threads than cores.
    waiting = {} if "OMP_WAIT_POLICY" in kept else {"GOMP_SPINCOUNT": "1000"}
    return waiting | kept | {"PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1"}


def stop(run: RunDir, kill: bool = False) -> None:
    """Ask in a person's name for a graceful stop (finish the step, write a checkpoint, exit), and return at once.

    A run that was never started is stopped there and then, and one that ends meanwhile needs no more.

    Args:
        kill: kill the process group instead; work since the last checkpoint is lost. A run that shares its process is
            ended there, and the others go on.

    Raises:
        RunError: the run is not running, runs on another machine, or belongs to another user.
        BusyError: its process is only just being started.
    """
    active = observe(run).state.active
    held = _settled_holder(run)
    state = observe(run)
    if state.state is State.QUEUED and held is None and withdraw(run):
        return
    if not state.state.active:
        if active:
            return
        raise RunError(f"{run.id} is {state.state}, not running.", "See: accl runs")
    host, pid = (held.host, held.pid) if held and held.pid else (state.host, state.pid)
    if host not in ("", socket.gethostname()):
        raise RunError(f"{run.id} runs on {host}.", f"Stop it there: ssh {shlex.quote(host)} accl stop {run.typed}")
    if not _trains(pid, run):
        if observe(run).state.active:
            raise RunError(f"Process {pid} on this machine is not the trainer of {run.id}.", "Is it in a container?")
        return  # it ended meanwhile
    try:
        stop_request.mark(run, kill=kill)
        if shares_process(pid):
            return  # its process looks for the mark: a signal would end the others too
        if not kill:
            os.kill(pid, signal.SIGTERM)
        elif os.getpgid(pid) == pid:
            os.killpg(pid, signal.SIGKILL)
        else:  # started by hand, in the group of a shell
            os.kill(pid, signal.SIGKILL)
    except PermissionError as error:
        raise RunError(f"Process {pid} of {run.id} belongs to another user.", "Ask them to stop it.") from error
    except ProcessLookupError:
        pass  # the process ended before the signal


def withdraw(run: RunDir) -> bool:
    """Stop a run that waits to be started; return False if it does not wait any more.

    Raises:
        BusyError: its trainer has been started meanwhile.
        RunError: its folder cannot be written.
    """
    with claim(run, STARTING):
        state = read_state(run)  # it may have been started and have ended since
        if state.state is not State.QUEUED:
            return False
        # One that was resumed through the queue has been started before.
        reason = "stopped while it waited" if state.started else "stopped before it was started"
        end_waiting(run, state.changed(state=State.STOPPED, reason=reason))
        forget_waiting(run)
        return True


def _settled_holder(run: RunDir) -> Holder | None:
    """Return who trains, once the launcher has handed the lock to the trainer; None when nobody does.

    Raises:
        BusyError: that did not happen in time.
    """
    deadline = time.monotonic() + HANDOVER_S
    while (held := holder(run)) is not None and held.purpose == STARTING:
        if time.monotonic() > deadline:
            raise BusyError(f"{run.id} is only just being started by {held}.", "Try again in a moment.")
        time.sleep(POLL_EVERY_S)
    return held if held is not None and held.trains else None


def _trains(pid: int, run: RunDir) -> bool:
    """Whether a process of this machine is the trainer of a run: a number in a file must not get another one killed."""
    import psutil

    try:
        process, path = psutil.Process(pid), run.path.resolve()
        words = _command(process)
        if "accl.training" not in words:
            return False
        # A folder that was renamed since is known by the lock file that the trainer has open.
        opened = (file.path for file in process.open_files())
        return Path(process.cwd(), words[-1]).resolve() == path or str(path / run.lock.name) in opened
    except (psutil.NoSuchProcess, ValueError, OverflowError):  # ended, or no pid at all
        return False
    except psutil.AccessDenied:  # it exists; the signal will be refused
        return True


def shares_process(pid: int) -> bool:
    """Return whether a trainer of this machine trains several runs."""
    import psutil

    try:
        return TOGETHER in _command(psutil.Process(pid))
    except (psutil.Error, ValueError, OverflowError):  # ended, or of another user
        return False


def _command(process: psutil.Process) -> list[str]:
    """Return the command of a process, once it has one: while another program takes its place it has none."""
    deadline = time.monotonic() + HANDOVER_S
    while not (words := process.cmdline()) and time.monotonic() < deadline:
        time.sleep(EXEC_LOOK_S)
    return words


def wait_until_ended(run: RunDir, seconds: float) -> RunState:
    """Wait until the run has ended or ``seconds`` are over, and return the last state."""
    deadline = time.monotonic() + seconds
    while (state := observe(run)).state.active and time.monotonic() < deadline:
        time.sleep(POLL_EVERY_S)
    return state
