"""`accl runs`: the runs as a table."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from accl.analysis.differing import Differing, differing
from accl.cli.options import RUNS, QueryArgument, RunsOption
from accl.cli.output import Format, FormatOption, SafeConsole, emit, print_notes, say
from accl.cli.runcolumns import (
    RUN,
    find_column,
    fits,
    fitted,
    in_order,
    named_rows,
    titled,
    unknown_column,
    usual_columns,
)
from accl.cli.runrows import run_row
from accl.cli.table import Column, Row, Table
from accl.errors import AbsentError, ConfigError
from accl.store.config_values import default_values
from accl.store.deadline import DEADLINE_S, each_within
from accl.store.rundir import RunDir, run_folders
from accl.store.selection import matching_summaries
from accl.store.state import State
from accl.store.summary import Summary
from accl.text import counted, shortened

NAMED = 3  # of the columns that do not fit
ColumnsOption = Annotated[
    str | None,
    typer.Option("--columns", "-c", metavar="NAME,NAME", help="Show these columns, of whatever a run is known by."),
]
SortOption = Annotated[
    str | None,
    typer.Option("--sort", "-s", metavar="NAME", help="Sort by a column, in descending order with - before it."),
]


def runs(
    query: QueryArgument = None,
    columns: ColumnsOption = None,
    sort: SortOption = None,
    format: FormatOption = Format.TABLE,
    runs: RunsOption = RUNS,
) -> None:
    """List the runs and what each is doing.

    The newest run comes first. States come from a look at the process: one that was killed shows as crashed.

    A QUERY shows only some: words that are a part of state, recipe,
    profile, seed or id, and comparisons, joined by blanks (and), OR, NOT
    and round brackets. Keys are state, recipe, profile, seed, id, name,
    tag, note, experiment, step, progress, age, loss, val, test and cfg.KEY
    of the configuration, of which the last part will do (lr); a colon means
    contains. Quote what the shell would take.

    Configuration keys whose values differ have columns as far as they fit
    the terminal, those that differ within a recipe first; where room is
    short, ids are shown without their time. --columns and --sort take these
    keys, the columns, and any metric that was recorded, such as test/ece, of
    which they take the newest value. In json config has every key that
    differs, whatever --columns says.

    Examples:

      accl runs full s42

      accl runs state:finished "cfg.optim.lr>=1e-4"

      accl runs "(val>30% OR age<2d)" NOT recipe:baseline,contrastive

      accl runs experiment:lr --columns lr,contrastive_weight,val --sort -val

      accl runs --format json
    """
    text, there = " ".join(query or ()), run_folders(runs)
    matching = matching_summaries(there, text)
    matching.sort(key=lambda summary: summary.age_key, reverse=True)
    if not matching:
        _say_that_there_is_none(runs, len(there), text, format)
        return
    asked, by = _asked(columns, sort, matching)
    keys = differing(matching)
    known = [column.key for column in (*asked, *filter(None, [by]))]
    metrics = [key for key in known if key not in default_values()]
    config = list(dict.fromkeys((*keys.within, *keys.between, *(key for key in known if key in default_values()))))
    recorded = _recorded(matching, metrics)
    rows = []
    for summary, values in zip(matching, keys.values, strict=True):
        row, latest = run_row(summary), summary.state.latest if summary.state else {}
        measured = {**latest, **recorded.get(summary.run, {})}
        row |= {key: measured[key] for key in metrics if key in measured and key not in row}
        rows.append(row | {key: values.get(key) for key in config})
    if by is not None and sort:
        rows = in_order(rows, by, descending=sort.startswith("-"))
    if format is Format.JSON:
        plain = [{key: value for key, value in row.items() if key not in config} for row in rows]
        data = [{**one, "config": {key: row[key] for key in config}} for one, row in zip(plain, rows, strict=True)]
        emit(Table("", asked, rows, name="runs"), format, data=data)
    elif format is Format.TABLE:
        _print(rows, asked, keys)
    else:
        shown = asked or usual_columns(rows, keys.within, keys.between)[0]
        rows = named_rows(rows, short=False)
        if format is Format.CSV:
            rows = [{key: row.get(key) for key in _csv_keys(row, asked)} for row in rows]
        emit(Table("", shown, rows, name="runs"), format)


def _recorded(summaries: Sequence[Summary], names: Sequence[str]) -> dict[RunDir, dict[str, float]]:
    """Return metrics from the databases of runs, where one is asked for that no run has in its ``state.json``.

    Raises:
        ConfigError: no run has recorded one of them.
    """
    wanted = [name for name in names if name not in _latest(summaries) and "/" in name]
    if not wanted:
        return {}
    from accl.store.newest import read_newest  # which imports DuckDB

    found: dict[RunDir, dict[str, float]] = {}
    unread = 0
    for run, answer in each_within(DEADLINE_S, lambda run: read_newest(run, wanted), [each.run for each in summaries]):
        if isinstance(answer, dict):
            found[run] = answer
        else:
            unread += not isinstance(answer, AbsentError)  # a run that has not begun has recorded nothing
    if unread:
        print_notes([f"the measurements of {counted(unread, 'run')} cannot be read now; see: accl show RUN"])
    if missing := [name for name in wanted if not any(name in each for each in found.values())]:
        raise unknown_column(missing[0], _latest(summaries))
    return found


def _latest(summaries: Sequence[Summary]) -> dict[str, None]:
    """Return the names of metrics that stand in the state of a run."""
    return dict.fromkeys(name for summary in summaries if summary.state for name in summary.state.latest)


def _csv_keys(row: Row, asked: Sequence[Column]) -> list[str]:
    return [column.key for column in asked] or [key for key in row if key != "shown"]


def _asked(columns: str | None, sort: str | None, summaries: Sequence[Summary]) -> tuple[list[Column], Column | None]:
    """Return the columns that --columns and --sort name.

    Raises:
        ConfigError: a name means none.
    """
    metrics = _latest(summaries)
    names = [name.strip() for name in columns.split(",")] if columns is not None else []
    if "" in names or sort in ("", "-"):
        raise ConfigError("The name of a column is empty.", "For example: accl runs --columns lr,val --sort -val")
    asked = [find_column(name, metrics) for name in dict.fromkeys(names)]
    if asked and all(column.key != RUN.key for column in asked):
        asked.insert(0, RUN)
    return titled(asked), find_column(sort.removeprefix("-"), metrics) if sort else None


def _say_that_there_is_none(root: Path, count: int, text: str, format: Format) -> None:
    if count:
        print_notes([f"no run of {count:,} in {root} matches: {text}"])
    if format is not Format.TABLE:
        emit(Table("", usual_columns([], (), ())[0], [], name="runs"), format)
    elif not count:
        say(f"No runs in {root} yet. Start one:  accl train full --profile demo")


def _print(rows: Sequence[Mapping[str, Any]], asked: list[Column], keys: Differing) -> None:
    """Print rows as a table for people, and below it what is wrong with runs."""
    room, left_out = SafeConsole().width, list[str]()
    if asked:
        named = named_rows(rows, short=False)
        shown = Table("", asked, named if fits(named, asked, room) else named_rows(rows, short=True))
    else:
        layout = fitted(rows, *usual_columns(rows, keys.within, keys.between), room)
        shown, left_out = Table("", layout.columns, layout.rows), layout.left_out
    emit(shown)
    for row in rows:
        if row["problem"] or (row["reason"] and row["state"] in (State.CRASHED, State.FAILED, State.STALLED)):
            say(shortened(f"{row['id']}: {row['reason']}"), style="dim")
    if left_out:
        more = f" and {len(left_out) - NAMED} more" if len(left_out) > NAMED else ""
        names = ", ".join(left_out[:NAMED])
        said = f"No room for {names}{more}; choose with --columns NAME,NAME."
        say(*textwrap.wrap(said, SafeConsole().width), style="dim")
