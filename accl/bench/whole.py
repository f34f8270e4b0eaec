"""Whole runs: `accl train` from the command to its exit, and where the time went."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from accl.bench.protocol import Candidate, WorkerError
from accl.config import Config, dump
from accl.errors import AcclError
from accl.launch import process
from accl.store.columns import RunReader
from accl.store.rundir import RunDir, list_runs
from accl.store.schema import PHASE_SECONDS
from accl.store.state import read_state

# Phases around those that the training process records (`accl.training.phases`).
COMMAND, CLOSING, EXIT = "the command, until the process", "closing the run", "the exit"


@dataclass(frozen=True)
class WholeRun:
    """The seconds of a whole run.

    Attributes:
        seconds: from the start of the command to its exit.
        ready: from the start of the command until the process could take the first step.
        phases: seconds by phase, in the order in which they began; they add up to ``seconds``.
        steps: number of optimizer steps.
    """

    seconds: float
    ready: float
    phases: dict[str, float]
    steps: int


def measure_whole_run(config: Config, limit: float, say: Callable[[str], None]) -> WholeRun:
    """Run `accl train` with a configuration, in a folder that is removed afterwards.

    Args:
        limit: seconds after which it is killed. say: receives its name.

    Raises:
        WorkerError: the run failed, or took longer than the limit.
    """
    with tempfile.TemporaryDirectory(prefix="accl-bench-") as folder:
        # The whole configuration, as a run has it: what a command line said has been resolved by now.
        written, root = Path(folder) / "config.yaml", Path(folder) / "runs"
        written.write_text(dump(config), encoding="utf-8")
        command = [sys.executable, "-m", "accl.cli.main", "train", str(written), "--runs", str(root)]
        say(f"a whole run of {config.recipe}")
        began = time.time()
        try:
            done = _run(command, limit)
        finally:
            _end_trainers(root)
        ended = time.time()
        if done.returncode:
            # The line after it says what to type next, about a run that is removed here.
            said = [line.removeprefix("error: ") for line in done.stderr.splitlines() if line.startswith("error: ")]
            why = f": {said[-1]}" if said else ""
            raise WorkerError(f"the whole run ended with exit code {done.returncode}{why}")
        (run,) = list_runs(root)
        return read_whole_run(run, began, ended)


def measure_whole_peer(candidate: Candidate, limit: float, say: Callable[[str], None]) -> WholeRun:
    """Take a whole run of transformers' Trainer (`accl.bench.whole_peer`).

    Raises:
        WorkerError: as `measure_whole_run`.
    """
    with tempfile.TemporaryDirectory(prefix="accl-bench-") as folder:
        written, result = Path(folder) / "config.yaml", Path(folder) / "result.json"
        written.write_text(dump(candidate.config), encoding="utf-8")
        compiled = "1" if candidate.compile else "0"
        command = [sys.executable, "-m", "accl.bench.whole_peer", str(written), compiled, str(result)]
        say(f"a whole run of {candidate.name}")
        began = time.time()
        done = _run(command, limit)
        ended = time.time()
        if done.returncode:
            lines = done.stderr.strip().splitlines()
            raise WorkerError(f"the whole run ended with exit code {done.returncode}: {lines[-1] if lines else ''}")
        answer = json.loads(result.read_text(encoding="utf-8"))
    recorded = answer["phases"]
    names = list(recorded)
    ready = sum(recorded[name] for name in names[: names.index("training")])
    phases = {**recorded, EXIT: ended - began - sum(recorded.values())}
    return WholeRun(ended - began, ready, phases, answer["steps"])


def _run(command: list[str], limit: float) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired as error:
        hint = "Allow more with --limit SECONDS."
        raise WorkerError(f"the whole run had not ended after {limit:.0f} s.", hint) from error


def read_whole_run(run: RunDir, began: float, ended: float) -> WholeRun:
    """Return the seconds of a finished run whose command was started and had ended at these times.

    Raises:
        RunError: its measurements cannot be read.
    """
    state = read_state(run)
    measured = RunReader(run).read(("events",))
    recorded = {
        key.removeprefix(PHASE_SECONDS): float(seconds)
        for key, seconds in measured.meta.items()
        if key.startswith(PHASE_SECONDS)
    }
    # The clock of events began when the process had loaded its program, the first phase.
    first = next(iter(recorded.values()))
    (ready,) = (event.seconds for event in measured.events if event.kind == "ready")
    process_began = state.started - first
    phases = {
        COMMAND: process_began - began,
        **recorded,
        CLOSING: state.ended - process_began - sum(recorded.values()),
        EXIT: ended - state.ended,
    }
    return WholeRun(ended - began, state.started + ready - began, phases, state.step)


def _end_trainers(root: Path) -> None:
    """Kill what the command may have left behind: a training process outlives the command that started it."""
    for run in list_runs(root) if root.is_dir() else []:
        with suppress(AcclError):  # it has ended
            process.stop(run, kill=True)
            process.wait_until_ended(run, 10)
