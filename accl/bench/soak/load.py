"""Trainers and readers side by side for minutes: nothing lost, nothing doubled, no trainer that waits for a reader."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from accl.bench.soak.inject import environment
from accl.config import available, resolve
from accl.errors import AcclError
from accl.launch import process
from accl.store.columns import RunReader
from accl.store.reader import query
from accl.store.rundir import RunDir
from accl.store.state import State, observe

TRAINERS = 8
READERS = 8  # the last one is a foreign client
HELD_S = 60.0  # for which the foreign client keeps a database open
END_S = 300.0  # for all trainers to write their checkpoints and end
FOREVER = 10**6  # steps, more than a machine takes in the time

# A client that knows nothing of accl and keeps the file open; a locked file is tried again.
FOREIGN = """
import sys, time, duckdb
path, seconds = sys.argv[1], float(sys.argv[2])
end = time.monotonic() + seconds
while time.monotonic() < end:
    try:
        with duckdb.connect(path, read_only=True) as connection:
            connection.execute("SELECT count(*) FROM metrics").fetchall()
            time.sleep(max(0, end - time.monotonic()))
    except duckdb.Error:
        time.sleep(0.001)
"""


@dataclass
class Load:
    """Results of the trainers.

    Attributes:
        reads: of all readers. rows: metric rows that should be there. lost, doubled: among them.
        longest_wait: seconds for which recording blocked a training thread.
        problems: what else went wrong, one line each.
    """

    reads: int
    rows: int
    lost: int
    doubled: int
    longest_wait: float
    problems: list[str]


def load(folder: Path, seconds: float, seed: int) -> Load:
    """Train and read for a time, stop all trainers, and count their rows."""
    runs, waits, problems = [], [], []
    for number in range(TRAINERS):
        recipe = available("recipes")[number % len(available("recipes"))]
        overrides = [
            f"train.max_steps={FOREVER}",
            f"train.seed={number}",
            "train.checkpoint_every=100",
            "eval.every=200",
        ]
        run = process.prepare(folder / "runs", resolve(recipe, "demo", overrides).config, ["accl", "bench", "soak"])
        waits.append(folder / f"wait-{number}.txt")
        env = environment(folder / "site", log=str(waits[-1]))
        command = [sys.executable, "-m", "accl.cli.main", "resume", str(run.path), "--detach"]
        done = subprocess.run(command, env=env, capture_output=True, text=True)
        problems += [done.stderr.strip()] * bool(done.returncode)
        runs.append(run)
    end = time.monotonic() + seconds
    with ThreadPoolExecutor(READERS) as pool:
        following = [pool.submit(_follow, runs, seed + i, end) for i in range(READERS - 1)]
        reads = sum(future.result() for future in [*following, pool.submit(_hold, runs, seed, end)])
    for run in runs:
        try:
            process.stop(run)
        except AcclError as error:
            problems.append(str(error))
    rows = lost = doubled = 0
    for run in runs:
        state = process.wait_until_ended(run, END_S)
        if state.state is not State.STOPPED:
            problems.append(f"{run.path}: {state.state}: {state.reason}")
        counted = _count(run, observe(run).step)
        rows, lost, doubled = rows + counted[0], lost + counted[1], doubled + counted[2]
    longest = max((float(wait.read_text().split()[0]) for wait in waits if wait.exists()), default=float("nan"))
    return Load(reads, rows, lost, doubled, longest, problems)


def _follow(runs: list[RunDir], seed: int, end: float) -> int:
    """Follow runs as the app does, now and then another; returns the number of reads."""
    generator, reads = random.Random(seed), 0
    while time.monotonic() < end:
        reader = RunReader(generator.choice(runs))
        for _ in range(generator.randint(1, 20)):
            with suppress(AcclError):
                reads += reader.refresh()
            time.sleep(0.1)
    return reads


def _hold(runs: list[RunDir], seed: int, end: float) -> int:
    """Keep databases open from a foreign process, one after the other; returns how many."""
    generator, held = random.Random(seed), 0
    while (left := end - time.monotonic()) > 0:
        database = generator.choice(runs).database
        subprocess.run([sys.executable, "-c", FOREIGN, str(database), str(min(left, HELD_S))])
        held += 1
    return held


def _count(run: RunDir, steps: int) -> tuple[int, int, int]:
    """Return the metric rows that a run of so many steps must have, how many are missing, and how many too many.

    The metrics of a step that are always finite must be there once for each step.
    """
    names = ("train/loss", "train/accuracy", "train/grad_norm", "train/lr")
    marks = ",".join("?" * len(names))
    sql = f"SELECT name, step, count(*) FROM run.metrics WHERE name IN ({marks}) GROUP BY name, step"
    [found] = query(run.database, (sql, names))
    counts = {(name, step): count for name, step, count in found}
    expected = {(name, step) for name in names for step in range(1, steps + 1)}
    doubled = sum(count - 1 for count in counts.values()) + len(counts.keys() - expected)
    return len(expected), len(expected - counts.keys()), doubled
