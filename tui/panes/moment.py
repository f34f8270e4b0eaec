"""The list of one moment of a run: pairs that are hard, tasks that rise and sink, events near it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from textual.strip import Strip

from accl.store.reader import Confusion
from accl.text import duration
from tui import theme
from tui.feed import RunView
from tui.panes.matrices import KIND_NAMES
from tui.scale import short
from tui.text import Piece, cell_len, fit, strip
from tui.widgets.strip import StripWidget
from tui.widgets.text import shorten

LOOKBACK = 0.1  # share of the updates of the weights over which tasks rise and sink
ENTRIES = 5  # of a part at most
Lines = list[list[Piece]]


class Moment(StripWidget):
    """The parts of a moment below each other, each with as many entries as there is room for.

    Attributes:
        content: (title, entries) by part.
    """

    content: Sequence[tuple[list[Piece], Lines]] = ()

    def show(self, content: Sequence[tuple[list[Piece], Lines]]) -> None:
        """Replace the parts."""
        if content != self.content:
            self.content = content
            self.redraw()

    def draw(self, width: int, height: int) -> list[Strip]:
        parts = [part for part in self.content if part[1]]
        room = height - 2 * len(parts) + 1
        shown = [0] * len(parts)
        while room > 0 and (open_parts := [i for i, (_, lines) in enumerate(parts) if shown[i] < len(lines)]):
            for i in open_parts[:room]:
                shown[i] += 1
            room -= len(open_parts)
        lines: Lines = []
        for (title, entries), count in zip(parts, shown, strict=True):
            lines += [*([[]] if lines else []), title, *entries[:count]]
        return [strip(shorten(line, width), width) for line in lines]


def moment_of(
    view: RunView, step: float | None, confusion: Confusion | None, seconds: float
) -> list[tuple[list[Piece], Lines]]:
    """Gather the parts.

    Args:
        step: of the cursor; None shows the newest.
        confusion: nearest to it.
        seconds: running time at it.
    """
    rising, sinking, since = _moved(view, step)
    note = f"  since step {since:,}" if since is not None else ""
    source = f"  step {confusion.step:,}, {_stream(confusion.kind)}" if confusion else ""
    return [
        (_title("hardest pairs", source), _pairs(view, confusion)),
        (_title("rising tasks", note), rising),
        (_title("sinking tasks", note), sinking),
        (_title("events", " near the cursor" if step is not None else ""), _events(view, seconds)),
    ]


def _title(text: str, note: str) -> list[Piece]:
    return [(text, theme.TITLE), (note, theme.VERY_DIM)]


def _stream(kind: str) -> str:
    """Return words for the questions of which the pairs of a matrix are."""
    return KIND_NAMES.get(kind, kind).rpartition(", ")[2]


def live_kind(view: RunView) -> str:
    """Return the kind of matrix that training measures, of which there are most; empty without any."""
    return max(
        view.confusion_steps, key=lambda kind: (len(view.confusion_steps[kind]), kind == "similarity"), default=""
    )


def nearest_step(steps: Sequence[int], step: float | None) -> int | None:
    """Return the step that is nearest to another, or the last; None without any."""
    if not steps:
        return None
    return steps[-1] if step is None else min(steps, key=lambda known: abs(known - step))


def _pairs(view: RunView, confusion: Confusion | None) -> Lines:
    if confusion is None or len(confusion.matrix) != len(view.tasks):
        return []
    # A pair has two cells, of which the larger counts.
    either = np.fmax(confusion.matrix, confusion.matrix.T)
    rows, columns = np.triu_indices(len(either), 1)
    values = either[rows, columns]
    order = np.argsort(-np.where(np.isfinite(values), values, -np.inf), kind="stable")[:ENTRIES]
    lines: Lines = []
    for a, b in ((int(rows[i]), int(columns[i])) for i in order if np.isfinite(values[i])):
        if not confusion.matrix[a, b] >= confusion.matrix[b, a]:
            a, b = b, a
        names = f"{view.tasks[a].name} × {view.tasks[b].name}"
        value, n = short(float(either[a, b])), f" n{confusion.counts[a, b]:,}"
        lines.append([(f"{value:>6}{n:<6} {names}", theme.DIM)])  # in one style: fewer bytes as the cursor moves
    return lines


def _moved(view: RunView, step: float | None) -> tuple[Lines, Lines, int | None]:
    """Return the tasks that rose and that sank most up to a step, and since when."""
    curriculum = view.curriculum
    if curriculum is None or not view.tasks:
        return [], [], None
    last = len(curriculum.steps_S) - 1
    now = last if step is None else int(np.searchsorted(curriculum.steps_S, step, side="right")) - 1
    before = now - max(1, round(LOOKBACK * last))
    if before < 0:
        return [], [], None
    ratios = curriculum.weights_SK[[before, now]].astype(float) * len(view.tasks)
    change = ratios[1] - ratios[0]
    order = np.argsort(-change, kind="stable")

    def lines(indices: Sequence[int]) -> Lines:
        return [
            [
                (f"{change[i]:>+6.2f}", theme.MORE if change[i] > 0 else theme.LESS),
                (f" to ×{ratios[1, i]:.2f} {view.tasks[i].name}", theme.DIM),
            ]
            for i in indices[:ENTRIES]
        ]

    rising = [int(i) for i in order if change[i] >= 0.005]
    sinking = [int(i) for i in order[::-1] if change[i] <= -0.005]
    return lines(rising), lines(sinking), int(curriculum.steps_S[before])


def _events(view: RunView, seconds: float) -> Lines:
    near = sorted(view.events, key=lambda event: abs(event.seconds - seconds))[:ENTRIES]
    lines: Lines = []
    for event in near:
        style = theme.DIM if event.level == "info" else theme.MARK
        when = duration(event.seconds)
        when = fit(when, max(6, cell_len(when)), right=True)
        lines.append([(f"{when} ", theme.VERY_DIM), (event.message, style)])
    return lines
