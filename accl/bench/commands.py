"""`accl bench cli`: commands in processes of their own, as a user waits for them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from accl.bench.report import Row, row, timed
from accl.bench.runs import finished_run
from accl.errors import AcclError

RECIPES = ("baseline", "contrastive", "full")


def measure_commands(folder: Path, runs: int, repeat: int) -> list[Row]:
    """Time commands from their start to their exit, ``repeat`` times each; returns the rows of the report.

    Args:
        runs: number of runs made under ``folder``, at least 3.
    """
    root = _make_runs(folder / "runs", runs, steps=20, questions=570)
    commands: list[tuple[str, list[str], float | None]] = [
        ("accl --help", ["--help"], 0.2),
        (f"accl runs, {runs} runs", ["runs"], 0.4),
        ("accl show last", ["show", "last"], None),
        (f"accl compare {' '.join(RECIPES)}, of {runs} runs", ["compare", *RECIPES], None),
    ]
    env = environment(folder) | {"ACCL_RUNS": str(root), "COLUMNS": "120"}
    rows = []
    for what, arguments, target in commands:
        samples = _seconds(["-m", "accl.cli.main", *arguments], env, repeat)
        rows.append(row(what, samples, "s", target, fastest=min(samples)))
    return rows


def _make_runs(root: Path, number: int, *, steps: int, questions: int) -> Path:
    for index in range(number):
        finished_run(root, RECIPES[index % len(RECIPES)], index, steps=steps, questions=questions)
    return root


def environment(folder: Path) -> dict[str, str]:
    """This process's environment, with bytecode kept under ``folder``, which the first call of a command compiles.

    An installed accl has its bytecode, but this process may be one that must not write any.
    """
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPYCACHEPREFIX": str(folder / "bytecode")}


def run_python(arguments: list[str], env: dict[str, str]) -> str:
    """Run Python and return its standard output.

    Raises:
        AcclError: it failed; the message is its last line on stderr.
    """
    command = [sys.executable, *arguments]
    done = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise AcclError(f"{' '.join(command)} failed: {lines[-1]}")
    return done.stdout


def _seconds(arguments: list[str], env: dict[str, str], repeat: int) -> list[float]:
    """Seconds from start to exit, ``repeat`` times after a first one that is not counted."""
    return [timed(lambda: run_python(arguments, env)) for _ in range(repeat + 1)][1:]
