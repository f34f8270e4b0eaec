"""The numbers that figures show: seed bands of curves, task weights, confusion, differences, and tasks by arm.

Nothing here draws. Legend of shapes: S seeds, P positions on the x axis, K tasks.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from accl.analysis.arms import ArmsComparison, compare_arms
from accl.analysis.armset import ArmSet
from accl.analysis.compare import split_warnings
from accl.analysis.crossed import SeedDifference
from accl.analysis.results import SIMILARITY, Split, read_all
from accl.errors import AbsentError, CompareError
from accl.store.columns import RunReader
from accl.store.curve import Curve, Floats
from accl.store.deadline import within
from accl.store.measurements import Measurements
from accl.store.reader import Task
from accl.store.rundir import RunDir
from accl.store.summary import reading
from accl.text import listed

READ_S = 60.0  # the measurements of one run, from a slow disk
MAX_POINTS = 100  # of a line; more are averaged in bins of equal width
_WORDS = {"train": "training", "lr": "learning rate", "ece": "ECE", "brier": "Brier score"}
AXIS_TITLES = {"step": "optimizer step", "epoch": "epoch", "questions": "questions seen", "time": "training time (min)"}
WEIGHTS_NEED, CURVES_NEED, CONFUSION_NEED = ("curriculum",), ("curves",), ("confusion",)


@dataclass(frozen=True)
class Band:
    """A metric of an arm over S seeds.

    Attributes:
        x_P, mean_P, sd_P: position, mean over the seeds that have a value there, and its standard deviation with S - 1
            in the denominator, NaN where fewer than two have one.
    """

    label: str
    seeds: int
    x_P: Floats
    mean_P: Floats
    sd_P: Floats


@dataclass(frozen=True)
class Panel:
    """A metric of all arms that recorded it; ``title`` is that of the y axis."""

    title: str
    x_title: str
    bands: tuple[Band, ...]


@dataclass(frozen=True)
class Weights:
    """Task weights of an arm, mean over its S seeds: K tasks at P steps, each row a distribution."""

    label: str
    seeds: int
    steps_P: Floats
    mean_PK: Floats
    tasks: tuple[Task, ...]

    @property
    def heaviest(self) -> list[int]:
        """The tasks from the largest weight at the end to the smallest."""
        return [int(task) for task in np.argsort(-self.mean_PK[-1], kind="stable")]


@dataclass(frozen=True)
class Matrix:
    """Confusion of K tasks of an arm, mean over its S seeds; NaN where no pair was seen.

    Attributes:
        tasks: in the order of the rows: by category, subcategory and name.
        title: what is shown.
        difference: whether the values are differences.
    """

    label: str
    title: str
    seeds: int
    tasks: tuple[Task, ...]
    values_KK: Floats
    difference: bool = False

    @property
    def categories(self) -> list[tuple[str, int]]:
        """Name and number of tasks of each category, in the order of the rows."""
        names = [task.category for task in self.tasks]
        return [(name, names.count(name)) for name in dict.fromkeys(names)]

    @property
    def off_diagonal(self) -> Floats:
        """Finite values of pairs of different tasks."""
        values = self.values_KK[~np.eye(len(self.tasks), dtype=bool)]
        return np.asarray(values[np.isfinite(values)], np.float64)

    def ranked(self, count: int) -> list[tuple[Task, Task, float]]:
        """Return the pairs of different tasks with the largest values, in size where they are differences."""
        upper = np.triu((self.values_KK + self.values_KK.T) / 2, 1)
        upper[np.tril_indices(len(upper))] = np.nan
        size = np.abs(upper) if self.difference else upper
        order = np.argsort(-np.nan_to_num(size, nan=-np.inf), axis=None, kind="stable")[:count]
        cells = [divmod(int(cell), len(upper)) for cell in order]
        return [(self.tasks[a], self.tasks[b], float(upper[a, b])) for a, b in cells if np.isfinite(upper[a, b])]


@dataclass(frozen=True)
class ForestRow:
    """Difference of an arm to the reference, in points: its 95 % interval, each pair of seeds, p adjusted by Holm."""

    label: str
    delta: float
    low: float
    high: float
    per_seed: tuple[float, ...]
    p_holm: float


@dataclass(frozen=True)
class TaskRow:
    """Accuracy in per cent on the n questions of a task: mean over the seeds of each arm, by label."""

    name: str
    n: int
    accuracy: dict[str, float]


def measure(chosen: ArmSet, needs: Sequence[str]) -> list[Measurements]:
    """Read what is needed (names of `accl.store.columns.NEEDS`) of every run.

    Raises:
        BusyError, DamagedError, AbsentError, RunError: a run cannot be read.
    """
    return [measure_run(setup.run, needs) for setup in chosen.setups]


def _tasks_of(chosen: ArmSet, measured: Sequence[Measurements]) -> tuple[Task, ...]:
    """Return the tasks that all runs share.

    Raises:
        CompareError: two runs have different ones.
    """
    known = [(setup.run, m.tasks) for setup, m in zip(chosen.setups, measured, strict=True) if m.tasks]
    for run, tasks in known[1:]:
        if tasks != known[0][1]:
            what = f"Runs {known[0][0].id} and {run.id} have different tasks."
            raise CompareError(what, "Name runs on the same data.")
    return known[0][1] if known else ()


def measure_run(run: RunDir, needs: Sequence[str]) -> Measurements:
    """Read what is needed of one run, as `measure`."""
    with reading(run.database):
        return within(READ_S, partial(RunReader(run).read, needs))


def compare_armset(chosen: ArmSet, split: Split = "test") -> ArmsComparison:
    """Compare the arms with the reference on the questions of a split.

    Raises:
        CompareError: there is one arm alone, or runs that did not answer the same questions or did not finish.
        AbsentError: a run has no answers to the split.
        BusyError, DamagedError, RunError: a run cannot be read.
    """
    if len(chosen.arms) < 2:
        what = f"There is one arm alone, {chosen.reference}, and a difference needs two."
        raise CompareError(what, "Name another recipe or run beside it; see: accl runs")
    members = sorted(i for arm in chosen.arms for i in arm.members)
    results = dict(zip(members, read_all([chosen.setups[i].run for i in members], split), strict=True))
    comparison = compare_arms(chosen.arms, chosen.reference, results)
    for problem in comparison.problems.values():
        raise problem
    return comparison


def title_of(metric: str) -> str:
    """Write a metric as the title of an axis, with the unit of shares."""
    words = " ".join(_WORDS.get(word, word) for word in metric.replace("/", " ").replace("_", " ").split(" "))
    return f"{words} (%)" if _is_share(metric) else words


def _is_share(metric: str) -> bool:
    return metric.endswith("accuracy")


def curve_panels(
    chosen: ArmSet, measured: Sequence[Measurements], metrics: Sequence[str], axis: str = "step"
) -> list[Panel]:
    """Return a panel for each metric, shares in per cent.

    Args:
        axis: one of `accl.store.curve.AXES`; time is in minutes.

    Raises:
        AbsentError: no run recorded a metric.
    """
    panels = []
    for metric in metrics:
        found = [
            (a.label, [m.curves[metric] for i in a.members if metric in (m := measured[i]).curves]) for a in chosen.arms
        ]
        bands = tuple(
            seed_band(label, curves, axis, 100 if _is_share(metric) else 1) for label, curves in found if curves
        )
        if not bands:
            names = sorted({name for each in measured for name in each.curves})
            near = f"Recorded are, among others: {', '.join(names[:8])}." if names else "Nothing was recorded."
            raise AbsentError(f"No run has the metric {metric!r}.", near)
        panels.append(Panel(title_of(metric), AXIS_TITLES[axis], bands))
    return panels


def seed_band(label: str, curves: Sequence[Curve], axis: str = "step", factor: float = 1) -> Band:
    """Return the mean of curves and its spread, in at most `MAX_POINTS` points.

    Values are put together by step, whatever the axis: by equal steps where these are few, in bins of equal width
    where they are many. The position on the axis is the mean over the seeds.
    """
    steps = np.unique(np.concatenate([curve.last for curve in curves]))
    if len(steps) > MAX_POINTS:
        edges = np.linspace(float(steps[0]), float(steps[-1]), MAX_POINTS + 1)[1:-1]
        places = [np.searchsorted(edges, curve.last) for curve in curves]
        count = MAX_POINTS
    else:
        places = [np.searchsorted(steps, curve.last) for curve in curves]
        count = len(steps)
    minutes = 1 / 60 if axis == "time" else 1
    x_SP = np.stack(
        [_means(place, curve.x(axis) * minutes, count) for place, curve in zip(places, curves, strict=True)]
    )
    y_SP = np.stack([_means(place, curve.median * factor, count) for place, curve in zip(places, curves, strict=True)])
    known = np.isfinite(y_SP).any(axis=0)
    y_SP, x_SP = y_SP[:, known], x_SP[:, known]
    return Band(label, len(curves), _mean(x_SP), _mean(y_SP), _sd(y_SP))


def _means(place: NDArray[np.int64], values: Floats, count: int) -> Floats:
    """Return the mean of the finite values at each place, NaN where there are none."""
    finite = np.isfinite(values)
    sums = np.bincount(place[finite], values[finite], count)
    n = np.bincount(place[finite], minlength=count)
    means: Floats = np.divide(sums, n, out=np.full(count, np.nan), where=n > 0)
    return means


def _mean(values: Floats) -> Floats:
    """Return the mean over the first axis of what is finite, NaN where nothing is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.asarray(np.nanmean(values, axis=0), np.float64)


def _sd(values_SP: Floats) -> Floats:
    """Return the standard deviation over seeds, NaN where fewer than two have a value."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.asarray(np.nanstd(values_SP, axis=0, ddof=1), np.float64)


def task_weights(chosen: ArmSet, measured: Sequence[Measurements]) -> list[Weights]:
    """Return the task weights of each arm whose curriculum ever left the uniform distribution.

    Raises:
        AbsentError: there is none.
        CompareError: the runs have different tasks.
    """
    tasks, found = _tasks_of(chosen, measured), []
    for arm in chosen.arms:
        curricula = [c for i in arm.members if (c := measured[i].curriculum) is not None and measured[i].tasks]
        if not curricula or all(np.ptp(c.weights_SK) < 1e-6 for c in curricula):
            continue
        # What is in force at a step is the newest update; a seed begins with its first one.
        steps = np.unique(np.concatenate([c.steps_S for c in curricula]))
        steps = steps[np.unique(np.linspace(0, len(steps) - 1, MAX_POINTS).round().astype(np.int64))]
        rows = [np.maximum(0, np.searchsorted(c.steps_S, steps, side="right") - 1) for c in curricula]
        mean = _mean(np.stack([c.weights_SK[row] for c, row in zip(curricula, rows, strict=True)]).astype(np.float64))
        found.append(Weights(arm.label, len(curricula), steps.astype(np.float64), mean, tasks))
    if not found:
        labels = listed([arm.label for arm in chosen.arms], "and")
        raise AbsentError(
            f"{labels} drew all tasks alike: there are no weights to show.", "Name a run with a curriculum."
        )
    return found


def confusion_matrices(
    chosen: ArmSet, measured: Sequence[Measurements], kind: str = SIMILARITY, *, differences: bool = False
) -> list[Matrix]:
    """Return the newest matrix of a kind for each arm that has one, or what each differs in from the reference.

    Raises:
        AbsentError: no arm has such a matrix, or there is nothing to subtract.
        CompareError: the runs have different tasks.
    """
    tasks, found = _tasks_of(chosen, measured), []
    order = sorted(range(len(tasks)), key=lambda i: (tasks[i].category, tasks[i].subcategory, tasks[i].name))
    for arm in chosen.arms:
        members = [m for i in arm.members if kind in (m := measured[i]).confusion and m.tasks]
        if members:
            values = _mean(np.stack([m.confusion[kind].matrix for m in members]))[np.ix_(order, order)]
            found.append(Matrix(arm.label, kind_title(kind), len(members), tuple(tasks[i] for i in order), values))
    if not found:
        kinds = sorted({name for each in measured for name in each.confusion})
        hint = f"There is: {listed(kinds, 'and')}." if kinds else "Nothing was recorded."
        raise AbsentError(f"No run has a confusion matrix of kind {kind!r}.", hint)
    if not differences:
        return found
    first, *others = found
    if first.label != chosen.reference or not others:
        what = f"There is no matrix of {chosen.reference} and of another arm to subtract it from."
        raise AbsentError(what, "Name two arms that recorded one.")
    return [
        replace(m, label=f"{m.label} − {first.label}", values_KK=m.values_KK - first.values_KK, difference=True)
        for m in others
    ]


def kind_title(kind: str) -> str:
    """Say in words what a kind of confusion matrix holds."""
    name, _, split = kind.partition("/")
    words = {
        "similarity": "mean positive cosine",
        "prototype": "share nearest to a prototype",
        "literal": "sum of positive cosines",
    }
    return f"{words.get(name, name)}, {split or 'training'} questions"


def warnings_of(comparison: ArmsComparison, split: Split) -> list[str]:
    """Return the reasons to distrust the numbers of a split."""
    means = {label: score.mean for label, score in comparison.scores.items()}
    said = [note.removeprefix("!").strip() for note in comparison.notes if note.startswith("!")]
    return [*(split_warnings(split, means) if means else []), *said]


def forest_rows(comparison: ArmsComparison) -> list[ForestRow]:
    """Return the difference of each arm that has one to the reference, in points."""
    return [
        ForestRow(
            label,
            100 * (difference := score.difference).delta,
            100 * difference.low,
            100 * difference.high,
            tuple(100 * delta for delta in score.deltas) if isinstance(difference, SeedDifference) else (),
            math.nan if score.p_holm is None else score.p_holm,
        )
        for label, score in comparison.scores.items()
        if score.difference is not None
    ]


def task_rows(comparison: ArmsComparison, top: int = 0) -> list[TaskRow]:
    """Return the accuracy of every arm by task, from the largest mean gain on the reference to the largest loss.

    Args:
        top: how many gains, and losses, to keep; all tasks when 0.
    """
    accuracy: dict[str, dict[str, float]] = {}
    n: dict[str, int] = {}
    for label, score in comparison.scores.items():
        for change in score.tasks:
            accuracy.setdefault(change.name, {})[label] = 100 * change.accuracy
            n[change.name] = change.n
    rows = [TaskRow(name, n[name], values) for name, values in accuracy.items()]
    rows.sort(key=lambda row: (-_gain(row, comparison.reference), row.name))
    return rows if not top or 2 * top >= len(rows) else rows[:top] + rows[-top:]


def _gain(row: TaskRow, reference: str) -> float:
    others = [value for label, value in row.accuracy.items() if label != reference]
    return float(np.mean(others)) - row.accuracy.get(reference, 0.0) if others else 0.0


def limits(matrices: Sequence[Matrix]) -> tuple[float, float]:
    """Return the ends of one scale for all: the middle 98 % of the pairs, or as much on both sides of no difference."""
    values = np.concatenate([matrix.off_diagonal for matrix in matrices])
    if not len(values):
        return 0.0, 1.0
    if matrices[0].difference:
        most = float(np.quantile(np.abs(values), 0.98)) or 1.0
        return -most, most
    low, high = (float(value) for value in np.quantile(values, [0.01, 0.99]))
    return (low, high) if low < high else (low - 0.5, high + 0.5)
