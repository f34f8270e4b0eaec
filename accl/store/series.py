"""Exact values of metrics over the steps of a run, as they were recorded: no bins, no smoothing."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from accl.errors import AbsentError
from accl.store.bins import named
from accl.store.columns import RunReader
from accl.store.reader import checking, query
from accl.store.rundir import RunDir
from accl.text import listed

_VALUES = "SELECT name, step, epoch, seconds, value FROM run.metrics WHERE {condition} ORDER BY seq"
SHOWN_NAMES = 3  # of the metrics that look like one that was not recorded


def read_series(run: RunDir, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return every recorded value of metrics, one row each: series, step, epoch, seconds of running time, value.

    Rows come series by series in the order of ``names``, and by step. A test has the step of the weights tested.

    Raises:
        AbsentError: a metric was not recorded; or as `RunReader.read`.
        BusyError, DamagedError, RunError: as `RunReader.read`.
    """
    reader = RunReader(run)
    curves = reader.read(("curves",)).curves
    names = list(dict.fromkeys(names))
    if missing := [name for name in names if name not in curves]:
        near = get_close_matches(missing[0], curves, SHOWN_NAMES) or sorted(curves)[:SHOWN_NAMES]
        hint = f"Did you mean {listed(near, 'or')}? " if near else ""
        raise AbsentError(f"{run.id} has no series {missing[0]!r}.", f"{hint}All of them: accl show {run.typed}")
    # The table has the test at the last step instead of at that of the weights tested.
    stepwise = [name for name in names if not name.startswith("test/")]
    with checking(run.database):
        [recorded] = query(run.database, (_VALUES.format(condition=named(stepwise)), stepwise))
    by_name: dict[str, list[tuple[Any, ...]]] = {name: [] for name in names}
    for name, *values in recorded:
        by_name[name].append(tuple(values))
    for name in names:
        if not by_name[name]:  # an evaluation, each of whose bins is one value
            curve = curves[name]
            by_name[name] = [
                *zip(
                    *(column.tolist() for column in (curve.last, curve.epoch, curve.seconds, curve.median)), strict=True
                )
            ]
    return [
        {"series": name, "step": step, "epoch": epoch, "seconds": seconds, "value": value}
        for name in names
        for step, epoch, seconds, value in sorted(by_name[name], key=lambda row: row[0])
    ]
