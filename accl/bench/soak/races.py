"""Resume one run from two processes at the same time, again and again, and count the trainers."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import psutil

from accl.bench.soak.kills import OVERRIDES
from accl.config import resolve
from accl.launch import process
from accl.store.rundir import RunDir
from accl.store.state import observe

# A racer waits for a line with the time to start at, tries, and answers with a word.
RACER = """
import sys, time
from pathlib import Path
from accl.errors import RunError
from accl.launch import process
from accl.store.rundir import RunDir
for line in sys.stdin:
    path, at = line.rsplit(" ", 1)
    while time.time() < float(at): pass
    try:
        child = process.start(RunDir(Path(path)))
        print("started", child.pid, flush=True)
    except RunError as error:
        print("refused", error.what, flush=True)
"""
# Seconds by which the second of a pair is late: half of the pairs at once, the others while the first one starts up.
STAGGER_S = 1.5
LATE_SHARE = 0.3


def race(folder: Path, pairs: int, seed: int, parallel: int) -> Counter[str]:
    """Let pairs of processes resume the same run, and count the outcomes.

    Returns:
        the number of ``pairs``, of those with ``one trainer``, ``two trainers`` or ``no trainer``, and of refusals that
        do not say who holds the run, ``refused without a reason``.
    """
    shares = [pairs // parallel + (i < pairs % parallel) for i in range(parallel)]
    with ThreadPoolExecutor(parallel) as pool:
        counts = pool.map(lambda i: _races(folder / f"race-{i}", shares[i], seed * parallel + i), range(parallel))
        return sum(counts, Counter())


def _races(root: Path, pairs: int, seed: int) -> Counter[str]:
    generator = random.Random(seed)
    config = resolve("full", "demo", [*OVERRIDES, "train.max_steps=100000"]).config
    run = process.prepare(root, config, ["accl", "bench", "soak"])
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        for _ in range(2)
    ]
    counts: Counter[str] = Counter(pairs=pairs)
    try:
        for _ in range(pairs):
            counts[_pair(run, racers, generator)] += 1
    finally:
        for racer in racers:
            racer.kill()
            racer.wait()
    return counts


def _pair(run: RunDir, racers: list[subprocess.Popen[str]], generator: random.Random) -> str:
    at = time.time() + 0.05
    late = generator.uniform(0, STAGGER_S) if generator.random() < LATE_SHARE else 0.0
    for racer, start in zip(racers, (at, at + late), strict=True):
        assert racer.stdin is not None
        racer.stdin.write(f"{run.path} {start!r}\n")
    answers = [racer.stdout.readline() if racer.stdout else "" for racer in racers]
    trainers = _trainers(run)
    started = sum(answer.startswith("started") for answer in answers)
    for pid in trainers:
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
    while observe(run).state.active or _trainers(run):
        time.sleep(0.01)
    if started > 1 or len(trainers) > 1:
        return "two trainers"
    if started == 0:
        return "no trainer"
    refused = [answer for answer in answers if answer.startswith("refused")]
    return "one trainer" if all(str(trainers[0]) in answer for answer in refused) else "refused without a reason"


def _trainers(run: RunDir) -> list[int]:
    """Return the pids of the live processes that train this run."""
    found = []
    for item in psutil.process_iter():
        with suppress(psutil.Error):
            if str(run.path) in item.cmdline() and item.status() != psutil.STATUS_ZOMBIE:
                found.append(item.pid)
    return found
