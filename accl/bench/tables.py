"""Reports as Markdown, for the README and for whoever is sent one."""

from __future__ import annotations

from collections.abc import Sequence

from accl.bench.report import Report, Row, figure, measured

# What a race says of every contestant: a column each, in this order.
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


def markdown(reports: Sequence[Report]) -> str:
    """The reports as GitHub tables; beneath them date, commit, device and versions.

    Rows that say the same of several contestants make one table with a line for each; all others one with a line for
    each figure.
    """
    races = [(report, found) for report in reports for found in report.rows if found.get("measure") in COLUMNS]
    others = [(report, found) for report in reports for found in report.rows if found.get("measure") not in COLUMNS]
    lines = [*_races(races), *([""] if races and others else []), *_others(others)]
    notes: dict[str, list[str]] = {}
    for report in reports:
        notes.setdefault(measured(report), []).append(report.name)
    lines += [f"\n{', '.join(dict.fromkeys(benches))}: {words}" for words, benches in notes.items()]
    return "\n".join(lines) + "\n"


def setting(report: Report) -> str:
    """What was changed for a race, without where its data lay."""
    given = report.settings
    changed = [word for word in given.get("overrides", []) if not word.startswith("data.path=")]
    if given.get("min_tokens"):
        changed.append(f"questions of {given['min_tokens']} tokens and more")
    return ", ".join([str(given.get("profile", "")), *changed])


def _races(found: Sequence[tuple[Report, Row]]) -> list[str]:
    used = [measure for measure in COLUMNS if any(row["measure"] == measure for _, row in found)]
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for report, row in found:
        half = "" if row["spread"] is None else f" ± {figure(row['spread'] / 2)}"
        cells.setdefault((setting(report), row["who"]), {})[row["measure"]] = figure(row["value"]) + half
    if not cells:
        return []
    head = ["setting", "", *(COLUMNS[measure] for measure in used)]
    lines = [_line(head), _line([":---", ":---", *("---:" for _ in used)])]
    before = ""
    for (where, who), values in cells.items():
        lines.append(_line(["" if where == before else where, who, *(values.get(measure, "–") for measure in used)]))
        before = where
    return lines


def _others(found: Sequence[tuple[Report, Row]]) -> list[str]:
    if not found:
        return []
    several = len({id(report) for report, _ in found}) > 1
    head = [*(["bench"] if several else []), "what", "median", "spread", "target"]
    lines = [_line(head), _line([*([":---"] if several else []), ":---", "---:", "---:", "---:"])]
    for report, row in found:
        figures = [figure(row[key], row["unit"]) for key in ("value", "spread", "target")]
        lines.append(_line([*([report.name] if several else []), str(row["what"]), *figures]))
    return lines


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
