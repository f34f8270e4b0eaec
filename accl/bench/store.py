"""`accl bench store`: what recording costs the training thread, what following costs a watcher, and what is lost."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from accl.bench.report import Row, row
from accl.bench.runs import make_step, new_run, record
from accl.store.reader import Follower, query
from accl.store.rundir import RunDir
from accl.store.writer import Recorder

STEPS_PER_SECOND = 100  # of the paced recording: about what a GPU makes of the paper's model
NEVER_S = 3600.0  # between appends, where the bench itself says when to append
REPEATS = 5


def measure(folder: Path, steps: int) -> list[Row]:
    """The rows of the report; everything is written under ``folder``.

    Args:
        steps: the history of a run. Pacing takes as many, but at most 5 seconds' worth.
    """
    paced = min(steps, 5 * STEPS_PER_SECOND)
    history, rows = _flat_out(folder, steps)
    return [*rows, *_following(history, steps), *_paced(folder, paced, False), *_paced(folder, paced, True)]


def _flat_out(folder: Path, steps: int) -> tuple[RunDir, list[Row]]:
    """Record as fast as possible; returns the last run as well, for others to read."""
    made = [make_step(step) for step in range(1, steps + 1)]
    speeds: list[float] = []
    for number in range(REPEATS):
        run = new_run(folder, seed=number)
        recorder = Recorder(run.database)
        began = time.perf_counter()
        put = sum(record(recorder, step) for step in made)
        recorder.flush()
        speeds.append(put / (time.perf_counter() - began))
        recorder.close()
    size = os.path.getsize(run.database) / steps * 1000
    return run, [
        row("recording flat out", speeds, "rows/s"),
        row("rows lost, flat out", [put - _stored(run)], "rows", target=0, put=put),
        row("size on disk per 1,000 steps", [size / 2**20], "MiB"),
    ]


def _following(run: RunDir, steps: int) -> list[Row]:
    """What a watcher's look costs: the first one, one after a second of training, one after nothing happened."""
    first: list[float] = []
    later: list[float] = []
    idle: list[float] = []
    follower = Follower(run)
    for _ in range(REPEATS):
        follower = Follower(run)
        first.append(_milliseconds(follower))
    recorder = Recorder(run.database, interval=NEVER_S)
    for number in range(REPEATS):
        begin = steps + number * STEPS_PER_SECOND
        for step in range(begin + 1, begin + STEPS_PER_SECOND + 1):
            record(recorder, make_step(step))
        recorder.flush()
        later.append(_milliseconds(follower))
        idle.append(_milliseconds(follower))
    recorder.close()
    return [
        row(f"follower's first refresh, {steps:,} steps", first, "ms"),
        row(f"follower's refresh, {STEPS_PER_SECOND} new steps", later, "ms"),
        row("follower's refresh, nothing new", idle, "ms"),
    ]


def _milliseconds(follower: Follower) -> float:
    began = time.perf_counter()
    follower.refresh()
    return 1000 * (time.perf_counter() - began)


def _paced(folder: Path, steps: int, with_reader: bool) -> list[Row]:
    """Record at the pace of training, and time how long each step's call kept the training thread."""
    run = new_run(folder, seed=REPEATS + with_reader)
    recorder = Recorder(run.database)
    held: list[float] = []
    put = 0
    more: dict[str, int] = {}
    with _reader(run, more) if with_reader else nullcontext():
        began = time.perf_counter()
        for number in range(1, steps + 1):
            step = make_step(number)
            time.sleep(max(0.0, began + number / STEPS_PER_SECOND - time.perf_counter()))
            called = time.perf_counter()
            put += record(recorder, step)
            held.append(1000 * (time.perf_counter() - called))
        recorder.close()
    # Rows that found the file locked at the very end lie in the spool: opening it once more merges them.
    Recorder(run.database).close()
    beside = ", beside a reader that never rests" if with_reader else ""
    return [
        row(f"training thread held per step{beside}", held, "ms", **more),
        row(f"training thread held, worst step{beside}", [max(held)], "ms"),
        row(f"rows lost{beside}", [put - _stored(run)], "rows", target=0, put=put),
    ]


def _stored(run: RunDir) -> int:
    tables = ("metrics", "curriculum", "confusion")
    counts = query(run.database, *((f"SELECT count(*) FROM run.{table}", ()) for table in tables))
    return sum(int(rows[0][0]) for rows in counts)


@contextmanager
def _reader(run: RunDir, more: dict[str, int]) -> Iterator[None]:
    """Another process that reads all the time; ``more`` gets the number of its ``reads``."""
    command = [sys.executable, "-m", "accl.bench.reader", str(run.database)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        ready = process.stdout.readline()
        assert ready == "ready\n", "the reader did not come up"
        yield
        process.stdin.close()
        more["reads"] = int(process.stdout.read())
