"""Reports as tables: in a terminal for one comparison, in Markdown for any reports."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from accl.bench.report import Report, Row, figure, measured

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
    cells = {(row["who"], row["measure"]): _with_spread(row) for row in own}
    used = _used(own)
    table = [["", *(COLUMNS[measure][0] for measure in used)]]
    table += [[name, *(cells.get((name, measure), "–") for measure in used)] for name in names]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = []
    for first, *rest in table:
        padded = [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *padded]).rstrip())
    lines.append("")
    lines += [
        row["what"] + ("" if row["value"] is None else f": {_with_spread(row)} {row['unit']}")
        for row in rows
        if row not in own
    ]
    return "\n".join(lines)


def markdown(reports: Sequence[Report]) -> str:
    """The reports as GitHub tables; beneath them date, commit, device and versions.

    Rows that say the same of several candidates make one table with a line for each; all others make one with a line
    for each figure.
    """
    compared = [(report, row) for report in reports for row in report.rows if row.get("measure") in COLUMNS]
    others = [(report, row) for report in reports for row in report.rows if row.get("measure") not in COLUMNS]
    lines = [*_compared(compared), *([""] if compared and others else []), *_others(others)]
    origins: dict[str, list[str]] = {}
    for report in reports:
        origins.setdefault(measured(report), []).append(report.name)
    lines += [f"\n{', '.join(dict.fromkeys(benches))}: {origin}" for origin, benches in origins.items()]
    return "\n".join(lines) + "\n"


def setting(report: Report) -> str:
    """The profile and the overrides of a comparison, except where its data lay."""
    given = report.settings
    changed = [word for word in given.get("overrides", []) if not word.startswith("data.path=")]
    if given.get("min_tokens"):
        changed.append(f"questions of {given['min_tokens']} tokens and more")
    return ", ".join([str(given.get("profile", "")), *changed])


def _compared(rows: Sequence[tuple[Report, Row]]) -> list[str]:
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for report, row in rows:
        cells.setdefault((setting(report), row["who"]), {})[row["measure"]] = _with_spread(row)
    if not cells:
        return []
    used = _used(row for _, row in rows)
    lines = _head(["setting", ""], [COLUMNS[measure][1] for measure in used])
    before = ""
    for (where, who), values in cells.items():
        lines.append(_line(["" if where == before else where, who, *(values.get(measure, "–") for measure in used)]))
        before = where
    return lines


def _others(rows: Sequence[tuple[Report, Row]]) -> list[str]:
    if not rows:
        return []
    several = len({id(report) for report, _ in rows}) > 1
    lines = _head([*(["bench"] if several else []), "what"], ["median", "spread", "target"])
    for report, row in rows:
        figures = [figure(row[key], row["unit"]) for key in ("value", "spread", "target")]
        lines.append(_line([*([report.name] if several else []), str(row["what"]), *figures]))
    return lines


def _head(words: Sequence[str], numbers: Sequence[str]) -> list[str]:
    return [_line([*words, *numbers]), _line([*(":---" for _ in words), *("---:" for _ in numbers)])]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _used(rows: Iterable[Row]) -> list[str]:
    """Measures that the rows have, in the order of `COLUMNS`."""
    found = {row["measure"] for row in rows}
    return [measure for measure in COLUMNS if measure in found]


def _with_spread(row: Row) -> str:
    half = "" if row["spread"] is None else f" ± {figure(row['spread'] / 2)}"
    return figure(row["value"]) + half
