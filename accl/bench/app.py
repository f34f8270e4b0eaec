"""`accl bench tui`: the app on real run folders, in processes of its own, against what it may cost.

The app measures itself (`tui.bench`): nothing in this package knows Textual.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path

from accl.bench.commands import environment, run_python
from accl.bench.report import Row, row
from accl.bench.runs import copies, finished_run, long_run
from accl.errors import ConfigError

RECIPES = ("baseline", "contrastive", "full")
FULL = 1000  # runs in the list: fewer are a quick try, in which everything is smaller and has no target
PARTS = ("list", "idle", "live", "long", "keys", "compare")
TERMINAL = {"TERM": "xterm-256color", "COLORTERM": "truecolor", "LANG": "C.UTF-8"}


def measure_app(folder: Path, steps: int, runs: int, repeat: int, only: str = "") -> list[Row]:
    """Measure what the app costs, ``repeat`` times each; returns the rows of the report.

    Args:
        steps: length of each of three runs on which keys are pressed.
        runs: length of the list of runs, `FULL` to hold the app to its targets.
        only: names of parts (`PARTS`), separated by commas; all when empty.

    Raises:
        ConfigError: there is no such part.
        AcclError: the app did not reach what was to be measured.
    """
    chosen = only.split(",") if only else PARTS
    if unknown := set(chosen) - set(PARTS):
        raise ConfigError(f"There is no part {min(unknown)!r}.", f"Parts are: {', '.join(PARTS)}")
    scale = runs / FULL
    many = partial(_many, steps=300, number=runs)
    make: dict[str, Callable[[Path], object]] = {
        "list": many,
        "idle": many,
        "live": Path.mkdir,
        "long": lambda root: long_run(root, steps=round(100_000 * scale), matrices=round(6200 * scale)),
        "keys": partial(_many, steps=steps, number=len(RECIPES)),
        "compare": partial(_many, steps=300, number=max(2, runs // 10)),
    }
    kept = environment(folder)
    env = {key: kept[key] for key in kept.keys() - {"NO_COLOR", "COLUMNS", "LINES"}} | TERMINAL
    load = [os.getloadavg()[0]]
    rows: list[Row] = []
    roots: dict[object, Path] = {}
    for part in chosen:
        root = roots.setdefault(make[part], folder / part)
        if not root.exists():
            make[part](root)
        with _trainers(root, env) if part == "live" else nullcontext():
            rows += _samples(part, root, scale, repeat, env)
        load.append(os.getloadavg()[0])
    return [*rows, row("load average of the machine", load, "")]


def _samples(part: str, root: Path, scale: float, repeat: int, env: dict[str, str]) -> list[Row]:
    command = ["-m", "tui.bench", part, str(root)]
    run_python([*command, "0"], env)  # compiles
    samples = [json.loads(run_python([*command, str(scale)], env)) for _ in range(repeat)]
    rows = []
    for same in zip(*samples, strict=True):
        most = same[0]["most"] if scale >= 1 else None
        rows.append(row(same[0]["what"], [figure["value"] for figure in same], same[0]["unit"], most))
    return rows


def _many(root: Path, steps: int, number: int) -> None:
    """Make a finished run of each recipe, and copies of them up to ``number`` runs."""
    made = [finished_run(root, recipe, 0, steps=steps, questions=114) for recipe in RECIPES[:number]]
    copies(root, made, number - len(made))


@contextmanager
def _trainers(root: Path, env: dict[str, str]) -> Iterator[None]:
    """Let a process write runs under ``root`` as trainers do, until the end of the context."""
    command = [sys.executable, "-m", "accl.bench.live", str(root)]
    with subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()  # the runs are there
        yield
