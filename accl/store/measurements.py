"""Measurements of a run as columns, and how each of its tables is read on from where it was read before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accl.store.curve import Curve, Floats, Integers, raw_curve
from accl.store.database import Row, Session
from accl.store.reader import Confusion, Evaluation, Event, Task
from accl.store.schema import BOUND, COLUMNS, TESTED_STEP, check_rows

SYSTEM_NAMES = tuple(COLUMNS["system"][2:])

_TASK_EVALS = (
    "SELECT t.step, t.split, t.task, t.n, t.correct FROM run.task_evals t JOIN "
    "(SELECT split, coalesce(max(step) FILTER (split = 'validation' AND step = ?), max(step)) AS step "
    "FROM run.task_evals GROUP BY split) m USING (split, step) "
    "ORDER BY t.split, t.task"
)
_CONFUSION = "SELECT seq, step, kind, matrix, counts FROM run.confusion"


@dataclass(frozen=True, eq=False)
class Curriculum:
    """Task distributions by S updates: from ``steps_S[s]`` on the K weights of row s are in force.

    Attributes:
        policy: of the newest update.
        drawn_SK: questions drawn of each task up to the update.
    """

    steps_S: Integers
    policy: str
    weights_SK: NDArray[np.float32]
    drawn_SK: NDArray[np.int32]


@dataclass(frozen=True, kw_only=True, eq=False)
class Measurements:
    """All that was read of a run; it never changes.

    Attributes:
        version: number that grows with every change.
        meta: the ``meta`` table: trivial baselines and totals among others.
        tasks: K tasks, in index order.
        curves: by metric. One of evaluations is named ``{split}/{name}``, has one value in each bin, and is taken from
            the ``metrics`` table where it was recorded there as well, but for the test.
        newest: the value recorded last, by metric; it may be NaN or infinite.
        evaluations, events: all of them, oldest first. The newest of the test has the step of the weights tested.
        task_accuracy: (step, n_K, correct_K) by split: the newest validation, or once there was a test that of the
            weights tested.
        curriculum: None before the first update.
        confusion: newest matrix by kind.
        confusion_steps: steps that have a matrix, by kind.
        system: (seconds, values) by name of `SYSTEM_NAMES`.
    """

    version: int = 0
    meta: dict[str, str] = field(default_factory=dict)
    tasks: tuple[Task, ...] = ()
    curves: dict[str, Curve] = field(default_factory=dict)
    newest: dict[str, float] = field(default_factory=dict)
    evaluations: tuple[Evaluation, ...] = ()
    events: tuple[Event, ...] = ()
    task_accuracy: dict[str, tuple[int, Integers, Integers]] = field(default_factory=dict)
    curriculum: Curriculum | None = None
    confusion: dict[str, Confusion] = field(default_factory=dict)
    confusion_steps: dict[str, tuple[int, ...]] = field(default_factory=dict)
    system: dict[str, tuple[Floats, Floats]] = field(default_factory=dict)

    @property
    def tested_step(self) -> int | None:
        """Step of the weights that the test evaluated; None if it is not known."""
        step = self.meta.get(TESTED_STEP, "")
        return int(step) if step.isdecimal() and len(step) < 12 else None

    def tested(self, name: str) -> float:
        """Return a validation metric of the weights that were tested, NaN if they were not validated."""
        found = [e for e in self.evaluations if e.split == "validation" and e.step == self.tested_step]
        return found[-1].value(name) if found else float("nan")


Changes = dict[str, Any]  # attributes of `Measurements`


def read_curriculum(session: Session, after: int, last: Measurements) -> tuple[int, Changes]:
    """Read the updates with ``seq > after``; returns the last ``seq``, and what changes of the measurements.

    Raises:
        ValueError: there are rows that no run records. So do the functions below, which all return the same.
    """
    rows = session(
        "SELECT seq, step, policy, len(weights), len(drawn) FROM run.curriculum WHERE seq > ? ORDER BY seq", after
    )
    if not rows:
        return after, {}
    check_rows("curriculum", [row[:3] for row in rows])
    k = len(last.tasks) or rows[0][3]  # no task: lost with the database
    if any(row[3:] != (k, k) for row in rows):
        raise ValueError(f"lists in curriculum that are not of {k} tasks")
    lists = "SELECT weights, drawn FROM run.curriculum WHERE seq > ? ORDER BY seq"
    cells = session.columns(f"SELECT unnest(weights) AS weights, unnest(drawn) AS drawn FROM ({lists})", after)
    steps_S = np.array([row[1] for row in rows], np.int64)
    weights_SK, drawn_SK = (_whole("curriculum", cells[name]).reshape(len(rows), k) for name in ("weights", "drawn"))
    if (before := last.curriculum) is not None:
        steps_S = np.concatenate([before.steps_S, steps_S])
        weights_SK, drawn_SK = (
            np.concatenate(pair) for pair in ((before.weights_SK, weights_SK), (before.drawn_SK, drawn_SK))
        )
    return rows[-1][0], {"curriculum": Curriculum(steps_S, rows[-1][2], weights_SK, drawn_SK)}


def read_confusion(session: Session, after: int, last: Measurements) -> tuple[int, Changes]:
    """Read which matrices there are, and the newest of each kind."""
    rows = session("SELECT seq, step, kind FROM run.confusion WHERE seq > ? ORDER BY seq", after)
    if not rows:
        return after, {}
    check_rows("confusion", rows)
    steps = {kind: [*known] for kind, known in last.confusion_steps.items()}
    for _, step, kind in rows:
        steps.setdefault(kind, []).append(step)
    newest = {kind: seq for seq, _, kind in rows}
    matrices = {
        kind: as_confusion(row, len(last.tasks))
        for kind, seq in newest.items()
        for row in session(f"{_CONFUSION} WHERE seq = ?", seq)
    }
    confusion_steps = {kind: tuple(of_kind) for kind, of_kind in steps.items()}
    return rows[-1][0], {"confusion": last.confusion | matrices, "confusion_steps": confusion_steps}


def read_confusions(session: Session, kind: str, steps: Sequence[int], k: int) -> list[Confusion]:
    """Read the matrices of K tasks, of a kind and at steps, by step; a step without one is left out."""
    places = ", ".join("?" * len(steps))
    rows = session(f"{_CONFUSION} WHERE kind = ? AND step IN ({places}) ORDER BY seq", kind, *steps) if steps else []
    newest = {row[1]: row for row in rows}
    return [as_confusion(newest[step], k) for step in sorted(newest)]


def as_confusion(row: Row, k: int) -> Confusion:
    """Make the matrix of K tasks of a row; K is taken from it where the tasks were lost with the database."""
    check_rows("confusion", [row])
    _, step, kind, matrix, counts = row
    k = k or round(len(matrix) ** 0.5)
    if not len(matrix) == len(counts) == k * k:
        raise ValueError(f"lists in confusion that are not of {k} tasks")
    return Confusion(step, kind, np.array(matrix, float).reshape(k, k), np.array(counts, np.int64).reshape(k, k))


def read_task_accuracy(session: Session, last: Measurements) -> Changes:
    """Read an evaluation of each split by task: of the weights tested, if there are any, or else the newest."""
    tested_step = -1 if last.tested_step is None else last.tested_step
    rows, k = session(_TASK_EVALS, tested_step), len(last.tasks)
    check_rows("task_evals", rows)
    if not k:  # lost with the database; the spool alone has none
        return {}
    if any(not (0 <= task < k and 0 <= correct <= n) for _, _, task, n, correct in rows):
        raise ValueError("counts in task_evals that cannot be")
    accuracy: dict[str, tuple[int, Integers, Integers]] = {}
    for split, members in groupby(rows, key=itemgetter(1)):
        of_split, counts = list(members), np.zeros((2, k), np.int64)
        for _, _, task, *numbers in of_split:
            counts[:, task] = numbers
        step = last.tested_step if split == "test" else None
        accuracy[split] = (of_split[0][0] if step is None else step, counts[0], counts[1])
    same = _plain(accuracy) == _plain(last.task_accuracy)
    return {} if same else {"task_accuracy": accuracy}


def _plain(accuracy: dict[str, tuple[int, Integers, Integers]]) -> dict[str, object]:
    return {split: (step, n_K.tolist(), correct_K.tolist()) for split, (step, n_K, correct_K) in accuracy.items()}


def read_events(session: Session, after: int, last: Measurements) -> tuple[int, Changes]:
    """Read the events."""
    rows = session("SELECT seq, seconds, level, kind, message FROM run.events WHERE seq > ? ORDER BY seq", after)
    check_rows("events", rows)
    return (rows[-1][0], {"events": (*last.events, *(Event(*row[1:]) for row in rows))}) if rows else (after, {})


def read_system(session: Session, after: int, last: Measurements) -> tuple[int, Changes]:
    """Read the load of the machine; what it does not measure has no values."""
    columns = session.columns("SELECT * FROM run.system WHERE seq > ? ORDER BY seq", after)
    seq, seconds = columns["seq"], columns["seconds"]
    if not len(seq):
        return after, {}
    if not (np.abs(_whole("system", seconds)) < BOUND).all():
        raise ValueError("system.seconds out of range")
    system: dict[str, tuple[Floats, Floats]] = {}
    nothing = np.zeros(0)
    for name in SYSTEM_NAMES:
        known = ~np.ma.getmaskarray(columns[name])
        old_seconds, old_values = last.system.get(name, (nothing, nothing))
        values = np.asarray(columns[name], np.float64)[known]
        system[name] = np.concatenate([old_seconds, seconds[known]]), np.concatenate([old_values, values])
    return int(seq[-1]), {"system": system}


def place_tests(evaluations: Sequence[Evaluation], tested_step: int | None) -> tuple[Evaluation, ...]:
    """Give the newest evaluation of the test the step of the weights that it tested: it is recorded with the last."""
    placed = list(evaluations)
    for i in range(len(placed) - 1, -1, -1):
        if placed[i].split == "test" and tested_step is not None:
            placed[i] = replace(placed[i], step=tested_step)
            break
    return tuple(placed)


def of_tests(curves: dict[str, Curve]) -> dict[str, Curve]:
    """Return the curves of the test, which the ``metrics`` table has at the last step instead of the tested one."""
    return {name: curve for name, curve in curves.items() if name.startswith("test/")}


def evaluated_curves(
    evaluations: Sequence[Evaluation], curves: dict[str, Curve], batch_size: float
) -> tuple[dict[str, Curve], dict[str, float]]:
    """Make the curves of evaluations, and their newest values; epochs and times are those of ``curves`` there."""
    points: dict[str, list[tuple[int, float]]] = {}
    for evaluation in evaluations:
        for name, value in evaluation.values.items():
            points.setdefault(f"{evaluation.split}/{name}", []).append((evaluation.step, value))
    clock = np.concatenate(
        [np.zeros((3, 1)), *(np.stack([c.last, c.epoch, c.seconds]) for c in curves.values())], axis=1
    )
    clock = clock[:, np.argsort(clock[0], kind="stable")]
    evaluated = {}
    for name, pairs in points.items():
        step = np.array([step for step, _ in pairs], np.int64)
        epoch, seconds = (np.interp(step, clock[0], clock[row]) for row in (1, 2))
        values = np.array([value for _, value in pairs], float)
        evaluated[name] = raw_curve(step, epoch, step.astype(np.float64) * batch_size, seconds, values)
    return evaluated, {name: pairs[-1][1] for name, pairs in points.items()}


def _whole(table: str, column: NDArray[Any]) -> NDArray[Any]:
    if np.ma.is_masked(column):
        raise ValueError(f"a NULL in {table}")
    return np.asarray(column)


READERS: dict[str, Callable[[Session, int, Measurements], tuple[int, Changes]]] = {
    "curriculum": read_curriculum,
    "confusion": read_confusion,
    "events": read_events,
    "system": read_system,
}
