"""Training processes: each has its own session, so that it outlives the terminal, command or app that started it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from accl import __version__
from accl.config import Config, dump, load
from accl.errors import RunError
from accl.store.provenance import check_config
from accl.store.rundir import RunDir, create_run, write_atomically
from accl.store.state import START_MARK, RunState, State, observe, process_start_time, read_state, write_state

POLL_EVERY_S = 0.2


def prepare(root: Path, config: Config, command: list[str]) -> RunDir:
    """Make the run directory of a new run, ready for `start`.

    Raises:
        RunError: the runs folder cannot be written.
    """
    run = create_run(root, config.recipe, config.train.seed)
    # The part of the provenance that only the launcher knows.
    created = datetime.now(UTC).isoformat(timespec="seconds")
    provenance = {"run": run.id, "created": created, "command": command, "accl": __version__, "git": _git()}
    run.write_json(run.provenance, {**provenance, "config": config.model_dump()})
    run.write_json(run.labels, {"tags": [], "note": ""})
    write_state(run, RunState(State.QUEUED))
    # Last: a folder counts as a run once it has a configuration, so that no reader sees an incomplete one.
    write_atomically(run.config, dump(config))
    return run


def start(run: RunDir, options: Sequence[str] = ()) -> subprocess.Popen[bytes]:
    """Start the training process of a prepared or stopped run, with further ``options`` of `accl.training`."""
    write_state(run, read_state(run).changed(state=State.STARTING, pid=0, started=time.time(), reason="", phase=""))
    with open(run.console, "ab") as console:
        console.write(f"{START_MARK} started {datetime.now():%Y-%m-%d %H:%M:%S}\n".encode())
        console.flush()
        return subprocess.Popen(
            [sys.executable, "-m", "accl.training", str(run.path), *options],
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1"},
        )


def stop(run: RunDir, kill: bool = False) -> None:
    """Ask for a graceful stop (finish the step, write a checkpoint, exit), and return at once.

    Args:
        kill: kill the process group instead; work since the last checkpoint is lost.

    Raises:
        RunError: the run is not running, or runs on another machine.
    """
    state = observe(run)
    if not state.state.active:
        raise RunError(f"{run.id} is {state.state}, not running.", "See: accl runs")
    if state.host not in ("", os.uname().nodename):
        raise RunError(f"{run.id} runs on {state.host}.", f"Stop it there: ssh {state.host} accl stop {run.id}")
    if not state.pid:
        raise RunError(f"{run.id} is only just starting.", "Try again in a moment.")
    if process_start_time(state.pid) is None:
        return
    try:
        if kill:
            os.killpg(state.pid, signal.SIGKILL)
        else:
            os.kill(state.pid, signal.SIGTERM)
    except PermissionError as error:
        raise RunError(f"Process {state.pid} of {run.id} belongs to another user.", "Ask them to stop it.") from error
    except ProcessLookupError:
        pass  # the process ended before the signal


def wait_until_ended(run: RunDir, seconds: float) -> RunState:
    """Wait until the run has ended or ``seconds`` are over, and return the last state."""
    deadline = time.monotonic() + seconds
    while (state := observe(run)).state.active and time.monotonic() < deadline:
        time.sleep(POLL_EVERY_S)
    return state


def resume(run: RunDir, accept_changes: bool = False) -> subprocess.Popen[bytes]:
    """Start a stopped run again: from its last checkpoint, or from the beginning when it has none.

    Args:
        accept_changes: go on even if configuration, data or model are not what they were when the run began.

    Raises:
        RunError: the run is active or has finished.
        ChangedError, ConfigError: its configuration has changed, or cannot be read. Data and model are compared by the
            training process, which loads them.
    """
    state = observe(run)
    if state.state.active:
        raise RunError(f"{run.id} is {state.state}.", "Only a run that has stopped can be resumed.")
    if state.state is State.FINISHED:
        raise RunError(f"{run.id} has finished.", "Train longer with a new run: accl train ... --set train.epochs=N")
    if not accept_changes:
        check_config(run, load(run.config))
    launched = json.dumps({"command": sys.argv, "git": _git()})
    return start(run, ["--launched", launched, *(["--accept-changes"] if accept_changes else [])])


def _git() -> dict[str, Any]:
    """Return commit and dirtiness of the running source tree; empty for an installed package."""
    source = Path(__file__).resolve().parents[2]
    if not (source / ".git").exists():
        return {}

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(source), *words], capture_output=True, text=True, timeout=10)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        commit = git("rev-parse", "HEAD")
        return {"commit": commit, "dirty": bool(git("status", "--porcelain"))} if commit else {}
    except (OSError, subprocess.TimeoutExpired):  # no git on this machine, or a very slow disk
        return {}
