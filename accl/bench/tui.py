"""`accl bench tui`: how fast the app draws.

The app is measured in a process of its own (`tui.bench`): nothing here knows Textual.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from accl.bench.command import environment, output, seconds
from accl.bench.report import Row, row
from accl.bench.runs import finished_run

RECIPES = ("baseline", "contrastive", "full")
QUESTIONS = 1140  # twenty of each task


def measure(folder: Path, steps: int, runs: int, repeat: int) -> list[Row]:
    """The rows of the report: three runs of ``steps`` steps on screen, and a list of ``runs`` runs."""
    few, many = folder / "few", folder / "many"
    for number, recipe in enumerate(RECIPES):
        finished_run(few, recipe, number, steps=steps, questions=QUESTIONS)
    for number in range(runs):
        finished_run(many, RECIPES[number % len(RECIPES)], number, steps=1, questions=4)
    env = environment(folder)
    imports = [1000 * spent for spent in seconds([sys.executable, "-c", "import tui.app"], env, repeat)]
    found = json.loads(output([sys.executable, "-m", "tui.bench", str(few), str(many), str(repeat)], env))
    return [
        row("starting Python and importing the app", imports, "ms"),
        *(row(what, samples, "ms") for what, samples in found.items()),
    ]
