"""The lines below the list of runs: what the run or group at the cursor is, and how it differs from the reference."""

from __future__ import annotations

import math

import numpy as np

from accl.store.config_values import config_difference
from accl.store.glance import Glance
from accl.text import counted
from tui import theme
from tui.arms import Group
from tui.feed import RunSummary, RunView, without_path
from tui.runrows import Context
from tui.scale import percent
from tui.text import Piece

UNTOLD = ("recipe", "profile", "train.seed")  # the row says these


def detail_lines(entry: RunSummary | Group, context: Context, view: RunView | None) -> list[list[Piece]]:
    """Return two lines about a run or a group; ``view``: data of the run, as far as they were read."""
    if isinstance(entry, Group):
        return [_group_line(entry, context), _differences(entry.runs[0], context) if entry.is_arm else []]
    phase = f"  {entry.state.phase}" if entry.active and entry.state.phase else ""
    return [
        [entry.state_label, (f"  {entry.run.id}", theme.PLAIN), (phase, theme.DIM), *labels_of(entry), _load(view)],
        [*_reason(entry, context), *_differences(entry, context)],
    ]


def _load(view: RunView | None) -> Piece:
    """Return the mean load of the machine while the run trained."""
    measured = view.system if view else {}
    known = {name: values[np.isfinite(values)] for name, (_, values) in measured.items()}
    means = {name: float(values.mean()) for name, values in known.items() if len(values)}
    figures = (
        [("gpu_util", "GPU {:.0f}%"), ("power", "{:.0f}W")]
        if "gpu_util" in means
        else [("cpu", "CPU {:.0f}% of a core")]
    )
    words = " ".join(text.format(means[name]) for name, text in figures if name in means)
    return f"  mean {words}" if words else "", theme.DIM


def _reason(summary: RunSummary, context: Context) -> list[Piece]:
    """Return why the run is in its state or cannot be read, or since when its loss is not finite."""
    reason, style = summary.reason
    found = context.glances.get(summary.run)
    if not reason and isinstance(found, BaseException):
        reason, style = without_path(str(found), summary.run), theme.ERROR
    elif not reason and isinstance(found, Glance) and found.broken_since is not None:
        reason, style = f"The loss is NaN or infinite since step {found.broken_since:,}.", theme.ERROR
    return [(f"{reason}  ", style)] if reason else []


def _group_line(group: Group, context: Context) -> list[Piece]:
    runs = counted(len(group.runs), "run")
    parts = [f"  {runs}"]
    if group.is_arm:
        if group.tests:
            sd = "" if math.isnan(group.sd) else f" ± {group.sd * 100:.1f} (sd)"
            parts.append(f"test {group.mean * 100:.1f}{sd} %, mean of {len(group.tests)}")
        if math.isfinite(floor := context.floor(group)):
            parts.append(f"┼ floor {percent(floor)}")
        pairing = context.pairing(group)
        found = context.deltas.get(pairing) if pairing else None
        if isinstance(found, BaseException):
            parts.append(str(found))
        elif found:
            parts.append(f"Δ paired by question, {counted(found.seeds, 'seed')}")
    return [(" · ".join(group.name), theme.BOLD), (" · ".join(parts), theme.PLAIN)]


def _differences(summary: RunSummary, context: Context) -> list[Piece]:
    reference = context.references.get(summary.setup.profile)
    other = reference.counterpart(summary) if reference else summary
    changed = config_difference(summary.summary.config, other.summary.config)
    told = [f"{key} {_value(before)} → {_value(now)}" for key, (before, now) in changed.items() if key not in UNTOLD]
    if not told:
        return []
    count = "1 key differs" if len(told) == 1 else f"{len(told)} keys differ"  # of which the line may hold only some
    return [(f"{count} from {other.setup.recipe} s{other.seed}: {', '.join(sorted(told, key=len))}", theme.DIM)]


def _value(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.12g}"


def labels_of(summary: RunSummary) -> list[Piece]:
    """Return name, tags and note of a run, two blanks before each."""
    labels = summary.summary.labels
    words = " ".join(f"#{tag}" for tag in labels.tags)
    shown = [(labels.name, theme.PLAIN), (words, theme.MARK), (labels.note, theme.PLAIN)]
    return [(f"  {text}", style) for text, style in shown if text]
