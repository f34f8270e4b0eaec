"""`accl bench store`: the cost of recording for the training thread, that of following for a watcher, and lost rows."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from multiprocessing import Pipe, get_context
from multiprocessing.connection import Connection
from pathlib import Path

from accl.bench.report import Row, row, timed
from accl.bench.runs import Step, make_step, new_run, record
from accl.errors import AbsentError, BusyError
from accl.store.columns import RunReader
from accl.store.reader import query
from accl.store.rundir import RunDir
from accl.store.writer import Recorder

STEPS_PER_SECOND = 100  # pace of recording, about that of the paper profile on a GPU
NEVER_S = 3600.0  # interval between appends where the benchmark flushes by itself
REPEATS = 5


def measure(folder: Path, steps: int) -> list[Row]:
    """Measure the store with everything written under ``folder``; returns the rows of the report.

    Args:
        steps: length of a run. Paced recording takes as many steps, but at most 5 seconds of them.
    """
    made = [make_step(step) for step in range(1, steps + 1)]
    paced = made[: 5 * STEPS_PER_SECOND]
    history, rows = _flat_out(folder, made)
    return [*rows, *_following(history, steps), *_paced(folder, paced, False), *_paced(folder, paced, True)]


def _flat_out(folder: Path, steps: list[Step]) -> tuple[RunDir, list[Row]]:
    """Record as fast as possible; returns the last run as well, for `_following` to read."""
    speeds: list[float] = []
    for number in range(REPEATS):
        run = new_run(folder, seed=number)
        recorder = Recorder(run.database)
        began = time.perf_counter()
        put = sum(record(recorder, step) for step in steps)
        recorder.flush()
        speeds.append(put / (time.perf_counter() - began))
        recorder.close()
    size = os.path.getsize(run.database) / len(steps) * 1000
    return run, [
        row("recording flat out", speeds, "rows/s"),
        row("rows lost, flat out", [put - _stored(run)], "rows", target=0, put=put),
        row("size on disk per 1,000 steps", [size / 2**20], "MiB"),
    ]


def _following(run: RunDir, steps: int) -> list[Row]:
    """Time a watcher's refreshes: the first one, one after a second of training, one after nothing happened."""
    readers = [RunReader(run) for _ in range(REPEATS)]
    first = [1000 * timed(reader.refresh) for reader in readers]
    refresh = readers[-1].refresh
    later: list[float] = []
    idle: list[float] = []
    recorder = Recorder(run.database, interval=NEVER_S)
    for begin in range(steps + 1, steps + 1 + REPEATS * STEPS_PER_SECOND, STEPS_PER_SECOND):
        for step in range(begin, begin + STEPS_PER_SECOND):
            record(recorder, make_step(step))
        recorder.flush()
        later.append(1000 * timed(refresh))
        idle.append(1000 * timed(refresh))
    recorder.close()
    return [
        row(f"reader's first refresh, {steps:,} steps", first, "ms"),
        row(f"reader's refresh, {STEPS_PER_SECOND} new steps", later, "ms"),
        row("reader's refresh, nothing new", idle, "ms"),
    ]


def _paced(folder: Path, steps: list[Step], with_reader: bool) -> list[Row]:
    """Record at the pace of training, and time how long each step's call blocked the training thread."""
    run = new_run(folder, seed=REPEATS + with_reader)
    recorder = Recorder(run.database)
    blocked: list[float] = []
    put = 0
    more: dict[str, int] = {}
    with _reader(run, more) if with_reader else nullcontext():
        began = time.perf_counter()
        for step in steps:
            time.sleep(max(0.0, began + step.number / STEPS_PER_SECOND - time.perf_counter()))
            called = time.perf_counter()
            put += record(recorder, step)
            blocked.append(1000 * (time.perf_counter() - called))
        recorder.close()
    # Rows that found the file locked at the end are in the spool: opening the database once more merges them.
    Recorder(run.database).close()
    beside = ", beside a reader that never rests" if with_reader else ""
    return [
        row(f"training thread held per step{beside}", blocked, "ms", **more),
        row(f"training thread held, worst step{beside}", [max(blocked)], "ms"),
        row(f"rows lost{beside}", [put - _stored(run)], "rows", target=0, put=put),
    ]


def _stored(run: RunDir) -> int:
    tables = ("metrics", "curriculum", "confusion")
    counts = query(run.database, *((f"SELECT count(*) FROM run.{table}", ()) for table in tables))
    return sum(int(rows[0][0]) for rows in counts)


@contextmanager
def _reader(run: RunDir, more: dict[str, int]) -> Iterator[None]:
    """Run another process that reads all the time; ``more`` gets the number of its ``reads``."""
    connection, other = Pipe()
    process = get_context("spawn").Process(target=_read_on, args=(run.database, other), daemon=True)
    process.start()
    other.close()
    connection.recv()  # it has read once
    yield
    connection.send(None)
    more["reads"] = connection.recv()
    process.join()


def _read_on(database: Path, connection: Connection) -> None:
    """Read a database again and again until a message comes; send the number of reads at the first and the last."""
    reads = 0
    while not connection.poll():
        try:
            query(database, ("SELECT count(*), max(seq) FROM run.metrics", ()))
        except (BusyError, AbsentError):
            continue
        reads += 1
        if reads == 1:
            connection.send(reads)
    connection.send(reads)
