"""`accl compare --by`: arms compared part by part, or question by question."""

from __future__ import annotations

import textwrap

from accl.analysis.named import Breakdown
from accl.cli.compare_screen import short_headers
from accl.cli.questions import By
from accl.cli.table import Column, Row, Table, fields, p_value, percent, points, span

TEXT_WIDTH = 100  # of a question in a table


def whole_table(found: Breakdown, by: By) -> Table:
    """Return all rows of all arms, as csv and json have them."""
    return Table(_title(found), _columns(found, by), _rows(found, by), name=f"by_{by}")


def tables_by_arm(found: Breakdown, by: By) -> list[Table]:
    """Return a table for each arm but the first, as people read them."""
    rows = _rows(found, by)
    return [
        Table(
            f"{arm} against {found.reference}: {_title(found)}",
            short_headers(_columns(found, by, arm)),
            [row for row in rows if row["arm"] == arm],
        )
        for arm in dict.fromkeys(row["arm"] for row in rows)
    ]


def notes(found: Breakdown, by: By) -> list[str]:
    """Say how the rows are made."""
    if by is By.QUESTION:
        listed = [
            f"{arm} gained {gained:,} and lost {lost:,} of {found.n:,} questions"
            for arm, (gained, lost) in found.flipped.items()
        ]
        over = f", under more of the {found.seeds} seeds than the other way round" * (found.seeds > 1)
        return [f"{'; '.join(listed)}{over}. Read one with: accl show RUN --questions id:ID"]
    seeds = f"over {found.seeds} seeds and " if found.seeds > 1 else ""
    return [f"Intervals are {seeds}over questions; p is Holm-adjusted over all {len(found.parts)} rows."]


def _title(found: Breakdown) -> str:
    seeds = f" over {found.seeds} seeds" if found.seeds > 1 else ""
    return f"{found.n:,} {found.split} questions{seeds} ({found.profile}, {found.protocol})"


def _columns(found: Breakdown, by: By, arm: str = "accuracy") -> list[Column]:
    if by is By.QUESTION:
        return [
            Column("change", cell=_change),
            Column(
                "text", "question", show=lambda text: textwrap.shorten(text, TEXT_WIDTH, placeholder=" …"), wrap=True
            ),
            Column("id"),
        ]
    return [
        Column("name", by, show=lambda name: str(name).replace("_", " "), wrap=True),
        Column("n", justify="right"),
        Column("before", found.reference, "%", "right", percent),
        Column("accuracy", arm, "%", "right", percent),
        Column("delta", "delta", "points", "right", points),
        Column("low", "95 % interval", "points", "right", cell=lambda row: span(row["low"], row["high"])),
        Column("p_holm", "Holm p", "", "right", p_value),
    ]


def _rows(found: Breakdown, by: By) -> list[Row]:
    terms = fields(found, "reference", "profile", "protocol", "split", "seeds")
    if by is By.QUESTION:
        return [
            fields(flip, "arm") | terms | fields(flip, "id", "task", "before", "after", "gains", "losses", "text")
            for flip in found.flips
        ]
    names = ("name", "n", "before", "accuracy", "gains", "losses", "delta", "low", "high", "p", "p_holm")
    return [fields(part, "arm") | terms | {"by": str(by)} | fields(part, *names) for part in found.parts]


def _change(row: Row) -> str:
    if row["seeds"] == 1:
        return "gained" if row["gains"] else "lost"
    return ", ".join(f"{said} {row[key]}" for said, key in (("gained", "gains"), ("lost", "losses")) if row[key])
