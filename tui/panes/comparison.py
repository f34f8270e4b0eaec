"""Content of the compare screen: rows of its tables, effects, notes, seeds needed, and its title."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from rich.style import Style

from accl.analysis.grouping import Arm, differing_keys
from accl.text import counted
from tui import theme
from tui.comparing import Comparing
from tui.feed import RunView
from tui.scale import percent
from tui.text import Piece
from tui.widgets.forest import Effect, interval_bar
from tui.widgets.table import Column, Row

if TYPE_CHECKING:
    from accl.analysis.arms import Scores

ARM_COLUMNS = (
    Column("arm", 18, grow=True, ends=True),
    Column("seeds", 20, rank=1),
    Column("steps", 11, right=True, rank=4),
    Column("val ± sd", 11, right=True, rank=2),
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
    Column("arm", 18, grow=True, ends=True),
    Column("seed", 12, rank=1),
    Column("questions", 12),
    Column("count", 6, right=True),
    Column("of all", 7, right=True, rank=2),
    Column("95 %", 13, right=True, rank=3),
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


def title(known: Comparing, waits: str) -> list[Piece]:
    """Say what is compared, and what takes no part or is waited for."""
    seeds = {len(arm.members) for arm in known.arms}
    text = f"  {counted(len(known.runs), 'run')}"
    if len(seeds) == 1 and not known.missing:  # else these are the arms of what has been read so far
        text = f"  {counted(len(known.arms), 'arm')} x {counted(seeds.pop(), 'seed')}"
    if active := sum(view.summary.active for view in known.views):
        text += f" · {active} still active"
    pieces: list[Piece] = [("compare", theme.TITLE), (text, theme.PLAIN), (f" · {waits}" if waits else "", theme.PLAIN)]
    if known.comparison is not None and known.comparison.n:
        pieces.append((f" · {known.comparison.n:,} test questions, paired", theme.DIM))
    if out := len(known.problems):
        pieces.append((f" · {out} not compared", theme.MARK))
    return pieces


def arm_rows(known: Comparing) -> list[Row]:
    """Make a row for each arm, and below it one for each of its runs that takes no part though it has ended."""
    rows, problems = [], known.problems
    for arm in known.arms:
        rows.append(Row(arm.label, tuple(_arm_cells(arm, known))))
        for i in arm.members:
            summary = known.views[i].summary
            if i in problems and not summary.active:
                name: Piece = (f"   s{summary.seed} {summary.run.id.rsplit('-', 1)[-1]}", theme.DIM)
                broken = summary.summary.problem or known.views[i].problem
                state = (f"? {broken.kind}", theme.ERROR) if broken else summary.state_label
                rows.append(Row(f"run {i}", (name, state, *[BLANK] * (len(ARM_COLUMNS) - 2))))
    return rows


def run_of(key: str) -> int:
    """Return the index of the run in whose row such a key is; -1 in that of an arm."""
    return int(key.removeprefix("run ")) if key.startswith("run ") else -1


def left_out(known: Comparing, arm: Arm | None, key: str) -> list[Piece]:
    """Say what keeps the run of a row, or the first such run of an arm, from being compared."""
    problems = known.problems
    out = [i for i in ((arm.members if arm else ()) if run_of(key) < 0 else (run_of(key),)) if i in problems]
    if not out:
        return []
    count = f"{len(out)} " * (run_of(key) < 0 and arm is not None and len(arm.members) > 1)
    return [(f"{count}not compared: ", theme.MARK), (problems[out[0]], theme.PLAIN)]


def _score(arm: Arm, known: Comparing) -> Scores | None:
    return known.comparison.scores.get(arm.label) if known.comparison else None


def _arm_cells(arm: Arm, known: Comparing) -> list[Piece]:
    views, score, comparison = [known.views[i] for i in arm.members], _score(arm, known), known.comparison
    labels = Counter(view.summary.state_label for view in views)
    ((word, style), _), *others = labels.items()
    seeds = f"{len(views)} {word}"
    if others:
        seeds, style = " ".join(f"{count} {word.split()[0]}" for (word, _), count in labels.items()), theme.PLAIN
    steps = sorted({view.summary.state.step for view in views})
    valid = [value for view in views if math.isfinite(value := view.summary.validated)]
    is_reference = comparison is not None and comparison.reference == arm.label
    cells: list[Piece] = [
        (f"━ {arm.label}" + " (ref)" * is_reference, theme.arm_style(arm.label)),
        (seeds, style),
        ("–".join(f"{step:,}" for step in dict.fromkeys((steps[0], steps[-1]))), theme.DIM),
        (_mean(valid), theme.PLAIN),
    ]
    if score is None or comparison is None:
        return [*cells, BLANK, BLANK, BLANK]
    floor = (f"{100 * score.floor:.1f}", theme.MARK if score.mean <= score.floor else theme.DIM)
    return [
        *cells,
        (_mean(list(score.accuracies.values())), theme.BOLD),
        (f"{comparison.n:,}", theme.DIM),
        floor if math.isfinite(score.floor) else BLANK,
    ]


def _mean(shares: Sequence[float]) -> str:
    """Format the mean of shares in points, with the standard deviation of several."""
    if not shares:
        return ""
    spread = f" ± {100 * np.std(shares, ddof=1):.1f}" if len(shares) > 1 else ""
    return f"{100 * np.mean(shares):.1f}{spread}"


def effects(known: Comparing) -> tuple[str, list[Effect]]:
    """Return the title of the forest plot, and in it the differences to the reference, in points."""
    found = []
    for arm in known.arms:
        score = _score(arm, known)
        if score is not None and (pair := score.difference) is not None:
            dots = zip(score.deltas, score.flips, strict=True)
            seeds = tuple((100 * delta, seed_style(arm, known.views[flip.run])) for delta, flip in dots)
            p = pair.p if score.p_holm is None else score.p_holm
            style = theme.arm_style(arm.label)
            found.append(Effect(arm.label, style, 100 * pair.delta, 100 * pair.low, 100 * pair.high, seeds, p))
    holm = f" · p Holm over {len(found)}" if len(found) > 1 else " · p"
    return f"Δ test to {known.reference} in points, 95 %{holm}", found


def change_rows(known: Comparing, arm: Arm | None, by_category: bool) -> list[Row]:
    """Make a row for each task or category: the largest differences first, of the reference the smallest accuracies."""
    if arm is None or (score := _score(arm, known)) is None:
        return []
    from accl.analysis.stats import wilson  # imported late, as all statistics: the curves need not wait for them

    is_reference = arm.label == known.reference
    changes = score.categories if by_category else score.tasks
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


def flip_rows(known: Comparing) -> list[Row]:
    """Make two rows for each pair of runs: the questions gained and those lost."""
    if known.comparison is None:
        return []
    from accl.analysis.stats import wilson

    rows, n = [], known.comparison.n
    for arm in known.arms:
        score = _score(arm, known)
        for flip in score.flips if score else ():
            before, after = (known.views[i].summary.seed for i in (flip.before, flip.run))
            seeds = f"s{after}" if before == after else f"s{after} to s{before}"
            name = (f"━ {arm.label}", seed_style(arm, known.views[flip.run]))
            for answer, word, count, colour in (
                ("right", "▲ gained", flip.gains, theme.GOOD),
                ("wrong", "▼ lost", flip.losses, theme.BAD),
            ):
                cells = [name, (seeds, theme.DIM), (word, Style(color=colour)), (f"{count:,}", theme.BOLD)]
                low, high = (f"{100 * share:.1f}" for share in wilson(count, n))
                cells += [(percent(count / n), theme.DIM), (f"[{low}, {high}]", theme.DIM)]
                rows.append(Row(f"{flip.run} {answer}", tuple(cells)))
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


def note_lines(known: Comparing) -> list[list[Piece]]:
    """Return what to know beside the numbers as entries of a log; warnings first."""
    notes = [f"! {_run_name(i, known)} is not compared: {why}" for i, why in known.problems.items()]
    notes += known.comparison.notes if known.comparison else ()
    entries: list[list[Piece]] = [
        [("! ", theme.MARK), (note[2:], theme.PLAIN)] for note in notes if note.startswith("! ")
    ]
    return entries + [[("· ", theme.VERY_DIM), (note, theme.DIM)] for note in notes if not note.startswith("! ")]


def _run_name(index: int, known: Comparing) -> str:
    arm = next(arm for arm in known.arms if index in arm.members)
    return run_label(arm, known.views[index], known.views)


def power_lines(known: Comparing) -> list[list[Piece]]:
    """Say how many seeds each arm needs for an interval of ±1 point."""
    lines: list[list[Piece]] = []
    for arm in known.arms:
        if (score := _score(arm, known)) is None or (pair := score.difference) is None:
            continue
        half = 50 * (pair.high - pair.low)
        now = f"now ±{half:.1f} points with {counted(len(score.deltas), 'seed')}; "
        if score.seeds_needed is None:
            then = "unknown from one seed: train two or more"
        elif score.seeds_needed == 0:
            then = "no number of seeds is enough: these questions alone leave more than ±1"
        else:
            then = f"{score.seeds_needed:,} seeds of both arms for ±1"
        lines.append([(f"{arm.label}: ", theme.arm_style(arm.label)), (now + then, theme.PLAIN)])
    if lines:
        from accl.analysis.power import ASSUMPTIONS

        lines.append([("· ", theme.VERY_DIM), (ASSUMPTIONS, theme.DIM)])
    return lines
