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
from accl.store.rundir import RunDir

LIMIT_S = 300.0  # for a command on a busy machine; one that hangs takes for ever
HEALTHY = ("baseline", "full", "contrastive")
GROUP = 20  # damaged runs in one folder
SHOWN = {0, 3, 7, 11, 12, 13}  # exit codes of a command that shows what can be shown, or says what is wrong
# Commands that look at all runs of the folder ROOT, and commands that look at a run, or change it.
LOOKS: tuple[tuple[str, ...], ...] = (
    ("queue", "list", "--format", "json"),
    ("claims",),
    ("report", "-o", "ROOT/report.html"),
    ("prune", "--dry-run"),
)
CHANGES: tuple[tuple[str, ...], ...] = (
    ("tag", "RUN", "--add", "odd"),
    ("note", "RUN", "a note"),
    ("rename", "RUN", "odd one"),
    ("train", "--like", "RUN", "--dry-run"),
    ("show", "RUN", "--series", "train/loss", "--format", "csv"),
    ("prune", "RUN", "--yes"),
    ("queue", "cancel", "RUN"),
    ("sql", "select count(*) from metrics", "RUN"),
)
# Words that only a command that failed in a way that nobody foresaw prints.
CRASH = ("Traceback", "failed in a way", "Segmentation fault")


def look_at_damages(folder: Path, parallel: int) -> tuple[int, list[str]]:
    """Apply each of `damages` to a run beside two healthy ones, and run every command that reads it.

    Returns:
        the number of damages, and a line for each command that crashed, hung, or lost the healthy runs.
    """
    kinds = damages()
    healthy = [finished_run(folder / "made", name, i, steps=20, questions=114) for i, name in enumerate(HEALTHY)]
    groups = [kinds[first : first + GROUP] for first in range(0, len(kinds), GROUP)]
    with ThreadPoolExecutor(parallel) as pool:
        problems = pool.map(lambda number: _look(folder / str(number), groups[number], healthy), range(len(groups)))
        return len(kinds), [problem for found in problems for problem in found]


def _look(root: Path, kinds: list[Damage], healthy: list[RunDir]) -> list[str]:
    """Look at a folder of two healthy runs and one for each damage, a copy of the third."""
    *whole, third = healthy
    for run in whole:
        shutil.copytree(run.path, root / run.id)
    ids, broken = [run.id for run in whole], {}
    for number, damage in enumerate(kinds):
        copy = root / f"20260102-{number:06d}-full-s{number}-0000"
        shutil.copytree(third.path, copy, copy_function=os.link)  # no damage writes into a file that is there
        broken[copy.name] = damage
        damage.apply(copy)
    problems = []

    def check(name: str, words: list[str], codes: set[int], shown: list[str]) -> None:
        code, text = _python(["-m", *words], root)
        if code not in codes or any(word in text for word in CRASH):
            problems.append(f"{name}: {' '.join(words[1:2])}: exit status {code}: {text.strip()[-200:]}")
        elif not all(run_id in text for run_id in shown):
            problems.append(f"{name}: {' '.join(words[1:2])} lost the healthy runs")

    together = f"{kinds[0].name} to {kinds[-1].name}"
    check(together, ["accl.cli.main", "runs"], {0}, ids)
    check(together, ["accl.cli.main", "runs", "--format", "json"], {0}, ids)
    check(together, ["accl.cli.main", "compare", *ids], {0}, [])
    check(together, ["tui.soak", str(root), *ids], {0}, [])
    for words in LOOKS:
        check(together, ["accl.cli.main", *(word.replace("ROOT", str(root)) for word in words)], {0}, [])
    check(together, ["accl.cli.main", "sql", "select run from runs", "--format", "csv"], {0}, ids)
    for number, (run_id, damage) in enumerate(broken.items()):
        check(damage.name, ["accl.cli.main", "show", run_id], SHOWN, [])
        check(damage.name, ["accl.cli.main", "logs", run_id], SHOWN, [])
        for words in CHANGES[number % 4 :: 4]:  # each meets every fourth damage
            check(damage.name, ["accl.cli.main", *(word.replace("RUN", run_id) for word in words)], SHOWN, [])
    check(together, ["accl.cli.main", "rm", *broken, "--yes"], SHOWN, [])
    check(together, ["accl.cli.main", "restore", "--format", "json"], {0}, [])
    check(together, ["accl.cli.main", "restore", "last"], SHOWN, [])
    check(together, ["accl.cli.main", "runs"], {0}, ids)
    subprocess.run(["chmod", "-R", "u+rwX", str(root)], capture_output=True)
    shutil.rmtree(root, ignore_errors=True)
    return problems


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
