"""Reports of benchmarks as tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from accl.bench.report import Report, figure, origin
from accl.cli.table import MISSING, Column, Row, Table, number

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
    "speed against sentence-transformers": "× sentence-transformers",
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
    """Make up to four tables: a row for each encoder, for each whole run, for each candidate, and for other figures."""
    compared: dict[tuple[str, str], Row] = {}
    others: list[Row] = []
    for report in reports:
        for row in report.rows:
            if row.get("measure") in COLUMNS:
                key = (_setting(report, row), row["who"])
                compared[key] = {**compared.get(key, {}), row["measure"]: _with_spread(row)}
            elif "phase" not in row:
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
        _encoders([row for report in reports for row in report.rows if "model" in row and "phase" not in row]),
        _whole_runs([row for report in reports for row in report.rows if "phase" in row]),
        Table("", [Column("setting"), Column("who", " "), *measures], rows),
        Table("", [*([Column("bench")] if several else []), *figure_columns()], others),
    ]
    return [table for table in tables if table.rows]


def _encoders(rows: Sequence[Row]) -> Table:
    """Make the table of encoders: accl's step, those of its peers, and how they compare."""
    peers = list(dict.fromkeys(row["who"] for row in rows if row.get("peer") and row["value"] is not None))
    lines: list[Row] = []
    for its in _grouped(rows, ("model", "profile")):
        steps = {row["who"]: row for row in its if row.get("measure") == "time of a step"}
        failed = {row["who"]: row["failed"] for row in its if row.get("failed") and not row["peer"]}
        for who in dict.fromkeys([*(who for who in steps if not steps[who]["peer"]), *failed]):
            own = {row["measure"]: row for row in its if row["who"] == who and "measure" in row}
            lines.append(
                {
                    **_encoder(its[0]),
                    "who": who,
                    "backend": f"failed: {failed[who]}" if who in failed else steps[who].get("backend", ""),
                    "ms": _ratio(steps.get(who)),
                    **{f"{peer} ms": _ratio(steps.get(peer), 1) for peer in peers},
                    **{f"{peer} ratio": _ratio(own.get(f"speed against {peer}")) for peer in peers},
                    "floor": _ratio(own.get("distance from the floor, those that change"), 1),
                    "peak": figure(own["peak memory"]["value"]) if "peak memory" in own else MISSING,
                }
            )
    columns = [
        *_encoder_columns(lines),
        Column("backend", wrap=True),
        Column("ms", "ms/step", justify="right"),
        *(Column(f"{peer} ms", f"{peer} (ms/step)", justify="right") for peer in peers),
        *(Column(f"{peer} ratio", f"× {peer}", justify="right") for peer in peers),
        Column("floor", "× floor", justify="right"),
        Column("peak", "peak MiB", justify="right"),
    ]
    return Table("", columns, lines, name="encoders")


def _whole_runs(rows: Sequence[Row]) -> Table:
    """Make the table of whole runs: seconds of each, until its first step, and of each phase with its share."""
    from accl.bench.results import READY, WHOLE

    phases = list(dict.fromkeys(row["phase"] for row in rows if row["phase"] not in (WHOLE, READY)))
    lines: list[Row] = []
    for its in _grouped(rows, ("model", "profile", "who")):
        seconds = {row["phase"]: row["value"] for row in its}
        shares = {
            row["phase"]: f"{row['value']:.1f} ({100 * row['share']:.0f} %)" for row in its if row["phase"] in phases
        }
        lines.append({**_encoder(its[0]), "who": its[0]["who"], "steps": its[0]["steps"], **seconds, **shares})
    columns = [
        *_encoder_columns(lines),
        Column("steps", justify="right"),
        *(Column(name, name, "s", "right", number(".1f")) for name in (WHOLE, READY)),
        *(Column(name, name, "s", "right") for name in phases),
    ]
    return Table("", columns, lines, name="whole_runs", sideways=True)


def _grouped(rows: Iterable[Row], keys: Sequence[str]) -> Iterator[list[Row]]:
    """Yield the rows that share the values of ``keys``, in order of appearance."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    yield from groups.values()


def _encoder(row: Row) -> dict[str, str]:
    """Return the name of an encoder without the folders it lies in, and the profile."""
    return {"encoder": row["model"].removeprefix("random:").rstrip("/").rpartition("/")[2], "profile": row["profile"]}


def _encoder_columns(lines: Sequence[Row]) -> list[Column]:
    """Return the columns that tell lines apart: the profile where there are several, and the candidate likewise."""
    several = [key for key in ("profile", "who") if len({line[key] for line in lines}) > 1]
    return [Column("encoder"), *(Column(key, " " if key == "who" else "") for key in several)]


def origins(reports: Sequence[Report]) -> list[str]:
    """Write date, commit, device and versions of reports, each after the names of the reports that share them."""
    names: dict[str, list[str]] = {}
    for report in reports:
        names.setdefault(origin(report), []).append(report.name)
    return [f"{', '.join(dict.fromkeys(benches))}: {shared}" for shared, benches in names.items()]


def _setting(report: Report, row: Row) -> str:
    """The encoder, the profile and the overrides of a comparison, except where its data lay."""
    given = report.settings
    changed = [word for word in given.get("overrides", []) if not word.startswith("data.path=")]
    if given.get("min_tokens"):
        changed.append(f"questions of {given['min_tokens']} tokens and more")
    # Before several encoders were measured in a call, --set named that of a comparison.
    where = _encoder(row).values() if "model" in row else [str(given.get("profile", ""))]
    return ", ".join([*where, *changed])


def _with_spread(row: Row) -> str:
    """A row's value and half the width of its middle half."""
    half = "" if row["spread"] is None else f" ± {figure(row['spread'] / 2)}"
    return figure(row["value"]) + half


def _ratio(row: Row | None, digits: int = 2) -> str:
    """A row's value with so many decimals, and half the width of its middle half."""
    if row is None or row["value"] is None:
        return MISSING
    half = "" if row["spread"] is None else f" ± {row['spread'] / 2:.{digits}f}"
    return f"{row['value']:,.{digits}f}{half}"
