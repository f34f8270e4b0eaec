"""`accl bench cli`: how long a command takes from its start to its exit."""

from __future__ import annotations

import sys
from pathlib import Path

from accl.bench.command import environment, seconds
from accl.bench.report import Row, row
from accl.bench.runs import finished_run

RECIPES = ("baseline", "contrastive", "full")
STEPS, QUESTIONS = 20, 570


def measure(folder: Path, runs: int, repeat: int) -> list[Row]:
    """The rows of the report, over ``runs`` (at least 3) runs made under ``folder``; each command ``repeat`` times."""
    root = folder / "runs"
    for number in range(runs):
        finished_run(root, RECIPES[number % len(RECIPES)], number, steps=STEPS, questions=QUESTIONS)
    commands: list[tuple[str, list[str], float | None]] = [
        ("accl --help", ["--help"], 0.2),
        (f"accl runs, {runs} runs", ["runs"], 0.4),
        ("accl show last", ["show", "last"], None),
        (f"accl compare {' '.join(RECIPES)}, of {runs} runs", ["compare", *RECIPES], None),
    ]
    env = environment(folder) | {"ACCL_RUNS": str(root), "COLUMNS": "120"}
    rows = []
    for what, arguments, target in commands:
        samples = seconds([sys.executable, "-m", "accl.cli.main", *arguments], env, repeat)
        rows.append(row(what, samples, "s", target, fastest=min(samples)))
    return rows
