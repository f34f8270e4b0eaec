"""Tables and figures of a report as HTML: cells that show a number rounded and hold it whole."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from accl.analysis.report.svg import escape

MISSING = "–"


def spread_cell(name: str, mean: float, sd: float) -> str:
    """Return a cell with a mean share and its standard deviation in per cent; NaN where there is none."""
    shown = (
        MISSING
        if not math.isfinite(mean)
        else f"{100 * mean:.2f}" + (f" ± {100 * sd:.2f}" if math.isfinite(sd) else "")
    )
    return cell(shown, name, mean, css="num", more=f' data-sd="{sd!r}"' if math.isfinite(sd) else "")


def number_cell(name: str, value: float, factor: float, form: str) -> str:
    """Return a cell that shows ``factor`` times a value by a format, and a dash for NaN."""
    shown = MISSING if not math.isfinite(value) else format(factor * value, form).replace("-", "−")
    return cell(shown, name, value, css="num")


def cell(
    shown: object, name: str = "", value: float = math.nan, *, css: str = "", more: str = "", escaped: bool = False
) -> str:
    """Return a cell; a finite value stands in it unrounded as well, under its name.

    Args:
        css: its class. more: further attributes. escaped: whether ``shown`` is HTML already.
    """
    marks = f' class="{css}"' if css else ""
    if name and math.isfinite(value):
        marks += f' data-key="{escape(name)}" data-value="{value!r}"{more}'
    return f"<td{marks}>{shown if escaped else escape(shown)}</td>"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], marks: Sequence[str] = (), numbers_from: int = 99) -> str:
    """Return a table; columns from ``numbers_from`` on are aligned to the right, and ``marks`` go into the rows."""
    titles = "".join(f"<th{' class=num' * (i >= numbers_from)}>{escape(title)}</th>" for i, title in enumerate(head))
    listed_rows = list(rows)
    body = "".join(
        f"<tr{mark}>{''.join(cells)}</tr>"
        for mark, cells in zip(marks or [""] * len(listed_rows), listed_rows, strict=True)
    )
    return f'<div class="scroll"><table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table></div>'


def figure(drawing: str, caption: str = "") -> str:
    """Return a drawing with a caption below."""
    return f"<figure>{drawing}{f'<figcaption>{caption}</figcaption>' if caption else ''}</figure>"


def details(summary: str, body: str) -> str:
    """Return what is shown when its summary is clicked; on paper always."""
    return f"<details><summary>{summary}</summary>{body}</details>"
