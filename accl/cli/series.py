"""`accl show --series`, and what a run is as one table of raw values for `accl show --format csv`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import typer

from accl.cli.output import Format, emit
from accl.cli.table import Column, Table, number
from accl.store.deadline import within
from accl.store.rundir import RunDir
from accl.store.summary import reading
from accl.text import duration

READ_S = 60.0  # every value of a long run, from a slow disk
SeriesOption = Annotated[
    list[str] | None,
    typer.Option("--series", metavar="METRIC", help="Print every value of a metric instead; may be repeated."),
]
COLUMNS = [
    Column("series"),
    Column("step", justify="right"),
    Column("epoch", justify="right", show=number(".3f")),
    Column("seconds", "time", "", "right", duration),
    Column("value", justify="right", show=number(".6g")),
]


def show_series(run: RunDir, names: Sequence[str], format: Format) -> None:
    """Print every recorded value of metrics, one row each.

    Raises:
        AbsentError: a metric was not recorded, or nothing was.
        BusyError, DamagedError, RunError: the measurements cannot be read.
    """
    from accl.store.merge import merge_spool
    from accl.store.series import read_series

    with reading(run.database):
        within(READ_S, lambda: merge_spool(run))
        rows = within(READ_S, lambda: read_series(run, names))
    emit(Table(run.id, COLUMNS, rows, name="series"), format)


def raw_table(data: Mapping[str, Any]) -> Table:
    """Return what json holds of a run as one table: a row per value, keyed by the dotted path to it."""
    rows = [{"key": key, "value": value} for key, value in _flat(data, ())]
    return Table("", [Column("key"), Column("value")], rows, name="run")


def _flat(value: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flat(item, (*path, str(key)))
    elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        for index, item in enumerate(value):
            yield from _flat(item, (*path, str(index)))
    else:
        yield ".".join(path), value
