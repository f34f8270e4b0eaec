"""The columns of `accl runs`: which there are, what a name means, and which of them fit a terminal."""

from __future__ import annotations

import difflib
import math
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from accl.cli.layout import GAP, least_width
from accl.cli.runrows import progress, state_words
from accl.cli.table import MISSING, Column, Justify, Row, moment, number, percent, text
from accl.errors import ConfigError
from accl.store.config_values import default_values
from accl.store.rundir import is_id
from accl.store.vocabulary import CONFIG, RUNS
from accl.text import duration

STAMP = len("20261122-101500-")  # at the start of an id
LONGEST_NAME = 36  # characters of a name that stands in place of an id; ids have as many
LONGEST_VALUE = 24  # characters of a value of the configuration, of which the end is shown
RUN = Column("id", "run", cell=lambda row: row["shown"])


def _tags(tags: Sequence[str] | None) -> str:
    return ", ".join(tags or ()) or MISSING


def _steps(row: Row) -> str:
    if not row["total_steps"]:  # not known before it trains
        return MISSING
    return f"{row['step']:,}" if row["step"] and row["step"] == row["total_steps"] else progress(row)


def _age(row: Row) -> str:
    return duration(None if row["created"] is None else time.time() - row["created"])


COLUMNS: dict[str, Column] = {
    "run": RUN,
    "id": Column("id"),
    "name": Column("name", show=lambda name: name or MISSING),
    "state": Column("state", cell=state_words),
    "experiment": Column("experiment", show=lambda name: name or MISSING),
    "recipe": Column("recipe"),
    "profile": Column("profile"),
    "seed": Column("seed", justify="right"),
    "step": Column("step", justify="right", cell=_steps),
    "progress": Column("progress", "", "%", "right", number(".0f", 100)),
    "eta": Column("eta_seconds", "ETA", "", "right", duration),
    "loss": Column("train/loss", "loss", "", "right", number(".3f")),
    "val": Column("validation/accuracy", "val", "%", "right", percent),
    "test": Column("test/accuracy", "test", "%", "right", percent),
    "tag": Column("tags", show=_tags),
    "note": Column("note", show=lambda note: note or MISSING),
    "age": Column("created", "age", "", "right", cell=_age),
    "started": Column("started", show=moment),
    "ended": Column("ended", show=moment),
    "reason": Column("reason", wrap=True),
    "host": Column("host"),
    "pid": Column("pid", justify="right", show=lambda pid: str(pid or MISSING)),
}
_ALSO = {"tags": "tag", "eta_seconds": "eta", "created": "age"}
# Of a table that fits: what goes first where there is no room, after the configuration of recipes and profiles.
_ALWAYS = ("run", "state")
_WANTED = ("val", "test", "step")


@dataclass(frozen=True)
class Layout:
    """Columns that fit, rows with the text that stands for each run, and the names of the columns that do not fit."""

    columns: list[Column]
    rows: list[dict[str, Any]]
    left_out: list[str]


def config_column(key: str) -> Column:
    """Return the column of a configuration key, titled by its last part, or as a whole where a column has that name."""
    justify: Justify = "left" if isinstance(default_values().get(key), str) else "right"
    last = key.rpartition(".")[2]
    return Column(key, key if last in COLUMNS else last.replace("_", " "), "", justify, _config_text)


def titled(columns: Sequence[Column]) -> list[Column]:
    """Return columns with those of one title titled by their whole keys."""
    counts = Counter(column.title for column in columns)
    return [replace(each, header=each.key) if counts[each.title] > 1 else each for each in columns]


def _config_text(value: str | float | None) -> str:
    shown = text(value)
    return f"…{shown[1 - LONGEST_VALUE :]}" if len(shown) > LONGEST_VALUE else shown


def find_column(name: str, metrics: Iterable[str]) -> Column:
    """Return the column that a name means: one of `COLUMNS`, a configuration key as in queries, or a metric.

    Whatever has a slash may be a metric that was recorded; ``metrics`` are those that are known.

    Raises:
        ConfigError: it means none.
    """
    known = RUNS.find(name)
    plain = _ALSO.get(name, name)
    for candidate in (plain, known.name if known else plain):
        if candidate in COLUMNS:
            return COLUMNS[candidate]
    if known is not None and known.name.startswith(CONFIG):
        return config_column(known.name.removeprefix(CONFIG))
    if name in metrics or "/" in name:
        share = name.endswith(("accuracy", "accuracy/best"))
        title = name.replace("_", " ").replace("/", " ")  # so that it breaks where room is short
        return Column(name, title, "%" if share else "", "right", percent if share else number(".5g"))
    raise unknown_column(name, metrics)


def unknown_column(name: str, metrics: Iterable[str]) -> ConfigError:
    """Return the error about a name that means no column, with the nearest that does."""
    names = [*COLUMNS, *_ALSO, *metrics]
    near = next(iter(difflib.get_close_matches(name, names, n=1)), "") or RUNS.nearest(name).removeprefix(CONFIG)
    hint = f"Did you mean {near!r}? " if near else ""
    kinds = f"Columns are {', '.join(COLUMNS)}, keys of the configuration such as optim.lr, and metrics of the runs."
    return ConfigError(f"There is no column {name!r}.", hint + kinds)


def in_order(rows: Sequence[dict[str, Any]], column: Column, descending: bool) -> list[dict[str, Any]]:
    """Return rows sorted by the values of a column; those without a value come last."""

    def known(value: object) -> bool:
        return value not in (None, "", ()) and not (isinstance(value, float) and math.isnan(value))

    values = [(row.get(column.key), row) for row in rows]
    found = [(value, row) for value, row in values if known(value)]
    # All texts are larger than all numbers.
    found.sort(key=lambda each: (isinstance(each[0], (str, tuple)), each[0]), reverse=descending)
    return [row for _, row in found] + [row for value, row in values if not known(value)]


def named_rows(rows: Sequence[Mapping[str, Any]], short: bool) -> list[dict[str, Any]]:
    """Return rows with the text that stands for each run as ``shown``: its name where that is one run's, else its id.

    Args:
        short: whether to leave the time out of ids, where that leaves them different.
    """
    names, ids = Counter(row["name"] for row in rows), Counter(row["id"][STAMP:] for row in rows)
    shown = []
    for row in rows:
        name, id = row["name"], row["id"]
        if name and names[name] == 1 and len(name) <= LONGEST_NAME:
            id = name
        elif short and is_id(id) and ids[id[STAMP:]] == 1:
            id = id[STAMP:]
        shown.append({**row, "shown": id})
    return shown


def usual_columns(rows: Sequence[Row], within: Sequence[str], between: Sequence[str]) -> tuple[list[Column], list[int]]:
    """Return the columns of a list of runs in their order, and the rank of each: a lower one is kept longer."""
    ranks = dict.fromkeys(_ALWAYS, 0) | {name: 1 + rank for rank, name in enumerate(_WANTED)}
    ranks |= {f"{CONFIG}{key}": 10 + rank for rank, key in enumerate(within)}
    labels = {"experiment": "experiment", "tag": "tags"}
    ranks |= {name: 100 for name, key in labels.items() if any(row[key] for row in rows)}
    if any(row["name"] for row in rows):  # which hide what the ids say
        ranks |= dict.fromkeys(("recipe", "seed"), 101)
    if any(row["eta_seconds"] is not None for row in rows):
        ranks["eta"] = 102
    ranks |= {"loss": 103, "profile": 104 if len({row["profile"] for row in rows}) > 1 else 300}
    ranks |= {f"{CONFIG}{key}": 200 + rank for rank, key in enumerate(between)}
    before = ("run", "state", "experiment", "recipe", "seed", "profile")
    keys = [f"{CONFIG}{key}" for key in (*within, *between)]
    names = [name for name in (*before, *keys, "step", "eta", "loss", "val", "test", "tag") if name in ranks]
    columns = [COLUMNS[name] if name in COLUMNS else config_column(name.removeprefix(CONFIG)) for name in names]
    return titled(columns), [ranks[name] for name in names]


def fitted(rows: Sequence[Mapping[str, Any]], columns: Sequence[Column], ranks: Sequence[int], room: int) -> Layout:
    """Leave out what does not fit a terminal, the columns of the highest rank first; ids are shortened before that."""
    named = named_rows(rows, short=False)
    widths = [least_width(column, named) for column in columns]
    if _total(width for width, rank in zip(widths, ranks, strict=True) if rank < 200) > room:
        named = named_rows(rows, short=True)
        widths[0] = least_width(columns[0], named)
    kept: set[int] = set()
    order = sorted(range(len(columns)), key=lambda index: ranks[index])
    for index in order:
        if not ranks[index] or _total(widths[i] for i in (*kept, index)) <= room:
            kept.add(index)
    left_out = [_typed(columns[i]) for i in order if i not in kept]
    return Layout([column for i, column in enumerate(columns) if i in kept], named, left_out)


def fits(rows: Sequence[Row], columns: Sequence[Column], room: int) -> bool:
    """Return whether columns fit a terminal."""
    return _total(least_width(column, rows) for column in columns) <= room


def _typed(column: Column) -> str:
    """Return the name by which a column can be asked for."""
    return next((name for name, known in COLUMNS.items() if known.key == column.key), column.key)


def _total(widths: Iterable[int]) -> int:
    return sum(width + GAP for width in widths) - GAP
