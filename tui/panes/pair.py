"""Facts about pairs of tasks, as text."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from accl.analysis.stats import wilson
from accl.store.questions import Question
from accl.store.reader import Confusion
from tui import theme
from tui.feed import RunView
from tui.matrix import compact
from tui.panes.matrices import History
from tui.raster import Floats
from tui.text import SPARKS, Piece
from tui.widgets.table import Column, Row

PAIR_COLUMNS = (
    Column("#", 3, right=True),
    Column("value", 7, right=True),
    Column("Δ", 5, right=True, rank=2),
    Column("task", 26, grow=True),
    Column("confused with", 26, grow=True),
    Column("pairs", 9, right=True, rank=1),
)


def value_text(confusion: Confusion, a: int, b: int) -> str:
    """Return the value of a pair with how often it was measured, and an interval where that is a share of questions."""
    value, count = float(confusion.matrix[a, b]), int(confusion.counts[a, b])
    if not count or not math.isfinite(value):
        return "never seen together"
    if not confusion.kind.startswith("prototype"):
        return f"{value:#.3g} · {count:,} pairs"
    # The counts of the training stream fade, and those of pairs share questions: neither gives an interval.
    low, high = wilson(round(value * count), count) if confusion.kind.endswith("/test") else (math.nan, math.nan)
    interval = f" [{compact(low)}, {compact(high)}]" if math.isfinite(low) else ""
    return f"{value:#.3g}{interval} · {count:,} questions"


def over_time(history: History, a: int, b: int) -> list[Piece]:
    """Return the values of a pair over time as a spark between its first and its last value."""
    values = history.matrix_SKK[:, a, b] if len(history.steps) else np.zeros(0)
    values = values[np.isfinite(values)]
    if len(values) < 2:
        return []
    low, span = values.min(), float(np.ptp(values)) or 1.0
    spark = "".join(SPARKS[i] for i in ((values - low) / span * 7).round().astype(int))
    ends = [f"{compact(float(value))}" for value in (values[0], values[-1])]
    return [(f"{ends[0]} ", theme.DIM), (spark, theme.TITLE), (f" {ends[1]}", theme.DIM)]


def weights_text(view: RunView, a: int, b: int, step: int) -> str:
    """Return how many times the uniform weight both tasks have at a step; empty before the first update."""
    curriculum = view.curriculum
    if curriculum is None or not (row := int(np.searchsorted(curriculum.steps_S, step, "right"))):
        return ""
    weights_K = curriculum.weights_SK[row - 1]
    first, second = (f"×{float(weights_K[i]) * len(weights_K):.2f}" for i in (a, b))
    return f"weights {first} {second}"


def question_lines(questions: Sequence[Question], names: Sequence[str]) -> list[list[Piece]]:
    """Return two lines for each question: how it was answered, and its text."""
    lines: list[list[Piece]] = []
    for question in questions:
        letter, gold = (chr(ord("A") + i) for i in (question.predicted, question.answer))
        mark: Piece = ("✓ ", theme.TITLE) if question.right else ("✗ ", theme.ERROR)
        chosen = f"{letter} {compact(question.probabilities[question.predicted])}"
        gold_text = "" if question.right else f", gold {gold}"
        lines += [
            [mark, (chosen + gold_text, theme.PLAIN), (f"  {names[question.task]}", theme.VERY_DIM)],
            [("  " + question.text, theme.DIM)],
        ]
    return lines


def pair_rows(
    ranking: Sequence[tuple[int, int]],
    matrix: Floats,
    change: Floats | None,
    counts: NDArray[np.int64],
    names: Sequence[str],
) -> list[Row]:
    """Return a row of `PAIR_COLUMNS` for each pair of a ranking, from its first on; ``change`` is to what it was."""
    rows = []
    for rank, (a, b) in enumerate(ranking, start=1):
        cells = (
            (str(rank), theme.VERY_DIM),
            (f"{matrix[a, b]:#.3g}", theme.BOLD),
            ("" if change is None else signed(change[a, b]), theme.DIM),
            (names[a], theme.PLAIN),
            (names[b], theme.PLAIN),
            (f"{counts[a, b]:,}", theme.DIM),
        )
        rows.append(Row(f"{a} {b}", cells))
    return rows


def signed(value: float) -> str:
    """Format a difference with its sign."""
    return f"+{compact(value)}" if value > 0 else compact(value)
