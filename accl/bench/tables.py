"""The table of a comparison: a row for each candidate, a column for each measure."""

from __future__ import annotations

from collections.abc import Sequence

from accl.bench.report import Report, Row, figure

# Measures that are a column, in this order: titles in a terminal and in Markdown.
COLUMNS = {
    "time of a step": ("ms/step", "ms/step"),
    "questions": ("questions/s", "questions/s"),
    "real tokens": ("tokens/s", "tokens/s"),
    "use of the measured rate": ("use %", "of the measured matmul rate (%)"),
    "use of the maker's rate": ("of maker's %", "MFU (%)"),
    "peak memory": ("MiB", "peak MiB"),
    "distance from the floor, all parameters": ("× floor", "× floor"),
    "distance from the floor, those that change": ("× least", "× floor without the unused vocabulary"),
    "speed against Trainer eager": ("× Trainer eager", "× Trainer eager"),
    "speed against Trainer compile": ("× Trainer compile", "× Trainer compile"),
}


def terminal(names: Sequence[str], rows: Sequence[Row]) -> str:
    """A comparison's rows as text: one line for each candidate of ``names``, then all figures of no candidate."""
    own = [row for row in rows if row.get("who") in names and row.get("measure") in COLUMNS]
    cells = {(row["who"], row["measure"]): with_spread(row) for row in own}
    used = [measure for measure in COLUMNS if any(row["measure"] == measure for row in own)]
    table = [["", *(COLUMNS[measure][0] for measure in used)]]
    table += [[name, *(cells.get((name, measure), "–") for measure in used)] for name in names]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = []
    for first, *rest in table:
        padded = [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *padded]).rstrip())
    lines.append("")
    lines += [
        row["what"] + ("" if row["value"] is None else f": {with_spread(row)} {row['unit']}")
        for row in rows
        if row not in own
    ]
    return "\n".join(lines)


def setting(report: Report) -> str:
    """The profile and the overrides of a comparison, except where its data lay."""
    given = report.settings
    changed = [word for word in given.get("overrides", []) if not word.startswith("data.path=")]
    if given.get("min_tokens"):
        changed.append(f"questions of {given['min_tokens']} tokens and more")
    return ", ".join([str(given.get("profile", "")), *changed])


def with_spread(row: Row) -> str:
    """A row's value and half the width of its middle half."""
    half = "" if row["spread"] is None else f" ± {figure(row['spread'] / 2)}"
    return figure(row["value"]) + half
