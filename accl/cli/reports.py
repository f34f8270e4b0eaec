"""Reports of benchmarks as tables."""

from __future__ import annotations

from collections.abc import Sequence

from accl.bench.report import Report, figure, origin
from accl.cli.table import Column, Row, Table

# Measures of a comparison that are a column, and its title, in this order.
COLUMNS = {
    "time of a step": "ms/step",
    "questions": "questions/s",
    "real tokens": "tokens/s",
    "use of the measured rate": "of the measured matmul rate (%)",
    "use of the maker's rate": "MFU (%)",
    "peak memory": "peak MiB",
    "distance from the floor, all parameters": "× floor",
    "distance from the floor, those that change": "× floor without the unused vocabulary",
    "speed against Trainer eager": "× Trainer eager",
    "speed against Trainer compile": "× Trainer compile",
}


def figure_columns() -> list[Column]:
    """Return the columns of a report's rows: the figure, its median, spread or error, and target."""
    cells = {"value": _value, "spread": _spread, "target": _target}
    titles = {"value": "median", "spread": "spread", "target": "target"}
    return [Column("what", wrap=True), *(Column(key, titles[key], "", "right", cell=cells[key]) for key in titles)]


def _value(row: Row) -> str:
    return figure(row["value"], row["unit"])


def _spread(row: Row) -> str:
    return f"± {figure(row['error'], row['unit'])}" if "error" in row else figure(row["spread"], row["unit"])


def _target(row: Row) -> str:
    most = figure(row["target"], row["unit"])
    return most if row.get("least") is None else f"{figure(row['least'])} to {most}"


def report_tables(reports: Sequence[Report]) -> list[Table]:
    """Make two tables: a row for each candidate of comparisons, and a row for each other figure."""
    compared: dict[tuple[str, str], Row] = {}
    others: list[Row] = []
    for report in reports:
        for row in report.rows:
            if row.get("measure") in COLUMNS:
                key = (_setting(report), row["who"])
                compared[key] = {**compared.get(key, {}), row["measure"]: _with_spread(row)}
            else:
                others.append({**row, "bench": report.name})
    rows: list[Row] = []
    before = ""
    for (where, who), cells in compared.items():
        rows.append({"setting": "" if where == before else where, "who": who, **cells})
        before = where
    used = [measure for measure in COLUMNS if any(measure in row for row in rows)]
    measures = [Column(measure, COLUMNS[measure], justify="right") for measure in used]
    several = sum(any(row.get("measure") not in COLUMNS for row in report.rows) for report in reports) > 1
    tables = [
        Table("", [Column("setting"), Column("who", " "), *measures], rows),
        Table("", [*([Column("bench")] if several else []), *figure_columns()], others),
    ]
    return [table for table in tables if table.rows]


def origins(reports: Sequence[Report]) -> list[str]:
    """Write date, commit, device and versions of reports, each after the names of the reports that share them."""
    names: dict[str, list[str]] = {}
    for report in reports:
        names.setdefault(origin(report), []).append(report.name)
    return [f"{', '.join(dict.fromkeys(benches))}: {shared}" for shared, benches in names.items()]


def _setting(report: Report) -> str:
    """The profile and the overrides of a comparison, except where its data lay."""
    given = report.settings
    changed = [word for word in given.get("overrides", []) if not word.startswith("data.path=")]
    if given.get("min_tokens"):
        changed.append(f"questions of {given['min_tokens']} tokens and more")
    return ", ".join([str(given.get("profile", "")), *changed])


def _with_spread(row: Row) -> str:
    """A row's value and half the width of its middle half."""
    half = "" if row["spread"] is None else f" ± {figure(row['spread'] / 2)}"
    return figure(row["value"]) + half
