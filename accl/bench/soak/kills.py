"""Kill training runs again and again, resume them, and compare each with one that nothing happened to."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from accl.bench.soak.equality import differences
from accl.bench.soak.inject import environment
from accl.config import resolve
from accl.errors import AcclError
from accl.launch import process
from accl.store.rundir import RunDir
from accl.store.state import State, observe

STEPS = 300
OVERRIDES = (
    f"train.max_steps={STEPS}",
    "train.checkpoint_every=6",
    "eval.every=50",
    "eval.max_questions=60",
    "curriculum.warmup_steps=10",
    "curriculum.update_every=5",
    "memory_bank.start_step=8",
)
# Kills of one run, in this order but for those among the steps: half of them where something is written or tested.
PLAN = ("start", "step", "checkpoint", "step", "database", "step", "prune", "step", "test", "test")
# The last call at which a kill is planned: so early that the steps of all kills together end no run before the test.
CALLS = {"start": 1, "step": 25, "checkpoint": 3, "prune": 3, "database": 4, "test": 1}
RUN_LIMIT_S = 300.0


@dataclass
class Kills:
    """Results of all runs.

    Attributes:
        equal: runs that ended as the uninterrupted one, in every weight and row.
        killed: kills by point. inside: those that came within the call that they were meant for.
        unequal: for each other run, its path and in what it differs.
    """

    runs: int = 0
    equal: int = 0
    killed: Counter[str] = field(default_factory=Counter)
    inside: Counter[str] = field(default_factory=Counter)
    unequal: list[str] = field(default_factory=list)


def kill_runs(folder: Path, runs: int, seed: int, parallel: int) -> Kills:
    """Train ``runs`` runs that are killed once for each entry of `PLAN`, and compare them with one that is not.

    Args:
        folder: for everything written. seed: of the moments. parallel: runs at a time.
    """
    kills = Kills()
    whole = _prepare(folder / "whole")
    _train(whole, None)
    if observe(whole).state is not State.FINISHED:
        raise AcclError(f"The uninterrupted run did not finish: {observe(whole).reason}.", f"See {whole.console}")
    with ThreadPoolExecutor(parallel) as pool:
        for run, killed in pool.map(lambda number: _killed_run(folder, seed, number), range(runs)):
            kills.runs += 1
            for point, where in killed:
                kills.killed[point] += 1
                kills.inside[point] += where == "inside"
            problem = _problem(run, whole)
            kills.equal += not problem
            kills.unequal += [problem] * bool(problem)
    return kills


def _problem(run: RunDir, whole: RunDir) -> str:
    try:
        state = observe(run)
        if state.state is not State.FINISHED:
            return f"{run.path}: {state.state}: {state.reason}"
        found = differences(run, whole)
        return f"{run.path}: {', '.join(found)} differ" if found else ""
    except AcclError as error:
        return f"{run.path}: {error}"


def _prepare(root: Path) -> RunDir:
    config = resolve("full", "demo", OVERRIDES).config
    return process.prepare(root, config, ["accl", "bench", "soak"])


def _killed_run(folder: Path, seed: int, number: int) -> tuple[RunDir, list[tuple[str, str]]]:
    """Train a run that is killed at every entry of the plan; returns it with (point, where it was) of each kill."""
    generator = random.Random(f"{seed}/{number}")
    root = folder / f"seed-{seed}-run-{number}"
    run = _prepare(root)
    steps, tests = list(PLAN[:-2]), PLAN[-2:]
    generator.shuffle(steps)
    killed = []
    for index, point in enumerate((*steps, *tests)):
        log = root / f"kill-{index}.txt"
        call = generator.randint(1, CALLS[point])
        order = {"point": point, "call": call, "seed": generator.randrange(2**32), "log": str(log)}
        _train(run, environment(folder / "site", **order))
        if observe(run).state is State.FINISHED:
            break
        if log.exists():
            killed.append((point, log.read_text(encoding="utf-8")))
    if observe(run).state is not State.FINISHED:
        _train(run, None)
    return run, killed


def _train(run: RunDir, env: dict[str, str] | None) -> None:
    """Start or resume a run by the real command, and wait until it has ended."""
    command = [sys.executable, "-m", "accl.cli.main", "resume", str(run.path)]
    subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=RUN_LIMIT_S)
