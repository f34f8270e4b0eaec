"""The rows of the list of runs: what its columns hold for a run and for a group of runs."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from rich.style import Style

from accl.errors import AcclError
from accl.store.glance import BINS, Glance
from accl.store.rundir import RunDir
from accl.store.state import State
from accl.text import duration
from tui import theme
from tui.arms import Group, Reference, arm_of
from tui.deltas import Delta, Pairing, pairing
from tui.feed import RunSummary
from tui.raster import Range
from tui.scale import percent, short
from tui.text import SPARKS, Piece, age, bar
from tui.widgets.table import Column, Row

DELTA = "Δ [95 %]"
FOREST = "seeds"
FOREST_CELLS = 15
BAR_CELLS = 6
GLANCED = 8  # runs of an arm whose losses make up that of the arm
TYPED_CELLS = 14
COLUMNS = (
    Column("", 1),
    Column("arm/run", 30, grow=True, ends=True),
    Column("state", 11),
    Column("profile", 8, rank=7),
    Column("step", 15, right=True, rank=3),
    Column("done", BAR_CELLS, rank=6, sparse=True),
    Column("left", 16, right=True, rank=1, sparse=True),
    Column("loss, all steps", BINS),
    Column("loss", 8, right=True, rank=4, sparse=True),
    Column("val", 7, right=True, rank=2),
    Column("test", 14, right=True),
    Column(FOREST, FOREST_CELLS, rank=3, sparse=True),
    Column(DELTA, 20, right=True, rank=1, sparse=True),
    Column("q/s", 7, right=True, rank=8, sparse=True),
    Column("age", 5, right=True, rank=5),
    Column("id", 44, rank=9),
)
FOREST_AT, AGE_AT = (next(i for i, column in enumerate(COLUMNS) if column.title == title) for title in (FOREST, "age"))
# What a column is sorted by; unknown values (NaN) come last.
SORTS: dict[str, Callable[[RunSummary], Any]] = {
    "arm/run": lambda summary: (summary.setup.recipe, summary.setup.profile, summary.setup.seed),
    "state": lambda summary: summary.state_label[0][2:],
    "profile": lambda summary: summary.setup.profile,
    "step": lambda summary: summary.state.step,
    "left": lambda summary: summary.left_seconds,
    "loss": lambda summary: summary.latest("train/loss"),
    "val": lambda summary: summary.validated,
    "test": lambda summary: summary.latest("test/accuracy"),
    "q/s": lambda summary: summary.questions_per_second,
    "age": lambda summary: -summary.created,
    "id": lambda summary: summary.run.id,
}


@dataclass
class Context:
    """Figures that rows show of other runs, and of databases as far as these were read.

    Attributes:
        references: arm that the others of a profile are compared with.
        glances: of databases, or why one cannot be read.
        scale: accuracies at both ends of the forest; None without a tested run.
        typed: key that the user sorts by, with the value of each run; empty without one.
    """

    references: Mapping[str, Reference] = field(default_factory=dict)
    glances: dict[RunDir, Glance | BaseException] = field(default_factory=dict)
    deltas: dict[Pairing, Delta | BaseException] = field(default_factory=dict)
    scale: Range | None = None
    typed: Callable[[RunSummary], object] | None = None

    def glance(self, run: RunDir) -> Glance:
        found = self.glances.get(run)
        return found if isinstance(found, Glance) else Glance()

    def pairing(self, arm: Group) -> Pairing | None:
        """Return the runs by which an arm is compared with the reference of its profile."""
        reference = self.references.get(arm.runs[0].setup.profile)
        return pairing(reference.arm, arm) if reference else None

    def floor(self, group: Group) -> float:
        """Return the floor of the first run of a group whose floor is known, NaN without one."""
        floors = (self.glance(each.run).floor for each in group.runs)
        return next((floor for floor in floors if math.isfinite(floor)), math.nan)


def run_row(summary: RunSummary, context: Context, *, selected: bool, indented: bool) -> Row:
    """Make the row of a run; below the row of its group, it is indented and leaves out what that says."""
    state, setup, run = summary.state, summary.setup, summary.run
    plain = theme.PLAIN if summary.active else theme.DIM
    total, test = state.total_steps, summary.latest("test/accuracy")
    glance = context.glance(run)
    arm = theme.arm_style(setup.recipe)
    name = f"s{summary.seed} {summary.summary.labels.name or run.id.rpartition('-')[2]}"
    steps = f"{state.step:,}" if state.state is State.FINISHED else f"{state.step:,}/{total:,}"
    own = Group(("",), (summary,))
    cells: tuple[Piece, ...] = (
        ("●" if selected else " ", theme.MARK),
        (f"  {name}" if indented else f"{arm_of(summary)[0]} {name}", theme.PLAIN if indented else arm),
        summary.state_label,
        (setup.profile, theme.DIM),
        (steps if total else "", plain),
        (bar(state.step / total, BAR_CELLS) if total and state.state is not State.FINISHED else "", arm),
        (time_left(summary), plain),
        _spark(glance, context.glances.get(run), arm),
        _loss(summary),
        (_known(percent(summary.validated)), theme.PLAIN),
        (_known(percent(test)), theme.BOLD),
        (forest(own, context.scale, context.floor(own)), arm),
        _difference(summary, context),
        (_known(short(summary.questions_per_second)), theme.DIM),
        (age_of(summary), theme.DIM),
        (run.id, theme.VERY_DIM),
        *([(_written(context.typed(summary)), theme.PLAIN)] if context.typed else ()),
    )
    return Row(run.id, cells)


def group_row(group: Group, context: Context, *, selected: int, folded: bool) -> Row:
    """Make the row of a group."""
    runs = group.runs
    setup = runs[0].setup
    arm = theme.arm_style(setup.recipe) if group.is_arm else theme.PLAIN
    title = group.name[0]
    losses = [context.glance(each.run).losses for each in runs[:GLANCED]] if group.is_arm else []
    left = [seconds for each in runs if math.isfinite(seconds := each.left_seconds)]
    icons = Counter(each.state_label[0][0] for each in runs)
    spread = "" if math.isnan(group.sd) else f" ±{group.sd * 100:.1f}"
    cells: tuple[Piece, ...] = (
        (("●" if selected == len(runs) else "◐") if selected else " ", theme.MARK),
        (f"{'▸' if folded else '▾'} {title}", arm + Style(bold=True)),
        (" ".join(f"{icon} {count}" for icon, count in sorted(icons.items())), theme.PLAIN),
        (setup.profile if group.is_arm else "", theme.DIM),
        ("", theme.DIM),
        ("", theme.DIM),
        (duration(max(left)) if left else "", theme.PLAIN),
        (spark(_mean_losses(losses)), arm),
        ("", theme.DIM),
        (_known(percent(group.validated)), theme.PLAIN),
        (f"{group.mean * 100:.1f}{spread} %" if group.is_arm and group.tests else "", theme.BOLD),
        (forest(group, context.scale, context.floor(group)) if group.is_arm else "", arm),
        _group_difference(group, context) if group.is_arm else ("", theme.DIM),
        ("", theme.DIM),
        ("", theme.DIM),
        ("", theme.DIM),
        *([("", theme.DIM)] if context.typed else ()),
    )
    return Row(group.key, cells)


def columns(scale: Range | None, typed: str) -> list[Column]:
    """Return the columns, with the ends of the forest's scale at its head, and that of a typed key if there is one."""
    found = list(COLUMNS)
    if scale:
        found[FOREST_AT] = replace(found[FOREST_AT], title=f"{FOREST}, {scale[0] * 100:.0f}–{scale[1] * 100:.0f} %")
    return [*found, Column(typed, TYPED_CELLS, right=True, rank=1)] if typed else found


def scale_of(tests: Collection[float], floors: Iterable[float]) -> Range | None:
    """Return the ends of a forest that holds tested accuracies, None without any, and the floors that lie near them.

    A floor further off than the tests are apart would press them together, and is left out.
    """
    if not tests:
        return None
    low, high = min(tests), max(tests)
    low, high = (low, high) if low < high else (low - 0.01, high + 0.01)
    near = [floor for floor in floors if abs(floor - (low + high) / 2) <= 1.5 * (high - low)]
    return min([low, *near]), max([high, *near])


def spark(losses: tuple[float, ...]) -> str:
    """Draw a loss of `BINS` bins from its lowest to its highest; a bin without a finite value is a blank."""
    finite = [loss for loss in losses if math.isfinite(loss)]
    if not finite:
        return ""
    low, span = min(finite), max(finite) - min(finite)
    return "".join(
        (SPARKS[round((loss - low) / span * 7)] if span else SPARKS[0]) if math.isfinite(loss) else " "
        for loss in losses
    )


def forest(group: Group, scale: Range | None, floor: float) -> str:
    """Draw the tested accuracy of each run as a dot, with a line from the lowest to the highest.

    A ┼ is at the floor, if the scale reaches there.
    """
    if scale is None or not group.tests:
        return ""

    def cell(value: float) -> int:
        return round((value - scale[0]) / (scale[1] - scale[0]) * (FOREST_CELLS - 1))

    cells = [" "] * FOREST_CELLS
    dots = [cell(test) for test in group.tests]
    for x in range(min(dots), max(dots) + 1):
        cells[x] = "─"
    if scale[0] <= floor <= scale[1]:
        cells[cell(floor)] = "┼"
    for x in dots:
        cells[x] = "•"
    return "".join(cells)


def age_of(summary: RunSummary) -> str:
    """Return the time since a run was made; empty if unknown."""
    return age(time.time() - summary.created) if math.isfinite(summary.created) else ""


def time_left(summary: RunSummary) -> str:
    """Return the estimated time to the last step, with its standard deviation; empty where nothing progresses."""
    seconds = summary.left_seconds
    if math.isnan(seconds):
        return ""
    spread = seconds * summary.speed_spread
    return duration(seconds) + (f" ±{age(spread)}" if spread >= 0.5 else "")


def _mean_losses(losses: list[tuple[float, ...]]) -> tuple[float, ...]:
    """Average the losses of seeds bin by bin, as far as all of those that have any go."""
    known = [each for each in losses if each]
    return tuple(sum(values) / len(known) for values in zip(*known, strict=False)) if known else ()


def _spark(glance: Glance, found: object, style: Any) -> Piece:
    if isinstance(found, BaseException):
        kind = found.kind if isinstance(found, AcclError) else "damaged"
        return f"? {kind}", theme.ERROR
    if glance.broken_since is None:
        return spark(glance.losses), style
    note = f" NaN @{glance.broken_since:,}"
    return spark(glance.losses)[: BINS - len(note)] + note, theme.ERROR


def _loss(summary: RunSummary) -> Piece:
    loss = summary.state.latest.get("train/loss")
    if loss is None:
        return "", theme.DIM
    return (short(loss), theme.PLAIN) if math.isfinite(loss) else ("NaN", theme.ERROR)


def _difference(summary: RunSummary, context: Context) -> Piece:
    """Return the difference to the run of the reference with the same seed, whose interval its arm has."""
    reference = context.references.get(summary.setup.profile)
    if reference is None or arm_of(summary) == reference.arm.name:
        return "", theme.DIM
    other = reference.by_seed.get(summary.setup.seed)
    delta = summary.latest("test/accuracy") - other.latest("test/accuracy") if other else math.nan
    return f"{delta * 100:+.1f}" if math.isfinite(delta) else "", theme.DIM


def _group_difference(group: Group, context: Context) -> Piece:
    setup = group.runs[0].setup
    reference = context.references.get(setup.profile)
    if reference is not None and reference.arm.name == arm_of(group.runs[0]):
        return "" if reference.alone else "reference", theme.DIM
    pairing = context.pairing(group)
    delta = context.deltas.get(pairing) if pairing else None
    if delta is None:
        return "…" if pairing else "", theme.DIM
    if isinstance(delta, BaseException):
        return "not paired", theme.DIM
    sure = delta.low > 0 or delta.high < 0
    text = f"{delta.value * 100:+.1f} [{delta.low * 100:+.1f},{delta.high * 100:+.1f}]"
    return text, theme.BOLD if sure else theme.PLAIN


def _written(value: object) -> str:
    if isinstance(value, float):
        return _known(f"{value:.6g}" if math.isfinite(value) else "–")
    return "" if value is None else str(value)


def _known(text: str) -> str:
    return "" if text == "–" else text
