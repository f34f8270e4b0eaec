"""Damage the folder of one run in every way, and look at it and its neighbours with every command and the app."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from accl.bench.damage import Damage, damages
from accl.bench.runs import finished_run

LIMIT_S = 20.0  # for a command, on a machine that is busy; one that hangs takes for ever
# Words that only a command that failed in a way that nobody foresaw prints.
CRASH = ("Traceback", "failed in a way", "Segmentation fault")


def look_at_damages(folder: Path, parallel: int = 2) -> tuple[int, list[str]]:
    """Apply each of `damages` to a run beside two healthy ones, and run every command that reads it.

    Returns:
        the number of damages, and a line for each command that crashed, hung, or lost the healthy runs.
    """
    kinds = damages()
    with ThreadPoolExecutor(parallel) as pool:
        problems = pool.map(lambda damage: _look(folder, damage), kinds)
        return len(kinds), [problem for found in problems for problem in found]


def _look(folder: Path, damage: Damage) -> list[str]:
    root = folder / damage.name.replace("/", "_").replace(" ", "_")
    healthy = [
        finished_run(root, recipe, seed, steps=20, questions=114) for seed, recipe in enumerate(("baseline", "full"))
    ]
    broken = finished_run(root, "contrastive", 3, steps=20, questions=114)
    damage.apply(broken.path)
    ids = [run.id for run in healthy]
    problems = []
    for words, codes in (
        (["runs"], {0}),
        (["runs", "--format", "json"], {0}),
        (["show", broken.id], {0, 7, 11, 12, 13, 3}),
        (["logs", broken.id], {0, 7, 11, 12, 13}),
        (["compare", *ids], {0}),
    ):
        code, text = _accl(root, words)
        if code not in codes or any(word in text for word in CRASH):
            problems.append(f"{damage.name}: accl {words[0]}: exit status {code}: {text.strip().splitlines()[-1:]}")
        elif words[0] == "runs" and not all(run_id in text for run_id in ids):
            problems.append(f"{damage.name}: accl runs lost the other runs")
    code, text = _python(["-m", "tui.soak", str(root), *ids], root)
    if code:
        problems.append(f"{damage.name}: app: exit status {code}: {text.strip().splitlines()[-1:]}")
    subprocess.run(["chmod", "-R", "u+rwX", str(root)], capture_output=True)
    shutil.rmtree(root, ignore_errors=True)
    return problems


def _accl(root: Path, words: list[str]) -> tuple[int, str]:
    return _python(["-m", "accl.cli.main", *words, "--runs", str(root)], root)


def _python(arguments: list[str], root: Path) -> tuple[int, str]:
    """Run Python; returns its exit status, -1000 where it hung, and all that it printed."""
    env = {**os.environ, "COLUMNS": "200", "ACCL_RUNS": str(root)}
    try:
        done = subprocess.run(
            [sys.executable, *arguments], env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=LIMIT_S
        )
    except subprocess.TimeoutExpired:
        return -1000, "hung"
    return done.returncode, (done.stdout + done.stderr).decode(errors="replace")
