"""The table of `accl bench soak`."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from accl.bench.report import Row
from accl.bench.soak.damages import look_at_damages
from accl.bench.soak.inputs import examples, feed
from accl.bench.soak.kills import PLAN, kill_runs
from accl.bench.soak.load import READERS, TRAINERS, load
from accl.bench.soak.races import race
from accl.launch.machine import cores

# What one seed adds; three of them reach the numbers that a release is held to.
RUNS, RACES, INPUTS = 10, 334, 3334
WRITING = ("checkpoint", "database", "test", "prune")


def measure(folder: Path, minutes: float, seeds: int, only: str = "") -> list[Row]:
    """Inject faults, and return the rows of the report; what should not be is printed on stderr as it is found.

    Args:
        folder: for everything written.
        minutes: of trainers and readers side by side. seeds: number of random seeds, each of which adds `RUNS` killed
            runs, `RACES` races and `INPUTS` inputs.
        only: names of parts, separated by commas; all when empty.
    """
    began = time.monotonic()
    parts: dict[str, Callable[[], list[Row]]] = {
        "damages": lambda: _damages(folder / "damages"),
        "inputs": lambda: _inputs(folder / "inputs", seeds),
        "races": lambda: _races(folder / "races", seeds),
        "kills": lambda: _kills(folder / "kills", seeds),
        "load": lambda: _load(folder / "load", minutes),
    }
    rows = []
    for name, part in parts.items():
        if not only or name in only.split(","):
            (folder / name).mkdir()
            rows += part()
    return [*rows, _row("wall time", (time.monotonic() - began) / 3600, "h")]


def _row(what: str, value: float, unit: str = "", target: float | None = None) -> Row:
    return {"what": what, "value": value, "unit": unit, "spread": None, "target": target}


def _say(problems: list[str]) -> None:
    print("".join(f"soak: {problem}\n" for problem in problems), file=sys.stderr, end="", flush=True)  # noqa: T201


def _kills(folder: Path, seeds: int) -> list[Row]:
    runs = equal = 0
    killed: Counter[str] = Counter()
    inside: Counter[str] = Counter()
    for seed in range(seeds):
        found = kill_runs(folder, RUNS, seed, cores())
        _say(found.unequal)
        runs, equal = runs + found.runs, equal + found.equal
        killed, inside = killed + found.killed, inside + found.inside
    return [
        _row("kills", killed.total(), target=seeds * RUNS * len(PLAN)),
        *(_row(f"kills: {point}", killed[point]) for point in dict.fromkeys(PLAN)),
        _row("kills inside a test, a checkpoint or a database write", sum(inside[point] for point in WRITING)),
        _row("killed runs", runs),
        _row("killed runs equal in weights and rows to an uninterrupted one", equal, target=runs),
    ]


def _races(folder: Path, seeds: int) -> list[Row]:
    counts: Counter[str] = Counter()
    for seed in range(seeds):
        counts += race(folder, RACES, seed, cores())
    rows = [_row("pairs of resumes at once", counts.pop("pairs", 0))]
    targets = {"one trainer": rows[0]["value"]}
    outcomes = ("one trainer", "two trainers", "no trainer", "refused without a reason")
    return [*rows, *(_row(f"pairs: {name}", counts[name], target=targets.get(name, 0)) for name in outcomes)]


def _damages(folder: Path) -> list[Row]:
    count, problems = look_at_damages(folder, cores())
    _say(problems)
    return [
        _row("kinds of damaged run folder", count),
        _row("views that crashed or hung on them", len(problems), target=0),
    ]


def _inputs(folder: Path, seeds: int) -> list[Row]:
    counts: Counter[str] = Counter()
    for seed in range(seeds):
        counts += feed(folder, INPUTS, seed)
    wrong = list(examples(counts))
    _say(wrong)
    return [
        _row("broken inputs", counts.total()),
        _row("inputs accepted", counts["accepted"]),
        _row("inputs refused in words", counts["refused"]),
        *(
            _row(f"inputs {what}", sum(counts[outcome] for outcome in wrong if outcome.startswith(what)), target=0)
            for what in ("crashed", "hung", "dropped")
        ),
    ]


def _load(folder: Path, minutes: float) -> list[Row]:
    found = load(folder, 60 * minutes, seed=0)
    _say(found.problems)
    return [
        _row(f"{TRAINERS} trainers, {READERS} readers (one holds a file for a minute)", minutes, "min"),
        _row("reads", found.reads),
        _row("metric rows checked", found.rows),
        _row("rows lost", found.lost, target=0),
        _row("rows doubled", found.doubled, target=0),
        _row("longest wait of a trainer for the store", 1000 * found.longest_wait, "ms", target=100),
        _row("trainers that ended otherwise than asked", len(found.problems), target=0),
    ]
