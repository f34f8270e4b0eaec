"""Rows of the tables of the compare screen: arms, tasks, flips, differing keys, notes, seeds needed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from rich.style import Style

from accl.analysis.grouping import Arm, differing_keys
from accl.store.state import State
from tui import theme
from tui.feed import RunView, without_path
from tui.scale import percent
from tui.text import Piece
from tui.widgets.forest import Effect, interval_bar
from tui.widgets.table import Column, Row

if TYPE_CHECKING:
    from accl.analysis.arms import ArmsComparison, Change, Scores

ARM_COLUMNS = (
    Column("arm", 18, grow=True),
    Column("state", 20, rank=1),
    Column("seeds", 6, right=True, rank=3),
    Column("steps", 11, right=True, rank=4),
    Column("val", 6, right=True, rank=2),
    Column("test ± sd", 11, right=True),
    Column("n", 6, right=True, rank=5),
    Column("floor", 6, right=True, rank=2),
)
BAR_CELLS = 17
CHANGE_COLUMNS = (
    Column("", 20, grow=True),
    Column("n", 6, right=True, rank=1),
    Column("was", 6, right=True, rank=3),
    Column("now", 6, right=True, rank=2),
    Column("Δ", 6, right=True),
    Column("0 ○ was ● now 100", BAR_CELLS, rank=1),
    Column("gained", 6, right=True, rank=4),
    Column("lost", 5, right=True, rank=4),
)
FLIP_COLUMNS = (
    Column("arm", 18, grow=True),
    Column("seed", 12, rank=1),
    Column("questions", 12),
    Column("count", 6, right=True),
    Column("of all", 7, right=True, rank=2),
)
BLANK: Piece = ("", theme.PLAIN)


def seed_style(arm: Arm, view: RunView) -> Style:
    """Return the shade of an arm's colour that a seed has."""
    return theme.arm_style(arm.label, view.summary.setup.seed)


def run_label(arm: Arm, view: RunView, views: Sequence[RunView]) -> str:
    """Return the arm with the seed, and with the end of the run's id where several have that seed."""
    label = f"{arm.label} s{view.summary.seed}"
    same = [i for i in arm.members if views[i].summary.seed == view.summary.seed]
    return f"{label} {view.summary.run.id.rsplit('-', 1)[-1]}" if len(same) > 1 else label


def why_not(view: RunView) -> str:
    """Say what keeps a run from being compared that has no results; empty if nothing is known to."""
    problem = view.summary.summary.problem or view.problem
    if problem is not None:
        return without_path(str(problem), view.summary.run)
    state = view.summary.state.state
    return "" if state is State.FINISHED else f"it is {state}"


def arm_rows(
    arms: Sequence[Arm], views: Sequence[RunView], comparison: ArmsComparison | None, problems: Mapping[int, str]
) -> list[Row]:
    """Make a row for each arm, and below it one for each of its runs that takes no part though it has ended."""
    rows = []
    for arm in arms:
        score = comparison.scores.get(arm.label) if comparison else None
        rows.append(Row(arm.label, tuple(_arm_cells(arm, [views[i] for i in arm.members], score, comparison))))
        for i in arm.members:
            summary = views[i].summary
            if i in problems and not summary.active:
                name: Piece = (f"   s{summary.seed} {summary.run.id.rsplit('-', 1)[-1]}", theme.DIM)
                broken = summary.summary.problem or views[i].problem
                state = (f"? {broken.kind}", theme.ERROR) if broken else summary.state_label
                rows.append(Row(f"run {i}", (name, state, *[BLANK] * (len(ARM_COLUMNS) - 2))))
    return rows


def _arm_cells(
    arm: Arm, views: Sequence[RunView], score: Scores | None, comparison: ArmsComparison | None
) -> list[Piece]:
    labels = Counter(view.summary.state_label[0] for view in views)
    state = views[0].summary.state_label
    if len(labels) > 1:
        words = " ".join(f"{count} {label.split()[0]}" for label, count in labels.items())
        state = (words, theme.PLAIN)
    steps = sorted({view.summary.state.step for view in views})
    valid = [value for view in views if math.isfinite(value := view.summary.validated)]
    is_reference = comparison is not None and comparison.reference == arm.label
    cells: list[Piece] = [
        (f"━ {arm.label}" + " (ref)" * is_reference, theme.arm_style(arm.label)),
        state,
        (str(len(views)), theme.DIM),
        ("–".join(f"{step:,}" for step in dict.fromkeys((steps[0], steps[-1]))), theme.DIM),
        (f"{100 * np.mean(valid):.1f}" if valid else "", theme.PLAIN),
    ]
    if score is None or comparison is None:
        return [*cells, BLANK, BLANK, BLANK]
    spread = f" ± {100 * score.sd:.1f}" if math.isfinite(score.sd) else ""
    floor = (f"{100 * score.floor:.1f}", theme.MARK if score.mean <= score.floor else theme.DIM)
    return [
        *cells,
        (f"{100 * score.mean:.1f}{spread}", theme.BOLD),
        (f"{comparison.n:,}", theme.DIM),
        floor if math.isfinite(score.floor) else BLANK,
    ]


def effects(arms: Sequence[Arm], views: Sequence[RunView], comparison: ArmsComparison | None) -> list[Effect]:
    """Return the differences to the reference for the forest plot, in points."""
    found = []
    for arm in arms:
        score = comparison.scores.get(arm.label) if comparison else None
        if score is not None and (pair := score.difference) is not None:
            dots = zip(score.deltas, score.flips, strict=True)
            seeds = tuple((100 * delta, seed_style(arm, views[flip.run])) for delta, flip in dots)
            p = pair.p if score.p_holm is None else score.p_holm
            style = theme.arm_style(arm.label)
            found.append(Effect(arm.label, style, 100 * pair.delta, 100 * pair.low, 100 * pair.high, seeds, p))
    return found


def change_rows(changes: Sequence[Change], is_reference: bool) -> list[Row]:
    """Make a row for each task or category: the largest differences first, of the reference the smallest accuracies."""
    from accl.analysis.stats import wilson  # imported late, as all statistics: the curves need not wait for them

    ordered = sorted(changes, key=lambda change: change.accuracy if is_reference else -abs(change.delta))
    rows = []
    for change in ordered:
        low, high = wilson(round(change.accuracy * change.n), change.n)
        style = theme.PLAIN if is_reference or not change.delta else _sign_style(change.delta)
        rows.append(
            Row(
                change.name,
                (
                    (change.name, theme.PLAIN),
                    (f"{change.n:,}", theme.DIM),
                    BLANK if is_reference else (f"{100 * change.before:.1f}", theme.DIM),
                    (f"{100 * change.accuracy:.1f}", theme.PLAIN),
                    BLANK if is_reference else (f"{100 * change.delta:+.1f}", style + Style(bold=True)),
                    (interval_bar(low, change.accuracy, high, change.before, BAR_CELLS), style),
                    BLANK if is_reference else (f"+{change.gains}", theme.DIM),
                    BLANK if is_reference else (f"-{change.losses}", theme.DIM),
                ),
            )
        )
    return rows


def _sign_style(delta: float) -> Style:
    return Style(color=theme.GOOD if delta > 0 else theme.BAD)


def flip_rows(arms: Sequence[Arm], views: Sequence[RunView], comparison: ArmsComparison | None) -> list[Row]:
    """Make two rows for each pair of runs: the questions gained and those lost."""
    rows = []
    for arm in arms:
        score = comparison.scores.get(arm.label) if comparison else None
        for flip in score.flips if score else ():
            before, after = (views[i].summary.seed for i in (flip.before, flip.run))
            seeds = f"s{after}" if before == after else f"s{after} to s{before}"
            share = 1 / comparison.n if comparison else math.nan
            name = (f"━ {arm.label}", seed_style(arm, views[flip.run]))
            for answer, word, count, colour in (
                ("right", "▲ gained", flip.gains, theme.GOOD),
                ("wrong", "▼ lost", flip.losses, theme.BAD),
            ):
                number, of_all = (f"{count:,}", theme.BOLD), (percent(count * share), theme.DIM)
                rows.append(
                    Row(f"{flip.run} {answer}", (name, (seeds, theme.DIM), (word, Style(color=colour)), number, of_all))
                )
    return rows


def config_table(arms: Sequence[Arm]) -> tuple[list[Column], list[Row]]:
    """Make a column for each arm and a row for each key in which arms differ."""
    columns = [Column("key", 30, grow=True)]
    columns += [Column(arm.label, 16, right=True, rank=i) for i, arm in enumerate(arms)]
    rows = []
    for key in differing_keys(arms):
        values = [str(arm.values.get(key, "–")) for arm in arms]
        cells: list[Piece] = [(key, theme.PLAIN)]
        cells += [(value, theme.arm_style(arm.label)) for arm, value in zip(arms, values, strict=True)]
        rows.append(Row(key, tuple(cells)))
    return columns, rows


def note_lines(notes: Sequence[str]) -> list[list[Piece]]:
    """Return the notes as entries of a log; warnings first."""
    entries: list[list[Piece]] = [
        [("! ", theme.MARK), (note[2:], theme.PLAIN)] for note in notes if note.startswith("! ")
    ]
    return entries + [[("· ", theme.VERY_DIM), (note, theme.DIM)] for note in notes if not note.startswith("! ")]


def power_lines(arms: Sequence[Arm], comparison: ArmsComparison | None, assumptions: str) -> list[list[Piece]]:
    """Say how many seeds each arm needs for an interval of ±1 point."""
    lines: list[list[Piece]] = []
    for arm in arms:
        score = comparison.scores.get(arm.label) if comparison else None
        if score is None or (pair := score.difference) is None:
            continue
        half = 50 * (pair.high - pair.low)
        now = f"now ±{half:.1f} points with {len(score.deltas)} seed{'s' * (len(score.deltas) > 1)}; "
        if score.seeds_needed is None:
            then = "unknown from one seed: train two or more"
        elif score.seeds_needed == 0:
            then = "no number of seeds is enough: these questions alone leave more than ±1"
        else:
            then = f"{score.seeds_needed:,} seeds of both arms for ±1"
        lines.append([(f"{arm.label}: ", theme.arm_style(arm.label)), (now + then, theme.PLAIN)])
    return [*lines, [("· ", theme.VERY_DIM), (assumptions, theme.DIM)]] if lines else []
